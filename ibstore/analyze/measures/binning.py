"""How a waist's bins lie over the values: what is clipped into the end bins, and how many bins are used."""

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, Final

import numpy as np
from numpy.typing import NDArray

from ibstore.analyze.binned import Binned, binned
from ibstore.analyze.keys import NAMES, names_of
from ibstore.analyze.measures.tables import frame

if TYPE_CHECKING:
    import polars as pl

    from ibstore.analyze.selection import Selection

COLUMNS: Final = 256
"""Units that are sorted at one time."""


def ranges(selection: "Selection") -> "pl.DataFrame":
    """Values beyond the range that is divided into bins, and bins that are used: a row a layer and epoch.

    Columns run, split, epoch, layer, channel, waist, edges ("fixed", or fitted to each "epoch" or the "run"), n, units;
    below and above, how many values were clipped into the end bins, and clipped, their share of all (null for codes,
    which have no range); bins_used, the mean over units, and constant, how many units have one bin only.
    """
    measured = ("n", "units", "below", "above", "clipped", "bins_used", "constant")
    return frame(_rows(selection), (*NAMES, *measured))


def _rows(selection: "Selection") -> Iterator[dict[str, Any]]:
    for task in selection.todo:
        for found in binned(task, selection.epochs, selection.budget):
            yield {**names_of(task, found.epoch), **_row(found)}


def _distinct(bins: NDArray[Any]) -> NDArray[np.int64]:
    """How many bins each unit has, (unit,)."""
    ordered = np.sort(bins, axis=0)
    return np.asarray(1 + (ordered[1:] != ordered[:-1]).sum(axis=0))


def _row(found: Binned) -> dict[str, Any]:
    samples, units = found.bins.shape
    used = np.concatenate([_distinct(found.bins[:, start : start + COLUMNS]) for start in range(0, units, COLUMNS)])
    row = {"n": samples, "units": units, "below": found.below, "above": found.above}
    if found.below is not None and found.above is not None:
        row["clipped"] = (found.below + found.above) / (samples * units)
    return row | {"bins_used": float(used.mean()), "constant": int((used == 1).sum())}
