"""The whole way on every kind of place: capture, list, ask; kills, races and resumption on object stores."""

import json
import signal
import subprocess
import sys
from pathlib import Path
from threading import Barrier, Thread

import numpy as np
import pytest
import torch
from torch import nn

from ibstore.analyze import Study, parse_waist
from ibstore.capture import Recorder
from ibstore.errors import RunBusyError, RunExistsError, StoreError, WriteError
from ibstore.store import Store
from ibstore.store.places import bucket, open_storage

from . import stores
from .killed_in_bucket import VALUES

ROOT = Path(__file__).parents[2]
X = np.random.default_rng(0).normal(size=(30, 4)).astype(np.float32)
Y = np.arange(30) % 3
WAIST = "two: x=identity | quantile(bins=2); *=identity | quantile(bins=2)"
SQL = "SELECT epoch, layer, i_xt, i_ty, h_t FROM information_plane ORDER BY epoch, layer"


def capture(location, *, epochs=(0, 1, 2), seed=0, **options):
    """Record a small network that changes a little from epoch to epoch."""
    torch.manual_seed(seed)
    model = nn.Sequential(nn.Linear(4, 5), nn.Tanh(), nn.Linear(5, 3))
    with Recorder(location, model, x=X, y=Y, **options) as recorder:
        for epoch in epochs:
            recorder.record(epoch, step=10 * epoch, loss=1.0 / (1 + epoch))
            with torch.no_grad():
                model[0].weight.mul_(1.5)


def test_a_capture_is_the_same_wherever_it_lies(location, tmp_path):
    capture(location)
    capture(tmp_path / "on-disk.zarr")
    assert stores.contents(location) == stores.contents(tmp_path / "on-disk.zarr")


def test_the_command_line_asks_every_place_the_same(location, tmp_path, ibstore):
    capture(location, run="seed0")
    capture(tmp_path / "on-disk.zarr", run="seed0")
    found = ibstore("ls", location, "--format", "json")
    assert (found.code, json.loads(found.out)[0]["run"]) == (0, "seed0")
    told = ibstore("info", location, "seed0")
    assert told.code == 0, told.err
    planes = []
    for place in (location, tmp_path / "on-disk.zarr"):
        done = ibstore("analyze", place, "--waist", WAIST)
        assert done.code == 0, done.err
        asked = ibstore("query", place, SQL, "--format", "json")
        assert asked.code == 0, asked.err
        planes.append(json.loads(asked.out))
    assert planes[0] == planes[1]
    assert [row["epoch"] for row in planes[0]] == [0, 0, 0, 1, 1, 1, 2, 2, 2]
    assert all(row["h_t"] > 0 for row in planes[0])


def test_python_asks_every_place_the_same(location, tmp_path):
    planes = []
    for place in (location, str(tmp_path / "on-disk.zarr")):
        capture(place)
        study = Study(place)
        told = study.analyze(waists=parse_waist(WAIST))
        asked = study.query(SQL)
        assert told.select(asked.columns).sort("epoch", "layer").equals(asked)
        planes.append(asked)
    assert planes[0].equals(planes[1])
    assert planes[0]["epoch"].to_list() == [0, 0, 0, 1, 1, 1, 2, 2, 2]


def test_a_waist_that_is_asked_later_finds_the_store_as_it_grew(in_bucket):
    capture(in_bucket, epochs=[0])
    assert Study(in_bucket).analyze(waists=parse_waist(WAIST))["epoch"].unique().to_list() == [0]
    capture(in_bucket, epochs=[1], resume=True)
    assert Study(in_bucket).analyze(waists=parse_waist(WAIST))["epoch"].unique().sort().to_list() == [0, 1]


