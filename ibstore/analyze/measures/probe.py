"""How much of a target a stored layer still holds: what a small classifier reads in it, without the network.

A classifier q(y|t) that was fitted on some samples tells, on others, at least I(Y;T) ≥ H(Y) − E[−log q(y|t)]: the bound
of Barber & Agakov 2003. It holds whatever the classifier; a better one only brings it nearer.
"""

import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Final

import numpy as np
from numpy.typing import NDArray

from ibstore.analyze.estimate.entropy import NATS_PER_BIT
from ibstore.analyze.keys import NAMES, names_of
from ibstore.analyze.measures.tables import frame
from ibstore.analyze.tasks import Task
from ibstore.analyze.values import reduced_epochs
from ibstore.errors import UsageError, ValuesError
from ibstore.store.format.layout import counted

if TYPE_CHECKING:
    import polars as pl

    from ibstore.analyze.selection import Selection

LABELS: Final = "y"
COLUMNS: Final = (
    *(*NAMES, "target", "unit", "n_fit", "n", "classes", "accuracy", "chance"),
    *("h_target", "cross_entropy", "information_raw", "information"),
)
IN_UNITS: Final = ("h_target", "cross_entropy", "information_raw", "information")
HELD_BACK: Final = 0.2
"""Part of the samples that the classifier is not fitted on: of those of one split for the test, and of what is left to
find how sure it may be."""

BATCH, EPOCHS, DECAY = 50, 60, 0.01
"""Of the classifier: samples a step, epochs at most, and the penalty of its squared weights."""

COPIES: Final = 4
"""Of the values, while a classifier is fitted (reckoned: chosen rows, and standardized ones, of both parts)."""

MOST_CLASSES: Final = 1000

FEWEST: Final = 10
"""Samples of a split; of fewer nothing is left to hold back twice."""

LEAST: Final = -50.0
"""Log probability of what a classifier holds impossible."""

Values = NDArray[np.float32]
Labels = NDArray[np.int64]


@dataclass(frozen=True)
class Held:
    """A layer's values (sample, unit) at an epoch in one split, with the target's classes (sample,)."""

    task: Task
    epoch: int
    values: Values
    classes: Labels

    def parted(self, seed: int) -> tuple["Held", "Held"]:
        """Most of the samples, and those that are held back."""
        kept, back = _parted(self.classes, seed)
        return self._rows(kept), self._rows(back)

    def _rows(self, rows: Labels) -> "Held":
        return replace(self, values=self.values[rows], classes=self.classes[rows])


def probe(
    selection: "Selection", target: str = LABELS, hidden: int = 128, seed: int = 0, unit: str = "bits"
) -> "pl.DataFrame":
    """What a classifier reads of a target in each layer and epoch: a row each.

    It is fitted on the split ``train`` and asked on ``test``, where a run has recorded both; else a fifth of a split is
    held back, class by class. A hidden layer of ``hidden`` ReLU units (0: none, a linear one) on standardized values;
    how sure it is (the temperature of its probabilities) is set on samples that it was not fitted on.

    Columns run, split, epoch, layer, channel, waist, edges, target, unit; n_fit and n, samples that it was fitted on
    and asked on; classes; accuracy, and chance, that of the most frequent class; h_target = H(Y) and cross_entropy of
    those it was asked on; information_raw, their difference, and information, 0 where that is below.

    Raises
    ------
    UsageError
        When there is no such target, or it is no class, or a split has fewer than ten samples.
    ValuesError
        When a layer has NaN or infinities.
    """
    if hidden < 0 or seed < 0:
        raise UsageError(f"hidden is {hidden} and seed {seed}; give 0 or more")
    rows = []
    for own in _by_layer(selection.todo):
        for fitted, asked in _samples(own, target, selection, seed):
            names = {**names_of(asked.task, asked.epoch), "target": target, "unit": unit}
            rows.append({**names, **_told(fitted, asked, hidden, seed)})
    return frame(rows, COLUMNS, IN_UNITS, unit)


def _by_layer(todo: Sequence[Task]) -> Iterator[list[Task]]:
    """Tasks that differ in their split alone: one for each."""
    groups: dict[tuple[str, ...], list[Task]] = {}
    for task in todo:
        names = {**task.names, "split": "", "segment": task.segment.key}
        groups.setdefault(tuple(names.values()), []).append(task)
    yield from groups.values()


def _samples(tasks: Sequence[Task], target: str, selection: "Selection", seed: int) -> Iterator[tuple["Held", "Held"]]:
    """At each epoch what a classifier is fitted on, and what it is asked on."""
    by_split = {task.split.name: task for task in tasks}
    if {"train", "test"} <= by_split.keys():
        both = (_held(by_split[name], target, selection) for name in ("train", "test"))
        yield from zip(*both, strict=True)
        return
    for task in tasks:
        for held in _held(task, target, selection):
            yield held.parted(seed)


