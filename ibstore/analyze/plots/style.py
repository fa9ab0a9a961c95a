"""How pictures look: quiet, and told apart by everyone."""

import warnings
from collections.abc import Iterable, Iterator, Sequence
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
HANDLE_LETTERS: Final = 8
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

MARKERS: Final = ("o", "s", "^", "D", "v", "P", "X", "*")
"""What tells dots apart when the colours are used up."""

HATCHES: Final = ("", "///", "...")
"""What tells bars apart, as `LINES` does lines."""

LONGEST: Final = 28
MOST_LETTERS: Final = 44
"""Letters of a name in a title or legend, and of one that needs more to be told from another one."""


def short(name: str, most: int = LONGEST) -> str:
    """A name without its middle, where it is longer than ``most``: how it begins and ends tells it from others.

    >>> short("encoder.layers.11.attention.output", 15)
    'encoder….output'
    """
    head, tail = most // 2, (most - 1) // 2
    return name if len(name) <= most else f"{name[:head]}…{name[-tail:]}"


def short_names(names: "Iterable[str]") -> dict[str, str]:
    """Short form of each of several names: longer, or with a number, only where two would else read alike."""
    different = list(dict.fromkeys(names))
    for most in range(LONGEST, MOST_LETTERS + 1):
        found = [short(name, most) for name in different]
        if len(set(found)) == len(found):
            return dict(zip(different, found, strict=True))
    alike = [short(name) for name in different]
    counted = [
        f"{name} ({alike[:at].count(name) + 1})" if alike.count(name) > 1 else name for at, name in enumerate(alike)
    ]
    return dict(zip(different, counted, strict=True))


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
    return _combined(names, "linestyle", LINES)


def dots_of(names: Sequence[str]) -> dict[str, dict[str, Any]]:
    """Colour and marker of each of several names; raises as `looks_of`."""
    return _combined(names, "marker", MARKERS)


def _combined(names: Sequence[str], what: str, marks: Sequence[str]) -> dict[str, dict[str, Any]]:
    """All colours with the first mark, then all with the second one, and so on."""
    most = len(COLOURS) * len(marks)
    if len(names) > most:
        raise UsageError(
            f"{len(names)} lines are more than the {most} that can be told apart; choose fewer runs with --run, or "
            "layers with --layer"
        )
    return {
        name: {"color": COLOURS[number % len(COLOURS)], what: marks[number // len(COLOURS)]}
        for number, name in enumerate(names)
    }


@contextmanager
def style() -> Iterator[None]:
    """Draw in the house's style while the context lasts."""
    import matplotlib as mpl

    with mpl.rc_context(STYLE), warnings.catch_warnings():
        # Of a name in letters that the font lacks: the picture shows boxes, and the user cannot mend that here.
        warnings.filterwarnings("ignore", message=r"Glyph \d+ .* missing from font", category=UserWarning)
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


def epoch_ticks(axis: "Axes") -> None:
    """Let the horizontal axis name whole epochs, those alone that are, where they are one."""
    from matplotlib.ticker import MaxNLocator

    epochs = {float(epoch) for line in axis.lines for epoch in line.get_xdata() if len(line.get_ydata()) > 0}  # type: ignore[union-attr, arg-type]
    axis.xaxis.set_major_locator(MaxNLocator(integer=True, nbins=6))
    if len(epochs) == 1:  # around one the axis is narrower than a step
        axis.set_xticks([int(epoch) for epoch in epochs])


def dots_and_means(axis: "Axes", table: "pl.DataFrame", x: str, y: str, looks: dict[str, Any], label: str) -> None:
    """A dot a row of a table that is in the order of ``x``, and a line through the means at each x."""
    import polars as pl

    means = table.group_by(x, maintain_order=True).agg(pl.col(y).mean())
    axis.scatter(table[x], table[y], color=looks["color"], s=14, alpha=0.5)
    axis.plot(means[x], means[y], linewidth=1.8, label=label, **looks)


def legend_below(figure: "Figure", axes: "Sequence[Axes]") -> None:
    """What axes name, each name once, below all of them, as many side by side as there is room for."""
    named: dict[str, Any] = {}
    for axis in axes:
        for handle, label in zip(*axis.get_legend_handles_labels(), strict=True):
            named.setdefault(label, handle)
    legend_of(figure, list(named.values()), list(named))


def legend_of(figure: "Figure", handles: Sequence[Any], labels: Sequence[str], title: str | None = None) -> None:
    """A legend below all panels, as many names side by side as there is room for; the figure grows by further rows."""
    columns = _side_by_side([len(label) + HANDLE_LETTERS for label in labels], figure.get_figwidth() * LETTERS_AN_INCH)
    figure.set_figheight(figure.get_figheight() + LINE_INCHES * (-(-len(labels) // columns) - 1))
    figure.legend(handles, labels, loc="outside lower center", ncols=columns, title=title)


def _side_by_side(letters: Sequence[int], room: float) -> int:
    """Most columns that have room; they are filled one after the other, and each is as wide as its widest entry."""
    import numpy as np

    for columns in range(len(letters), 1, -1):
        if sum(part.max() for part in np.array_split(np.array(letters), columns)) <= room:
            return columns
    return 1
