"""Mutual information from distances to nearest neighbours: Kraskov's two estimators, and Ross's for labels; in bits.

A variable is an array (sample, unit) of numbers; a plain (sample,) is one unit. Distances are the largest difference
in any unit, each variable in units of its own standard deviation (`standard`), so that scaling a variable changes
nothing. Estimates are returned as they are, below zero too.

Equal values have no k-th neighbour of their own, and rectified layers are full of them. As Kraskov recommends, every
value gets noise far below what it can tell: uniform, 10⁻¹⁰ standard deviations wide, from a fixed seed. It is drawn
for the samples in sorted order, so that the same samples in another order get the same estimate, bit for bit. What is
structure below 10⁻¹⁰ standard deviations is lost. Counts are integers and their sums exactly rounded: neither threads
nor blocks change a bit.

Trees search few units, blocks of rows many (`TREE_UNITS`); nothing of samples × samples is held. Blocks take about
1 ns · samples² · units on one core.
"""

import math
from collections.abc import Iterator
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from ibstore.analyze.estimate.entropy import NATS_PER_BIT
from ibstore.analyze.estimate.variables import Floats, Integers, code, numbers, standard
from ibstore.errors import UsageError, ValuesError

TREE_UNITS: Final = 10
"""Units up to which trees are faster: 10,000 normal samples of 8 units take 1.5 s (blocks 2.4 s), of 16 18 s (4 s)."""

BLOCK: Final = 1 << 21
"""Distances held at a time."""

NOISE: Final = 1e-10
"""Width of the noise that tells equal values apart, in standard deviations."""


def ksg(x: NDArray[Any], t: NDArray[Any], k: int = 3, variant: int = 1) -> float:
    """I(X;T) in bits of real vectors, (sample, unit) each (Kraskov, Stögbauer & Grassberger 2004).

    In nats, with the k nearest neighbours of a sample in max(‖Δx‖, ‖Δt‖):

    - variant 1: ψ(k) + ψ(N) − ⟨ψ(n_x + 1) + ψ(n_t + 1)⟩, n the other samples nearer than the k-th, in x or t alone;
    - variant 2: ψ(k) − 1/k + ψ(N) − ⟨ψ(n_x) + ψ(n_t)⟩, n those not farther than any of the k, in x or t alone.

    0 where X or T is constant. Swapping X and T changes nothing but the noise where values are equal.

    Raises
    ------
    UsageError
        When there are not more than k samples, k is below 1, there is no such variant, or arrays are no (sample, unit).
    ValuesError
        When values are no finite numbers.

    Examples
    --------
    >>> x = np.arange(1000.0) % 4
    >>> round(ksg(x, -x), 2)  # each value of x tells t: 2 bits
    2.0
    """
    if variant not in {1, 2}:
        raise UsageError(f"variant {variant}: Kraskov's estimators are 1 and 2; take one of them")
    x, t = _in_order(numbers(x, "x"), numbers(t, "t"))
    check_neighbours(k, len(x))
    x, t = standard(x)[0], standard(t)[0]
    if not (x.any() and t.any()):
        return 0.0
    counts = _by_trees if x.shape[1] + t.shape[1] <= TREE_UNITS else _by_blocks
    near_x, near_t = counts(_apart(x, 0), _apart(t, 1), k, variant)
    known = _psi(k) + _psi(len(x)) - (0 if variant == 1 else 1 / k)
    return (known - _mean_psi(near_x) - _mean_psi(near_t)) / NATS_PER_BIT


def ross(t: NDArray[Any], labels: NDArray[Any], k: int = 3) -> float:
    """I(T;Y) in bits of a real vector, (sample, unit), and labels, (sample,) (Ross 2014).

    ψ(N) + ⟨ψ(k) − ψ(N_y) − ψ(m)⟩ in nats, N_y the samples of a sample's label, m − 1 all the samples nearer than the
    k-th neighbour among those. As scikit-learn has it, a label of not more than k samples takes as many neighbours as
    there are, and a label that is seen once is left out, of N too. 0 where T is constant.

    Raises
    ------
    UsageError
        When k is below 1, or arrays are no (sample, unit) and (sample,) of the same samples.
    ValuesError
        When values are no finite numbers, or every label is seen once.

    Examples
    --------
    >>> labels = np.arange(1000) % 4
    >>> round(ross(labels + np.linspace(0, 0.1, 1000), labels), 2)
    2.0
    """
    names, sizes = code(labels)
    values = numbers(t, "t")
    _same(values, names[:, None])
    check_neighbours(k, math.inf)
    kept = sizes[names] > 1
    if not kept.any():
        raise ValuesError(f"labels: each of the {len(sizes)} is seen once; give labels that samples share")
    values, column = _in_order(values[kept], names[kept, None].astype(np.float64))
    values, names = standard(values)[0], column[:, 0].astype(np.int64)
    if not values.any():
        return 0.0
    values, neighbours = _apart(values, 0), np.minimum(k, sizes - 1)
    radius = np.empty(len(values))
    for name in np.unique(names):
        radius[names == name] = _kth(values[names == name], int(neighbours[name]))
    known = _psi(len(values)) + _mean_psi(neighbours[names]) - _mean_psi(sizes[names])
    return (known - _mean_psi(_nearer(values, radius))) / NATS_PER_BIT


