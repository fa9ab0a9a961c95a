"""The extended estimator: one information plane of several networks that were built alike and trained apart.

A deterministic network has I(X;T) = H(T). Of K copies that start at the same weights, T given X is no longer certain:
`sampled` lets each sample's T be one network's, drawn at random, `pooled` takes the T of all of them. What
they give goes to `ibstore.analyze.estimate.joint` as codes of a single network do. `spread` tells what K networks'
own values have in common.
"""

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np

from ibstore.analyze.estimate.joint import Codes, Integers
from ibstore.analyze.estimate.resample import stream, tails
from ibstore.errors import ValuesError

AXES: Final = ("network", "sample")
"""Of the codes of several networks."""


def sampled(ts: Integers, seed: int = 0) -> Codes:
    """Each sample's code from one of the K networks, drawn at random: (K, N) codes to (N,).

    Codes must mean the same patterns in all networks. Draws belong to places, so samples must stand in one order.

    Raises
    ------
    ValuesError
        When the codes are no (K, N) integers.
    UsageError
        When the seed is negative.

    Examples
    --------
    >>> sampled(np.array([[1, 2, 3], [1, 2, 3]])).tolist()
    [1, 2, 3]
    """
    codes = _checked("T", ts)
    runs, samples = codes.shape
    chosen: Codes = codes[stream(seed, "extended").integers(runs, size=samples), np.arange(samples)]
    return chosen


def pooled(ts: Integers, x: Integers, y: Integers | None = None) -> tuple[Codes, Codes, Codes | None]:
    """All K·N rows of (x, t, y), a network after the other, from (K, N) codes of T and (N,) of X and Y.

    H(X) and H(Y) of the plug-in stay what they are, H(T) is that of the mixture, and I(X;T) and I(T;Y) are at most the
    networks' mean. The K rows of a sample hang together, so K·N is no number of independent samples: what
    corrects a bias by it, or resamples rows, takes them for too many.

    Raises
    ------
    ValuesError
        When the codes are no (K, N) integers, or X or Y has not N.

    Examples
    --------
    >>> [codes.tolist() for codes in pooled(np.array([[7, 8], [7, 9]]), x=np.array([0, 1]), y=np.array([4, 5]))]
    [[0, 1, 0, 1], [7, 8, 7, 9], [4, 5, 4, 5]]
    """
    codes = _checked("T", ts)
    runs, samples = codes.shape
    labels = None if y is None else np.tile(_checked("Y", y, (samples,)), runs)
    return np.tile(_checked("X", x, (samples,)), runs), codes.ravel(), labels


def _checked(name: str, given: Integers, shape: tuple[int, ...] | None = None) -> Codes:
    """Codes as int64, of one shape or of K networks."""
    codes = np.asarray(given)
    fits = codes.ndim == len(AXES) and codes.size > 0 if shape is None else codes.shape == shape
    if not fits or codes.dtype.kind not in "biu":
        wanted = "(K, N)" if shape is None else f"{shape}"
        raise ValuesError(f"{name} is {codes.dtype} of shape {codes.shape}; give integers of shape {wanted}")
    return codes.astype(np.int64, copy=False)


@dataclass(frozen=True)
class Spread:
    """What values of several runs have in common, in their unit.

    Attributes
    ----------
    mean, std, error
        Standard deviation with K − 1, and of the mean √K less; NaN of a single run.
    low, high
        Student's interval of the mean; NaN of a single run.
    minimum, maximum
        Smallest and largest value.
    runs
        K.
    """

    mean: float
    std: float
    error: float
    low: float
    high: float
    minimum: float
    maximum: float
    runs: int
    level: float


def spread(values: Sequence[float], level: float = 0.95) -> Spread:
    """Mean of the runs' values and how sure it is, mean ± t·s/√K with K − 1 degrees of freedom (Student 1908).

    Where a run has no value (NaN), neither have they together.

    Raises
    ------
    ValuesError
        When there are no values.
    UsageError
        When the level is not between 0 and 1.

    Examples
    --------
    >>> found = spread([1.0, 2.0, 3.0])
    >>> found.mean, found.std, round(found.low, 3), round(found.high, 3)
    (2.0, 1.0, -0.484, 4.484)
    """
    from scipy.special import stdtrit

    own, ends = [float(value) for value in values], tails(level)
    if not own:
        raise ValuesError("no run has a value; give one at least")
    if not all(map(math.isfinite, own)):
        return Spread(*(math.nan,) * 7, len(own), level)
    mean, runs = statistics.mean(own), len(own)
    std = statistics.stdev(own) if runs > 1 else math.nan
    error = std / math.sqrt(runs)
    low, high = (mean + t * error for t in stdtrit(max(1, runs - 1), ends).tolist())
    return Spread(mean, std, error, low, high, min(own), max(own), runs, level)
