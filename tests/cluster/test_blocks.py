"""Layers that are read in blocks of samples: the table of one process, bit for bit, and as much kept."""

from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
import polars as pl
import pytest
from distributed import Client

from ibstore import Study
from ibstore.analyze.cluster import divide
from ibstore.analyze.cluster.blocks import keep_edges
from ibstore.analyze.cluster.unit import Unit
from ibstore.analyze.narrow import fit
from ibstore.analyze.parts import VERSION
from ibstore.errors import IbstoreError, StoreError, ValuesError
from ibstore.events import Event
from ibstore.store.format.layout import Layout
from tests.analyze.stores import make_store

pytestmark = pytest.mark.xdist_group("cluster")  # one cluster

SHARD = Layout(10, 20)
WAISTS = (
    "medians: *=identity | quantile(bins=2)",
    "over: *=identity | equalmass(bins=3, per=run)",
    "coarse: x=identity | threshold(0.5); *=identity | uniform(bins=3, lo=0, hi=1)",
    "rounded: x=identity | threshold(0.5); *=identity | quantile(bins=4, scope=layer)",
    "exact: *=identity | exact",
)
COUNTING = ["plugin", "miller_madow"]


@pytest.fixture(autouse=True)
def small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Blocks of three shards of the layer ``wide``; the layer ``thin`` is one piece."""
    monkeypatch.setattr(divide, "BLOCK_BYTES", 64 * 8 * 40)


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Values with ties, samples that are not numbered in order, and inputs of which some are alike."""
    path = tmp_path_factory.mktemp("blocks") / "lab.zarr"
    random = np.random.default_rng(0)
    x, y, sample = random.random((130, 2), np.float32), np.arange(130) % 3, random.permutation(1000)[:130]
    layers = {"wide": np.maximum(random.normal(size=(2, 130, 40)), 0), "thin": random.random((2, 130, 2))}
    return make_store(path, x, y, layers=layers, rows=SHARD, sample=sample)


def tasks(client: Client) -> set[str]:
    """Names of all tasks that the scheduler remembers."""
    return set(client.run_on_scheduler(lambda dask_scheduler: [str(key) for key, *_ in dask_scheduler.transition_log]))


def reads(client: Client) -> set[str]:
    """What was done to blocks, by name."""
    return {key for key in tasks(client) if "-look" in key or "-count" in key}


@pytest.mark.parametrize(
    "about",
    [
        {"estimators": COUNTING},
        {"estimators": ["plugin", "kde(variance=0.1)"], "keep_keys": "never", "epochs": [0], "layers": "wide"},
    ],
)
def test_the_table_is_that_of_one_process(client: Client, store: Path, tmp_path: Path, about: dict) -> None:
    before = reads(client)
    events: list[Event] = []
    spread = Study(store, tmp_path / "spread").analyze(WAISTS, client=client, emit=events.append, **about)
    alone = Study(store, tmp_path / "alone").analyze(WAISTS, **about)
    assert spread.equals(alone)
    assert {key.split("-")[2] for key in reads(client) - before} == {"wide"}
    assert {"run0 · wide · passed over", "run0 · wide · 3 of 3 blocks"} <= {event.detail for event in events}


