"""What a report says, before it has a form."""

import json
from unittest.mock import patch

import numpy as np
import polars as pl
import pytest

import ibstore
from ibstore.analyze.report import contents, page
from ibstore.analyze.report.charts import STATE, charts
from ibstore.analyze.report.page import _json, _plain
from ibstore.errors import UsageError
from tests.analyze.stores import make_store

WAIST = "bins: *=identity | uniform(bins=3, lo=0, hi=1)"


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    """Two runs of which one ends earlier."""
    path = tmp_path_factory.mktemp("report") / "lab.zarr"
    random = np.random.default_rng(0)
    x, y = np.arange(120.0)[:, None], np.arange(120) % 4
    for run, epochs in (("long", 3), ("short", 2)):
        scores = {epoch: {"train": {"loss": 1 / (epoch + 1)}, "test": {"loss": 2.0}} for epoch in range(epochs)}
        layers = {"one": random.random((epochs, 120, 3)), "two": random.random((epochs, 120, 2))}
        make_store(path, x, y, layers=layers, run=run, metrics=scores)
    return path


def said(store, **about):
    return contents(ibstore.open(store).ask(WAIST, **about.pop("asked", {})), "title", **about)


def test_the_plane_has_the_mean_of_runs_and_then_each(store):
    plane = said(store).tables["plane"]
    assert plane["run"].unique(maintain_order=True).to_list() == ["mean of the runs", "long", "short"]
    at = plane.filter(layer="one", epoch=1)
    mean, first, second = at["i_ty"]
    assert mean == pytest.approx((first + second) / 2)
    assert at["i_ty_high"][0] - mean == pytest.approx(np.std([first, second], ddof=1))
    analysis = ibstore.open(store).analyze(WAIST)
    assert plane.filter(pl.col("run") != "mean of the runs")["h_t"].to_list() == analysis["h_t"].to_list()


def test_one_run_has_no_mean(store):
    assert said(store, asked={"runs": "long"}).choices("run") == ["long"]


def test_runs_stand_beside_the_scores_of_their_last_epoch(store):
    runs = said(store).tables["runs"]
    assert runs.select("run", "epochs", "train loss", "test loss").rows() == [
        ("long", 3, 1 / 3, 2.0),
        ("short", 2, 0.5, 2.0),
    ]


def test_the_doctor_looks_at_each_runs_last_epoch(store):
    last = said(store).diagnoses
    assert [diagnosis.title for diagnosis in last] == ["long · train · bins", "short · train · bins"]
    assert [own.verdicts[0][1] for own in (each.layers[0] for each in last)] == ["epoch 2", "epoch 1"]
    assert {remark.at for remark in said(store, diagnosed="all").diagnoses[0].layers[0].remarks} == {"every epoch"}
    assert said(store, diagnosed="none").diagnoses == []


def test_more_than_a_page_holds_is_left_out_run_by_run_and_told(store):
    with patch("ibstore.analyze.report.contents.MOST_ROWS", 12):
        found = said(store)
    assert found.choices("run") == ["mean of the runs", "long"]
    assert found.notes["plane"] == "2 of 3 runs are here; `ibstore query` has all of them"
    with (
        patch("ibstore.analyze.report.contents.MOST_ROWS", 5),
        pytest.raises(UsageError, match="a page holds 5; choose some"),
    ):
        said(store)


def test_charts_have_the_pages_state(store):
    drawn = charts(said(store))
    assert {section: len(own) for section, own in drawn.items()} == {
        "plane": 1,
        "curves": 4,
        "training": 1,
        "dynamics": 0,
    }
    for chart in (chart for own in drawn.values() for chart in own):
        assert {*STATE, "mean"} <= {param["name"] for param in chart["params"]}


def test_without_labels_there_is_no_plane(tmp_path):
    path = make_store(tmp_path / "lab.zarr", np.arange(9.0)[:, None], layers={"one": np.ones((1, 9, 2))})
    found = contents(ibstore.open(path).ask(WAIST), "no labels")
    assert charts(found)["plane"] == []
    assert len(charts(found)["curves"]) == 2
    assert "The samples have no labels" in page(found)


def test_epochs_that_were_recorded_logarithmically_are_drawn_so(tmp_path):
    layers = {"one": np.ones((6, 9, 2))}
    path = make_store(tmp_path / "lab.zarr", np.arange(9.0)[:, None], layers=layers, epochs=[0, 1, 2, 5, 10, 1000])
    curve = charts(contents(ibstore.open(path).ask(WAIST), "log"))["curves"][0]
    assert curve["layer"][1]["encoding"]["x"]["scale"]["type"] == "symlog"


def test_json_ends_no_script_and_has_no_number_that_json_has_not():
    assert "<" not in _json({"a": "</script><!--"})
    assert json.loads(_json({"a": "</script>&"})) == {"a": "</script>&"}
    assert [_plain(value) for value in (float("nan"), float("inf"), 1 / 3, 7, None)] == [None, None, 0.3333333, 7, None]
