"""How pictures look: quiet, and told apart by everyone."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Final

COLOURS: Final = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#5B5B5B", "#B8A800")
"""Okabe and Ito's."""

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
