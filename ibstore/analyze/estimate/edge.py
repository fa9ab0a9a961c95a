"""Mutual information by EDGE: variables are hashed into buckets, buckets are counted like keys, widths are combined.

From the formulas of Noshad, Zeng & Hero 2019 (arXiv:1801.09125). Î = Σ (NᵢMⱼ/N²)·g(NᵢⱼN / NᵢMⱼ), g(r) = r·ln r, over
the pairs of buckets that samples share is the plug-in information of the buckets, H(i) + H(j) − H(i, j). Its bias is
Σ Cₖ·εᵏ from the width ε of the buckets, and O(1/(N·εᵈ)) from the number of samples. Several widths ε = t·ε₀ are
therefore combined, with the weights of least norm that have Σ w = 1 and Σ w·tᵏ = 0. Where this departs from the paper:

- Bucket numbers are exact: H₂, which hashes cells to c·N buckets to save memory, may join cells, and grouping does
  not. Nor is g cut off: the bound that the proof wants is above g(N).
- ε₀ is the width at which the samples occupy `OCCUPIED`·√N pairs of buckets: the paper's N·εᵈ ∝ √N, found by halving,
  since the d that the samples themselves fill is not known.
- Powers of t up to 1 are cancelled, not up to d: more powers make the weights larger (norm 0.9 with one, 4.9 with two,
  27 with three), and what 10,000 samples of two units each say of 2.40 bits is 2.4 with one, 2.9 with two.
- Entropies are Grassberger's (2003), whose bias is far below the plug-in's; ``estimator="plugin"`` is the paper's.
- More than `FLOORED` units are first projected to so many by a Gaussian matrix (p-stable hashing: Datar, Immorlica,
  Indyk & Mirrokni 2004). What the projection drops is not seen.

So few pairs of buckets cut many units once or never: of more than two units each, an estimate is far too low (of 5.99
bits between five units each, 1.8), though it grows with the information. Time grows with N·log N.
"""

import math
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from ibstore.analyze.estimate.joint import counts_of
from ibstore.analyze.estimate.variables import code, numbers, standard
from ibstore.errors import UsageError

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]

OCCUPIED: Final = 4
"""Pairs of buckets that samples occupy at the smallest width, in √N."""

WIDEST: Final = 2.0
"""The largest of the widths that are combined, in smallest ones."""

FLOORED: Final = 5
"""Units that are hashed as they are; more are projected."""

FINEST: Final = 1e-6
"""The smallest width looked at, in standard deviations: what is nearer is a repeated value."""

PRECISION: Final = 1.05
"""Ratio within which the smallest width is found."""


def edge(
    x: NDArray[Any],
    t: NDArray[Any],
    seed: int = 0,
    members: int = 32,
    orders: int = 1,
    estimator: str = "grassberger",
) -> float:
    """I(X;T) in bits of real vectors, (sample, unit) each; one of integers, (sample,), is labels: each is a bucket.

    ``members`` widths are combined, ``orders`` powers of the width are cancelled (0: the members' mean), and
    ``estimator`` is any of `ibstore.analyze.estimate.entropy`. 0 where a variable is constant; otherwise it may be
    negative. Samples' order, swapping the two and scaling one change nothing but roundings.

    Raises
    ------
    UsageError
        When there are not more members than orders, or arrays are no (sample, unit) of the same samples.
    ValuesError
        When values are no finite numbers.

    Examples
    --------
    >>> labels = np.arange(1000) % 4
    >>> round(edge(labels + np.linspace(0, 0.1, 1000), labels), 2)
    2.0
    """
    if len(x) != len(t):
        raise UsageError(f"x has {len(x)} samples, t {len(t)}; give both of the same samples")
    if seed < 0:
        raise UsageError(f"seed {seed}: take an integer from 0")
    steps = np.linspace(1, WIDEST, members)
    weights = ensemble_weights(steps, orders)
    x, t = _side(x, "x", seed), _side(t, "t", seed)
    if not (x.any() and t.any()):
        return 0.0
    least = _smallest_width(x, t, seed)
    found = [
        information(_buckets(x, least * step, (seed, number)), _buckets(t, least * step, (seed, number)), estimator)
        for number, step in enumerate(steps.tolist())
    ]
    return math.fsum((weights * found).tolist())


