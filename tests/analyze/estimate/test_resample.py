"""Resampling against leaving out and drawing rows one by one, enumerated permutations, and closed forms."""

import itertools
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from ibstore.analyze.estimate import resample
from ibstore.analyze.estimate.joint import information_between, joint
from ibstore.analyze.estimate.resample import bootstrap, halvings, learning_curve, permutation_null, stream
from ibstore.errors import UnknownNameError, UsageError, ValuesError

TABLES = st.lists(st.tuples(*[st.integers(0, 3)] * 3), min_size=2, max_size=14).map(lambda rows: np.array(rows).T)


def table(samples=300, keys=12, seed=0):
    """Codes of x, t and y that hang together."""
    random = np.random.default_rng(seed)
    x = random.integers(keys * 3, size=samples)
    return x, (x + random.integers(3, size=samples)) // 3, (x + random.integers(9, size=samples)) // keys


def everything(codes, name="plugin", **chosen):
    """All four methods' results."""
    whole = joint(*codes)
    return (
        bootstrap(whole, name, resamples=20, **chosen),
        resample.jackknife(whole, name),
        permutation_null(codes[1], codes[2], name, permutations=20, **chosen),
        learning_curve(whole, name, **chosen),
    )


@pytest.mark.parametrize("estimator", ["plugin", "miller_madow", "chao_wang_jost", "shrink", "bayes(0.5)"])
@given(columns=TABLES)
@settings(deadline=None, max_examples=15)
def test_the_jackknife_is_leaving_out_each_sample(estimator, columns):
    whole, samples = joint(*columns), columns.shape[1]
    without = [joint(*np.delete(columns, place, axis=1)).estimates(estimator) for place in range(samples)]
    for name, found in resample.jackknife(whole, estimator, whole.quantities).items():
        left = np.array([each[name] for each in without])
        value = whole.estimate(name, estimator)
        error = math.sqrt((samples - 1) / samples * ((left - left.mean()) ** 2).sum())
        assert found.value == value
        assert found.corrected == pytest.approx(samples * value - (samples - 1) * left.mean(), abs=1e-9)
        assert found.error == pytest.approx(error, abs=1e-9)
        expected = stats.norm.interval(0.95, found.corrected, found.error) if found.error else [found.corrected] * 2
        assert (found.low, found.high) == pytest.approx(expected, abs=1e-9)


def test_the_jackknife_of_an_entropy_is_the_estimator_of_that_name():
    whole = joint(*table(samples=20_000, keys=3000))
    for name, found in resample.jackknife(whole).items():
        assert found.corrected == pytest.approx(whole.estimate(name, "jackknife"), abs=1e-8)


def test_distinct_samples_have_no_jackknife_error():
    whole = joint(np.arange(5000), np.arange(5000))
    found = resample.jackknife(whole, level=0.5)["h_t"]
    assert (found.error, found.low) == (0, found.high)
    assert found.corrected == pytest.approx(5000 * math.log2(5000) - 4999 * math.log2(4999), abs=1e-8)


@pytest.mark.parametrize("estimator", sorted(resample.UNCORRECTED))
def test_what_a_jackknife_would_make_worse_it_leaves(estimator):
    for found in resample.jackknife(joint(*table()), estimator).values():
        assert found.corrected == found.value
        assert found.low < found.value < found.high
    assert resample.jackknife(joint(*table()), "gt") == resample.jackknife(joint(*table()), "good_turing")


def by_rows(columns, resamples, seed):
    """Quantities of rows that are drawn with replacement."""
    random, samples = np.random.default_rng(seed), columns[0].size
    rows = (random.integers(samples, size=samples) for _ in range(resamples))
    return [joint(*(column[own] for column in columns)).estimates() for own in rows]


def test_the_bootstrap_is_drawing_rows():
    columns, resamples = table(), 800
    whole, reference = joint(*columns), by_rows(columns, resamples, seed=1)
    for name, found in bootstrap(whole, "plugin", whole.quantities, resamples).items():
        own = np.array([each[name] for each in reference])
        assert abs(found.mean - own.mean()) < 4 * math.sqrt(2 / resamples) * own.std()
        assert found.std == pytest.approx(own.std(ddof=1), rel=0.15)
        assert abs(found.percentile_low - np.quantile(own, 0.025)) < 0.4 * own.std()
        assert abs(found.percentile_high - np.quantile(own, 0.975)) < 0.4 * own.std()


