"""Matrix-based Rényi entropy: of the eigenvalues of a Gram matrix, without a density; in bits.

S_α(A) = log₂(Σ λᵢ^α) / (1 − α) of a Gram matrix A of trace 1 (Sánchez Giraldo, Rao & Príncipe 2015); α → 1 is von
Neumann's entropy −Σ λ log₂ λ, α = 2 needs no eigenvalue. The joint entropy is that of the product entry by entry, of
trace 1 again, and I_α(A; B) = S_α(A) + S_α(B) − S_α(A, B). Information planes take α = 1.01 (Yu, Wickstrøm, Jenssen &
Príncipe 2020, arXiv:1804.06537).

All is relative to the kernel: wide, and all samples are one (0 bits); narrow, and each is its own (log₂ N). The width
is Silverman's rule in the form of that literature, σ = h·N^(−1/(4 + d)), on values in units of their overall standard
deviation, with h = √d (Tapia & Estévez 2020, arXiv:2005.07783), d the units that vary. Squared distances are 2d in the
mean, so that with a constant h, as 5, each sample of a wide layer is alone: of 2,000 digits S(X) is then 10.96 bits,
log₂ N 10.97, and with √d 5.99. Labels have the identity kernel.

A Gram matrix is N² float64; its eigenvalues take a copy of it and about 1.3·N³ operations: the caller limits N. With
α = 2 `plane` holds no more than a block. BLAS works with one thread, so that threads change no bit; where cores are
busy its threads also wait for each other, ten times as long as they work.
"""

import math
from collections.abc import Iterator
from typing import Any, Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ibstore.analyze.estimate.blas import one_blas_thread
from ibstore.analyze.estimate.entropy import NATS_PER_BIT
from ibstore.analyze.estimate.variables import code, numbers, standard
from ibstore.errors import UsageError

Floats = NDArray[np.float64]

ALPHA: Final = 1.01

LIMIT: Final = 1e-6
"""Nearer to 1 than this, α is 1: what the two differ by is less than what the division loses."""

COLLISION: Final = 2.0
"""The α of which entropies are collision entropies: Σ λ² is Σ Aᵢⱼ²."""

NARROWEST: Final = 1e-6
"""Kernel width, in mean distances, below which float64 does not tell the distance of equal samples from 0."""

BLOCK: Final = 1 << 22
"""Kernel values held at a time where no matrix is."""


class Plane(NamedTuple):
    """A layer's S_α(T), I_α(X;T) and I_α(T;Y), in bits."""

    h_t: float
    i_xt: float
    i_ty: float


def gram(values: NDArray[Any], width: float | None = None) -> Floats:
    """exp(−‖a − b‖² / 2σ²) / N of values (sample, unit), or (sample,): (sample, sample) of trace 1.

    ``width`` is σ in the values' own unit, `silverman`'s if it is not given.

    Raises
    ------
    UsageError
        When the width is not above 0, or so small that distances are not exact enough.
    ValuesError
        When values are no finite numbers.

    Examples
    --------
    >>> gram(np.array([0.0, 1.0]), width=1.0).round(4)
    array([[0.5   , 0.3033],
           [0.3033, 0.5   ]])
    """
    scaled = _scaled(values, width)
    return _gaussian(scaled) / len(scaled)


def silverman(samples: int, units: int) -> float:
    """√d·N^(−1/(4 + d)): the kernel width in overall standard deviations (Tapia & Estévez 2020).

    >>> silverman(10_000, 1), round(silverman(10_000, 784), 2)
    (0.15848931924611134, 27.67)
    """
    return float(math.sqrt(units) * samples ** (-1 / (4 + units)))


def label_gram(labels: NDArray[Any]) -> Floats:
    """1/N where two samples have one label, else 0: (sample, sample) of trace 1.

    Its eigenvalues are the labels' frequencies, so that S_α of it is their Rényi entropy.
    """
    names = code(labels)[0]
    return np.equal(names[:, None], names).astype(np.float64) / len(names)


def joint(a: NDArray[Any], b: NDArray[Any]) -> Floats:
    """Gram matrix of two variables: the product of theirs entry by entry, of trace 1."""
    if a.shape != b.shape:
        raise UsageError(f"Gram matrices of shapes {a.shape} and {b.shape}; give both of the same samples")
    product = a * b
    product /= np.trace(product)
    return np.asarray(product)


def entropy(matrix: NDArray[Any], alpha: float = ALPHA) -> float:
    """S_α in bits of a Gram matrix, (sample, sample), of any positive trace.

    Raises
    ------
    UsageError
        When α is not above 0, or the matrix is none.

    Examples
    --------
    >>> round(entropy(label_gram(np.array([0, 0, 1, 1]))), 9), entropy(label_gram(np.array([5, 5])), alpha=2)
    (1.0, 0.0)
    """
    if matrix.ndim != 2 or matrix.shape[0] != matrix.shape[1] or not len(matrix):  # noqa: PLR2004
        raise UsageError(f"a Gram matrix of shape {matrix.shape}; give (sample, sample)")
    if alpha == COLLISION:
        rows = np.einsum("ij,ij->i", matrix, matrix)
        return -math.log2(math.fsum(rows.tolist()) / float(np.trace(matrix)) ** 2) + 0.0
    return spectrum_entropy(_eigenvalues(matrix), alpha)


