"""Counts and informations from codes, against tuples counted one by one, scipy, scikit-learn and closed forms."""

import math
from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import entropy
from sklearn.metrics import mutual_info_score

from ibstore.analyze.estimate.entropy import CountsOfCounts
from ibstore.analyze.estimate.joint import (
    QUANTITIES,
    VARIABLES,
    combined,
    counts_of,
    dense,
    information_between,
    joint,
    of_counts,
)
from ibstore.errors import UnknownNameError, ValuesError

ENDS = np.iinfo(np.int64)
TABLES = st.lists(st.tuples(*[st.integers(-3, 4)] * 3), min_size=1, max_size=40).map(lambda rows: np.array(rows).T)


def as_pairs(counts: CountsOfCounts):
    return dict(zip(counts.multiplicity.tolist(), counts.keys.tolist(), strict=True))


def one_by_one(*codes):
    """Counts of counts of tuples."""
    return dict(Counter(Counter(zip(*(each.tolist() for each in codes), strict=True)).values()))


@given(st.lists(st.sampled_from([ENDS.min, ENDS.max, -1, 0, 1, 7]), min_size=1, max_size=30))
def test_dense_codes_keep_equality_and_order(values):
    codes = dense(np.array(values))
    assert sorted(set(codes.tolist())) == list(range(len(set(values))))
    assert np.array_equal(codes[:, None] < codes, np.array(values)[:, None] < np.array(values))


