"""The I-diagram, layer to layer, total correlation: by hand from the arrays."""

import math
from collections import Counter

import numpy as np
import pytest

from ibstore.analyze import Study
from ibstore.analyze.estimate.entropy import CountsOfCounts
from ibstore.errors import IbstoreError
from tests.analyze.stores import make_store, numbered

from .stores import EPOCHS, RUNS, WAIST, N, X, Y, conv, out, patterns, write


def entropy(*columns, estimator="plugin"):
    many = Counter(Counter(zip(*columns, strict=True)).values())
    return CountsOfCounts(np.array(list(many)), np.array(list(many.values()))).entropy(estimator)


@pytest.mark.parametrize("estimator", ["plugin", "miller_madow"])
def test_the_diagram_s_areas_are_sums_of_entropies(asked, estimator):
    found = asked.measure("diagram", estimator)
    assert len(found) == len(RUNS) * 2 * EPOCHS
    x, y = X[:, 0].tolist(), Y.tolist()
    for row in found.iter_rows(named=True):
        t = patterns(row["run"], row["layer"], row["epoch"])
        columns = {"x": [x], "y": [y], "t": [t], "xt": [x, t], "ty": [t, y], "xy": [x, y], "xyt": [x, y, t]}
        h = {name: entropy(*own, estimator=estimator) for name, own in columns.items()}
        assert {name: row[f"h_{name}"] for name in h} == pytest.approx(h, abs=1e-11)
        areas = (
            "h_x_given_ty",
            "h_y_given_xt",
            "h_t_given_xy",
            "i_xt_given_y",
            "i_xy_given_t",
            "i_ty_given_x",
            "i_xyt",
        )
        assert math.fsum(row[name] for name in areas) == pytest.approx(h["xyt"], abs=1e-10)
        assert row["h_t_given_y"] == pytest.approx(h["ty"] - h["y"], abs=1e-11)
        assert row["h_ty_given_x"] == pytest.approx(h["xyt"] - h["x"], abs=1e-11)
        assert row["i_xt"] == pytest.approx(row["i_xyt"] + row["i_xt_given_y"], abs=1e-10)
        assert row["i_ty"] == pytest.approx(row["i_xyt"] + row["i_ty_given_x"], abs=1e-10)
        assert row["h_ty_given_x"] > 0.1  # four samples share an input, and their T differs


def test_where_every_input_is_its_own_nothing_is_left_given_it(tmp_path):
    path = make_store(tmp_path / "lab.zarr", numbered(N, 2), Y, layers={"out": out("a")})
    found = Study(path).ask("w: out=identity | exact").measure("diagram", unit="nats")
    for name in ("h_ty_given_x", "h_y_given_xt", "h_t_given_xy", "i_ty_given_x"):
        assert found[name].to_list() == [0.0, 0.0]
    np.testing.assert_allclose(found["i_xt"], found["h_t"], atol=1e-12)
    np.testing.assert_allclose(found["i_xy"], math.log(4), atol=1e-12)


def test_it_would_be_told_if_something_were_left(tmp_path, monkeypatch):
    path = make_store(tmp_path / "lab.zarr", numbered(N, 2), Y, layers={"out": out("a")})
    broken = {"h_ty_given_x": 0.1}
    monkeypatch.setattr("ibstore.analyze.estimate.joint.Joint.estimates", lambda *_: broken)
    with pytest.raises(IbstoreError, match=r"run 'run0', layer 'out': H\(Y,T\|X\) = 0.1 though every input is its own"):
        Study(path).ask("w: out=identity | exact").measure("diagram")


def test_without_labels_what_hangs_on_them_is_null(tmp_path):
    found = Study(write(tmp_path / "lab.zarr", ["a"], None)).ask(WAIST).measure("diagram")
    assert found["i_xt"].null_count() == 0
    for name in ("h_y", "i_ty", "i_xyt", "h_ty_given_x", "i_xt_given_y"):
        assert found[name].null_count() == len(found)


def test_between_layers(asked):
    found = asked.measure("between", ["plugin", "grassberger"])
    assert len(found) == len(RUNS) * EPOCHS * 2
    for row in found.iter_rows(named=True):
        first, second = (patterns(row["run"], layer, row["epoch"]) for layer in (row["layer"], row["other"]))
        name = row["estimator"]
        h = [entropy(first, estimator=name), entropy(second, estimator=name), entropy(first, second, estimator=name)]
        assert [row["h_t"], row["h_other"], row["h_both"]] == pytest.approx(h, abs=1e-11)
        assert row["information"] == pytest.approx(h[0] + h[1] - h[2], abs=1e-11)
        assert (row["layer"], row["other"]) == ("conv", "out")


def test_between_channels(study):
    found = study.ask(WAIST, channels="mean", runs="a", epochs=[0]).measure("between")
    pairs = found.select("layer", "channel", "other", "other_channel").rows()
    assert pairs == [("conv", "0", "conv", "1"), ("conv", "0", "out", "all"), ("conv", "1", "out", "all")]


def test_layers_of_epochs_that_lie_together(tmp_path):
    layers = {"conv": conv("a"), "out": out("a")}
    together = make_store(tmp_path / "together.zarr", X, Y, layers=layers, together=True)
    apart = make_store(tmp_path / "apart.zarr", X, Y, layers=layers)
    for what in ("between", "diagram", "correlation", "ranges", "convergence"):
        found = [Study(path).ask(WAIST).measure(what) for path in (together, apart)]
        assert found[0].equals(found[1]), what


def test_total_correlation_of_bins_and_of_values(asked):
    found = asked.measure("correlation")
    for row in found.iter_rows(named=True):
        values = (conv if row["layer"] == "conv" else out)(row["run"])[row["epoch"]].reshape(N, -1)
        units = [entropy(values[:, unit].tolist()) for unit in range(values.shape[1])]
        discrete = sum(units) - entropy(patterns(row["run"], row["layer"], row["epoch"]))
        assert row["discrete"] == pytest.approx(discrete, abs=1e-11)
        covariance = np.cov(values.T.astype(np.float64))
        gaussian = 0.5 * np.log2(np.diag(covariance)).sum() - 0.5 * np.linalg.slogdet(covariance)[1] / math.log(2)
        assert row["gaussian"] == pytest.approx(gaussian, abs=1e-9)
        assert row["gaussian_per_unit"] == pytest.approx(gaussian / values.shape[1], abs=1e-9)
        assert (row["n"], row["units"], row["constant"]) == (N, values.shape[1], 0)


def test_units_that_are_copies_or_constant(tmp_path):
    one = np.random.default_rng(0).normal(size=(1, 50, 1)).astype(np.float32)
    values = np.concatenate([one, one, np.ones_like(one)], axis=2)
    asked = Study(make_store(tmp_path / "lab.zarr", numbered(50, 1), layers={"t": values})).ask("w: t=identity | exact")
    [row] = asked.measure("correlation").rows(named=True)
    assert (row["discrete"], row["gaussian"], row["constant"]) == (pytest.approx(math.log2(50)), math.inf, 1)
    [shrunk] = asked.measure("correlation(shrinkage=0.5)").rows(named=True)
    assert 0 < shrunk["gaussian"] < 1
