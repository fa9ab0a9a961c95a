"""Exact sample quantiles of many groups at once, in bounded memory: what bin edges are built from.

The values are never asked for whole. `quantiles` is a coroutine: it yields what is to be found in each block of values
(`Look`), is sent what was found in all of them, and so on until it returns; whoever drives it passes over the values as
often as it asks, for any number of such coroutines at once. The quantile is numpy's default: with h = level·(n − 1),
the linear interpolation between the order statistics ⌊h⌋ and ⌊h⌋ + 1, here in float64.

The order statistics are exact: a sample of the values brackets each, a pass counts what lies below a bracket and
collects what lies inside. A bracket that missed is opened on that side and the pass repeated.
"""

from collections.abc import Callable, Generator, Iterator, Sequence
from dataclasses import dataclass
from math import ceil
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

Look = Callable[[NDArray[Any], int], Any]
"""What is to be found in a block, (row, unit), whose first row is the given sample of an epoch."""

Finding = Generator[Look, Sequence[Any], NDArray[np.float64]]

SAMPLED: Final = 2048
MARGIN: Final = 6.0  # standard deviations of a sampled quantile's rank: a bracket misses about once in 10^9
LARGEST: Final = 1e300  # a quantile beyond it, infinite ones too, counts as this, so that edges are numbers


