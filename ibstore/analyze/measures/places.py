"""Where in a picture layers say something: values of their places, sample by sample."""

from collections.abc import Iterator
from itertools import islice
from typing import TYPE_CHECKING, Any, Final

import numpy as np
from numpy.typing import NDArray

from ibstore.analyze.estimate.entropy import NATS_PER_BIT
from ibstore.analyze.measures.tables import frame
from ibstore.analyze.plane import UNITS
from ibstore.analyze.tasks import Task
from ibstore.errors import UsageError

if TYPE_CHECKING:
    import polars as pl

    from ibstore.analyze.selection import Selection

INPUT: Final = "x"
COLUMNS: Final = ("run", "split", "epoch", "layer", "unit", "sample", "row", "column", "value")
DIVERGENCES: Final = ".kl"
"""How layers end that are divergences in nats."""

PLACES: Final = 3
"""Axes of a layer with channels and places."""


def maps(selection: "Selection", count: int, unit: str = "bits") -> "pl.DataFrame":
    """Values of layers and of the input at each place, for the first ``count`` samples: a row a place.

    Columns run, split, epoch, layer (``x``: the input, at every epoch), unit, sample (its id), row, column, value: of
    divergences (``….kl``) the sum over channels in the unit, of other layers and of the input the mean over channels.
    Layers without rows and columns are left out, unless they are asked for by name.

    Raises
    ------
    UsageError
        When no layer has places, or one that is asked for has none, or ``count`` is no number from 1.
    """
    if count < 1:
        raise UsageError(f"count is {count}; give the number of samples, 1 or more")
    rows: list[dict[str, Any]] = []
    seen = set()
    flat = [task.layer.name for task in selection.todo if len(task.layer.shape) != PLACES]
    if flat and selection.layers is not None:
        raise UsageError(f"layer {flat[0]!r} has no channels and places; choose others with --layer")
    for task in selection.todo:
        if len(task.layer.shape) != PLACES or (key := (task.split.name, task.layer.name, task.segment.key)) in seen:
            continue
        seen.add(key)
        for epoch in task.segment.record.epochs:
            if selection.epochs is None or epoch in selection.epochs:
                rows += _of_input(task, epoch, count, seen)
                rows += _of_layer(task, epoch, count, UNITS[unit] / NATS_PER_BIT)
    if not rows:
        raise UsageError("no layer of the selection has channels and places; choose one of pictures with --layer")
    return frame([{**row, "unit": unit} for row in rows], COLUMNS)


def _of_layer(task: Task, epoch: int, count: int, a_nat: float) -> Iterator[dict[str, Any]]:
    values = _first(task.segment.blocks(task.split, task.layer, epoch), count)
    told = task.layer.name.endswith(DIVERGENCES)
    yield from _rows(task, epoch, task.layer.name, values.sum(1) * a_nat if told else values.mean(1))


def _of_input(task: Task, epoch: int, count: int, seen: set[Any]) -> Iterator[dict[str, Any]]:
    """The input, once an epoch, where it is pictures."""
    key = (task.run.name, task.split.name, epoch)
    shape, _ = task.run.probe(task.split).x_form()
    if key not in seen and len(shape) == PLACES:
        seen.add(key)
        yield from _rows(task, epoch, INPUT, _first(task.run.probe(task.split).x_blocks(), count).mean(1))


def _first(blocks: Iterator[NDArray[Any]], count: int) -> NDArray[np.float64]:
    """The first samples of blocks (sample, …)."""
    taken: list[NDArray[Any]] = []
    while sum(map(len, taken)) < count and (block := next(blocks, None)) is not None:
        taken.append(block)
    return np.concatenate(taken)[:count].astype(np.float64)


def _rows(task: Task, epoch: int, layer: str, values: NDArray[np.float64]) -> Iterator[dict[str, Any]]:
    names = {"run": task.run.name, "split": task.split.name, "epoch": epoch, "layer": layer}
    ids = islice(task.run.probe(task.split).samples().tolist(), len(values))
    for sample, picture in zip(ids, values, strict=True):
        for (row, column), value in np.ndenumerate(picture):
            yield {**names, "sample": sample, "row": row, "column": column, "value": float(value)}
