"""Bounds on the entropy of activations with Gaussian noise, from the distances of all pairs of samples.

N samples aᵢ with noise ε ~ N(0, σ²) in every unit are a mixture of N Gaussians. Of its information with the sample's
identity, I(X;T+ε) = H(T+ε) − H(ε), Kolchinsky & Tracey 2017 (Entropy 19(7):361) have two bounds of one form,
f(ν) = −(1/N) Σᵢ log (1/N) Σⱼ exp(−‖aᵢ − aⱼ‖² / 2νσ²): f(4) ≤ I ≤ f(1), from below by the Bhattacharyya distance, from
above by the Kullback–Leibler divergence (in this use: Saxe et al. 2018). Both, and both within each label, come from
one set of distances. Values are in bits.
"""

import math
import os
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Final, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ibstore.analyze.estimate import pairs
from ibstore.analyze.estimate.entropy import NATS_PER_BIT
from ibstore.analyze.estimate.pairs import ROWS, UNITS, Floats, KernelSums, Labels, Points, spans
from ibstore.errors import UsageError, ValuesError

TOLERANCE: Final = 1e-4
"""Bits by which rounding may move a bound, at most."""

SUMMING: Final = 1e-12
"""Bits by which exponentials and sums in float64 may move it; the rest is the distances' part."""

LEAST_VARIANCE: Final = 1e-300
"""σ² from here to its inverse can be divided by."""

MOST_SLACK: Final = 150.0
"""Distances that are known no better than this say nothing, and their exponentials would leave float64."""

ROOM: Final = 256 << 20
"""Bytes for blocks of points that are kept while others are paired with them."""

DTYPES: Final[tuple[type[np.floating[Any]], ...]] = (np.float32, np.float64)
"""Of products, the fastest first."""

WIDE: Final = 128
"""Units from which float32 products save more time than a look at some of the samples takes."""

TOLD: Final = 0.9
"""Part of H(Y) that the lower bound must still tell of the labels themselves."""

STEEPEST: Final = 700.0
"""1/4σ² beyond which e^(−1/4σ²) is next to nothing in a float64."""


class Bracket(NamedTuple):
    """What ν = 4 (``lower``) and ν = 1 (``upper``) give, in bits."""

    lower: float
    upper: float


@dataclass(frozen=True)
class Bounds:
    """Bounds for ``samples`` of so many ``units`` with noise of ``variance`` in each, in bits."""

    samples: int
    units: int
    variance: float
    i_xt: Bracket
    """I(X;T+ε), X the sample's identity: 0 … log₂ N."""
    i_xt_given_y: Bracket | None
    """I(X;T+ε | Y) = Σ p(y)·I(X;T+ε) of the samples with label y; None without labels."""
    arithmetic: str
    """How distances were made: by products in ``float32`` or ``float64``, or from ``differences``."""
    error: float
    """What rounding moves ``i_xt`` or ``i_xt_given_y`` by, at most: a bound, 0.0001 or less."""

    @property
    def i_ty(self) -> Bracket | None:
        """I(T+ε;Y) = I(X;T+ε) − I(X;T+ε | Y), the same ν in both: two estimates, which need not enclose the truth."""
        if self.i_xt_given_y is None:
            return None
        return Bracket(*(whole - within for whole, within in zip(self.i_xt, self.i_xt_given_y, strict=True)))

    @property
    def h_noise(self) -> float:
        """H(ε) = d/2·log₂ 2πeσ², d units: a differential entropy, which may be negative."""
        return self.units / 2 * math.log2(2 * math.pi * math.e * self.variance)

    @property
    def h_t(self) -> Bracket:
        """H(T+ε) = I(X;T+ε) + H(ε)."""
        return Bracket(*(found + self.h_noise for found in self.i_xt))

    @property
    def h_t_given_y(self) -> Bracket | None:
        """H(T+ε | Y) = I(X;T+ε | Y) + H(ε); None without labels."""
        if self.i_xt_given_y is None:
            return None
        return Bracket(*(found + self.h_noise for found in self.i_xt_given_y))


