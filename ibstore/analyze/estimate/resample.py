"""How uncertain entropies and informations from samples are: bootstrap, jackknife, permutations, learning curve.

All work on the cells of a `Joint`, in their order, so that the samples' order shows nowhere (other names of the same
patterns draw other random numbers, unless their order stays). There is one PCG64 stream for each seed and purpose,
drawn in sequence. Values are in bits and raw.

An interval tells of the scatter, and of as much of the bias as its method sees; it covers less and less as keys grow
many against samples, which the learning curve shows. Shares of 400 data sets (Zipf: 200) whose nominal 95 % interval
(percentile, basic, jackknife) had the true I(T;Y), for 4 labels and T geometric with p = 0.05 (5.7 bits), uniform over
1,000 keys, or of a Zipf distribution of 10,000::

    N =              geometric, 200   1,000         5,000         uniform, 5,000   Zipf, 5,000
    plugin           .00 .03 .40      .00 .39 .77   .00 .81 .91   .00 .00 .05      .00 .00 .00
    miller_madow     .00 .15 .81      .00 .56 .94   .08 .86 .95   .00 .00 .34      .00 .00 .00
    grassberger      .00 .53 .98      .00 .77 1.0   .14 .89 1.0   .00 .18 .79      .00 .00 .00
    chao_wang_jost   .00 .59 .88      .00 .80 .89   .15 .90 .93   .00 .27 .92      .00 .00 .43
"""

import math
import zlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from ibstore.analyze.estimate.entropy import Counts, CountsOfCounts, estimator_name
from ibstore.analyze.estimate.joint import Codes, Integers, Joint, combined, counts_of, dense, of_counts, total
from ibstore.errors import UsageError

Floats = NDArray[np.floating[Any]]
Terms = Mapping[str, Mapping[str, int]]

DEFAULT: Final = ("h_t", "i_xt", "i_ty")
"""Quantities that are told where none are named; without labels, the first two."""

UNCORRECTED: Final = frozenset({"chao_shen", "good_turing", "grassberger"})
"""Estimators whose value the jackknife makes worse: they hang on parities of counts, switches, or singletons alone."""


def stream(seed: int, purpose: str) -> np.random.Generator:
    """Random numbers that hang on the seed and on what they are for: two purposes share none.

    Raises
    ------
    UsageError
        When the seed is negative.
    """
    if seed < 0:
        raise UsageError(f"seed {seed} is negative; give 0 or more")
    sequence = np.random.SeedSequence(seed, spawn_key=(zlib.crc32(purpose.encode()),))
    return np.random.Generator(np.random.PCG64(sequence))


def tails(level: float) -> tuple[float, float]:
    """Probabilities below the two ends of a central interval.

    Raises
    ------
    UsageError
        When the level is not between 0 and 1.

    Examples
    --------
    >>> tails(0.5)
    (0.25, 0.75)
    """
    if not 0 < level < 1:
        raise UsageError(f"level {level} is not between 0 and 1; give 0.95, say")
    return (1 - level) / 2, (1 + level) / 2


def _at_least(what: str, number: int, least: int) -> None:
    if number < least:
        raise UsageError(f"{number} {what} are too few; give {least} or more")


def _terms(joint: Joint, quantities: Sequence[str] | None) -> Terms:
    """Terms of the quantities that are asked for."""
    names = [name for name in DEFAULT if name in joint.quantities] if quantities is None else quantities
    return {name: joint.terms(name) for name in names}


def _variables(terms: Terms) -> list[str]:
    """Variables that quantities hang on, each once."""
    return list(dict.fromkeys(variable for each in terms.values() for variable in each))


def _cells(joint: Joint) -> Codes:
    """Each sample's cell, (N,), in order."""
    return np.repeat(np.arange(len(joint.counts)), joint.counts)


def _of_cells(joint: Joint, terms: Terms, cells: Codes, estimator: str) -> list[float]:
    """Quantities of a choice of samples, of which the cells are given."""
    counts = np.bincount(cells, minlength=len(joint.counts))
    counted = {variable: of_counts(joint.keys(variable, counts)) for variable in _variables(terms)}
    return [total(each, counted, estimator) for each in terms.values()]


def _deviation(values: Floats) -> float:
    """Standard deviation with n − 1; NaN of a single value."""
    return float(values.std(ddof=1)) if len(values) > 1 else math.nan


@dataclass(frozen=True)
class Bootstrap:
    """An estimate in bits, and what it becomes in samples that are drawn from the sample.

    Attributes
    ----------
    value, mean, std
        Of the sample; of the resamples.
    bias
        ``mean`` − the plug-in's value of the sample, from which the resamples are drawn.
    low, high
        Basic interval (`bootstrap`), the one to tell.
    percentile_low, percentile_high
        The resamples' own quantiles.
    """

    value: float
    mean: float
    std: float
    bias: float
    low: float
    high: float
    percentile_low: float
    percentile_high: float
    resamples: int
    level: float


