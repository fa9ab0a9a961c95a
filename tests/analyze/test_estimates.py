"""Estimators in the tables: what they are made of, that nothing is counted again for them, and what stands beside."""

import math
from collections import Counter

import numpy as np
import polars as pl
import pytest

from ibstore.analyze import Study, estimates
from ibstore.analyze.estimate.entropy import CountsOfCounts
from ibstore.analyze.sql import counts
from ibstore.errors import UnknownNameError, UsageError

from .stores import make_store, numbered

N = 60
Y = np.arange(N) % 4
T = {
    "a": np.random.default_rng(0).integers(0, 3, size=(3, N, 2)).astype(np.float32),
    "b": np.random.default_rng(1).integers(0, 6, size=(3, N, 2)).astype(np.float32),
}
WAIST = "w: x=identity | threshold(20); *=identity | exact"
NAMES = ["nsb", "plugin", "mm", "bayes(0.3)"]


@pytest.fixture
def store(tmp_path):
    return make_store(tmp_path / "lab.zarr", numbered(N, 2), Y, layers=T)


def counted(*columns):
    found = Counter(Counter(zip(*(column.tolist() for column in columns), strict=True)).values())
    return CountsOfCounts(np.array(list(found)), np.array(list(found.values())))


def by_hand(layer, epoch):
    """Counts of all variables of `WAIST`, from the arrays."""
    t, x = T[layer][epoch], numbered(N, 2) > 20
    sample = {"x": list(x.T), "y": [Y], "t": list(t.T)}
    sample |= {"xt": [*x.T, *t.T], "ty": [*t.T, Y]}
    return {variable: counted(*columns) for variable, columns in sample.items()}


def test_an_estimator_s_rows_are_what_it_makes_of_the_counts(store):
    table = Study(store).analyze(WAIST, estimators=NAMES)
    assert len(table) == 2 * 3 * 4
    for row in table.iter_rows(named=True):
        own = by_hand(row["layer"], row["epoch"])
        h = {variable: found.entropy(row["estimator"]) for variable, found in own.items()}
        assert {variable: row[f"h_{variable}"] for variable in h} == pytest.approx(h, abs=1e-12)
        raw = {"i_xt": h["x"] + h["t"] - h["xt"], "i_ty": h["t"] + h["y"] - h["ty"]}
        most = {"i_xt": min(h["x"], h["t"]), "i_ty": min(h["t"], h["y"])}
        for name, value in raw.items():
            assert row[f"{name}_raw"] == pytest.approx(value, abs=1e-12)
            assert row[name] == pytest.approx(min(max(value, 0), most[name]), abs=1e-12)
        assert row["ceiling"] == math.log2(N)
        assert row["coverage_t"] == 1 - own["t"].singletons / N
        assert row["saturated"] == (own["t"].entropy() >= 0.95 * math.log2(N))


def test_rows_stand_in_the_order_in_which_estimators_are_asked_for_under_their_own_names(store):
    table = Study(store).analyze(WAIST, estimators=[*NAMES, "miller_madow", "ML"], layers="a", epochs=[0, 2])
    assert table.select("epoch", "estimator").rows() == [
        (epoch, name) for epoch in (0, 2) for name in ("nsb", "plugin", "miller_madow", "bayes(0.3)")
    ]


def test_nothing_is_counted_again_for_another_estimator(store, tmp_path, monkeypatch):
    together = Study(store, tmp_path / "together").analyze(WAIST, estimators=NAMES)
    study = Study(store)
    study.analyze(WAIST)
    monkeypatch.setattr(counts, "KeyCounter", None)
    assert study.explain(WAIST, estimators=NAMES).is_empty()
    seen = []
    assert study.analyze(WAIST, estimators=NAMES, emit=seen.append).equals(together)
    assert [(event.stage, event.done, event.total) for event in seen] == [("estimate", 0, 6), ("estimate", 6, 6)]
    monkeypatch.setattr(estimates, "_read", None)
    assert study.analyze(WAIST, estimators=NAMES).equals(together)


