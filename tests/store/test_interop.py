"""What others open: zarr's own API and xarray, with warnings as errors, on every group of a store at rest."""

import json

import duckdb
import numpy as np
import obstore.store
import pytest
import xarray
import zarr

from . import stores


@pytest.fixture(scope="module")
def values():
    """Two layers whose axes have different sizes, a scalar one, and one named like another's axis."""
    random = np.random.default_rng(0)
    shapes = {"conv1": (3, 2), "fc:1": (5,), "loss": (), "conv1_0": (4,)}
    return {name: random.normal(size=(2, stores.SAMPLES, *shape)).astype("f4") for name, shape in shapes.items()}


@pytest.fixture(scope="module")
def store(tmp_path_factory, values):
    path = tmp_path_factory.mktemp("interop") / "lab.zarr"
    for run in ("seed0", "seed 1"):
        stores.write_run(path, values, run=run)
    return path


@pytest.fixture(scope="module")
def split(store):
    return stores.segment_folder(store, epoch=1, run="seed0") / "train"


def open_dataset(path):
    return xarray.open_dataset(path, engine="zarr", consolidated=False)


def test_zarr_walks_the_whole_hierarchy_without_a_warning(store):
    members = dict(zarr.open_group(store, mode="r").members(max_depth=None))
    arrays = {path: node for path, node in members.items() if isinstance(node, zarr.Array)}
    folders = {str(path.parent.relative_to(store)) for path in store.rglob("zarr.json")} - {"."}
    assert set(members) == folders
    assert len(arrays) == 3 + 2 * 2 * (2 + 4)  # a probe set; runs × epochs × (coordinates + layers)


def test_nothing_foreign_lies_in_the_hierarchy(store):
    for path in store.rglob("*"):
        assert path.is_dir() or path.name == "zarr.json" or path.name.startswith("c."), path
        assert path.is_file() or (path / "zarr.json").exists(), path


def test_zarr_reads_the_values(split, values):
    group = zarr.open_group(split, mode="r")
    for node, name in (("conv1", "conv1"), ("fc=3A1", "fc:1"), ("loss", "loss")):
        np.testing.assert_array_equal(group[node][0], values[name][1])


def test_arrays_are_written_as_the_format_says(split):
    array = zarr.open_array(split / "conv1", mode="r")
    assert array.dtype == np.float32
    assert np.isnan(array.fill_value)
    assert array.metadata.dimension_names == ("epoch", "sample", "conv1_0", "conv1_1")
    (sharding,) = array.metadata.codecs
    assert [type(codec).__name__ for codec in sharding.codecs] == ["BytesCodec", "ZstdCodec", "Crc32cCodec"]


@pytest.mark.parametrize("opened", [open_dataset, lambda path: xarray.open_zarr(path, consolidated=False)])
def test_xarray_opens_a_split(split, values, opened):
    with opened(split) as dataset:
        assert dataset["conv1"].dims == ("epoch", "sample", "conv1_0", "conv1_1")
        assert dataset["fc=3A1"].dims == ("epoch", "sample", "fc=3A1_0")
        assert dataset["loss"].dims == ("epoch", "sample")
        assert dataset["epoch"].values.tolist() == [1]
        assert dataset["sample"].values.tolist() == stores.PROBE.sample.tolist()
        assert set(dataset.xindexes) == {"epoch", "sample"}
        for node, name in (("conv1", "conv1"), ("fc=3A1", "fc:1"), ("loss", "loss"), ("conv1_0", "conv1_0")):
            np.testing.assert_array_equal(dataset[node].values, values[name][1:2])
        chosen = dataset["fc=3A1"].sel(epoch=1, sample=20)
        np.testing.assert_array_equal(chosen.values, values["fc:1"][1, 3])


def test_xarray_opens_a_probe_set(store):
    with open_dataset(store / "data" / stores.PROBE.digest()) as dataset:
        assert dataset["x"].dims == ("sample", "x_0", "x_1")
        assert dataset["y"].dims == ("sample",)
        np.testing.assert_array_equal(dataset["x"].values, stores.PROBE.x)
        np.testing.assert_array_equal(dataset["y"].values, stores.PROBE.y)
        np.testing.assert_array_equal(dataset["sample"].values, stores.PROBE.sample)


