"""How X, Y, layers and units hang together, beyond pairs of layer and input or label."""

from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from ibstore.analyze.binned import Binned, binned
from ibstore.analyze.estimate.correlation import gaussian_total_correlation, total_correlation
from ibstore.analyze.estimate.joint import QUANTITIES, counts_of, information_between
from ibstore.analyze.keys import NAMES, Codes, Keyed, codes, names_of
from ibstore.analyze.measures.settings import Differing
from ibstore.analyze.measures.tables import KINDS, frame
from ibstore.analyze.plan import Budget
from ibstore.analyze.stochastic import WEIGHTS, trained_with
from ibstore.analyze.tasks import Task
from ibstore.errors import IbstoreError

if TYPE_CHECKING:
    import polars as pl

    from ibstore.analyze.selection import Selection

TOLERANCE: Final = 1e-9
"""Bits of rounding."""

COPIES: Final = 4
"""Of values, and of their correlations, in float64 (measured)."""

PAIR: Final = ("run", "split", "epoch", "waist", "layer", "channel", "edges", "other", "other_channel", "other_edges")

CORRELATIONS: Final = ("discrete", "gaussian", "discrete_per_unit", "gaussian_per_unit")
"""Total correlations of a table of them."""


def diagram(keys: Iterable[Keyed], estimators: Sequence[str], unit: str = "bits") -> "pl.DataFrame":
    """Entropies, conditional entropies and areas of X, Y and T: a row a layer, epoch and estimator.

    Columns run, split, epoch, layer, channel, waist, estimator, unit, n; h_x, h_y, h_t, h_xt, h_ty, h_xy, h_xyt;
    conditional entropies h_t_given_y, …; i_xt, i_ty, i_xy; and the seven areas of the diagram: h_x_given_ty,
    h_y_given_xt, h_t_given_xy, i_xt_given_y, i_xy_given_t, i_ty_given_x and i_xyt = I(X;Y;T), which may be negative.
    h_ty_given_x = H(Y,T|X) is 0 where X is the sample's identity and the network deterministic, which is asserted of
    the plug-in; under a waist of X it is what that waist loses. Without labels what hangs on them is null.

    Raises
    ------
    IbstoreError
        When H(Y,T|X) is not 0 though every sample has an input of its own.
    """
    rows = [
        {**each.names, "estimator": estimator, "unit": unit, "n": len(each.t), **_areas(each, estimator)}
        for each in keys
        for estimator in estimators
    ]
    return frame(rows, (*NAMES, "estimator", "unit", "n", *QUANTITIES), tuple(QUANTITIES), unit)


def _areas(keys: Keyed, estimator: str) -> dict[str, float]:
    found = keys.joint.estimates(estimator)
    distinct = keys.joint.counted["x"].distinct == len(keys.t)
    left = found.get("h_ty_given_x", 0.0)
    if distinct and estimator == "plugin" and abs(left) > TOLERANCE:
        raise IbstoreError(f"{keys.task.what}: H(Y,T|X) = {left} though every input is its own; report this")
    return found


def between(segments: Iterable[Iterable[Keyed]], estimators: Sequence[str], unit: str = "bits") -> "pl.DataFrame":
    """I(Tᵢ;Tⱼ) of every two layers of a run at an epoch: a row a pair, in execution order, and estimator.

    ``segments`` are the keys of all layers, some epochs of one run at a time. Columns run, split, epoch, waist, layer,
    channel, other, other_channel, estimator, unit, n; h_t, h_other, h_both, information (raw).
    """
    rows = [row for keys in segments for own in _by_epoch(keys) for row in _pairs(own, estimators)]
    numbers = ("h_t", "h_other", "h_both", "information")
    return frame([{**row, "unit": unit} for row in rows], (*PAIR, "estimator", "unit", "n", *numbers), numbers, unit)


def _by_epoch(keys: Iterable[Keyed]) -> Iterator[list[Keyed]]:
    """Layers of each epoch."""
    groups: dict[int, list[Keyed]] = {}
    for each in keys:
        groups.setdefault(each.epoch, []).append(each)
    yield from groups.values()


def _pairs(layers: Sequence[Keyed], estimators: Sequence[str]) -> Iterator[dict[str, Any]]:
    coded: list[tuple[Keyed, Codes]] = [(each, codes(each.t)) for each in layers]
    for place, (first, t) in enumerate(coded):
        for second, other in coded[place + 1 :]:
            own = second.names
            other_names = {"other": own["layer"], "other_channel": own["channel"], "other_edges": own["edges"]}
            names = {**first.names, **other_names}
            for estimator in estimators:
                h_t, h_other = counts_of(t).entropy(estimator), counts_of(other).entropy(estimator)
                information = information_between(t, other, estimator)
                values = {"h_t": h_t, "h_other": h_other, "h_both": h_t + h_other - information}
                yield {**names, "estimator": estimator, "n": len(t), **values, "information": information}


def correlation(selection: "Selection", shrinkage: float = 0.0, unit: str = "bits") -> "pl.DataFrame":
    """Total correlation of the units of each layer: a row a layer and epoch.

    Columns run, split, epoch, layer, channel, waist, edges, unit; seed, beta_kl and gamma_tc of the training, null
    where it does not say; a column a setting in which the runs differ beside these, under its name; n, units; constant,
    how many units have one bin only; discrete, Σ H(Tᵢ) − H(T) of the bins by the plug-in; gaussian, ½Σ log σᵢᵢ² −
    ½ log|Σ| of the reduced values, infinite where their correlations are singular, null where values are not finite;
    both for each unit that varies.
    """
    first, last = (*NAMES, "unit", "seed", *WEIGHTS), ("n", "units", "constant", *CORRELATIONS)
    differing = Differing.of(selection.runs.values(), (*first, *last), WEIGHTS)
    rows = [
        {**differing.by_run[task.run.name], **row, "unit": unit}
        for task in selection.todo
        for row in _correlations(selection, task, shrinkage)
    ]
    return frame(rows, (*first, *differing.kinds, *last), CORRELATIONS, unit, {**KINDS, **differing.kinds})


def _correlations(selection: "Selection", task: Task, shrinkage: float) -> Iterator[dict[str, Any]]:
    for found in binned(task, selection.epochs, selection.budget):
        _refuse_large(found, f"{task.what}, epoch {found.epoch}", selection.budget)
        yield {**names_of(task, found.epoch), **trained_with(task.run), **_correlation(found, shrinkage)}


def _refuse_large(found: Binned, what: str, budget: Budget) -> None:
    """Return when float64 copies of the values and their correlations have room; IbstoreError where not."""
    samples, units = found.values.shape
    needed = 8 * COPIES * units * (samples + units)
    budget.check_room(f"{what}: the correlations of {units:,} units in {samples:,} samples", needed, "pool the layer")


def _correlation(found: Binned, shrinkage: float) -> dict[str, Any]:
    samples, units = found.bins.shape
    discrete = total_correlation(found.bins)
    own: dict[str, Any] = {"n": samples, "units": units, "constant": discrete.constant}
    own |= {"discrete": discrete.bits, "discrete_per_unit": discrete.per_dimension}
    if not np.isfinite(found.values).all():  # codes may be of NaN and infinities, a covariance is not
        return own
    gaussian = gaussian_total_correlation(np.asarray(found.values), shrinkage)
    return own | {"gaussian": gaussian.bits, "gaussian_per_unit": gaussian.per_dimension}
