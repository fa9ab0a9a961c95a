"""`ibstore report`: what it writes where, and the lines that make a store again."""

import json
import re
import shlex
import sys
import tomllib
from html import unescape
from pathlib import Path

import pytest

from ibstore.analyze import parse_waist, report
from ibstore.analyze.waist import presets
from ibstore.cli.redo import asked, captured, versions
from ibstore.store import Manifest, Store
from tests.conftest import Command


def contents(page: Path) -> dict:
    """What a page's charts and tables are made of."""
    found = re.search(r'<script type="application/json" id="contents">(.*?)</script>', page.read_text(), re.DOTALL)
    assert found
    return json.loads(found[1])


def test_it_writes_one_page(ibstore: Command, captured: Path, tmp_path: Path) -> None:
    out = tmp_path / "page.html"
    of = ("--waist", "thesis-6.2", "--layer", "out", "--results", tmp_path / "results")
    done = ibstore("report", captured, "-o", out, *of, "--title", "A <title>")
    assert (done.code, done.out) == (0, "")
    assert re.search(r"page\.html written, 1\.\d MiB: of thesis-6\.2; open it in a browser", done.err)
    text = out.read_text()
    assert "<title>A &lt;title&gt;</title>" in text
    assert "src=" not in re.sub(r"<script.*?</script>", "", text, flags=re.DOTALL)
    told = contents(out)["tables"]
    assert set(told["plane"]["layer"]) == {"out"}
    assert told["plane"]["epoch"] == [0, 1]
    assert told["epochs"]["split"] == ["train", "test"] * 2
    lines = unescape(re.findall(r"<pre[^>]*>(ibstore.*?)</pre>", text, re.DOTALL)[0]).splitlines()
    assert lines[0].startswith(f"ibstore capture mnist-cnn --store {captured} --run mnist-cnn-seed0 --epochs 1 ")
    assert lines[1] == f"ibstore analyze {captured} --waist thesis-6.2 --layer out"
    assert lines[2].startswith(f"ibstore report {captured} --waist thesis-6.2 --layer out --title 'A <title>' --out ")
    assert lines[3] == f"# analyzed with {versions()}"


def test_without_waists_it_shows_those_that_were_asked_for(ibstore: Command, captured: Path, tmp_path: Path) -> None:
    results = ("--results", tmp_path / "results", "--layer", "out", "-q")
    for waist in ("mine: out=argmax | exact", "thesis-6.3-ex1"):
        assert ibstore("analyze", captured, "--waist", waist, *results).code == 0
    assert ibstore("report", captured, *results, "-o", tmp_path / "r.html", "--diagnose", "none").code == 0
    assert set(contents(tmp_path / "r.html")["tables"]["plane"]["waist"]) == {"mine", "thesis-6.3-ex1"}
    assert "Nobody has looked" in (tmp_path / "r.html").read_text()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("-o", "page.pdf"), "page.pdf is no page; end its name in .html"),
        (("-o", "missing/page.html"), "cannot write missing/page.html: there is no folder missing; make it, or name"),
        (("--diagnose", "first"), "diagnosed is 'first'; give one of last, all, none"),
        (("--waist", "nothing"), "there is no waist 'nothing'"),
        (("--unit", "bytes"), "unit 'bytes' is unknown"),
    ],
)
def test_what_cannot_be_meant_is_refused(
    ibstore: Command, captured: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments, message
) -> None:
    monkeypatch.chdir(tmp_path)
    done = ibstore("report", captured, "--results", "results", *arguments)
    assert (done.code, done.out) == (1 if "cannot write" in message else 2, "")
    assert message in done.err
    assert not list(tmp_path.glob("*.html"))


def test_the_package_itself_brings_what_a_page_needs() -> None:
    declared = tomllib.loads((Path(__file__).parents[2] / "pyproject.toml").read_text())["project"]["dependencies"]
    brought = {re.split(r"[<>=]", requirement)[0] for requirement in declared}
    package = Path(report.__file__).parent
    imported = {
        name for path in package.glob("*.py") for name in re.findall(r"^ *import (\w+)", path.read_text(), re.M)
    }
    outside = {name.replace("_", "-") for name in imported - sys.stdlib_module_names}
    assert {"altair", "itables", "jinja2", "vl-convert"} <= outside
    assert {name.replace("vl-convert", "vl-convert-python") for name in outside} <= brought


# ---- lines that make it again


@pytest.mark.parametrize(
    "arguments",
    [
        "szt --epochs 3 --seed 5 --threads 1 --codec lz4",
        "szt-simple --epochs 2 --data-seed 3 --lr 0.05 --optimizer Adam --schedule list:0,2 --probe 99 --dtype float16",
        "mnist-cnn --epochs 1 --limit 100 --layer out --split test --split train --batch-size 50 --chunk-bytes 65536",
        "szt --epochs 2 --set activation=relu --train-fraction 0.1 --fixed-minibatches --probe-batch 500",
        "szt-simple --epochs 4 --stop-information 'identity | threshold(0)' --stop-rule 'beta=2, every=2, tol=0.3'"
        " --stop-estimator miller_madow",
    ],
)
def test_a_run_is_made_again(ibstore: Command, tmp_path: Path, arguments: str) -> None:
    """The line of its manifest makes a run with the same manifest."""
    done = ibstore("capture", *shlex.split(arguments), "--store", tmp_path / "a.zarr", "--run", "one", "-q")
    assert done.code == 0, done.err
    first = Store.open(tmp_path / "a.zarr").run("one")
    line = captured(first.manifest, str(tmp_path / "b.zarr"))
    assert ibstore(*shlex.split(line)[1:], "-q").code == 0, line
    second = Store.open(tmp_path / "b.zarr").run("one")
    assert second.manifest == first.manifest
    assert second.epochs == first.epochs


def test_files_and_recipes_of_ones_own_stand_as_names_to_fill_in() -> None:
    own = Manifest("run", (), (), recipe="mine", settings={"dataset": "mnist", "epochs": 2})
    line = captured(own, "lab.zarr")
    assert line.startswith("ibstore capture FILE.py:mine --store lab.zarr --run run --epochs 2 ")
    assert line.endswith("--dataset mnist --data-dir DIR")
    assert captured(Manifest("run", (), ()), "lab.zarr") is None


def test_the_line_of_a_question_says_what_is_not_usual() -> None:
    waists = [presets()["thesis-6.2"], parse_waist("mine: *=argmax | exact")]
    assert asked("analyze", "lab.zarr", waists, unit="bits", beta=1.0, channels="concat", run=None) == (
        "ibstore analyze lab.zarr --waist thesis-6.2 --waist 'mine: *=argmax | exact'"
    )
    options = {"estimator": ["plugin", "nsb"], "unit": "nats", "beta": 0.5, "channels": "mean", "epoch": [1, 2]}
    assert asked("analyze", "lab.zarr", waists[:1], **options) == (
        "ibstore analyze lab.zarr --waist thesis-6.2 --estimator plugin --estimator nsb --unit nats --beta 0.5 "
        "--channels mean --epoch 1 --epoch 2"
    )
