"""`python -m tests.cluster.kills`: workers killed at random moments, and a scheduler once; the table stays the same.

Two workers analyze a store again and again; in each round one of them gets SIGKILL at a random moment. In every other
round layers are read in blocks. Then the scheduler itself is killed, and started anew at its address, with other
workers. At last workers are killed as they train an ensemble.
"""

import contextlib
import logging
import os
import random
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TypeVar
from unittest.mock import patch

import numpy as np
import polars as pl
from distributed import Client, LocalCluster

from ibstore import Study
from ibstore.analyze.cluster import connected, divide
from ibstore.events import Event, ignore
from ibstore.store import Store
from ibstore.store.format.layout import Layout
from tests.analyze.stores import make_store

ROUNDS = 20
TRAININGS = 5
BLOCK = 400_000
"""A layer is in five."""

Result = TypeVar("Result")
WAISTS = ("medians: *=identity | quantile(bins=2)", "over: *=identity | quantile(bins=4, per=run)")


def make(folder: Path) -> Path:
    """Twenty-four units, of some tenths of a second each."""
    rng = np.random.default_rng(0)
    x, y = rng.random((20_000, 2), np.float32), np.arange(20_000) % 10
    layers = {name: rng.random((8, 20_000, 16), np.float32) for name in ("first", "second", "third")}
    return make_store(folder / "lab.zarr", x, y, layers=layers, rows=Layout(1000, 2000))


def finished(client: Client) -> Counter[str]:
    """How often each unit was done, as the scheduler heard of it."""
    log = client.run_on_scheduler(
        lambda dask_scheduler: [(str(key), end) for key, _, end, *_ in dask_scheduler.transition_log]
    )
    return Counter(key for key, end in log if key.startswith("ibstore-") and end == "memory")


def kill_one(client: Client, seconds: float) -> None:
    """Kill one of the workers after a while."""
    time.sleep(seconds)
    pids = [pid for pid in client.run(os.getpid, on_error="ignore").values() if isinstance(pid, int)]
    os.kill(random.choice(pids), signal.SIGKILL)


def rounds(store: Path, folder: Path, expected: pl.DataFrame, longest: float) -> None:
    options = {"threads_per_worker": 1, "dashboard_address": "127.0.0.1:0", "silence_logs": logging.CRITICAL}
    with LocalCluster(n_workers=2, **options) as cluster, Client(cluster) as client:
        for number in range(ROUNDS):
            before = finished(client)
            in_blocks = number % 2 == 1
            seconds = random.uniform(0, longest * (1 + 3 * in_blocks))  # in blocks it takes longer
            size = BLOCK if in_blocks else divide.BLOCK_BYTES
            killer = threading.Thread(target=kill_one, args=(client, seconds))
            killer.start()
            with patch.object(divide, "BLOCK_BYTES", size):
                table = Study(store, folder / f"results{number}").analyze(WAISTS, client=client)
            killer.join()
            most = max((finished(client) - before).values())
            assert table.equals(expected), f"round {number}: another table"
            assert most <= 2, f"round {number}: a unit was done {most} times"
            told = f"round {number}{', in blocks' * in_blocks}: killed after {seconds:.2f} s"
            sys.stdout.write(f"{told}, the same table, no unit done more than {most} times\n")


@contextlib.contextmanager
def started(*arguments: str) -> Iterator[subprocess.Popen[bytes]]:
    quiet = subprocess.DEVNULL
    with subprocess.Popen([sys.executable, "-m", *arguments], stdout=quiet, stderr=quiet) as process:
        try:
            yield process
        finally:
            process.kill()


def restarted(store: Path, folder: Path, expected: pl.DataFrame) -> None:
    """The scheduler dies in the middle, and comes again with other workers."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    address = f"tcp://127.0.0.1:{port}"
    scheduler = ("distributed.cli.dask_scheduler", "--host", "127.0.0.1", "--port", str(port), "--no-dashboard")
    worker = ("distributed.cli.dask_worker", address, "--nworkers", "2", "--nthreads", "1", "--no-dashboard")
    with contextlib.ExitStack() as first, contextlib.ExitStack() as second:
        dying = first.enter_context(started(*scheduler))
        first.enter_context(started(*worker))
        with connected(address) as client:
            client.wait_for_workers(1)

            def kill(event: Event, done: list[int] = []) -> None:  # noqa: B006
                done.append(event.done)
                if len(done) == 4:
                    dying.kill()
                    dying.wait()
                    second.enter_context(started(*scheduler))
                    second.enter_context(started(*worker))

            table = Study(store, folder / "restarted").analyze(WAISTS, client=client, emit=kill)
    assert table.equals(expected), "after the scheduler's end: another table"
    sys.stdout.write("the scheduler was killed and came again: the same table\n")


def capture(store: Path, *more: str) -> None:
    words = ["capture", "szt-simple", "--replicas", "6", "--epochs", "400", "--force", "--quiet", "--store", str(store)]
    subprocess.run([sys.executable, "-c", "from ibstore.cli import main; main()", *words, *more], check=True)


def trained(store: Path) -> dict[str, list[bytes]]:
    """The last layer of every epoch, by run."""
    return {
        run.name: [
            block.tobytes()
            for segment in run.segments
            for epoch in segment.record.epochs
            for block in segment.blocks(run.manifest.splits[0], run.manifest.layers[-1], epoch)
        ]
        for run in Store.open(store).runs()
    }


def captures(folder: Path) -> None:
    """Of a group whose networks a kill left at different epochs the last bits may differ; told, where they do."""
    _, seconds = timed(lambda: capture(folder / "alone.zarr", "--at-once", "2", "--threads", "1"))
    expected = trained(folder / "alone.zarr")
    options = {"threads_per_worker": 1, "dashboard_address": "127.0.0.1:0", "silence_logs": logging.CRITICAL}
    with LocalCluster(n_workers=2, **options) as cluster, Client(cluster, set_as_default=False) as client:
        for number in range(TRAININGS):
            killer = threading.Thread(target=kill_one, args=(client, random.uniform(0, 2 * seconds)))
            killer.start()
            capture(folder / "spread.zarr", "--scheduler", cluster.scheduler_address)
            killer.join()
            found = trained(folder / "spread.zarr")
            assert found.keys() == expected.keys(), f"ensemble {number}: other runs"
            assert all(len(found[run]) == len(expected[run]) for run in expected), f"ensemble {number}: other epochs"
            same = sum(found[run] == expected[run] for run in expected)
            sys.stdout.write(f"ensemble {number}: a worker was killed, {same} of {len(expected)} runs the same\n")


def timed(work: Callable[[], Result]) -> tuple[Result, float]:
    start = time.perf_counter()
    return work(), time.perf_counter() - start


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as text:
        folder = Path(text)
        store = make(folder)
        expected, seconds = timed(lambda: Study(store, folder / "alone").analyze(WAISTS, emit=ignore))
        rounds(store, folder, expected, seconds)
        restarted(store, folder, expected)
        captures(folder)