def bounds(
    values: ArrayLike,
    variance: float,
    labels: ArrayLike | None = None,
    *,
    threads: int | None = None,
    room: int = ROOM,
    kernel_sums: KernelSums | None = None,
) -> Bounds:
    """Bounds for ``values``, (sample, …) of any real dtype, in memory or mapped from a file, and noise σ² ``variance``.

    Distances are made by matrix products of centred samples: in float32 if that provably moves no bound by more than
    `TOLERANCE` bits, else in float64, and where that is not enough either (σ tiny beside the values) from the
    differences themselves. Whether it is enough is computed from the result (`_error`). ``labels``, (sample,), are
    integers or whatever sorts. ``room`` is bytes for blocks that are kept; see `ibstore.analyze.estimate.pairs`.
    ``kernel_sums`` may be a device's: `ibstore.analyze.device.Device.kernel_sums`.

    Raises
    ------
    UsageError
        When ``variance`` is no such number, or there is not one label a sample.
    ValuesError
        When there are no values, or not real numbers, or some that are not finite.

    Examples
    --------
    >>> far = bounds(np.eye(8), 1e-4, np.arange(8) % 2)  # eight samples that noise cannot confuse, of two classes
    >>> far.i_xt, far.i_ty
    (Bracket(lower=3.0, upper=3.0), Bracket(lower=1.0, upper=1.0))
    """
    if not LEAST_VARIANCE <= variance <= 1 / LEAST_VARIANCE:
        raise UsageError(f"the noise's variance is {variance}; give a number above 0, such as 0.1")
    rows = _rows(values)
    points = _points(rows, variance)
    classes = np.zeros(len(rows), np.int64) if labels is None else _classes(labels, len(rows))
    threads = threads or os.cpu_count() or 1
    sums_of = kernel_sums or partial(pairs.kernel_sums, threads=threads, room=room)
    sums, arithmetic, error = _sums(points, classes, sums_of, threads)
    logs, counts = np.log1p(sums), np.bincount(classes)
    samples, units = rows.shape
    within = math.fsum((counts * np.log2(counts)).tolist()) / samples
    return Bounds(
        samples,
        units,
        float(variance),
        _bracket(math.log2(samples), logs[:2]),
        None if labels is None else _bracket(within, logs[2:]),
        arithmetic,
        error,
    )


def variance_from_labels(labels: ArrayLike) -> float:
    """The largest σ² at which the lower bound, of the one-hot labels themselves, still tells 90 % of H(Y).

    ``labels``, (sample,), whatever sorts. Between one-hot labels ‖·‖² is 0 or 2, so that of class probabilities p
    f(4) = −Σ p·log(p + (1 − p)·e^(−1/4σ²)), which falls as σ² grows. For ten equal classes σ² is 0.0705; 0.0735, which
    a report on Saxe et al.'s estimator took for ten digits, tells 88.6 %.

    Raises
    ------
    ValuesError
        When there are not two classes.

    Examples
    --------
    >>> round(variance_from_labels(np.arange(10)), 4), round(variance_from_labels([0, 1]), 4)
    (0.0705, 0.0949)
    """
    from scipy.optimize import brentq
    from scipy.special import entr

    p = np.unique(np.asarray(labels).ravel(), return_counts=True)[1] / np.size(labels)
    if len(p) < 2:  # noqa: PLR2004
        raise ValuesError(f"classes among the labels: {len(p)}, which no noise can confuse; give the noise's variance")
    told = TOLD * entr(p).sum()

    def lacking(steepness: float) -> float:
        return float(told + (p * np.log(p + (1 - p) * math.exp(-steepness))).sum())

    return 0.25 / float(brentq(lacking, 0, STEEPEST, xtol=1e-14))


def _bracket(most: float, logs: Floats) -> Bracket:
    """``most`` − mean of ``logs``, (ν = 4 and 1, sample), from nats to bits; rounding may not make it negative."""
    return Bracket(*(max(0.0, most - math.fsum(each.tolist()) / len(each) / NATS_PER_BIT) for each in logs))


def _rows(values: ArrayLike) -> NDArray[Any]:
    """Values as (sample, unit), not copied where they lie like that."""
    found = np.asarray(values)
    if found.ndim == 0 or found.size == 0:
        raise ValuesError(f"values of shape {found.shape} have no sample with a unit; give an array (sample, unit)")
    if found.dtype.kind not in "biuf":
        raise ValuesError(f"values are {found.dtype}, not real numbers; give floats or integers")
    return found.reshape(len(found), -1)


