"""An analysis spread over real processes: the same table, and nothing done twice."""

import os
import signal
from pathlib import Path
from unittest.mock import patch

import numpy as np
import pytest
from distributed import Client

from ibstore import Study
from ibstore.analyze.cluster import Cluster, connected
from ibstore.analyze.cluster.unit import Unit
from ibstore.analyze.parts import VERSION
from ibstore.errors import IbstoreError, UsageError, ValuesError
from tests.analyze.stores import make_store
from tests.cluster.conftest import WAISTS
from tests.conftest import Command

pytestmark = [
    pytest.mark.xdist_group("cluster"),  # one cluster
    pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::pytest.PytestUnraisableExceptionWarning"),
]
"""Dask leaves sockets to the garbage collector when a scheduler could not be reached, or a worker was killed."""


def processing(client: Client) -> dict[str, int]:
    """How often each unit was given to a worker."""
    stories = client.run_on_scheduler(
        lambda dask_scheduler: [
            (key, end) for key, _, end, *_ in dask_scheduler.transition_log if str(key).startswith("ibstore-")
        ]
    )
    begun = [key for key, end in stories if end == "processing"]
    return {key: begun.count(key) for key in begun}


@pytest.mark.parametrize(
    "about",
    [
        {},
        {"estimators": ["plugin", "miller_madow", "kde(variance=0.1)"]},
        {"channels": "mean", "layers": ["thin"], "epochs": [1]},
        {"keep_keys": "always", "runs": ["two"]},
    ],
)
def test_the_table_is_that_of_one_process(client: Client, store: Path, tmp_path: Path, about: dict) -> None:
    spread = Study(store, tmp_path / "spread").analyze(WAISTS, client=client, **about)
    alone = Study(store, tmp_path / "alone").analyze(WAISTS, **about)
    assert spread.equals(alone)


def test_what_is_kept_is_given_to_nobody(client: Client, store: Path, tmp_path: Path) -> None:
    study, events = Study(store, tmp_path / "results"), []
    study.analyze(WAISTS, client=client, emit=events.append)
    assert [event.total for event in events if event.stage == "analyze"][-1] == 16
    before = processing(client)
    again: list = []
    table = study.analyze(WAISTS, client=client, emit=again.append)
    assert len(table) == 36
    assert again == []
    assert processing(client) == before


def test_units_lack_what_they_lack(client: Client, store: Path, tmp_path: Path) -> None:
    """Another waist is a unit for each layer and segment, whatever else was asked before."""
    study = Study(store, tmp_path / "results")
    study.analyze(WAISTS[0], client=client, runs="one", layers="thin", epochs=[0])
    selection = study.ask(WAISTS[0], client=client)
    work = Cluster(client)._work(selection, ["plugin"])
    assert len(work) == len({each.unit.key for each in work}) == 11


def test_a_workers_error_is_told_in_its_words(client: Client, tmp_path: Path) -> None:
    values = np.full((1, 9, 2), np.nan)
    store = make_store(tmp_path / "lab.zarr", np.arange(9.0)[:, None], np.arange(9) % 2, layers={"one": values})
    with pytest.raises(ValuesError, match="run 'run0', layer 'one', epoch 0 has NaN"):
        Study(store).analyze(WAISTS[0], client=client)


def test_other_versions_are_refused(client: Client, store: Path, tmp_path: Path) -> None:
    other = patch("ibstore.analyze.cluster.spread.Unit", lambda **given: Unit(**given, version=VERSION + 1))
    with other, pytest.raises(IbstoreError, match=f"numbers of version {VERSION}, and {VERSION + 1} are asked for"):
        Study(store, tmp_path / "results").analyze(WAISTS[0], client=client)


def test_zarr_does_one_thing_at_a_time_in_workers(client: Client, store: Path, tmp_path: Path) -> None:
    Study(store, tmp_path / "results").analyze(WAISTS[0], client=client, layers="thin")
    told = client.run(
        lambda: [__import__("zarr").config.get(name) for name in ("async.concurrency", "threading.max_workers")]
    )
    assert [1, 1] in told.values()


