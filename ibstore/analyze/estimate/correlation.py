"""How much the units of a layer have in common: their total correlation, in bits.

Total correlation (Watanabe 1960) is TC = Σ H(Tᵢ) − H(T) over the units i: 0 where they are independent.
"""

import math
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from ibstore.analyze.estimate.joint import of_counts
from ibstore.errors import UsageError, ValuesError

Floats = NDArray[np.float64]

SPARSE: Final = 8
"""Times N: a wider range of codes is sorted, not tabulated."""

UNEXPLAINED: Final = 64 * float(np.finfo(np.float64).eps)
"""Times d: a smaller share of a unit's variance that the units before it leave is rounding."""


@dataclass(frozen=True)
class TotalCorrelation:
    """Total correlation of so many units, those that are constant left out."""

    bits: float
    units: int
    """Units that vary."""
    constant: int
    """Units that do not: they have nothing in common with any."""

    @property
    def per_dimension(self) -> float:
        """Bits for each unit that varies; NaN where none does."""
        return self.bits / self.units if self.units else math.nan


def total_correlation(codes: NDArray[np.integer[Any]], joint_entropy: float | None = None) -> TotalCorrelation:
    """Σ H(Tᵢ) − H(T) of integer codes, (sample, unit), by plug-in counts.

    H(T) near log₂ N makes it Σ H(Tᵢ) − log₂ N, whatever the units have in common: compare N.

    Parameters
    ----------
    codes
        Of any integer type. Nothing of the size of N × codes is built; a copy in the smallest type, for whole rows.
    joint_entropy
        H(T) in bits where it is known already; no copy is made then.

    Raises
    ------
    ValuesError
        When there are no samples, or the codes are no integers.

    Examples
    --------
    >>> copies = np.array([[0, 0, 7], [1, 1, 7], [0, 0, 7], [1, 1, 7]])
    >>> total_correlation(copies)
    TotalCorrelation(bits=1.0, units=2, constant=1)
    """
    if codes.ndim != 2 or not len(codes) or codes.dtype.kind not in "iub":  # noqa: PLR2004
        raise ValuesError(f"codes are {codes.dtype} {codes.shape}; give integers, (sample, unit), of a sample at least")
    marginal = [of_counts(_counts(codes[:, unit])).entropy() for unit in range(codes.shape[1])]
    joint = of_counts(_row_counts(codes)).entropy() if joint_entropy is None else joint_entropy
    constant = sum(entropy == 0 for entropy in marginal)
    return TotalCorrelation(math.fsum([*marginal, -joint]), len(marginal) - constant, constant)


def gaussian_total_correlation(values: NDArray[np.floating[Any]], shrinkage: float = 0.0) -> TotalCorrelation:
    """½ Σ log₂ σᵢᵢ² − ½ log₂ |Σ| of values, (sample, unit), as if they were normal: −½ log₂ |R|, R their correlations.

    What Achille & Soatto (2018) report, of log z. The sample's is too large by about d·(d − 1) / 4N nats. It is
    infinite where R is singular: where N ≤ d, or a unit is a linear function of others (a copy). A ``shrinkage`` λ
    above 0 takes (1 − λ)·R + λ·1 instead, which never is, and tells less of what there is in common.

    Raises
    ------
    ValuesError
        When there are no samples, or values that are not finite.
    UsageError
        When λ is not between 0 and 1.

    Examples
    --------
    >>> square = np.array([[1.0, 1.0], [1.0, -1.0], [-1.0, 1.0], [-1.0, -1.0]])
    >>> gaussian_total_correlation(square).bits
    0.0
    >>> twice = square[:, [0, 0]]
    >>> gaussian_total_correlation(twice).bits, round(gaussian_total_correlation(twice, shrinkage=0.5).bits, 4)
    (inf, 0.2075)
    """
    if values.ndim != 2 or not len(values) or not np.isfinite(values).all():  # noqa: PLR2004
        raise ValuesError(f"values of shape {values.shape}: give finite ones, (sample, unit), of a sample at least")
    if not 0 <= shrinkage <= 1:
        raise UsageError(f"shrinkage is {shrinkage}; give a number from 0, none, to 1, no correlation at all")
    varying = values[:, values.min(axis=0) != values.max(axis=0)]
    units = varying.shape[1]
    bits = math.inf if len(values) <= units and not shrinkage else _log_determinant(varying, shrinkage)
    return TotalCorrelation(bits, units, values.shape[1] - units)


def _counts(codes: NDArray[np.integer[Any]]) -> NDArray[np.int64]:
    """How often each code was seen."""
    offsets = _offsets(codes)
    if int(offsets.max()) > SPARSE * len(offsets):
        return np.asarray(np.unique(offsets, return_counts=True)[1])
    counts = np.bincount(offsets.astype(np.intp))
    return np.asarray(counts[counts > 0])


def _row_counts(codes: NDArray[np.integer[Any]]) -> NDArray[np.int64]:
    """How often each row was seen; rows are compared byte by byte."""
    if not codes.shape[1]:
        return np.array([len(codes)])
    packed = np.ascontiguousarray(_offsets(codes))
    rows = packed.view(np.dtype((np.void, packed.strides[0]))).ravel()
    return np.asarray(np.unique(rows, return_counts=True)[1])


def _offsets(codes: NDArray[np.integer[Any]]) -> NDArray[np.unsignedinteger[Any]]:
    """Codes less their smallest, in the smallest type that has room: modulo 2^bits, so whatever the codes' own type."""
    low, high = codes.min(), codes.max()
    smallest = np.min_scalar_type(int(high) - int(low))
    return np.asarray(codes.astype(smallest) - low.astype(smallest))


def _log_determinant(values: NDArray[np.floating[Any]], shrinkage: float) -> float:
    """−½ log₂ of the correlations' determinant: in its Cholesky factor, −Σ log₂ of what each unit adds."""
    units = _standardized(values)
    correlations = (1 - shrinkage) * (units.T @ units)
    np.fill_diagonal(correlations, 1.0)
    try:
        added = np.diagonal(np.linalg.cholesky(correlations))
    except np.linalg.LinAlgError:
        return math.inf
    if (added**2 <= UNEXPLAINED * len(added)).any():
        return math.inf
    return max(0.0, math.fsum((-np.log2(added)).tolist()))


def _standardized(values: NDArray[np.floating[Any]]) -> Floats:
    """Units of mean 0 and length 1, of values of any scale."""
    units = values / np.abs(values).max(axis=0).astype(np.float64)
    for _ in range(2):  # the first mean's rounding, and values far from 0
        units -= units.mean(axis=0)
        units /= np.abs(units).max(axis=0)
    return np.asarray(units / np.sqrt((units**2).sum(axis=0)))
