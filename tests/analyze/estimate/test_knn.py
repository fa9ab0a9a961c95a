"""Nearest neighbours against closed forms, scikit-learn, references over all pairs, and what must not matter."""

import math
import tracemalloc

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.integrate import quad
from scipy.special import digamma
from scipy.stats import norm
from sklearn.feature_selection._mutual_info import _compute_mi_cc, _compute_mi_cd

from ibstore.analyze.estimate import knn
from ibstore.analyze.estimate.knn import ksg, ross
from ibstore.analyze.estimate.variables import standard
from ibstore.errors import UsageError, ValuesError

VARIANTS = (1, 2)
seeds = st.integers(0, 2**32 - 1)


def gaussians(samples, rho, units=1, seed=0):
    """Unit by unit correlated, and the information in bits."""
    random = np.random.default_rng(seed)
    x, noise = random.normal(size=(2, samples, units))
    return x, rho * x + math.sqrt(1 - rho**2) * noise, -units / 2 * math.log2(1 - rho**2)


def all_pairs(values):
    return np.abs(values[:, None] - values).max(axis=2)


def kraskov(x, t, k, variant):
    """The paper's two estimators, sample by sample, of values that are all different."""
    dx, dt = all_pairs(x / math.sqrt(x.var(axis=0).mean())), all_pairs(t / math.sqrt(t.var(axis=0).mean()))
    joint, total = np.maximum(dx, dt), 0.0
    for i in range(len(x)):
        near = np.argsort(joint[i])[1 : k + 1]
        if variant == 1:
            ahead = [(d[i] < joint[i, near[-1]]).sum() - 1 for d in (dx, dt)]
            total += digamma(ahead[0] + 1) + digamma(ahead[1] + 1)
        else:
            ahead = [(d[i] <= d[i, near].max()).sum() - 1 for d in (dx, dt)]
            total += digamma(ahead[0]) + digamma(ahead[1]) + 1 / k
    return (digamma(k) + digamma(len(x)) - total / len(x)) / math.log(2)


def ross_by_pairs(t, labels, k):
    labels = np.asarray(labels)
    keep = [(labels == label).sum() > 1 for label in labels]
    distances, labels = all_pairs(t[keep]), labels[keep]
    total = 0.0
    for i, label in enumerate(labels):
        own = np.sort(distances[i, labels == label])
        asked = min(k, len(own) - 1)
        total += digamma(asked) - digamma(len(own)) - digamma((distances[i] < own[asked]).sum())
    return (digamma(len(labels)) + total / len(labels)) / math.log(2)


@pytest.fixture
def in_blocks(monkeypatch):
    monkeypatch.setattr(knn, "TREE_UNITS", 0)


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize(("rho", "units", "within"), [(0, 1, 0.03), (0.5, 1, 0.04), (-0.95, 1, 0.05), (0.8, 3, 0.25)])
def test_of_correlated_gaussians_ksg_finds_the_closed_form(variant, rho, units, within):
    x, t, bits = gaussians(4000, rho, units, seed=1)
    assert ksg(x, t, variant=variant) == pytest.approx(bits, abs=within)


@pytest.mark.parametrize("variant", VARIANTS)
@given(
    seed=seeds, samples=st.integers(8, 40), units=st.tuples(st.integers(1, 8), st.integers(1, 8)), k=st.integers(1, 7)
)
@settings(deadline=None, max_examples=60)
def test_ksg_is_its_formula_sample_by_sample(variant, seed, samples, units, k):
    random = np.random.default_rng(seed)
    x, t = random.normal(size=(samples, units[0])), random.normal(size=(samples, units[1]))
    t[:, 0] += 3 * x[:, 0]
    assert ksg(x, t, k, variant) == pytest.approx(kraskov(x, t, k, variant), rel=1e-12, abs=1e-12)


@pytest.mark.parametrize("k", [1, 3, 10])
def test_ksg_of_one_unit_each_is_scikit_learns(k):
    x, t, _ = gaussians(1500, 0.7, seed=2)
    expected = _compute_mi_cc(x[:, 0] / x.std(), t[:, 0] / t.std(), k) / math.log(2)
    assert ksg(x[:, 0], t[:, 0], k) == pytest.approx(expected, rel=1e-12)


@given(seed=seeds, k=st.integers(1, 5))
@settings(deadline=None, max_examples=20)
def test_ross_of_one_unit_is_scikit_learns(seed, k):
    random = np.random.default_rng(seed)
    labels = np.r_[np.arange(60) % 4, 4, 5]  # two are seen once; for few samples a label its distances are not exact
    t = random.normal(size=62) + labels / 2
    expected = _compute_mi_cd(t, labels, k) / math.log(2)
    assert max(ross(t, labels, k), 0) == pytest.approx(expected, rel=1e-12, abs=1e-12)


