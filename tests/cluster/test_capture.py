"""Trainings on workers: each run is what one process makes of it, and a dead worker's is gone on with."""

import os
import shlex
import signal
from pathlib import Path
from unittest.mock import patch

import numpy as np
import pytest
from distributed import Client

from ibstore.store import Store
from tests.capture.networks import contents, recorded
from tests.conftest import Command

pytestmark = [
    pytest.mark.xdist_group("cluster"),
    pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::pytest.PytestUnraisableExceptionWarning"),
]
PLAIN: list[tuple[object, str, object]] = []
"""What a worker's process had before it was made `deadly`."""

ENSEMBLE = shlex.split("capture szt-simple --replicas 5 --same-init -q --store")
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


def test_a_sweep_is_spread_and_the_same(ibstore: Command, client: Client, tmp_path: Path) -> None:
    spread = ibstore(*SWEEP, "--store", tmp_path / "spread.zarr", "--scheduler", client.scheduler.address)
    assert (spread.code, spread.out) == (0, ""), spread.err
    assert "train 4/4" in spread.err
    assert ibstore(*SWEEP, "--store", tmp_path / "alone.zarr", "-q").code == 0
    assert len(values(tmp_path / "alone.zarr")) == 4
    assert values(tmp_path / "spread.zarr") == values(tmp_path / "alone.zarr")
    again = ibstore(*SWEEP, "--store", tmp_path / "spread.zarr", "--scheduler", "local:1")
    assert again.code == 1
    assert "is in " in again.err
    assert "go on with --resume" in again.err


def test_what_was_begun_is_gone_on_with(ibstore: Command, client: Client, tmp_path: Path) -> None:
    """As when a worker died between two epochs."""
    run = [*shlex.split("capture szt-simple --threads 1 --run one --store"), str(tmp_path / "lab.zarr")]
    assert ibstore(*run, "--epochs", 3, "-q").code == 0
    done = ibstore(*run, "--epochs", 3, "--resume", "--scheduler", client.scheduler.address, "-q")
    assert (done.code, Store.open(tmp_path / "lab.zarr").run("one").epochs) == (0, [0, 1, 2, 3]), done.err


def test_an_ensemble_is_spread_in_groups_that_do_not_hang_on_workers(
    ibstore: Command, client: Client, tmp_path: Path
) -> None:
    spread, alone = tmp_path / "spread.zarr", tmp_path / "alone.zarr"
    there = ("--scheduler", client.scheduler.address, "--epochs", 4)
    done = ibstore(*ENSEMBLE[:-2], *there, "--store", spread)
    assert (done.code, "train 3/3" in done.err) == (0, True), done.err  # of 2, 2 and 1: the root of five is two
    assert ibstore(*ENSEMBLE, alone, "--epochs", 4, "--at-once", 2, "--threads", 1).code == 0
    names = Store.open(alone).run_names()
    assert names == Store.open(spread).run_names() == [f"szt-simple-seed{seed}" for seed in range(5)]
    assert Store.open(spread).run(names[0]).manifest.settings["at_once"] == 2
    expected = {name: contents(alone, name) for name in names}
    assert {name: contents(spread, name) for name in names} == expected
    again = ibstore(*ENSEMBLE, spread, *there)
    assert (again.code, "go on with --resume" in again.err) == (1, True)
    other = ibstore(*ENSEMBLE, spread, *there, "--resume", "--at-once", 4)
    assert (other.code, "settings.at_once is 2 in the store and 3 here" in other.err) == (2, True), other.err
    for how in ("--resume", "--force"):
        assert ibstore(*ENSEMBLE, spread, *there, how).code == 0
        assert {name: contents(spread, name) for name in names} == expected


def deadly(store: Path, mark: Path) -> None:
    """Let the first worker that finds an epoch of its own committed kill itself."""
    from ibstore.capture.training.session import Session
    from ibstore.store.format import layout

    def tell(session: Session, step: int, due: list) -> None:
        found = sorted(store.glob(f"runs/{due[0].name}/segments/*/zarr.json"))
        if found and not mark.exists():
            mark.write_text(f"{found[0]}:{found[0].stat().st_mtime_ns}")
            os.kill(os.getpid(), signal.SIGKILL)

    for place, name, value in ((layout, "SEGMENT_BYTES", 1), (Session, "_tell", tell)):
        PLAIN.append((place, name, getattr(place, name)))
        setattr(place, name, value)


def harmless() -> None:
    """Take that back."""
    while PLAIN:
        setattr(*PLAIN.pop())


def test_networks_of_a_worker_that_died_are_gone_on_with(ibstore: Command, client: Client, tmp_path: Path) -> None:
    store, mark = tmp_path / "lab.zarr", tmp_path / "mark"
    client.run(deadly, store, mark)
    try:
        done = ibstore(*ENSEMBLE, store, "--scheduler", client.scheduler.address, "--epochs", 30)
    finally:
        client.run(harmless)
    assert done.code == 0, done.err
    first, written = mark.read_text().rsplit(":", 1)
    assert Path(first).stat().st_mtime_ns == int(written)  # not begun anew
    assert ibstore(*ENSEMBLE, tmp_path / "alone.zarr", "--epochs", 30, "--at-once", 2, "--threads", 1).code == 0
    for name in Store.open(store).run_names():  # one of the group may have been an epoch behind: then they go on apart
        one, other = (recorded(each, "out", 30, name) for each in (store, tmp_path / "alone.zarr"))
        np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-5)


def test_what_was_lost_with_the_scheduler_is_told(ibstore: Command, client: Client, tmp_path: Path) -> None:
    with patch("ibstore.analyze.cluster.handed_out", return_value=iter([])):
        done = ibstore(*ENSEMBLE, tmp_path / "lab.zarr", "--scheduler", client.scheduler.address)
    assert done.code == 1
    assert "the scheduler was lost with 3 of 3 trainings; what is recorded is kept" in done.err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("szt --replicas 0 --store lab.zarr", "replicas is 0; give --replicas 1 or more"),
        ("szt --replicas 2 --at-once 0 --store lab.zarr", "at_once is 0; give --at-once 1 or more"),
        ("szt --store memory://lab.zarr", "would be gone when the command ends"),
    ],
)
def test_what_cannot_be_spread_is_refused(
    ibstore: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: str, message: str
) -> None:
    monkeypatch.chdir(tmp_path)
    done = ibstore("capture", *shlex.split(arguments), "--scheduler", "local:1")
    assert (done.code, message in done.err) == (2, True)