def _held(task: Task, target: str, selection: "Selection") -> Iterator["Held"]:
    """A layer's values and the target's classes, epoch by epoch."""
    if task.split.samples < FEWEST:
        raise UsageError(
            f"split {task.split.name!r} of run {task.run.name!r} has {counted(task.split.samples, 'sample')}, too few "
            f"to read a target in; record {FEWEST} or more"
        )
    classes, rows = _classes(task, target), np.arange(task.split.samples)
    for epoch, found in reduced_epochs(task, [task.recipe], rows, selection.budget, selection.epochs):
        (values,) = found.values()
        what = f"{task.what}, epoch {epoch}"
        selection.budget.check_room(f"{what}: copies for a classifier", COPIES * values.nbytes, "pool the layer")
        if not np.isfinite(values).all():
            raise ValuesError(f"{what} has NaN or infinities, which no classifier reads; leave that epoch out")
        yield Held(task, epoch, values, classes)


def _classes(task: Task, target: str) -> Labels:
    """Classes of the samples of a task's split; labels, or a target by its name."""
    stored = task.run.probe(task.split)
    targets = stored.targets()
    labels = stored.classes() if target == LABELS else targets.get(target)
    if labels is None:
        known = ", ".join([LABELS] * stored.has_labels + sorted(targets)) or "none"
        raise UsageError(
            f"the samples of run {task.run.name!r}, split {task.split.name!r}, have no target {target!r}; they have "
            f"{known}"
        )
    found = np.unique(labels)
    if len(found) > MOST_CLASSES or not np.array_equal(found, np.rint(found)):
        raise UsageError(f"target {target!r} is no class: it has {len(found)} values; give one of a few integers")
    return labels.astype(np.int64)


def _told(fitted: "Held", asked: "Held", hidden: int, seed: int) -> dict[str, Any]:
    """Numbers of a row, informations in bits."""
    from scipy.stats import entropy

    known = np.unique(np.concatenate([fitted.classes, asked.classes]))
    fit, y = (np.searchsorted(known, each.classes) for each in (fitted, asked))
    logits = _classified(fitted.values, fit, asked.values, len(known), hidden, seed)
    shares = np.bincount(y, minlength=len(known)) / len(y)
    cost = float(-_log_softmax(logits)[np.arange(len(y)), y].mean() / NATS_PER_BIT)
    h_target = float(entropy(shares, base=2))
    own = {"n_fit": len(fit), "n": len(y), "classes": len(known), "chance": float(shares.max())}
    own |= {"accuracy": float((logits.argmax(1) == y).mean()), "h_target": h_target, "cross_entropy": cost}
    return own | {"information_raw": h_target - cost, "information": max(0.0, h_target - cost)}


def _classified(
    values: Values, classes: Labels, others: Values, count: int, hidden: int, seed: int
) -> NDArray[np.float64]:
    """Logits (sample, class) of ``others`` by a classifier that was fitted on the rest."""
    from scipy.optimize import minimize_scalar
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.linear_model import LogisticRegression
    from sklearn.neural_network import MLPClassifier
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    kept, back = _parted(classes, seed)
    if len(np.unique(classes[kept])) == 1:  # there is nothing to tell apart
        certain = np.full((len(others), count), LEAST)
        certain[:, classes[kept][0]] = 0
        return certain
    chosen = (
        MLPClassifier((hidden,), batch_size=min(BATCH, len(kept)), alpha=DECAY, max_iter=EPOCHS, random_state=seed)
        if hidden
        else LogisticRegression(max_iter=200, random_state=seed)
    )
    classifier = make_pipeline(StandardScaler(), chosen)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # the bound holds of whatever it has become
        classifier.fit(values[kept], classes[kept])

    def logits(own: Values) -> NDArray[np.float64]:
        found = np.full((len(own), count), LEAST)
        with np.errstate(divide="ignore"):
            found[:, classifier.classes_] = np.maximum(np.log(classifier.predict_proba(own)), LEAST)
        return found

    unseen = logits(values[back])

    def cost(log_temperature: float) -> float:
        tempered = _log_softmax(unseen / np.exp(log_temperature))
        return float(-tempered[np.arange(len(back)), classes[back]].mean())

    best = float(minimize_scalar(cost, bounds=(-3, 5), method="bounded").x)
    found: NDArray[np.float64] = logits(others) / np.exp(best)
    return found


def _parted(classes: Labels, seed: int) -> tuple[Labels, Labels]:
    """Rows that are kept and rows that are held back, of each class its share where there are enough."""
    from sklearn.model_selection import train_test_split

    rows = np.arange(len(classes))
    sizes = np.unique(classes, return_counts=True)[1]
    enough = sizes.min() > 1 and HELD_BACK * len(classes) >= len(sizes)
    stratified = classes if enough else None
    kept, back = train_test_split(rows, test_size=HELD_BACK, random_state=seed, stratify=stratified)
    return np.sort(kept), np.sort(back)


def _log_softmax(logits: NDArray[np.float64]) -> NDArray[np.float64]:
    from scipy.special import log_softmax

    found: NDArray[np.float64] = log_softmax(logits, axis=1)
    return found
