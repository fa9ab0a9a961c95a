"""Exporting: other programs read the files, an import gives the same run again, and no file is there by half."""

import json
import shutil

import duckdb
import numpy as np
import polars as pl
import pytest
import safetensors.numpy
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from ibstore.errors import (
    DamagedError,
    NotAStoreError,
    SourceError,
    StoreError,
    UnknownNameError,
    UsageError,
    WriteError,
)
from ibstore.store import ProbeSet, RunWriter, Store, write_probe_set
from ibstore.store.exporters import columns, export
from ibstore.store.exporters.export import export_run
from ibstore.store.importers import import_run
from tests.store import stores

LAYERS = stores.layers(epochs=3)
EPOCHS = [f"epoch_{epoch:010d}" for epoch in range(3)]


@pytest.fixture
def store(tmp_path):
    return stores.write_run(tmp_path / "lab.zarr", LAYERS)


def names(folder):
    return sorted(path.name for path in folder.iterdir())


# ---- read by others


def test_numpy_reads_npz(store, tmp_path):
    paths = export_run(store, "run0", tmp_path / "out")
    assert [path.name for path in paths] == ["inputs.npz", *(f"{epoch}.npz" for epoch in EPOCHS), "manifest.json"]
    assert names(tmp_path / "out") == sorted(path.name for path in paths)
    with np.load(paths[0]) as inputs:
        assert inputs.files == ["sample", "y", "x"]
        np.testing.assert_array_equal(inputs["x"], stores.PROBE.x)
    for epoch, path in enumerate(paths[1:-1]):
        with np.load(path) as found:
            assert found.files == ["sample", "y", "conv", "out:1"]
            np.testing.assert_array_equal(found["sample"], stores.PROBE.sample)
            np.testing.assert_array_equal(found["y"], stores.PROBE.y)
            for layer, values in LAYERS.items():
                assert found[layer].dtype == values.dtype
                np.testing.assert_array_equal(found[layer], values[epoch])


def test_safetensors_reads_safetensors(store, tmp_path):
    paths = export_run(store, "run0", tmp_path / "out", form="safetensors")
    np.testing.assert_array_equal(safetensors.numpy.load_file(paths[0])["x"], stores.PROBE.x)
    for epoch, path in enumerate(paths[1:-1]):
        found = safetensors.numpy.load_file(path)
        assert set(found) == {"sample", "y", "conv", "out:1"}
        for layer, values in LAYERS.items():
            np.testing.assert_array_equal(found[layer], values[epoch])


def test_duckdb_and_polars_read_parquet(store, tmp_path):
    export_run(store, "run0", tmp_path / "out", form="parquet")
    with duckdb.connect() as database:
        rows = database.execute(
            'SELECT sample, label, conv, "out:1" FROM read_parquet(?) ORDER BY filename, file_row_number',
            [str(tmp_path / "out" / "epoch_*.parquet")],
        ).fetchall()
    samples, labels, conv, out = (np.array(column) for column in zip(*rows, strict=True))
    np.testing.assert_array_equal(samples, np.tile(stores.PROBE.sample, 3))
    np.testing.assert_array_equal(labels, np.tile(stores.PROBE.y, 3))
    np.testing.assert_array_equal(conv.astype(np.float32), LAYERS["conv"].reshape(-1, 6))
    np.testing.assert_array_equal(out.astype(np.float32), LAYERS["out:1"].reshape(-1))
    frame = pl.read_parquet(tmp_path / "out" / f"{EPOCHS[1]}.parquet")
    assert frame.schema == {"sample": pl.Int64, "label": pl.Int64, "conv": pl.Array(pl.Float32, 6), "out:1": pl.Float32}
    np.testing.assert_array_equal(frame["conv"].to_numpy(), LAYERS["conv"][1].reshape(-1, 6))
    inputs = pl.read_parquet(tmp_path / "out" / "inputs.parquet")
    np.testing.assert_array_equal(inputs["x"].to_numpy(), stores.PROBE.x.reshape(-1, 4))


def test_parquet_says_the_shape_of_a_layer(store, tmp_path):
    import pyarrow.parquet as pq

    export_run(store, "run0", tmp_path / "out", form="parquet")
    schema = pq.read_schema(tmp_path / "out" / f"{EPOCHS[0]}.parquet")
    assert json.loads(schema.field("conv").metadata[b"shape"]) == [3, 2]


NUMBERS = st.sampled_from(["i1", "i2", "i4", "i8", "u1", "u2", "u4", "u8", "f2", "f4", "f8"]).map(np.dtype)
READERS = {
    "npz": lambda path: dict(np.load(path)),
    "safetensors": safetensors.numpy.load_file,
    "parquet": lambda path: {each.name: each.to_numpy() for each in pl.read_parquet(path)},
}