def test_variables_are_drawn_together():
    x, t, _ = table()
    found = bootstrap(joint(x, x % 5, t * 0), resamples=30)
    assert found["i_xt"].std > 0
    assert found["i_xt"] == found["h_t"]
    assert (found["i_ty"].mean, found["i_ty"].std, found["i_ty"].high) == (0, 0, 0)


@pytest.mark.parametrize("estimator", ["plugin", "grassberger"])
def test_the_basic_interval_mirrors_how_resamples_err(estimator):
    whole = joint(*table())
    for name, found in bootstrap(whole, estimator, resamples=50, level=0.8).items():
        truth = whole.estimate(name)
        assert found.value == whole.estimate(name, estimator)
        assert found.low == pytest.approx(found.value - (found.percentile_high - truth), abs=1e-12)
        assert found.high == pytest.approx(found.value - (found.percentile_low - truth), abs=1e-12)
        assert found.bias == found.mean - truth
        assert (found.resamples, found.level) == (50, 0.8)


def test_wider_levels_hold_narrower_ones():
    half, most = (bootstrap(joint(*table()), resamples=100, level=level)["h_t"] for level in (0.5, 0.95))
    assert most.low < half.low < half.high < most.high


def test_basic_and_jackknife_intervals_cover_where_percentiles_do_not():
    """Of ten keys and four labels, 200 samples: what 60 data sets have of the true I(T;Y)."""
    random = np.random.default_rng(8)
    p = random.dirichlet(np.full(40, 0.5))
    both = p.reshape(10, 4)
    truth = (stats.entropy(both.sum(0)) + stats.entropy(both.sum(1)) - stats.entropy(p)) / math.log(2)
    covered = []
    for seed in range(60):
        t, y = np.divmod(random.choice(40, size=200, p=p), 4)
        whole = joint(np.zeros(200, int), t, y)
        drawn = bootstrap(whole, quantities=["i_ty"], resamples=100, seed=seed)["i_ty"]
        left = resample.jackknife(whole, quantities=["i_ty"])["i_ty"]
        ends = (drawn.percentile_low, drawn.percentile_high), (drawn.low, drawn.high), (left.low, left.high)
        covered.append([low <= truth <= high for low, high in ends])
    percentile, basic, jackknife = np.mean(covered, axis=0)
    assert percentile < 0.75
    assert basic > 0.85
    assert jackknife > 0.88


def all_permutations(first, second):
    """I(A;B) of every order of B."""
    return np.array([information_between(first, np.array(own)) for own in itertools.permutations(second)])


def test_the_null_is_that_of_all_permutations():
    t, y = np.array([0, 0, 0, 1, 1, 2, 2]), np.array([0, 0, 1, 1, 1, 1, 0])
    every = all_permutations(t, y)
    found = permutation_null(t, y, permutations=4000)
    assert found.value == information_between(t, y)
    assert found.mean == pytest.approx(every.mean(), abs=4 * every.std() / math.sqrt(4000))
    assert found.std == pytest.approx(every.std(), rel=0.05)
    share = (every >= found.value - 1e-12).mean()
    assert found.p_value == pytest.approx(share, abs=4 * math.sqrt(share / 4000))
    assert every.mean() < found.quantile <= every.max() + 1e-12


def test_the_null_of_many_samples_is_chi_squared():
    """2N·ln 2·I is, with (K − 1)(L − 1) degrees of freedom."""
    random = np.random.default_rng(2)
    found = permutation_null(random.integers(6, size=5000), random.integers(4, size=5000), permutations=1000)
    scale = 2 * 5000 * math.log(2)
    assert found.mean * scale == pytest.approx(15, rel=0.05)
    assert found.std * scale == pytest.approx(math.sqrt(30), rel=0.1)
    assert found.quantile * scale == pytest.approx(stats.chi2.ppf(0.95, 15), rel=0.05)


