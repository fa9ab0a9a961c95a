"""What a layer looks like: values of its units, of one sample, and what a waist makes of them, place by place.

Units are numbered as they lie in memory. Of a layer (map, row, column) a unit has these three; of (row, column) its map
is 0, of a single axis its row, too.
"""

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any, Final

import numpy as np
from numpy.typing import NDArray

from ibstore.analyze.binned import binned
from ibstore.analyze.grammar import parse_recipe
from ibstore.analyze.keys import names_of
from ibstore.analyze.measures.tables import frame
from ibstore.analyze.sources import layer_source
from ibstore.analyze.tasks import Task
from ibstore.analyze.values import reduced_epochs
from ibstore.errors import UsageError

if TYPE_CHECKING:
    import polars as pl

    from ibstore.analyze.selection import Selection

NAMES: Final = ("run", "split", "epoch", "layer", "unit")
PLACE: Final = ("map", "row", "column")
STATISTICS: Final = ("q01", "q99", "mean", "std")
STAGES: Final = ("layer", "reduced", "bins")
PLACES: Final = 3
STORED: Final = parse_recipe("identity | exact")
"""Values as they lie in the store."""

UNIT: Final = "values"
"""What the column ``unit`` says of numbers that are neither bits nor nats."""


def units(selection: "Selection") -> "pl.DataFrame":
    """Quantiles, mean and deviation of each unit over the samples: a row a unit.

    Columns run, split, epoch, layer, unit ("values"), number; map, row, column; q01, q99 (numpy's linear quantiles),
    mean, std.
    """
    rows = []
    for task, epoch, values in _values(selection, copies=2):
        known = values.astype(np.float64)
        low, high = np.quantile(known, (0.01, 0.99), axis=0)
        columns = (low, high, known.mean(0), known.std(0))
        for number, place in enumerate(_places(task.layer.shape)):
            own = dict(zip(STATISTICS, (float(each[number]) for each in columns), strict=True))
            rows.append({**_names(task, epoch), "number": number, **place, **own})
    return frame(rows, (*NAMES, "number", *PLACE, *STATISTICS))


def histogram(selection: "Selection", number: int, bins: int) -> "pl.DataFrame":
    """Values of one unit of each layer, class by class: a row a bin of equal width from its least to its largest value.

    Columns run, split, epoch, layer, unit ("values"), number, label (null without labels), left, right, n.

    Raises
    ------
    UsageError
        When a layer has no such unit, or ``bins`` is no number from 1.
    """
    if bins < 1:
        raise UsageError(f"bins is {bins}; give 1 or more")
    rows = []
    for task, epoch, values in _values(selection):
        if not 0 <= number < values.shape[1]:
            raise UsageError(f"layer {task.layer.name!r} has units 0 to {values.shape[1] - 1}, and no {number}")
        own, labels = values[:, number].astype(np.float64), task.run.probe(task.split).classes()
        edges = np.histogram_bin_edges(own[np.isfinite(own)], bins)
        for label in [None] if labels is None else np.unique(labels).tolist():
            counts = np.histogram(own if label is None else own[labels == label], edges)[0]
            for left, right, count in zip(edges[:-1].tolist(), edges[1:].tolist(), counts.tolist(), strict=True):
                about = {**_names(task, epoch), "number": number, "label": label}
                rows.append({**about, "left": left, "right": right, "n": count})
    return frame(rows, (*NAMES, "number", "label", "left", "right", "n"))


def samples(selection: "Selection", row: int, most: int) -> "pl.DataFrame":
    """What layers say of one sample, at the first epoch and at the last: a row a unit of their first ``most`` maps.

    Columns run, split, epoch, layer, unit ("values"), sample (its id), label (null without labels); map, row, column;
    value.

    Raises
    ------
    UsageError
        When a split has no such ``row``.
    """
    rows = []
    for task, epoch, values in _values(selection, ends=True):
        about = {**_names(task, epoch), **_sample(task, row)}
        for place, value in zip(_places(task.layer.shape), values[row].tolist(), strict=True):
            if place["map"] < most:
                rows.append({**about, **place, "value": value})
    return frame(rows, (*NAMES, "sample", "label", *PLACE, "value"))


