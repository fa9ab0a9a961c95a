"""Verification: every kind of damage is told with the file's name, and nothing hides the rest."""

import json
import os
import shutil
from contextlib import contextmanager

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ibstore.errors import DamagedError, NewerFormatError, NotAStoreError
from ibstore.events import Event
from ibstore.store import ProbeSet, Store, create_store
from ibstore.store.format import layout
from ibstore.store.format.probe import data_digest
from ibstore.store.format.schema import file_info, group, group_attributes
from ibstore.store.places import open_storage
from ibstore.store.places.lease import Holder
from ibstore.store.upkeep.leftovers import unnamed
from ibstore.store.upkeep.remove import remove_runs
from ibstore.store.upkeep.report import Kind
from ibstore.store.upkeep.verify import verify

from . import stores

VALUES = stores.layers()
RUNS = ("run 1", "run0")
CONV = "runs/run0/segments/0000000001/train/conv"
PROBE = f"data/{stores.PROBE.digest()}"


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """A store to copy: two runs of one probe set; the second has both epochs in one segment."""
    store = tmp_path_factory.mktemp("verify") / "lab.zarr"
    stores.write_run(store, VALUES)
    with stores.open_writer(store, VALUES, run="run 1") as writer:
        stores.fill(writer.segment(3, 5), VALUES, 0, 1).commit([30, 50], [stores.METRICS] * 2)
    return store


@pytest.fixture
def store(tmp_path, whole):
    return shutil.copytree(whole, tmp_path / "lab.zarr")


def wholes(report):
    return {run.run: run.whole for run in report.runs}


def alone(report, kind, key):
    """The one thing that is wrong."""
    (found,) = report.findings
    assert (found.kind, found.key) == (kind, key)
    return found


def reseal(path, **changes):
    """Alter a record as somebody would who knows its checksum."""
    attributes = group_attributes(path.read_bytes())
    path.write_bytes(group({**attributes, **changes}))


def replace_file(store, key, content):
    """Alter a committed file and its record with it: damage that checksums do not show."""
    (store / key).write_bytes(content)
    segment, path = store.joinpath(*key.split("/")[:4]), "/".join(key.split("/")[4:])
    files = group_attributes((segment / "zarr.json").read_bytes())["files"]
    info = file_info(content)
    reseal(segment / "zarr.json", files={**files, path: [info.bytes, info.sha256]})


# ---- a store that is whole


def test_nothing_is_wrong(location):
    stores.write_run(location, VALUES)
    before, events = stores.contents(location), []
    assert verify(location).ok
    report = verify(location, deep=True, emit=events.append)
    assert (report.ok, report.findings, report.deep) == (True, (), True)
    assert wholes(report) == {"run0": (0, 1)}
    assert [(probe.digest, probe.whole, probe.runs) for probe in report.probe_sets] == [
        (stores.PROBE.digest(), True, ("run0",))
    ]
    assert events[-1] == Event("verify", 3, 3, "run 'run0', epoch 1")
    assert stores.contents(location) == before


def test_an_array_of_several_shards(tmp_path):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(layout, "SHARD_BYTES", 48)
        store = stores.write_run(tmp_path / "lab.zarr", VALUES)
    shards = sorted(path.name for path in (store / CONV).glob("c.*"))
    assert shards == ["c.0.0.0.0", "c.0.1.0.0", "c.0.2.0.0"]
    assert verify(store, deep=True).ok
    shard = (store / CONV / shards[2]).read_bytes()
    replace_file(store, f"{CONV}/{shards[2]}", bytes([shard[0] ^ 1]) + shard[1:])
    alone(verify(store, deep=True), Kind.DECODE, f"{CONV}/{shards[2]}")


def test_an_empty_store(tmp_path):
    report = verify(create_store(tmp_path / "lab.zarr"), deep=True)
    assert (report.findings, report.runs, report.probe_sets) == ((), (), ())


