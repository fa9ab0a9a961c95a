"""Findings: each applies where it should and nowhere else; what is said, and the words around it."""

import numpy as np
import pytest

from ibstore.analyze import Study
from ibstore.analyze.measures.doctor import COLUMNS, words
from ibstore.analyze.measures.findings import FINDINGS, VERDICTS
from tests.analyze.stores import make_store, numbered

SOUND = {
    "n": 5000,
    "h_x": 8.0,
    "h_y": 2.0,
    "h_t": 4.0,
    "i_xt": 3.0,
    "i_ty": 1.5,
    "i_tt": 4.0,
    "ceiling": 12.3,
    "saturated": False,
    "distinct_t": 40,
    "distinct_x": 300,
    "singletons_t": 3,
    "coverage_t": 0.999,
    "p_value": 0.02,
    "null_mean": 0.01,
    "change_h_t": 0.01,
    "change_i_ty": -0.01,
    "corrected_h_t": 4.01,
    "corrected_by": "chao_wang_jost",
    "dpi_xt": 0.0,
    "dpi_ty": None,
    "clipped_most": 0.0,
    "clipped_by": "",
    "saturated_by": "",
    "clipped": 0.01,
    "edges": "run",
    "epochs": 10,
}
AFFLICTED = {
    "self_test": {"i_tt": 4.1},
    "saturated": {"saturated": True, "h_t": 12.2, "i_tt": 12.2, "distinct_t": 4900},
    "constant": {"distinct_t": 1, "h_t": 0.0, "i_tt": 0.0, "corrected_h_t": 0.0},
    "chance": {"p_value": 0.3, "null_mean": 1.49},
    "mostly_chance": {"null_mean": 0.9},
    "others_saturated": {"saturated_by": "kde"},
    "few_samples": {"n": 50},
    "unseen": {"coverage_t": 0.7, "singletons_t": 30},
    "estimators_differ": {"corrected_h_t": 4.9},
    "still_moves": {"change_h_t": 0.4},
    "processing": {"dpi_ty": 0.3},
    "beyond_bounds": {"clipped_most": 0.2, "clipped_by": "I(T;Y) by miller_madow"},
    "out_of_range": {"clipped": 0.2},
    "edges_by_epoch": {"edges": "epoch"},
    "identity": {"distinct_x": 5000},
}


def found(evidence):
    return {each.name for each in FINDINGS if each.check(evidence) is not None}


def test_every_finding_has_a_case():
    assert set(AFFLICTED) == {each.name for each in FINDINGS}
    assert found(SOUND) == set()
    verdicts = [VERDICTS.index(each.verdict) for each in FINDINGS]
    assert verdicts == sorted(verdicts)  # the gravest first


@pytest.mark.parametrize("name", AFFLICTED)
def test_a_finding_is_found_alone_and_says_its_numbers(name):
    evidence = SOUND | AFFLICTED[name]
    assert found(evidence) == {name}
    [each] = [each for each in FINDINGS if each.name == name]
    assert each.check(evidence)
    assert each.advice


def test_without_labels_nothing_is_said_of_them():
    unlabelled = {"i_ty": None, "h_y": None, "p_value": None, "null_mean": None, "change_i_ty": None, "dpi_ty": None}
    assert found(SOUND | unlabelled) == set()


N = 1500
RANDOM = np.random.default_rng(0)


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    y = np.arange(N) % 3
    layers = {
        "noise": RANDOM.normal(size=(2, N, 12)).astype(np.float32),
        "dead": np.zeros((2, N, 2), np.float32),
        "knows": (np.eye(3)[y] + RANDOM.normal(size=(2, N, 3)) * 0.05).astype(np.float32),
        "wide": np.where(RANDOM.random((2, N, 1)) < 0.3, 9.0, RANDOM.random((2, N, 1))).astype(np.float32),
    }
    path = tmp_path_factory.mktemp("doctor") / "lab.zarr"
    return Study(make_store(path, numbered(N, 2) % 50, y, layers=layers))


