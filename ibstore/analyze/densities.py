"""Estimates from values: a layer is read once for all views of it, and estimators look at what each view leaves."""

import math
from collections.abc import Iterator, Mapping, Sequence

import numpy as np

from ibstore.analyze import estimates
from ibstore.analyze.estimate.density import Density, Row, Variables, find_density
from ibstore.analyze.estimate.entropy import saturated, within
from ibstore.analyze.estimate.joint import counts_of
from ibstore.analyze.parts import Parts
from ibstore.analyze.plan import Budget
from ibstore.analyze.plane import part
from ibstore.analyze.sources import input_source
from ibstore.analyze.tasks import Task
from ibstore.analyze.values import Rows, Values, read_reduced, reduced_epochs
from ibstore.errors import UsageError, ValuesError
from ibstore.events import Emit, Event

Lack = tuple[Task, str, int]
"""A task, the name of an estimator, and an epoch of which it lacks what that estimator makes."""


def lacking(
    todo: Sequence[Task], estimators: Sequence[str], epochs: Sequence[int] | None, parts: Parts
) -> dict[str, Lack]:
    """Estimates that tasks lack of the epochs that are asked for, by content key: one for the same values."""
    wanted = {
        task.value_key(name, epoch): (task, name, epoch)
        for name in estimators
        for task in todo
        for epoch in task.segment.record.epochs
        if epochs is None or epoch in epochs
    }
    there = parts.existing("information_plane", set(wanted))
    return {key: lack for key, lack in wanted.items() if key not in there}


def fill(lack: Mapping[str, Lack], parts: Parts, budget: Budget, emit: Emit) -> None:
    """Make and keep the estimates that tasks lack, layer by layer; each is kept as soon as it is made."""
    groups: dict[tuple[str, ...], dict[str, Lack]] = {}
    for key, each in lack.items():
        place = (*(each[0].names[name] for name in ("run", "split", "layer")), each[0].segment.key)
        groups.setdefault(place, {})[key] = each
    done = 0
    for own in groups.values():
        for key, (task, name, epoch), row in _estimated(own, budget):
            emit(Event("estimate", done, len(lack), f"{name} · {task.what}, epoch {epoch}"))
            done += 1
            estimates.put(parts, "information_plane", key, part(key, [epoch], {} if row is None else {epoch: row}))
    if lack:
        emit(Event("estimate", len(lack), len(lack)))


def _estimated(lack: Mapping[str, Lack], budget: Budget) -> Iterator[tuple[str, Lack, Row | None]]:
    """Rows of what is lacking of one segment's layer, epoch by epoch; None where values are not finite."""
    task, samples = next(iter(lack.values()))[0], next(iter(lack.values()))[0].split.samples
    estimators = {name: find_density(name) for _, name, _ in lack.values()}
    chosen = {name: estimator.chosen(samples) for name, estimator in estimators.items()}
    rows = max(chosen.values(), key=len)
    places = {name: _among(rows, own) for name, own in chosen.items()}
    classes, device = task.run.probe(task.split).classes(), budget.find_device()
    inputs = [each.waist.x for each, name, _ in lack.values() if estimators[name].needs_x]
    x = read_reduced(input_source(task, budget.threads), inputs, rows, budget.values)
    by_epoch: dict[int, dict[str, Lack]] = {}
    for key, own in lack.items():
        by_epoch.setdefault(own[2], {})[key] = own
    for epoch, t in reduced_epochs(task, [each.recipe for each, *_ in lack.values()], rows, budget, by_epoch):
        for key, (each, name, _) in by_epoch[epoch].items():
            estimator, place, what = estimators[name], places[name], f"{name} of {each.what}, epoch {epoch}"
            seen_x = x[each.waist.x.view][0, place] if estimator.needs_x else None
            values = t[each.recipe.view][place]
            _refuse_large(estimator, values, seen_x, budget, what)
            y = None if classes is None else classes[chosen[name]]
            seen = Variables(seen_x, values, y, budget.threads, budget.values, device)
            yield key, (each, name, epoch), _row(estimator, seen, what)


def _refuse_large(estimator: Density, t: Values, x: Values | None, budget: Budget, what: str) -> None:
    """Return when what the estimator holds beside the values has room; IbstoreError before it is spent."""
    units = max(t.shape[1], 0 if x is None else x.shape[1])
    budget.check_room(
        f"{what}: {len(t):,} samples of {units:,} units",
        estimator.bytes(len(t), units),
        "look at fewer (samples=… in its name)",
        taken=min(t.nbytes, budget.values),
    )


def _among(rows: Rows, chosen: Rows) -> slice | Rows:
    """Places of the chosen rows among all that are there; all of them without a copy."""
    return slice(None) if len(rows) == len(chosen) else np.searchsorted(rows, chosen)


def _row(estimator: Density, seen: Variables, what: str) -> Row | None:
    """A row of the plane: what the estimator finds, and what stands in every row; None where values are not finite."""
    if not _finite(seen.t):
        return None
    try:
        found = estimator.row(seen)
    except (ValuesError, UsageError) as error:
        raise type(error)(f"{what}: {error}") from None
    samples, h_y = len(seen.t), None if seen.y is None else counts_of(seen.y).entropy()
    most = {"i_xt": math.log2(samples), "i_ty": h_y}
    clipped = {
        name: within(found[f"{name}_raw"], bound)
        for name, bound in most.items()
        if bound is not None and f"{name}_raw" in found
    }
    return {"n": samples, "h_y": h_y, **found, **clipped, "saturated_t": saturated(found["i_xt_raw"], samples)}


def _finite(values: Values) -> bool:
    """Whether there is neither NaN nor an infinity."""
    return bool(np.isfinite(values.min()) and np.isfinite(values.max()))
