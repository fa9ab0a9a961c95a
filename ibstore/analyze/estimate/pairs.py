"""Sums of Gaussian kernels over all pairs of samples, block by block: nothing of the size N × N is ever there.

Samples are points p = (a − centre) / 2σ, so that half the squared distance of two of them, t = ‖pᵢ − pⱼ‖² / 2, is
‖aᵢ − aⱼ‖² / 8σ²: e⁻ᵗ is the kernel of ν = 4, e⁻⁴ᵗ that of ν = 1. A pair is computed once, for both of its samples.
Blocks' sizes are fixed, their sums are added in a fixed order, and BLAS works with one thread in each of ours: so
neither threads nor memory change a bit of the result. Another BLAS may, which is free to sum products in any order
(`ibstore.analyze.estimate.kde` bounds that).
"""

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import lru_cache
from itertools import combinations_with_replacement, islice
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from ibstore.analyze.estimate.blas import one_blas_thread

Floats = NDArray[np.float64]
Labels = NDArray[np.int64]

ROWS: Final = 1000
"""Samples in a block."""

UNITS: Final = 2048
"""Units that a product of two blocks sums at once: what a thread holds does not grow with the layer."""

AT_ONCE: Final = 64
"""Pairs of blocks that wait for one thread."""


@dataclass(frozen=True)
class Points:
    """Samples ``values``, (sample, unit) of any real dtype, seen from ``centre``, (unit,), in steps of 1/``scale``.

    ``halves``, (sample,), are ‖p‖² / 2.
    """

    values: NDArray[Any]
    centre: Floats
    scale: float
    halves: Floats

    def block(self, rows: slice, units: slice, dtype: type[np.floating[Any]]) -> NDArray[np.floating[Any]]:
        """Some of them, (sample, unit), rounded once to ``dtype``."""
        points: Floats = np.subtract(self.values[rows, units], self.centre[units], dtype=np.float64)
        points *= self.scale
        return points.astype(dtype, copy=False)


KernelSums = Callable[[Points, Labels, type[np.floating[Any]]], Floats]
"""What `kernel_sums` is, and `ibstore.analyze.device.Device.kernel_sums`."""


def spans(length: int, size: int = ROWS) -> list[slice]:
    """Consecutive ranges of up to ``size``.

    >>> spans(5, 2)
    [slice(0, 2, None), slice(2, 4, None), slice(4, 5, None)]
    """
    return [slice(start, min(start + size, length)) for start in range(0, length, size)]


def block_pairs(samples: int) -> Iterator[tuple[slice, slice]]:
    """Every pair of blocks once, a block with itself too, in the order of their sums."""
    return combinations_with_replacement(spans(samples), 2)


def kernel_sums(
    points: Points,
    labels: Labels,
    dtype: type[np.floating[Any]] = np.float64,
    *,
    threads: int = 1,
    room: int = 0,
) -> Floats:
    """Σⱼ e⁻ᵗ, Σⱼ e⁻⁴ᵗ over all other samples, and both over those with the same label: (4, sample), float64.

    t is made of matrix products in ``dtype`` and of the points' halves. Blocks of points are kept up to ``room``
    bytes; beside those each thread holds less than 96 MiB, however wide the layer.
    """
    units = spans(points.values.shape[1], UNITS)
    size: int = ROWS * units[0].stop * np.dtype(dtype).itemsize

    @lru_cache(max(2 * threads, room // size))
    def block(start: int, first: int) -> NDArray[np.floating[Any]]:
        return points.block(slice(start, start + ROWS), slice(first, first + UNITS), dtype)

    def products(left: slice, right: slice) -> NDArray[np.floating[Any]]:
        found: NDArray[np.floating[Any]] | None = None
        for some in units:
            here = block(left.start, some.start)
            there = here if right == left else block(right.start, some.start)
            found = here @ there.T if found is None else np.add(found, here @ there.T, out=found)
        assert found is not None
        return found

    return _summed(products, points.halves, labels, threads)


def difference_sums(points: Points, labels: Labels, *, threads: int = 1) -> Floats:
    """What `kernel_sums` gives, of float64 differences of the samples themselves: slow, and right at any scale."""
    from scipy.spatial.distance import cdist

    values, step = points.values, 0.5 * points.scale**2

    def products(left: slice, right: slice) -> Floats:
        distances = sum(
            cdist(*(values[rows, some].astype(np.float64) for rows in (left, right)), "sqeuclidean")
            for some in spans(values.shape[1], UNITS)
        )
        return np.asarray(distances * -step)

    return _summed(products, np.zeros(len(values)), labels, threads)


def _summed(
    products: Callable[[slice, slice], NDArray[np.floating[Any]]], halves: Floats, labels: Labels, threads: int
) -> Floats:
    """Sums (4, sample) over blocks whose ``products`` are threads' work, added in the blocks' order."""
    from ibstore.analyze.estimate.kernels import add_kernels

    def work(pair: tuple[slice, slice]) -> tuple[Floats, Floats]:
        left, right = pair
        found = products(left, right)
        if left == right:
            np.fill_diagonal(found, -np.inf)  # no sample is its own neighbour
        sums = np.zeros((4, found.shape[0])), np.zeros((4, found.shape[1]))
        add_kernels(found, halves[left], halves[right], labels[left], labels[right], *sums)
        return sums

    total, pairs = np.zeros((4, len(halves))), block_pairs(len(halves))
    with one_blas_thread(), ThreadPoolExecutor(threads) as pool:
        while batch := list(islice(pairs, AT_ONCE * threads)):
            for (left, right), (of_left, of_right) in zip(batch, pool.map(work, batch), strict=True):
                total[:, left] += of_left
                if left != right:
                    total[:, right] += of_right
    return total
