"""SQL over the activations of the MNIST CNN, against zarr's own slice and against only reading them."""

import statistics
import tempfile
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.measure import keep, machine
from benchmarks.plane import EPOCH, capture

REPEATS, LAYER = 5, "conv2"
WHERE = f"FROM activations WHERE epoch = {EPOCH} AND layer = '{LAYER}'"


def main() -> None:
    with tempfile.TemporaryDirectory(prefix="ibstore-bench-") as folder:
        store = Path(folder, "lab.zarr")
        dataset = capture(store)
        rows = measured(store)
    lines = [
        f"{datetime.now(UTC):%Y-%m-%d}, {machine()}; {dataset}, {LAYER} of one epoch; median of {REPEATS}.",
        "",
        "| what | time | chunks read | against | × |",
        "| --- | ---: | ---: | --- | ---: |",
        *(
            f"| {what} | {1000 * took:.0f} ms | {chunks} | {against} | {took / due:.2f} |"
            for what, took, chunks, against, due in rows
        ),
    ]
    keep("query", "\n".join(lines))


def measured(store: Path) -> list[tuple[str, float, int, str, float]]:
    """What was asked, seconds, chunks read; the reference, and its seconds."""
    import duckdb
    import zarr

    from ibstore.analyze.sql.activations import lay
    from ibstore.store import Store

    run = Store.open(store).runs()[0]
    split, segment = run.manifest.splits[0], run.segment(EPOCH)
    node = store / segment.key / split.node / run.layer(LAYER).node

    def slice_() -> object:
        return np.asarray(zarr.open_array(node, mode="r")[segment.record.epochs.index(EPOCH), :1000]).mean()

    def read() -> object:
        return [None for _ in segment.blocks(split, run.layer(LAYER), EPOCH)]

    with duckdb.connect() as db:
        table = lay(db, [run], "")[0]

        def asked(sql: str) -> tuple[float, int]:
            before = table.chunks_read
            took = seconds(lambda: db.execute(sql).fetchall())
            return took, (table.chunks_read - before) // (REPEATS + 1)

        sliced, whole = seconds(slice_), seconds(read)
        return [
            (
                "`SELECT avg(value) … AND sample < 1000`",
                *asked(f"SELECT avg(value) {WHERE} AND sample < 1000"),
                "zarr's own slice",
                sliced,
            ),
            ("`SELECT avg(value)`", *asked(f"SELECT avg(value) {WHERE}"), "only reading", whole),
            (
                "`SELECT unit, avg(value) … GROUP BY unit`",
                *asked(f"SELECT unit, avg(value) {WHERE} GROUP BY unit"),
                "only reading",
                whole,
            ),
            (
                "`SELECT avg(value) … AND unit = 5`",
                *asked(f"SELECT avg(value) {WHERE} AND unit = 5"),
                "only reading",
                whole,
            ),
            (
                "`SELECT count(*)` of all epochs and layers",
                *asked("SELECT count(*) FROM activations"),
                "only reading",
                whole,
            ),
        ]


def seconds(work: Callable[[], Any]) -> float:
    """Median time of a work that was done once before."""
    work()
    found = []
    for _ in range(REPEATS):
        begun = time.perf_counter()
        work()
        found.append(time.perf_counter() - begun)
    return statistics.median(found)


if __name__ == "__main__":
    main()