def test_what_is_no_store(tmp_path):
    with pytest.raises(NotAStoreError, match="there is no store at"):
        verify(tmp_path / "nothing.zarr")
    with pytest.raises(NotAStoreError, match=r"it has no zarr\.json"):
        verify(tmp_path)


def test_a_newer_format(store):
    (store / "zarr.json").write_bytes(group({"ibstore_format": 2}))
    with pytest.raises(NewerFormatError, match="has store format 2"):
        verify(store)


def test_json_comes_back(store):
    (store / CONV / "zarr.json").unlink()
    (store / "notes.txt").touch()
    document = json.loads(json.dumps(verify(store).dump()))
    assert {key: document[key] for key in ("report_format", "ok", "damage", "leftovers", "deep")} == {
        "report_format": 1,
        "ok": False,
        "damage": 1,
        "leftovers": 1,
        "deep": False,
    }
    assert [sorted(found) for found in document["findings"]] == [
        ["epochs", "key", "kind", "layer", "message", "run", "split"]
    ] * 2
    assert document["runs"][1] == {
        "run": "run0",
        "epochs": [0, 1],
        "whole": [0],
        "described": True,
        "writing": False,
    }


# ---- any byte


@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_any_flipped_byte_is_found_and_the_rest_is_good(whole, data):
    files = {path.relative_to(whole).as_posix(): path for path in sorted(whole.rglob("*")) if path.is_file()}
    key = data.draw(st.sampled_from(sorted(files)))
    before = files[key].read_bytes()
    position = data.draw(st.integers(0, len(before) - 1))
    after = bytes([before[position] ^ data.draw(st.integers(1, 255))])
    files[key].write_bytes(before[:position] + after + before[position + 1 :])
    try:
        report = verify(whole, deep=True)
    finally:
        files[key].write_bytes(before)
    assert {found.key for found in report.findings} == {key}
    assert all(str(whole / key) in found.message and not found.kind.is_leftover for found in report.findings)
    lost = {("run0", 0): "runs/run0/segments/0000000000/", ("run0", 1): "runs/run0/segments/0000000001/"}
    lost |= {("run 1", epoch): "runs/run=201/segments/0000000003/" for epoch in (3, 5)}
    good = {(run.run, epoch) for run in report.runs for epoch in run.whole}
    assert good == {place for place, head in lost.items() if not key.startswith(head)}
    assert [probe.whole for probe in report.probe_sets] == [not key.startswith(f"{PROBE}/")]


def test_every_kind_of_file_flipped_at_its_ends_and_middle(whole):
    """What chance may leave out: each file once, a bit of a middle byte."""
    for path in sorted(whole.rglob("*")):
        if path.is_file():
            before = path.read_bytes()
            middle = len(before) // 2
            path.write_bytes(before[:middle] + bytes([before[middle] ^ 1]) + before[middle + 1 :])
            try:
                report = verify(whole, deep=True)
            finally:
                path.write_bytes(before)
            assert {found.key for found in report.findings} == {path.relative_to(whole).as_posix()}


# ---- files


def test_a_truncated_shard(store):
    shard = f"{CONV}/c.0.0.0.0"
    size = (store / shard).stat().st_size
    os.truncate(store / shard, size - 1)
    found = alone(verify(store), Kind.SIZE, shard)
    assert found.message == (
        f"run 'run0', epoch 1, split 'train', layer 'conv': {store / shard} has {size - 1} bytes instead of {size}; "
        "restore it from a copy, or leave that epoch out with --epoch"
    )
    assert (found.run, found.epochs, found.split, found.layer) == ("run0", (1,), "train", "conv")
    assert wholes(verify(store)) == {"run 1": (3, 5), "run0": (0,)}


def test_a_flipped_byte_shows_only_deep(store):
    shard = store / CONV / "c.0.0.0.0"
    shard.write_bytes(bytes([shard.read_bytes()[0] ^ 1]) + shard.read_bytes()[1:])
    assert verify(store).ok
    found = alone(verify(store, deep=True), Kind.CHECKSUM, f"{CONV}/c.0.0.0.0")
    assert f"{shard} is not what was committed; restore it from a copy" in found.message


