"""Bounds against a solver of the equation as it is printed, and what must hold of them."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.optimize import brentq

from ibstore.analyze.estimate.bounds import classic, input_compression
from ibstore.errors import UsageError

SAMPLES = st.integers(1, 10**9)
DELTA = st.floats(1e-12, 1 - 1e-9)
DIMENSION = st.floats(1, 1e9)


@given(SAMPLES, DELTA, DIMENSION)
def test_classic_solves_the_printed_equation(samples, delta, dimension):
    def beyond(log):
        return 2 * samples * math.exp(2 * log) + dimension * log - math.log(1 / delta)

    expected = math.exp(brentq(beyond, -60, 20, xtol=1e-13))
    assert classic(samples, delta, dimension) == pytest.approx(expected, rel=1e-10)


@given(st.floats(0, 60), SAMPLES, DELTA)
def test_input_compression_is_its_formula(i_xt, samples, delta):
    expected = (2**i_xt - math.log(delta)) / (2 * samples)
    assert input_compression(i_xt, samples, delta) ** 2 == pytest.approx(expected, rel=1e-12)


@given(st.integers(1, 10**6), DELTA, DIMENSION)
def test_more_samples_and_less_certainty_promise_more(samples, delta, dimension):
    epsilon = classic(samples, delta, dimension)
    assert classic(2 * samples, delta, dimension) < epsilon
    assert classic(samples, delta / 2, dimension) > epsilon
    assert classic(samples, delta, 2 * dimension) > epsilon or epsilon >= 1  # (1/ε)^d falls with d where ε > 1
    assert input_compression(5, 2 * samples, delta) < input_compression(5, samples, delta)


def test_a_bit_of_compression_is_a_doubled_sample():
    certain = 1 - 1e-16
    assert input_compression(9, 1000, certain) == pytest.approx(input_compression(10, 2000, certain), rel=1e-12)


def test_a_vacuous_bound_is_given():
    assert classic(1, 1e-6, 1) == pytest.approx(math.sqrt(6.5), rel=0.05)  # 2ε² + ln ε = 13.8
    assert input_compression(12, 10, 0.05) > 14
    assert classic(1, 0.5, 1e12) == pytest.approx(1, abs=1e-9)


def test_what_is_beyond_a_float_is_infinite():
    assert input_compression(1023.5, 100, 0.05) < math.inf
    assert input_compression(1024, 100, 0.05) == math.inf
    assert input_compression(1e300, 100, 0.05) == math.inf


@pytest.mark.parametrize("samples", [0, -3])
def test_no_samples_are_refused(samples):
    for bound in (classic, input_compression):
        with pytest.raises(UsageError, match=f"a bound from {samples} samples; give at least 1"):
            bound(*((samples, 0.1, 3) if bound is classic else (3, samples, 0.1)))


@pytest.mark.parametrize("delta", [0.0, 1.0, -0.1, math.nan])
def test_no_probability_is_refused(delta):
    with pytest.raises(UsageError, match=r"δ is .* give a number between 0 and 1"):
        classic(10, delta, 3)
    with pytest.raises(UsageError, match=r"δ is .* give a number between 0 and 1"):
        input_compression(3, 10, delta)


@pytest.mark.parametrize("dimension", [0.5, math.inf, math.nan])
def test_no_dimension_is_refused(dimension):
    with pytest.raises(UsageError, match="give a finite number of at least 1"):
        classic(10, 0.1, dimension)


def test_no_information_is_refused():
    with pytest.raises(UsageError, match=r"I\(X;T\) is NaN"):
        input_compression(math.nan, 10, 0.1)
