"""Shwartz-Ziv & Tishby's set (arXiv:1703.00810): all 4,096 patterns of 12 bits, with a rule that no rotation changes.

The 12 bits mark the vertices of an icosahedron, points spread evenly on a sphere. What a pattern's spherical harmonics
say whatever its rotation is their power spectrum P_l = Σ_m |a_lm|². By the addition theorem that is, up to a factor,
Σ_ij b_i b_j P_l(cos γ_ij) with Legendre polynomials P_l and the angles γ_ij between marked points. There are but four
angles, so that a pattern is known by how many pairs have each: integers, in which the invariance is exact. The rule is
f = Σ_l √P_l, l = 0 … 6, and p(y = 1 given x) = 1 / (1 + exp(−γ (f − θ))), θ such that p(y = 1) = ½ and γ such that
I(X;Y) = 0.99 bit. (The source says what f is a function of, not which.)
"""

import zlib
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

from ibstore.capture.datasets.draws import generator
from ibstore.capture.datasets.samples import Dataset, Samples, untested
from ibstore.errors import DatasetError

Floats = NDArray[np.float64]

BITS: Final = 12
COSINES: Final = (1, 1 / 5**0.5, -1 / 5**0.5, -1)
"""Of the angles between vertices: the same one, a neighbour, a neighbour's opposite, the opposite."""

DEGREES: Final = range(7)
INFORMATION: Final = 0.99
"""I(X;Y) of the rule, in bits."""

_SLOPES: Final = (1e-3, 1e4)
"""Between these γ is looked for."""


def szt(data_dir: Path | None, seed: int) -> Dataset:
    """The patterns in the order of the numbers 0 … 4095, most significant bit first, as 0 and 1: (4096, 12) float32.

    Without a folder their labels are drawn from p(y = 1 given x), kept as ``p_y1``; a folder has the published file
    ``var_u.mat``, whose labels are certain.
    """
    ids = np.arange(2**BITS, dtype=np.int64)
    x = patterns()
    if data_dir is not None:
        return untested("var_u", Samples(x, _published(data_dir, x), ids))
    p = label_probabilities()
    y = (generator(seed, "szt").random(len(p)) < p).astype(np.int64)
    return untested("szt", Samples(x, y, ids, {"p_y1": p}))


def patterns() -> NDArray[np.float32]:
    """All patterns, (4096, 12)."""
    numbers = np.arange(2**BITS)[:, None]
    return ((numbers >> np.arange(BITS - 1, -1, -1)) & 1).astype(np.float32)


def angles() -> NDArray[np.int64]:
    """Which of `COSINES` belongs to each two vertices of the icosahedron, (12, 12)."""
    golden = (1 + 5**0.5) / 2
    signs = [(one, other) for one in (1, -1) for other in (golden, -golden)]
    points = np.array([point for one, other in signs for point in ((0, one, other), (one, other, 0), (other, 0, one))])
    cosines = points @ points.T / (1 + golden**2)
    found: NDArray[np.int64] = np.abs(cosines[..., None] - COSINES).argmin(-1)
    return found


def pair_counts() -> NDArray[np.int64]:
    """How many ordered pairs of marked vertices of each pattern have each of the angles, (4096, 4)."""
    marked = patterns().astype(np.int64)
    counts = [(marked @ (angles() == angle) * marked).sum(1) for angle in range(len(COSINES))]
    return np.stack(counts, 1)


def power(counts: NDArray[np.int64], degree: int) -> Floats:
    """Power of patterns with these counts of pairs, (pattern, 4), at a degree of the harmonics, up to a factor."""
    from scipy.special import eval_legendre

    found: Floats = np.maximum(counts @ eval_legendre(degree, np.array(COSINES)), 0)  # rounding may go below
    return found


def label_probabilities() -> Floats:
    """p(y = 1 given x) of each pattern, (4096,): one number for all that have the same counts of pairs."""
    from scipy.optimize import brentq

    counts, kind, sizes = np.unique(pair_counts(), axis=0, return_inverse=True, return_counts=True)
    rule = np.sum([np.sqrt(power(counts, degree)) for degree in DEGREES], axis=0)
    share = sizes / sizes.sum()
    slope = brentq(lambda slope: information(_sigmoid(rule, slope, share), share) - INFORMATION, *_SLOPES)
    return _sigmoid(rule, slope, share)[kind.reshape(-1)]  # NumPy 2.0 alone gives it another shape


def information(p: Floats, share: Floats) -> float:
    """I(X;Y) in bits of kinds of patterns, each with its p(y = 1 given x) and its share of all."""
    from scipy.special import entr

    overall = p @ share
    nats = entr(overall) + entr(1 - overall) - (entr(p) + entr(1 - p)) @ share
    return float(nats / np.log(2))


def _sigmoid(rule: Floats, slope: float, share: Floats) -> Floats:
    """Sigmoid of the rule with that slope, around the threshold at which labels are balanced."""
    from scipy.optimize import brentq
    from scipy.special import expit

    reach = 50 / slope  # from a threshold the sigmoid is 0 or 1 there
    ends = float(rule.min()) - reach, float(rule.max()) + reach
    threshold = brentq(lambda threshold: expit(slope * (rule - threshold)) @ share - 1 / 2, *ends)
    found: Floats = expit(slope * (rule - threshold))
    return found


def _published(folder: Path, x: NDArray[np.float32]) -> NDArray[np.int64]:
    """Labels of ``var_u.mat``, whose patterns must be ``x``."""
    from scipy.io import loadmat
    from scipy.io.matlab import MatReadError

    found = [path for path in (folder / "szt" / "var_u.mat", folder / "var_u.mat") if path.is_file()]
    if not found:
        raise DatasetError(
            f"there is no var_u.mat in {folder} nor in {folder / 'szt'}; put it there, or leave --data-dir out to have "
            "the set made by its construction"
        )
    try:
        content = loadmat(found[0])
        labels: NDArray[np.int64] = content["y"].ravel().astype(np.int64)
        fits = np.array_equal(content["F"], x) and len(labels) == len(x) and set(labels.tolist()) <= {0, 1}
    except (OSError, ValueError, LookupError, TypeError, NotImplementedError, MatReadError, zlib.error) as error:
        raise DatasetError(f"{found[0]} cannot be read ({error}); put the published file there") from error
    if not fits:
        raise DatasetError(
            f"{found[0]} does not hold the 4096 patterns of 12 bits in order, each with a label 0 or 1; put the "
            "published file there"
        )
    return labels
