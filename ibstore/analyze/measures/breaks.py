"""Where a curve breaks, drops or turns: rules that give a point, and None where it is not clear.

Breaks are of lines fitted by weighted least squares: y ≈ a + b·x + Σ c_k·max(0, x − x_k), the x_k among the points.
Each point weighs as much of the axis as is nearest to it, so that the answer does not hang on how densely which part of
the axis was looked at; the number of points that count is n = (Σw)² / Σw².
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

Numbers = NDArray[np.float64]
Places = NDArray[np.intp]

ASIDE: Final = 2
"""Points at each end that have no break."""

MOST_PLACES: Final = 200
"""Points at which breaks are tried: those that are nearest to as many places, evenly over the axis."""

LEAST_EXPLAINED: Final = 0.5
"""Part of a line's squared error that breaks must explain, at least."""

EVIDENCE: Final = 10.0
"""Difference of Bayesian information criteria from which one fit is clearly better: very strong by Kass & Raftery."""

LEAST_FALL: Final = math.log(2)
"""By how much a drop must lower a logarithm, at least."""

NEGLIGIBLE: Final = 1e-6
"""Root mean squared error of a line, in units of a logarithm, below which there is nothing left to explain."""

ROUNDING: Final = 1e-9
"""Part of a line's squared error that is as good as nothing."""


@dataclass(frozen=True, slots=True)
class Break:
    """Where the line breaks, the part of the unbroken line's squared error that is explained, and if that is clear."""

    at: int
    explained: float
    clear: bool


@dataclass(frozen=True, slots=True)
class Fits:
    """Fits of as many breaks each: where the first one is, what they explain, and by how much y falls behind it."""

    first: Places
    explained: Numbers
    falls: Numbers
    bends_down: NDArray[np.bool_]


def broken_stick(x: Numbers, y: Numbers) -> Break | None:
    """The one break that fits best; None where there are too few points, or a line leaves nothing to explain.

    It is clear where it explains half of the line's squared error, and n·ln(error of the line / of the stick) − 2·ln n,
    the difference of the Bayesian information criteria (two parameters more), is 10 or more.

    Parameters
    ----------
    x, y
        (point,) float64, x strictly ascending; y a logarithm.

    Examples
    --------
    >>> x = np.arange(9.0)
    >>> broken_stick(x, np.minimum(x, 4)).at
    4
    >>> broken_stick(x, 2 * x) is None
    True
    """
    fits, points = _fits(x, y, 1), _points(x)
    if fits is None:
        return None
    best = int(fits.explained.argmax())
    explained = float(fits.explained[best])
    return Break(int(fits.first[best]), explained, _clear(explained, 1, points))


def drop(x: Numbers, y: Numbers) -> Break | None:
    """Where a fall begins: the break behind which y falls, by ln 2 or more and more steeply than before.

    One break, or two where what falls comes to a plateau, if they fit clearly better than the best one of any kind.
    There is none where another break, which is no such fall, fits clearly better, so that what falls from the first
    point on does not drop. Arguments and what is clear as for `broken_stick`.

    Examples
    --------
    >>> x = np.arange(20.0)
    >>> drop(x, -np.clip(x - 8, 0, 4)).at
    8
    >>> drop(x, np.minimum(x, 8)).clear  # it rises, and stays
    False
    """
    points = _points(x)
    best = broken_stick(x, y)
    one, two = (_falling(_fits(x, y, breaks), breaks, points) for breaks in (1, 2))
    if best is None or two is None:
        return one
    gained = points * math.log((1 - best.explained + ROUNDING) / (1 - two.explained + ROUNDING)) - 2 * math.log(points)
    return two if gained >= EVIDENCE else one