def test_results_lie_beside_the_store_in_the_bucket(in_bucket, ibstore, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    capture(in_bucket)
    before = stores.contents(in_bucket)
    assert ibstore("analyze", in_bucket, "--waist", WAIST).code == 0
    assert stores.contents(in_bucket) == before
    results = open_storage(f"{in_bucket}.analysis").files("")
    assert any(path.startswith("information_plane/") and path.endswith(".parquet") for path in results)
    assert ibstore("analyze", in_bucket, "--waist", WAIST).code == 0
    assert open_storage(f"{in_bucket}.analysis").files("") == results  # nothing is computed again
    assert list(tmp_path.iterdir()) == []  # and nothing lands here under the URL's name


def test_the_bundled_training_goes_into_a_bucket(in_s3, ibstore):
    done = ibstore("capture", "mnist-cnn", "--store", in_s3, "--limit", "100", "--epochs", "1", "--run", "seed0")
    assert done.code == 0, done.err
    assert Store.open(in_s3).run("seed0").epochs == [0, 1]
    again = ibstore("capture", "mnist-cnn", "--store", in_s3, "--limit", "100", "--epochs", "1", "--run", "seed0")
    assert again.code == 1
    assert "run 'seed0' is already in the store with 2 epochs (0–1)" in again.err
    assert open_storage(f"{in_s3}.resume").files("") == {}


# ---- writers that are killed


def as_undisturbed(in_memory):
    location = stores.write_run(f"{in_memory}/undisturbed", VALUES)
    return stores.contents(location)


def assert_committed_is_whole(location):
    """Assert that what is visible is whole; return how many epochs are, None before there is a store."""
    if not open_storage(location).has("zarr.json"):
        return None
    epochs = [epoch for run in Store.open(location).runs() for epoch in run.epochs]
    assert epochs == list(range(len(epochs)))
    if epochs:
        stores.assert_run(location, VALUES, epochs)
    return len(epochs)


def test_a_writer_killed_in_a_bucket_loses_at_most_one_epoch_and_the_next_goes_on_at_once(in_s3, in_memory):
    changes = [9, 17, 22, 30, 33, 1000]
    command = [sys.executable, "-m", "tests.store.killed_in_bucket", in_s3, *map(str, changes)]
    done = subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True)
    ended = [int(line.split()[1]) for line in done.stdout.splitlines()]
    assert ended == [-signal.SIGKILL] * (len(changes) - 1) + [0]
    undisturbed = as_undisturbed(in_memory)
    seen = []
    for change in changes:
        location = f"{in_s3}/{change}"
        seen.append(assert_committed_is_whole(location))
        stores.write_run(location, VALUES, resume=True)  # the dead writer's lease is on this machine
        assert stores.contents(location) == undisturbed
    assert seen == sorted(seen, key=lambda epochs: -1 if epochs is None else epochs)
    assert {0, 1, 2} <= set(seen)


class Killed(BaseException):
    """Nothing catches it, and nothing is changed after it."""


def test_a_writer_that_ends_at_any_change_is_gone_on_with(in_memory, monkeypatch):
    undisturbed = as_undisturbed(in_memory)
    seen = []
    for allowed in range(1000):
        location = f"{in_memory}/{allowed}"
        with monkeypatch.context() as patch:
            for name in ("_put", "remove"):
                patch.setattr(bucket.Bucket, name, stopping(patch, name, allowed))
            try:
                stores.write_run(location, VALUES)
                finished = True
            except Killed:
                finished = False
        end_holder(location)
        seen.append(assert_committed_is_whole(location))
        stores.write_run(location, VALUES, resume=True)
        assert stores.contents(location) == undisturbed
        if finished:
            break
    assert list(dict.fromkeys(seen)) == [None, 0, 1, 2]
    assert len(seen) > 30


CHANGES = {"made": 0}


def stopping(patch, name, allowed):
    """Stand-in for a method that makes changes: so many are made by all of them together, and none after it."""
    CHANGES["made"] = 0
    real = getattr(bucket.Bucket, name)

    def counted(*arguments):
        if CHANGES["made"] >= allowed:
            raise Killed
        CHANGES["made"] += 1
        return real(*arguments)

    return counted