def check_neighbours(k: int, samples: float) -> None:
    """Refuse a number of neighbours that samples cannot have."""
    if not 1 <= k < samples:
        raise UsageError(f"k={k} neighbours of {samples} samples; take a k from 1 to less than the number of samples")


def _same(x: NDArray[Any], t: NDArray[Any]) -> None:
    """Refuse variables of other samples."""
    if len(x) != len(t):
        raise UsageError(f"one variable has {len(x)} samples, the other {len(t)}; give both of the same samples")


def _in_order(x: Floats, t: Floats) -> tuple[Floats, Floats]:
    """Both with their samples in the order of their bytes: which order they came in is forgotten."""
    _same(x, t)
    both = np.hstack([x, t])
    both = both[both.view(f"V{both.itemsize * both.shape[1]}")[:, 0].argsort(kind="stable")]
    return both[:, : x.shape[1]], both[:, x.shape[1] :]


def _apart(values: Floats, stream: int) -> Floats:
    """Values that were equal, told apart."""
    return values + NOISE * (np.random.default_rng(stream).random(values.shape) - 0.5)


def _by_trees(x: Floats, t: Floats, k: int, variant: int) -> tuple[Integers, Integers]:
    """What ψ is taken of in x and t: counts of near samples, `_by_blocks`'s to the last one."""
    from scipy.spatial import KDTree

    distances, near = KDTree(np.hstack([x, t])).query(np.hstack([x, t]), k + 1, p=np.inf, workers=-1)
    if variant == 1:
        return _nearer(x, distances[:, -1]), _nearer(t, distances[:, -1])
    return _within(x, near), _within(t, near)


def _within(values: Floats, near: Integers) -> Integers:
    """How many others are not farther from each sample than any of those ``near`` it, (sample, neighbour)."""
    radius = np.abs(values[near] - values[:, None]).max(axis=(1, 2))
    return _nearer(values, np.nextafter(radius, np.inf)) - 1


def _by_blocks(x: Floats, t: Floats, k: int, variant: int) -> tuple[Integers, Integers]:
    """What ψ is taken of in x and t: counts of near samples, from all distances, some rows at a time."""
    near = np.empty((2, len(x)), np.int64)
    for rows in _blocks(len(x)):
        both = _distances(x, rows), _distances(t, rows)
        joint = np.maximum(*both)
        if variant == 1:
            kth = np.partition(joint, k, axis=1)[:, k, None]
            near[:, rows] = [(one < kth).sum(axis=1) for one in both]
        else:
            found = np.argpartition(joint, k, axis=1)[:, : k + 1]
            farthest = [np.take_along_axis(one, found, axis=1).max(axis=1, keepdims=True) for one in both]
            near[:, rows] = [(one <= far).sum(axis=1) - 1 for one, far in zip(both, farthest, strict=True)]
    return near[0], near[1]


def _kth(values: Floats, k: int) -> Floats:
    """Each sample's distance to its k-th neighbour."""
    if values.shape[1] <= TREE_UNITS:
        from scipy.spatial import KDTree

        return np.asarray(KDTree(values).query(values, [k + 1], p=np.inf, workers=-1)[0][:, 0])
    kth = np.empty(len(values))
    for rows in _blocks(len(values)):
        kth[rows] = np.partition(_distances(values, rows), k, axis=1)[:, k]  # copied: a view would hold the block
    return kth


def _nearer(values: Floats, radius: Floats) -> Integers:
    """How many samples are nearer to each than its radius, itself counted."""
    if values.shape[1] <= TREE_UNITS:
        from scipy.spatial import KDTree

        inside = np.nextafter(radius, 0)
        found = KDTree(values).query_ball_point(values, inside, p=np.inf, return_length=True, workers=-1)
        return np.asarray(found, np.int64)
    parts = [(_distances(values, rows) < radius[rows, None]).sum(axis=1) for rows in _blocks(len(values))]
    return np.concatenate(parts)


def _blocks(samples: int) -> Iterator[slice]:
    """Rows whose distances to all are held at a time."""
    size = max(1, BLOCK // samples)
    return (slice(at, at + size) for at in range(0, samples, size))


def _distances(values: Floats, rows: slice) -> Floats:
    """Largest difference in any unit of some samples from all, (row, sample)."""
    from scipy.spatial.distance import cdist

    return np.asarray(cdist(values[rows], values, "chebyshev"))


def _psi(number: int) -> float:
    """The digamma function."""
    from scipy.special import psi

    return float(psi(number))


def _mean_psi(counts: Integers) -> float:
    """⟨ψ⟩, exactly rounded, in nats."""
    from scipy.special import psi

    return math.fsum(psi(counts).tolist()) / len(counts)
