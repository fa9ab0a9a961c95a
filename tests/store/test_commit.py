"""The commit protocol, step by step."""

import hashlib
import json
from unittest.mock import MagicMock

import numpy as np
import pytest
import xarray
import zarr

from ibstore.errors import DamagedError, RunExistsError, StoreError, WriteError
from ibstore.store import ProbeSet, Store, create_store, write_probe_set
from ibstore.store.places import disk
from ibstore.store.places.disk import Disk
from ibstore.store.upkeep.report import Kind
from ibstore.store.upkeep.verify import verify

from . import stores


@pytest.fixture
def store(tmp_path):
    return tmp_path / "lab.zarr"


def files_below(folder):
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize("inner", ["in.zarr", "data/in.zarr", "runs/a/b/in.zarr"])
def test_no_store_lies_inside_another(store, inner):
    """`repair` of the outer one would take it for a stranger."""
    create_store(store)
    before = stores.tree(store)
    with pytest.raises(StoreError, match=r"in\.zarr lies inside the store .*lab\.zarr; choose a path outside of it"):
        create_store(store / inner)
    assert stores.tree(store) == before


def test_no_store_lies_inside_one_of_a_newer_format(store):
    create_store(store)
    (store / "zarr.json").write_bytes((store / "zarr.json").read_bytes().replace(b'format": 1', b'format": 9'))
    with pytest.raises(StoreError, match="lies inside the store"):
        create_store(store / "in.zarr")


def test_no_store_lies_inside_another_in_a_bucket(in_s3):
    create_store(in_s3)
    with pytest.raises(StoreError, match=r"runs/in lies inside the store .*lab\.zarr; choose a path outside of it"):
        create_store(f"{in_s3}/runs/in")
    create_store(f"{in_s3}.beside")


def test_before_its_record_an_epoch_does_not_exist(store):
    values = stores.layers()
    with stores.open_writer(store, values) as writer:
        stores.write_epoch(writer, values, 0)
        segment, folder = stores.fill(writer.segment(1), values, 1), stores.segment_folder(store, 1)
        assert (folder / "train" / "conv" / "zarr.json").exists()
        assert Store.open(store).run("run0").epochs == [0]
        assert stores.zarr_segments(store) == ["0000000000"]
        with pytest.raises(FileNotFoundError):
            zarr.open_group(folder, mode="r")
        with pytest.raises(FileNotFoundError):
            xarray.open_zarr(folder, consolidated=False)
        segment.commit()
        assert stores.zarr_segments(store) == ["0000000000", "0000000001"]
    stores.assert_run(store, values, [0, 1])


def test_a_record_is_put_when_all_that_it_names_lies_there_durably_and_nothing_else(store, monkeypatch):
    synced, checked, put_new, sync = set(), [], Disk.put_new, disk.sync

    def checking(self, key, content, **options):
        path = self.root / key
        named = json.loads(content).get("attributes", {}).get("files") if path.name == "zarr.json" else None
        if named is not None:
            folder = path.parent
            assert files_below(folder) == set(named)
            for file, (size, checksum) in named.items():
                content = (folder / file).read_bytes()
                assert (size, checksum) == (len(content), hashlib.sha256(content).hexdigest()[:32])
            assert {folder.parent, folder, *folder.rglob("*")} <= synced
            checked.append(folder.name)
        put_new(self, key, content, **options)

    monkeypatch.setattr(disk, "sync", lambda path: (synced.add(path), sync(path)))
    monkeypatch.setattr(Disk, "put_new", checking)
    stores.write_run(store, stores.layers())
    assert checked == [stores.PROBE.digest(), "0000000000", "0000000001"]


