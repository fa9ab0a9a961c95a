"""The pairwise bounds against the true entropy of mixtures, closed forms, ten lines of numpy, and themselves."""

import math
import tracemalloc

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from scipy.spatial.distance import cdist
from scipy.stats import multivariate_normal, norm, ortho_group
from threadpoolctl import threadpool_info, threadpool_limits

from ibstore.analyze import device
from ibstore.analyze.device import Device
from ibstore.analyze.estimate import blas, kde, kernels, pairs
from ibstore.analyze.estimate.kde import TOLERANCE, bounds, variance_from_labels
from ibstore.analyze.estimate.kernels import add_kernels
from ibstore.errors import IbstoreError, UsageError, ValuesError

RNG = np.random.default_rng(0)
POINTS = st.integers(1, 12).flatmap(
    lambda samples: arrays.arrays(np.float64, (samples, 2), elements=st.floats(-3, 3, width=32))
)
VARIANCES = st.floats(0.01, 4)


def reference(values, variance):
    """f(4) and f(1) as they are printed, in bits."""
    distances = cdist(values.astype(float), values.astype(float), "sqeuclidean")
    return [-np.log2(np.exp(-distances / (2 * nu * variance)).mean(axis=1)).mean() for nu in (4, 1)]


def given_labels(values, variance, labels):
    """Σ p(y) f of the samples with label y."""
    parts = [values[labels == label] for label in np.unique(labels)]
    return sum(len(part) / len(values) * np.array(reference(part, variance)) for part in parts)


def clouds(samples, units, spread=0.2):
    """Samples that are near some and far from others, and their labels."""
    rng = np.random.default_rng(samples * units)
    labels = rng.integers(0, 4, samples)
    return (rng.normal(size=(4, units))[labels] + spread * rng.normal(size=(samples, units))), labels


def close(found, expected, tolerance=1e-10):
    np.testing.assert_allclose(found, expected, rtol=0, atol=tolerance)


# ---- what the bounds are


@settings(deadline=None)
@given(values=POINTS, variance=VARIANCES, labels=st.data())
def test_it_is_the_formula(values, variance, labels):
    of = np.array(labels.draw(st.lists(st.sampled_from("abc"), min_size=len(values), max_size=len(values))))
    found = bounds(values, variance, of)
    close(found.i_xt, reference(values, variance))
    close(found.i_xt_given_y, given_labels(values, variance, of))
    close(found.i_ty, np.array(found.i_xt) - found.i_xt_given_y)


@settings(deadline=None)
@given(
    st.lists(st.floats(-3, 3), min_size=1, max_size=9),
    st.floats(0.02, 3),
)
def test_the_true_entropy_lies_between(centres, variance):
    sigma = math.sqrt(variance)
    grid = np.arange(min(centres) - 12 * sigma, max(centres) + 12 * sigma, sigma / 16)
    density = norm.pdf(grid, np.array(centres)[:, None], sigma).mean(axis=0)
    entropy = -(density * np.log2(density)).sum() * sigma / 16  # of smooth peaks, right to many digits
    found = bounds(np.array(centres), variance)
    assert found.h_t.lower - 1e-9 <= entropy <= found.h_t.upper + 1e-9


@pytest.mark.parametrize("variance", [0.05, 1.0, 20.0])
def test_of_gaussian_activations_there_is_a_closed_form(variance):
    values = norm.ppf((np.arange(4000) + 0.5) / 4000) * 1.5
    found, signal = bounds(values, variance), 1.5**2
    expected = [
        (0.5 * math.log(1 + signal / (nu * variance)) + signal / (2 * (nu * variance + signal))) / math.log(2)
        for nu in (4, 1)
    ]
    close(found.i_xt, expected, 2e-3)
    truth = 0.5 * math.log2(2 * math.pi * math.e * (variance + signal))
    assert found.h_t.lower < truth < found.h_t.upper


def test_one_sample_has_the_entropy_of_the_noise():
    found = bounds(np.array([[1.0, -2.0, 5.0]]), 0.3, [7])
    assert found.i_xt == found.i_xt_given_y == found.i_ty == (0, 0)
    assert found.h_t == found.h_t_given_y
    close(found.h_t, [multivariate_normal.entropy(cov=0.3 * np.eye(3)) / math.log(2)] * 2)