def bootstrap(
    joint: Joint,
    estimator: str = "plugin",
    quantities: Sequence[str] | None = None,
    resamples: int = 200,
    level: float = 0.95,
    seed: int = 0,
) -> dict[str, Bootstrap]:
    """Quantities of N samples drawn from the N with replacement, again and again (Efron 1979).

    A resample has fewer keys than the sample, as that has fewer than there are: the plug-in is biased once more, and
    the resamples' own quantiles (the percentile interval) lie off by twice the bias. The basic interval takes from
    them how an estimate errs (Davison & Hinkley 1997): value − quantiles of (resample − truth). The truth that they
    are drawn from is the plug-in's value of the sample, whatever the estimator; the estimator's own in its place,
    as is usual, would correct twice what has corrected its bias.

    Raises
    ------
    UsageError
        When there are fewer than 2 resamples, or ``level`` or ``seed`` cannot be meant.
    UnknownNameError
        When a quantity or an estimator does not exist.
    """
    _at_least("resamples", resamples, 2)
    terms, cells, random, ends = _terms(joint, quantities), _cells(joint), stream(seed, "bootstrap"), tails(level)
    drawn = (cells[random.integers(len(cells), size=len(cells))] for _ in range(resamples))
    draws = np.array([_of_cells(joint, terms, own, estimator) for own in drawn])
    found = {}
    for name, own in zip(terms, draws.T, strict=True):
        value, truth = joint.estimate(name, estimator), joint.estimate(name)
        mean = math.fsum(own.tolist()) / resamples
        low, high = np.quantile(own, ends).tolist()
        basic = math.fsum((value, truth, -high)), math.fsum((value, truth, -low))
        found[name] = Bootstrap(value, mean, _deviation(own), mean - truth, *basic, low, high, resamples, level)
    return found


@dataclass(frozen=True)
class Jackknife:
    """An estimate in bits, and what leaving out single samples tells of it.

    Attributes
    ----------
    value, corrected
        As estimated; less its bias, N·value − (N − 1)·mean without a sample each (of `UNCORRECTED` ones the value).
    error
        Standard error.
    low, high
        ``corrected`` ± normal quantiles of the error.
    """

    value: float
    corrected: float
    error: float
    low: float
    high: float
    level: float


def jackknife(
    joint: Joint, estimator: str = "plugin", quantities: Sequence[str] | None = None, level: float = 0.95
) -> dict[str, Jackknife]:
    """Quantities without one sample each, all N of them (Quenouille 1956; Tukey 1958; Efron & Stein 1981).

    What leaving out a sample does to a variable hangs on how often the sample's key was seen, so an entropy is
    estimated once for each multiplicity, and the N values are sums of those by cells. Of a single sample: NaN.
    Raises as `bootstrap`.
    """
    from scipy.special import ndtri

    terms, normal = _terms(joint, quantities), ndtri(tails(level)).tolist()
    smooth = estimator_name(estimator) not in UNCORRECTED
    without = {variable: _without_one(joint, variable, estimator) for variable in _variables(terms)}
    found = {}
    for name, each in terms.items():
        value = joint.estimate(name, estimator)
        left: Floats = np.sum([sign * without[variable] for variable, sign in each.items()], axis=0)
        mean, error = _left_out(joint.counts, left)
        corrected = math.fsum((joint.samples * value, -(joint.samples - 1) * mean)) if smooth else value
        low, high = (corrected + z * error for z in normal)
        found[name] = Jackknife(value, corrected, error, low, high, level)
    return found


def _left_out(counts: Counts, left: Floats) -> tuple[float, float]:
    """Mean of the values without one sample each, and the standard error √((N − 1)/N·Σ(value − mean)²)."""
    samples = int(counts.sum())
    mean = math.fsum((counts * left).tolist()) / samples
    return mean, math.sqrt((samples - 1) / samples * math.fsum((counts * (left - mean) ** 2).tolist()))


def _without_one(joint: Joint, variable: str, estimator: str) -> Floats:
    """Entropy of a variable in bits without one sample of each cell, (cells,)."""
    if joint.samples == 1:
        return np.array([math.nan])
    multiplicity = joint.counted[variable].multiplicity  # it grows
    values = np.array([_without(joint.counted[variable], n).entropy(estimator) for n in multiplicity.tolist()])
    return values[np.searchsorted(multiplicity, joint.keys(variable))][joint.codes[variable]]


def _without(counts: CountsOfCounts, n: int) -> CountsOfCounts:
    """Counts of counts when a key that was seen n times is seen once less."""
    keys = dict(zip(counts.multiplicity.tolist(), counts.keys.tolist(), strict=True))
    keys[n] -= 1
    keys[n - 1] = keys.get(n - 1, 0) + 1
    left = sorted((times, many) for times, many in keys.items() if times and many)
    multiplicity, many = np.array(left, np.int64).T
    return CountsOfCounts(multiplicity, many)


@dataclass(frozen=True)
class Null:
    """An information in bits, and what it is by chance.

    Attributes
    ----------
    value, mean, std
        Of the sample; of its permutations.
    quantile
        Of the permutations, at ``level``.
    p_value
        (1 + permutations that reach the value) / (permutations + 1).
    """

    value: float
    mean: float
    std: float
    quantile: float
    p_value: float
    permutations: int
    level: float


