"""Total correlation against closed forms, scipy, and sums that go row by row."""

import math
from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays
from scipy.stats import multivariate_normal, norm

from ibstore.analyze.estimate.correlation import gaussian_total_correlation, total_correlation
from ibstore.errors import UsageError, ValuesError

CODES = arrays(np.int64, array_shapes(min_dims=2, max_dims=2, min_side=1, max_side=12), elements=st.integers(-2, 2))


def entropy(rows):
    """Plug-in, of hashable rows."""
    counts = np.array(list(Counter(rows).values()))
    return -(counts / len(rows) * np.log2(counts / len(rows))).sum()


def rows_of(*columns):
    return list(zip(*columns, strict=True))


def information(x, y):
    return entropy(rows_of(x)) + entropy(rows_of(y)) - entropy(rows_of(x, y))


@given(CODES)
def test_of_codes_it_is_the_sum_of_the_chain(codes):
    """TC = Σ I(Tᵢ; T₁ … Tᵢ₋₁)."""
    rows = [tuple(row) for row in codes.tolist()]
    chain = sum(information(codes[:, i], [row[:i] for row in rows]) for i in range(codes.shape[1]))
    found = total_correlation(codes)
    assert found.bits == pytest.approx(chain, abs=1e-12)
    assert found.bits > -1e-12
    assert found.constant == (codes == codes[0]).all(axis=0).sum()
    assert found.units + found.constant == codes.shape[1]


def test_closed_forms_of_codes():
    bits = np.array(np.meshgrid([0, 1], [0, 1], [0, 1], indexing="ij")).reshape(3, -1).T
    assert total_correlation(bits).bits == 0
    assert total_correlation(bits[:, [0, 0, 0, 0]]).bits == 3
    assert total_correlation(bits[:, [0, 0, 0, 0]]).per_dimension == 0.75
    assert total_correlation(np.column_stack([bits, bits.sum(axis=1) % 2])).bits == pytest.approx(1, abs=1e-14)