@pytest.mark.parametrize("deep", [False, True])
def test_a_commit_record_without_its_files(store, deep):
    for path in (store / CONV).iterdir():
        path.unlink()
    report = verify(store, deep=deep)
    assert {(found.kind, found.key) for found in report.findings} == {
        (Kind.MISSING, f"{CONV}/{name}") for name in ("zarr.json", "c.0.0.0.0")
    }
    assert all("is missing; restore it from a copy" in found.message for found in report.findings)


def test_a_file_that_cannot_be_read_hides_nothing(store):
    shard = store / CONV / "c.0.0.0.0"
    other = store / PROBE / "x" / "c.0.0.0"
    size = other.stat().st_size
    os.truncate(other, size - 1)
    storage = open_storage(store)
    real = type(storage).read

    def failing(self, key):
        if self.where(key) == str(shard):
            raise DamagedError(f"cannot read {shard}: Input/output error; mend that, then ask again")
        return real(self, key)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(type(storage), "read", failing)
        report = verify(store, deep=True)
    assert [(found.kind, found.key) for found in report.findings] == [
        (Kind.SIZE, f"{PROBE}/x/c.0.0.0"),
        (Kind.DECODE, f"{CONV}/c.0.0.0.0"),
    ]
    assert "Input/output error" in report.findings[1].message


# ---- records


def test_a_deleted_commit_record_leaves_a_torn_segment(store):
    (stores.segment_folder(store, 1) / "zarr.json").unlink()
    report = verify(store)
    found = alone(report, Kind.TORN, "runs/run0/segments/0000000001")
    assert f"is a segment that was never committed; `ibstore repair {store}` removes it" in found.message
    assert (found.run, found.epochs) == ("run0", (1,))
    assert wholes(report) == {"run 1": (3, 5), "run0": (0,)}
    assert (len(report.damage), len(report.leftovers)) == (0, 1)


@pytest.mark.parametrize("content", [b"", b"{}", b"[]", b"\xff", b'{"attributes": null}', group({}), b"null"])
def test_an_altered_record_of_a_segment(store, content):
    record = "runs/run0/segments/0000000001/zarr.json"
    (store / record).write_bytes(content)
    report = verify(store, deep=True)
    found = alone(report, Kind.RECORD, record)  # and not its files, which may be named by it
    assert f"epoch 1: {store / record}, its commit record, is not what was written" in found.message
    assert wholes(report) == {"run 1": (3, 5), "run0": (0,)}


@pytest.mark.parametrize(
    "key", ["runs/run0/zarr.json", "runs/run0/segments/0000000001/zarr.json", f"{PROBE}/zarr.json"]
)
@pytest.mark.parametrize("part", [b'"zarr_format"', b'"group"', b'"checksum"', b"\n "])
def test_a_record_altered_where_its_checksum_does_not_reach(store, key, part):
    content = (store / key).read_bytes()
    (store / key).write_bytes(content.replace(part, part[:-2] + bytes([part[-2] ^ 1]) + part[-1:], 1))
    alone(verify(store), Kind.RECORD, key)


@pytest.mark.parametrize("content", [b"", b"{}", group({"run": "run0"})])
def test_an_altered_manifest(store, content):
    (store / "runs/run0/zarr.json").write_bytes(content)
    report = verify(store, deep=True)
    found = alone(report, Kind.RECORD, "runs/run0/zarr.json")
    assert "run 'run0':" in found.message
    assert "its manifest, is not what was written" in found.message
    assert wholes(report) == {"run 1": (3, 5), "run0": (0, 1)}
    assert [run.described for run in report.runs] == [True, False]


def test_a_manifest_of_another_run(store):
    shutil.copy(store / "runs/run=201/zarr.json", store / "runs/run0/zarr.json")
    found = alone(verify(store), Kind.RECORD, "runs/run0/zarr.json")
    assert "it says that it is run 'run 1'" in found.message