@given(seed=seeds, samples=st.integers(6, 40), units=st.integers(1, 14), k=st.integers(1, 5))
@settings(deadline=None, max_examples=60)
def test_ross_is_its_formula_sample_by_sample(seed, samples, units, k):
    random = np.random.default_rng(seed)
    t, labels = random.normal(size=(samples, units)), random.integers(0, 5, samples)
    labels[:2] = 0
    assert ross(t, labels, k) == pytest.approx(ross_by_pairs(t, labels, k), rel=1e-12, abs=1e-12)


@pytest.mark.parametrize("distance", [0, 1, 2.5, 20])
def test_of_two_gaussians_ross_finds_the_integral(distance):
    random = np.random.default_rng(3)
    labels = np.arange(6000) % 3 > 0  # two thirds
    t = random.normal(size=6000) + distance * labels

    def surprise(v):
        density = norm.pdf(v) / 3 + 2 * norm.pdf(v - distance) / 3
        return -density * math.log2(density)

    bits = quad(surprise, -9, distance + 9, points=[0, distance], limit=200)[0] - norm.entropy() / math.log(2)
    assert ross(t, labels) == pytest.approx(bits, abs=0.02)


@pytest.mark.parametrize("separate", [True, False])
def test_ross_at_its_ends(separate):
    """Labels far apart are told by T, ψ(N) − ⟨ψ(N_y)⟩; one label says nothing."""
    random, labels = np.random.default_rng(4), np.repeat([0, 1, 2], [50, 30, 20])
    t = random.random((100, 2)) + (9 * labels[:, None] if separate else 0)
    bits = (digamma(100) - np.dot([0.5, 0.3, 0.2], digamma([50, 30, 20]))) / math.log(2)
    estimate = ross(t, labels if separate else np.zeros(100, int))
    assert estimate == pytest.approx(bits if separate else 0, abs=1e-12)


def test_a_label_of_few_samples_has_fewer_neighbours_and_one_seen_once_is_left_out():
    t, labels = np.array([0.0, 1.0, 3.0, 20.0, 21.0, 99.0]), ["a", "a", "a", "b", "b", "c"]
    expected = digamma(5) + (3 * (digamma(2) - digamma(3)) + 2 * (digamma(1) - digamma(2))) / 5
    nearer = (3 * digamma(2) + 2 * digamma(1)) / 5
    assert ross(t, np.array(labels), k=3) == pytest.approx((expected - nearer) / math.log(2), abs=1e-12)


def rectified(samples=300, units=4, seed=5):
    """Layers whose values are often all 0, and labels."""
    random = np.random.default_rng(seed)
    x = random.integers(0, 3, (samples, units)).astype(float)
    return x, np.maximum(x @ random.normal(size=(units, units)) - 1.5, 0), random.integers(0, 3, samples)


@pytest.mark.parametrize("variant", VARIANTS)
def test_trees_and_blocks_are_equal_where_values_repeat_too(variant, monkeypatch):
    x, t, labels = rectified()
    by_trees = ksg(x, t, variant=variant), ross(t, labels)
    monkeypatch.setattr(knn, "TREE_UNITS", 0)
    assert (ksg(x, t, variant=variant), ross(t, labels)) == by_trees
    monkeypatch.setattr(knn, "BLOCK", 1000)
    assert (ksg(x, t, variant=variant), ross(t, labels)) == by_trees


@pytest.mark.parametrize("variant", VARIANTS)
def test_the_samples_order_changes_no_bit(variant):
    x, t, labels = rectified()
    for seed in range(3):
        order = np.random.default_rng(seed).permutation(len(x))
        assert ksg(x[order], t[order], variant=variant) == ksg(x, t, variant=variant)
        assert ross(t[order], labels[order]) == ross(t, labels)


@pytest.mark.parametrize("variant", VARIANTS)
@given(seed=seeds, scale=st.floats(1e-200, 1e200), units=st.integers(1, 7))
@settings(deadline=None, max_examples=20)
def test_swapping_and_scaling_change_nothing(variant, seed, scale, units):
    x, t, _ = gaussians(50, 0.8, units, seed)
    estimate = ksg(x, t, variant=variant)
    assert ksg(t, x, variant=variant) == pytest.approx(estimate, abs=1e-12)
    assert ksg(x * scale, t - 3, variant=variant) == pytest.approx(estimate, abs=1e-12)
    assert ross(t * scale, x[:, 0] > 0) == pytest.approx(ross(t, x[:, 0] > 0), abs=1e-12)


