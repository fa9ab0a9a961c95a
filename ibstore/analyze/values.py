"""Reduced values of whole layers, for those who look at values instead of counting keys.

A layer is read once for all views of it. What has no room in memory is put into a temporary file and mapped from there.
"""

import math
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
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
    task: Task, recipes: Sequence[Recipe], rows: Rows, budget: Budget
) -> Iterator[tuple[int, dict[View, Values]]]:
    """Each epoch of a task's segment, with the reduced values (row, unit) by view; as many are read as have room."""
    epochs, positions = task.segment.record.epochs, range(len(task.segment.record.epochs))
    source = layer_source(task, [task.segment], budget.threads)
    size = sum(_bytes(source, recipe, rows) for recipe in _by_view(recipes).values()) // len(epochs)
    at_once = max(1, budget.values // max(1, size))
    for start in positions[::at_once]:
        some = positions[start : start + at_once]
        with read_reduced(
            layer_source(task, [task.segment], budget.threads, some), recipes, rows, budget.values
        ) as values:
            for number, position in enumerate(some):
                yield epochs[position], {view: own[number] for view, own in values.items()}


@contextmanager
def read_reduced(source: Source, recipes: Sequence[Recipe], rows: Rows, room: int) -> Iterator[dict[View, Values]]:
    """Reduced values of some samples, (epoch, row, unit), by view: in memory, or in files where they have no room."""
    with tempfile.TemporaryDirectory(prefix="ibstore-") as folder:
        views, values = _by_view(recipes), {}
        for number, (view, recipe) in enumerate(views.items()):
            size = _bytes(source, recipe, rows)
            values[view] = _empty(source, recipe, rows, None if size <= room else Path(folder, str(number)))
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
        yield values


def _by_view(recipes: Sequence[Recipe]) -> dict[View, Recipe]:
    return {recipe.view: recipe for recipe in recipes}


def _shape(source: Source, recipe: Recipe, rows: Rows) -> tuple[int, int, int]:
    return len(source.names), len(rows), source.form(recipe).units


def _dtype(source: Source, recipe: Recipe) -> np.dtype[Any]:
    """Of reduced values as estimators see them: float32, or float64 where that does not hold them."""
    return np.result_type(source.form(recipe).dtype, np.float32)


def _bytes(source: Source, recipe: Recipe, rows: Rows) -> int:
    return math.prod(_shape(source, recipe, rows)) * _dtype(source, recipe).itemsize


def _empty(source: Source, recipe: Recipe, rows: Rows, path: Path | None) -> Values:
    shape, dtype = _shape(source, recipe, rows), _dtype(source, recipe)
    return np.empty(shape, dtype) if path is None else np.memmap(path, dtype, "w+", shape=shape)
