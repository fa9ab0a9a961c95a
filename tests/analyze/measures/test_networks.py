"""Several networks: spread over runs, and one plane of all of them, by hand from the arrays."""

import statistics
from collections import Counter

import numpy as np
import pytest
from scipy import stats

from ibstore.analyze import Study
from ibstore.analyze.estimate.extended import sampled
from ibstore.errors import UsageError
from tests.analyze.stores import make_store

from .stores import RUNS, WAIST, N, X, Y, out, patterns, write


def entropy(*columns):
    counts = np.array(list(Counter(zip(*columns, strict=True)).values()))
    return float(-(counts / counts.sum() * np.log2(counts / counts.sum())).sum())


@pytest.mark.parametrize("estimator", ["plugin", "kde(variance=0.5)"])
def test_the_spread_is_that_of_the_runs(asked, estimator):
    plane = asked.plane(estimator, unit="nats")
    found = asked.measure("runs(level=0.9)", estimator, unit="nats")
    assert len(found) == 2 * 2 * 4
    for row in found.iter_rows(named=True):
        values = plane.filter(layer=row["layer"], epoch=row["epoch"])[row["quantity"]].to_list()
        assert row["runs"] == len(values) == len(RUNS)
        assert row["mean"] == pytest.approx(np.mean(values))
        assert row["std"] == pytest.approx(statistics.stdev(values))
        low, high = stats.t.interval(0.9, len(values) - 1, np.mean(values), stats.sem(values))
        assert (row["low"], row["high"]) == pytest.approx((low, high))
        assert (row["minimum"], row["maximum"]) == (min(values), max(values))


def test_of_one_run_there_is_no_interval(study):
    found = study.ask(WAIST, runs="a").measure("runs")
    assert found["runs"].unique().to_list() == [1]
    for name in ("std", "error", "low", "high"):
        assert found[name].null_count() == len(found)


def test_pooled_networks_have_all_rows(asked):
    found = asked.measure("extended(form=pooled)")
    assert len(found) == 4
    for row in found.iter_rows(named=True):
        t = [key for run in RUNS for key in patterns(run, row["layer"], row["epoch"])]
        x, y = X[:, 0].tolist() * len(RUNS), Y.tolist() * len(RUNS)
        expected = {
            "h_x": entropy(x),
            "h_y": entropy(y),
            "h_t": entropy(t),
            "h_xt": entropy(x, t),
            "h_ty": entropy(t, y),
        }
        assert {name: row[name] for name in expected} == pytest.approx(expected, abs=1e-12)
        assert row["i_xt"] == pytest.approx(expected["h_x"] + expected["h_t"] - expected["h_xt"], abs=1e-12)
        assert (row["runs"], row["n"]) == (3, 3 * N)


def test_sampled_networks_have_a_row_a_sample(asked):
    found = asked.measure("extended(form=sampled, seed=4)")
    for row in found.iter_rows(named=True):
        every = np.unique([patterns(run, row["layer"], row["epoch"]) for run in RUNS], return_inverse=True)[1]
        t = sampled(every.reshape(len(RUNS), N), 4).tolist()
        assert row["n"] == N
        assert row["h_t"] == pytest.approx(entropy(t), abs=1e-12)
        assert row["i_ty_raw"] == pytest.approx(entropy(t) + entropy(Y.tolist()) - entropy(t, Y.tolist()), abs=1e-12)


def test_equal_networks_are_one(tmp_path):
    for run in ("one", "two"):
        make_store(tmp_path / "lab.zarr", X, Y, layers={"out": out("a")}, run=run)
    study = Study(tmp_path / "lab.zarr")
    plane = study.ask(WAIST, runs="one").plane()
    for form in ("pooled", "sampled"):
        found = study.ask(WAIST).measure(f"extended(form={form})")
        for name in ("h_x", "h_t", "h_xt", "h_ty", "i_xt", "i_ty"):
            np.testing.assert_allclose(found[name], plane[name], atol=1e-12)


def test_a_later_epoch_of_some_runs_has_those(tmp_path):
    write(tmp_path / "lab.zarr", ["a", "b"])
    make_store(
        tmp_path / "lab.zarr", X, Y, layers={"conv": np.zeros((1, N, 2, 1, 2), "f4"), "out": out("a")[:1]}, run="c"
    )
    found = Study(tmp_path / "lab.zarr").ask(WAIST, layers="out").measure("extended")
    assert found.select("epoch", "runs").rows() == [(0, 3), (1, 2)]


@pytest.mark.parametrize("per", ["epoch", "run"])
def test_keys_of_bins_that_are_fitted_to_each_network_are_not_mixed(study, per):
    waist = f"q: out=identity | quantile(bins=3, per={per})"
    with pytest.raises(UsageError, match="waist 'q' fits bins of layer 'out' to each network"):
        study.ask(waist, layers="out").measure("extended")
    assert len(study.ask(waist, layers="out", runs="a").measure("extended")) == 2


def test_networks_of_other_samples_are_no_ensemble(tmp_path):
    write(tmp_path / "lab.zarr", ["a"])
    make_store(tmp_path / "lab.zarr", X + 1, Y, layers={"out": out("b")}, run="b")
    asked = Study(tmp_path / "lab.zarr").ask("w: out=identity | exact")
    with pytest.raises(UsageError, match="runs a, b were recorded on other samples each"):
        asked.measure("extended")
    with pytest.raises(UsageError, match="there is no form 'mixed'; there are sampled, pooled"):
        asked.measure("extended(form=mixed)")