def test_a_monotone_function_of_a_variable_changes_little():
    x, t, bits = gaussians(3000, 0.8, seed=6)
    assert ksg(np.exp(x), t**3) == pytest.approx(bits, abs=0.08)
    assert abs(ksg(np.exp(x), t**3) - ksg(x, t)) < 0.08


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("units", [1, 12])
def test_of_repeated_values_the_mass_is_seen_and_nothing_within(variant, units):
    x, other = np.random.default_rng(7).integers(0, 8, (2, 2000))
    wide = np.tile(x[:, None], units)
    assert ksg(wide, -wide, variant=variant) == pytest.approx(3, abs=0.05)
    assert ksg(wide, other, variant=variant) == pytest.approx(0, abs=0.05)
    assert ross(wide, x) == pytest.approx(3, abs=0.02)
    assert ross(wide, other) == pytest.approx(0, abs=0.02)


def test_units_that_are_dead_say_nothing():
    x, t, _ = gaussians(400, 0.7, units=2, seed=8)
    dead = np.hstack([np.full((400, 20), 0.1), t])
    assert ksg(x, dead) == pytest.approx(ksg(x, t), abs=1e-12)
    assert ross(dead, x[:, 0] > 0) == pytest.approx(ross(t, x[:, 0] > 0), abs=1e-12)


def test_a_constant_has_no_information():
    x, _, _ = gaussians(50, 0)
    assert ksg(np.full(50, 0.1), x) == ksg(x, np.full((50, 20), 1e300)) == 0.0
    assert ross(np.full(50, 0.1), np.arange(50) % 2) == 0.0


def test_estimates_below_zero_are_told():
    estimates = [ksg(*gaussians(30, 0, seed=seed)[:2]) for seed in range(10)]
    assert min(estimates) < -0.05
    assert ross(np.arange(20.0), np.arange(20) % 2) < -0.05  # sorted by turns: worse than by chance


def test_the_overall_deviation_is_the_root_of_the_mean_variance():
    values = np.random.default_rng(9).normal(5, [1, 2, 3], (40, 3))
    rows, deviation = standard(np.insert(values, 1, 0.3, axis=1) * 1e-300)  # one that is dead counts for nothing
    assert deviation == pytest.approx(1e-300 * math.sqrt(values.var(axis=0).mean()))
    np.testing.assert_allclose(rows, (values - values.mean(axis=0)) / math.sqrt(values.var(axis=0).mean()), atol=1e-12)
    assert standard(np.full((3, 2), 0.1))[1] == 0


def test_nothing_of_samples_times_samples_is_held(monkeypatch, in_blocks):
    monkeypatch.setattr(knn, "BLOCK", 1 << 16)
    x, t, _ = gaussians(3000, 0.5)
    ksg(x[:9], t[:9])  # imports what it needs
    tracemalloc.start()
    try:
        ksg(x, t), ross(t, x[:, 0] > 0)
        held = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert held < 3000 * 3000 * 8 / 10


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda x: ksg(x, x, 5), UsageError, r"k=5 neighbours of 5 samples; take a k from 1"),
        (lambda x: ksg(x[:1], x[:1]), UsageError, "k=3 neighbours of 1 samples"),
        (lambda x: ksg(x, x, 0), UsageError, "k=0 neighbours"),
        (lambda x: ross(x, np.zeros(5), 0), UsageError, "k=0 neighbours"),
        (lambda x: ksg(x, x, variant=3), UsageError, "variant 3: Kraskov's estimators are 1 and 2"),
        (lambda x: ksg(x, x[:4]), UsageError, "one variable has 5 samples, the other 4"),
        (lambda x: ross(x, np.zeros(4)), UsageError, "one variable has 5 samples, the other 4"),
        (lambda x: ksg(x, x[:, None, None]), UsageError, r"t has the shape \(5, 1, 1\); give .* \(sample, unit\)"),
        (lambda x: ksg(x[:0], x[:0]), UsageError, r"x has the shape \(0,\); give at least one sample"),
        (lambda x: ross(x, np.zeros((5, 1))), UsageError, r"labels have the shape \(5, 1\); give one label a sample"),
        (lambda x: ksg(x, x * np.nan), ValuesError, "t holds NaN or an infinity"),
        (lambda x: ross(x * np.inf, np.zeros(5)), ValuesError, "t holds NaN or an infinity"),
        (lambda x: ksg(x.astype(str), x), ValuesError, "x holds <U.*, no numbers"),
        (lambda x: ross(x, np.arange(5)), ValuesError, "each of the 5 is seen once; give labels that samples share"),
    ],
)
def test_what_cannot_be_is_refused(call, error, message):
    with pytest.raises(error, match=message):
        call(np.arange(1.0, 6.0))