def end_holder(location):
    """Let the lease that is left there, if any, be a dead process's."""
    storage = open_storage(location)
    if storage.has("runs/run0/lease.json"):
        holder = json.loads(storage.read("runs/run0/lease.json"))
        storage.put("runs/run0/lease.json", json.dumps(holder | {"started": -1}).encode())


# ---- writers at once


def test_of_two_who_write_one_epoch_one_wins_and_its_data_are_whole(in_bucket):
    values, others = stores.layers(), stores.layers(seed=1)
    with stores.open_writer(in_bucket, values) as writer:
        one = stores.fill(writer.segment(0), values, 0)
        other = stores.fill(writer.segment(0), others, 0)  # it swept what the first one wrote
        other.commit()
        with pytest.raises(StoreError, match="epoch 0 was committed by another writer meanwhile; record under another"):
            one.commit()
        one.discard()
    stores.assert_run(in_bucket, others, [0])


def test_who_comes_second_to_a_file_of_a_segment_is_told(in_bucket, monkeypatch):
    values = stores.layers()
    with stores.open_writer(in_bucket, values) as writer:
        one = writer.segment(0)
        with monkeypatch.context() as patch:
            patch.setattr(bucket.Bucket, "remove_below", lambda *_: None)
            with pytest.raises(StoreError, match="segments/0000000000 is being written by another process; let one of"):
                writer.segment(0)
        stores.fill(one, values, 0).commit()
    stores.assert_run(in_bucket, values, [0])


def test_of_two_writers_of_a_run_the_second_is_refused(in_bucket):
    with stores.open_writer(in_bucket, VALUES) as writer:
        stores.write_epoch(writer, VALUES, 0)
        for options in ({}, {"replace": True}, {"resume": True}):
            with pytest.raises(RunBusyError, match=r"run 'run0' is being written by process \d+ on .*; choose another"):
                stores.open_writer(in_bucket, VALUES, **options)
        stores.assert_run(in_bucket, VALUES, [0])  # reading is free
        stores.write_epoch(writer, VALUES, 1)
    with pytest.raises(RunExistsError):
        stores.open_writer(in_bucket, VALUES)
    stores.assert_run(in_bucket, VALUES, [0, 1])


def test_who_lost_the_lease_commits_nothing_more(in_bucket):
    with stores.open_writer(in_bucket, VALUES) as writer:
        stores.write_epoch(writer, VALUES, 0)
        segment = stores.fill(writer.segment(1), VALUES, 1)
        end_holder(in_bucket)  # taken for dead, wrongly
        stores.write_run(in_bucket, VALUES, resume=True)
        with pytest.raises(WriteError, match="run 'run0' was taken over by another writer"):
            segment.commit()
    stores.assert_run(in_bucket, VALUES, [0, 1])
    assert "runs/run0/lease.json" not in stores.contents(in_bucket)


def test_writers_of_different_runs_at_once_do_not_disturb_each_other(in_bucket, tmp_path):
    values = {run: stores.layers(epochs=3, seed=seed) for seed, run in enumerate("abc")}
    start, errors = Barrier(len(values)), []

    def work(run):
        start.wait(60)
        try:
            stores.write_run(in_bucket, values[run], run=run)
        except BaseException as error:
            errors.append(error)

    threads = [Thread(target=work, args=[run], daemon=True) for run in values]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert errors == []
    for run, arrays in values.items():
        stores.assert_run(in_bucket, arrays, range(3), run)
        stores.write_run(str(tmp_path / "alone.zarr"), arrays, run=run)
    assert stores.contents(in_bucket) == stores.contents(tmp_path / "alone.zarr")


def test_a_recorder_goes_on_in_a_bucket(in_bucket):
    capture(in_bucket, epochs=[0, 1])
    capture(in_bucket, epochs=[2, 3], resume=True)
    assert Store.open(in_bucket).run("run0").epochs == [0, 1, 2, 3]
    with pytest.raises(RunExistsError, match="run 'run0' is already in the store with 4 epochs"):
        capture(in_bucket)
    capture(in_bucket, epochs=[0], force=True)
    assert Store.open(in_bucket).run("run0").epochs == [0]
