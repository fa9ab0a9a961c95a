"""Matrix-based entropies against closed forms, matrix functions and double loops, and the inequalities they obey."""

import math
import tracemalloc

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.linalg import fractional_matrix_power, logm
from threadpoolctl import ThreadpoolController

from ibstore.analyze.estimate import renyi
from ibstore.analyze.estimate.renyi import (
    entropy,
    gram,
    information,
    joint,
    label_gram,
    plane,
    silverman,
    spectrum_entropy,
)
from ibstore.errors import UsageError, ValuesError

ALPHAS = (0.5, 1, 1.01, 2, 3.5)
seeds = st.integers(0, 2**32 - 1)
counts = st.lists(st.integers(1, 9), min_size=1, max_size=6)


def renyi_entropy(p, alpha):
    """Rényi 1961."""
    p = np.asarray(p) / np.sum(p)
    return -(p * np.log2(p)).sum() if alpha == 1 else math.log2((p**alpha).sum()) / (1 - alpha)


def layers(samples=30, seed=0):
    """An input, a layer of it that is often 0, and labels."""
    random = np.random.default_rng(seed)
    x = random.normal(size=(samples, 5))
    return x, np.maximum(x @ random.normal(size=(5, 3)), 0), random.integers(0, 3, samples)


def test_a_gram_matrix_is_its_formula_pair_by_pair():
    values, n = layers()[0] + 1000, 30
    expected = [[math.exp(-((a - b) ** 2).sum() / (2 * 0.7**2)) / n for a in values] for b in values]
    np.testing.assert_allclose(gram(values, width=0.7), expected, rtol=1e-9, atol=1e-15)
    assert np.trace(gram(values)) == pytest.approx(1, abs=1e-14)


def test_the_width_is_silvermans_in_deviations_of_units_that_vary():
    values = layers()[0] * 1e-3
    deviation = math.sqrt(values.var(axis=0).mean())
    assert silverman(30, 5) == pytest.approx(math.sqrt(5) * 30 ** (-1 / 9))
    np.testing.assert_allclose(gram(values), gram(values, deviation * silverman(30, 5)), rtol=1e-12)
    np.testing.assert_allclose(gram(np.insert(values, 2, 0.1, axis=1)), gram(values), rtol=1e-12)
    np.testing.assert_allclose(gram(values * 1e200 - 5e197), gram(values), rtol=1e-9)


@pytest.mark.parametrize("alpha", [0.5, 1.01, 3.5])
def test_entropy_is_that_of_the_matrix_power(alpha):
    matrix = gram(layers(12)[0])
    power = np.trace(fractional_matrix_power(matrix, alpha)).real
    assert entropy(matrix, alpha) == pytest.approx(math.log2(power) / (1 - alpha), rel=1e-9)
    assert entropy(7 * matrix, alpha) == pytest.approx(entropy(matrix, alpha), rel=1e-12)


def test_entropy_of_order_one_is_von_neumanns_and_of_two_the_square_sums():
    matrix = gram(layers(12)[0])
    assert entropy(matrix, 1) == pytest.approx(-np.trace(matrix @ logm(matrix)).real / math.log(2), rel=1e-9)
    assert entropy(matrix, 2) == pytest.approx(-math.log2(np.linalg.norm(matrix) ** 2), rel=1e-12)
    assert entropy(matrix, 2) == pytest.approx(entropy(matrix, 2 + 1e-9), rel=1e-7)
    for alpha in (1 - 1e-6, 1 + 1e-6):
        assert entropy(matrix, alpha) == pytest.approx(entropy(matrix, 1), abs=1e-5)


@pytest.mark.parametrize("alpha", ALPHAS)
def test_samples_far_apart_have_log_n_bits_and_equal_ones_none(alpha):
    assert entropy(gram(np.eye(16), width=0.01), alpha) == pytest.approx(4, abs=1e-11)
    assert entropy(gram(np.full((16, 3), 0.1)), alpha) == pytest.approx(0, abs=1e-11)
    assert entropy(gram(np.array([3.0])), alpha) == 0


@pytest.mark.parametrize("alpha", ALPHAS)
@pytest.mark.parametrize("clusters", [2, 5])
def test_equal_clusters_have_log_c_bits(alpha, clusters):
    values = 1e6 + 7 * np.repeat(np.eye(clusters), 6, axis=0)
    assert entropy(gram(values, width=0.1), alpha) == pytest.approx(math.log2(clusters), abs=1e-9)


@pytest.mark.parametrize("alpha", ALPHAS)
@given(counts=counts)
@settings(deadline=None, max_examples=20)
def test_labels_have_the_renyi_entropy_of_their_frequencies(alpha, counts):
    labels = np.repeat(np.arange(len(counts)), counts)[::-1]
    expected = renyi_entropy(counts, alpha)
    assert entropy(label_gram(labels), alpha) == pytest.approx(expected, abs=1e-11)
    assert spectrum_entropy(np.array(counts), alpha) == pytest.approx(expected, abs=1e-11)
    assert information(label_gram(labels), label_gram(labels), alpha) == pytest.approx(expected, abs=1e-11)