def test_xarray_opens_every_group(store):
    groups = [
        path for path, node in zarr.open_group(store, mode="r").members(max_depth=None) if isinstance(node, zarr.Group)
    ]
    for group in ["", *groups]:
        open_dataset(store / group).close()
    run = open_dataset(store / "runs" / "seed=201")
    assert run.attrs["run"] == "seed 1"
    segment = open_dataset(stores.segment_folder(store, epoch=1, run="seed0"))
    assert segment.attrs["epochs"] == [1]


def test_xarray_opens_the_tree(store, values):
    with xarray.open_datatree(store, engine="zarr", consolidated=False) as tree:
        assert tree.attrs["ibstore_format"] == 1
        for epoch in range(2):
            layer = tree[f"runs/seed0/segments/{epoch:010d}/train/conv1"]
            np.testing.assert_array_equal(layer.values, values["conv1"][epoch : epoch + 1])


@pytest.fixture
def served(in_s3, values):
    """The same in a bucket, as zarr's own way to object stores opens it."""
    stores.write_run(in_s3, values, run="seed0")
    with stores.open_writer(in_s3, values, run="many") as writer:
        stores.fill(writer.segment(3, 8), values, 0, 1).commit()
    return zarr.storage.ObjectStore(obstore.store.from_url(in_s3), read_only=True)


def test_zarr_and_xarray_open_a_bucket(served, values):
    group = zarr.open_group(served, mode="r")
    assert sum(isinstance(node, zarr.Array) for _, node in group.members(max_depth=None)) == 3 + (2 + 1) * (2 + 4)
    np.testing.assert_array_equal(group["runs/seed0/segments/0000000001/train/conv1"][0], values["conv1"][1])
    with xarray.open_zarr(served, group="runs/many/segments/0000000003/train", consolidated=False) as split:
        assert split["conv1"].dims == ("epoch", "sample", "conv1_0", "conv1_1")
        np.testing.assert_array_equal(split["conv1"].sel(epoch=8, sample=12).values, values["conv1"][1, 2])
    with xarray.open_datatree(served, engine="zarr", consolidated=False) as tree:
        np.testing.assert_array_equal(tree[f"data/{stores.PROBE.digest()}/x"].values, stores.PROBE.x)


def test_a_plain_duckdb_reads_commit_records_as_json(store):
    pattern = str(store / "runs/seed0/segments/*/zarr.json")
    rows = duckdb.sql(
        f"""
        SELECT unnest(attributes.epochs) AS epoch, unnest(attributes.steps) AS step,
               unnest(attributes.metrics).train.loss AS loss, unnest(attributes.metrics).test.loss::DOUBLE AS test_loss
        FROM read_json('{pattern}') ORDER BY epoch
        """
    ).fetchall()
    assert [row[:3] for row in rows] == [(0, 0, 0.5), (1, 100, 0.5)]
    assert all(np.isnan(row[3]) for row in rows)


def test_a_plain_duckdb_reads_manifests_as_json(store):
    rows = duckdb.sql(
        f"""
        SELECT attributes.run, [layer.name FOR layer IN attributes.layers]
        FROM read_json('{store}/runs/*/zarr.json') ORDER BY 1
        """
    ).fetchall()
    layers = ["conv1", "fc:1", "loss", "conv1_0"]
    assert rows == [("seed 1", layers), ("seed0", layers)]


def test_a_plain_duckdb_reads_results_as_parquet(store, values, ibstore):
    done = ibstore(
        "analyze",
        store,
        "--run",
        "seed0",
        "--waist",
        "own: x=identity | quantile(bins=2); *=identity | quantile(bins=2)",
    )
    assert done.code == 0, done.err
    rows = duckdb.sql(
        f"""
        SELECT epoch, i_xt, h_t FROM read_parquet('{store}.analysis/information_plane/*.parquet') ORDER BY ALL
        """
    ).fetchall()
    sql = "SELECT epoch, i_xt, h_t FROM information_plane WHERE run = 'seed0' ORDER BY ALL"
    told = ibstore("query", store, sql, "--format", "json")
    assert [tuple(row.values()) for row in json.loads(told.out)] == rows
    assert [row[0] for row in rows] == [0] * len(values) + [1] * len(values)
    assert all(0 < row[2] <= np.log2(stores.SAMPLES) for row in rows)


def test_epochs_of_a_run_become_one_dataset(store, values):
    splits = [open_dataset(stores.segment_folder(store, epoch, run="seed0") / "train") for epoch in range(2)]
    whole = xarray.concat([each[["fc=3A1"]] for each in splits], "epoch")
    np.testing.assert_array_equal(whole["fc=3A1"].sel(epoch=[0, 1]).values, values["fc:1"])