@dataclass(frozen=True)
class Population:
    """The values that are fitted together: ``epochs`` × ``samples`` × ``places`` of them in each of ``groups``.

    A block's units are the places of the first group, then those of the second, ….
    """

    samples: int
    groups: int
    places: int = 1
    epochs: int = 1

    @property
    def values(self) -> int:
        """How many values a group has."""
        return self.epochs * self.samples * self.places

    def bytes_a_group(self, levels: Sequence[float], itemsize: int) -> int:
        """About what fitting takes for a group: the sample, piece by piece and whole, or what the brackets hold."""
        sampled = -(-self.values // self.step)
        deviations = sum((level * (1 - level)) ** 0.5 for level in levels)
        inside = min(2 * MARGIN * deviations / SAMPLED**0.5, len(levels)) * self.values
        return int(itemsize * 2.5 * max(sampled, inside)) + 1

    @property
    def step(self) -> int:
        """A value out of as many is sampled."""
        return max(1, self.values // SAMPLED)


def quantiles(levels: Sequence[float], population: Population, itemsize: int = 8, allowance: int = 1 << 30) -> Finding:
    """Quantiles (level, group) of a population, about ``allowance`` bytes of it at a time, group after group.

    Equal to ``np.quantile(values.astype(float64), levels, axis=0)``, bit for bit, for values within ±1e300;
    an order statistic beyond, an infinite one too, counts as ±1e300.
    """
    places = np.asarray(levels, np.float64) * (population.values - 1)
    lower = np.floor(places).astype(np.int64)
    upper = np.minimum(lower + 1, population.values - 1)
    groups = max(1, allowance // population.bytes_a_group(levels, itemsize))
    found = []
    for start in range(0, population.groups, groups):
        columns = _Columns(population, start, min(start + groups, population.groups))
        low, high = yield from _order_statistics(columns, lower, upper)
        found.append(_between(low, high, (places - lower)[:, None]))
    return np.concatenate(found, axis=1)


def _between(low: NDArray[Any], high: NDArray[Any], share: NDArray[np.float64]) -> NDArray[np.float64]:
    """Interpolate as numpy does, from the nearer end, so that share 1 gives ``high`` to the bit."""
    low = np.clip(low.astype(np.float64), -LARGEST, LARGEST)
    high = np.clip(high.astype(np.float64), -LARGEST, LARGEST)
    step = high - low
    return np.asarray(np.where(share < 0.5, low + step * share, high - step * (1 - share)))  # noqa: PLR2004


@dataclass(frozen=True)
class _Columns:
    """The groups ``first`` … ``last`` − 1 of a population."""

    population: Population
    first: int
    last: int

    @property
    def groups(self) -> int:
        return self.last - self.first

    def of(self, block: NDArray[Any]) -> NDArray[Any]:
        """The units of these groups, (row, unit)."""
        places = self.population.places
        return block[:, self.first * places : self.last * places]

    def by_group(self, counts: NDArray[Any]) -> NDArray[np.int64]:
        """Counts of units, (…, unit), as counts of groups, (…, group)."""
        by_place = counts.reshape(*counts.shape[:-1], self.groups, self.population.places)
        return np.asarray(by_place.sum(axis=-1, dtype=np.int64))


def _order_statistics(
    columns: _Columns, lower: NDArray[np.int64], upper: NDArray[np.int64]
) -> Generator[Look, Sequence[Any], tuple[NDArray[Any], NDArray[Any]]]:
    """Order statistics (rank, group) of ``lower`` and of ``upper``."""
    parts = yield _sampler(columns)
    sample = np.concatenate(parts, axis=1)
    sample.sort(axis=1)
    values = columns.population.values
    if sample.shape[1] == values:
        return sample[:, lower].T, sample[:, upper].T
    found: dict[int, tuple[NDArray[Any], NDArray[Any]]] = {}
    brackets = {
        level: _Bracket.around(sample, ranks[0] / values, ranks[1] / values, values)
        for level, ranks in enumerate(zip(lower.tolist(), upper.tolist(), strict=True))
    }
    del sample
    while brackets:
        blocks = yield _collector(columns, brackets)
        for level, bracket in list(brackets.items()):
            statistics = bracket.pick([block[level] for block in blocks], int(lower[level]), int(upper[level]))
            if statistics is not None:
                found[level] = statistics
                del brackets[level]
    lows, highs = zip(*(found[level] for level in range(len(lower))), strict=True)
    return np.stack(lows), np.stack(highs)


def _sampler(columns: _Columns) -> Look:
    """Looks for a value out of every k of each group, (group, value): all there are, or at least 2,048.

    Which of the k is drawn with a fixed seed: data with a period would not be seen whole by every k-th.
    """
    samples, places = columns.population.samples, columns.population.places
    step = columns.population.step
    strata = np.arange(0, samples * places, step)
    drawn = strata + np.random.default_rng(0).integers(step, size=len(strata))
    chosen = np.minimum(drawn, samples * places - 1)

    def look(block: NDArray[Any], start: int) -> NDArray[Any]:
        first, last = np.searchsorted(chosen, (start * places, (start + len(block)) * places))
        rows, place = np.divmod(chosen[first:last] - start * places, places)
        values = columns.of(block).reshape(len(block), columns.groups, places)
        return np.ascontiguousarray(values[rows, :, place].T)

    return look


@dataclass(frozen=True)
class _Inside:
    """What a block has of a level's bracket: counts by group below, at its ends and inside, and the values inside."""

    counts: NDArray[np.int64]
    values: NDArray[Any]


def _collector(columns: _Columns, brackets: "dict[int, _Bracket]") -> Look:
    """Looks, for each open level, for what lies below its bracket, at its ends, and inside it."""
    from ibstore.analyze.kernels import gather, tally

    places = columns.population.places
    ends = {level: (bracket.low.repeat(places), bracket.high.repeat(places)) for level, bracket in brackets.items()}

    def look(block: NDArray[Any], _: int) -> dict[int, _Inside]:
        values = columns.of(block)
        found = {}
        for level, (low, high) in ends.items():
            counts = np.zeros((4, values.shape[1]), np.int32)
            tally(values, low, high, *counts)
            starts = np.cumsum(counts[3], dtype=np.int64)
            inside = np.empty(int(starts[-1]), values.dtype)
            gather(values, low, high, starts - counts[3], inside)
            found[level] = _Inside(columns.by_group(counts), inside)
        return found

    return look


@dataclass
class _Bracket:
    """Where the two order statistics of one level lie: between ``low`` and ``high``, (group,) each."""

    low: NDArray[Any]
    high: NDArray[Any]

    @classmethod
    def around(cls, sample: NDArray[Any], first: float, second: float, values: int) -> "_Bracket":
        """Values of the sorted sample, (group, value), so far on either side of two shares of the population."""
        size = sample.shape[1]
        margin = MARGIN * np.sqrt(size * second * (1 - second) * (1 - size / values)) + 2
        low, high = int(np.floor(first * size - margin)), ceil(second * size + margin)
        infinite = np.full(len(sample), np.inf, np.result_type(sample.dtype, np.float32))
        return cls(
            sample[:, low].astype(infinite.dtype) if low >= 0 else -infinite,
            sample[:, high].astype(infinite.dtype) if high < size else infinite,
        )

    def pick(self, blocks: Sequence[_Inside], first: int, second: int) -> tuple[NDArray[Any], NDArray[Any]] | None:
        """Values of the ranks ``first`` and ``second``; None, and a wider bracket, where they are not inside.

        Ties at the ends are counted, not collected: after ReLU half of a unit's values are zero.
        """
        below, at_low, at_high, between = np.sum([block.counts for block in blocks], axis=0)
        at_high = np.where(self.low == self.high, 0, at_high)
        missed_low = first < below
        missed_high = second >= below + at_low + between + at_high
        if missed_low.any() or missed_high.any():
            self.low = np.where(missed_low, -np.inf, self.low).astype(self.low.dtype)
            self.high = np.where(missed_high, np.inf, self.high).astype(self.high.dtype)
            return None
        ranks = np.stack([first - below - at_low, second - below - at_low])  # among what is inside
        found = np.where(ranks < 0, self.low, self.high)
        for group, values in _grouped(blocks):
            inside = (ranks[:, group] >= 0) & (ranks[:, group] < len(values))
            if inside.any():
                wanted = ranks[inside, group]
                values.partition(wanted)
                found[inside, group] = values[wanted]
        return found[0], found[1]


def _grouped(blocks: Sequence[_Inside]) -> Iterator[tuple[int, NDArray[Any]]]:
    """The values inside, group by group, of those groups that have some."""
    ends = [np.cumsum(block.counts[3]) for block in blocks]
    for group in np.flatnonzero(np.sum([block.counts[3] for block in blocks], axis=0)):
        pieces = [
            block.values[end[group] - block.counts[3, group] : end[group]]
            for block, end in zip(blocks, ends, strict=True)
        ]
        yield int(group), np.concatenate(pieces)
