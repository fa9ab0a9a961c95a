"""Exact sample quantiles of many groups at once, in bounded memory: what bin edges are built from.

The values are never asked for whole. `quantiles` is a coroutine: it yields what is to be found in each block of values
and how what was found in all of them is put together (`Pass`), is sent that, and so on until it returns; whoever drives
it passes over the values as often as it asks, for any number of such coroutines at once, in whatever process: what it
yields can be pickled. The quantile is numpy's default: with h = level·(n − 1), the linear interpolation between the
order statistics ⌊h⌋ and ⌊h⌋ + 1, here in float64.

The order statistics are exact: a sample of the values brackets each, a pass counts what lies below a bracket and
collects what lies inside. A bracket that missed is opened on that side and the pass repeated.
"""

from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from math import ceil
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

Look = Callable[[NDArray[Any], int], Any]
"""What is to be found in a block, (row, unit), whose first row is the given sample of an epoch."""

Join = Callable[[Sequence[Any]], Any]
"""Puts together what was found in all blocks, in whatever order."""

Statistics = tuple[NDArray[Any], NDArray[Any]]
"""Two order statistics of each group, (group,) each."""

SAMPLED: Final = 2048
MARGIN: Final = 6.0  # standard deviations of a sampled quantile's rank: a bracket misses about once in 10^9
LARGEST: Final = 1e300  # a quantile beyond it, infinite ones too, counts as this, so that edges are numbers


@dataclass(frozen=True)
class Pass:
    """What is wanted of each block in a pass over the values; without a ``join`` it is taken as it comes.

    Of one with ``parts`` each finding is a list, and so is what it is joined to: an entry for each part, which can be
    joined by itself.
    """

    look: Look
    join: Join | None = None
    parts: "Sequence[Pass]" = ()


