"""EDGE against the paper's sum, closed forms, a solver for its weights, and what must not matter."""

import math
from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.integrate import quad
from scipy.optimize import minimize
from scipy.stats import norm

from ibstore.analyze.estimate.edge import buckets, edge, ensemble_weights, information
from ibstore.errors import UnknownNameError, UsageError, ValuesError

seeds = st.integers(0, 2**32 - 1)
keys = st.lists(st.tuples(st.integers(0, 5), st.integers(0, 5)), min_size=1, max_size=60)


def gaussians(samples, rho, units=1, seed=0):
    """Unit by unit correlated, and the information in bits."""
    random = np.random.default_rng(seed)
    x, noise = random.normal(size=(2, samples, units))
    return x, rho * x + math.sqrt(1 - rho**2) * noise, -units / 2 * math.log2(1 - rho**2)


def mean_edge(samples, rho, units, **how):
    return np.mean([edge(*gaussians(samples, rho, units, seed)[:2], seed=seed, **how) for seed in range(3)])


@given(pairs=keys)
@settings(deadline=None)
def test_information_is_the_papers_sum_over_the_dependence_graph(pairs):
    n = len(pairs)
    left, right, edges = Counter(a for a, _ in pairs), Counter(b for _, b in pairs), Counter(pairs)
    total = 0.0
    for (a, b), both in edges.items():
        ratio = both * n / (left[a] * right[b])
        total += left[a] * right[b] / n**2 * ratio * math.log2(ratio)
    a, b = np.array(pairs).T
    assert information(a, b) == pytest.approx(total, abs=1e-12)


@given(seed=seeds, units=st.integers(1, 4), width=st.floats(0.05, 20))
@settings(deadline=None, max_examples=40)
def test_buckets_are_equal_if_and_only_if_cells_are(seed, units, width):
    random = np.random.default_rng(seed)
    values = random.normal(size=(50, units)).round(1)
    offsets = np.random.default_rng(7).random(units)
    cells = [tuple(math.floor(v / width + o) for v, o in zip(row, offsets, strict=True)) for row in values.tolist()]
    numbers = buckets(values, width, 7)
    assert numbers.dtype == np.int64
    assert set(numbers.tolist()) == set(range(len(set(cells))))
    assert len(set(zip(cells, numbers.tolist(), strict=True))) == len(set(cells))
    order = random.permutation(50)
    assert (buckets(values[order], width, 7) == numbers[order]).all()


@pytest.mark.parametrize(("members", "orders"), [(1, 0), (5, 0), (2, 1), (8, 1), (16, 2)])
def test_weights_cancel_the_powers_and_are_the_smallest_that_do(members, orders):
    steps = np.linspace(1, 2, members)
    weights = ensemble_weights(steps, orders)
    powers = steps ** np.arange(orders + 1)[:, None]
    np.testing.assert_allclose(powers @ weights, np.eye(orders + 1)[0], atol=1e-10)
    constraint = {"type": "eq", "fun": lambda w: powers @ w - np.eye(orders + 1)[0]}
    solved = minimize(lambda w: w @ w, np.full(members, 1 / members), constraints=constraint, tol=1e-14)
    np.testing.assert_allclose(weights, solved.x, atol=1e-4 * np.abs(weights).max())


@pytest.mark.parametrize(
    ("units", "rho", "of_1000", "of_10000"),
    [
        *((1, 0.0, 0.06, 0.02), (1, 0.5, 0.1, 0.03), (1, 0.9, 0.2, 0.08), (1, -0.9, 0.2, 0.08)),
        *((2, 0.0, 0.08, 0.03), (2, 0.5, 0.12, 0.08), (2, 0.9, 0.5, 0.12)),
    ],
)
def test_of_one_and_two_units_edge_finds_the_closed_form(units, rho, of_1000, of_10000):
    bits = gaussians(2, rho, units)[2]
    assert mean_edge(1000, rho, units) == pytest.approx(bits, abs=of_1000)
    assert mean_edge(10_000, rho, units) == pytest.approx(bits, abs=of_10000)


@pytest.mark.parametrize("units", [5, 20])
def test_of_more_units_it_is_far_too_low_and_grows_with_the_information(units):
    """Of five units a quarter to a half of the closed form; of twenty, projected, the same bits in all."""
    none, some, much = (mean_edge(3000, rho, units) for rho in (0, 0.5, 0.9))
    assert none == pytest.approx(0, abs=0.06)
    assert 0.25 * gaussians(2, 0.5, 5)[2] < some < 0.5 * gaussians(2, 0.5, 5)[2]
    assert 0.25 * gaussians(2, 0.9, 5)[2] < much < 0.5 * gaussians(2, 0.9, 5)[2]