WAIST = (
    "w: noise=identity | uniform(bins=8, lo=-2, hi=2); knows=identity | threshold(0.5); "
    "*=identity | uniform(bins=4, lo=-1, hi=1)"
)


def test_a_doctor_tells_sound_layers_from_others(study):
    table = study.ask(WAIST).doctor()
    assert tuple(table.columns) == COLUMNS
    by_layer = {
        layer: (own["verdict"].unique().to_list(), set(own["finding"].drop_nulls()))
        for (layer,), own in table.group_by("layer", maintain_order=True)
    }
    assert by_layer["noise"][0] == ["no"]
    assert {"saturated", "chance"} <= by_layer["noise"][1]
    assert by_layer["dead"] == (["no"], {"constant"})
    assert by_layer["knows"][0] == ["caution"]  # it tells more of the label than `dead` before it
    assert by_layer["knows"][1] == {"processing"}
    assert {"out_of_range", "chance"} <= by_layer["wide"][1]


def test_a_sound_layer_has_a_row_without_finding(study):
    table = study.ask(WAIST, layers="knows", epochs=[1]).doctor()
    assert table.select("verdict", "finding", "says", "advice").rows() == [("yes", None, None, None)]
    assert "knows: can be trusted at epoch 1" in words(table)


def test_the_words_name_layer_epochs_numbers_and_what_to_do(study):
    said = words(study.ask(WAIST, layers=["noise", "dead"]).doctor())
    assert said.startswith(
        "run run0 · split train · waist w · 1,500 samples\n\nnoise: cannot be trusted at every epoch\n"
    )
    assert (
        "  saturated, every epoch: H(T) = 10.55 of at most log N = 10.55 bits: 1,500 patterns of 1,500 samples" in said
    )
    assert "    → narrow the layer more" in said
    assert "dead: cannot be trusted at every epoch\n  constant, every epoch: all samples have one pattern" in said


def test_edges_that_are_fitted_anew_are_told_where_there_are_epochs_to_compare(study):
    per_epoch = "w: knows=identity | quantile(bins=2)"
    assert "edges_by_epoch" in study.ask(per_epoch).doctor()["finding"].to_list()
    assert study.ask(per_epoch, epochs=[0]).doctor()["finding"].to_list() == [None]


def test_channels_are_examined_one_by_one(tmp_path):
    conv = RANDOM.normal(size=(1, 200, 2, 2, 2)).astype(np.float32)
    conv[:, :, 1] = 0
    study = Study(make_store(tmp_path / "lab.zarr", numbered(200, 1), np.arange(200) % 2, layers={"conv": conv}))
    table = study.ask("w: *=identity | threshold(0)", channels="mean").doctor()
    assert set(table["channel"]) == {"0", "1"}
    assert "constant" in table.filter(channel="1")["finding"].to_list()
    assert "conv, channel 1: cannot be trusted at epoch 0" in words(table)


def test_further_estimators_are_examined(study):
    found = study.ask(WAIST, layers="noise", epochs=[0]).doctor("kde(variance=0.001)")
    [row] = found.filter(finding="others_saturated").rows(named=True)
    assert "I(X;T) by kde(variance=0.001) is within 5 % of log N" in row["says"]
    assert "others_saturated" not in study.ask(WAIST, layers="noise", epochs=[0]).doctor()["finding"].to_list()


def test_it_says_the_same_again(study):
    assert study.ask(WAIST).doctor().equals(study.ask(WAIST).doctor())


def test_few_samples_and_no_labels_are_no_failure(tmp_path):
    layers = {"t": RANDOM.normal(size=(1, 3, 2)).astype(np.float32)}
    table = (
        Study(make_store(tmp_path / "lab.zarr", numbered(3, 1), layers=layers)).ask("w: *=identity | exact").doctor()
    )
    assert {"few_samples", "saturated", "identity"} <= set(table["finding"])
    single = make_store(tmp_path / "one.zarr", numbered(1, 1), np.zeros(1, int), layers={"t": layers["t"][:, :1]})
    assert set(Study(single).ask("w: *=identity | exact").doctor()["verdict"]) <= {"no", "caution"}
