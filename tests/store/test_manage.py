"""Copying, merging and removing runs: records stay true, and what was cut short can be completed."""

import itertools
import shutil
import warnings

import numpy as np
import pytest
import zarr

from ibstore.errors import DamagedError, RunBusyError, RunExistsError, StoreError, UnknownNameError, UsageError
from ibstore.store import ProbeSet, Store
from ibstore.store.places import open_storage
from ibstore.store.places.bucket import Bucket
from ibstore.store.places.disk import Disk
from ibstore.store.places.lease import Holder
from ibstore.store.states import States
from ibstore.store.upkeep.copy import copy_runs, merge_stores
from ibstore.store.upkeep.remove import plan_removal, remove_runs
from ibstore.store.upkeep.verify import verify

from . import stores

VALUES = stores.layers()
OTHER = ProbeSet.of(stores.PROBE.x + 1, None, stores.PROBE.sample)


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """Two runs of one probe set, and one of another."""
    store = tmp_path_factory.mktemp("manage") / "lab.zarr"
    stores.write_run(store, VALUES)
    stores.write_run(store, stores.layers(seed=1), run="run 1")
    stores.write_run(store, VALUES, run="other", probe=OTHER)
    return store


@pytest.fixture
def store(tmp_path, whole):
    return shutil.copytree(whole, tmp_path / "lab.zarr")


# ---- cp


def test_there_and_back(whole, location, tmp_path):
    back = tmp_path / "back.zarr"
    assert copy_runs(whole, location) == ["other", "run 1", "run0"]
    assert stores.contents(location) == stores.contents(whole)
    assert copy_runs(location, back) == ["other", "run 1", "run0"]
    assert stores.tree(back) == stores.tree(whole)
    assert verify(location, deep=True).ok


def test_chosen_runs_bring_their_probe_sets_alone(whole, in_memory):
    events = []
    assert copy_runs(whole, in_memory, ["run0"], events.append) == ["run0"]
    report = verify(in_memory, deep=True)
    assert report.ok
    assert [probe.digest for probe in report.probe_sets] == [stores.PROBE.digest()]
    stores.assert_run(in_memory, VALUES, [0, 1])
    assert (events[-1].done, events[-1].total, events[-1].detail) == (3, 3, "run run0, epoch 1")
    copy_runs(whole, in_memory, ["run 1", "other"])
    assert stores.contents(in_memory) == stores.contents(whole)


def test_a_run_that_is_there_already_is_not_copied_again(whole, in_memory):
    copy_runs(whole, in_memory, ["run0", "run 1"])
    events = []
    assert copy_runs(whole, in_memory, emit=events.append) == ["other"]
    assert [event.detail for event in events if event.is_notice] == [
        f"run {name!r} is in {in_memory} already, the same" for name in ("run 1", "run0")
    ]
    assert stores.contents(in_memory) == stores.contents(whole)
    assert copy_runs(whole, in_memory) == []


def test_a_run_of_that_name_that_is_another_is_refused(whole, in_memory):
    stores.write_run(in_memory, stores.layers(seed=5))
    before = stores.contents(in_memory)
    with pytest.raises(
        RunExistsError, match=r"nothing was copied: .*, another run of the name 'run0'; choose runs with"
    ):
        copy_runs(whole, in_memory)
    assert stores.contents(in_memory) == before
    open_storage(in_memory).remove("runs/run0/zarr.json")  # as half a copy of it would be
    with pytest.raises(RunExistsError):
        copy_runs(whole, in_memory, ["run0"])
    assert stores.contents(in_memory).items() <= before.items()


def test_a_run_that_has_grown_is_brought_up_to_date(tmp_path, in_memory):
    store = tmp_path / "lab.zarr"
    with stores.open_writer(store, VALUES) as writer:
        stores.write_epoch(writer, VALUES, 0)
        copy_runs(store, in_memory)  # while it is being written: as it stands
        stores.assert_run(in_memory, VALUES, [0])
        assert verify(in_memory, deep=True).ok
        stores.write_epoch(writer, VALUES, 1)
    copy_runs(store, in_memory)
    stores.assert_run(in_memory, VALUES, [0, 1])
    assert stores.contents(in_memory) == stores.contents(store)


def test_what_was_never_committed_is_not_copied(store, in_memory, whole):
    (store / "runs/run0/segments/0000000002/train").mkdir(parents=True)
    (store / "runs/run0/segments/0000000002/train/zarr.json").touch()
    (store / "runs/run0/lease.json").write_bytes(b"{}")
    (store / "notes.txt").touch()
    copy_runs(store, in_memory)
    assert stores.contents(in_memory) == stores.contents(whole)


def places(tmp_path):
    return {"disk": tmp_path / "copy.zarr", "memory": f"memory://{tmp_path}/copy.zarr"}