def test_p_values_of_independent_codes_are_uniform():
    random = np.random.default_rng(3)
    pairs = [(random.integers(8, size=100), random.integers(5, size=100)) for _ in range(200)]
    found = [permutation_null(*pair, permutations=99, seed=seed).p_value for seed, pair in enumerate(pairs)]
    assert stats.kstest(found, "uniform").pvalue > 0.01
    assert {round(100 * p, 6).is_integer() for p in found} == {True}


def test_p_values_of_what_hangs_together_and_of_what_tells_nothing():
    t = np.arange(1000) % 5
    assert permutation_null(t, t, permutations=99).p_value == 0.01
    distinct = permutation_null(np.arange(1000), t)
    assert (distinct.p_value, distinct.std) == (1, 0)
    assert distinct.value == distinct.mean == distinct.quantile == pytest.approx(math.log2(5))
    assert math.isnan(permutation_null(np.arange(9), t[:9], "ansb").p_value)


@given(st.integers(1, 10**6))
def test_sizes_are_halves(samples):
    sizes = halvings(samples)
    assert sizes[-1] == samples
    assert all(small == large // 2 for small, large in itertools.pairwise(sizes))
    assert sizes[0] >= min(100, samples // 2, samples)
    assert len(sizes) == 1 or sizes[0] < 200 or len(sizes) == 2


def test_an_estimate_from_more_samples_is_higher_in_the_mean_and_its_limit_nearer_the_truth():
    random = np.random.default_rng(4)
    found = learning_curve(joint(random.integers(10**6, size=4000), random.integers(64, size=4000)))
    assert list(found) == ["h_t", "i_xt"]
    curve = found["h_t"]
    assert curve.sizes == (125, 250, 500, 1000, 2000, 4000)
    assert list(curve.means) == sorted(curve.means)
    assert curve.change == curve.means[-1] - curve.means[-2]
    assert curve.limit == pytest.approx(2 * curve.means[-1] - curve.means[-2])
    assert abs(curve.limit - 6) < 0.2 * abs(curve.means[-1] - 6)
    assert np.isfinite(curve.deviations[:-1]).all()
    assert math.isnan(curve.deviations[-1])
    assert found["i_xt"].change == pytest.approx(curve.change, abs=0.01)


def test_a_curve_ends_at_the_estimate_and_its_limit_is_on_the_line_in_1_over_n():
    whole = joint(*table())
    for name, curve in learning_curve(whole, "miller_madow", whole.quantities, sizes=[300, 100, 50]).items():
        assert curve.sizes == (50, 100, 300)
        assert curve.means[-1] == whole.estimate(name, "miller_madow")
        line = np.polynomial.Polynomial.fit([1 / 100, 1 / 300], curve.means[1:], 1)
        assert curve.limit == pytest.approx(line(0), abs=1e-9)


def test_parts_are_drawn_without_replacement():
    """Of two keys with five samples each, two samples differ with probability 5/9; with replacement it were 1/2."""
    keys = np.repeat([0, 1], 5)
    curve = learning_curve(joint(keys, keys), sizes=[1, 2], repeats=4000)["h_t"]
    assert curve.means[0] == 0
    assert curve.means[1] == pytest.approx(5 / 9, abs=0.03)


def test_parts_are_disjoint_as_far_as_there_is_room():
    parts = list(resample._parts(np.arange(100), 30, 7, stream(0, "test")))
    assert [len(part) for part in parts] == [30] * 7
    for start in (0, 3):
        assert len(set(np.concatenate(parts[start : start + 3]).tolist())) == 90
    assert len({tuple(sorted(part.tolist())) for part in parts}) == 7
    (whole,) = resample._parts(np.arange(100), 100, 7, stream(0, "test"))
    assert sorted(whole.tolist()) == list(range(100))


@given(columns=TABLES, random=st.randoms())
@settings(deadline=None, max_examples=25)
def test_neither_order_nor_names_in_the_same_order_change_a_bit(columns, random):
    order = random.sample(range(columns.shape[1]), columns.shape[1])
    names = np.array([-70, 3, 4, 10**12])
    assert everything(names[columns][:, order]) == everything(columns)


@given(columns=TABLES, random=st.randoms())
@settings(deadline=None, max_examples=25)
def test_no_names_change_the_jackknife(columns, random):
    x, t, y = np.array(random.sample(range(-100, 100), 4))[columns]
    assert resample.jackknife(joint(x, t, y)) == resample.jackknife(joint(*columns))


def test_a_seed_gives_the_same_and_another_one_something_else():
    codes = table()
    drawn, _, null, curve = everything(codes, seed=5)
    again, _, null_again, curve_again = everything(codes, seed=5)
    assert (drawn["h_t"], null, curve["h_t"].means) == (again["h_t"], null_again, curve_again["h_t"].means)
    other, _, other_null, other_curve = everything(codes, seed=6)
    assert drawn["h_t"].mean != other["h_t"].mean
    assert null.mean != other_null.mean
    assert curve["h_t"].means[0] != other_curve["h_t"].means[0]


def test_purposes_share_no_random_numbers():
    drawn = [stream(1, purpose).integers(2**60) for purpose in ("bootstrap", "permutation", "extended", "bootstrap")]
    assert len(set(drawn)) == 3
    assert drawn[0] == drawn[3]


def test_one_sample():
    one = np.array([7])
    drawn, left, null, curve = everything((one, one, one))
    assert (drawn["h_t"].value, drawn["h_t"].low, drawn["h_t"].high) == (0, 0, 0)
    assert left["i_ty"].value == 0
    assert np.isnan([left["i_ty"].corrected, left["i_ty"].error, left["i_ty"].low, left["i_ty"].high]).all()
    assert (null.p_value, null.mean) == (1, 0)
    assert (curve["h_t"].sizes, curve["h_t"].means) == ((1,), (0,))
    assert np.isnan([curve["h_t"].change, curve["h_t"].limit]).all()


def test_an_estimator_without_a_value_has_no_uncertainty():
    distinct = np.arange(6)
    drawn, left, null, curve = everything((distinct, distinct, distinct), "ansb")
    nothing = drawn["h_t"].value, drawn["h_t"].low, left["h_t"].low, null.value, curve["h_t"].change
    assert np.isnan(nothing).all()


WHOLE = joint(np.arange(10), np.arange(10) % 3)


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: bootstrap(WHOLE, resamples=1), UsageError, "1 resamples are too few; give 2 or more"),
        (lambda: bootstrap(WHOLE, level=95), UsageError, "level 95 is not between 0 and 1; give 0.95, say"),
        (lambda: bootstrap(WHOLE, seed=-3), UsageError, "seed -3 is negative"),
        (lambda: bootstrap(WHOLE, quantities=["i_ty"]), UnknownNameError, "no quantity 'i_ty' here"),
        (lambda: bootstrap(WHOLE, "plug"), UnknownNameError, "unknown estimator 'plug'"),
        (lambda: resample.jackknife(WHOLE, level=0), UsageError, "level 0 is not between"),
        (lambda: resample.jackknife(WHOLE, quantities=["h_q"]), UnknownNameError, "no quantity 'h_q'"),
        (
            lambda: permutation_null(np.arange(3), np.arange(3), permutations=0),
            UsageError,
            "0 permutations are too few",
        ),
        (lambda: permutation_null(np.arange(3), np.arange(3), level=1), UsageError, "level 1 is not between"),
        (lambda: permutation_null(np.arange(3), np.arange(2)), ValuesError, "of 3 and of 2 samples cannot be joined"),
        (lambda: permutation_null(np.array([np.nan]), np.arange(1)), ValuesError, "codes are float64"),
        (lambda: learning_curve(WHOLE, repeats=0), UsageError, "0 repeats are too few"),
        (lambda: learning_curve(WHOLE, sizes=[5, 11]), UsageError, r"sizes \[5, 11\] do not lie within the 10 samples"),
        (lambda: learning_curve(WHOLE, sizes=[0]), UsageError, r"sizes \[0\] do not"),
        (lambda: learning_curve(WHOLE, sizes=[]), UsageError, r"sizes \[\] do not"),
    ],
)
def test_what_cannot_be_meant_is_refused(call, error, message):
    with pytest.raises(error, match=message):
        call()