def _classes(labels: ArrayLike, samples: int) -> Labels:
    """Numbers of the labels, (sample,)."""
    given = np.asarray(labels)
    if given.shape != (samples,):
        raise UsageError(f"labels of shape {given.shape} for {samples} samples; give one label a sample")
    return np.unique(given, return_inverse=True)[1].astype(np.int64, copy=False)


@np.errstate(over="ignore", invalid="ignore")
def _points(values: NDArray[Any], variance: float) -> Points:
    """The values seen from their mean, in steps of 2σ."""
    samples, units = values.shape
    total = np.zeros(units)
    for rows in spans(samples, ROWS):
        total += values[rows].sum(axis=0, dtype=np.float64)
    if not np.isfinite(total).all():
        raise ValuesError("values hold NaN, an infinity, or numbers too large to add up; leave those samples out")
    points = Points(values, total / samples, 0.5 / math.sqrt(variance), np.zeros(samples))
    for rows in spans(samples, ROWS):
        for some in spans(units, UNITS):
            block = points.block(rows, some, np.float64)
            points.halves[rows] += 0.5 * np.einsum("su,su->s", block, block)
    return points


def _sums(points: Points, labels: Labels, sums_of: KernelSums, threads: int) -> tuple[Floats, str, float]:
    """Sums (4, sample) over other samples, how their distances were made, and the error in bits."""
    for dtype in DTYPES if _float32_pays(points, labels, sums_of) else DTYPES[1:]:
        slack = _slack(points, dtype)
        if slack <= MOST_SLACK:
            sums = sums_of(points, labels, dtype)
            error = _error(sums, slack)
            if error <= TOLERANCE:
                return sums, np.dtype(dtype).name, error
    samples, units = points.values.shape
    rounding = (units + 8) * float(np.finfo(np.float64).eps) / 2  # of t, whose mean, weighted by e⁻ᵗ, is ln N at most
    return (
        pairs.difference_sums(points, labels, threads=threads),
        "differences",
        rounding * math.log2(samples) + SUMMING,
    )


def _float32_pays(points: Points, labels: Labels, sums_of: KernelSums) -> bool:
    """Whether float32 is much faster here, and will do by the look of some samples, spread evenly: only a guess."""
    samples, units = points.values.shape
    slack = _slack(points, np.float32)
    if units < WIDE or samples <= 2 * ROWS or slack > MOST_SLACK:
        return False
    some = slice(None, None, -(-samples // ROWS))
    few = replace(points, values=points.values[some], halves=points.halves[some].copy())
    sums = sums_of(few, labels[some].copy(), np.float64)
    return _error(sums * (samples - 1) / (len(few.values) - 1), slack) <= TOLERANCE / 2


def _slack(points: Points, dtype: type[np.floating[Any]]) -> float:
    """How far t = ‖pᵢ − pⱼ‖² / 2 can be off that is made of products of d units in ``dtype``: 2(d + 16)·u·R².

    u is the unit roundoff, R the largest ‖p‖. A product of d terms, summed in any order, is off by γ_d·R² at most,
    γ_n = nu / (1 − nu) (Higham 2002, ch. 3), so are both halves together; the points' own rounding, 3u each, moves t
    by 12u·R², and that of σ and of the last sums by 12u·R².
    """
    terms = 2 * (points.values.shape[1] + 16) * float(np.finfo(dtype).eps) / 2
    return terms / (1 - terms) * 2 * float(points.halves.max()) if terms < 1 else math.inf


def _error(sums: Floats, slack: float) -> float:
    """What f can be off, in bits, where t is by ``slack``, and 4t by four times as much.

    A sum O over other samples, each of whose terms is off by a factor of e^±x at most, makes log(1 + O) be off by
    log(1 + O·eˣ) − log(1 + O) at most: nothing where samples lie far apart, x where they lie close. What lies within a
    label is less than the whole and so is its error.
    """
    with np.errstate(divide="ignore"):
        logs = np.log(sums[:2]) + slack * np.array([[1.0], [4.0]])
    return float((np.logaddexp(0, logs) - np.log1p(sums[:2])).mean(axis=1).max()) / NATS_PER_BIT + SUMMING