@pytest.mark.parametrize("samples", [2, 1000, 1001, 2500])
def test_identical_samples_tell_nothing(samples):
    found = bounds(np.full((samples, 3), 0.1), 1e-6, np.arange(samples) % 2)
    close([*found.i_xt, *found.i_xt_given_y], 0, 1e-12)


@pytest.mark.parametrize("samples", [2, 999, 2100])
def test_samples_far_apart_tell_all_to_the_bit(samples):
    labels = np.arange(samples) % 2
    sizes = np.bincount(labels)
    found = bounds(np.arange(samples) * 1e3, 0.1, labels)
    assert found.i_xt == (math.log2(samples),) * 2
    assert found.i_xt_given_y == (math.fsum(sizes * np.log2(sizes)) / samples,) * 2


@settings(deadline=None)
@given(values=POINTS, variance=VARIANCES)
def test_between_nothing_and_everything_and_less_with_more_noise(values, variance):
    found, noisier = bounds(values, variance), bounds(values, 1.5 * variance)
    assert 0 <= found.i_xt.lower <= found.i_xt.upper + 1e-12 <= math.log2(len(values)) + 2e-12
    assert noisier.i_xt.lower <= found.i_xt.lower + 1e-12
    assert noisier.i_xt.upper <= found.i_xt.upper + 1e-12


# ---- what must not matter


@settings(deadline=None)
@given(values=POINTS, variance=VARIANCES, seed=st.integers(0, 99), factor=st.floats(1e-3, 1e3))
def test_order_place_direction_and_scale_do_not_matter(values, variance, seed, factor):
    expected = bounds(values, variance).i_xt
    order = np.random.default_rng(seed).permutation(len(values))
    turned = values @ ortho_group.rvs(2, random_state=seed)
    for same, noise in (
        (values[order], variance),
        (values + np.array([3.0, -70.0]), variance),
        (turned, variance),
        (factor * values, factor**2 * variance),
        (np.repeat(values, 3, axis=0), variance),
        (np.pad(values, [(0, 0), (1, 3)], constant_values=5.0), variance),
    ):
        close(bounds(same, noise).i_xt, expected)


def test_blocks_do_not_matter():
    values, labels = clouds(700, 3)
    whole, more = bounds(values, 0.05, labels), bounds(np.tile(values, (4, 1)), 0.05, np.tile(labels, 4))
    close([more.i_xt, more.i_xt_given_y], [whole.i_xt, whole.i_xt_given_y])
    wide, _ = clouds(60, 4500)
    close(bounds(wide, 100.0).i_xt, reference(wide, 100.0))


@pytest.mark.parametrize("units", [5, 300])
def test_threads_memory_and_blas_do_not_change_a_bit(units):
    values, labels = clouds(2300, units)
    found = bounds(values, 0.1 * units, labels, threads=1)
    assert bounds(values, 0.1 * units, labels, threads=3, room=0) == found
    for threads in (1, 2):
        with threadpool_limits(threads, user_api="blas"):
            assert bounds(values, 0.1 * units, labels, threads=2) == found


def test_blas_has_one_thread_in_each_of_ours_and_all_of_its_own_afterwards(monkeypatch):
    def threads():
        return {each["num_threads"] for each in threadpool_info() if each["user_api"] == "blas"}

    seen, add = set(), kernels.add_kernels
    blas.library.cache_clear()  # scipy's own BLAS, which threadpoolctl tells of, may have been loaded since
    monkeypatch.setattr(kernels, "add_kernels", lambda *given: seen.update(threads()) or add(*given))
    with threadpool_limits(2, user_api="blas"):
        before = threads()
        bounds(np.eye(4), 0.1)
        assert threads() == before
    assert seen == {1}
    assert before == {2}


def test_a_label_is_only_a_name():
    values, labels = clouds(300, 4)
    found = bounds(values, 0.1, labels)
    for names in (labels.astype(np.uint8), np.array(["d", "a", "c", "b"])[labels], 2.5 - labels, list(labels)):
        close(bounds(values, 0.1, names).i_ty, found.i_ty, 1e-12)
    without = bounds(values, 0.1)
    assert without.i_xt == found.i_xt
    assert (without.i_xt_given_y, without.i_ty, without.h_t_given_y) == (None, None, None)
    close(bounds(values, 0.1, np.ones(300)).i_ty, 0, 1e-12)
    assert bounds(values, 0.1, np.arange(300)).i_ty == found.i_xt


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64, np.longdouble, np.int64, np.uint8, bool])
def test_any_real_dtype_and_layout(dtype):
    values = RNG.integers(0, 2, (40, 2, 3)).astype(dtype)
    values[0, 0, 0] = True
    expected = reference(values.reshape(40, 6).astype(float), 0.2)
    for same in (values, np.asfortranarray(values), values.repeat(2, axis=0)[::2], values.tolist()):
        found = bounds(same, 0.2)
        close(found.i_xt, expected)
        assert (found.samples, found.units) == (40, 6)