@pytest.mark.parametrize("kind", ["disk", "memory"])
def test_a_copy_that_is_killed_at_any_put_can_be_completed(whole, tmp_path, monkeypatch, kind):
    """Killed at its 1st, 2nd, 3rd … put and then again and again, until it is through: the copy is the same."""

    class KilledError(BaseException):
        pass

    target, storage = places(tmp_path)[kind], {"disk": Disk, "memory": Bucket}[kind]
    puts = {name: getattr(storage, name) for name in ("put", "put_new")}
    left = 0

    def dying(name):
        def put(self, key, content, **options):
            nonlocal left
            if not key.endswith("lease.json"):
                if left == 0:
                    raise KilledError
                left -= 1
            puts[name](self, key, content, **options)

        return put

    for name in puts:
        monkeypatch.setattr(storage, name, dying(name))
    kills = 0
    for allowed in itertools.chain(range(12), itertools.repeat(12)):
        left = allowed
        try:
            copy_runs(whole, target)
        except KilledError:
            kills += 1
            assert set(Store.open(target).run_names() if open_storage(target).has("zarr.json") else []) <= {
                "other",
                "run 1",
                "run0",
            }
            assert_readable_runs_are_whole(target)
        else:
            break
    assert kills > 12
    assert stores.contents(target) == stores.contents(whole)


def assert_readable_runs_are_whole(target):
    """A run is there when all of it is."""
    if open_storage(target).has("zarr.json"):
        for run in Store.open(target).runs():
            assert run.epochs == [0, 1]


def test_each_instant_of_a_copy_is_safe(whole, tmp_path):
    """One kill, at every put in turn, then a second copy."""
    copy_runs(whole, f"memory://{tmp_path}/whole", ["run0"])
    due = stores.contents(f"memory://{tmp_path}/whole")
    real = Bucket._put
    for kill in range(len(due)):
        target, error = f"memory://{tmp_path}/{kill}", StoreError("killed")
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(Bucket, "_put", stores.calls_before(real, kill, error))
            with pytest.raises(StoreError, match="killed"):
                copy_runs(whole, target, ["run0"])
        copy_runs(whole, target, ["run0"])
        assert stores.contents(target) == due


@pytest.mark.parametrize("change", [lambda old: old[:-1], lambda old: bytes([old[0] ^ 1]) + old[1:], None])
@pytest.mark.parametrize(
    "key", ["runs/run0/segments/0000000001/train/conv/c.0.0.0.0", f"data/{OTHER.digest()}/x/c.0.0.0"]
)
def test_what_is_damaged_is_not_copied(store, in_memory, change, key):
    path = store / key
    path.write_bytes(change(path.read_bytes())) if change else path.unlink()
    fact = "is not what was committed" if change else "is missing"
    with pytest.raises(DamagedError, match=rf"{path} {fact}; see what is whole with `ibstore verify"):
        copy_runs(store, in_memory)
    assert "run0" not in Store.open(in_memory).run_names()
    copy_runs(store, in_memory, ["run 1"])
    stores.assert_run(in_memory, stores.layers(seed=1), [0, 1], "run 1")


def test_a_run_that_is_being_written_there_is_refused(whole, tmp_path):
    target = tmp_path / "copy.zarr"
    copy_runs(whole, target, ["other"])
    (target / "runs/run0").mkdir()
    (target / "runs/run0/lease.json").write_bytes(Holder.here().dump())
    before = stores.tree(target)
    with pytest.raises(RunBusyError, match="run 'run0' is being written by"):
        copy_runs(whole, target, ["run 1", "run0"])
    after = stores.tree(target)
    assert {key for key in after if after[key] != "folder"} == {key for key in before if before[key] != "folder"}


def test_what_cannot_be_meant(whole, tmp_path, monkeypatch):
    with pytest.raises(UnknownNameError, match=r"has no run 'nobody'; it has other, run 1, run0"):
        copy_runs(whole, tmp_path / "copy.zarr", ["nobody"])
    monkeypatch.chdir(whole.parent)
    with pytest.raises(UsageError, match=r"lab\.zarr cannot be copied into itself; give another store"):
        copy_runs(whole, "lab.zarr")
    assert not (tmp_path / "copy.zarr").exists()
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "mine.txt").touch()
    with pytest.raises(StoreError, match="is no ibstore store"):
        copy_runs(whole, tmp_path / "folder")


# ---- merge


def test_merge_brings_everything(tmp_path, whole, in_memory):
    first = stores.write_run(tmp_path / "first.zarr", VALUES, run="a")
    stores.write_run(in_memory, stores.layers(seed=2), run="b")
    assert merge_stores(first, [in_memory, whole], {"run0": "d", "b": "run0"}) == ["run0", "other", "run 1", "d"]
    stores.assert_run(first, VALUES, [0, 1], "a")
    stores.assert_run(first, stores.layers(seed=2), [0, 1], "run0")
    stores.assert_run(first, VALUES, [0, 1], "d")
    assert Store.open(first).run("d").manifest.run == "d"
    assert verify(first, deep=True).ok
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert sorted(zarr.open_group(first / "runs", mode="r").group_keys()) == ["a", "d", "other", "run0", "run=201"]