def test_grassbergers_entropies_and_cancelling_make_less_bias_than_the_plain_mean_of_plug_ins():
    bits = gaussians(2, 0.9, 2)[2]
    assert abs(mean_edge(3000, 0.9, 2) - bits) < abs(mean_edge(3000, 0.9, 2, orders=0) - bits) / 2
    assert mean_edge(1000, 0, 1) < mean_edge(1000, 0, 1, estimator="plugin") / 2


@pytest.mark.parametrize("distance", [0, 1, 2.5, 20])
def test_of_two_gaussians_and_their_labels_it_finds_the_integral(distance):
    random = np.random.default_rng(3)
    labels = np.arange(6000) % 3 // 2  # a third
    t = random.normal(size=6000) + distance * labels

    def surprise(v):
        density = 2 * norm.pdf(v) / 3 + norm.pdf(v - distance) / 3
        return -density * math.log2(density)

    bits = quad(surprise, -9, distance + 9, points=[0, distance], limit=200)[0] - norm.entropy() / math.log(2)
    assert edge(t, labels) == pytest.approx(bits, abs=0.04)
    assert edge(labels.astype(str), t[:, None]) == edge(t, labels)


@pytest.mark.parametrize("units", [1, 3, 30])
def test_repeated_values_are_buckets_of_their_own(units):
    x, other = np.random.default_rng(4).integers(0, 8, (2, 4000))
    wide = np.tile(x[:, None], units) / 7
    for side in (x, wide):
        assert edge(side, -wide) == pytest.approx(3, abs=0.02)
        assert edge(side, other / 7) == pytest.approx(0, abs=0.03)
    assert edge(x, other, estimator="plugin") == pytest.approx(information(x, other), abs=1e-12)


def test_many_labels_leave_buckets_to_the_layer():
    """Their own pairs are not counted among those that samples may occupy."""
    t = np.random.default_rng(5).normal(size=400)
    labels = (t * 100).astype(int)
    assert len(np.unique(labels)) > 200
    assert edge(t, labels) > 3


@given(seed=seeds, units=st.sampled_from([1, 3, 7]), scale=st.floats(1e-200, 1e200))
@settings(deadline=None, max_examples=10)
def test_swapping_and_scaling_change_nothing(seed, units, scale):
    x, t, _ = gaussians(100, 0.8, units, seed)
    estimate = edge(x, t, seed=seed)
    assert edge(t, x, seed=seed) == pytest.approx(estimate, abs=1e-12)
    assert edge(x, 2.0**40 * t, seed=seed) == estimate
    assert edge(scale * x, t, seed=seed) == pytest.approx(estimate, abs=1e-9)


def test_order_changes_nothing_and_a_seed_gives_the_same_bits():
    x, t, _ = gaussians(500, 0.8, 8)
    order = np.random.default_rng(1).permutation(500)
    assert edge(x, t, seed=3) == edge(x, t, seed=3) != edge(x, t, seed=4)
    assert edge(x[order], t[order]) == pytest.approx(edge(x, t), abs=1e-9)


def test_dead_units_say_nothing_and_a_constant_has_no_information():
    x, t, _ = gaussians(300, 0.7, 3)
    assert edge(x, np.insert(t, 1, 0.1, axis=1)) == edge(x, t)
    assert edge(x, np.full((300, 9), 0.1)) == edge(np.zeros(300, int), x) == 0.0
    assert edge(np.array([3.0]), np.array([4.0])) == 0.0
    assert math.isfinite(edge(x[:2], t[:2]))


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda x: edge(x, x[:4]), UsageError, "x has 5 samples, t 4; give both of the same samples"),
        (lambda x: edge(x, x, members=2, orders=2), UsageError, "2 orders of 2 members; take more members"),
        (lambda x: edge(x, x, orders=-1), UsageError, "-1 orders"),
        (lambda x: edge(x, x, seed=-1), UsageError, "seed -1: take an integer from 0"),
        (lambda x: edge(x, x, estimator="plug"), UnknownNameError, "unknown estimator 'plug'"),
        (lambda x: edge(x, x * math.nan), ValuesError, "t holds NaN or an infinity"),
        (lambda x: edge(x, x[:, None, None]), UsageError, r"t has the shape \(5, 1, 1\)"),
        (lambda x: buckets(x, 0), UsageError, "bucket width 0: it is a finite number above 0"),
        (lambda x: buckets(x, math.inf), UsageError, "bucket width inf"),
    ],
)
def test_what_cannot_be_is_refused(call, error, message):
    with pytest.raises(error, match=message):
        call(np.arange(1.0, 6.0))