def test_small_unsigned_integers_do_not_wrap():
    close(bounds(np.array([[3], [250]], np.uint8), 1e3).i_xt, reference(np.array([[3], [250]]), 1e3))


def test_a_file_is_read_block_by_block(tmp_path):
    values = clouds(8000, 500)[0].astype(np.float32)
    written = np.memmap(tmp_path / "values", np.float32, "w+", shape=values.shape)
    written[:] = values
    written.flush()
    expected = bounds(values[:10], 5.0), bounds(values, 300.0, threads=1)  # whatever is loaded once is loaded
    mapped = np.memmap(tmp_path / "values", np.float32, "r", shape=values.shape)
    assert bounds(mapped[:10], 5.0) == expected[0]
    tracemalloc.start()
    found = bounds(mapped, 300.0, threads=1, room=0)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert found == expected[1]
    assert peak < 24 << 20  # the pairs of all samples would take 512 MB, the samples themselves 32


# ---- how distances are made


def test_float32_is_used_where_it_will_do():
    far = 3 * RNG.normal(size=(2100, 200))
    found = bounds(far, 1.0)
    assert found.arithmetic == "float32"
    assert found.error < TOLERANCE
    close(found.i_xt, reference(far, 1.0), found.error)


def test_float64_is_used_where_float32_will_not_do():
    near, labels = clouds(2100, 200, 0.05)
    found = bounds(near.astype(np.float32), 1.0, labels)
    assert found.arithmetic == "float64"
    close(found.i_xt, reference(near.astype(np.float32), 1.0))


def test_few_samples_speak_for_all():
    points = kde._points(RNG.normal(size=(2100, 200)), 1.0)
    enough = TOLERANCE / 2 * math.log(2) / (4 * kde._slack(points, np.float32))  # a sum whose error is half of it

    def guess(found):
        return kde._float32_pays(points, np.zeros(2100, np.int64), lambda few, *_: np.full((4, len(few.values)), found))

    assert guess(0.3 * enough)  # of every third sample
    assert not guess(0.36 * enough)


def test_float32_that_turns_out_not_to_do_is_made_good():
    misleading = 30 * RNG.normal(size=(2100, 200))
    misleading[1::3] = misleading[1] + 0.1 * misleading[1::3]  # what looks at every third sample sees none of these
    tried = []

    def watched(points, labels, dtype):
        tried.append((len(labels), dtype))
        return pairs.kernel_sums(points, labels, dtype)

    found = bounds(misleading, 1000.0, kernel_sums=watched)
    assert tried == [(700, np.float64), (2100, np.float32), (2100, np.float64)]
    assert found.arithmetic == "float64"
    close(found.i_xt, reference(misleading, 1000.0))


@pytest.mark.parametrize("offset", [1e3, 1e6])
def test_far_from_the_origin(offset):
    values, labels = clouds(500, 8)
    moved = values + offset
    found = bounds(moved, 0.02, labels)
    assert found.arithmetic == "float64"
    close(found.i_xt, reference(moved, 0.02))
    close(found.i_xt, bounds(values, 0.02).i_xt, 1e-7)  # adding the offset rounds


@pytest.mark.parametrize(("offset", "variance"), [(1e8, 1e-6), (1e5, 1e-8), (1e150, 1e-3), (1e200, 1e-300)])
def test_differences_are_used_where_no_product_will_do(offset, variance):
    steps = np.array([0, 1, 2, 5, 5, 9]) * 1.5 * math.sqrt(variance)
    values = np.concatenate([steps, [offset, offset, -offset]])  # two are the same, and one is far away
    found = bounds(values, variance, np.arange(9) % 2)
    assert found.arithmetic == "differences"
    small = np.r_[steps, [1e3 * math.sqrt(variance)] * 2, -1e3 * math.sqrt(variance)]
    close(found.i_xt, bounds(small, variance).i_xt, 1e-9)
    assert found.error < 1e-11


