import math
from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ibstore.analyze.estimate.entropy import ESTIMATORS, CountsOfCounts, estimator, plugin, saturated
from tests.analyze import reference


def counted(sample):
    """Counts of counts of a sequence."""
    histogram = Counter(Counter(sample).values())
    multiplicity = np.array(sorted(histogram), np.int64)
    return CountsOfCounts(multiplicity, np.array([histogram[n] for n in multiplicity], np.int64))


@given(st.lists(st.integers(0, 20), min_size=1, max_size=200))
def test_plugin_entropy_is_the_textbook_s(sample):
    counts = counted(sample)
    assert counts.entropy() == pytest.approx(reference.entropy(sample), abs=1e-12)
    assert counts.samples == len(sample)
    assert counts.distinct == len(set(sample))
    assert counts.singletons == sum(sample.count(value) == 1 for value in set(sample))
    assert 0 <= counts.entropy() <= math.log2(len(sample)) + 1e-12


@given(st.integers(1, 100_000))
def test_a_constant_has_no_entropy(samples):
    assert counted_once(samples, 1).entropy() == 0


@given(st.integers(1, 100_000))
def test_all_distinct_is_exactly_log_n(samples):
    assert counted_once(1, samples).entropy() == np.log2(samples)


@given(st.integers(1, 1000), st.integers(1, 1000))
def test_the_entropy_of_a_uniform_variable_is_the_log_of_its_values(each, values):
    assert counted_once(each, values).entropy() == pytest.approx(math.log2(values), abs=1e-12)


def counted_once(multiplicity, keys):
    return CountsOfCounts(np.array([multiplicity]), np.array([keys]))


@given(st.integers(1, 10_000), st.integers(1, 10_000))
def test_a_coin_is_the_binary_entropy(heads, tails):
    p = heads / (heads + tails)
    closed = -p * math.log2(p) - (1 - p) * math.log2(1 - p)
    counts = counted_once(heads, 2) if heads == tails else CountsOfCounts(np.array([heads, tails]), np.array([1, 1]))
    assert counts.entropy() == pytest.approx(closed, abs=1e-12)


@given(st.lists(st.integers(1, 1000), min_size=1, max_size=30, unique=True), st.randoms())
def test_the_order_of_the_counts_changes_no_bit(multiplicity, random):
    keys = [random.randrange(1, 100) for _ in multiplicity]
    shuffled = random.sample(range(len(keys)), len(keys))
    samples = sum(n * k for n, k in zip(multiplicity, keys, strict=True))
    ordered = plugin(np.array(multiplicity), np.array(keys), samples)
    assert plugin(np.array(multiplicity)[shuffled], np.array(keys)[shuffled], samples) == ordered


@pytest.mark.parametrize(("share", "expected"), [(0.94, False), (0.96, True), (1, True)])
def test_saturation_is_within_five_percent_of_log_n(share, expected):
    assert saturated(share * math.log2(60_000), 60_000) is expected


def test_an_estimator_is_declared_as_a_function():
    @estimator
    def singletons(multiplicity, keys, samples):
        return float(keys[multiplicity == 1].sum() / samples)

    try:
        assert counted("aabc").entropy("singletons") == 0.5
    finally:
        del ESTIMATORS["singletons"]
