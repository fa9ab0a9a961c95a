"""Exact sample quantiles of many groups at once, in bounded memory: what bin edges are built from.

Values come as blocks (value, group). A *passes* argument is called for each pass over them, so that a layer
too large to hold is read again instead. The quantile is numpy's default: with h = level·(n − 1), the linear
interpolation between the order statistics ⌊h⌋ and ⌊h⌋ + 1, here in float64.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

Passes = Callable[[], Iterable[NDArray[Any]]]

HELD_BYTES: Final = 256 << 20
SAMPLED: Final = 4096
MARGIN: Final = 6.0  # standard deviations of a sampled quantile's rank: a bracket misses about once in 10^9
LARGEST: Final = 1e300  # a quantile beyond it, infinite ones too, counts as this, so that edges are numbers


def quantiles(passes: Passes, levels: Sequence[float], values: int, groups: int) -> NDArray[np.float64]:
    """Quantiles (level, group) of ``values`` values in each of ``groups`` groups.

    Equal to ``np.quantile(all_values.astype(float64), levels, axis=0)``, bit for bit, for values within ±1e300;
    an order statistic beyond, an infinite one too, counts as ±1e300.
    """
    places = np.asarray(levels, np.float64) * (values - 1)
    lower = np.floor(places).astype(np.int64)
    upper = np.minimum(lower + 1, values - 1)
    if 8 * values * groups <= HELD_BYTES:
        low, high = _held(passes, lower, upper)
    else:
        low, high = _streamed(passes, lower, upper, values, groups)
    return _between(low, high, (places - lower)[:, None])


def _between(low: NDArray[Any], high: NDArray[Any], share: NDArray[np.float64]) -> NDArray[np.float64]:
    """Interpolate as numpy does, from the nearer end, so that share 1 gives ``high`` to the bit."""
    low = np.clip(low.astype(np.float64), -LARGEST, LARGEST)
    high = np.clip(high.astype(np.float64), -LARGEST, LARGEST)
    step = high - low
    return np.asarray(np.where(share < 0.5, low + step * share, high - step * (1 - share)))  # noqa: PLR2004


def _held(passes: Passes, lower: NDArray[np.int64], upper: NDArray[np.int64]) -> tuple[NDArray[Any], NDArray[Any]]:
    """Order statistics (rank, group) of values that fit in memory."""
    columns = np.ascontiguousarray(np.concatenate(list(passes())).T)  # a group's values side by side
    columns.partition(np.unique([lower, upper]), axis=1)
    return columns[:, lower].T, columns[:, upper].T


@dataclass
class _Bracket:
    """Where the two order statistics of one level lie: between ``low`` and ``high``, (group,) each."""

    low: NDArray[Any]
    high: NDArray[Any]


def _streamed(
    passes: Passes, lower: NDArray[np.int64], upper: NDArray[np.int64], values: int, groups: int
) -> tuple[NDArray[Any], NDArray[Any]]:
    """Order statistics by bracket and collect.

    A sample of the rows brackets each level; a pass counts what lies below a bracket and collects what lies
    inside, so that the order statistics are exact. A bracket that missed is opened on that side, and that
    level's pass repeated: it is right at the third pass at the latest.
    """
    sample = _sample(passes, values, groups)
    found = []
    for first, second in zip(lower, upper, strict=True):
        bracket = _bracket(sample, (first / values, second / values))
        statistics = None
        while statistics is None:
            statistics = _collect(passes, bracket, int(first), int(second))
        found.append(statistics)
    return np.stack([low for low, _ in found]), np.stack([high for _, high in found])


def _sample(passes: Passes, values: int, groups: int) -> NDArray[Any]:
    """A value out of every k of each group, sorted: at least 4,096 of them.

    Which of the k is drawn with a fixed seed: data with a period would not be seen whole by every k-th.
    """
    step = max(1, values // SAMPLED)
    strata = np.arange(0, values, step)
    chosen = np.minimum(strata + np.random.default_rng(0).integers(step, size=len(strata)), values - 1)
    offset = 0
    rows = []
    for block in passes():
        first, last = np.searchsorted(chosen, (offset, offset + len(block)))
        rows.append(block[chosen[first:last] - offset])
        offset += len(block)
    return np.sort(np.concatenate(rows).reshape(-1, groups), axis=0)


def _bracket(sample: NDArray[Any], shares: tuple[float, float]) -> _Bracket:
    """Sample values so far on either side of the shares that the wanted ranks lie between."""
    size = len(sample)
    margin = MARGIN * np.sqrt(size * shares[1] * (1 - shares[1])) + 2
    first = int(np.floor(shares[0] * size - margin))
    last = int(np.ceil(shares[1] * size + margin))
    ends = np.full(sample.shape[1], np.inf, np.result_type(sample.dtype, np.float16))
    return _Bracket(
        sample[first] if first >= 0 else -ends,
        sample[last] if last < size else ends,
    )


def _collect(passes: Passes, bracket: _Bracket, first: int, second: int) -> tuple[NDArray[Any], NDArray[Any]] | None:
    """One pass for ranks ``first`` and ``second``; None, and a wider bracket, where it missed.

    Ties at the ends are counted, not collected: after ReLU half of a unit's values are zero.
    """
    below = at_low = at_high = np.zeros(len(bracket.low), np.int64)
    inside_groups, inside_values = [], []
    for block in passes():
        below = below + (block < bracket.low).sum(axis=0)
        at_low = at_low + (block == bracket.low).sum(axis=0)
        at_high = at_high + (block == bracket.high).sum(axis=0)
        rows, columns = np.nonzero((block > bracket.low) & (block < bracket.high))
        inside_groups.append(columns.astype(np.int32))
        inside_values.append(block[rows, columns])
    inside = _Inside.of(np.concatenate(inside_groups), np.concatenate(inside_values), len(below))
    at_high = np.where(bracket.low == bracket.high, 0, at_high)
    missed_low = first < below
    missed_high = second >= below + at_low + inside.counts + at_high
    if missed_low.any() or missed_high.any():
        bracket.low = np.where(missed_low, -np.inf, bracket.low)
        bracket.high = np.where(missed_high, np.inf, bracket.high)
        return None
    statistics = [inside.pick(rank - below - at_low, bracket) for rank in (first, second)]
    return statistics[0], statistics[1]


@dataclass(frozen=True)
class _Inside:
    """Collected values, sorted within each group; ``starts`` is where a group begins."""

    values: NDArray[Any]
    starts: NDArray[np.int64]
    counts: NDArray[np.int64]

    @classmethod
    def of(cls, groups: NDArray[np.int32], values: NDArray[Any], count: int) -> "_Inside":
        counts = np.bincount(groups, minlength=count)
        return cls(values[np.lexsort((values, groups))], np.cumsum(counts) - counts, counts)

    def pick(self, place: NDArray[np.int64], bracket: _Bracket) -> NDArray[Any]:
        """Value at ``place`` of each group; before the first it is the bracket's low end, behind the last its high."""
        index = np.clip(self.starts + place, 0, max(0, len(self.values) - 1))
        chosen = self.values[index] if len(self.values) else bracket.low
        return np.where(place < 0, bracket.low, np.where(place >= self.counts, bracket.high, chosen))
