"""Who takes which GPU, and that nobody shares it: told of devices that this machine need not have."""

import os
import shlex
import threading
from pathlib import Path
from unittest.mock import Mock, patch

import pytest
from distributed import Client, LocalCluster, Reschedule

from ibstore.analyze.cluster import alone as one_at_a_time
from ibstore.analyze.cluster import connected
from ibstore.analyze.cluster.alone import alone
from ibstore.cli.spreading import do
from ibstore.devices import gpus_of
from tests.conftest import Command

pytestmark = [
    pytest.mark.xdist_group("cluster"),
    pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::pytest.PytestUnraisableExceptionWarning"),
]


@pytest.mark.parametrize(
    ("device", "count", "visible", "expected"),
    [
        ("auto", 2, None, ["0", "1"]),
        ("cuda", 2, "3,GPU-8f", ["3", "GPU-8f"]),
        ("cuda", 1, "2,-1,3", ["2"]),  # CUDA stops at a number that is none
        ("auto", 0, None, []),
        ("auto", 0, "", []),
        ("cpu", 2, None, []),
        ("cuda:1", 2, None, []),
    ],
)
def test_gpus_that_can_be_given_one_each(
    monkeypatch: pytest.MonkeyPatch, device: str, count: int, visible: str | None, expected: list[str]
) -> None:
    monkeypatch.setattr("torch.cuda.device_count", lambda: count)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    if visible is not None:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    assert gpus_of(device) == expected


def test_each_worker_of_this_machine_sees_its_own() -> None:
    with connected("local:3", gpus=["5", "7"]) as client:
        seen = client.run(os.getenv, "CUDA_VISIBLE_DEVICES")
    assert sorted(seen.values()) == ["5", "5", "7"]


@pytest.mark.parametrize("command", ["capture szt --store", "analyze --device cuda"])
def test_commands_tell_of_those_of_this_machine(
    ibstore: Command, captured: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, command: str
) -> None:
    monkeypatch.setattr("torch.cuda.device_count", lambda: 2)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    store = captured if "analyze" in command else tmp_path / "lab.zarr"
    with patch("ibstore.analyze.cluster.connected", side_effect=KeyboardInterrupt) as asked:
        ibstore(*shlex.split(command), store, "--scheduler", "local:2")
    assert ["0", "1"] in [*asked.call_args.args, *asked.call_args.kwargs.values()]


ASKED, INSIDE, SEEN = threading.Semaphore(0), threading.Semaphore(1), list[int]()


def work(number: int) -> int:
    """The first stays until others have been handed out again."""
    ASKED.release()
    with alone():
        assert INSIDE.acquire(blocking=False)
        for _ in range(0 if SEEN else 5):  # asked for five times by two
            assert ASKED.acquire(timeout=30)
        SEEN.append(number)
        INSIDE.release()
    return number


def test_a_worker_with_several_threads_does_one_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(one_at_a_time, "SECONDS", 0.01)
    options = {"processes": False, "threads_per_worker": 2, "dashboard_address": "127.0.0.1:0"}
    with LocalCluster(n_workers=1, **options) as cluster, Client(cluster, set_as_default=False) as client:
        assert client.gather(client.map(work, range(2))) == [0, 1]
    assert sorted(SEEN) == [0, 1]


def test_a_training_is_one_of_them(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two at once would draw from one source of random numbers."""
    monkeypatch.setattr(one_at_a_time, "SECONDS", 0.01)
    training = Mock()
    with alone(), pytest.raises(Reschedule):
        do(training)
    training.carry_out.assert_not_called()
    assert do(training) is training.carry_out.return_value