@pytest.mark.parametrize("form", columns.WRITERS)
@settings(max_examples=40, deadline=None)
@given(data=st.data())
def test_any_shape_and_type_is_written_bit_for_bit(tmp_path_factory, form, data):
    path = tmp_path_factory.mktemp("any") / f"file.{form}"
    rows = data.draw(st.integers(1, 6))
    arrays = {
        name: data.draw(hnp.arrays(data.draw(NUMBERS), (rows, *data.draw(hnp.array_shapes(min_dims=0, max_side=3)))))
        for name in ("a", "layer/0", "größe", "relu:1")
    }
    cuts = data.draw(st.lists(st.integers(0, rows), max_size=3).map(sorted))

    def column(name, values):
        return columns.Column(name, values.shape, values.dtype, lambda: iter(np.split(values, cuts)))

    with path.open("wb") as file:
        columns.WRITERS[form](file, [column(name, values) for name, values in arrays.items()])
    found = READERS[form](path)
    assert set(found) == set(arrays)
    for name, values in arrays.items():
        assert found[name].dtype == values.dtype
        assert found[name].tobytes() == values.tobytes()


def test_equal_arrays_give_equal_files(store, tmp_path):
    for form in columns.WRITERS:
        export_run(store, "run0", tmp_path / "one", form=form, force=True)
        export_run(store, "run0", tmp_path / "other", form=form, force=True)
    assert stores.tree(tmp_path / "one") == stores.tree(tmp_path / "other")


def test_parquet_has_row_groups_of_whole_samples(tmp_path, monkeypatch):
    import pyarrow.parquet as pq

    monkeypatch.setattr(columns, "ROW_GROUP_BYTES", 2 * 8)
    values = {"a": np.arange(7, dtype=np.float32), "b": np.arange(7, dtype=np.int32)}
    with (tmp_path / "file.parquet").open("wb") as file:
        columns.write_parquet(file, [columns.column(name, each) for name, each in values.items()])
    found = pq.ParquetFile(tmp_path / "file.parquet")
    assert [found.metadata.row_group(number).num_rows for number in range(4)] == [2, 2, 2, 1]
    assert pl.read_parquet(tmp_path / "file.parquet").to_dict(as_series=False) == {
        name: each.tolist() for name, each in values.items()
    }


# ---- and back


def noted(run):
    """Scalars of each epoch as text, in which NaN is equal to itself."""
    return [repr(epoch) for segment in run.segments for epoch in zip(*segment.record.scalars(), strict=True)]


@pytest.mark.parametrize("form", ["npz", "safetensors"])
def test_an_import_gives_the_same_run_again(store, tmp_path, form):
    export_run(store, "run0", tmp_path / "out", form=form)
    found = import_run(tmp_path / "out", tmp_path / "again.zarr")
    first = Store.open(store).run("run0")
    assert found.manifest == first.manifest  # and so the digest of the same inputs, labels and ids
    stores.assert_run(tmp_path / "again.zarr", LAYERS, [0, 1, 2])
    assert noted(found) == noted(first)
    assert len(first.segments) == 3
    assert len(found.segments) == 1  # they are small


def test_dynamics_go_and_come(tmp_path):
    known = {"epoch": {"conv": {"gradient_mean": 0.25, "snr": None}}}
    with stores.open_writer(tmp_path / "lab.zarr", LAYERS) as writer:
        stores.fill(writer.segment(0), LAYERS, 0).commit([0], [{}], [{}])
        stores.fill(writer.segment(1), LAYERS, 1).commit([3], [{}], [known])
    export_run(tmp_path / "lab.zarr", "run0", tmp_path / "out")
    found = import_run(tmp_path / "out", tmp_path / "again.zarr")
    assert [own for segment in found.segments for own in segment.record.dynamics] == [{}, known]


def test_a_part_of_a_run_goes_and_comes(store, tmp_path):
    paths = export_run(store, "run0", tmp_path / "out", epochs=[2, 0, 2], layers=["out:1"])
    assert [path.name for path in paths[1:-1]] == [f"{EPOCHS[0]}.npz", f"{EPOCHS[2]}.npz"]
    found = import_run(tmp_path / "out", tmp_path / "again.zarr", run="part")
    assert (found.name, found.epochs) == ("part", [0, 2])
    assert [layer.name for layer in found.manifest.layers] == ["out:1"]
    assert [step for segment in found.segments for step in segment.record.steps] == [0, 200]
    np.testing.assert_array_equal(stores.layer_values(tmp_path / "again.zarr", "out:1", 2, "part"), LAYERS["out:1"][2])


