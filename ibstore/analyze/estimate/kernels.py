"""The loop over pairs of samples, compiled by numba when it is first called; it releases the interpreter's lock.

numpy needs five passes over a block for the same, three to four times as long. numba vectorizes no call of the C
library's ``exp``, so it has its own (measured: 1.3 ns a pair; with the library's 11 ns).
"""

import math
from typing import Any, Final

import numpy as np
from numba import njit
from numpy.typing import NDArray

FARTHEST: Final = 700.0
"""What lies farther is taken as lying there: e⁻⁷⁰⁰ is nothing beside 1, and no float64 underflows yet."""

SQUARINGS: Final = 10

TERMS: Final = tuple(1 / math.factorial(k) for k in range(11, -1, -1))
"""Of the exponential series, highest power first."""


@njit(nogil=True, fastmath={"contract"})
def _falling(t: Any) -> Any:
    """e⁻ᵗ for t of 0 … `FARTHEST`, as (e^(−t/1024))¹⁰²⁴: right to 2·10⁻¹³ of itself up to t = 100, to 10⁻⁷ beyond."""
    step = t * -(0.5**SQUARINGS)
    power = 0.0
    for term in TERMS:
        power = power * step + term
    for _ in range(SQUARINGS):
        power *= power
    return power


@njit(nogil=True, cache=True, fastmath={"contract", "reassoc"})
def add_kernels(
    products: NDArray[Any],
    left_halves: NDArray[np.float64],
    right_halves: NDArray[np.float64],
    left_labels: NDArray[np.int64],
    right_labels: NDArray[np.int64],
    left_sums: NDArray[np.float64],
    right_sums: NDArray[np.float64],
) -> None:
    """Add e⁻ᵗ and e⁻⁴ᵗ, of all pairs and of those with one label, to the sums (4, row) and (4, column) of a block.

    t = left half + right half − product, (row, column), is not below 0. The sums are float64 whatever the products.
    """
    wide, narrow, own_wide, own_narrow = right_sums[0], right_sums[1], right_sums[2], right_sums[3]
    for row in range(products.shape[0]):
        half, label = left_halves[row], left_labels[row]
        first = second = third = fourth = 0.0
        for column in range(products.shape[1]):
            t = half + right_halves[column] - products[row, column]
            far = _falling(min(max(t, 0.0), FARTHEST))
            near = (far * far) * (far * far)
            own = label == right_labels[column]
            first += far
            second += near
            third += far * own
            fourth += near * own
            wide[column] += far
            narrow[column] += near
            own_wide[column] += far * own
            own_narrow[column] += near * own
        left_sums[0, row] += first
        left_sums[1, row] += second
        left_sums[2, row] += third
        left_sums[3, row] += fourth
