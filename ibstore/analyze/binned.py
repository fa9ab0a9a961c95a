"""Bin numbers of every unit, for questions that the patterns' keys do not answer."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from ibstore.analyze.discretize import Binning
from ibstore.analyze.grammar import Call, Recipe
from ibstore.analyze.narrow import (
    Edges,
    Form,
    beyond,
    bins_of,
    edges_of,
    fit_levels,
    has_nan,
    is_fitted,
    nan_refused,
    takes_nan,
)
from ibstore.analyze.plan import Budget
from ibstore.analyze.scan import Source, fit_together
from ibstore.analyze.sources import layer_source
from ibstore.analyze.tasks import Task
from ibstore.analyze.values import Values, reduced_epochs
from ibstore.errors import ValuesError

NO_LEVELS: Final = np.empty((0, 1))
"""Of edges that are given."""


@dataclass(frozen=True)
class Binned:
    """A layer's reduced values at an epoch and their bin numbers, (sample, unit).

    ``below`` and ``above`` are how many values lie beyond the range that is divided, None of codes without a range.
    """

    epoch: int
    values: Values
    bins: NDArray[Any]
    below: int | None
    above: int | None


def binned(task: Task, epochs: Sequence[int] | None, budget: Budget) -> Iterator[Binned]:
    """Each epoch of a task.

    Raises
    ------
    ValuesError
        When values cannot be discretized.
    """
    recipe, rows = task.recipe, np.arange(task.split.samples)
    _refuse_large(task, budget)
    over_run = None
    if recipe.per == "run":
        over_run = _levels(layer_source(task, task.run.segments, budget.threads), recipe, budget)
    for epoch, views in reduced_epochs(task, [recipe], rows, budget, epochs):
        yield _binned(task, epoch, views[recipe.view], over_run, budget)


def _refuse_large(task: Task, budget: Budget) -> None:
    """Return when bins and edges of all units, and as much again to work on them, have room; IbstoreError where not."""
    form = layer_source(task, [task.segment], 1).form(task.recipe)
    bins = form.samples * form.units * (1 if isinstance(task.recipe.discretize, Binning) else form.dtype.itemsize)
    edges = 8 * form.units * (task.recipe.discretize.bins + 1) if isinstance(task.recipe.discretize, Binning) else 0
    budget.check_room(
        f"{task.what}: bins of {form.samples:,} samples and {form.units:,} units",
        2 * (bins + edges),
        "narrow the layer more",
        taken=form.bytes,
    )


def _levels(source: Source, recipe: Recipe, budget: Budget) -> NDArray[np.float64]:
    """Quantiles that the edges are made of."""
    return fit_together(source, [recipe], budget.counting, fit_levels)[recipe]


def _binned(task: Task, epoch: int, values: Values, over_run: NDArray[np.float64] | None, budget: Budget) -> Binned:
    recipe, what = task.recipe, f"{task.what}, epoch {epoch}"
    if has_nan(values) and not takes_nan(recipe):
        raise nan_refused(what)
    form = replace(layer_source(task, [task.segment], 1).form(recipe), dtype=values.dtype)
    if not isinstance(recipe.discretize, Binning):
        return Binned(epoch, values, _bins(recipe, form, None, values, what), None, None)
    levels = NO_LEVELS if over_run is None else over_run
    if is_fitted(recipe) and over_run is None:
        levels = _levels(_in_memory(values, form, what), _as_it_is(recipe), budget)
    bins = _bins(recipe, form, edges_of(recipe, levels), values, what)
    return Binned(epoch, values, bins, *beyond(recipe, form, levels, values))


def _bins(recipe: Recipe, form: Form, edges: Edges | None, values: Values, what: str) -> NDArray[Any]:
    try:
        return bins_of(recipe, form, edges, values)
    except ValueError as error:
        raise ValuesError(f"{what}: {error}; choose another discretization") from None


def _in_memory(values: Values, form: Form, what: str) -> Source:
    """Values (sample, unit) as a source of one epoch, in the shape that the recipe sees."""
    block = values.reshape(1, len(values), *form.shape)
    return Source(lambda work: [work(0, 0, block)], (what,), form.shape, values.dtype, len(values))


def _as_it_is(recipe: Recipe) -> Recipe:
    """The recipe of values that are reduced already."""
    return replace(recipe, reduction=Call("identity"), channel=None)
