"""`ibstore measure`, `sweep` and `doctor` as a user types them."""

import csv
import io
import json
from pathlib import Path

import pytest

from ibstore.analyze.measures import MEASURES
from ibstore.analyze.measures.findings import FINDINGS
from ibstore.cli.selecting import BINLESS
from tests.conftest import Command

WAIST = ("--waist", "thesis-6.2", "--layer", "out", "--epoch", 1, "--quiet")


@pytest.fixture
def lab(captured: Path, tmp_path: Path) -> list[str]:
    return [str(captured), "--results", str(tmp_path / "results")]


def test_the_help_names_every_measure_with_its_numbers(ibstore: Command) -> None:
    said = " ".join(ibstore("measure", "--help").out.split())
    for name, function in MEASURES.items():
        assert name in said
        for argument in function.__kwdefaults__ or {}:
            assert argument in said
        for argument in function.__code__.co_varnames[: function.__code__.co_argcount]:
            assert argument in said, (name, argument)


@pytest.mark.parametrize("what", [name for name in MEASURES if name not in {"between", *BINLESS}])
def test_every_measure_has_a_table_in_every_format(ibstore: Command, lab: list[str], what: str) -> None:
    asked = ("measure", *lab[:1], what, *lab[1:], *WAIST)
    shown = ibstore(*asked)
    assert (shown.code, shown.err) == (0, "")
    assert "waist thesis-6.2" in shown.out
    rows = json.loads(ibstore(*asked, "--format", "json").out)
    assert rows
    read = list(csv.DictReader(io.StringIO(ibstore(*asked, "--format", "csv").out)))
    assert [list(row) for row in read] == [list(row) for row in rows]


def test_between_needs_two_layers(ibstore: Command, lab: list[str]) -> None:
    asked = ("measure", lab[0], "between", *lab[1:], "--waist", "thesis-6.2", "--quiet", "--format", "json")
    rows = json.loads(ibstore(*asked).out)
    pairs = [(row["layer"], row["other"]) for row in rows if row["epoch"] == 0]
    assert pairs == [("conv1", "conv2"), ("conv1", "out"), ("conv2", "out")]
    assert json.loads(ibstore(*asked, "--layer", "out").out) == []


@pytest.mark.parametrize(
    ("what", "said"),
    [
        ("diagramm", "did you mean 'diagram'?"),
        ("intervals(level=7)", "level"),
        ("intervals(resample=7)", "unexpected keyword argument 'resample'"),
        ("extended(form=mean)", "there are sampled, pooled"),
        ("betas(lowest=0)", "give 0 < lowest"),
        ("bounds(delta=2)", "δ is 2.0"),
        ("correlation(shrinkage=2)", "shrinkage"),
    ],
)
def test_a_bad_measure_is_told(ibstore: Command, lab: list[str], what: str, said: str) -> None:
    done = ibstore("measure", lab[0], what, *lab[1:], *WAIST)
    assert (done.code, done.out) == (2, "")
    assert said in done.err


@pytest.mark.parametrize("what", ["correlation", "ranges", "limit"])
def test_an_estimator_that_would_be_ignored_is_told(ibstore: Command, lab: list[str], what: str) -> None:
    done = ibstore("measure", lab[0], what, *lab[1:], *WAIST, "--estimator", "nsb")
    assert (done.code, done.out) == (2, "")
    assert "this measure takes no estimator, not nsb" in done.err


def test_a_wrong_measure_is_told_before_the_store_is_looked_at(ibstore: Command) -> None:
    assert "did you mean 'null'" in ibstore("measure", "nowhere.zarr", "nul").err


@pytest.mark.parametrize("what", ["intervals", "null", "convergence", "diagram", "between", "extended", "gaps"])
def test_a_density_estimator_of_keys_is_told(ibstore: Command, lab: list[str], what: str) -> None:
    done = ibstore("measure", lab[0], what, *lab[1:], *WAIST, "--estimator", "kde")
    assert (done.code, done.out) == (2, "")
    assert "this measure is made of counts, and kde looks at values" in done.err


def test_a_sweep(ibstore: Command, lab: list[str]) -> None:
    done = ibstore("sweep", *lab, "--bins", "2,4", *WAIST)
    assert done.code == 0
    assert " bins " in done.out
    rows = json.loads(ibstore("sweep", *lab, "--bins", "2:4", *WAIST, "--format", "json").out)
    assert [(row["waist"], row["bins"]) for row in rows] == [("thesis-6.2", 2), ("thesis-6.2", 4)]
    assert rows[0]["h_t"] <= rows[1]["h_t"]
    bad = ibstore("sweep", *lab, "--bins", "many", *WAIST)
    assert (bad.code, bad.out) == (2, "")
    assert "'many' is no numbers of bins" in bad.err


def test_a_doctor_speaks_or_gives_a_table(ibstore: Command, lab: list[str], tmp_path: Path) -> None:
    asked = ("doctor", *lab, "--waist", "thesis-6.1", "--quiet")
    said = ibstore(*asked)
    assert said.code == 0
    assert "conv1: cannot be trusted at every epoch" in said.out
    assert "  saturated, every epoch: H(T) = 7.64 of at most log N = 7.64 bits" in said.out
    rows = json.loads(ibstore(*asked, "--format", "json").out)
    assert {row["verdict"] for row in rows if row["layer"] == "conv1"} == {"no"}
    assert {row["finding"] for row in rows} <= {each.name for each in FINDINGS} | {None}
    ibstore(*asked, "--out", tmp_path / "told.csv")
    assert (tmp_path / "told.csv").read_text().startswith("run,split,epoch,layer,channel,waist,edges,n,verdict,finding")


def test_channels_in_every_command(ibstore: Command, lab: list[str]) -> None:
    conv = ("--waist", "thesis-6.2", "--layer", "conv2", "--epoch", 1, "--channels", "mean", "--quiet", "-f", "json")
    found = json.loads(ibstore("analyze", *lab, *conv, "-e", "plugin", "-e", "kde(variance=0.1)").out)
    assert [row["channel"] for row in found if row["estimator"] == "plugin"] == [*map(str, range(32)), "mean"]
    assert len(json.loads(ibstore("measure", lab[0], "diagram", *lab[1:], *conv).out)) == 32
    bad = ibstore("analyze", *lab, *conv[:-5], "--quiet", "--channels", "sum")
    assert (bad.code, bad.out) == (2, "")
    assert "channels are taken as concat or mean, not 'sum'" in bad.err


def test_a_picture_of_several_estimators(ibstore: Command, lab: list[str], tmp_path: Path) -> None:
    out = tmp_path / "plane.png"
    done = ibstore("plot", lab[0], "plane", *lab[1:], *WAIST, "-e", "plugin", "-e", "kde", "-e", "ksg", "--out", out)
    assert done.code == 0
    assert out.stat().st_size > 10_000
