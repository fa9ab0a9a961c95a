"""Panels on a page: what every picture is made of.

A kind of picture is a function from a table to a `Page`; what a page is drawn on, a figure of its own or axes of the
user's, is decided here for all of them.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import wraps
from textwrap import wrap
from typing import TYPE_CHECKING, Any, Final

from ibstore.analyze.plots.style import GREY, short_names, style
from ibstore.errors import UsageError

if TYPE_CHECKING:
    import polars as pl
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    Finish = Callable[[Figure, list[Axes]], None]

Draw = Callable[["Axes"], None]

NUMBERED: Final = ("epoch", "sample", "label")
"""Columns whose values mean nothing without their name."""

NAMED: Final = 3
"""Runs that a caption names; of more it says how many."""

INCHES_A_LETTER: Final = 0.085
"""Of a caption."""

POINTS: Final = 72
LETTER: Final = 0.55
SMALLEST: Final = 7
BESIDE: Final = 0.5
"""Points an inch; how wide a letter is, of how high it is; points of the smallest letters of a title; inches of a panel
beside its axes."""


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
                _draw(panel, axis)
            for spare in axes[len(self.panels) :]:
                spare.remove()
            self.finish(figure, axes[: len(self.panels)])
            for axis in axes[: len(self.panels)]:
                _fit(axis, self.inches[0])

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
        _draw(panel, axes)
        return axes


def _fit(axis: "Axes", inches: float) -> None:
    """Letters of a title as small as it needs to stand above a panel."""
    longest = max(map(len, axis.get_title().split("\n")))
    room = max(SMALLEST, POINTS * (inches - BESIDE) / (LETTER * max(1, longest)))
    axis.title.set_fontsize(min(axis.title.get_fontsize(), room))


def _draw(panel: Panel, axes: "Axes") -> None:
    """A panel on axes; of what has the same name on them, as runs over each other have, one has it in a legend."""
    panel.draw(axes)
    axes.set_title(panel.title)
    handles, labels = axes.get_legend_handles_labels()
    for number, (handle, label) in enumerate(zip(handles, labels, strict=True)):
        if label in labels[:number] and hasattr(handle, "set_label"):
            handle.set_label("_nolegend_")


def last_epochs(table: "pl.DataFrame") -> "pl.DataFrame":
    """Rows of each run's last epoch."""
    import polars as pl

    return table.filter(pl.col("epoch") == pl.col("epoch").max().over("run"))


def several(table: "pl.DataFrame", *names: str) -> list[str]:
    """Those of the columns that hold more than one value: what a panel has to say of its rows."""
    return [name for name in names if name in table.columns and table[name].n_unique() > 1]


def told(rows: "pl.DataFrame", names: Sequence[str]) -> str:
    """What rows of one panel are of, as a line below its title; nothing without names."""
    parts = [f"{name} {rows[name][0]}" if name in NUMBERED else str(rows[name][0]) for name in names]
    return "\n" + " · ".join(parts) if parts else ""


def caption(table: "pl.DataFrame", *more: str, over: bool = False) -> str:
    """What is drawn: the runs (their number, where they are many) and splits, the epoch and sample, where one is.

    With ``over`` several runs are in one panel, and nothing tells them apart.
    """
    runs = table["run"].unique(maintain_order=True).to_list()
    of_runs = ", ".join(runs) if len(runs) <= NAMED else f"{len(runs)} runs"
    if over and len(runs) > 1:
        of_runs = f"{of_runs} over each other" if len(runs) > NAMED else f"runs over each other: {of_runs}"
    splits = [", ".join(table["split"].unique(maintain_order=True))] if "split" in table.columns else []
    known = [name for name in NUMBERED if name in more and name in table.columns and table[name].is_not_null().all()]
    single = [f"{name} {table[name][0]}" for name in known if table[name].n_unique() == 1]
    return " · ".join([of_runs, *splits, *single])


def captioned(table: "pl.DataFrame", *more: str, over: bool = False, finish: "Finish" = nothing) -> "Finish":
    """Above all panels what `caption` says, and then what another one adds."""

    def added(figure: "Figure", axes: "list[Axes]") -> None:
        head(figure, caption(table, *more, over=over))
        finish(figure, axes)

    return added


def head(figure: "Figure", text: str) -> None:
    """A caption above all panels, in lines that the figure has room for."""
    lines = wrap(text, max(20, int(figure.get_figwidth() / INCHES_A_LETTER)), break_long_words=False)
    figure.suptitle("\n".join(lines), fontsize=11, color=GREY)


Kind = Callable[..., Page]
"""From a table, and options by name."""


def draws(what: str, *columns: str, without: Sequence[str] = ()) -> "Callable[[Kind], Kind]":
    """A kind of picture that draws ``what``, tables with such columns; other ones are refused, long names shortened.

    Columns ``without`` are those by which another measure's table with all of them is known.
    """

    def checked(kind: Kind) -> Kind:
        @wraps(kind)
        def page(table: "pl.DataFrame", **options: Any) -> Page:
            _check(table, f"{kind.__name__} draws {what}", columns, without)
            return kind(_shortened(table), **options)

        return page

    return checked


def _check(table: object, says: str, columns: Sequence[str], without: Sequence[str]) -> None:
    import polars as pl

    if not isinstance(table, pl.DataFrame):
        given = f"{type(table).__module__}.{type(table).__name__}".removeprefix("builtins.")
        raise UsageError(f"{says}, a polars table, and this is {given}; give it the one it draws")
    lacking = [name for name in ("unit", *columns) if name not in table.columns]
    if lacking:
        raise UsageError(
            f"{says}, and this table has no column {', '.join(map(repr, lacking))}; give it the one it draws"
        )
    others = [name for name in without if name in table.columns]
    if others:
        raise UsageError(
            f"{says}, which has no column {', '.join(map(repr, others))} as this has; give it the one it draws"
        )
    if table["unit"].n_unique() > 1:
        raise UsageError("the table has bits and nats, which no axis holds together; draw one unit at a time")
    if not len(table):
        raise UsageError("there is nothing to draw: the table has no row; choose fewer filters")


def _shortened(table: "pl.DataFrame") -> "pl.DataFrame":
    """The same with names that titles and legends have room for."""
    import polars as pl

    own = [name for name in ("run", "split", "layer") if name in table.columns]
    return table.with_columns(pl.col(name).cast(pl.String).replace(short_names(table[name])) for name in own)


def alone(kind: Kind) -> "Callable[..., Axes]":
    """A kind of picture as users call it: ``plane(table, ax=None) -> Axes``."""

    @wraps(kind)
    def drawn(table: "pl.DataFrame", ax: "Axes | None" = None, **options: Any) -> "Axes":
        return kind(table, **options).on(ax)

    return drawn
