"""Repair: exactly the leftovers go, and nothing that was committed."""

import shutil

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ibstore.errors import RunBusyError
from ibstore.store.places import open_storage
from ibstore.store.places.lease import Holder, Lease
from ibstore.store.upkeep.repair import repair
from ibstore.store.upkeep.verify import verify

from . import stores

VALUES = stores.layers()
DEAD = b"{}"


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    return stores.write_run(tmp_path_factory.mktemp("repair") / "lab.zarr", VALUES)


@pytest.fixture
def store(tmp_path, whole):
    return shutil.copytree(whole, tmp_path / "lab.zarr")


def repaired(store):
    return [found.key for found in repair(store, verify(store).leftovers)]


LEFT = {
    "notes.txt": b"1",
    "runs/begun/segments/zarr.json": b"{}",
    "runs/begun/lease.json": DEAD,
    "runs/run0/lease.json": DEAD,
    "runs/run0/segments/0000000002/train/zarr.json": b"{}",
    "runs/run0/segments/0000000001/train/conv/extra": b"x",
    "data/00000000000000000000000000000000/x/zarr.json": b"{}",
}


@pytest.mark.parametrize("kind", ["disk", "memory"])
def test_leftovers_go_and_nothing_else(tmp_path, kind):
    location = {"disk": tmp_path / "lab.zarr", "memory": f"memory://{tmp_path}/lab.zarr"}[kind]
    stores.write_run(location, VALUES)
    before = stores.contents(location)
    storage = open_storage(location)
    for key, content in LEFT.items():
        storage.put(key, content)
    assert len(verify(location).leftovers) == 6
    assert sorted(repaired(location)) == sorted(
        [
            "notes.txt",
            "runs/begun",
            "runs/run0/lease.json",
            "runs/run0/segments/0000000002",
            "runs/run0/segments/0000000001/train/conv/extra",
            "data/00000000000000000000000000000000",
        ]
    )
    assert stores.contents(location) == before
    assert verify(location, deep=True).ok


PARTS = ["data", "runs", "run0", "segments", "0000000000", "0000000003", "train", "conv", "begun", "x", "0" * 32]


KEYS = st.tuples(st.lists(st.sampled_from(PARTS), max_size=6), st.sampled_from(["zarr.json", "y", ".z.1.partial"])).map(
    lambda key: "/".join([*key[0], key[1]])
)


@settings(max_examples=30, deadline=None)
@given(st.sets(KEYS, max_size=6))
def test_whatever_lies_about_committed_data_stay(whole, keys):
    """Anything that is put anywhere; what a record that cannot be read may name is damage, and stays too."""
    before = stores.tree(whole)
    try:
        for path in (whole / key for key in sorted(keys)):
            if not path.exists():
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(b"{}")
        repair(whole, verify(whole).leftovers)
        after, report = stores.tree(whole), verify(whole)
        assert {key: after.get(key) for key in before} == before
        assert report.leftovers == ()
        damaged = {found.key.rpartition("/")[0] for found in report.damage}
        for key in set(after) - set(before):
            assert any(f"{key}/".startswith(f"{head}/") or head.startswith(f"{key}/") for head in damaged)
    finally:
        for path in sorted(whole.rglob("*"), reverse=True):
            if path.relative_to(whole).as_posix() not in before:
                path.rmdir() if path.is_dir() else path.unlink()


def test_damage_is_not_touched(store):
    record = store / "runs/run0/segments/0000000001/zarr.json"
    record.write_bytes(b"{}")
    (store / "runs/run0/segments/0000000000/train/conv/zarr.json").unlink()
    (store / "runs/run0/zarr.json").write_bytes(b"")
    before = stores.tree(store)
    (store / "notes.txt").touch()
    assert repaired(store) == ["notes.txt"]
    assert stores.tree(store) == before


def test_a_run_that_is_being_written_is_let_alone(store):
    torn = store / "runs/run0/segments/0000000002"
    torn.mkdir()
    leftovers = verify(store).leftovers
    (store / "runs/run0/lease.json").write_bytes(Holder.here().dump())
    before, events = stores.tree(store), []
    assert repair(store, leftovers, events.append) == []
    assert stores.tree(store) == before
    assert "its leftovers stay: run 'run0' is being written by process" in events[-1].detail


def test_what_was_committed_since_it_was_listed_stays(store):
    torn = store / "runs/run0/segments/0000000001/zarr.json"
    record = torn.read_bytes()
    torn.unlink()
    leftovers = verify(store).leftovers
    assert [found.key for found in leftovers] == ["runs/run0/segments/0000000001"]
    torn.write_bytes(record)
    assert repair(store, leftovers) == []
    stores.assert_run(store, VALUES, [0, 1])


def test_no_writer_is_let_in_meanwhile(store, monkeypatch):
    (store / "runs/run0/segments/0000000002").mkdir()
    storage, refused = open_storage(store), []
    real = type(storage).remove_below

    def removing(self, key):
        with pytest.raises(RunBusyError):
            Lease(self, "runs/run0/lease.json", "run 'run0'")
        refused.append(key)
        real(self, key)

    monkeypatch.setattr(type(storage), "remove_below", removing)
    assert repaired(store) == refused == ["runs/run0/segments/0000000002"]
    assert verify(store).ok


def test_a_probe_set_that_may_be_on_its_way_stays(store):
    torn = store / "data" / ("0" * 32)
    torn.mkdir()
    leftovers = verify(store).leftovers
    (store / "runs/begun").mkdir()
    (store / "runs/begun/lease.json").write_bytes(Holder.here().dump())
    assert repair(store, leftovers) == []
    assert torn.is_dir()


def test_a_link_to_a_folder_goes_and_what_it_leads_to_stays(store, tmp_path):
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "theirs").touch()
    (store / "link").symlink_to(tmp_path / "elsewhere")
    assert repaired(store) == ["link"]
    assert verify(store).ok
    assert (tmp_path / "elsewhere" / "theirs").exists()