def ensemble_weights(steps: Floats, orders: int) -> Floats:
    """Weights w of least norm with Σ w = 1 and Σ w·tᵏ = 0, k = 1 … ``orders``, for widths t, (member,).

    >>> ensemble_weights(np.array([1.0, 2.0]), 1).round(6) + 0.0
    array([ 2., -1.])
    """
    if not 0 <= orders < len(steps):
        raise UsageError(f"{orders} orders of {len(steps)} members; take more members than orders")
    powers = np.vander(steps, orders + 1, increasing=True).T
    return np.asarray(np.linalg.lstsq(powers, np.eye(orders + 1)[0], rcond=None)[0])


def buckets(values: NDArray[Any], width: float, seed: int | tuple[int, ...] = 0) -> Integers:
    """Numbers from 0 of the cells ⌊value/width + offset⌋ of samples, (sample, unit): int64, (sample,).

    Offsets are uniform in [0, 1), by unit. Equal numbers if and only if equal cells.

    >>> buckets(np.array([[0.0], [0.1], [7.0]]), width=2.0)
    array([0, 0, 1])
    """
    if not (math.isfinite(width) and width > 0):
        raise UsageError(f"bucket width {width}: it is a finite number above 0, in the values' own unit")
    rows = numbers(values, "values")
    return _group(np.floor(rows / width + np.random.default_rng(seed).random(rows.shape[1])))


def information(a: Integers, b: Integers, estimator: str = "plugin") -> float:
    """H(a) + H(b) − H(a, b) in bits of two bucket numbers, (sample,) from 0 each.

    >>> information(np.array([0, 0, 1, 1]), np.array([1, 1, 0, 0]))
    1.0
    """
    h_a, h_b, h_both = (counts_of(keys).entropy(estimator) for keys in (a, b, _pairs(a, b)))
    return h_a + h_b - h_both


def _side(values: NDArray[Any], what: str, seed: int) -> Floats | Integers:
    """Labels as numbers from 0, (sample,); else values in standard deviations, (sample, unit) of few units."""
    array = np.asarray(values)
    if array.ndim == 1 and array.dtype.kind != "f":
        return code(array)[0]
    rows = standard(numbers(array, what))[0]
    if rows.shape[1] <= FLOORED:
        return rows
    directions = np.random.default_rng((seed, 0, 1)).normal(size=(rows.shape[1], FLOORED))
    return standard(np.einsum("su,up->sp", rows, directions))[0]  # not BLAS, whose last bits hang on its threads


def _smallest_width(a: Floats | Integers, b: Floats | Integers, seed: int) -> float:
    """Width at which samples occupy as many pairs of buckets as they should, labels' own not counted."""
    samples = len(a)
    labels = max((int(side.max()) + 1 for side in (a, b) if side.ndim == 1), default=1)
    most = labels + min(OCCUPIED * math.sqrt(samples), samples / 2)
    low, high = FINEST, 10.0 * (FLOORED + 1)
    while high / low > PRECISION:
        middle = math.sqrt(low * high)
        occupied = _pairs(_buckets(a, middle, (seed, 0)), _buckets(b, middle, (seed, 0)))
        low, high = (middle, high) if len(np.unique(occupied)) > most else (low, middle)
    return high


def _buckets(side: Floats | Integers, width: float, seed: tuple[int, ...]) -> Integers:
    """Labels are their own buckets."""
    return side.astype(np.int64) if side.ndim == 1 else buckets(side, width, seed)


def _pairs(a: Integers, b: Integers) -> Integers:
    """One number for each pair of numbers from 0: below samples², which int64 holds."""
    return a * (int(b.max()) + 1) + b


def _group(cells: Floats) -> Integers:
    """Numbers from 0 of equal rows, by their bytes."""
    whole = np.ascontiguousarray(cells + 0.0)  # no −0.0, whose bytes differ
    _, number = np.unique(whole.view(f"V{whole.itemsize * whole.shape[1]}")[:, 0], return_inverse=True)
    return number.astype(np.int64)
