"""Reduced values of whole layers, for those who look at values instead of counting keys.

A layer is read once for all views of it. What has no room in memory is put into a temporary file and mapped from there.
"""

import math
import tempfile
from collections.abc import Collection, Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ibstore.analyze.grammar import Recipe, View
from ibstore.analyze.plan import Budget
from ibstore.analyze.scan import Source
from ibstore.analyze.sources import layer_source
from ibstore.analyze.tasks import Task

Values = NDArray[Any]
Rows = NDArray[np.int64]


def reduced_epochs(
    task: Task, recipes: Sequence[Recipe], rows: Rows, budget: Budget, asked: Collection[int] | None = None
) -> Iterator[tuple[int, dict[View, Values]]]:
    """Each epoch of a task's segment that is asked for, with the reduced values (row, unit) by view.

    As many are read at a time as have room.
    """
    epochs = task.segment.record.epochs
    positions = [position for position, epoch in enumerate(epochs) if asked is None or epoch in asked]
    source = layer_source(task, [task.segment], budget.threads)
    size = sum(_bytes(source, recipe, rows) for recipe in _by_view(recipes).values()) // len(epochs)
    at_once = max(1, budget.values // max(1, size))
    for start in range(0, len(positions), at_once):
        some = positions[start : start + at_once]
        values = read_reduced(layer_source(task, [task.segment], budget.threads, some), recipes, rows, budget.values)
        for number, position in enumerate(some):
            yield epochs[position], {view: own[number] for view, own in values.items()}


def read_reduced(source: Source, recipes: Sequence[Recipe], rows: Rows, room: int) -> dict[View, Values]:
    """Reduced values of some samples, (epoch, row, unit), by view: in memory, or in files where they have no room."""
    views, values = _by_view(recipes), {}
    for view, recipe in views.items():
        size = _bytes(source, recipe, rows)
        values[view] = _empty(source, recipe, rows, in_file=size > room)
        room -= size if size <= room else 0

    def work(epoch: int, start: int, block: Values) -> None:
        first, last = np.searchsorted(rows, (start, start + block.shape[1]))
        picked = block[:, rows[first:last] - start]
        for view, recipe in views.items():
            reduced = recipe.reduce(picked.reshape(-1, *block.shape[2:]))
            values[view][epoch : epoch + len(block), first:last] = reduced.reshape(*picked.shape[:2], -1)

    if views:
        for _ in source.passes(work):
            pass
    return values


def _by_view(recipes: Sequence[Recipe]) -> dict[View, Recipe]:
    return {recipe.view: recipe for recipe in recipes}


def _shape(source: Source, recipe: Recipe, rows: Rows) -> tuple[int, int, int]:
    return len(source.names), len(rows), source.form(recipe).units


def _dtype(source: Source, recipe: Recipe) -> np.dtype[Any]:
    """Of reduced values as estimators see them: float32, or float64 where that does not hold them."""
    return np.result_type(source.form(recipe).dtype, np.float32)


def _bytes(source: Source, recipe: Recipe, rows: Rows) -> int:
    return math.prod(_shape(source, recipe, rows)) * _dtype(source, recipe).itemsize


def _empty(source: Source, recipe: Recipe, rows: Rows, *, in_file: bool) -> Values:
    """Room for values; a file has no name, so that nothing is left of it however the process ends."""
    shape, dtype = _shape(source, recipe, rows), _dtype(source, recipe)
    if not in_file:
        return np.empty(shape, dtype)
    with tempfile.TemporaryFile(prefix="ibstore-") as file:
        return np.memmap(file, dtype, "w+", shape=shape)