def test_groups_are_put_from_below(store, monkeypatch):
    """No reader meets a group before what it needs, nor a run before its writer is the only one."""
    put, put_new = [], Disk.put_new

    def noting(self, key, content, **options):
        put.append(key)
        put_new(self, key, content, **options)

    monkeypatch.setattr(Disk, "put_new", noting)
    stores.write_run(store, stores.layers(epochs=1))
    segment = "runs/run0/segments/0000000000"
    assert [key for key in put if not key.startswith(f"{segment}/train")] == [
        "data/zarr.json",
        "runs/zarr.json",
        "zarr.json",
        f"data/{stores.PROBE.digest()}/zarr.json",
        "runs/run0/lease.json",
        "runs/run0/segments/zarr.json",
        "runs/run0/zarr.json",
        f"{segment}/zarr.json",
    ]
    assert put[-1] == f"{segment}/zarr.json"


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


def test_who_writes_a_segment_beside_another_is_told_at_the_first_file(store, monkeypatch):
    values = stores.layers()
    with stores.open_writer(store, values) as writer:
        one = writer.segment(0)
        with monkeypatch.context() as patch:
            patch.setattr(Disk, "remove_below", lambda *_: None)  # its sweep came before the other's first file
            with pytest.raises(
                StoreError, match=r"segments/0000000000 is being written by another process; let one of them write it"
            ):
                writer.segment(0)
        stores.fill(one, values, 0).commit()
    stores.assert_run(store, values, [0])


def test_a_segment_whose_lease_was_taken_over_is_not_committed(store):
    values = stores.layers()
    with stores.open_writer(store, values) as writer:
        stores.write_epoch(writer, values, 0)
        segment = stores.fill(writer.segment(1), values, 1)
        (store / "runs" / "run0" / "lease.json").unlink()
        with pytest.raises(
            WriteError, match=r"run 'run0' was taken over by another writer, or its lease .* was removed"
        ):
            segment.commit()
        with pytest.raises(WriteError, match="run 'run0' was taken over by another writer"):
            writer.segment(2)
    stores.assert_run(store, values, [0])
    stores.write_run(store, values, resume=True)
    stores.assert_run(store, values, [0, 1])


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
        # Two writers of one run cannot be had while leases work; where they do not, the record decides.
        other = stores.fill(writer.segment(0), values, 0)
        stores.fill(writer.segment(0), values, 0).commit()
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
        stores.fill(segment, values, 0)
        segment.discard()
        assert stores.tree(store) == before
        stores.write_epoch(writer, values, 0)
    stores.assert_run(store, values, [0])


def test_an_abandoned_epoch_is_written_anew(store):
    values = stores.layers()
    with stores.open_writer(store, values) as writer:
        stores.fill(writer.segment(0), stores.layers(seed=1), 0)
        (stores.segment_folder(store) / "rubbish").touch()
        stores.write_epoch(writer, values, 0)
    assert stores.tree(store) == stores.tree(stores.write_run(store.with_name("other.zarr"), epoch_0(values)))


def epoch_0(values):
    return {name: each[:1] for name, each in values.items()}


def test_a_closed_run_takes_no_epoch(store):
    writer = stores.open_writer(store, stores.layers())
    writer.close()
    writer.close()
    with pytest.raises(WriteError, match="run 'run0' is closed; open it again with resume=True, or another run"):
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
    seen, sync = [], Disk.sync
    monkeypatch.setattr(Disk, "sync", lambda self, key: (seen.append(files_below(self.root / key)), sync(self, key)))
    write_probe_set(store, stores.PROBE)
    (written,) = seen
    assert "x/zarr.json" in written
    assert "zarr.json" not in written


@pytest.mark.parametrize("array", ["x", "y", "sample"])
def test_arrays_of_a_probe_set_are_written_while_it_has_no_record(store, monkeypatch, array):
    create_store(store)
    record = store / "data" / stores.PROBE.digest() / "zarr.json"
    seen, put = [], Disk.put

    def watching(self, key, content):
        put(self, key, content)
        seen.append((key.split("/")[2], record.exists()))

    monkeypatch.setattr(Disk, "put", watching)
    write_probe_set(store, stores.PROBE)
    assert (array, False) in seen
    assert (array, True) not in seen
    assert record.exists()


def test_the_samples_of_a_probe_set_are_in_order_of_the_run(store):
    probe = ProbeSet.of(stores.PROBE.x, None, np.array([5, 3, 9, 1, 0, 7]))
    stores.write_run(store, stores.layers(), probe=probe)
    group = zarr.open_group(stores.segment_folder(store) / "train", mode="r")
    assert group["sample"][...].tolist() == [5, 3, 9, 1, 0, 7]