def test_epochs_with_nan_and_missing_labels_are_so_for_every_estimator(tmp_path):
    t = T["a"].copy()
    t[1, 3, 0] = np.nan
    store = make_store(tmp_path / "lab.zarr", numbered(N, 2), layers={"t": t}, epochs=[0, 1, 2])
    study = Study(store)
    waist = "w: *=identity | quantile(bins=3)"
    for estimator in ("plugin", "grassberger"):
        table = study.analyze(waist, epochs=[0, 2], estimators=estimator)
        assert table["i_ty"].null_count() == table["h_y"].null_count() == table["i_ty_raw"].null_count() == 2
        assert table["h_t"].null_count() == 0
    found = study.query("SELECT epoch, estimator, variable FROM entropies WHERE variable = 't' ORDER BY ALL")
    assert found.rows() == [(epoch, name, "t") for epoch in (0, 2) for name in ("grassberger", "plugin")]


def test_the_long_table_has_a_row_for_each_entropy(store):
    study = Study(store)
    wide = study.analyze(WAIST, estimators=NAMES, unit="nats")
    long = study.analyze(WAIST, estimators=NAMES, unit="nats", long=True)
    assert len(long) == 5 * len(wide)
    assert long["unit"].unique().to_list() == ["nats"]
    names = ["run", "split", "epoch", "layer", "waist", "estimator"]
    pivoted = long.pivot("variable", index=names, values="entropy")
    for variable in ("x", "y", "t", "xt", "ty"):
        assert pivoted[variable].to_list() == wide[f"h_{variable}"].to_list()
    for row in long.iter_rows(named=True):
        own = by_hand(row["layer"], row["epoch"])[row["variable"]]
        assert (row["distinct"], row["singletons"]) == (own.distinct, own.singletons)
        assert row["coverage"] == 1 - min(own.singletons, N - 1) / N
        assert row["ceiling"] == pytest.approx(math.log(N))
        assert row["saturated"] == (own.entropy() >= 0.95 * math.log2(N))


def test_queries_see_every_estimator_that_was_asked_for(store):
    study = Study(store)
    plain = study.analyze(WAIST)
    sql = "SELECT DISTINCT estimator FROM {} ORDER BY ALL"
    assert study.query(sql.format("entropies")).rows() == [("plugin",)]
    study.analyze(WAIST, estimators=["cs", "bayes(0.3)"])
    for table in ("entropies", "information_plane"):
        assert study.query(sql.format(table)).rows() == [("bayes(0.3)",), ("chao_shen",), ("plugin",)]
    sql = "SELECT * FROM information_plane WHERE estimator = 'plugin'"
    assert study.query(sql).equals(plain)
    assert study.kept().filter(table="information_plane")["estimator"].value_counts().sort("estimator").rows() == [
        *(("bayes(0.3)", 6), ("chao_shen", 6), ("plugin", 6))
    ]


def test_what_exceeds_the_layer_before_is_told(store):
    table = Study(store).analyze(WAIST)
    for epoch in range(3):
        first, second = table.filter(pl.col("epoch") == epoch).iter_rows(named=True)
        for name in ("xt", "ty"):
            assert first[f"dpi_{name}"] == 0
            assert second[f"dpi_{name}"] == max(0.0, second[f"i_{name}"] - first[f"i_{name}"])
    assert table["dpi_xt"].max() > 0  # b is no function of a here


def test_one_that_has_no_estimate_leaves_nan(tmp_path):
    t = np.arange(2 * N, dtype=np.float32).reshape(1, N, 2)
    store = make_store(tmp_path / "lab.zarr", numbered(N, 2), Y, layers={"t": t})
    [row] = Study(store).analyze(WAIST, estimators="ansb").iter_rows(named=True)  # no two patterns coincide
    assert math.isnan(row["h_t"])
    assert math.isnan(row["i_ty"])
    assert row["saturated"]


@pytest.mark.parametrize(("asked", "error"), [("plugn", UnknownNameError), ([], UsageError), ("bayes", UsageError)])
def test_what_is_no_estimator_is_refused_before_anything_is_read(store, asked, error, monkeypatch):
    study = Study(store)
    with pytest.raises(error, match="estimator"):
        study.analyze(WAIST, estimators=asked)
    with pytest.raises(error, match="estimator"):
        study.explain(WAIST, estimators=asked)
    assert study.kept().is_empty()
