"""A running capture, looked at from outside."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

import ibstore as package
from ibstore.analyze import Study
from ibstore.capture.provenance import Provenance
from ibstore.cli.watch import Watcher, _drawn, _json, _line, _showing
from tests.conftest import Command

WAIST = "a: *=identity | quantile(bins=2)"


class Clock:
    """Tells the seconds that a test says."""

    seconds = 0.0

    def __call__(self) -> float:
        return self.seconds


def recorder(store: Path, run: str = "run0", *, resume: bool = False, **settings: object) -> package.Recorder:
    torch.manual_seed(0)
    x = torch.randn(40, 3)
    told = Provenance(settings={"epochs": 10, **settings})
    labels = torch.arange(40) % 2
    return package.Recorder(
        store, nn.Sequential(nn.Linear(3, 2)), x=x, y=labels, run=run, provenance=told, resume=resume
    )


def test_rate_and_time_left_are_those_since_the_first_look(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store, clock = tmp_path / "lab.zarr", Clock()
    with recorder(store) as writing:
        writing.record(0, loss=2.0)
    watcher = Watcher(Study(store), None, None, clock)
    first = watcher.now().row(0, named=True)
    assert (first["writing"], first["epoch"], first["epochs"], first["loss"]) == (False, 0, 10, 2.0)
    assert (first["per_minute"], first["left"], first["accuracy"]) == (None, None, None)
    with recorder(store, resume=True) as writing:
        for epoch in (1, 2, 3, 4):
            writing.record(epoch, loss=1.0)
    clock.seconds = 120.0
    monkeypatch.setattr(package.Store, "writers", lambda _: {"run0": None})
    row = watcher.now().row(0, named=True)
    assert (row["writing"], row["epoch"], row["per_minute"], row["left"]) == (True, 4, 2.0, pytest.approx(180.0))


def test_of_points_in_steps_nobody_knows_the_end(tmp_path: Path) -> None:
    with recorder(tmp_path / "lab.zarr", schedule="log:20@steps") as writing:
        writing.record(0)
    row = Watcher(Study(tmp_path / "lab.zarr"), None, None).now().row(0, named=True)
    assert (row["epochs"], row["left"]) == (None, None)


def test_the_plane_so_far_is_that_of_the_last_epoch(tmp_path: Path) -> None:
    store = tmp_path / "lab.zarr"
    for run in ("one", "two"):
        with recorder(store, run) as writing:
            for epoch in (0, 1):
                writing.record(epoch)
    study = Study(store)
    table = Watcher(study, ["two"], WAIST).now()
    expected = study.analyze(WAIST, runs=["two"], epochs=[1])
    assert table["run"].unique().to_list() == ["two"]
    np.testing.assert_array_equal(table["i_ty"], expected["i_ty"])
    runs, layers = _drawn(table).renderables
    assert [column.header for column in layers.columns] == ["run", "epoch", "split", "layer", "I(X;T)", "I(T;Y)"]
    assert (runs.row_count, layers.row_count) == (1, len(table))


def test_a_look_is_a_line_a_run(ibstore: Command, captured: Path) -> None:
    done = ibstore("watch", captured, "--once")
    assert (done.code, done.err) == (0, "")
    (line,) = done.out.splitlines()
    assert line.startswith("run mnist-cnn-seed0  epoch 1  epochs 1  loss ")


def test_for_scripts_a_line_is_json(ibstore: Command, captured: Path) -> None:
    done = ibstore("watch", captured, "--json", "--waist", WAIST)
    rows = [json.loads(line) for line in done.out.splitlines()]
    assert [row["layer"] for row in rows] == ["conv1", "conv2", "out"]
    assert rows[0]["writing"] is False
    assert rows[0]["left"] is None
    assert json.loads(_json({"loss": float("nan"), "epoch": 3})) == {"loss": None, "epoch": 3}


def test_what_nobody_writes_is_told_once_and_left(ibstore: Command, captured: Path) -> None:
    done = ibstore("watch", captured, "--run", "mnist-cnn-seed0")
    assert (done.code, len(done.out.splitlines())) == (0, 1)


def test_a_store_without_epochs_is_said_to_be_so(ibstore: Command, tmp_path: Path) -> None:
    with recorder(tmp_path / "lab.zarr", "one"):
        done = ibstore("watch", tmp_path / "lab.zarr", "--once")
    assert (done.code, done.out) == (0, "")
    assert "has no committed epoch yet" in done.err


@pytest.mark.parametrize(("arguments", "message"), [(("--run", "nothing"), "nothing"), (("--waist", "none"), "none")])
def test_what_is_not_there_is_a_sentence(
    ibstore: Command, captured: Path, arguments: tuple[str, ...], message: str
) -> None:
    done = ibstore("watch", captured, "--once", *arguments)
    assert done.code == 2
    assert message in done.err


def test_on_a_terminal_one_picture_is_renewed(
    captured: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    with _showing(_line, live=True) as show:
        show(Watcher(Study(captured), None, None).now())
    assert "mnist-cnn-seed0" in capsys.readouterr().out


def test_stores_runs_and_studies_are_tables_in_notebooks(captured: Path, tmp_path: Path) -> None:
    opened = package.Store.open(captured)
    run = opened.run("mnist-cnn-seed0")
    assert "<td>mnist-cnn-seed0</td><td>0–1</td><td>conv1, conv2, out</td><td>train (200)</td>" in opened._repr_html_()
    assert "<td>conv1</td><td>16 × 14 × 14</td><td>float32</td>" in run._repr_html_()
    assert Study(captured)._repr_html_() == opened._repr_html_()
    network = nn.Sequential()
    network.add_module("<script>", nn.Linear(2, 2))
    with package.Recorder(tmp_path / "a.zarr", network, x=torch.zeros(4, 2), layers=["<script>"]) as writing:
        writing.record(0)
    for shown in (package.Store.open(tmp_path / "a.zarr"), package.Store.open(tmp_path / "a.zarr").run("run0")):
        assert "&lt;script&gt;" in shown._repr_html_()
        assert "<script>" not in shown._repr_html_()
