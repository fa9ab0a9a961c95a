"""The information plane as it fills, epoch by epoch: GIF by Pillow, MP4 by ffmpeg where there is one."""

from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any, Final

from ibstore.analyze.plots.planes import plane
from ibstore.analyze.plots.style import style
from ibstore.errors import UsageError
from ibstore.store.places.disk import save

if TYPE_CHECKING:
    import polars as pl

SUFFIXES: Final = (".gif", ".mp4")
PER_SECOND: Final = 8
LAST: Final = 12
"""Frames for which the last epoch stays."""

DPI: Final = 100


def check(out: Path) -> None:
    """Return when a film can be written to such a file.

    Raises
    ------
    UsageError
        When its name has another ending, or there is no ffmpeg for an MP4.
    """
    from matplotlib.animation import FFMpegWriter

    if out.suffix.lower() not in SUFFIXES:
        raise UsageError(f"{out} has no known format of films; end the name in {' or '.join(SUFFIXES)}")
    if out.suffix.lower() == ".mp4" and not FFMpegWriter.isAvailable():
        raise UsageError(f"{out} needs ffmpeg, and there is none here; install it, or end the name in .gif")


def animate(table: "pl.DataFrame", out: Path, **options: Any) -> None:
    """Write the plane as a film to ``out``: a frame an epoch, each with the path so far.

    Parameters
    ----------
    table, **options
        As for the picture of the plane.
    out
        A name that ends in .gif or .mp4.

    Raises
    ------
    UsageError
        When there is no such format here, or there is nothing to draw.
    WriteError
        When the file cannot be written.
    """
    from matplotlib.animation import FFMpegWriter, PillowWriter

    check(out)
    epochs = table["epoch"].unique().sort().to_list()
    if not epochs:
        raise UsageError("there is nothing to draw: the table has no row; choose fewer filters")
    figure = plane(table, **options).figure()
    width, height = figure.get_size_inches()
    writer = (PillowWriter if out.suffix.lower() == ".gif" else FFMpegWriter)(fps=PER_SECOND)
    with TemporaryDirectory(prefix="ibstore-") as folder, style():
        film = Path(folder, f"film{out.suffix.lower()}")
        with writer.saving(figure, str(film), DPI):
            for epoch in epochs:
                figure.clear()
                plane(table.filter(table["epoch"] <= epoch), **options).fill(figure)
                figure.set_size_inches(width, height)  # a legend of several rows has it grow, frame by frame
                writer.grab_frame()
            for _ in range(LAST):
                writer.grab_frame()
        content = film.read_bytes()
    save(out, content, "--animate")
