"""Trainings on workers: each run is what one process makes of it, and a dead worker's is gone on with."""

import shlex
from pathlib import Path

import pytest

from ibstore.store import Store
from tests.conftest import Command

pytestmark = [
    pytest.mark.xdist_group("cluster"),
    pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::pytest.PytestUnraisableExceptionWarning"),
]
SWEEP = shlex.split("capture szt-simple --epochs 2 --threads 1 --sweep seed=0:1 --sweep lr=0.1,0.2")


def values(store: Path) -> dict[str, list[list[float]]]:
    """What every run recorded."""
    return {
        run.name: [
            block.ravel().tolist()
            for segment in run.segments
            for split in run.manifest.splits
            for layer in run.manifest.layers
            for block in segment.blocks(split, layer, segment.record.epochs[0])
        ]
        for run in Store.open(store).runs()
    }


def test_a_sweep_is_spread_and_the_same(ibstore: Command, tmp_path: Path) -> None:
    spread = ibstore(*SWEEP, "--store", tmp_path / "spread.zarr", "--scheduler", "local:2")
    assert (spread.code, spread.out) == (0, ""), spread.err
    assert "train 4/4" in spread.err
    assert ibstore(*SWEEP, "--store", tmp_path / "alone.zarr", "-q").code == 0
    assert len(values(tmp_path / "alone.zarr")) == 4
    assert values(tmp_path / "spread.zarr") == values(tmp_path / "alone.zarr")
    again = ibstore(*SWEEP, "--store", tmp_path / "spread.zarr", "--scheduler", "local:1")
    assert again.code == 1
    assert "is in " in again.err
    assert "go on with --resume" in again.err


def test_what_was_begun_is_gone_on_with(ibstore: Command, tmp_path: Path) -> None:
    """As when a worker died between two epochs."""
    run = [*shlex.split("capture szt-simple --threads 1 --run one --store"), str(tmp_path / "lab.zarr")]
    assert ibstore(*run, "--epochs", 3, "-q").code == 0
    done = ibstore(*run, "--epochs", 3, "--resume", "--scheduler", "local:1", "-q")
    assert (done.code, Store.open(tmp_path / "lab.zarr").run("one").epochs) == (0, [0, 1, 2, 3]), done.err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("szt --replicas 2 --store lab.zarr", "--replicas train at once in one process"),
        ("szt --store memory://lab.zarr", "would be gone when the command ends"),
    ],
)
def test_what_cannot_be_spread_is_refused(
    ibstore: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: str, message: str
) -> None:
    monkeypatch.chdir(tmp_path)
    done = ibstore("capture", *shlex.split(arguments), "--scheduler", "local:1")
    assert (done.code, message in done.err) == (2, True)