def stages(selection: "Selection", row: int, most: int) -> "pl.DataFrame":
    """One sample's layer as it is, reduced, and as numbers of bins: a row a unit of the first ``most`` maps of each.

    Columns run, split, epoch, layer, unit ("values"), waist, stage (layer, reduced, bins), sample (its id), label
    (null without labels); map, row, column; value.

    Raises
    ------
    UsageError
        When a split has no such ``row``.
    """
    rows: list[dict[str, Any]] = []
    for task in selection.todo:
        sample, chosen = _sample(task, row), np.array([row])
        shape = layer_source(task, [task.segment], 1).form(task.recipe).shape
        whole = _whole_values(task, selection, chosen)
        for found in binned(task, selection.epochs, selection.budget):
            about = {**_names(task, found.epoch), "waist": task.waist.name, **sample}
            seen = ((task.layer.shape, whole[found.epoch]), (shape, found.values[row]), (shape, found.bins[row]))
            for stage, (form, values) in zip(STAGES, seen, strict=True):
                for place, value in zip(_places(form), np.ravel(values).tolist(), strict=True):
                    if place["map"] < most:
                        rows.append({**about, "stage": stage, **place, "value": float(value)})
    return frame(rows, (*NAMES, "waist", "stage", "sample", "label", *PLACE, "value"))


def neighbours(selection: "Selection", most: int) -> "pl.DataFrame":
    """Joint against product probability of the bins of units that are neighbours in memory: a row a pair of bins.

    Of at most ``most`` pairs of units, evenly chosen. Columns run, split, epoch, layer, unit ("values"), waist, number
    and other_number (the units), p_joint, p_product; pairs of bins that no sample has have p_joint 0.

    Raises
    ------
    UsageError
        When no layer has two units.
    """
    rows: list[dict[str, Any]] = []
    for task in selection.todo:
        for found in binned(task, selection.epochs, selection.budget):
            pairs = found.bins.shape[1] - 1
            about = {**names_of(task, found.epoch), "unit": UNIT}
            for first in np.unique(np.linspace(0, pairs - 1, min(most, pairs)).astype(int)).tolist():
                joint = _joint(found.bins[:, first], found.bins[:, first + 1])
                product = joint.sum(1, keepdims=True) * joint.sum(0, keepdims=True)
                own = {**about, "number": first, "other_number": first + 1}
                for together, apart in zip(joint.ravel().tolist(), product.ravel().tolist(), strict=True):
                    rows.append({**own, "p_joint": together, "p_product": apart})
    if not rows:
        raise UsageError("no layer of the selection has two units, of which one would depend on the other")
    return frame(rows, (*NAMES, "waist", "number", "other_number", "p_joint", "p_product"))


def _values(selection: "Selection", copies: int = 1, *, ends: bool = False) -> Iterator[tuple[Task, int, NDArray[Any]]]:
    """Values (sample, unit) of each layer as it is stored, at each epoch; with ``ends`` at a run's first and last."""
    of_layers = {(*map(task.names.get, ("run", "split", "layer")), task.segment.key): task for task in selection.todo}
    for task in of_layers.values():  # whatever their waists are
        epochs: Sequence[int] | None = selection.epochs
        if ends:
            asked = [epoch for epoch in task.run.epochs if epochs is None or epoch in epochs]
            epochs = [asked[0], asked[-1]]
        rows = np.arange(task.split.samples)
        for epoch, found in reduced_epochs(task, [STORED], rows, selection.budget, epochs):
            values = found[STORED.view]
            what = f"{task.what}, epoch {epoch}"
            selection.budget.check_room(f"{what}: float64 copies", 8 * copies * values.size, "choose other layers")
            yield task, epoch, values


def _whole_values(task: Task, selection: "Selection", rows: NDArray[np.int64]) -> dict[int, NDArray[Any]]:
    """Values of some samples as they are stored, by epoch."""
    found = reduced_epochs(task, [STORED], rows, selection.budget, selection.epochs)
    return {epoch: views[STORED.view] for epoch, views in found}


def _names(task: Task, epoch: int) -> dict[str, Any]:
    return {"run": task.run.name, "split": task.split.name, "epoch": epoch, "layer": task.layer.name, "unit": UNIT}


def _sample(task: Task, row: int) -> dict[str, Any]:
    """Id and label of a split's sample."""
    if not 0 <= row < task.split.samples:
        raise UsageError(
            f"split {task.split.name!r} of run {task.run.name!r} has rows 0 to {task.split.samples - 1}, and no {row}"
        )
    probe = task.run.probe(task.split)
    labels = probe.classes()
    return {"sample": int(probe.samples()[row]), "label": None if labels is None else int(labels[row])}


def _places(shape: Sequence[int]) -> list[dict[str, int]]:
    """Map, row and column of each unit; further axes are folded into the column."""
    three = (*[1] * (PLACES - len(shape)), *shape)
    folded = (*three[:2], int(np.prod(three[2:])))
    return [dict(zip(PLACE, place, strict=True)) for place in np.ndindex(*folded)]


def _joint(one: NDArray[Any], other: NDArray[Any]) -> NDArray[np.float64]:
    """Probabilities (bin, bin) of two units' bins."""
    (_, a), (_, b) = (np.unique(each, return_inverse=True) for each in (one, other))
    counts = np.zeros((a.max() + 1, b.max() + 1))
    np.add.at(counts, (a, b), 1)
    return counts / len(one)