@pytest.mark.parametrize("kind", ["int8", "uint8", "int64", "uint64"])
@given(data=st.data())
def test_dense_codes_of_crowded_values_are_those_of_sorting(kind, data):
    """Values that lie close, about the ends and the middle of their type."""
    ends = np.iinfo(kind)
    start = data.draw(st.sampled_from([ends.min, ends.max // 2, ends.max - 40]))
    values = np.array(data.draw(st.lists(st.integers(start, start + 40), min_size=1, max_size=40)), kind)
    assert np.array_equal(dense(values), np.unique(values, return_inverse=True)[1])


@given(TABLES)
def test_a_combined_code_is_the_tuple(columns):
    together = combined(*columns)
    rows = list(zip(*columns.tolist(), strict=True))
    ranks = {row: rank for rank, row in enumerate(sorted(set(rows)))}
    assert together.tolist() == [ranks[row] for row in rows]


def test_products_beyond_int64_do_not_collide():
    """Six variables of 3,000 keys: 7·10^20 tuples are possible."""
    random = np.random.default_rng(0)
    columns = [random.permutation(3000) * (ENDS.max // 3000) for _ in range(6)]
    once = combined(*columns)
    assert sorted(once.tolist()) == list(range(3000))
    again = combined(*(np.r_[column, column] for column in columns))
    assert as_pairs(counts_of(again)) == {2: 3000}


@given(TABLES)
def test_counts_are_those_of_tuples_counted_one_by_one(columns):
    x, t, y = columns
    whole = joint(x, t, y)
    alone = {"x": x, "t": t, "y": y}
    assert whole.samples == len(x)
    assert tuple(whole.counted) == VARIABLES
    for variable, counts in whole.counted.items():
        expected = one_by_one(*(alone[letter] for letter in variable))
        assert as_pairs(counts) == expected
        assert counts.multiplicity.tolist() == sorted(expected)
    assert as_pairs(counts_of(x)) == one_by_one(x)


def test_what_was_not_seen_is_no_key():
    assert as_pairs(of_counts(np.array([0, 3, 0, 1, 3]))) == {1: 1, 3: 2}


@given(TABLES)
def test_informations_are_scikit_learns(columns):
    x, t, y = columns
    found = joint(x, t, y).estimates()
    for name, pair in {"i_xt": (x, t), "i_ty": (t, y), "i_xy": (x, y)}.items():
        assert found[name] == pytest.approx(mutual_info_score(*pair) / math.log(2), abs=1e-12)
        assert found[name] == information_between(*pair)
    assert found["h_t"] == pytest.approx(entropy(list(Counter(t.tolist()).values()), base=2), abs=1e-12)


@given(TABLES)
def test_a_conditional_entropy_is_the_mean_over_what_is_given(columns):
    x, t, y = columns
    found = joint(x, t, y).estimates()
    for name, (of, by) in {"h_t_given_y": (t, y), "h_y_given_t": (y, t), "h_x_given_t": (x, t)}.items():
        each = [(by == key).mean() * counts_of(of[by == key]).entropy() for key in np.unique(by)]
        assert found[name] == pytest.approx(sum(each), abs=1e-12)
    each = [(y == key).mean() * information_between(x[y == key], t[y == key]) for key in np.unique(y)]
    assert found["i_xt_given_y"] == pytest.approx(sum(each), abs=1e-12)


AREAS = ("h_x_given_ty", "h_y_given_xt", "h_t_given_xy", "i_xy_given_t", "i_xt_given_y", "i_ty_given_x", "i_xyt")


def areas(x, y, t):
    found = joint(np.ravel(x), np.ravel(t), np.ravel(y)).estimates()
    return [found[name] for name in AREAS]


def test_two_that_tell_only_together_have_a_bit_less_than_none():
    x, y = np.array([0, 0, 1, 1]), np.array([0, 1, 0, 1])
    assert areas(x, y, x ^ y) == [0, 0, 0, 1, 1, 1, -1]


def test_copies_share_all_they_have_and_independent_variables_nothing():
    x = np.array([0, 1])
    assert areas(x, x, 1 - x) == [0, 0, 0, 0, 0, 0, 1]
    assert areas(*np.meshgrid([0, 1], [0, 1], [0, 1])) == [1, 1, 1, 0, 0, 0, 0]


@given(TABLES)
def test_the_areas_of_the_diagram_add_up(columns):
    found = joint(*columns).estimates()
    assert math.fsum(found[name] for name in AREAS) == pytest.approx(found["h_xyt"], abs=1e-12)
    for one, others in {"h_x": ("xy", "xt"), "h_y": ("xy", "ty"), "h_t": ("xt", "ty")}.items():
        alone = next(name for name in AREAS if name.startswith(f"{one}_given"))
        shared = [next(name for name in AREAS if name.startswith(f"i_{pair}_given")) for pair in others]
        assert math.fsum(found[name] for name in (alone, *shared, "i_xyt")) == pytest.approx(found[one], abs=1e-12)
    assert found["i_xyt"] == pytest.approx(found["i_xy"] - found["i_xy_given_t"], abs=1e-12)
    assert found["h_ty_given_x"] == pytest.approx(found["h_xyt"] - found["h_x"], abs=1e-12)


@given(TABLES)
def test_chain_rules_and_bounds_of_the_plug_in(columns):
    found = joint(*columns).estimates()
    tiny = 1e-12
    assert tuple(found) == tuple(QUANTITIES)
    assert all(value >= -tiny for name, value in found.items() if name != "i_xyt")
    assert found["h_xt"] == pytest.approx(found["h_x"] + found["h_t_given_x"], abs=tiny)
    assert found["i_xt"] == pytest.approx(found["h_t"] - found["h_t_given_x"], abs=tiny)
    assert found["i_ty"] == pytest.approx(found["h_y"] - found["h_y_given_t"], abs=tiny)
    assert found["i_ty"] <= min(found["h_t"], found["h_y"]) + tiny
    assert max(found["h_xt"], found["h_ty"], found["h_xy"]) <= found["h_xyt"] + tiny
    assert found["h_xyt"] <= math.log2(columns.shape[1]) + tiny


@pytest.mark.parametrize("estimator", ["plugin", "grassberger", "nsb"])
@given(columns=TABLES, random=st.randoms())
@settings(deadline=None, max_examples=25)
def test_neither_names_nor_order_change_a_bit(estimator, columns, random):
    order = random.sample(range(columns.shape[1]), columns.shape[1])
    names = np.array(random.sample(range(-100, 100), 8))
    x, t, y = names[columns + 3][:, order]
    whole, other = joint(*columns), joint(x, t, y)
    assert other.estimates(estimator) == whole.estimates(estimator)
    assert information_between(t, y, estimator) == information_between(y, t, estimator)
    assert information_between(t, y, estimator) == whole.estimate("i_ty", estimator)


def test_what_is_decided_by_the_input_has_its_own_entropy_as_information():
    random = np.random.default_rng(1)
    x = random.integers(1000, size=5000)
    found = joint(x, t=x % 7).estimates()
    assert found["i_xt"] == found["h_t"]
    assert found["h_t_given_x"] == 0
    assert found["h_x_given_t"] > 0
    assert joint(x, x % 7).quantities == ("h_x", "h_t", "h_xt", "h_t_given_x", "h_x_given_t", "i_xt")


def test_exclusive_or():
    x, y = np.array([0, 0, 1, 1]), np.array([0, 1, 0, 1])
    found = joint(x, x ^ y, y).estimates()
    assert (found["i_xt"], found["i_ty"], found["i_xy"], found["i_xt_given_y"]) == (0, 0, 0, 1)


@pytest.mark.parametrize("estimator", ["miller_madow", "chao_shen", "bayes(0.5)"])
def test_any_estimator_and_informations_stay_raw(estimator):
    random = np.random.default_rng(2)
    x, t, y = random.integers(30, size=(3, 200))
    whole = joint(x, t, y)
    expected = [counts_of(codes).entropy(estimator) for codes in (t, y, combined(t, y))]
    assert whole.estimate("i_ty", estimator) == math.fsum((expected[0], expected[1], -expected[2]))
    assert information_between(t, y, "grassberger") != pytest.approx(whole.estimate("i_ty"), abs=0.1)
    raw = [information_between(*random.integers(2, size=(2, 50)), "miller_madow") for _ in range(20)]
    assert min(raw) < 0


def test_one_sample():
    assert set(joint(np.array([4]), np.array([-4]), np.array([0])).estimates().values()) == {0.0}


@pytest.mark.parametrize(
    ("codes", "message"),
    [
        (np.array([0.0, np.nan]), r"codes are float64 of shape \(2,\); give one integer a sample"),
        (np.array([[1, 2]]), r"codes are int64 of shape \(1, 2\)"),
        (np.array([], np.int64), "no samples have codes"),
    ],
)
def test_what_are_no_codes_is_refused(codes, message):
    with pytest.raises(ValuesError, match=message):
        dense(codes)
    with pytest.raises(ValuesError, match=message):
        joint(codes, codes)


def test_samples_must_be_the_same():
    with pytest.raises(ValuesError, match="codes of 3 and of 2 samples cannot be joined"):
        joint(np.arange(3), np.arange(2))


def test_an_unknown_quantity_is_told():
    without = joint(np.arange(3), np.arange(3))
    with pytest.raises(UnknownNameError, match="no quantity 'i_ty' here; there are h_x, h_t, h_xt"):
        without.estimate("i_ty")
