"""The commit protocol, step by step."""

import hashlib
import json

import numpy as np
import pytest
import xarray
import zarr

from ibstore.errors import StoreError, WriteError
from ibstore.store import ProbeSet, SegmentWriter, Store, create_store, files, write_probe_set

from . import stores


@pytest.fixture
def store(tmp_path):
    return tmp_path / "lab.zarr"


def fill(segment, arrays, epoch=0):
    for name, values in arrays.items():
        segment.append("train", name, values[epoch])


def files_below(folder):
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}


def test_before_its_record_an_epoch_does_not_exist(store):
    values = stores.layers()
    with stores.open_writer(store, values) as writer:
        stores.write_epoch(writer, values, 0)
        segment = writer.segment(1)
        fill(segment, values, 1)
        assert (segment.folder / "train" / "conv" / "zarr.json").exists()
        assert Store.open(store).run("run0").epochs == [0]
        assert stores.zarr_segments(store) == ["0000000000"]
        with pytest.raises(FileNotFoundError):
            zarr.open_group(segment.folder, mode="r")
        with pytest.raises(FileNotFoundError):
            xarray.open_zarr(segment.folder, consolidated=False)
        segment.commit()
        assert stores.zarr_segments(store) == ["0000000000", "0000000001"]
    stores.assert_run(store, values, [0, 1])


def test_a_record_is_put_when_all_that_it_names_lies_there_durably_and_nothing_else(store, monkeypatch):
    synced, checked, put_new, sync = set(), [], files.put_new, files.sync

    def checking(path, document):
        named = document["attributes"].get("files")
        if named is not None:
            folder = path.parent
            assert files_below(folder) == set(named)
            for file, (size, checksum) in named.items():
                content = (folder / file).read_bytes()
                assert (size, checksum) == (len(content), hashlib.sha256(content).hexdigest()[:32])
            assert {folder.parent, folder, *folder.rglob("*")} <= synced
            checked.append(folder.name)
        put_new(path, document)

    monkeypatch.setattr(files, "sync", lambda path: (synced.add(path), sync(path)))
    monkeypatch.setattr(files, "put_new", checking)
    stores.write_run(store, stores.layers())
    assert checked == [stores.PROBE.digest(), "0000000000", "0000000001"]


def test_groups_are_put_from_below(store, monkeypatch):
    put, put_new = [], files.put_new
    monkeypatch.setattr(files, "put_new", lambda path, document: (put.append(path.parent), put_new(path, document)))
    stores.write_run(store, stores.layers(epochs=1))
    run = store / "runs" / "run0"
    assert put == [
        store / "data",
        store / "runs",
        store,
        store / "data" / stores.PROBE.digest(),
        run / "segments",
        run,
        stores.segment_folder(store),
    ]


def test_records_are_strict_json(store):
    stores.write_run(store, stores.layers())

    def refuse(word):
        raise AssertionError(word)

    for path in store.rglob("zarr.json"):
        json.loads(path.read_text(), parse_constant=refuse)
    assert "NaN" in (stores.segment_folder(store) / "zarr.json").read_text()  # as a word: METRICS holds one


def test_every_file_is_named_by_a_record_or_is_one(store):
    stores.write_run(store, stores.layers())
    groups = [store, store / "data", store / "runs", store / "runs" / "run0", store / "runs" / "run0" / "segments"]
    known = {group / "zarr.json" for group in groups}
    for record in [*store.glob("data/*/zarr.json"), *store.glob("runs/*/segments/*/zarr.json")]:
        named = json.loads(record.read_text())["attributes"]["files"]
        known |= {record, *(record.parent / file for file in named)}
    assert {path for path in store.rglob("*") if path.is_file()} == known


def test_an_epoch_with_missing_rows_is_refused_and_can_be_completed(store):
    values = stores.layers()
    with stores.open_writer(store, values) as writer:
        segment = writer.segment(0)
        segment.append("train", "conv", values["conv"][0])
        segment.append("train", "out:1", values["out:1"][0, :4])
        with pytest.raises(
            StoreError,
            match="layer 'out:1' of split 'train' has 4 of 6 samples of epoch 0; record the whole probe set before",
        ):
            segment.commit()
        assert Store.open(store).run("run0").epochs == []
        segment.append("train", "out:1", values["out:1"][0, 4:])
        segment.commit()
    stores.assert_run(store, values, [0])