def test_files_that_are_not_those_of_the_manifest_are_refused(store, tmp_path):
    export_run(store, "run0", tmp_path / "out")
    shutil.copy(tmp_path / "out" / f"{EPOCHS[1]}.npz", tmp_path / "out" / "epoch_7.npz")
    with pytest.raises(SourceError, match=r"manifest\.json and the files beside it differ in epochs 7"):
        import_run(tmp_path / "out", tmp_path / "again.zarr")
    (tmp_path / "out" / "manifest.json").unlink()
    found = import_run(tmp_path / "out", tmp_path / "again.zarr")
    assert found.epochs == [0, 1, 2, 7]
    assert found.manifest.device == "unknown"
    np.testing.assert_array_equal(found.probe(found.manifest.splits[0]).samples(), stores.PROBE.sample)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"ibstore_export": 2}, "is of version 2, this ibstore reads 1; install a newer one"),
        ({"manifest": {}}, "is not what was exported"),
        ({"epochs": {"epochs": [0]}}, "is not what was exported"),
    ],
)
def test_an_altered_manifest_is_refused(store, tmp_path, change, said):
    export_run(store, "run0", tmp_path / "out")
    path = tmp_path / "out" / "manifest.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **change}))
    with pytest.raises(SourceError, match=said):
        import_run(tmp_path / "out", tmp_path / "again.zarr")
    assert not (tmp_path / "again.zarr").exists()


def test_parquet_is_not_imported(store, tmp_path):
    export_run(store, "run0", tmp_path / "out", form="parquet")
    with pytest.raises(UsageError, match="there is no format 'parquet' to import; choose one of npz, npy"):
        import_run(tmp_path / "out", tmp_path / "again.zarr")


# ---- what is refused


def test_nothing_is_overwritten_against_the_users_will(store, tmp_path):
    out = tmp_path / "out"
    export_run(store, "run0", out, epochs=[1])
    before = stores.tree(out)
    with pytest.raises(
        WriteError, match=r"out/epoch_0000000001.npz is there already; choose another folder, or replace"
    ):
        export_run(store, "run0", out)
    assert stores.tree(out) == before
    assert len(export_run(store, "run0", out, force=True)) == 5


@pytest.mark.parametrize(
    ("options", "error", "said"),
    [
        ({"form": "mat"}, UsageError, "there is no format 'mat' to export; choose one of npz, safetensors, parquet"),
        ({"epochs": [9]}, UnknownNameError, "run 'run0' has no epoch 9; it has 0–2"),
        ({"layers": ["fc"]}, UnknownNameError, "run 'run0' has no layer 'fc'; it has conv, out:1"),
        ({"split": "test"}, UnknownNameError, "run 'run0' has no split 'test'; it has train"),
    ],
)
def test_what_is_not_there_is_refused_before_a_folder_is_made(store, tmp_path, options, error, said):
    with pytest.raises(error) as refused:
        export_run(store, "run0", tmp_path / "out", **options)
    assert said in str(refused.value)
    assert not (tmp_path / "out").exists()


def test_runs_that_are_not_there_are_refused(store, tmp_path):
    with pytest.raises(UnknownNameError, match="has no run 'run9'; it has run0"):
        export_run(store, "run9", tmp_path / "out")
    with pytest.raises(NotAStoreError):
        export_run(tmp_path / "no.zarr", "run0", tmp_path / "out")
    with stores.open_writer(store, LAYERS, run="empty"):
        pass
    with pytest.raises(UsageError, match="run 'empty' has no committed epoch yet"):
        export_run(store, "empty", tmp_path / "out")


@pytest.mark.parametrize(("form", "name"), [("npz", "sample"), ("safetensors", "y"), ("parquet", "label")])
def test_layers_that_are_called_as_coordinates_are_refused(tmp_path, form, name):
    layers = {name: LAYERS["conv"], "out": LAYERS["out:1"]}
    store = stores.write_run(tmp_path / "lab.zarr", layers)
    with pytest.raises(UsageError, match=f"layer '{name}' cannot stand in one file with the samples' own '{name}'"):
        export_run(store, "run0", tmp_path / "out", form=form)
    export_run(store, "run0", tmp_path / "out", form=form, layers=["out"])


