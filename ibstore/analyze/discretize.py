"""Discretizations: from a unit's value to a bin number, declared as functions of their parameters.

A *binning* puts a value into the bin ``number of edges ≤ value``; its edges are fixed, or built from sample
quantiles of the group they are fitted on. A *coding* maps a value to a number by itself.

Arithmetic is decided here, once: quantiles and edges are float64, and an edge is rounded *up* to the dtype of
the values before it is compared with them, so that ``edge ≤ value`` means what it means for real numbers.
−0.0 equals 0.0. NaN has no bin: a binning, `width` and `labels` refuse it, `exact` gives it a code of its own.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

MOST_BINS: Final = 65_536

MOST_MANTISSA: Final = 52
"""Bits of the mantissa of the longest float, beside the one that is not stored."""

DISCRETIZATIONS: "Final[dict[str, Callable[..., Discretization]]]" = {}


@dataclass(frozen=True)
class Binning:
    """Bins between edges.

    Parameters
    ----------
    bins
        How many bin numbers there are, ``edges + 1``.
    levels
        Sample quantiles that the edges are built from; none for fixed edges.
    edges
        From the quantiles, (level, group) float64, to the edges, (edge, group) float64, ascending.
        For fixed edges it is given an array of no levels.
    limits
        From the quantiles to the two ends of what the bins divide, (2, group) float64: values beyond are clipped into
        the end bins. By default those are open.
    """

    bins: int
    levels: tuple[float, ...]
    edges: Callable[[Floats], Floats]
    limits: Callable[[Floats], Floats] = lambda _: np.array([[-np.inf], [np.inf]])


@dataclass(frozen=True)
class Coding:
    """Codes without edges: unsigned integers of ``bits(dtype)`` bits for values of a dtype."""

    bits: Callable[[np.dtype[Any]], int]
    code: Callable[[NDArray[Any]], NDArray[Any]]
    takes_nan: bool = False


Discretization = Binning | Coding


def register_discretizer(
    function: Callable[..., Discretization],
) -> Callable[..., Discretization]:
    """Make ``function`` a discretization that waists can name; use it as a decorator.

    Its arguments are what a waist's text gives, annotated with ``int``, ``float`` or ``str``; it returns a
    `Binning` or a `Coding`. A ValueError becomes the user's message.

    Examples
    --------
    >>> @register_discretizer
    ... def median() -> Discretization:
    ...     return Binning(2, levels=(0.5,), edges=lambda quantiles: quantiles)
    >>> from ibstore.analyze.grammar import parse_recipe
    >>> str(parse_recipe("identity | median(scope=layer)"))
    'identity | median(scope=layer)'
    >>> _ = DISCRETIZATIONS.pop("median")
    """
    DISCRETIZATIONS[function.__name__] = function
    return function


@register_discretizer
def threshold(t: float) -> Discretization:
    """Code 1 where value > t, else 0."""
    with np.errstate(over="ignore"):  # nothing lies above the largest number: refused as an edge
        return _fixed([np.nextafter(t, np.inf)])  # the smallest number above t: ≥ it is > t


@register_discretizer
def quantile(bins: int, lo: float = 0.01, hi: float = 0.99) -> Discretization:
    """Clip to two sample quantiles and split what lies between into equal bins.

    A group whose two quantiles are equal has all its values in one bin.
    """
    _check_bins(bins)
    _check_levels(lo, hi)

    def edges(quantiles: Floats) -> Floats:
        inner = _linear(quantiles[0], quantiles[1], bins)
        return np.where(quantiles[0] == quantiles[1], np.inf, inner)  # constant: no edge is reached

    return Binning(bins, (lo, hi), edges, limits=lambda quantiles: quantiles)


@register_discretizer
def uniform(bins: int, lo: float, hi: float) -> Discretization:
    """Equal bins between two numbers, values beyond them clipped."""
    _check_bins(bins)
    if not lo < hi:
        raise ValueError(f"lo must be below hi, not {lo} and {hi}")
    with np.errstate(over="ignore", invalid="ignore"):  # a range beyond float64: refused as edges
        found = _fixed(_linear(np.array([lo]), np.array([hi]), bins)[:, 0])
    return replace(found, limits=lambda _: np.array([[lo], [hi]]))


@register_discretizer
def equalmass(bins: int) -> Discretization:
    """Bins between the sample quantiles 1/k, 2/k, …: as equally filled as ties allow."""
    _check_bins(bins)
    return Binning(bins, tuple(step / bins for step in range(1, bins)), lambda quantiles: quantiles)


@register_discretizer
def edges(*edge: float) -> Discretization:
    """Code = number of edges ≤ value, both ends open."""
    if not edge or any(later <= earlier for earlier, later in pairwise(edge)):
        raise ValueError("edges must be given in ascending order, at least one")
    return _fixed(edge)


@register_discretizer
def thesis_edges(num: int = 2) -> Discretization:
    """Edges of the published code behind the thesis's tables.

    ``linspace(q0.01 − 0.1, q0.99 + 0.1, num)`` for each group, the upper end halved when ``num`` is 2;
    code = number of edges ≤ value.
    """
    if not 1 <= num < MOST_BINS:
        raise ValueError(f"num must be between 1 and {MOST_BINS - 1:,}, not {num}")

    def edges(quantiles: Floats) -> Floats:
        found = np.linspace(quantiles[0] - 0.1, quantiles[1] + 0.1, num)
        if num == 2:  # noqa: PLR2004  (the rule is the thesis's)
            found[1] /= 2
        return np.sort(found, axis=0)  # a halved negative end may lie below the first

    return Binning(num + 1, (0.01, 0.99), edges)


@register_discretizer
def width(w: float) -> Discretization:
    """Code of k = floor(value / w), computed in float64 and clipped to 32 bits; the infinities are at the ends.

    It is 2k, or −2k − 1 where k < 0, so that all bytes but the last of most codes are the same and need not be counted.
    """
    if not (w > 0 and np.isfinite(w)):
        raise ValueError(f"w must be a positive number, not {w}")

    def code(values: NDArray[Any]) -> NDArray[Any]:
        from ibstore.analyze.kernels import count_steps

        if values.dtype not in (np.float32, np.float64):
            values = values.astype(np.float64)
        codes = np.empty(values.shape, np.uint32)
        count_steps(values, float(w), codes)
        return codes.byteswap(inplace=True).view(">u4")  # as keys are packed

    return Coding(lambda _: 32, code)


@register_discretizer
def exact() -> Discretization:
    """Every distinct value its own code: its bit pattern, after −0.0 → 0.0 and all NaN → one NaN."""
    return Coding(lambda dtype: dtype.itemsize * 8, _pattern, takes_nan=True)


@register_discretizer
def float_bits(mantissa: int) -> Discretization:
    """Bins between floats of a shorter mantissa: sign, exponent and the first ``mantissa`` bits of the bit pattern.

    They are as wide as the value is large, and need no range: with 7 bits those of bfloat16, with 23 the exact float32.
    The infinities have bins of their own, and so has NaN; −0.0 is 0.0.
    """
    if not 1 <= mantissa <= MOST_MANTISSA:  # NaN is told from an infinity by the first bit
        raise ValueError(f"mantissa is how many of its bits to keep, 1 to {MOST_MANTISSA}, not {mantissa}")

    def bits(dtype: np.dtype[Any]) -> int:
        kept = dtype.itemsize * 8 - _dropped(dtype, mantissa)
        return next(size for size in (8, 16, 32, 64) if size >= kept)

    def code(values: NDArray[Any]) -> NDArray[Any]:
        if values.dtype.kind != "f":
            raise ValueError(f"float_bits takes floats, these are {values.dtype}, which exact counts")
        pattern = _pattern(values)
        return np.asarray(pattern >> pattern.dtype.type(_dropped(values.dtype, mantissa)))

    return Coding(bits, code, takes_nan=True)


def _pattern(values: NDArray[Any]) -> NDArray[Any]:
    """Bit patterns as unsigned integers, after −0.0 → 0.0 and all NaN → one NaN."""
    if values.dtype.kind == "f":
        with np.errstate(invalid="ignore"):  # a signalling NaN is one more NaN
            values = np.where(np.isnan(values), values.dtype.type(np.nan), values + values.dtype.type(0))
    return values.view(f"u{values.dtype.itemsize}")


def _dropped(dtype: np.dtype[Any], mantissa: int) -> int:
    """How many bits of a float's mantissa are left out; none of another type's."""
    return max(0, np.finfo(dtype).nmant - mantissa) if dtype.kind == "f" else 0


@register_discretizer
def labels() -> Discretization:
    """The value is already an integer; anything else is refused."""

    def code(values: NDArray[Any]) -> NDArray[Any]:
        with np.errstate(invalid="ignore"):  # infinities and numbers beyond 64 bits come back as another number
            integers = values.astype(np.int64)
        wrong = np.flatnonzero(integers != values)
        if len(wrong):
            raise ValueError(f"labels takes integers, found {values.reshape(-1)[wrong[0]]}")
        return integers.view(np.uint64)

    return Coding(lambda _: 64, code)


def _fixed(edge: Any) -> Binning:
    """Binning whose edges are the same for every group."""
    column = np.asarray(edge, np.float64)[:, None]
    if not np.isfinite(column).all():
        raise ValueError("edges must be finite numbers")
    return Binning(len(column) + 1, (), lambda _: column)


def _linear(low: Floats, high: Floats, bins: int) -> Floats:
    """Inner edges low + (high − low)·j/bins, j = 1 … bins − 1, (edge, group)."""
    return low + (high - low) * np.arange(1, bins)[:, None] / bins


def _check_bins(bins: int) -> None:
    if not 1 <= bins <= MOST_BINS:
        raise ValueError(f"bins must be between 1 and {MOST_BINS:,}, not {bins}")


def _check_levels(lo: float, hi: float) -> None:
    if not 0 <= lo < hi <= 1:
        raise ValueError(f"lo and hi are quantile levels, 0 ≤ lo < hi ≤ 1, not {lo} and {hi}")