@given(seed=seeds, alpha=st.sampled_from(ALPHAS), width=st.floats(0.1, 10))
@settings(deadline=None, max_examples=40)
def test_entropies_obey_their_inequalities(seed, alpha, width):
    x, t, _ = layers(20, seed)
    a, b = gram(x, width), gram(t)
    s_a, s_b, s_ab = (entropy(matrix, alpha) for matrix in (a, b, joint(a, b)))
    assert -1e-9 <= s_a <= math.log2(20) + 1e-9
    assert max(s_a, s_b) <= s_ab + 1e-9
    assert alpha > 1.01 or s_ab <= s_a + s_b + 1e-9
    assert entropy(a, alpha + 0.5) <= s_a + 1e-9
    assert information(a, b, alpha) == pytest.approx(information(b, a, alpha), abs=1e-12)
    assert information(a, label_gram(np.zeros(20)), alpha) == pytest.approx(0, abs=1e-9)


@pytest.mark.parametrize("alpha", ALPHAS)
def test_the_plane_is_the_three_numbers_of_whole_matrices(alpha, monkeypatch):
    monkeypatch.setattr(renyi, "BLOCK", 100)
    x, t, labels = layers()
    a, b, y = gram(x, 2.0), gram(t), label_gram(labels)
    expected = entropy(b, alpha), information(a, b, alpha), information(b, y, alpha)
    assert plane(x, t, labels, alpha, widths=(2.0, None)) == pytest.approx(expected, abs=1e-10)


@pytest.mark.parametrize("alpha", [1.01, 2])
def test_order_and_scale_change_nothing(alpha):
    x, t, labels = layers(60)
    order = np.random.default_rng(1).permutation(60)
    expected = plane(x, t, labels, alpha)
    assert plane(x[order], t[order], labels[order], alpha) == pytest.approx(expected, abs=1e-10)
    assert plane(1e-150 * x + 1e-152, 1e150 * t, labels.astype(str), alpha) == pytest.approx(expected, abs=1e-10)


def test_far_from_one_information_may_be_below_zero_and_is_told():
    a = np.r_[np.zeros(6, int), 1:7]  # half of a is 0, half of b, and never both
    b = np.r_[1:7, np.zeros(6, int)]
    expected = sum(renyi_entropy(np.unique(one, return_counts=True)[1], 3.5) for one in (a, b))
    expected -= renyi_entropy(np.unique(7 * a + b, return_counts=True)[1], 3.5)
    assert expected < -0.7
    assert information(label_gram(a), label_gram(b), 3.5) == pytest.approx(expected, abs=1e-11)


@pytest.mark.parametrize("alpha", [1.01, 2])
def test_a_layer_that_tells_the_labels_has_their_entropy(alpha):
    labels = np.repeat([0, 1, 2, 3], 25)
    t = np.eye(4)[labels] * 100 + np.random.default_rng(2).normal(size=(100, 4)) * 1e-6
    told = plane(t, t, labels, alpha, widths=(1.0, 1.0))
    assert told == pytest.approx((2, 2, 2), abs=1e-6)
    assert plane(t, np.full(100, 0.1), labels, alpha) == pytest.approx((0, 0, 0), abs=1e-10)


def test_of_order_two_no_matrix_is_held(monkeypatch):
    monkeypatch.setattr(renyi, "BLOCK", 1 << 16)
    x, t, labels = layers(3000)
    plane(x[:9], t[:9], labels[:9], 2)  # imports what it needs
    tracemalloc.start()
    try:
        plane(x, t, labels, 2)
        held = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert held < 3000 * 3000 * 8 / 10


def test_blas_has_its_threads_back():
    def threads():
        return [library["num_threads"] for library in ThreadpoolController().info()]

    before = threads()
    plane(*layers())
    assert threads() == before


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda x: entropy(gram(x), 0), UsageError, r"alpha=0: Rényi's α is a finite number above 0"),
        (lambda x: entropy(gram(x), math.inf), UsageError, "alpha=inf"),
        (lambda x: plane(x, x, x > 2, math.nan), UsageError, "alpha=nan"),
        (lambda x: entropy(gram(x)[:2]), UsageError, r"Gram matrix of shape \(2, 5\); give \(sample, sample\)"),
        (lambda x: joint(gram(x), gram(x[:4])), UsageError, r"shapes \(5, 5\) and \(4, 4\); give both of the same"),
        (lambda x: plane(x, x[:4], x), UsageError, "5 samples of x, 4 of t, 5 labels; give all of the same"),
        (lambda x: gram(x, 0), UsageError, "kernel width 0: it is a finite number above 0"),
        (lambda x: gram(x, math.inf), UsageError, "kernel width inf"),
        (
            lambda x: gram(x, 1e-9),
            UsageError,
            r"kernel width 1e-09 of values that deviate by 1.41; take 1.41e-06 or more",
        ),
        (lambda x: gram(x * math.nan), ValuesError, "values holds NaN or an infinity"),
        (lambda x: label_gram(gram(x)), UsageError, "give one label a sample"),
    ],
)
def test_what_cannot_be_is_refused(call, error, message):
    with pytest.raises(error, match=message):
        call(np.arange(1.0, 6.0))