def test_as_much_is_kept_as_by_one_process(
    client: Client, store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Here keys are in three parts, by their hash, and units are fitted some at a time."""
    monkeypatch.setattr(divide, "MOST_ROWS", -(-130 // 3))
    monkeypatch.setattr(divide, "fit", lambda recipe, form, epochs, _, **how: fit(recipe, form, epochs, 4000, **how))
    spread, alone = Study(store, tmp_path / "spread"), Study(store, tmp_path / "alone")
    spread.analyze(WAISTS, client=client, keep_keys="always")
    assert any(key.endswith("-piece0.1") for key in tasks(client))
    alone.analyze(WAISTS, keep_keys="always")
    kept = [study.kept().drop("bytes").sort(pl.all()) for study in (spread, alone)]
    assert kept[0].equals(kept[1])
    assert not list((tmp_path / "spread" / "blocks").iterdir())
    keys = "SELECT run, layer, epoch, waist, sample, key FROM patterns ORDER BY ALL"
    assert spread.query(keys).equals(alone.query(keys))


def test_labels_may_be_lacking_and_wide_keys_go_by_their_digests(client: Client, tmp_path: Path) -> None:
    values = np.random.default_rng(0).random((1, 90, 200)).round(1)
    values[:, 45:] = values[:, :45]  # in other blocks
    store = make_store(tmp_path / "lab.zarr", np.arange(90.0)[:, None] // 3, layers={"one": values}, rows=SHARD)
    waist = "exact: *=identity | exact"
    spread = Study(store, tmp_path / "spread").analyze(waist, client=client, keep_keys="always")
    assert spread.equals(Study(store, tmp_path / "alone").analyze(waist))
    assert spread["h_t"].to_list() == [np.log2(45)]


def test_what_blocks_have_counted_is_not_counted_again(
    client: Client, store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As after a time limit: edges and counts are there, the sum is not."""
    study, about = Study(store, tmp_path / "results"), {"layers": "wide", "epochs": [1]}
    waist = WAISTS[0]
    with monkeypatch.context() as broken:
        broken.setattr(divide, "add_up", stopped)
        with pytest.raises(IbstoreError, match="the time is up"):
            study.analyze(waist, client=client, **about)
    there = {path.name: path.stat().st_mtime_ns for path in (tmp_path / "results" / "blocks").iterdir()}
    assert len(there) == 1 + 2 * 3  # edges; counts and keys of three blocks
    assert study.kept().filter(table="blocks")["part"].len() == len(there)
    before, merged = reads(client), []
    monkeypatch.setattr(divide, "keep_edges", lambda *_: merged.append("edges are fitted again"))
    assert study.analyze(waist, client=client, **about).equals(Study(store, tmp_path / "alone").analyze(waist, **about))
    assert merged == []
    assert not [key for key in reads(client) - before if "-look" in key]


def stopped(*_: object) -> bool:
    raise IbstoreError("the time is up")


def test_somebody_else_may_have_finished_it(client: Client, store: Path, tmp_path: Path) -> None:
    """Two who ask for the same share their blocks; whoever is second finds the table."""
    from concurrent.futures import ThreadPoolExecutor

    def ask(_: int) -> pl.DataFrame:
        return Study(store, tmp_path / "results").analyze(WAISTS, client=client)

    with ThreadPoolExecutor(2) as both:
        first, second = both.map(ask, range(2))
    assert first.equals(second)
    assert first.equals(Study(store, tmp_path / "alone").analyze(WAISTS))


def test_a_blocks_error_is_told_in_its_words(client: Client, tmp_path: Path) -> None:
    values = np.random.default_rng(0).random((1, 130, 40))
    values[0, 77, 3] = np.nan
    broken = make_store(
        tmp_path / "lab.zarr", np.arange(130.0)[:, None], np.arange(130) % 2, layers={"one": values}, rows=SHARD
    )
    for waist in (WAISTS[0], WAISTS[2]):
        with pytest.raises(ValuesError, match="run 'run0', layer 'one', epoch 0 has NaN, which no bin holds"):
            Study(broken, tmp_path / "results").analyze(waist, client=client)


def test_a_folder_that_is_not_shared_is_told(client: Client, store: Path, tmp_path: Path) -> None:
    elsewhere = patch(
        "ibstore.analyze.cluster.spread.shared_place", lambda place: place.replace("results", "elsewhere")
    )
    with elsewhere, pytest.raises(StoreError, match=r"its edges are not in .*elsewhere.*; name a folder that all"):
        Study(store, tmp_path / "results").analyze(WAISTS[0], client=client)


def test_a_store_made_anew_is_another(client: Client, tmp_path: Path) -> None:
    """What a worker has opened before is not asked about what is there now."""
    for seed in range(2):
        values = np.random.default_rng(seed).random((1, 130, 40))
        place = tmp_path / "lab.zarr"
        make_store(
            place, np.arange(130.0)[:, None], np.arange(130) % 2, layers={"one": values}, rows=SHARD, replace=True
        )
        found = Study(place, tmp_path / f"spread{seed}").analyze(WAISTS[0], client=client)
        assert found.equals(Study(place, tmp_path / f"alone{seed}").analyze(WAISTS[0]))


def test_two_clusters_may_be_asked_the_same(client: Client, store: Path, tmp_path: Path) -> None:
    """The second finishes everything while the first has fitted its edges; nothing is left of the blocks."""

    def overtaken(*given: Any) -> None:
        keep_edges(*given)
        if not overtaken.done:
            overtaken.done = True
            Study(store, tmp_path / "results").analyze(WAISTS, client=client)

    overtaken.done = False
    with patch.object(divide, "keep_edges", overtaken):
        first = Study(store, tmp_path / "results").analyze(WAISTS, client=client)
    assert first.equals(Study(store, tmp_path / "alone").analyze(WAISTS))
    assert not list((tmp_path / "results" / "blocks").iterdir())


def test_other_versions_are_refused(client: Client, store: Path, tmp_path: Path) -> None:
    other = patch("ibstore.analyze.cluster.spread.Unit", lambda **given: Unit(**given, version=VERSION + 1))
    with other, pytest.raises(IbstoreError, match=f"numbers of version {VERSION}, and {VERSION + 1} are asked for"):
        Study(store, tmp_path / "results").analyze(WAISTS[0], client=client, layers="wide")
