"""`python -m tests.cluster.large`: a worker of 1 GiB analyzes a layer of 8 GiB, and Dask never has to end it.

The table must be that of one process with room for more; what the worker took at most is told.
"""

import logging
import os
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from distributed import Client, LocalCluster

from ibstore import Study
from ibstore.events import ignore
from ibstore.store import LayerInfo, Manifest, ProbeSet, RunWriter, SplitInfo, create_store, write_probe_set

LIMIT, LAYER = 1 << 30, 8 << 30
SAMPLES, SHAPE, ROWS = 10_240, (64, 64, 52), 256
WAISTS = (
    "medians: *=identity | quantile(bins=2)",
    "pooled: x=identity | threshold(0.5); *=avgpool(8, 8) | quantile(bins=3)",
    "signs: *=identity | threshold(1)",
)


def make(path: Path) -> Path:
    """A layer of 8 GiB after ReLU: a pattern of each class, and noise."""
    random = np.random.default_rng(0)
    x, y = random.random((SAMPLES, 4), np.float32).round(1), np.arange(SAMPLES) % 10
    create_store(path)
    probe = ProbeSet.of(x, y)
    layer = LayerInfo("wide", "wide", SHAPE, "float32")
    split = SplitInfo("train", "train", write_probe_set(path, probe), SAMPLES)
    means = random.normal(size=(10, *SHAPE)).astype(np.float32)
    noise = random.normal(size=(ROWS, *SHAPE)).astype(np.float32)
    with RunWriter(path, Manifest("large", (layer,), (split,)), {"train": probe.sample}) as writer:
        segment = writer.segment(0)
        for start in range(0, SAMPLES, ROWS):
            rows = means[y[start : start + ROWS]] + np.roll(noise, start // ROWS, axis=0)
            segment.append("train", "wide", np.maximum(rows.round(1), 0))
        segment.commit()
    return path


def most_taken() -> int:
    """Bytes that a worker has had at most."""
    status = Path("/proc/self/status").read_text()
    return next(int(line.split()[1]) << 10 for line in status.splitlines() if line.startswith("VmHWM"))


def main() -> None:
    with tempfile.TemporaryDirectory() as text:
        folder = Path(text)
        store = make(folder / "lab.zarr")
        options = {"threads_per_worker": 1, "dashboard_address": "127.0.0.1:0", "silence_logs": logging.ERROR}
        with (
            LocalCluster(n_workers=1, memory_limit=LIMIT, local_directory=text, **options) as cluster,
            Client(cluster, set_as_default=False) as client,
        ):
            before = client.run(os.getpid)
            start = time.perf_counter()
            table = Study(store, folder / "spread").analyze(WAISTS, client=client, emit=ignore)
            seconds = time.perf_counter() - start
            assert client.run(os.getpid) == before, "Dask had to end a worker"
            (taken,) = client.run(most_taken).values()
        start = time.perf_counter()
        expected = Study(store, folder / "alone").analyze(WAISTS, emit=ignore)
        alone = time.perf_counter() - start
    assert table.equals(expected), "another table"
    sys.stdout.write(
        f"{LAYER >> 30} GiB under {len(WAISTS)} waists: one worker of {LIMIT >> 20} MiB {seconds:.0f} s, at most "
        f"{taken >> 20} MiB; one process with room {alone:.0f} s; the same table\n"
    )


if __name__ == "__main__":
    main()
