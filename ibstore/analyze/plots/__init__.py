"""Pictures of tables, by kind. matplotlib is imported where a picture is drawn."""

from collections.abc import Callable
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Final

from ibstore.analyze.plots.outcomes import outcomes
from ibstore.analyze.plots.planes import curves, plane
from ibstore.analyze.plots.stochastic import correlation, maps, transmitted
from ibstore.analyze.plots.style import style
from ibstore.errors import UsageError, WriteError
from ibstore.store.places.disk import put_file

if TYPE_CHECKING:
    import polars as pl
    from matplotlib.figure import Figure

KINDS: "Final[dict[str, Callable[[pl.DataFrame], Figure]]]" = {
    "plane": plane,
    "curves": curves,
    "outcomes": outcomes,
    "transmitted": transmitted,
    "correlation": correlation,
    "maps": maps,
}


def check(kind: str, out: Path) -> None:
    """Return when there is such a kind of picture and such a format of file; raises `UsageError`."""
    if kind not in KINDS:
        raise UsageError(f"there is no picture {kind!r}; there are {', '.join(KINDS)}")
    if out.suffix.lower() not in {".png", ".svg", ".pdf"}:
        raise UsageError(f"{out} has no known picture format; end the name in .png, .svg or .pdf")


def draw(kind: str, table: "pl.DataFrame", out: Path) -> None:
    """Draw a table as a picture of ``kind`` to ``out``; its suffix says the format.

    Raises
    ------
    UsageError
        When there is no such kind or no such format, or the table has not what the picture shows.
    WriteError
        When the file cannot be written.
    """
    check(kind, out)
    if table["unit"].n_unique() > 1:
        raise UsageError("the table has bits and nats, which no axis holds together; draw one unit at a time")
    if not len(table):
        raise UsageError("there is nothing to draw: the table has no row; choose fewer filters")
    figure = KINDS[kind](table)
    content = BytesIO()
    with style():
        figure.savefig(content, format=out.suffix[1:].lower())
    try:
        put_file(out, content.getvalue())
    except OSError as error:
        raise WriteError(f"cannot write {out}: {error.strerror or error}; choose another path with -o") from error