def test_what_an_error_of_the_distances_does_to_the_bounds():
    sums = np.array([[2.0, 2.0], [0.5, 0.0], [2.0, 2.0], [0.5, 0.0]])
    wide, narrow = (math.log2((1 + total * math.exp(off)) / (1 + total)) for total, off in ((2, 0.1), (0.5, 0.4)))
    assert kde._error(sums, 0.1) == pytest.approx(max(wide, narrow / 2))
    assert kde._error(sums[[1, 0]], 0.1) == pytest.approx(math.log2((1 + 2 * math.exp(0.4)) / 3))


@settings(deadline=None, max_examples=60)
@given(
    spread=st.floats(0.01, 3),
    units=st.sampled_from([1, 7, 90]),
    seed=st.integers(0, 99),
    scale=st.sampled_from([1e-18, 1.0, 1e18]),
)
def test_the_error_is_a_bound(spread, units, seed, scale):
    rng = np.random.default_rng(seed)
    values = scale * (
        rng.normal(size=(1, units)) * rng.integers(-9, 9, (40, 1)) + spread * rng.normal(size=(40, units))
    )
    points, labels = kde._points(values, scale**2 * units), np.zeros(40, np.int64)
    exact = np.log1p(pairs.difference_sums(points, labels))[:2].mean(axis=1)
    for dtype in kde.DTYPES:
        sums = pairs.kernel_sums(points, labels, dtype)
        bound = kde._error(sums, kde._slack(points, dtype))
        assert abs(np.log1p(sums)[:2].mean(axis=1) - exact).max() / math.log(2) <= bound


@pytest.mark.parametrize("dtype", kde.DTYPES)
def test_the_compiled_loop(dtype):
    t = np.array([[0.0, 1e-9, 0.5, 1.0], [3.0, 20.0, 100.0, 699.0], [-1.0, 800.0, np.inf, 2.0]])
    halves, labels = np.array([1.0, 2.0, 0.0]), np.array([0, 1, 2])
    others, their_labels = np.array([0.5, 0.0, 1.0, 4.0]), np.array([2, 1, 1, 0])
    products = (halves[:, None] + others - t).astype(dtype)
    left, right = np.ones((4, 3)), np.zeros((4, 4))
    add_kernels(products, halves, others, labels, their_labels, left, right)
    exact = np.exp(-np.clip(halves[:, None] + others - products.astype(float), 0, 700))
    own = labels[:, None] == their_labels
    expected = np.array([exact, exact**4, exact * own, exact**4 * own])
    np.testing.assert_allclose(left, 1 + expected.sum(axis=2), rtol=1e-12)
    np.testing.assert_allclose(right, expected.sum(axis=1), rtol=1e-6)  # of e⁻⁶⁹⁹ no more is asked
    there = device._kernels(torch.from_numpy(halves[:, None] + others - products), torch.from_numpy(own))
    np.testing.assert_allclose(there.numpy(), expected, rtol=1e-12, atol=1e-300)


@pytest.mark.parametrize("dtype", kde.DTYPES)
def test_points_have_the_type_that_was_asked_for(dtype):
    points = pairs.Points(np.array([[3, 5], [1, 5]], np.uint8), np.array([2.0, 5.0]), 1 / 3, np.zeros(2))
    found = points.block(slice(0, 2), slice(0, 1), dtype)
    assert found.dtype == dtype
    np.testing.assert_array_equal(found, np.array([[1], [-1]], dtype) / dtype(3))


def test_tiny_and_huge_numbers():
    values, labels = clouds(50, 3)
    expected = bounds(values, 0.1, labels)
    for power in (-140, -60, 60, 140):
        found = bounds(values * 10.0**power, 0.1 * 10.0 ** (2 * power), labels)
        close([found.i_xt, found.i_ty], [expected.i_xt, expected.i_ty], 1e-9)


# ---- on a device


@pytest.mark.parametrize("name", ["cpu", *["cuda"] * torch.cuda.is_available()])
@pytest.mark.parametrize(("units", "variance"), [(3, 0.05), (200, 0.2), (200, 30.0)])
def test_a_device_gives_the_same(name, units, variance):
    values, labels = clouds(2300, units, 0.5)
    here, there = (bounds(values, variance, labels, kernel_sums=way) for way in (None, Device(name).kernel_sums))
    assert here.arithmetic == there.arithmetic
    for mine, other in ((here.i_xt, there.i_xt), (here.i_ty, there.i_ty)):
        close(mine, other, here.error + there.error)