def test_a_killed_worker_costs_the_work_in_flight(client: Client, store: Path, tmp_path: Path) -> None:
    """Every worker is killed once, as it works; the nannies start others."""
    study, killed = Study(store, tmp_path / "results"), set()

    def kill(event: object) -> None:
        pids = client.run(os.getpid, on_error="ignore")
        for pid in set(pids.values()) - killed if len(killed) < 2 else ():
            os.kill(pid, signal.SIGKILL)
            killed.add(pid)
            return

    table = study.analyze(WAISTS, client=client, emit=kill)
    assert killed
    assert table.equals(Study(store, tmp_path / "alone").analyze(WAISTS))


def test_results_that_nobody_else_sees_are_missed(client: Client, store: Path, tmp_path: Path) -> None:
    """As where a folder is not shared: each machine has its own of that name."""
    elsewhere = patch(
        "ibstore.analyze.cluster.spread.shared_place", lambda place: place.replace("results", "elsewhere")
    )
    with (
        elsewhere,
        pytest.raises(IbstoreError, match=r"have done their work, and nothing of it is in .*results: name a"),
    ):
        Study(store, tmp_path / "results").analyze(WAISTS[0], client=client)


def test_places_that_no_worker_finds_are_refused(client: Client, tmp_path: Path) -> None:
    make_store(tmp_path / "lab.zarr", np.arange(9.0)[:, None], np.arange(9) % 2, layers={"one": np.ones((1, 9, 2))})
    with pytest.raises(UsageError, match="memory://results is in the memory of one process, where no worker finds it"):
        Study(tmp_path / "lab.zarr", "memory://results").analyze(WAISTS[0], client=client)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("local:0", "'local:0' is no scheduler; give its address"),
        ("host:8786", "'host:8786' is no scheduler"),
        ("nothing.json", "there is no scheduler file nothing.json"),
        ("tcp://127.0.0.1:1", "no scheduler answers at tcp://127.0.0.1:1"),
        ("tcp://127.0.0.1", "no scheduler answers at tcp://127.0.0.1 (missing port"),
        ("tls://127.0.0.1:1", "no scheduler answers at tls://127.0.0.1:1 (TLS expects"),
    ],
)
def test_what_is_no_scheduler_is_refused(
    ibstore: Command, store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str, message: str
) -> None:
    monkeypatch.setattr("ibstore.analyze.cluster.connection.SECONDS", 0.5)
    done = ibstore("analyze", store, "--scheduler", text, "--results", tmp_path / "results")
    assert (done.code, done.out) == (1 if "answers" in message else 2, "")
    assert message in done.err


@pytest.mark.parametrize("content", ["", "{}", "[1]"])
def test_a_file_that_names_no_scheduler_is_refused(tmp_path: Path, content: str) -> None:
    file = tmp_path / "scheduler.json"
    file.write_text(content)
    with pytest.raises(UsageError, match=r"scheduler.json is no scheduler file"), connected(str(file)):
        pass


def test_processes_of_this_machine_from_the_command_line(ibstore: Command, store: Path, tmp_path: Path) -> None:
    waists = [word for waist in WAISTS for word in ("--waist", waist)]
    done = ibstore("analyze", store, *waists, "--scheduler", "local:1", "--results", tmp_path / "a", "-f", "csv")
    alone = ibstore("analyze", store, *waists, "--results", tmp_path / "b", "-f", "csv", "-q")
    assert (done.code, done.out) == (0, alone.out)
    assert "analyze 16/16" in done.err
    told = ibstore("analyze", store, "--scheduler", "local:1", "--explain")
    assert (told.code, told.out) == (2, "")


def test_without_distributed_it_says_what_it_needs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "distributed", None)
    with pytest.raises(UsageError, match=r"needs distributed; pip install 'ibstore\[cluster\]'"), connected("local:1"):
        pass