def test_one_split_is_chosen_of_several(tmp_path):
    path = tmp_path / "lab.zarr"
    probes = {"train": stores.PROBE, "test": ProbeSet.of(stores.PROBE.x[:2])}
    from ibstore.store import LayerInfo, Manifest, SplitInfo, create_store

    create_store(path)
    splits = tuple(SplitInfo(name, name, write_probe_set(path, probe), len(probe.x)) for name, probe in probes.items())
    manifest = Manifest("run0", (LayerInfo("a", "a", (), "float32"),), splits)
    with RunWriter(path, manifest, {name: probe.sample for name, probe in probes.items()}) as writer:
        segment = writer.segment(0)
        for split in splits:
            segment.append(split.name, "a", np.arange(split.samples, dtype=np.float32))
        segment.commit()
    with pytest.raises(UsageError, match=r"has several splits \(train, test\); choose one with --split"):
        export_run(path, "run0", tmp_path / "out")
    export_run(path, "run0", tmp_path / "out", split="test")
    with np.load(tmp_path / "out" / f"{EPOCHS[0]}.npz") as found:
        assert found.files == ["sample", "a"]  # these samples have no labels
        np.testing.assert_array_equal(found["a"], [0, 1])
    found = import_run(tmp_path / "out", tmp_path / "again.zarr")
    assert [split.name for split in found.manifest.splits] == ["test"]


# ---- whole or not at all


def test_a_damaged_layer_leaves_no_file_and_no_manifest(store, tmp_path):
    (chunk,) = (stores.segment_folder(store, 1) / "train" / "conv").glob("c.*")
    content = bytearray(chunk.read_bytes())
    content[len(content) // 2] ^= 1
    chunk.write_bytes(content)
    with pytest.raises(DamagedError, match="layer 'conv', epoch 1"):
        export_run(store, "run0", tmp_path / "out")
    assert names(tmp_path / "out") == [f"{EPOCHS[0]}.npz", "inputs.npz"]
    export_run(store, "run0", tmp_path / "out", epochs=[0, 2], force=True)
    assert "manifest.json" in names(tmp_path / "out")


@pytest.mark.parametrize("form", columns.WRITERS)
def test_a_kill_leaves_no_half_file(store, tmp_path, monkeypatch, form):
    write = columns.WRITERS[form]

    def dying(file, written):
        write(file, written)
        raise KeyboardInterrupt

    monkeypatch.setattr(export, "WRITERS", {form: dying})
    with pytest.raises(KeyboardInterrupt):
        export_run(store, "run0", tmp_path / "out", form=form)
    assert names(tmp_path / "out") == []


def test_forced_files_never_stand_beside_an_old_manifest(store, tmp_path, monkeypatch):
    export_run(store, "run0", tmp_path / "out")
    monkeypatch.setattr(export, "_write", stores.calls_before(export._write, 2, KeyboardInterrupt()))
    with pytest.raises(KeyboardInterrupt):
        export_run(store, "run0", tmp_path / "out", force=True)
    assert len(names(tmp_path / "out")) == 2
    assert "manifest.json" not in names(tmp_path / "out")


@pytest.mark.parametrize("form", ["npz", "parquet"])
def test_a_forced_export_takes_the_place_of_the_earlier_one(store, tmp_path, form):
    """What another run, format or choice of epochs left would be read with it."""
    out = tmp_path / "out"
    export_run(store, "run0", out)
    (out / "notes.txt").write_text("mine")
    (out / "epoch_1.npz").write_text("mine too")
    paths = export_run(store, "run0", out, form=form, epochs=[1], force=True)
    assert sorted(path.name for path in out.iterdir()) == sorted(
        ["notes.txt", "epoch_1.npz", *(path.name for path in paths)]
    )


@pytest.mark.parametrize("place", ["", "data", "runs/run0"])
def test_an_export_is_no_stranger_in_a_store(store, place):
    before = stores.tree(store)
    with pytest.raises(StoreError, match=r"lies inside the store .*lab\.zarr; choose a path outside of it"):
        export_run(store, "run0", store / place)
    assert stores.tree(store) == before


def test_an_export_to_a_url_is_refused(store, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(
        UsageError, match="s3://lab/out is no folder of this machine, where an export lies; give a path"
    ):
        export_run(store, "run0", "s3://lab/out")
    assert [path.name for path in tmp_path.iterdir()] == [store.name]


def test_a_folder_that_cannot_be_written_is_named(store, tmp_path):
    (tmp_path / "out").write_text("a file")
    with pytest.raises(WriteError, match=r"cannot write .*out: File exists; free space or choose another folder"):
        export_run(store, "run0", tmp_path / "out")
    with pytest.raises(WriteError, match=r"cannot write .*inputs.npz: No space left on device"):
        export_run(store, "run0", full_disk(tmp_path))


def full_disk(tmp_path):
    """Folder in which the file that comes first is one that takes nothing."""
    folder = tmp_path / "full"
    folder.mkdir()
    (folder / ".inputs.npz.partial").symlink_to("/dev/full")
    return folder
