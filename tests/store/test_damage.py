"""Bad input: what is no store, and what was one. Each is told in a sentence, and the rest stays readable."""

import errno
import os
import shutil
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
import zarr

from ibstore.errors import (
    DamagedError,
    NewerFormatError,
    NotAStoreError,
    StoreError,
    UnknownNameError,
)
from ibstore.store import Store, committed, create_store
from ibstore.store.format import layout
from ibstore.store.format.schema import group, group_attributes

from . import stores

VALUES = stores.layers()


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """Stores to copy: one as it is written, and one whose layer ``conv`` has three shards of two samples each."""
    folder = tmp_path_factory.mktemp("whole")
    stores.write_run(folder / "lab.zarr", VALUES)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(layout, "SHARD_BYTES", 48)
        stores.write_run(folder / "sharded.zarr", VALUES)
    return folder


@pytest.fixture
def store(tmp_path, whole):
    """One run of two epochs."""
    return shutil.copytree(whole / "lab.zarr", tmp_path / "lab.zarr")


@pytest.fixture
def sharded(tmp_path, whole):
    """The same, but layer ``conv`` has three shards."""
    return shutil.copytree(whole / "sharded.zarr", tmp_path / "sharded.zarr")


def refuse(error, monkeypatch, *refused):
    """Let every look at a file or folder of one of these names, and at all below it, fail with ``error``."""
    names = set(refused)
    for owner, function in ((Path, "read_bytes"), (os, "stat"), (os, "lstat"), (os, "scandir")):
        real = getattr(owner, function)

        def failing(path, *arguments, real=real, **options):
            if not names.isdisjoint(Path(path).parts):
                raise type(error)(error.errno, error.strerror, str(path))
            return real(path, *arguments, **options)

        monkeypatch.setattr(owner, function, failing)


def alter(record, *lost, **changes):
    """Change a group's attributes, and their checksum with them: what a program would do, not a failing disk."""
    attributes = group_attributes(record.read_bytes()) | changes
    record.write_bytes(group({name: value for name, value in attributes.items() if name not in lost}))


# ---- what is no store


def test_a_path_that_does_not_exist(tmp_path):
    store = tmp_path / "no.zarr"
    with pytest.raises(NotAStoreError) as caught:
        Store.open(store)
    assert str(caught.value) == f"there is no store at {store}; `ibstore capture mnist-cnn --store {store}` makes one"


def test_a_file(tmp_path):
    (tmp_path / "lab.zarr").write_text("no store")
    with pytest.raises(NotAStoreError, match=r"lab.zarr is no ibstore store \(it is a file\); give a store's path"):
        Store.open(tmp_path / "lab.zarr")


