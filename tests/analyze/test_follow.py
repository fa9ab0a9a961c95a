"""Following a store that is being written: the answer whenever it has changed, until nobody writes."""

import csv
import io
from contextlib import contextmanager

import numpy as np
import polars as pl
import pytest

from ibstore.analyze import Study, study
from ibstore.store import LayerInfo, Manifest, ProbeSet, RunWriter, SplitInfo, create_store, write_probe_set
from ibstore.store.format.names import escape

from .stores import make_store, numbered, write_epochs

WAIST = "w: *=identity | quantile(bins=2)"
VALUES = np.random.default_rng(0).normal(size=(5, 12, 3)).astype(np.float32)


@contextmanager
def writing(path, run="run0"):
    """A function that commits epochs of a run, while its writer is alive."""
    probe = ProbeSet.of(numbered(12, 2), np.arange(12) % 3)
    create_store(path)
    split = SplitInfo("train", "train", write_probe_set(path, probe), 12)
    manifest = Manifest(run, (LayerInfo("fc", escape("fc"), (3,), "float32"),), (split,))
    with RunWriter(path, manifest, {"train": probe.sample}) as writer:
        yield (
            lambda *epochs: [write_epochs(writer, {"train": {"fc": VALUES[[epoch]]}}, [epoch], {}) for epoch in epochs],
            writer.close,
        )


def one_after_another(*steps):
    """What happens between looks: one step at each."""
    left = iter(steps)

    def wait(*_):
        step = next(left)
        step()

    return wait


def test_epochs_are_added_as_they_are_committed(tmp_path):
    path = tmp_path / "lab.zarr"
    with writing(path) as (commit, end):
        looks = one_after_another(lambda: commit(0), lambda: commit(1, 2), lambda: None, lambda: (commit(3), end()))
        opened = Study(path)
        tables = list(opened.follow(lambda: opened.analyze(WAIST), wait=looks))
    assert [table["epoch"].to_list() for table in tables] == [[0], [0, 1, 2], [0, 1, 2, 3]]
    assert tables[-1].equals(Study(path, tmp_path / "afresh").analyze(WAIST))


def test_an_epoch_that_is_committed_between_the_last_look_and_the_end_is_not_missed(tmp_path, monkeypatch):
    path = tmp_path / "lab.zarr"
    with writing(path) as (commit, end):
        commit(0)
        opened = Study(path)
        writers = type(opened.store).writers

        def just_before_the_end(self):
            found = writers(self)
            commit(1)
            end()
            return found

        monkeypatch.setattr(type(opened.store), "writers", just_before_the_end)
        following = opened.follow(lambda: opened.analyze(WAIST), wait=monkeypatch.undo)
        assert [table["epoch"].to_list() for table in following] == [[0, 1]]


def test_a_store_that_nobody_writes_is_asked_once(tmp_path):
    path = make_store(tmp_path / "lab.zarr", numbered(12, 2), layers={"fc": VALUES})
    opened = Study(path)
    (table,) = opened.follow(lambda: opened.analyze(WAIST), wait=lambda: pytest.fail("there is nothing to wait for"))
    assert table["epoch"].to_list() == [0, 1, 2, 3, 4]


def test_other_runs_writers_are_not_waited_for(tmp_path):
    path = make_store(tmp_path / "lab.zarr", numbered(12, 2), layers={"fc": VALUES})
    opened = Study(path)
    with writing(path, "other"):
        (table,) = opened.follow(
            lambda: opened.analyze(WAIST, runs=["run0"]), ["run0"], wait=lambda: pytest.fail("run0 is complete")
        )
    assert table["run"].unique().to_list() == ["run0"]


def test_runs_that_a_pattern_fits_are_followed(tmp_path):
    path = tmp_path / "lab.zarr"
    with writing(path, "a-1") as (commit, end), writing(path, "b-1") as (_, end_other):
        commit(0)
        looks = one_after_another(lambda: commit(1), end)
        opened = Study(path)
        tables = list(opened.follow(lambda: opened.analyze(WAIST, runs=["a-*"]), ["a-*"], wait=looks))
        end_other()
    assert [table["epoch"].to_list() for table in tables] == [[0], [0, 1]]


def test_a_run_that_begins_meanwhile_is_followed_too(tmp_path):
    path = tmp_path / "lab.zarr"
    with writing(path) as (commit, end), writing(path, "second") as (commit_second, end_second):
        commit(0)
        looks = one_after_another(end, lambda: (commit_second(0), end_second()))
        opened = Study(path)
        tables = list(opened.follow(lambda: opened.analyze(WAIST), wait=looks))
    assert [table["run"].to_list() for table in tables] == [["run0"], ["run0", "second"]]


@pytest.mark.parametrize("form", ["csv", "table"])
def test_the_command_prints_each_row_once(ibstore, tmp_path, monkeypatch, form):
    path = tmp_path / "lab.zarr"
    with writing(path) as (commit, end):
        commit(0)
        monkeypatch.setattr(study.time, "sleep", one_after_another(lambda: commit(1), lambda: (commit(2), end())))
        done = ibstore("analyze", path, "-q", "--follow", "-w", WAIST, "-f", form)
    assert done.code == 0
    if form == "csv":
        assert [row["epoch"] for row in csv.DictReader(io.StringIO(done.out))] == ["0", "1", "2"]
    else:
        assert done.out.count(" fc ") == 3


def test_a_file_holds_the_whole_table(ibstore, tmp_path, monkeypatch):
    path, out = tmp_path / "lab.zarr", tmp_path / "plane.parquet"
    seen = []
    with writing(path) as (commit, end):
        commit(0)

        def look(_):
            seen.append(len(pl.read_parquet(out)))
            commit(1)
            end()

        monkeypatch.setattr(study.time, "sleep", look)
        assert ibstore("analyze", path, "-q", "--follow", "-w", WAIST, "-o", out).code == 0
    assert seen == [1]
    assert pl.read_parquet(out)["epoch"].to_list() == [0, 1]