def test_a_lost_manifest_is_damage_and_its_epochs_are_no_leftovers(store):
    (store / "runs/run0/zarr.json").unlink()
    report = verify(store, deep=True)
    found = alone(report, Kind.MISSING, "runs/run0/zarr.json")
    assert "is missing, though epochs are committed below; complete the `ibstore cp` that began it" in found.message
    assert wholes(report)["run0"] == (0, 1)


@pytest.mark.parametrize("key", ["zarr.json", "data/zarr.json", "runs/zarr.json", "runs/run0/segments/zarr.json"])
@pytest.mark.parametrize("kind", [Kind.MISSING, Kind.RECORD])
def test_groups_that_are_the_same_in_every_store(store, key, kind):
    (store / key).unlink() if kind is Kind.MISSING else (store / key).write_bytes(b"{}")
    report = verify(store, deep=True)
    assert "copy it from another store, where it is the same" in alone(report, kind, key).message
    assert wholes(report) == {"run 1": (3, 5), "run0": (0, 1)}


def test_epochs_in_two_segments(store):
    first, second = stores.segment_folder(store, 0), stores.segment_folder(store, 7)
    shutil.copytree(first, second)
    report = verify(store)
    assert {found.kind for found in report.findings} == {Kind.EPOCHS}
    assert {found.key for found in report.findings} == {"runs/run0/segments/0000000007/zarr.json"}
    assert any("it is committed in" in found.message for found in report.findings)
    assert any("behind epoch 1, or again" in found.message for found in report.findings)
    assert wholes(report)["run0"] == (1,)


# ---- forms


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"shape": [1, 6, 2, 3]}, r"is float32 (1, 6, 2, 3)"),
        ({"shape": [2, 6, 3, 2]}, r"is float32 (2, 6, 3, 2)"),
        ({"data_type": "float64"}, r"is float64 (1, 6, 3, 2)"),
        ({"dimension_names": ["epoch", "sample", "a", "b"]}, r"of (epoch, sample, a, b)"),
        ({"node_type": None, "shape": None}, r"is no array"),
    ],
)
def test_a_wrong_form(store, changes, said):
    document = json.loads((store / CONV / "zarr.json").read_bytes())
    replace_file(store, f"{CONV}/zarr.json", json.dumps({**document, **changes}).encode())
    found = alone(verify(store), Kind.FORM, f"{CONV}/zarr.json")
    assert said in found.message
    assert "instead of float32 (1, 6, 3, 2) of (epoch, sample, conv_0, conv_1)" in found.message


def test_a_layer_that_the_record_does_not_name(store):
    shutil.rmtree(store / CONV)
    record = store / "runs/run0/segments/0000000001/zarr.json"
    files = group_attributes(record.read_bytes())["files"]
    reseal(record, files={path: info for path, info in files.items() if "/conv/" not in path})
    found = alone(verify(store), Kind.FORM, f"{CONV}/zarr.json")
    assert "layer 'conv': " in found.message
    assert "is not in the commit record" in found.message


def test_a_chunk_that_the_record_does_not_name(store):
    (store / CONV / "c.0.0.0.0").unlink()
    record = store / "runs/run0/segments/0000000001/zarr.json"
    files = group_attributes(record.read_bytes())["files"]
    reseal(record, files={path: info for path, info in files.items() if "/conv/c." not in path})
    found = alone(verify(store, deep=True), Kind.FORM, f"{CONV}/c.0.0.0.0")
    assert "is not in the commit record" in found.message


def test_a_chunk_that_does_not_decode(store):
    shard = (store / CONV / "c.0.0.0.0").read_bytes()
    replace_file(store, f"{CONV}/c.0.0.0.0", bytes([shard[0] ^ 1]) + shard[1:])
    assert verify(store).ok
    found = alone(verify(store, deep=True), Kind.DECODE, f"{CONV}/c.0.0.0.0")
    assert "cannot be decoded (chunk 0 does not fit its checksum)" in found.message