def _falling(fits: Fits | None, breaks: int, points: float) -> Break | None:
    """The best of the fits behind whose first break y falls."""
    if fits is None:
        return None
    shares = np.where(fits.bends_down & (fits.falls >= LEAST_FALL), fits.explained, 0)
    best = int(shares.argmax())
    explained = float(shares[best])
    if not explained:
        return None
    most = float(fits.explained.max())
    rivals = 1 - explained <= (1 - most) * math.exp(EVIDENCE / points) + ROUNDING
    return Break(int(fits.first[best]), explained, rivals and _clear(explained, breaks, points))


def _clear(explained: float, breaks: int, points: float) -> bool:
    """Whether breaks are clearly better than none: a place and a slope more each."""
    evident = -math.expm1(-(EVIDENCE + 2 * breaks * math.log(points)) / points)
    return explained >= max(LEAST_EXPLAINED, evident)


def _weights(x: Numbers) -> Numbers:
    """How much of the axis is nearest to each point."""
    w = np.gradient(x)
    w[[0, -1]] /= 2
    return w


def _points(x: Numbers) -> float:
    """How many points count."""
    w = _weights(x) if len(x) > 1 else np.ones(1)
    return float(w.sum() ** 2 / (w * w).sum())


def _fits(x: Numbers, y: Numbers, breaks: int) -> Fits | None:
    """All fits of one or two breaks; None where there are too few points, or a line leaves nothing to explain.

    Breaks add to the line what it leaves of max(0, x − x_k), so that only these are fitted to its residuals.
    """
    if len(x) < 2 * ASIDE + 2 * breaks - 1:
        return None
    root = np.sqrt(_weights(x))
    line = np.linalg.qr(np.stack([np.ones_like(x), x], axis=1) * root[:, None])[0]
    residual = y * root - line @ (line.T @ (y * root))
    error = float(residual @ residual)
    if error <= NEGLIGIBLE**2 * float(root @ root):
        return None
    places = _places(x)
    hinges = np.maximum(0, x - x[places, None])
    left = hinges * root - (hinges * root @ line) @ line.T
    gram, along = left @ left.T, left @ residual
    tried = np.arange(len(places))[:, None] if breaks == 1 else np.stack(np.triu_indices(len(places), 2), axis=1)
    change = np.linalg.solve(gram[tried[:, :, None], tried[:, None, :]], along[tried][..., None])[..., 0]
    behind = np.polynomial.polynomial.polyfit(x, np.stack([y, *hinges], axis=1), 1, w=root)[1]  # slopes of lines
    slope = behind[0] - (change * behind[1:][tried]).sum(1) + change[:, 0]
    end = x[places[tried[:, 1]]] if breaks == 2 else x[-1]  # noqa: PLR2004
    first = places[tried[:, 0]]
    explained = np.clip((change * along[tried]).sum(1) / error, 0, 1)
    return Fits(first, explained, -slope * (end - x[first]), change[:, 0] < 0)


def _places(x: Numbers) -> Places:
    """Points at which a break is tried."""
    inner = np.arange(ASIDE, len(x) - ASIDE)
    if len(inner) <= MOST_PLACES:
        return inner
    even = np.searchsorted(x, np.linspace(x[inner[0]], x[inner[-1]], MOST_PLACES))
    return np.unique(even.clip(inner[0], inner[-1]))


def turn(values: Sequence[float | None], margin: float) -> tuple[int | None, float | None]:
    """Position of the largest value, and what part of it is lost afterwards at most.

    The position is None where it is the first value, which nothing rose to, or where less than ``margin`` is lost.

    Examples
    --------
    >>> turn([1.0, 4.0, 3.0], 0.05)
    (1, 0.25)
    >>> turn([1.0, 3.0, 4.0], 0.05), turn([4.0, 3.0, 2.0], 0.05)
    ((None, 0.0), (None, 0.5))
    """
    known = [at for at, value in enumerate(values) if value is not None and math.isfinite(value)]
    numbers = np.array([values[at] for at in known], np.float64)
    if not known or numbers.max() <= 0:
        return None, None
    best = int(numbers.argmax())
    lost = 1 - float(numbers[best:].min() / numbers[best])
    return (known[best] if best and lost >= margin else None), lost
