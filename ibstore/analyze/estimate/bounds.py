"""Bounds on the generalization error ε from the size of the sample, as told by Shwartz-Ziv & Tishby (2017).

Both hold with probability 1 − δ over samples of m; logarithms are natural, I(X;T) is in bits. A bound above 1 says
nothing about an error that is a probability (it is *vacuous*); it is given all the same, so that it can be compared.
"""

import math
from typing import Final

from ibstore.errors import UsageError

OVERFLOW: Final = 1024
"""2 to this power is no float64."""


def classic(samples: int, delta: float, dimension: float) -> float:
    """The ε of ε² = (ln|H_ε| + ln(1/δ)) / 2m, |H_ε| = (1/ε)^d: hypotheses up to ε, d being their class's dimension.

    2m·ε² + d·ln ε = ln(1/δ) has one solution, ε² = d/4m·ω(ln(4m/d) + 2·ln(1/δ)/d), with Wright's ω + ln ω = z.

    Raises
    ------
    UsageError
        When there is no sample, δ is not between 0 and 1, or d is not finite or below 1.

    Examples
    --------
    >>> epsilon = classic(samples=4096, delta=0.05, dimension=100)
    >>> round(epsilon, 4), round((100 * math.log(1 / epsilon) + math.log(20)) / (2 * 4096), 4) == round(epsilon**2, 4)
    (0.1527, True)
    """
    from scipy.special import wrightomega

    _check(samples, delta)
    if not 1 <= dimension < math.inf:
        raise UsageError(f"a hypothesis class of dimension {dimension}; give a finite number of at least 1")
    argument = math.log(4 * samples / dimension) + 2 * math.log(1 / delta) / dimension
    return math.sqrt(dimension / (4 * samples) * float(wrightomega(argument)))


def input_compression(i_xt: float, samples: int, delta: float) -> float:
    """The ε of ε² = (2^I(X;T) + ln(1/δ)) / 2m: a bit of compression is worth a doubled sample.

    Infinite where 2^I(X;T) is beyond a float64. An estimate of I(X;T) below 0 is taken as it is.

    Raises
    ------
    UsageError
        When there is no sample, δ is not between 0 and 1, or I(X;T) is NaN.

    Examples
    --------
    >>> round(input_compression(8.0, samples=4096, delta=0.05), 4)
    0.1778
    """
    _check(samples, delta)
    if math.isnan(i_xt):
        raise UsageError("I(X;T) is NaN: its estimator has no value; take another estimator")
    if i_xt >= OVERFLOW:
        return math.inf
    return math.sqrt((2.0**i_xt + math.log(1 / delta)) / (2 * samples))


def _check(samples: int, delta: float) -> None:
    if samples < 1:
        raise UsageError(f"a bound from {samples} samples; give at least 1")
    if not 0 < delta < 1:
        raise UsageError(f"δ is {delta}, the probability that a bound does not hold; give a number between 0 and 1")