@pytest.mark.parametrize(("name", "values"), [("epoch", [4]), ("sample", [10, 11, 12, 20, 22, 21])])
def test_a_coordinate_that_says_something_else(store, name, values):
    from ibstore.store.format.arrays import coordinate

    files = coordinate(name, np.array(values, np.int64))
    key = f"runs/run0/segments/0000000001/train/{name}/c.0"
    replace_file(store, key, files["c.0"])
    assert verify(store).ok
    found = alone(verify(store, deep=True), Kind.FORM, key)
    assert "does not hold what the record and the probe set say" in found.message


# ---- probe sets


def test_a_probe_set_of_other_data(store):
    """Whole by its record, but of another digest than its name."""
    other = ProbeSet.of(stores.PROBE.x, 1 + stores.PROBE.y, stores.PROBE.sample)
    stores.write_run(store, VALUES, run="other", probe=other)
    shutil.rmtree(store / PROBE)
    shutil.copytree(store / "data" / other.digest(), store / PROBE)
    assert verify(store).ok
    found = alone(verify(store, deep=True), Kind.FORM, f"{PROBE}/zarr.json")
    assert f"is of data whose digest is {other.digest()}" in found.message
    assert "(of run 1, run0)" in found.message


def test_a_lost_probe_set(store):
    shutil.rmtree(store / PROBE)
    report = verify(store)
    assert {(found.kind, found.key, found.run, found.split) for found in report.findings} == {
        (Kind.MISSING, f"{PROBE}/zarr.json", run, "train") for run in RUNS
    }
    assert wholes(report) == {"run 1": (3, 5), "run0": (0, 1)}


def test_a_torn_probe_set(store):
    torn = "data/" + "0" * 32
    (store / torn / "x").mkdir(parents=True)
    (store / torn / "x" / "zarr.json").touch()
    found = alone(verify(store), Kind.TORN, torn)
    assert "is a probe set that was never committed" in found.message


def test_the_digest_of_blocks_is_that_of_the_whole():
    x = stores.PROBE.x
    arrays = [(each.dtype, each.shape, [each]) for each in (stores.PROBE.y, stores.PROBE.sample)]
    assert data_digest((x.dtype, x.shape, [x[:1], x[1:4], x[4:]]), *arrays) == stores.PROBE.digest()


# ---- leftovers


@pytest.mark.parametrize(
    ("place", "key", "kind"),
    [
        ("notes.txt", "notes.txt", Kind.FOREIGN),
        ("notes/a/b", "notes", Kind.FOREIGN),
        (".zattrs", ".zattrs", Kind.FOREIGN),
        (".zarr.json.1.partial", ".zarr.json.1.partial", Kind.TEMPORARY),
        ("data/other/x", "data/other", Kind.FOREIGN),
        (f"{PROBE}/x/extra", f"{PROBE}/x/extra", Kind.FOREIGN),
        ("runs/notes.txt", "runs/notes.txt", Kind.FOREIGN),
        ("runs/my run/zarr.json", "runs/my run", Kind.FOREIGN),
        ("runs/begun/segments/zarr.json", "runs/begun", Kind.TORN),
        ("runs/begun/lease.json", "runs/begun", Kind.TORN),
        ("runs/run0/lease.json", "runs/run0/lease.json", Kind.LEASE),
        ("runs/run0/segments/.zarr.json.1.partial", "runs/run0/segments/.zarr.json.1.partial", Kind.TEMPORARY),
        ("runs/run0/segments/0000000002/train/x", "runs/run0/segments/0000000002", Kind.TORN),
        ("runs/run0/segments/two/x", "runs/run0/segments/two", Kind.FOREIGN),
        (f"{CONV}/.c.0.1.partial", f"{CONV}/.c.0.1.partial", Kind.TEMPORARY),
        (f"{CONV}/c.9.9.9.9", f"{CONV}/c.9.9.9.9", Kind.FOREIGN),
        ("runs/run0/segments/0000000001/test/conv/c.0", "runs/run0/segments/0000000001/test", Kind.FOREIGN),
    ],
)
def test_what_no_record_names(store, place, key, kind):
    path = store / place
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"123")
    report = verify(store, deep=True)
    found = alone(report, kind, key)
    assert f"{store / key} (1 file, 3 B) is " in found.message
    assert found.message.endswith(f"`ibstore repair {store}` removes it")
    assert kind.is_leftover
    assert wholes(report) == {"run 1": (3, 5), "run0": (0, 1)}


