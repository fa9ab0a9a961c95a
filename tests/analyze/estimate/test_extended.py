"""Several networks as one: what is chosen, what that does to informations, and the spread of single values."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from ibstore.analyze.estimate.extended import Spread, pooled, sampled, spread
from ibstore.analyze.estimate.joint import joint
from ibstore.errors import UsageError, ValuesError

FLOATS = st.floats(-1e6, 1e6).map(lambda value: round(value, 6))


@st.composite
def networks(draw):
    """Codes of x (N,), ts (K, N) and y (N,)."""
    runs, samples = draw(st.integers(1, 5)), draw(st.integers(1, 15))
    rows = st.lists(st.integers(0, 3), min_size=samples, max_size=samples)
    return np.array(draw(rows)), np.array([draw(rows) for _ in range(runs)]), np.array(draw(rows))


def test_each_sample_draws_its_network_with_equal_chance():
    ts = np.arange(4)[:, None] + 10 * np.arange(40_000)
    drawn = sampled(ts, seed=3) - 10 * np.arange(40_000)
    assert stats.chisquare(np.bincount(drawn, minlength=4)).pvalue > 0.01
    pairs = np.bincount(4 * drawn[:-1] + drawn[1:], minlength=16)
    assert stats.chisquare(pairs).pvalue > 0.01
    assert np.array_equal(sampled(ts, seed=3) - 10 * np.arange(40_000), drawn)
    assert not np.array_equal(sampled(ts, seed=4), sampled(ts, seed=3))


def test_one_network_is_itself():
    ts = np.array([[5, -1, 5]], np.int32)
    x, t, y = pooled(ts, np.arange(3))
    assert sampled(ts).tolist() == t.tolist() == [5, -1, 5]
    assert (x.tolist(), y) == ([0, 1, 2], None)
    assert sampled(ts).dtype == t.dtype == x.dtype == np.int64


@given(networks())
def test_pooled_informations_against_the_networks_own(given_codes):
    x, ts, y = given_codes
    whole = joint(*pooled(ts, x, y)).estimates()
    each = [joint(x, t, y).estimates() for t in ts]
    assert [whole[name] for name in ("h_x", "h_y", "h_xy")] == pytest.approx(
        [each[0][name] for name in ("h_x", "h_y", "h_xy")], abs=1e-12
    )
    assert whole["h_t"] >= np.mean([own["h_t"] for own in each]) - 1e-12
    for name in ("i_xt", "i_ty"):
        assert whole[name] <= np.mean([own[name] for own in each]) + 1e-12


@given(networks(), st.integers(1, 4))
def test_networks_that_agree_are_one(given_codes, runs):
    x, ts, y = given_codes
    same = np.tile(ts[0], (runs, 1))
    assert joint(*pooled(same, x, y)).estimates() == pytest.approx(joint(x, ts[0], y).estimates(), abs=1e-12)
    assert np.array_equal(sampled(same, seed=runs), ts[0])


def test_networks_that_contradict_each_other_know_nothing_together():
    x = np.arange(8)
    t = x % 2
    assert joint(x, t, t).estimate("i_ty") == 1
    whole = joint(*pooled(np.stack([t, 1 - t]), x, t)).estimates()
    assert (whole["i_xt"], whole["i_ty"], whole["h_t"], whole["h_t_given_x"]) == (0, 0, 1, 1)


@given(st.lists(FLOATS, min_size=2, max_size=30), st.floats(0.01, 0.999))
def test_the_spread_is_students(values, level):
    found = spread(values, level)
    size = max(map(abs, values)) + 1e-300
    assert found.mean == pytest.approx(np.mean(values), abs=1e-12 * size)
    assert found.std == pytest.approx(np.std(values, ddof=1), rel=1e-9, abs=1e-12 * size)
    assert found.error == pytest.approx(found.std / math.sqrt(len(values)))
    assert (found.minimum, found.maximum, found.runs) == (min(values), max(values), len(values))
    assert found.minimum <= found.mean <= found.maximum
    if found.std:
        expected = stats.t.interval(level, len(values) - 1, found.mean, found.error)
        assert (found.low, found.high) == pytest.approx(expected, rel=1e-9, abs=1e-9 * found.error)
    assert spread(values[::-1], level) == found


def test_values_that_agree_have_no_spread():
    assert spread([0.1] * 7) == Spread(0.1, 0, 0, 0.1, 0.1, 0.1, 0.1, 7, 0.95)


def test_one_run_has_no_interval():
    found = spread([1.5], level=0.9)
    assert (found.mean, found.minimum, found.maximum, found.runs, found.level) == (1.5, 1.5, 1.5, 1, 0.9)
    assert np.isnan([found.std, found.error, found.low, found.high]).all()


@pytest.mark.parametrize("nothing", [math.nan, math.inf])
def test_where_a_run_has_no_value_neither_have_all(nothing):
    found = spread([1.0, nothing, 2.0])
    assert np.isnan([found.mean, found.std, found.error, found.low, found.high, found.minimum, found.maximum]).all()
    assert found.runs == 3


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: sampled(np.arange(3)), ValuesError, r"T is int64 of shape \(3,\); give integers of shape \(K, N\)"),
        (lambda: sampled(np.zeros((2, 3))), ValuesError, "T is float64"),
        (lambda: sampled(np.zeros((0, 3), int)), ValuesError, r"T is int64 of shape \(0, 3\)"),
        (lambda: sampled(np.zeros((2, 3), int), seed=-1), UsageError, "seed -1 is negative"),
        (lambda: pooled(np.zeros((2, 3), int), np.zeros(3)), ValuesError, "X is float64"),
        (
            lambda: pooled(np.zeros((2, 3), int), np.arange(3), np.arange(2)),
            ValuesError,
            r"give integers of shape \(3,\)",
        ),
        (lambda: spread([]), ValuesError, "no run has a value"),
        (lambda: spread([1.0], level=1.0), UsageError, "level 1.0 is not between 0 and 1"),
    ],
)
def test_what_cannot_be_meant_is_refused(call, error, message):
    with pytest.raises(error, match=message):
        call()
