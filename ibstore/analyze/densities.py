"""Estimates from values: a layer is read once for all views of it, and estimators look at what each view leaves."""

import math
from collections.abc import Iterator, Sequence

import numpy as np

from ibstore.analyze import estimates
from ibstore.analyze.estimate.density import Density, Row, Variables, find_density, label_entropy
from ibstore.analyze.estimate.entropy import saturated, within
from ibstore.analyze.narrow import has_nan
from ibstore.analyze.parts import Parts
from ibstore.analyze.plan import Budget
from ibstore.analyze.plane import part
from ibstore.analyze.sources import input_source
from ibstore.analyze.tasks import Task
from ibstore.analyze.values import Rows, read_reduced, reduced_epochs
from ibstore.errors import ValuesError
from ibstore.events import Emit, Event
from ibstore.store.format.probe import integer_labels

Lack = tuple[Task, str]
"""A task, and the name of an estimator that it lacks."""


def lacking(todo: Sequence[Task], estimators: Sequence[str], parts: Parts) -> list[Lack]:
    """Estimates that tasks lack, one for those that see the same values."""
    wanted = {task.plane_key(name): (task, name) for name in estimators for task in todo}
    there = parts.existing("information_plane", set(wanted))
    return [lack for key, lack in wanted.items() if key not in there]


def fill(todo: Sequence[Task], estimators: Sequence[str], parts: Parts, budget: Budget, emit: Emit) -> None:
    """Make and keep the estimates that tasks lack, layer by layer."""
    groups: dict[tuple[str, str, str, str], list[Lack]] = {}
    for task, name in lacking(todo, estimators, parts):
        place = task.run.name, task.split.name, task.layer.name, task.segment.key
        groups.setdefault(place, []).append((task, name))
    total = sum(len(lack) * len(lack[0][0].segment.record.epochs) for lack in groups.values())
    done = 0
    for lack in groups.values():
        found: dict[str, dict[int, Row]] = {task.plane_key(name): {} for task, name in lack}
        for epoch, (task, name), row in _estimated(lack, budget):
            emit(Event("estimate", done, total, f"{name} · {task.what}, epoch {epoch}"))
            done += 1
            if row is not None:
                found[task.plane_key(name)][epoch] = row
        for key, rows in found.items():
            estimates.put(parts, "information_plane", key, part(key, lack[0][0].segment.record.epochs, rows))
    if total:
        emit(Event("estimate", total, total))


def _estimated(lack: Sequence[Lack], budget: Budget) -> Iterator[tuple[int, Lack, Row | None]]:
    """Rows of the estimates that are lacking of one segment's layer, epoch by epoch; None where there is NaN."""
    task = lack[0][0]
    estimators = {name: find_density(name) for _, name in lack}
    rows = max((each.chosen(task.split.samples) for each in estimators.values()), key=len)
    labels = task.run.probe(task.split).labels()
    y = None if labels is None else integer_labels(labels)[rows]
    inputs = [each.waist.x for each, name in lack if estimators[name].needs_x]
    device = budget.find_device()
    with read_reduced(input_source(task, budget.threads), inputs, rows, budget.values) as x:
        for epoch, t in reduced_epochs(task, [each.recipe for each, _ in lack], rows, budget):
            for each, name in lack:
                estimator = estimators[name]
                own = _among(rows, estimator.chosen(task.split.samples))
                seen = Variables(
                    x[each.waist.x.view][0, own] if estimator.needs_x else None,
                    t[each.recipe.view][own],
                    None if y is None else y[own],
                    budget.threads,
                    budget.values,
                    device,
                )
                yield epoch, (each, name), _row(estimator, seen, f"{name} of {each.what}, epoch {epoch}")


def _among(rows: Rows, chosen: Rows) -> slice | Rows:
    """Places of the chosen rows among all that are there; all of them without a copy."""
    return slice(None) if len(rows) == len(chosen) else np.searchsorted(rows, chosen)


def _row(estimator: Density, seen: Variables, what: str) -> Row | None:
    """A row of the plane: what the estimator finds, and what stands in every row; None where values have NaN."""
    if has_nan(seen.t):
        return None
    try:
        found = estimator.row(seen)
    except ValuesError as error:
        raise ValuesError(f"{what}: {error}") from None
    samples, h_y = len(seen.t), None if seen.y is None else label_entropy(seen.y)
    most = {"i_xt": math.log2(samples), "i_ty": h_y}
    clipped = {name: within(found[f"{name}_raw"], bound) for name, bound in most.items() if bound is not None}
    full = saturated(found["i_xt_raw"], samples)
    return {"n": samples, "h_y": h_y, **found, **clipped, "saturated_t": full}