@pytest.mark.parametrize("place", ["empty", "data/empty", "runs/begun", "runs/run0/segments/0000000002"])
def test_empty_folders(store, place):
    (store / place).mkdir()
    (found,) = verify(store).leftovers
    assert found.key == place


@contextmanager
def holding(location, run="run0"):
    """A live writer's lease."""
    path = location / "runs" / run / "lease.json"
    path.write_bytes(Holder.here().dump())
    yield
    path.unlink()


def test_nothing_below_a_run_that_is_being_written_is_left_over(store):
    for place in ("runs/run0/segments/0000000002/train/x", "runs/run0/.zarr.json.1.partial", "data/" + "0" * 32 + "/x"):
        (store / place).parent.mkdir(parents=True, exist_ok=True)
        (store / place).touch()
    with holding(store):
        report = verify(store, deep=True)
        assert report.ok
        assert [run.writing for run in report.runs] == [False, True]
    assert len(verify(store).leftovers) == 3


def test_damage_in_a_run_that_is_being_written_is_told(store):
    (store / CONV / "zarr.json").unlink()
    with holding(store):
        alone(verify(store), Kind.MISSING, f"{CONV}/zarr.json")


def test_a_store_that_is_being_written(tmp_path):
    store = tmp_path / "lab.zarr"
    with stores.open_writer(store, VALUES) as writer:
        assert verify(store, deep=True).ok
        stores.write_epoch(writer, VALUES, 0)
        stores.fill(writer.segment(1), VALUES, 1)
        report = verify(store, deep=True)
        assert report.ok
        assert wholes(report) == {"run0": (0,)}


def test_a_run_that_is_removed_meanwhile_is_no_damage(store):
    def remove(event):
        if event.detail == "run 'run0', epoch 0":
            remove_runs(store, ["run0"])

    report = verify(store, deep=True, emit=remove)
    assert report.ok
    assert wholes(report) == {"run 1": (3, 5)}


@given(
    st.sets(st.text("ab/", min_size=1, max_size=6).filter(lambda key: "" not in key.split("/")), max_size=12),
    st.data(),
)
def test_leftovers_are_what_is_not_named_and_nothing_else(found, data):
    found = {key for key in found if not any(other.startswith(f"{key}/") for other in found)}  # a file is no folder
    named = data.draw(st.sets(st.sampled_from(sorted(found)))) if found else set()
    tops = unnamed(found, named)
    covered = {key for key in found if any(f"{key}/".startswith(f"{top}/") for top in tops)}
    assert covered == found - named


# ---- listings


def test_one_damaged_manifest_does_not_hide_the_other_runs(store):
    (store / "runs/run0/zarr.json").write_bytes(b"{}")
    listing = Store.open(store).listing()
    assert [(found.name, found.run is None, len(found.damage)) for found in listing] == [
        ("run 1", False, 0),
        ("run0", True, 1),
    ]
    with pytest.raises(DamagedError, match=r"run0/zarr\.json"):
        Store.open(store).runs()


def test_one_damaged_segment_does_not_hide_the_other_epochs_from_a_listing_alone(store):
    (store / "runs/run0/segments/0000000001/zarr.json").write_bytes(b"{}")
    _, found = Store.open(store).listing()
    assert (found.run.epochs, len(found.damage)) == ([0], 1)
    with pytest.raises(DamagedError, match=r"0000000001/zarr\.json"):
        _ = Store.open(store).run("run0").epochs
