"""How pictures look: quiet, and told apart by everyone."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    import polars as pl
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

COLOURS: Final = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#5B5B5B", "#B8A800")
"""Okabe and Ito's."""

LETTERS_AN_INCH: Final = 10
HANDLE_LETTERS: Final = 6
"""How much of a legend fits side by side, and what the line before each label takes of that."""

STYLE: Final[dict[Any, Any]] = {
    "font.size": 12,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.titlesize": 13,
    "axes.labelsize": 12,
    "axes.grid": True,
    "grid.color": "#E6E6E6",
    "grid.linewidth": 0.8,
    "axes.axisbelow": True,
    "legend.frameon": False,
    "savefig.dpi": 150,
}


def colour_of(names: list[str], name: str) -> str:
    """Colour of one of several names."""
    return COLOURS[names.index(name) % len(COLOURS)]


@contextmanager
def style() -> Iterator[None]:
    """Draw in the house's style while the context lasts."""
    import matplotlib as mpl

    with mpl.rc_context(STYLE):
        yield


def side_by_side(names: Sequence[str]) -> "tuple[Figure, list[tuple[Axes, str]]]":
    """A figure, and its axes with the name of what each shows."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(4.4 * len(names), 3.9), layout="constrained")
    return figure, list(zip(figure.subplots(1, len(names), squeeze=False)[0], names, strict=True))


def dots_and_means(axis: "Axes", table: "pl.DataFrame", x: str, y: str, colour: str, label: str) -> None:
    """A dot a row of a table that is in the order of ``x``, and a line through the means at each x."""
    import polars as pl

    means = table.group_by(x, maintain_order=True).agg(pl.col(y).mean())
    axis.scatter(table[x], table[y], color=colour, s=14, alpha=0.5)
    axis.plot(means[x], means[y], color=colour, linewidth=1.8, label=label)


def legend_below(figure: "Figure") -> None:
    """What the first axes name, below all of them, as many side by side as there is room for."""
    handles, labels = figure.axes[0].get_legend_handles_labels()
    letters = HANDLE_LETTERS + max(map(len, labels))
    room = int(figure.get_figwidth() * LETTERS_AN_INCH / letters)
    figure.legend(handles, labels, loc="outside lower center", ncols=max(1, min(room, len(labels))))