def spectrum_entropy(eigenvalues: NDArray[Any], alpha: float = ALPHA) -> float:
    """Rényi's α-entropy in bits of eigenvalues, or any weights, as shares of their sum; rounding's are no eigenvalues.

    >>> spectrum_entropy(np.array([1, 1, 2]), alpha=1), spectrum_entropy(np.array([3, 3]), alpha=0.5)
    (1.5, 1.0)
    """
    from scipy.special import logsumexp

    if not (math.isfinite(alpha) and alpha > 0):
        raise UsageError(f"alpha={alpha}: Rényi's α is a finite number above 0, as in 1.01")
    weights = np.sort(eigenvalues[eigenvalues > len(eigenvalues) * np.finfo(float).eps * eigenvalues.max()])
    logs = np.log(weights / math.fsum(weights.tolist()))
    if abs(alpha - 1) < LIMIT:
        nats = -math.fsum((np.exp(logs) * logs).tolist())
    else:
        nats = float(logsumexp(alpha * logs) - alpha * logsumexp(logs)) / (1 - alpha)
    return nats / NATS_PER_BIT + 0.0


def information(a: NDArray[Any], b: NDArray[Any], alpha: float = ALPHA) -> float:
    """I_α in bits of two Gram matrices, (sample, sample) each: S_α(A) + S_α(B) − S_α(A, B).

    Rényi's entropies beyond α = 1 are not subadditive: there it may be below 0, most with labels.

    >>> labels = np.array([0, 0, 1, 1, 2, 2])
    >>> round(information(label_gram(labels), label_gram(labels), alpha=2), 6) == round(math.log2(3), 6)
    True
    """
    return entropy(a, alpha) + entropy(b, alpha) - entropy(joint(a, b), alpha)


def plane(
    x: NDArray[Any],
    t: NDArray[Any],
    labels: NDArray[Any],
    alpha: float = ALPHA,
    widths: tuple[float | None, float | None] = (None, None),
) -> Plane:
    """S_α(T), I_α(X;T), I_α(T;Y) in bits of the input, a layer, (sample, unit) each, and labels, (sample,).

    ``widths`` are those of the kernels of X and T, as in `gram`, whose errors it raises too. With α = 2 it is done in
    blocks. Else four matrices are held at most, and three sets of eigenvalues computed: the matrix of T with Y falls
    apart into the labels', which are small.
    """
    names, sizes = code(labels)
    if not len(x) == len(t) == len(names):
        raise UsageError(f"{len(x)} samples of x, {len(t)} of t, {len(names)} labels; give all of the same samples")
    if alpha == COLLISION:
        return _collision_plane(_scaled(x, widths[0]), _scaled(t, widths[1]), names)
    a, b = gram(x, widths[0]), gram(t, widths[1])
    by_label = [_eigenvalues(b[np.ix_(names == name, names == name)]) for name in range(len(sizes))]
    h_t, h_y = entropy(b, alpha), spectrum_entropy(sizes, alpha)
    i_xt = entropy(a, alpha) + h_t - entropy(joint(a, b), alpha)
    return Plane(h_t, i_xt, h_t + h_y - spectrum_entropy(np.concatenate(by_label), alpha))


def _collision_plane(x: Floats, t: Floats, names: NDArray[np.int64]) -> Plane:
    """`plane` for α = 2: S₂ = 2·log₂ N − log₂ Σ K², the sums of squares added row by row."""
    sums: list[Floats] = []
    for rows in _blocks(len(names)):
        square_x, square_t = np.square(_gaussian(x, rows)), np.square(_gaussian(t, rows))
        same = names[rows, None] == names
        squares = square_x, square_t, same, square_x * square_t, square_t * same
        sums.append(np.array([one.sum(axis=1) for one in squares]))
    s_x, s_t, s_y, s_xt, s_ty = (
        2 * math.log2(len(names)) - math.log2(math.fsum(rows)) for rows in np.hstack(sums).tolist()
    )
    return Plane(s_t, s_x + s_t - s_xt, s_t + s_y - s_ty)


def _gaussian(scaled: Floats, rows: slice | None = None) -> Floats:
    """Kernel values of all samples, or of some rows, with all: (row, sample)."""
    from sklearn.metrics.pairwise import rbf_kernel

    with one_blas_thread():
        return np.asarray(rbf_kernel(scaled if rows is None else scaled[rows], scaled, gamma=0.5))


def _scaled(values: NDArray[Any], width: float | None) -> Floats:
    """Values (sample, unit) in kernel widths."""
    if width is not None and not (math.isfinite(width) and width > 0):
        raise UsageError(f"kernel width {width}: it is a finite number above 0, in the values' own unit")
    rows, deviation = standard(numbers(values, "values"))
    samples, units = rows.shape
    if deviation == 0:
        return rows
    relative = silverman(samples, units) if width is None else width / deviation
    least = NARROWEST * math.sqrt(units)
    if relative < least:
        raise UsageError(
            f"kernel width {width} of values that deviate by {deviation:.3g}; take {least * deviation:.3g} or more"
        )
    return rows / relative


def _eigenvalues(matrix: NDArray[Any]) -> Floats:
    """Of a symmetric matrix, ascending."""
    from scipy.linalg import eigvalsh

    with one_blas_thread():
        return np.asarray(eigvalsh(matrix))


def _blocks(samples: int) -> Iterator[slice]:
    """Rows whose kernel values with all are held at a time."""
    size = max(1, BLOCK // samples)
    return (slice(at, at + size) for at in range(0, samples, size))
