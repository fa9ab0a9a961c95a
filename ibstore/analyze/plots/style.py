"""How pictures look: quiet, and told apart by everyone."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Final

from ibstore.errors import UsageError

if TYPE_CHECKING:
    import polars as pl
    from matplotlib.axes import Axes
    from matplotlib.axis import Axis
    from matplotlib.figure import Figure

COLOURS: Final = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#5B5B5B", "#B8A800")
"""Okabe and Ito's."""

GREY: Final = "#5B5B5B"
"""Of what is beside the data: captions, names of limits."""

LETTERS_AN_INCH: Final = 10
HANDLE_LETTERS: Final = 6
LINE_INCHES: Final = 0.25
"""How much of a legend fits side by side, what the line before each label takes of that, and how high a row is."""

FEW: Final = 6
MANY: Final = 300
"""Factors between the ends of a logarithmic axis below which it is named in equal steps, or by 1, 2 and 5."""

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


LINES: Final = ("-", "--", ":")
"""What tells lines apart when the colours are used up."""

MOST: Final = len(COLOURS) * len(LINES)


def colour_of(names: list[str], name: str) -> str:
    """Colour of one of several names."""
    return COLOURS[names.index(name) % len(COLOURS)]


def looks_of(names: Sequence[str]) -> dict[str, dict[str, Any]]:
    """Colour and kind of line of each of several names.

    Raises
    ------
    UsageError
        When there are more than can be told apart.
    """
    if len(names) > MOST:
        raise UsageError(
            f"{len(names)} lines are more than the {MOST} that can be told apart; choose fewer runs with --run, or "
            "layers with --layer"
        )
    return {
        name: {"color": COLOURS[number % len(COLOURS)], "linestyle": LINES[number // len(COLOURS)]}
        for number, name in enumerate(names)
    }


@contextmanager
def style() -> Iterator[None]:
    """Draw in the house's style while the context lasts."""
    import matplotlib as mpl

    with mpl.rc_context(STYLE):
        yield


def plain_ticks(axis: "Axis") -> None:
    """Let a logarithmic axis name plain numbers: equal steps, 1, 2 and 5, or powers of ten, as far as it reaches."""
    from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullFormatter

    low, high = axis.get_view_interval()
    digits = (1.0, 2.0, 5.0) if high < MANY * low else (1.0,)
    steps = MaxNLocator(5, steps=[1, 2, 5, 10])
    axis.set_major_locator(steps if high < FEW * low else LogLocator(subs=digits))
    axis.set_major_formatter(FuncFormatter(lambda number, _: f"{number:g}"))
    axis.set_minor_formatter(NullFormatter())


def dots_and_means(axis: "Axes", table: "pl.DataFrame", x: str, y: str, looks: dict[str, Any], label: str) -> None:
    """A dot a row of a table that is in the order of ``x``, and a line through the means at each x."""
    import polars as pl

    means = table.group_by(x, maintain_order=True).agg(pl.col(y).mean())
    axis.scatter(table[x], table[y], color=looks["color"], s=14, alpha=0.5)
    axis.plot(means[x], means[y], linewidth=1.8, label=label, **looks)


def legend_below(figure: "Figure", axes: "Sequence[Axes]") -> None:
    """What axes name, each name once, below all of them, as many side by side as there is room for."""
    named = {label: handle for axis in axes for handle, label in zip(*axis.get_legend_handles_labels(), strict=True)}
    handles, labels = list(named.values()), list(named)
    letters = HANDLE_LETTERS + max(map(len, labels))
    room = int(figure.get_figwidth() * LETTERS_AN_INCH / letters)
    columns = max(1, min(room, len(labels)))
    figure.set_figheight(figure.get_figheight() + LINE_INCHES * (-(-len(labels) // columns) - 1))
    figure.legend(handles, labels, loc="outside lower center", ncols=columns)