def permutation_null(
    first: Integers,
    second: Integers,
    estimator: str = "plugin",
    permutations: int = 200,
    level: float = 0.95,
    seed: int = 0,
) -> Null:
    """I(A;B) of two (N,) codes, and of A with B permuted, so that neither's counts change (Fisher 1935).

    Where A has a key of its own for every sample, every permutation has the same information: p is 1.

    Raises
    ------
    UsageError
        When there are fewer than 2 permutations, or ``level`` or ``seed`` cannot be meant.
    ValuesError
        As `combined`.
    """
    _at_least("permutations", permutations, 2)
    tails(level)
    random, ours, theirs = stream(seed, "permutation"), dense(first), dense(second)
    together = combined(ours, theirs)
    order, many = np.argsort(together), int(theirs.max()) + 1
    ours, theirs = ours[order], theirs[order]
    alone = counts_of(ours).entropy(estimator), counts_of(theirs).entropy(estimator)

    def information(both: Codes) -> float:
        counts = np.unique(both, return_counts=True)[1]
        return math.fsum((*alone, -of_counts(counts).entropy(estimator)))

    value = information(together)
    null = np.array([information(ours * many + random.permutation(theirs)) for _ in range(permutations)])
    mean = math.fsum(null.tolist()) / permutations
    p_value = (1 + int((null >= value).sum())) / (permutations + 1) if math.isfinite(value + mean) else math.nan
    return Null(value, mean, _deviation(null), float(np.quantile(null, level)), p_value, permutations, level)


@dataclass(frozen=True)
class Curve:
    """Estimates in bits from parts of the samples.

    Attributes
    ----------
    sizes, means, deviations
        Samples in a part, growing; mean and standard deviation over the parts (NaN of a single one).
    change
        From the last mean but one to the last: what the estimate still moves as samples double.
    limit
        Extrapolated to samples without end, as a hint (`learning_curve`).
    """

    sizes: tuple[int, ...]
    means: tuple[float, ...]
    deviations: tuple[float, ...]
    change: float
    limit: float


def learning_curve(
    joint: Joint,
    estimator: str = "plugin",
    quantities: Sequence[str] | None = None,
    sizes: Sequence[int] | None = None,
    repeats: int = 10,
    seed: int = 0,
) -> dict[str, Curve]:
    """Quantities from parts of the samples, drawn without replacement; as many of a size as have room are disjoint.

    The limit is H∞ of H(n) = H∞ + a/n through the last two sizes (Strong et al. 1998, their first-order term), which
    is 2·H(N) − H(N/2) of halves. It is a hint: 1/n is how the bias falls where keys are few against samples, and below
    that it hardly falls at all (Paninski 2003). Through more sizes it was found further off.

    Parameters
    ----------
    sizes
        `halvings` of N where there are none.
    repeats
        Parts of each size; of size N there is one.

    Raises
    ------
    UsageError
        When a size is not within 1 … N, there are no sizes or repeats, or ``seed`` cannot be meant.
    UnknownNameError
        When a quantity or an estimator does not exist.
    """
    chosen = halvings(joint.samples) if sizes is None else tuple(sorted(set(sizes)))
    _at_least("repeats", repeats, 1)
    if not chosen or not 1 <= chosen[0] <= chosen[-1] <= joint.samples:
        raise UsageError(f"sizes {list(chosen)} do not lie within the {joint.samples} samples; give some from 1 on")
    terms, cells, random = _terms(joint, quantities), _cells(joint), stream(seed, "learning curve")
    by_size = [
        np.array([_of_cells(joint, terms, part, estimator) for part in _parts(cells, size, repeats, random)])
        for size in chosen
    ]
    return {name: _curve(chosen, [values[:, place] for values in by_size]) for place, name in enumerate(terms)}


def halvings(samples: int, least: int = 100) -> tuple[int, ...]:
    """N and its half, and their halves as long as they have ``least`` samples, growing.

    >>> halvings(1000), halvings(5)
    ((125, 250, 500, 1000), (2, 5))
    """
    sizes = [samples >> times for times in range(samples.bit_length())]
    return tuple(reversed(sizes[:2] + [size for size in sizes[2:] if size >= least]))


def _parts(cells: Codes, size: int, repeats: int, random: np.random.Generator) -> Iterator[Codes]:
    """Parts of so many samples, disjoint as far as there is room; one where the part is the whole."""
    room = len(cells) // size
    many = repeats if size < len(cells) else 1
    for start in range(0, many, room):
        shuffled = random.permutation(cells)
        for place in range(min(room, many - start)):
            yield shuffled[place * size : (place + 1) * size]


def _curve(sizes: tuple[int, ...], values: Sequence[Floats]) -> Curve:
    """Mean and deviation by size, and where they go."""
    means = tuple(math.fsum(own.tolist()) / len(own) for own in values)
    deviations = tuple(_deviation(own) for own in values)
    if len(sizes) == 1:
        return Curve(sizes, means, deviations, math.nan, math.nan)
    (before, size), change = sizes[-2:], means[-1] - means[-2]
    return Curve(sizes, means, deviations, change, means[-1] + change * before / (size - before))