# ---- a writer that slept between its right to write and its writing


def taken_over(store, values):
    """Another writer, for whom the one before is dead."""
    (store / "runs" / "run0" / "lease.json").unlink()
    return stores.open_writer(store, values, resume=True)


def test_who_slept_before_it_began_a_segment_removes_nothing_of_another_s(store, monkeypatch):
    mine, theirs = stores.layers(), stores.layers(seed=1)
    with stores.open_writer(store, mine) as slept:
        stores.write_epoch(slept, mine, 0)
        with taken_over(store, theirs) as other:
            stores.write_epoch(other, theirs, 1)
        for check in ("_check_new", "_lease"):  # it looked before the other came
            monkeypatch.setattr(slept, check, MagicMock())
        with pytest.raises(StoreError, match="is being written by another process"):
            slept.segment(1)
    np.testing.assert_array_equal(stores.layer_values(store, "conv", 1), theirs["conv"][1])


def asleep_once(segment):
    """Let the right to write be there when it is first asked for: the process sleeps right afterwards."""
    allowed, asked = segment._allowed, []
    segment._allowed = lambda: allowed() if asked else asked.append(True)


def test_a_record_over_another_s_files_is_taken_back(store):
    mine, theirs = stores.layers(), stores.layers(seed=1)
    with stores.open_writer(store, mine) as slept:
        segment = stores.fill(slept.segment(0), mine, 0)
        with taken_over(store, theirs) as other:
            beside = stores.fill(other.segment(0), theirs, 0)
            asleep_once(segment)
            with pytest.raises(WriteError, match="was taken over by another writer"):
                segment.commit()
            assert Store.open(store).run("run0").epochs == []
            beside.commit()
    stores.assert_run(store, theirs, [0])
    assert verify(store, deep=True).ok


def test_a_record_whose_files_were_swept_is_taken_back(store):
    values = stores.layers()
    with stores.open_writer(store, values) as slept:
        segment = stores.fill(slept.segment(0), values, 0)
        with taken_over(store, values):
            asleep_once(segment)
            with pytest.raises(WriteError, match="was taken over by another writer"):
                segment.commit()
    assert Store.open(store).run("run0").epochs == []


def test_a_record_that_landed_before_the_other_came_stands(store):
    values = stores.layers()
    with stores.open_writer(store, values) as slept:
        segment = stores.fill(slept.segment(0), values, 0)
        asleep_once(segment)
        (store / "runs" / "run0" / "lease.json").unlink()
        with pytest.raises(WriteError, match="was taken over by another writer"):
            segment.commit()
    stores.assert_run(store, values, [0])


# ---- a record that was lost


def test_a_lost_record_is_told_and_costs_nothing_more(store):
    values = stores.layers(4)
    stores.write_run(store, values)
    record = stores.segment_folder(store, 1) / "zarr.json"
    content = record.read_bytes()
    record.unlink()
    before = stores.tree(store)
    with pytest.raises(
        DamagedError,
        match=r"run 'run0', epoch 1: .*zarr.json is missing, though later epochs are committed; rest",
    ):
        stores.open_writer(store, values, resume=True)
    with pytest.raises(RunExistsError):
        stores.open_writer(store, values)
    assert stores.tree(store) == before
    damage = verify(store).damage
    assert [(found.run, found.epochs, found.kind) for found in damage] == [("run0", (1,), Kind.MISSING)]
    record.write_bytes(content)
    stores.assert_run(store, values, range(4))
    assert verify(store, deep=True).ok


@pytest.mark.parametrize("name", [".hidden", "0", "notes"])
def test_a_stranger_s_folder_among_the_segments_is_no_lost_record(store, name):
    values = stores.layers()
    stores.write_run(store, values)
    (store / "runs" / "run0" / "segments" / name).mkdir()
    with stores.open_writer(store, values, resume=True) as writer:
        assert writer.epochs == [0, 1]
