"""Variables as estimators of values take them: float64 (sample, unit), in units of their spread; labels as numbers."""

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ibstore.errors import UsageError, ValuesError

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]


def numbers(values: NDArray[Any], what: str) -> Floats:
    """Values as (sample, unit) of float64, which ``what`` names where they cannot be: UsageError, ValuesError."""
    array = np.asarray(values)
    array = array[:, None] if array.ndim == 1 else array
    if array.ndim != 2 or 0 in array.shape:  # noqa: PLR2004 (sample, unit)
        raise UsageError(f"{what} has the shape {np.shape(values)}; give at least one sample and unit, (sample, unit)")
    if array.dtype.kind not in "biuf":
        raise ValuesError(f"{what} holds {array.dtype}, no numbers; give floats or integers")
    floats = array.astype(np.float64)
    if not np.isfinite(floats).all():
        raise ValuesError(f"{what} holds NaN or an infinity, which is at no distance; leave those samples out")
    floats += 0.0  # no −0.0, whose bytes differ
    return floats


def standard(values: Floats) -> tuple[Floats, float]:
    """Values (sample, unit) about their units' means in units of their overall standard deviation, and that.

    The overall standard deviation is the root of the units' mean variance. Units that do not vary are left out; of
    values that do not vary at all one unit of zeros is left, and the deviation is 0.

    >>> standard(np.array([[1.0, 7.0], [5.0, 7.0]]))
    (array([[-1.],
           [ 1.]]), 2.0)
    """
    exponent = int(np.frexp(np.abs(values).max())[1])
    values = np.ldexp(values, -exponent)  # exact, and no square of it overflows
    values = values - values.min(axis=0)  # so that a constant unit is exactly 0
    varies = values.any(axis=0)
    values = values[:, varies] if varies.any() else values[:, :1]
    values -= values.mean(axis=0)
    deviation = math.sqrt(np.square(values).mean())
    return (values / deviation if deviation else values), math.ldexp(deviation, exponent)


def code(labels: NDArray[Any]) -> tuple[Integers, Integers]:
    """Labels (sample,) as numbers from 0, and how many samples each number has.

    >>> code(np.array(["b", "a", "b"]))
    (array([1, 0, 1]), array([1, 2]))
    """
    array = np.asarray(labels)
    if array.ndim != 1 or not len(array):
        raise UsageError(f"labels have the shape {array.shape}; give one label a sample, (sample,)")
    _, names, sizes = np.unique(array, return_inverse=True, return_counts=True)
    return names.astype(np.int64), sizes.astype(np.int64)