def test_an_epoch_is_committed_once(store):
    values = stores.layers()
    with stores.open_writer(store, values) as writer:
        stores.write_epoch(writer, values, 0)
        before = stores.tree(store)
        with pytest.raises(StoreError, match="epoch 0 of run 'run0' is committed already; give every epoch its own"):
            writer.segment(0)
    assert stores.tree(store) == before


def test_who_loses_a_race_for_an_epoch_is_told_and_leaves_the_winner_alone(store):
    values = stores.layers()
    with stores.open_writer(store, values) as writer:
        one = writer.segment(0)
        fill(one, values)
        # Two writers of one run cannot be had while locks work; where they do not, the record decides.
        other = SegmentWriter(one.folder, 0, writer.manifest.layers, samples={})
        one.commit()
        before = stores.tree(store)
        with pytest.raises(StoreError, match="epoch 0 was committed by another writer meanwhile; record under another"):
            other.commit()
        other.discard()
        assert stores.tree(store) == before
    stores.assert_run(store, values, [0])


def test_what_is_discarded_leaves_nothing(store):
    values = stores.layers()
    with stores.open_writer(store, values) as writer:
        before = stores.tree(store)
        segment = writer.segment(0)
        fill(segment, values)
        segment.discard()
        assert stores.tree(store) == before
        stores.write_epoch(writer, values, 0)
    stores.assert_run(store, values, [0])


def test_an_abandoned_epoch_is_written_anew(store):
    values = stores.layers()
    with stores.open_writer(store, values) as writer:
        fill(writer.segment(0), stores.layers(seed=1))
        (writer.segments / "0000000000" / "rubbish").touch()
        stores.write_epoch(writer, values, 0)
    assert stores.tree(store) == stores.tree(stores.write_run(store.with_name("other.zarr"), epoch_0(values)))


def epoch_0(values):
    return {name: each[:1] for name, each in values.items()}


def test_a_closed_run_takes_no_epoch(store):
    writer = stores.open_writer(store, stores.layers())
    writer.close()
    writer.close()
    with pytest.raises(WriteError, match="run 'run0' is closed; open it again under another run name"):
        writer.segment(0)


def test_a_probe_set_without_its_record_is_written_anew(store):
    """Zarr itself puts a group record above an array: taken for the commit, it would name an empty probe set."""
    create_store(store)
    digest = stores.PROBE.digest()
    zarr.create_array(zarr.storage.LocalStore(store / "data" / digest), name="x", shape=(6, 2, 2), dtype="f4")
    (store / "data" / digest / "zarr.json").unlink()
    (store / "data" / "of-another-data-set" / "x").mkdir(parents=True)
    assert write_probe_set(store, stores.PROBE) == digest
    assert sorted(path.name for path in (store / "data").iterdir()) == [digest, "zarr.json"]
    assert files_below(store / "data" / digest) == {
        "zarr.json",
        *(
            f"{array}/{file}"
            for array in ("x", "y", "sample")
            for file in ("zarr.json", "c.0" if array != "x" else "c.0.0.0")
        ),
    }


def test_a_probe_set_has_no_record_while_it_is_written(store, monkeypatch):
    create_store(store)
    seen = []
    sync_tree = files.sync_tree
    monkeypatch.setattr(files, "sync_tree", lambda root: (seen.append(files_below(root)), sync_tree(root)))
    write_probe_set(store, stores.PROBE)
    (written,) = seen
    assert "x/zarr.json" in written
    assert "zarr.json" not in written


@pytest.mark.parametrize("array", ["x", "y", "sample"])
def test_arrays_of_a_probe_set_are_written_while_it_has_no_record(store, monkeypatch, array):
    from ibstore.store import arrays

    create_store(store)
    record = store / "data" / stores.PROBE.digest() / "zarr.json"
    seen = []
    real = arrays.create

    def watching(target, name, *arguments, **options):
        created = real(target, name, *arguments, **options)
        seen.append((name, record.exists()))
        return created

    monkeypatch.setattr(arrays, "create", watching)
    write_probe_set(store, stores.PROBE)
    assert (array, False) in seen
    assert (array, True) not in seen
    assert record.exists()


def test_the_samples_of_a_probe_set_are_in_order_of_the_run(store):
    probe = ProbeSet.of(stores.PROBE.x, None, np.array([5, 3, 9, 1, 0, 7]))
    stores.write_run(store, stores.layers(), probe=probe)
    group = zarr.open_group(stores.segment_folder(store) / "train", mode="r")
    assert group["sample"][...].tolist() == [5, 3, 9, 1, 0, 7]