@given(CODES, st.sampled_from("bhilBHIL"), st.randoms())
def test_codes_of_any_type_and_order_are_the_same(codes, kind, random):
    """Near both ends of the type, whose differences overflow."""
    info = np.iinfo(kind)
    ends = np.array([info.min, info.min + 1, info.max // 2, info.max - 1, info.max], kind)
    order = random.sample(range(codes.shape[1]), codes.shape[1])
    other = np.asfortranarray(ends[codes + 2][:, order])
    assert total_correlation(other) == total_correlation(codes[:, order])
    assert total_correlation(other).bits == pytest.approx(total_correlation(codes).bits, abs=1e-12)


def test_a_joint_entropy_that_is_known_is_taken():
    codes = np.random.default_rng(0).integers(3, size=(200, 4))
    found = total_correlation(codes)
    known = entropy([tuple(row) for row in codes.tolist()])
    assert total_correlation(codes, joint_entropy=known).bits == pytest.approx(found.bits, abs=1e-12)
    assert total_correlation(codes, joint_entropy=known - 1).bits == pytest.approx(found.bits + 1, abs=1e-12)


def test_bits_of_truth_are_codes():
    codes = np.random.default_rng(0).random((100, 3)) < 0.3
    assert total_correlation(codes) == total_correlation(codes.astype(np.int8))


@pytest.mark.parametrize("codes", [np.zeros((5, 2)), np.zeros((0, 2), np.int64), np.zeros(5, np.int64)])
def test_what_are_no_codes_is_refused(codes):
    with pytest.raises(ValuesError, match="give integers, \\(sample, unit\\)"):
        total_correlation(codes)


def test_without_units_there_is_none():
    for found in (total_correlation(np.zeros((3, 0), np.int64)), gaussian_total_correlation(np.zeros((3, 0)))):
        assert (found.bits, found.units, found.constant) == (0, 0, 0)
        assert math.isnan(found.per_dimension)


def sample_of(correlations, samples=400, seed=0):
    """Values whose sample correlations are exactly those."""
    units = len(correlations)
    drawn = np.random.default_rng(seed).normal(size=(samples, units))
    white, _ = np.linalg.qr(drawn - drawn.mean(axis=0))
    return white @ np.linalg.cholesky(correlations).T


@pytest.mark.parametrize("units", [2, 5, 40])
@pytest.mark.parametrize("rho", [0.0, 0.3, 0.99, -0.01])
def test_equally_correlated_units(units, rho):
    """|R| = (1 − ρ)^(d − 1)·(1 + (d − 1)·ρ)."""
    correlations = np.full((units, units), rho) + (1 - rho) * np.eye(units)
    closed = -0.5 * ((units - 1) * math.log2(1 - rho) + math.log2(1 + (units - 1) * rho))
    found = gaussian_total_correlation(sample_of(correlations))
    assert found.bits == pytest.approx(closed, rel=1e-10, abs=1e-12)
    assert found.per_dimension == pytest.approx(closed / units, rel=1e-10, abs=1e-12)


def test_of_two_units_it_is_their_information():
    values = np.random.default_rng(1).normal(size=(50, 2)) @ np.array([[1.0, 0.4], [0.0, 2.0]])
    rho = np.corrcoef(values.T)[0, 1]
    assert gaussian_total_correlation(values).bits == pytest.approx(-0.5 * math.log2(1 - rho**2), rel=1e-12)


def test_it_is_the_entropies_of_scipy():
    random = np.random.default_rng(2)
    values = random.normal(size=(300, 6)) @ random.normal(size=(6, 6)) + 5
    covariance = np.cov(values.T)
    marginal = sum(norm(scale=math.sqrt(variance)).entropy() for variance in np.diag(covariance))
    expected = (marginal - multivariate_normal(cov=covariance).entropy()) / math.log(2)
    assert gaussian_total_correlation(values).bits == pytest.approx(expected, rel=1e-10)


def test_the_sample_s_is_too_large_by_what_is_said():
    random, units, samples = np.random.default_rng(3), 10, 1000
    found = [gaussian_total_correlation(random.normal(size=(samples, units))).bits for _ in range(100)]
    assert np.mean(found) * math.log(2) == pytest.approx(units * (units - 1) / (4 * samples), rel=0.1)


@given(
    st.lists(st.sampled_from([1e-300, 1e-30, 1.0, -7.0, 1e150]), min_size=4, max_size=4),
    st.lists(st.floats(-1e3, 1e3), min_size=4, max_size=4),
    st.permutations(range(4)),
)
@settings(max_examples=50)
def test_neither_scale_nor_place_nor_order_matters(scales, places, order):
    values = sample_of(0.5 * np.eye(4) + 0.5, samples=30)
    expected = gaussian_total_correlation(values).bits
    moved = ((values + places) * scales)[:, order]
    assert gaussian_total_correlation(moved).bits == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize(("dtype", "within"), [(np.float32, 1e-5), (np.float16, 2e-2)])
def test_narrow_types_are_summed_in_float64(dtype, within):
    values = sample_of(0.5 * np.eye(4) + 0.5, samples=3000) * 500
    expected = gaussian_total_correlation(values).bits
    assert gaussian_total_correlation(values.astype(dtype)).bits == pytest.approx(expected, rel=within)


def test_constant_units_are_left_out_and_counted():
    values = sample_of(0.5 * np.eye(3) + 0.5)
    with_dead = np.column_stack([np.zeros(400), values, np.full(400, 1e8)])
    found = gaussian_total_correlation(with_dead)
    assert (found.units, found.constant) == (3, 2)
    assert found.bits == gaussian_total_correlation(values).bits
    alone = gaussian_total_correlation(values[:1])
    assert (alone.bits, alone.units, alone.constant) == (0, 0, 3)
    assert gaussian_total_correlation(values[:, :1]).bits == 0


@pytest.mark.parametrize("seed", range(5))
def test_what_is_singular_is_infinite(seed):
    random = np.random.default_rng(seed)
    values = random.normal(size=(500, 30)) * 10.0 ** random.integers(-5, 6, 30)
    assert math.isfinite(gaussian_total_correlation(values).bits)
    copied = np.column_stack([values, 1 - 3e7 * values[:, 4]])
    summed = np.column_stack([values / values.std(axis=0), (values / values.std(axis=0)) @ random.normal(size=30)])
    for singular in (copied, summed, values[:30], values[:2], np.column_stack([values, values])):
        assert gaussian_total_correlation(singular).bits == math.inf
        assert gaussian_total_correlation(singular).per_dimension == math.inf
        assert 0 < gaussian_total_correlation(singular, shrinkage=0.1).bits < math.inf


def test_shrinkage_is_a_mixture_with_no_correlation():
    values = np.random.default_rng(4).normal(size=(60, 5)) @ np.random.default_rng(5).normal(size=(5, 5))
    for shrinkage in (0.0, 0.25, 0.9, 1.0):
        mixed = (1 - shrinkage) * np.corrcoef(values.T) + shrinkage * np.eye(5)
        expected = -0.5 * np.linalg.slogdet(mixed)[1] / math.log(2)
        assert gaussian_total_correlation(values, shrinkage).bits == pytest.approx(expected, rel=1e-10, abs=1e-12)


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_values_that_are_not_finite_are_refused(bad):
    values = np.ones((5, 2))
    values[3, 1] = bad
    with pytest.raises(ValuesError, match=r"values of shape \(5, 2\): give finite ones"):
        gaussian_total_correlation(values)


@pytest.mark.parametrize("shape", [(0, 2), (5,)])
def test_what_are_no_values_is_refused(shape):
    with pytest.raises(ValuesError, match="give finite ones, \\(sample, unit\\), of a sample at least"):
        gaussian_total_correlation(np.zeros(shape))


@pytest.mark.parametrize("shrinkage", [-0.1, 1.1, math.nan])
def test_no_share_is_refused(shrinkage):
    with pytest.raises(UsageError, match=r"shrinkage is .*; give a number from 0"):
        gaussian_total_correlation(np.eye(3), shrinkage)