def test_a_path_below_a_file(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(NotAStoreError, match="there is no store at"):
        Store.open(tmp_path / "file" / "lab.zarr")


def test_an_empty_folder(tmp_path):
    with pytest.raises(NotAStoreError, match=r"is no ibstore store \(it has no zarr.json\); give a store's path"):
        Store.open(tmp_path)


def test_a_zarr_group_of_someone_else(tmp_path):
    zarr.create_group(tmp_path / "other.zarr", attributes={"title": "theirs"})
    with pytest.raises(NotAStoreError, match=r"other.zarr is no ibstore store \(its zarr.json has no ibstore_format\)"):
        Store.open(tmp_path / "other.zarr")
    before = stores.tree(tmp_path)
    with pytest.raises(NotAStoreError, match="is no ibstore store"):
        create_store(tmp_path / "other.zarr")
    assert stores.tree(tmp_path) == before


def test_a_part_of_a_store(store):
    with pytest.raises(NotAStoreError, match=r"runs is no ibstore store \(its zarr.json has no ibstore_format\)"):
        Store.open(store / "runs")


@pytest.mark.parametrize(
    "content", [b"", b'{"zarr_format": 3', b"[]", b"\xff\xfe", b'{"attributes": []}', b'{"attributes": null}']
)
def test_a_mark_that_cannot_be_read(store, content):
    (store / "zarr.json").write_bytes(content)
    for function in (Store.open, create_store):
        with pytest.raises(DamagedError, match=r"lab.zarr/zarr.json is no (readable )?group record \(.*\); restore it"):
            function(store)


@pytest.mark.parametrize("function", [Store.open, create_store])
def test_a_newer_format(store, function):
    alter(store / "zarr.json", ibstore_format=2)
    with pytest.raises(
        NewerFormatError, match=r"lab.zarr has store format 2, this ibstore reads up to 1; install a newer ibstore"
    ):
        function(store)


def test_a_store_without_runs(tmp_path):
    create_store(tmp_path / "lab.zarr")
    opened = Store.open(tmp_path / "lab.zarr")
    assert opened.runs() == opened.run_names() == []
    with pytest.raises(UnknownNameError, match=r"lab.zarr has no run 'seed0'; it has none yet"):
        opened.run("seed0")


def test_names_that_are_not_there(store):
    with pytest.raises(UnknownNameError, match=r"lab.zarr has no run 'seed0'; it has run0"):
        Store.open(store).run("seed0")
    run = Store.open(store).run("run0")
    with pytest.raises(UnknownNameError, match="run 'run0' has no layer 'conv9'; it has conv, out:1"):
        run.layer("conv9")
    with pytest.raises(UnknownNameError, match="run 'run0' has no epoch 7; it has 0–1"):
        run.segment(7)


def test_folders_of_strangers_are_passed_over(store):
    (store / "runs" / "seed3").mkdir()  # no record: a run that is being begun
    (store / "runs" / "notes.txt").touch()
    for foreign in ("my run", "=FF", ".hidden"):
        zarr.create_group(store / "runs" / foreign)
    assert [run.name for run in Store.open(store).runs()] == ["run0"]


# ---- what the system refuses


@pytest.mark.parametrize("name", ["lab.zarr", "zarr.json"])
def test_a_store_that_must_not_be_read(store, monkeypatch, name):
    refuse(PermissionError(errno.EACCES, "Permission denied"), monkeypatch, name)
    with pytest.raises(StoreError, match=f"cannot read .*{name}: Permission denied; ask its owner for access"):
        Store.open(store)


@pytest.mark.parametrize("name", ["runs", "run0", "zarr.json", "segments"])
def test_runs_that_must_not_be_read(store, monkeypatch, name):
    opened = Store.open(store)
    refuse(PermissionError(errno.EACCES, "Permission denied"), monkeypatch, name)
    with pytest.raises(StoreError, match=f"cannot read .*{name}.*: Permission denied; ask its owner for access"):
        _ = [run.epochs for run in opened.runs()]


@contextmanager
def nobody():
    """Without the superuser's right to read everything."""
    user = os.geteuid()
    if user == 0:
        os.seteuid(65534)
    try:
        yield
    finally:
        os.seteuid(user)


def test_a_folder_that_must_not_be_read_for_real(store):
    store.chmod(0)
    try:
        with nobody(), pytest.raises(StoreError, match=r"cannot read .*lab.zarr.*: Permission denied; ask its owner"):
            Store.open(store)
    finally:
        store.chmod(0o755)


def test_a_disk_that_fails(store, monkeypatch):
    opened = Store.open(store)
    refuse(OSError(errno.EIO, "Input/output error"), monkeypatch, "zarr.json")
    with pytest.raises(StoreError, match=r"zarr.json: Input/output error; mend that, then ask again"):
        opened.run("run0")


def test_a_chunk_that_must_not_be_read(store, monkeypatch):
    refuse(PermissionError(errno.EACCES, "Permission denied"), monkeypatch, "c.0.0.0.0")
    with pytest.raises(StoreError, match=r"cannot read .*conv/c.0.0.0.0: Permission denied; ask its owner"):
        stores.layer_values(store, "conv")


# ---- manifests and records


@pytest.mark.parametrize(
    "change",
    [
        {"layers": None},
        {"layers": 3},
        {"layers": [{"name": "conv"}]},
        {"splits": [{"name": "train"}]},
        {"splits": ["train"]},
    ],
)
def test_a_manifest_that_is_wrong(store, change):
    alter(store / "runs" / "run0" / "zarr.json", **change)
    with pytest.raises(DamagedError, match=r"run0/zarr.json lacks what format 1 has there \(.*\); restore it from a"):
        Store.open(store).run("run0")


@pytest.mark.parametrize("lost", ["run", "layers", "splits"])
def test_a_manifest_that_lacks_a_field(store, lost):
    alter(store / "runs" / "run0" / "zarr.json", lost)
    with pytest.raises(DamagedError, match=r"run0/zarr.json lacks what format 1 has there"):
        Store.open(store).run("run0")


@pytest.mark.parametrize("lost", ["epochs", "steps", "metrics", "files"])
def test_a_record_that_lacks_a_field(store, lost):
    alter(stores.segment_folder(store, 1) / "zarr.json", lost)
    run = Store.open(store).run("run0")
    with pytest.raises(DamagedError, match=f"0000000001/zarr.json lacks what format 1 has there .*{lost}"):
        _ = run.epochs


@pytest.mark.parametrize(
    "change",
    [
        {"epochs": [1, 2]},
        {"epochs": 1},
        {"epochs": ["1"]},
        {"metrics": [[]]},
        {"files": []},
        {"files": {"train/zarr.json": [3]}},
    ],
)
def test_a_record_that_is_wrong(store, change):
    alter(stores.segment_folder(store, 1) / "zarr.json", **change)
    with pytest.raises(DamagedError, match=r"0000000001/zarr.json lacks what format 1 has there"):
        _ = Store.open(store).run("run0").epochs


@pytest.mark.parametrize("position", [0.2, 0.5, 0.9])
def test_a_flipped_byte_in_a_record_is_found(store, position):
    record = stores.segment_folder(store, 1) / "zarr.json"
    content = bytearray(record.read_bytes())
    place = content.index(b'"', int(position * len(content))) + 1
    content[place] ^= 1
    record.write_bytes(content)
    with pytest.raises(
        DamagedError, match=r"0000000001/zarr.json is no readable group record \(.*\); restore it from a"
    ):
        _ = Store.open(store).run("run0").epochs


def test_every_altered_attribute_of_a_record_is_found(store):
    record = stores.segment_folder(store, 1) / "zarr.json"
    written = record.read_text()
    for true, false in (
        ('"epochs": [\n   1', '"epochs": [\n   2'),
        ("100", "101"),
        ("0.5", "0.6"),
        ("train/", "trait/"),
    ):
        assert true in written
        record.write_text(written.replace(true, false, 1))
        with pytest.raises(DamagedError, match=r"\(its attributes do not fit their checksum\); restore it from a copy"):
            _ = Store.open(store).run("run0").epochs


def test_a_record_of_another_epoch(store):
    alter(stores.segment_folder(store, 1) / "zarr.json", epochs=[3])
    with pytest.raises(DamagedError, match="0000000001 says that it holds epoch 3; restore it from a copy"):
        _ = Store.open(store).run("run0").epochs


def test_a_deleted_record_takes_its_epoch_along_and_no_other(store):
    (stores.segment_folder(store, 0) / "zarr.json").unlink()
    stores.assert_run(store, VALUES, [1])


# ---- arrays


def assert_only_damaged(store, layer, epoch):
    """Assert that every other layer and epoch is readable."""
    for name, values in VALUES.items():
        for other in range(len(values)):
            if (name, other) != (layer, epoch):
                np.testing.assert_array_equal(stores.layer_values(store, name, other), values[other])


@pytest.mark.parametrize("file", ["c.0.2.0.0", "zarr.json"])
def test_a_missing_file(sharded, file):
    (stores.segment_folder(sharded, 1) / "train" / "conv" / file).unlink()
    with pytest.raises(DamagedError) as caught:
        stores.layer_values(sharded, "conv", 1)
    place = stores.segment_folder(sharded, 1) / "train" / "conv" / file
    assert str(caught.value) == (
        f"run 'run0', layer 'conv', epoch 1: {place} is missing; restore it from a copy, or leave that epoch out with "
        "--epoch"
    )
    assert_only_damaged(sharded, "conv", 1)


def test_a_missing_layer(sharded):
    folder = stores.segment_folder(sharded, 1) / "train" / "conv"
    folder.rename(folder.with_name("elsewhere"))
    with pytest.raises(DamagedError, match=r"layer 'conv', epoch 1: .*/conv/zarr.json is missing"):
        stores.layer_values(sharded, "conv", 1)
    assert_only_damaged(sharded, "conv", 1)


def test_a_record_without_its_segment(store):
    shutil.rmtree(stores.segment_folder(store, 1) / "train")
    assert Store.open(store).run("run0").epochs == [0, 1]
    for layer in VALUES:
        with pytest.raises(DamagedError) as caught:
            stores.layer_values(store, layer, 1)
        assert str(caught.value).startswith(f"run 'run0', layer {layer!r}, epoch 1: {stores.segment_folder(store, 1)}")
        assert str(caught.value).endswith(
            "zarr.json is missing; restore it from a copy, or leave that epoch out with --epoch"
        )
        np.testing.assert_array_equal(stores.layer_values(store, layer, 0), VALUES[layer][0])


def test_a_truncated_file_is_told_before_anything_is_read(sharded):
    shard = stores.segment_folder(sharded, 0) / "train" / "conv" / "c.0.2.0.0"
    size = shard.stat().st_size
    os.truncate(shard, size - 1)
    run = Store.open(sharded).run("run0")
    blocks = run.segment(0).blocks(run.manifest.splits[0], run.layer("conv"), 0)
    with pytest.raises(
        DamagedError, match=rf"conv/c.0.2.0.0 cannot be read \(it has {size - 1} bytes instead of {size}\)"
    ):
        next(blocks)
    assert_only_damaged(sharded, "conv", 0)


def test_a_file_that_vanishes_while_others_are_read_is_not_taken_for_fill_values(sharded, monkeypatch):
    monkeypatch.setattr(committed, "TURN_BYTES", 1)
    run = Store.open(sharded).run("run0")
    blocks = run.segment(0).blocks(run.manifest.splits[0], run.layer("conv"), 0)
    np.testing.assert_array_equal(next(blocks), VALUES["conv"][0, :2])
    (stores.segment_folder(sharded, 0) / "train" / "conv" / "c.0.2.0.0").unlink()
    with pytest.raises(DamagedError, match=r"layer 'conv', epoch 0: .*/conv/c.0.2.0.0 is missing"):
        list(blocks)


def test_a_chunk_is_read_by_itself(sharded):
    run = Store.open(sharded).run("run0")
    array = run.segment(1).array(run.manifest.splits[0], run.layer("conv"))
    rows, values = array.chunk_rows(), VALUES["conv"][1]
    for number in range(-(-len(values) // rows)):
        np.testing.assert_array_equal(array.chunk((0,), number), values[number * rows : (number + 1) * rows])


@pytest.mark.parametrize("place", ["chunk", "index"])
def test_damage_is_found_where_a_chunk_is_read_and_costs_no_other(sharded, place):
    run = Store.open(sharded).run("run0")
    shard = stores.segment_folder(sharded, 1) / "train" / "conv" / "c.0.1.0.0"
    content = bytearray(shard.read_bytes())
    content[2 if place == "chunk" else -2] ^= 1
    shard.write_bytes(content)
    array = run.segment(1).array(run.manifest.splits[0], run.layer("conv"))
    per_shard = array._coded[1].grid[1]
    np.testing.assert_array_equal(array.chunk((0,), 0), VALUES["conv"][1, : array.chunk_rows()])
    with pytest.raises(DamagedError, match=r"layer 'conv', epochs 1: .*c\.0\.1\.0\.0 cannot be read \(.* checksum\)"):
        array.chunk((0,), per_shard)
    os.truncate(shard, 5)
    again = run.segment(1).array(run.manifest.splits[0], run.layer("conv"))
    with pytest.raises(DamagedError, match=r"c\.0\.1\.0\.0 cannot be read \(it has 5 bytes instead of"):
        again.chunk((0,), 0)


@pytest.mark.parametrize("file", ["zarr.json", "c.0.1.0.0"])
def test_a_flipped_byte_anywhere_is_found(sharded, file):
    path = stores.segment_folder(sharded, 1) / "train" / "conv" / file
    whole = path.read_bytes()
    # Of the metadata, whose checksum is looked at as a whole, every 16th byte; of a shard each one.
    for position in range(0, len(whole), 16 if file == "zarr.json" else 1):
        path.write_bytes(whole[:position] + bytes([whole[position] ^ 0x10]) + whole[position + 1 :])
        with pytest.raises(DamagedError) as caught:
            stores.layer_values(sharded, "conv", 1)
        assert str(caught.value).startswith(f"run 'run0', layer 'conv', epoch 1: {path} cannot be read (")
        assert str(caught.value).endswith("; restore it from a copy, or leave that epoch out with --epoch")
    assert_only_damaged(sharded, "conv", 1)
    path.write_bytes(whole)
    stores.assert_run(sharded, VALUES, [0, 1])


def test_a_layer_that_the_record_does_not_name(store):
    record = stores.segment_folder(store, 0) / "zarr.json"
    files = group_attributes(record.read_bytes())["files"]
    alter(record, files={file: info for file, info in files.items() if "/conv/" not in file})
    with pytest.raises(DamagedError, match=r"run 'run0', layer 'conv', epoch 0: .*conv/zarr.json cannot be read"):
        stores.layer_values(store, "conv", 0)
    assert_only_damaged(store, "conv", 0)


# ---- probe sets


def probe_of(store):
    run = Store.open(store).run("run0")
    return run.probe(run.manifest.splits[0])


def test_a_probe_set_without_its_record(store):
    (store / "data" / stores.PROBE.digest() / "zarr.json").unlink()
    with pytest.raises(
        DamagedError, match=r"is missing, which split 'train' of run 'run0' needs; restore it from a copy"
    ):
        probe_of(store)
    stores.assert_run(store, VALUES, [0, 1])


@pytest.mark.parametrize("content", ["{}", '{"attributes": {"files": []}}', '{"attributes": {"files": {"x": 1}}}'])
def test_a_probe_set_with_a_wrong_record(store, content):
    (store / "data" / stores.PROBE.digest() / "zarr.json").write_text(content)
    with pytest.raises(DamagedError, match="lacks what format 1 has there"):
        probe_of(store)


@pytest.mark.parametrize(
    ("array", "file", "read"),
    [
        ("x", "c.0.0.0", lambda probe: list(probe.x_blocks())),
        ("x", "zarr.json", lambda probe: list(probe.x_blocks())),
        ("x", "zarr.json", lambda probe: probe.x_form()),
        ("y", "c.0", lambda probe: probe.labels()),
        ("sample", "c.0", lambda probe: probe.samples()),
    ],
)
def test_a_probe_set_that_is_altered_or_torn(store, array, file, read):
    path = store / "data" / stores.PROBE.digest() / array / file
    whole = path.read_bytes()
    what = f"{array} of probe set {stores.PROBE.digest()}: {path}"
    for content in (whole[:-1], whole[:-1] + bytes([whole[-1] ^ 1]), None):
        path.write_bytes(content) if content is not None else path.unlink()
        with pytest.raises(DamagedError) as caught:
            read(probe_of(store))
        assert str(caught.value).startswith(what)
        assert str(caught.value).endswith("; restore it from a copy")
    path.write_bytes(whole)
    read(probe_of(store))


def test_a_run_without_its_manifest_is_listed_as_damaged(store):
    stores.write_run(store, VALUES, run="whole")
    (store / "runs" / "run0" / "zarr.json").unlink()
    lost, whole = Store.open(store).listing()
    assert (lost.name, lost.run, whole.name, whole.damage) == ("run0", None, "whole", ())
    [error] = lost.damage
    assert "run 'run0': " in str(error)
    assert "is missing, though epochs are committed below; restore it from a copy" in str(error)