def test_a_device_does_not_round_float32_further(monkeypatch):
    unwatched, seen = device._kernels, []
    precision = torch.get_float32_matmul_precision
    monkeypatch.setattr(device, "_kernels", lambda *given: seen.append(precision()) or unwatched(*given))
    points, before = kde._points(np.eye(5), 1.0), precision()
    try:
        torch.set_float32_matmul_precision("high")
        Device("cpu").kernel_sums(points, np.zeros(5, np.int64), np.float32)
        assert precision() == "high"
    finally:
        torch.set_float32_matmul_precision(before)
    assert seen == ["highest"]


def test_no_memory_on_the_device_is_told(monkeypatch):
    def full(*_, **__):
        raise torch.OutOfMemoryError("CUDA out of memory.\nmore")

    monkeypatch.setattr(torch, "zeros", full)
    mine = Device.__new__(Device)
    mine._device = torch.device("cpu")
    with pytest.raises(IbstoreError, match="too little free memory"):
        bounds(np.ones((5, 2)), 1.0, kernel_sums=mine.kernel_sums)


# ---- the noise


@settings(deadline=None)
@given(st.lists(st.integers(1, 30), min_size=2, max_size=12))
def test_with_the_labels_own_noise_they_tell_nine_tenths_of_themselves(counts):
    labels, p = np.repeat(np.arange(len(counts)), counts), np.array(counts) / sum(counts)
    found = bounds(np.eye(len(counts))[labels], variance_from_labels(labels), labels)
    close(found.i_xt.lower, 0.9 * -(p * np.log2(p)).sum())
    close(found.i_ty, found.i_xt, 1e-12)  # of one class all are the same


def test_ten_classes():
    assert variance_from_labels(np.arange(1000) % 10) == pytest.approx(0.0705, abs=5e-5)
    assert variance_from_labels(list("abcdefghij")) == variance_from_labels(np.arange(10))
    assert bounds(np.eye(10), 0.0735).i_xt.lower / math.log2(10) == pytest.approx(0.886, abs=5e-4)


def test_a_rare_class():
    labels = np.arange(1_000_000) == 0
    p = 1e-6
    entropy = -p * math.log(p) - (1 - p) * math.log1p(-p)
    steepness = math.exp(-0.25 / variance_from_labels(labels))
    told = -p * math.log(p + (1 - p) * steepness) - (1 - p) * math.log1p(-p * (1 - steepness))
    assert told == pytest.approx(0.9 * entropy, rel=1e-6)


@pytest.mark.parametrize("labels", [[], [3], ["a", "a"]])
def test_one_class_says_nothing_of_noise(labels):
    with pytest.raises(ValuesError, match=r"classes among the labels: [01], .*; give the noise's variance"):
        variance_from_labels(labels)


# ---- what cannot be meant


@pytest.mark.parametrize("variance", [0.0, -1.0, math.nan, math.inf, 1e-310])
def test_a_variance_that_is_none(variance):
    with pytest.raises(UsageError, match=r"the noise's variance is .*; give a number above 0"):
        bounds(np.ones((3, 2)), variance)


@pytest.mark.parametrize("labels", [[1, 2], [[1], [2], [3]], 1])
def test_labels_that_are_not_one_a_sample(labels):
    with pytest.raises(UsageError, match="for 3 samples; give one label a sample"):
        bounds(np.ones((3, 2)), 0.1, labels)


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_what_is_not_finite_is_refused(bad, dtype):
    values = np.zeros((1500, 2), dtype)
    values[1400, 1] = bad
    values[3, 1] = -bad
    with pytest.raises(ValuesError, match=r"NaN, an infinity, .*; leave those samples out"):
        bounds(values, 0.1)


@pytest.mark.parametrize("values", [np.ones((0, 3)), np.ones((3, 0)), 1.0])
def test_no_values(values):
    with pytest.raises(ValuesError, match=r"no sample with a unit; give an array \(sample, unit\)"):
        bounds(values, 0.1)


@pytest.mark.parametrize("values", [np.ones((3, 2), complex), [["a"]], np.array([[None]])])
def test_what_is_no_real_number(values):
    with pytest.raises(ValuesError, match="not real numbers; give floats or integers"):
        bounds(values, 0.1)
