"""Panels on a page: what every picture is made of.

A kind of picture is a function from a table to a `Page`; what a page is drawn on, a figure of its own or axes of the
user's, is decided here for all of them.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import wraps
from typing import TYPE_CHECKING, Any

from ibstore.analyze.plots.style import style
from ibstore.errors import UsageError

if TYPE_CHECKING:
    import polars as pl
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    Finish = Callable[[Figure, list[Axes]], None]

Draw = Callable[["Axes"], None]


@dataclass(frozen=True)
class Panel:
    """A part of a picture with axes of its own: its title, and what draws it on them."""

    title: str
    draw: Draw


def nothing(figure: "Figure", axes: "list[Axes]") -> None:
    """Add nothing."""


@dataclass(frozen=True)
class Page:
    """Panels, row by row.

    Parameters
    ----------
    panels
        At least one.
    columns
        How many stand side by side.
    inches
        Width and height of one.
    finish
        Adds to a figure of its own what is about all panels: a legend, a caption, colour bars.
    margin
        Inches of width and height that a figure has beside its panels.
    """

    panels: Sequence[Panel]
    columns: int
    inches: tuple[float, float] = (4.4, 3.9)
    finish: "Finish" = field(default=nothing)
    margin: tuple[float, float] = (0.0, 0.0)

    def figure(self) -> "Figure":
        """All panels on a figure of its own, in the house's style."""
        from matplotlib.figure import Figure

        (width, height), (right, below), (rows, columns) = self.inches, self.margin, self._grid
        with style():
            figure = Figure(figsize=(width * columns + right, height * rows + below), layout="constrained")
        self.fill(figure)
        return figure

    @property
    def _grid(self) -> tuple[int, int]:
        columns = min(self.columns, len(self.panels))
        return -(-len(self.panels) // columns), columns

    def fill(self, figure: "Figure") -> None:
        """All panels on an empty figure, in the house's style."""
        rows, columns = self._grid
        with style():
            axes = figure.subplots(rows, columns, squeeze=False).ravel().tolist()
            for axis, panel in zip(axes, self.panels, strict=False):
                panel.draw(axis)
                axis.set_title(panel.title)
            for spare in axes[len(self.panels) :]:
                spare.remove()
            self.finish(figure, axes[: len(self.panels)])

    def on(self, axes: "Axes | None") -> "Axes":
        """Its one panel on axes of the user's, in whatever style they have; without any on a figure of its own.

        Raises
        ------
        UsageError
            When there are several panels.
        """
        if len(self.panels) > 1:
            titles = ", ".join(repr(panel.title) for panel in self.panels[:3]) + ", …" * (len(self.panels) > 3)  # noqa: PLR2004
            raise UsageError(
                f"the table makes {len(self.panels)} panels ({titles}), and axes hold one; filter it, or draw all with "
                "ibstore.plots.figure"
            )
        if axes is None:
            return self.figure().axes[0]
        (panel,) = self.panels
        panel.draw(axes)
        axes.set_title(panel.title)
        return axes


def last_epochs(table: "pl.DataFrame") -> "pl.DataFrame":
    """Rows of each run's last epoch."""
    import polars as pl

    return table.filter(pl.col("epoch") == pl.col("epoch").max().over("run"))


Kind = Callable[..., Page]
"""From a table, and options by name."""


def alone(kind: Kind) -> "Callable[..., Axes]":
    """A kind of picture as users call it: ``plane(table, ax=None) -> Axes``."""

    @wraps(kind)
    def drawn(table: "pl.DataFrame", ax: "Axes | None" = None, **options: Any) -> "Axes":
        return kind(table, **options).on(ax)

    return drawn