Finding = Generator[Pass, Any, NDArray[np.float64]]


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
        inside = min(2 * MARGIN * deviations / (self.values / self.step) ** 0.5, len(levels)) * self.values
        return int(itemsize * 2.5 * max(sampled, inside)) + 1

    @property
    def step(self) -> int:
        """A value out of as many is sampled: of many more are, so that not more lie in the brackets."""
        return max(1, self.values // max(SAMPLED, int(self.values ** (2 / 3))))


def quantiles(
    levels: Sequence[float],
    population: Population,
    itemsize: int = 8,
    allowance: int = 1 << 30,
    *,
    at_once: bool = False,
) -> Finding:
    """Quantiles (level, group) of a population, about ``allowance`` bytes of it at a time, group after group.

    Or ``at_once``, in parts of about as many bytes: then a pass finds more than any process may hold.

    Equal to ``np.quantile(values.astype(float64), levels, axis=0)``, bit for bit, for values within ±1e300;
    an order statistic beyond, an infinite one too, counts as ±1e300.
    """
    places = np.asarray(levels, np.float64) * (population.values - 1)
    lower = np.floor(places).astype(np.int64)
    upper = np.minimum(lower + 1, population.values - 1)
    groups = max(1, allowance // population.bytes_a_group(levels, itemsize))
    starts, chosen = range(0, population.groups, groups), _chosen(population)
    columns = [_Columns(population, start, min(start + groups, population.groups)) for start in starts]
    findings = [_order_statistics(each, chosen, lower, upper) for each in columns]
    together = at_once and len(findings) > 1
    found = yield from (_side_by_side(findings) if together else _one_after_another(findings))
    return np.concatenate([_between(low, high, (places - lower)[:, None]) for low, high in found], axis=1)


_Several = Generator[Pass, Any, list[Statistics]]


def _one_after_another(findings: "Sequence[Generator[Pass, Any, Statistics]]") -> _Several:
    found = []
    for each in findings:
        found.append((yield from each))  # noqa: PERF401  (a comprehension cannot yield)
    return found


def _side_by_side(findings: "Sequence[Generator[Pass, Any, Statistics]]") -> _Several:
    wants = {number: next(each) for number, each in enumerate(findings)}
    ended: dict[int, Statistics] = {}
    while wants:
        passes = tuple(wants.values())
        found = yield Pass(partial(_look_all, passes), partial(_join_all, passes), passes)
        for number, own in zip(list(wants), found, strict=True):
            try:
                wants[number] = findings[number].send(own)
            except StopIteration as end:
                ended[number] = end.value
                del wants[number]
    return [ended[number] for number in range(len(findings))]


def _look_all(passes: Sequence[Pass], block: NDArray[Any], start: int) -> list[Any]:
    return [each.look(block, start) for each in passes]


def _join_all(passes: Sequence[Pass], blocks: Sequence[list[Any]]) -> list[Any]:
    joins = [(number, each.join) for number, each in enumerate(passes)]
    return [join([block[number] for block in blocks]) for number, join in joins if join]


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
    columns: _Columns, chosen: NDArray[np.int64], lower: NDArray[np.int64], upper: NDArray[np.int64]
) -> Generator[Pass, Any, Statistics]:
    """Order statistics (rank, group) of ``lower`` and of ``upper``; the values at the chosen places bracket them."""
    ranks = dict(enumerate(zip(lower.tolist(), upper.tolist(), strict=True)))
    joined = partial(_around_all, ranks, columns.population.values)
    found: dict[int, _Bracket | Statistics] = yield Pass(partial(_sampled, columns, chosen), joined)
    while brackets := {level: each for level, each in found.items() if isinstance(each, _Bracket)}:
        found |= yield Pass(partial(_inside, columns, brackets), partial(_pick_all, ranks, brackets))
    lows, highs = zip(*(found[level] for level in ranks), strict=True)
    return np.stack(lows), np.stack(highs)


def _chosen(population: Population) -> NDArray[np.int64]:
    """Places of the values of an epoch that are sampled, one out of every k of each group.

    All there are, or at least 2,048, and the ⅔ power of how many there are. Which of the k is drawn with a fixed seed:
    data with a period would not be seen whole by every k-th.
    """
    values, step = population.samples * population.places, population.step
    strata = np.arange(0, values, step)
    drawn = strata + np.random.default_rng(0).integers(step, size=len(strata))
    return np.asarray(np.minimum(drawn, values - 1))


def _sampled(columns: _Columns, chosen: NDArray[np.int64], block: NDArray[Any], start: int) -> NDArray[Any]:
    """What a block has of the chosen values, (group, value)."""
    places = columns.population.places
    first, last = np.searchsorted(chosen, (start * places, (start + len(block)) * places))
    rows, place = np.divmod(chosen[first:last] - start * places, places)
    values = columns.of(block).reshape(len(block), columns.groups, places)
    return np.ascontiguousarray(values[rows, :, place].T)


def _around_all(
    ranks: Mapping[int, tuple[int, int]], values: int, parts: Sequence[NDArray[Any]]
) -> "dict[int, _Bracket | Statistics]":
    """Brackets of all levels from the sample's parts; the order statistics themselves where that is all there is."""
    sample = np.concatenate(parts, axis=1)
    sample.sort(axis=1)
    if sample.shape[1] == values:
        return {level: (sample[:, first], sample[:, second]) for level, (first, second) in ranks.items()}
    return {
        level: _Bracket.around(sample, first / values, second / values, values)
        for level, (first, second) in ranks.items()
    }


@dataclass(frozen=True)
class _Inside:
    """What a block has of a level's bracket: counts by group below, at its ends and inside, and the values inside."""

    counts: NDArray[np.int64]
    values: NDArray[Any]


def _inside(columns: _Columns, brackets: "Mapping[int, _Bracket]", block: NDArray[Any], _: int) -> "dict[int, _Inside]":
    """What a block has of each open level's bracket."""
    from ibstore.analyze.kernels import gather, tally

    values, places = columns.of(block), columns.population.places
    found = {}
    for level, bracket in brackets.items():
        low, high = bracket.low.repeat(places), bracket.high.repeat(places)
        counts = np.zeros((4, values.shape[1]), np.int32)
        tally(values, low, high, *counts)
        starts = np.cumsum(counts[3], dtype=np.int64)
        inside = np.empty(int(starts[-1]), values.dtype)
        gather(values, low, high, starts - counts[3], inside)
        found[level] = _Inside(columns.by_group(counts), inside)
    return found


def _pick_all(
    ranks: Mapping[int, tuple[int, int]], brackets: "Mapping[int, _Bracket]", blocks: "Sequence[dict[int, _Inside]]"
) -> "dict[int, _Bracket | Statistics]":
    """Order statistics of the open levels, or the wider brackets of those that missed."""
    return {
        level: bracket.pick([block[level] for block in blocks], *ranks[level]) for level, bracket in brackets.items()
    }


@dataclass(frozen=True)
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

    def pick(self, blocks: Sequence[_Inside], first: int, second: int) -> "_Bracket | Statistics":
        """Values of the ranks ``first`` and ``second``; a wider bracket where they are not inside.

        Ties at the ends are counted, not collected: after ReLU half of a unit's values are zero.
        """
        below, at_low, at_high, between = np.sum([block.counts for block in blocks], axis=0)
        at_high = np.where(self.low == self.high, 0, at_high)
        missed_low = first < below
        missed_high = second >= below + at_low + between + at_high
        if missed_low.any() or missed_high.any():
            low = np.where(missed_low, -np.inf, self.low).astype(self.low.dtype)
            return replace(self, low=low, high=np.where(missed_high, np.inf, self.high).astype(self.high.dtype))
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
    from ibstore.analyze.kernels import regroup

    counts = np.sum([block.counts[3] for block in blocks], axis=0)
    ends = np.cumsum(counts)
    places, values = ends - counts, np.empty(ends[-1], blocks[0].values.dtype)
    for block in blocks:
        regroup(block.values, block.counts[3], places, values)
    for group in np.flatnonzero(counts):
        yield int(group), values[ends[group] - counts[group] : ends[group]]