def test_clashing_names_are_all_listed_and_nothing_is_copied(tmp_path, whole):
    first = stores.write_run(tmp_path / "first.zarr", stores.layers(seed=3))
    second = stores.write_run(tmp_path / "second.zarr", VALUES, run="other")
    before = stores.tree(first)
    with pytest.raises(RunExistsError, match=r"another run of the name 'other', 'run0'; .*--rename"):
        merge_stores(first, [whole, second])
    with pytest.raises(RunExistsError, match="another run of the name 'run 1'"):
        merge_stores(first, [whole], {"run0": "run 1"})
    with pytest.raises(UnknownNameError, match="there is no run 'nobody' to rename; the stores to merge have other,"):
        merge_stores(first, [whole], {"nobody": "a"})
    with pytest.raises(UsageError, match="into itself"):
        merge_stores(first, [whole, first])
    assert stores.tree(first) == before


# ---- rm


@pytest.mark.parametrize("kind", ["disk", "memory"])
def test_removed_runs_are_gone_with_what_only_they_used(whole, tmp_path, kind):
    location = places(tmp_path)[kind]
    copy_runs(whole, location)
    states = {run: States(open_storage(location), run) for run in ("run0", "other")}
    for kept in states.values():
        kept.put(1, b"state")
    planned = plan_removal(location, ["other"])
    assert (planned.runs, planned.probe_sets) == ({"other": (0, 1)}, (OTHER.digest(),))
    going = ("runs/other/", f"data/{OTHER.digest()}/")
    before = stores.contents(location)
    assert planned.bytes == sum(len(content) for key, content in before.items() if key.startswith(going))
    assert remove_runs(location, ["other"]) == planned
    assert stores.contents(location) == {key: value for key, value in before.items() if not key.startswith(going)}
    assert [states[run].get(1) for run in ("run0", "other")] == [b"state", None]
    assert verify(location, deep=True).ok
    assert remove_runs(location, ["run0"]).probe_sets == ()
    assert remove_runs(location, ["run 1"]).probe_sets == (stores.PROBE.digest(),)
    assert sorted(stores.contents(location)) == ["data/zarr.json", "runs/zarr.json", "zarr.json"]


def test_unknown_and_busy_runs_are_refused_and_none_is_removed(store):
    before = stores.tree(store)
    with pytest.raises(UnknownNameError, match=r"has no run 'nobody'; it has other, run 1, run0"):
        remove_runs(store, ["run0", "nobody"])
    assert stores.tree(store) == before
    (store / "runs/run 1").with_name("run=201").joinpath("lease.json").write_bytes(Holder.here().dump())
    before = stores.tree(store)
    with pytest.raises(RunBusyError, match="run 'run 1' is being written by"):
        remove_runs(store, ["run0", "run 1"])
    assert stores.tree(store) == before


def test_damaged_runs_and_the_rest_of_half_removed_ones_can_be_removed(store):
    (store / "runs/run0/zarr.json").unlink()
    (store / "runs/other/zarr.json").write_bytes(b"{}")
    (store / "runs/other/segments/0000000001/zarr.json").write_bytes(b"{}")
    remove_runs(store, ["other"])
    assert (store / "data" / OTHER.digest()).exists()  # run0's manifest is lost: it might be run0's
    assert remove_runs(store, ["run0"]).probe_sets == (OTHER.digest(),)
    report = verify(store, deep=True)
    assert report.ok
    assert [run.run for run in report.runs] == ["run 1"]


def test_a_removal_cut_short_shows_no_half_of_a_run_and_can_be_completed(store, monkeypatch):
    real, killed = shutil.rmtree, []

    def dying(path, *arguments, **options):
        if not killed:
            killed.append(path)
            raise KeyboardInterrupt
        real(path, *arguments, **options)

    monkeypatch.setattr(shutil, "rmtree", dying)
    with pytest.raises(KeyboardInterrupt):
        remove_runs(store, ["run0"])
    assert Store.open(store).run_names() == ["other", "run 1"]
    remove_runs(store, ["run0"])
    assert verify(store, deep=True).ok
    assert not (store / "runs/run0").exists()


def test_a_probe_set_that_a_begun_run_may_need_stays(store):
    (store / "runs/begun").mkdir()
    (store / "runs/begun/lease.json").write_bytes(Holder.here().dump())
    assert remove_runs(store, ["other"]).probe_sets == ()
    assert (store / "data" / OTHER.digest() / "zarr.json").exists()
    np.testing.assert_array_equal(stores.layer_values(store, "conv"), VALUES["conv"][0])
