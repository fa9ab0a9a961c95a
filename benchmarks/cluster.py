"""An analysis spread over worker processes of this machine, the store in a bucket: a server of S3 on loopback.

The server is moto's, in a process of its own. Handing out what it holds takes a third of a second of CPU a GB, which
the table shows beside the workers' own: there are no more cores than workers for it.
"""

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import polars as pl
import psutil

from benchmarks.measure import keep, machine
from benchmarks.plane import POOLED, capture
from ibstore.analyze import Study
from ibstore.analyze.cluster import connected

if TYPE_CHECKING:
    from distributed import Client

STORE = "s3://lab/lab.zarr"
SCHEDULE = "log:3"
"""The untrained network and three points of the one epoch, so that there is work for a while."""

WAISTS = ["thesis-6.1", *POOLED]
WORKERS = (0, 1, 2)
"""0: this process alone, with a thread for each core, once."""

TURNS = 2
GOAL = 1.7


@dataclass(frozen=True)
class Spent:
    """Seconds that an analysis took, and CPU seconds of this process, of the workers and of the server."""

    seconds: float
    here: float
    workers: float
    server: float


def main() -> None:
    with serving() as server:
        dataset = capture(STORE, SCHEDULE)
        stored = sum(run.stored_bytes for run in Study(STORE).store.runs())
        spent: dict[int, list[Spent]] = {workers: [] for workers in WORKERS}
        tables = []
        for turn in range(TURNS):
            for workers in WORKERS if turn == 0 else WORKERS[1:]:
                table, cost = analyzed(workers, f"{STORE}.{turn}-{workers}", server)
                tables.append(table)
                spent[workers].append(cost)
        assert all(table.equals(tables[0]) for table in tables), "the tables differ"
    keep("cluster", "\n".join(lines(f"{dataset}, {len(WAISTS)} presets, {stored / 1e9:.2f} GB in S3", spent)))


def lines(what: str, spent: dict[int, list[Spent]]) -> list[str]:
    """The table: of each number of workers the quickest turn, and how the goal was met."""
    best = {workers: min(costs, key=lambda cost: cost.seconds) for workers, costs in spent.items()}
    ratios = [one.seconds / two.seconds for one, two in zip(spent[1], spent[2], strict=True)]
    each = ", ".join(f"{ratio:.2f}" for ratio in ratios)
    return [
        f"{datetime.now(UTC):%Y-%m-%d}, {machine()}; {what}; the quickest of {TURNS} turns.",
        "",
        "| what | time | × one worker | CPU of the workers | of this process | of the server |",
        "| --- | ---: | ---: | ---: | ---: | ---: |",
        *[row(workers, cost, best[1]) for workers, cost in best.items()],
        "",
        f"All tables are the same. Turn by turn, 2 workers were {each} times as fast as 1; the goal is {GOAL}.",
    ]


def row(workers: int, cost: Spent, one: Spent) -> str:
    """A row of the table."""
    name = f"{workers} worker{'s' * (workers > 1)}, a thread each" if workers else "no cluster, a thread a core"
    cpu = f"{cost.workers:.1f} s | {cost.here:.1f} s | {cost.server:.1f} s"
    return f"| {name} | {cost.seconds:.1f} s | {one.seconds / cost.seconds:.2f} | {cpu} |"


def analyzed(workers: int, results: str, server: psutil.Process) -> tuple[pl.DataFrame, Spent]:
    """The table, asked of this process or of workers that have computed before, where nothing is kept yet."""
    with ExitStack() as stack:
        client = stack.enter_context(connected(f"local:{workers}")) if workers else None
        warm(results)
        if client is not None:
            client.wait_for_workers(workers)
            client.run(warm, results)
        study = Study(STORE, results)
        before = cpu_seconds(client, server)
        start = time.perf_counter()
        table = study.analyze(WAISTS, client=client)
        seconds = time.perf_counter() - start
        used = [now - then for now, then in zip(cpu_seconds(client, server), before, strict=True)]
        return table, Spent(seconds, *used)


def warm(results: str) -> None:
    """Have this process import and compile what an analysis needs, by one of a small layer."""
    Study(STORE, f"{results}-warm{os.getpid()}").analyze(WAISTS, layers=["conv2"], epochs=[0], threads=1)


def cpu_seconds(client: "Client | None", server: psutil.Process) -> tuple[float, float, float]:
    """CPU seconds so far of this process, of all workers and of the server."""
    workers = client.run(time.process_time).values() if client is not None else ()
    times = server.cpu_times()
    return time.process_time(), sum(workers), times.user + times.system


@contextmanager
def serving() -> Iterator[psutil.Process]:
    """A process that serves S3, with an empty bucket; who asks, here or in a worker, finds it by AWS's variables."""
    command = [sys.executable, "-m", "benchmarks.cluster", "serve"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        os.environ |= {"AWS_ENDPOINT_URL": process.stdout.readline().strip(), "AWS_REGION": "us-east-1"}
        os.environ |= {"AWS_ACCESS_KEY_ID": "nobody", "AWS_SECRET_ACCESS_KEY": "nothing"}
        yield psutil.Process(process.pid)  # it ends when Popen closes its standard input


def serve() -> None:
    """Serve S3 and say where, until nobody holds the other end of the standard input."""
    from tests.store import s3

    with s3.serving() as address:
        print(address, flush=True)
        sys.stdin.read()


if __name__ == "__main__":
    serve() if len(sys.argv) > 1 else main()
