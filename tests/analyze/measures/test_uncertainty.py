"""Tables of intervals, nulls and learning curves: what the pure functions give, of the right samples, with names."""

import math

import numpy as np
import polars as pl
import pytest

from ibstore.analyze import Study
from ibstore.analyze.estimate.entropy import NATS_PER_BIT
from ibstore.analyze.estimate.joint import joint
from ibstore.analyze.estimate.resample import bootstrap, jackknife, learning_curve, permutation_null
from ibstore.errors import UnknownNameError, UsageError
from tests.analyze.stores import make_store, numbered

from .stores import EPOCHS, RUNS, WAIST, N, X, Y, patterns, write

NAMES = ["run", "split", "epoch", "layer", "channel", "waist", "edges", "estimator"]


def codes(values):
    return np.unique(values, return_inverse=True)[1]


def by_hand(row):
    return joint(codes(X[:, 0]), codes(patterns(row["run"], row["layer"], row["epoch"])), Y)


@pytest.mark.parametrize("estimator", ["plugin", "miller_madow"])
def test_intervals_are_the_bootstrap_s_and_the_jackknife_s(asked, estimator):
    boot = asked.measure("intervals(method=bootstrap, resamples=20, level=0.8, seed=3)", estimator)
    knife = asked.measure("intervals", estimator)
    assert len(boot) == len(knife) == len(RUNS) * 2 * EPOCHS * 3
    assert boot.columns[:8] == NAMES
    for row, other in zip(boot.rows(named=True)[::5], knife.rows(named=True)[::5], strict=True):
        own = by_hand(row)
        found = bootstrap(own, estimator, [row["quantity"]], 20, 0.8, 3)[row["quantity"]]
        told = (found.value, found.bias, found.std, found.low, found.high)
        assert tuple(row[name] for name in ("value", "bias", "error", "low", "high")) == pytest.approx(told, abs=1e-12)
        left = jackknife(own, estimator, [row["quantity"]])[row["quantity"]]
        told = (left.value, left.value - left.corrected, left.error, left.low, left.high)
        assert tuple(other[name] for name in ("value", "bias", "error", "low", "high")) == pytest.approx(
            told, abs=1e-12
        )
        assert row["n"] == N


def test_the_value_is_the_plane_s(asked):
    plane = asked.plane("grassberger")
    found = asked.measure("intervals", "grassberger")
    for name, column in (("h_t", "h_t"), ("i_xt", "i_xt_raw"), ("i_ty", "i_ty_raw")):
        np.testing.assert_allclose(found.filter(quantity=name)["value"], plane[column], atol=1e-12)


def test_the_null_is_the_permutations(asked):
    found = asked.measure("null(permutations=30, level=0.9, seed=1)")
    for row in found.iter_rows(named=True):
        own = permutation_null(codes(patterns(row["run"], row["layer"], row["epoch"])), Y, "plugin", 30, 0.9, 1)
        told = (row["value"], row["null_mean"], row["null_std"], row["null_high"], row["p_value"])
        assert told == pytest.approx((own.value, own.mean, own.std, own.quantile, own.p_value), abs=1e-12)
    informed = found.filter(layer="out", epoch=1)
    assert informed["p_value"].max() < 0.05
    assert (informed["value"] > informed["null_high"]).all()


def test_the_curve_s_last_point_is_all_samples(asked):
    found = asked.measure("convergence(60, 120, 240, repeats=3)", unit="nats")
    assert found["size"].to_list() == [60, 120, 240] * (len(found) // 3)
    whole = found.filter(size=N)
    plane = asked.plane(unit="nats")
    np.testing.assert_allclose(whole.filter(quantity="h_t")["mean"], plane["h_t"], rtol=1e-12)
    assert whole["std"].null_count() == len(whole)
    row = found.row(0, named=True)
    own = learning_curve(by_hand(row), "plugin", ["h_t"], (60, 120, 240), 3)["h_t"]
    assert row["mean"] == pytest.approx(own.means[0] * NATS_PER_BIT, rel=1e-12)
    assert row["change"] == pytest.approx(own.change * NATS_PER_BIT, rel=1e-12)


def test_by_default_the_sizes_are_halves_of_halves(asked):
    assert set(asked.measure("convergence")["size"]) == {120, 240}


def test_what_is_asked_twice_is_the_same_and_another_seed_is_not(asked):
    first, again, other = (
        asked.measure(f"intervals(method=bootstrap, resamples=15, seed={seed})") for seed in (0, 0, 1)
    )
    assert first.equals(again)
    assert not first.equals(other)


def test_nats_are_bits_times_ln_2(asked):
    bits, nats = (asked.measure("null(permutations=10)", unit=unit) for unit in ("bits", "nats"))
    assert nats["unit"].unique().to_list() == ["nats"]
    np.testing.assert_allclose(nats["value"], bits["value"] * math.log(2), rtol=1e-15)
    assert nats["p_value"].equals(bits["p_value"])


def test_where_every_sample_has_a_pattern_of_its_own_there_is_no_interval(tmp_path):
    path = make_store(tmp_path / "lab.zarr", numbered(N, 2), Y, layers={"t": numbered(N, 1)[None]})
    rows = Study(path).ask("e: *=identity | exact").measure("intervals")
    assert rows["saturated"].all()
    assert rows["value"].null_count() == 0
    for name in ("bias", "error", "low", "high"):
        assert rows[name].null_count() == len(rows)


def test_without_labels_nothing_is_told_of_them(tmp_path):
    asked = Study(write(tmp_path / "lab.zarr", ["a"], None)).ask(WAIST)
    assert set(asked.measure("intervals")["quantity"]) == {"h_t", "i_xt"}
    with pytest.raises(UsageError, match="needs labels, and the samples have none"):
        asked.measure("null")


def test_channels_are_variables_of_their_own(study):
    found = study.ask(WAIST, layers="conv", channels="mean").measure("intervals")
    assert set(found["channel"]) == {"0", "1"}
    whole = study.ask(WAIST, layers="conv", channels="mean").plane()
    h_t = found.filter(quantity="h_t").select("run", "epoch", "channel", "value")
    own = whole.filter(pl.col("channel") != "mean").select("run", "epoch", "channel", value="h_t")
    np.testing.assert_allclose(
        h_t.sort(["run", "epoch", "channel"])["value"], own.sort("run", "epoch", "channel")["value"]
    )


@pytest.mark.parametrize(
    ("what", "said"),
    [
        ("interval", "measure 'interval': unknown measure 'interval'; did you mean 'intervals'?"),
        ("intervals(method=mcmc)", "there is no method 'mcmc'; there are jackknife, bootstrap"),
        ("intervals(level=2)", "level"),
        ("intervals(method=bootstrap, resamples=0)", "resamples"),
        ("intervals(reps=5)", "unexpected keyword argument 'reps'"),
        ("null(seed=-1)", "seed -1 is negative"),
        ("convergence(1000000)", "1000000"),
        ("convergence(repeats=0)", "repeats"),
        ("", "it cannot be read"),
        ("intervals(", "it cannot be read"),
    ],
)
def test_bad_measures_are_refused(asked, what, said):
    with pytest.raises(UsageError) as refused:
        asked.measure(what)
    assert said in str(refused.value)


def test_bad_estimators_and_units_are_refused(asked):
    with pytest.raises(UnknownNameError):
        asked.measure("intervals", "nbs")
    with pytest.raises(UsageError, match="unit 'bytes' is unknown"):
        asked.measure("intervals", unit="bytes")
    with pytest.raises(UsageError, match="made of counts, and kde looks at values"):
        asked.measure("intervals", "kde")
