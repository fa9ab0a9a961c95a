"""Breaks, drops and turns: curves whose places are known, and a fit for each break as the oracle."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ibstore.analyze.measures.breaks import MOST_PLACES, broken_stick, drop, turn


def weights(x):
    return np.diff(x, prepend=x[0]) / 2 + np.diff(x, append=x[-1]) / 2


def error(x, y, *breaks):
    """Weighted squared error of the best line with these breaks."""
    root = np.sqrt(weights(x))
    design = np.stack([np.ones_like(x), x, *(np.maximum(0, x - x[k]) for k in breaks)], axis=1) * root[:, None]
    return np.square(design @ np.linalg.lstsq(design, root * y, rcond=None)[0] - root * y).sum()


@settings(max_examples=50, deadline=None)
@given(st.integers(5, 30), st.integers(0, 10_000))
def test_a_stick_is_the_best_of_all_fits(count, seed):
    draw = np.random.default_rng(seed)
    x, y = np.cumsum(draw.uniform(0.05, 1, count)), draw.normal(size=count)
    found = broken_stick(x, y)
    errors = {k: error(x, y, k) for k in range(2, count - 2)}
    assert errors[found.at] == pytest.approx(min(errors.values()), abs=1e-9)
    assert found.explained == pytest.approx(1 - min(errors.values()) / error(x, y), abs=1e-8)


@settings(max_examples=20, deadline=None)
@given(st.integers(7, 14), st.integers(0, 10_000))
def test_a_drop_is_the_best_of_all_fits_that_fall(count, seed):
    draw = np.random.default_rng(seed)
    x = np.cumsum(draw.uniform(0.2, 1, count))
    y = -4 * np.clip((x - x[2]) / (x[-3] - x[2]), 0, 1) + draw.normal(0, 0.02, count)
    pairs = {(j, k): error(x, y, j, k) for j in range(2, count - 2) for k in range(j + 2, count - 2)}
    singles = {(k,): error(x, y, k) for k in range(2, count - 2)}
    found = drop(x, y)
    first, *_ = min(pairs, key=pairs.get)
    one = max(1 - each / error(x, y) for each in singles.values())
    two = 1 - min(pairs.values()) / error(x, y)
    assert found.explained <= max(one, two) + 1e-8
    if found.explained == pytest.approx(two, abs=1e-8):
        assert found.at == first


@settings(max_examples=50, deadline=None)
@given(st.integers(2, 17), st.floats(-3, 3), st.floats(-3, 3), st.floats(-5, 5))
def test_a_break_without_noise_is_found(at, before, after, level):
    x = np.cumsum(np.random.default_rng(at).uniform(0.1, 1, 20))
    y = level + np.where(x < x[at], before, after) * (x - x[at])
    found, fall = broken_stick(x, y), drop(x, y)
    if abs(before - after) > 0.01:
        assert (found.at, found.clear) == (at, True)
        assert found.explained == pytest.approx(1)
        if after < before and after * (x[-1] - x[at]) < -0.7:
            assert (fall.at, fall.clear) == (at, True)
    elif before == after:
        assert found is fall is None
    if after > -0.01:  # nothing falls to half behind the break
        assert fall is None or not fall.clear or before < 0


@pytest.mark.parametrize("after", [0.0, 0.1, -0.1])
def test_what_rises_to_a_plateau_or_falls_by_little_does_not_drop(after):
    draw = np.random.default_rng(1)
    x = np.linspace(0, 9, 60)
    for _ in range(20):
        y = np.where(x < 5, 1.0, after) * (x - 5) + draw.normal(0, 0.05, 60)
        assert broken_stick(x, y).clear
        fall = drop(x, y)
        assert fall is None or not fall.clear


@pytest.mark.parametrize("noise", [0.05, 0.2])
def test_what_falls_from_the_first_point_on_does_not_drop(noise):
    draw = np.random.default_rng(1)
    x = np.linspace(0, 9, 60)
    for ends in (3, 9):
        marked = [drop(x, -np.minimum(x, ends) + draw.normal(0, noise, 60)) for _ in range(20)]
        assert sum(each is not None and each.clear for each in marked) <= 1


@pytest.mark.parametrize("before", [0.0, 0.5])
@pytest.mark.parametrize(("begins", "ends"), [(8, 14), (16, 24), (28, 34)])
def test_what_drops_to_a_plateau_drops_where_that_begins(before, begins, ends):
    x = np.linspace(0, 10, 41)
    curve = before * np.minimum(x, x[begins]) - 2 * np.clip(x - x[begins], 0, x[ends] - x[begins])
    assert (drop(x, curve).at, drop(x, curve).clear) == (begins, True)
    noisy = drop(x, curve + np.random.default_rng(0).normal(0, 0.1, 41))
    assert noisy.clear
    assert abs(noisy.at - begins) <= 2


def test_what_falls_less_and_less_does_not_drop():
    x = np.linspace(0, 10, 41)
    fall = drop(x, np.where(x < 5, -2.0, -0.5) * (x - 5))
    assert fall is None or not fall.clear


def test_a_second_break_that_noise_alone_makes_is_not_taken():
    draw = np.random.default_rng(0)
    x = np.linspace(0, 10, 41)
    curves = [-np.maximum(0, x - x[20]) + draw.normal(0, 0.3, 41) for _ in range(50)]
    assert sum(drop(x, y) == broken_stick(x, y) for y in curves) >= 48


def test_noise_has_no_clear_break_and_a_break_in_noise_is_near():
    draw = np.random.default_rng(0)
    x = np.log(np.arange(1, 101))
    found = [rule(x, -x + draw.normal(0, 0.1, 100)) for rule in (broken_stick, drop) for _ in range(100)]
    assert sum(each is not None and each.clear for each in found) <= 2
    for _ in range(50):
        fall = drop(x, -2 * np.maximum(0, x - x[20]) + draw.normal(0, 0.1, 100))
        assert fall.clear
        assert abs(x[fall.at] - x[20]) < 0.3


@given(st.integers(5, 40), st.floats(0, 2), st.integers(0, 10_000))
def test_a_break_is_clear_where_half_and_the_evidence_say_so(count, bend, seed):
    draw = np.random.default_rng(seed)
    x = np.log(np.arange(1, count + 1))
    found = broken_stick(x, bend * np.maximum(0, x - x[count // 2]) + draw.normal(0, 0.1, count))
    n = weights(x).sum() ** 2 / np.square(weights(x)).sum()
    gained = -n * math.log(max(1e-300, 1 - found.explained)) - 2 * math.log(n)
    assert found.clear == (found.explained >= 0.5 and gained >= 10)


def test_much_evidence_for_a_bend_that_explains_little_is_not_clear():
    x = np.linspace(0, 1, 2000)
    found = broken_stick(x, np.maximum(0, x - 0.5) + 0.2 * (-1.0) ** np.arange(2000))
    assert 0.05 < found.explained < 0.5
    assert not found.clear


@pytest.mark.parametrize("points", [0, 1, 4])
def test_few_points_have_no_break(points):
    x = np.arange(float(points))
    assert broken_stick(x, x**2) is drop(x, -(x**2)) is None


def test_points_that_lie_densely_do_not_outweigh():
    x = np.concatenate([np.linspace(0, 9, 10), np.linspace(9.001, 10, 100)])
    y = np.maximum(0, x - 4) + np.where(x > 9.5, 0.02 * np.sin(40 * x), 0)
    assert broken_stick(x, y).at == 4


def test_of_very_many_points_some_are_tried():
    x = np.log(np.arange(1.0, 5001))
    for at in (50, 400, 3000):
        y = -2 * np.maximum(0, x - x[at])
        assert abs(x[drop(x, y).at] - x[at]) <= 2 * x[-1] / MOST_PLACES


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ([0.0, 1.0, 4.0, 3.0], (2, 0.25)),
        ([0.0, 4.0, 4.0, 2.0, 3.0], (1, 0.5)),
        ([0.0, 1.0, 2.0], (None, 0.0)),
        ([0.0, 4.0, 3.9], (None, pytest.approx(0.025))),
        ([4.0, 2.0], (None, 0.5)),
        ([None, 1.0, 4.0, float("nan"), 2.0], (2, 0.5)),
        ([0.0, 0.0], (None, None)),
        ([None], (None, None)),
    ],
)
def test_where_information_turns(values, expected):
    assert turn(values, 0.05) == expected
