"""Real worker processes, and a store that has something for each of them."""

import logging
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from distributed import Client, LocalCluster

from tests.analyze.stores import make_store

WAISTS = (
    "medians: *=identity | quantile(bins=2)",
    "over: *=identity | quantile(bins=4, per=run)",
    "coarse: x=identity | threshold(0.5); *=identity | uniform(bins=3, lo=0, hi=1)",
)


@pytest.fixture(scope="session")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two runs of three epochs, a segment each, and two layers: twelve units under fitted edges, four over the run."""
    path = tmp_path_factory.mktemp("spread") / "lab.zarr"
    random = np.random.default_rng(0)
    x, y = random.random((300, 2), np.float32), np.arange(300) % 3
    for run in ("one", "two"):
        layers = {name: random.random((3, 300, units)) for name, units in (("wide", 6), ("thin", 2))}
        make_store(path, x, y, layers=layers, run=run)
    return path


@pytest.fixture(scope="session")
def client() -> Iterator[Client]:
    options = {"threads_per_worker": 1, "dashboard_address": "127.0.0.1:0", "silence_logs": logging.CRITICAL}
    with LocalCluster(n_workers=2, **options) as cluster, Client(cluster, set_as_default=False) as client:
        yield client
