"""The engine as a whole: what it is granted changes no number, and it takes no more."""

import json
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ibstore.analyze import Study, engine, packs, plan
from ibstore.analyze import fit as fitting
from ibstore.analyze.parts import Parts
from ibstore.analyze.plan import Budget
from ibstore.analyze.waist import parse_waist
from ibstore.errors import DamagedError
from ibstore.store import committed
from ibstore.store.committed import CommittedArray
from ibstore.store.format.layout import Layout

from .stores import layer_file, make_store, numbered, results

WAISTS = (
    "a: x=identity | quantile(bins=3); *=identity | quantile(bins=2)",
    "b: conv=maxpool(1, 2, 2) | quantile(bins=4); out=softmax | equalmass(bins=3, per=run)",
    "c: x=identity | threshold(0.2); conv=maxpool(1, 2, 2) | thesis_edges(scope=channel); out=identity | exact",
)
OTHER_INPUTS = ("d: x=identity | threshold(0.7); *=identity | quantile(bins=2)", "e: *=identity | quantile(bins=2)")
"""Waists that leave keys of the layers behind, for others to be counted from."""

SAMPLES = 90


def layers():
    rng = np.random.default_rng(0)
    conv = np.maximum(rng.normal(size=(2, SAMPLES, 3, 4, 4)), 0).astype(np.float32).round(1)
    return {"conv": conv, "out": rng.normal(size=(2, SAMPLES, 5)).astype(np.float32)}


def write(path, rows=None, *, together=False):
    rng = np.random.default_rng(1)
    x = rng.normal(size=(SAMPLES, 4)).round(1).astype(np.float32)
    return make_store(path, x, rng.integers(0, 3, SAMPLES), layers=layers(), rows=rows, together=together)


@pytest.fixture(scope="module")
def alone(tmp_path_factory):
    """What each waist gives by itself: the table, and who has which keys."""
    path = write(tmp_path_factory.mktemp("alone") / "lab.zarr")
    for waist in WAISTS:
        Study(path).analyze(waist)
    return answers(path, results(path))


def answers(path, where):
    """The table of all waists, and their patterns."""
    table = Study(path, where).analyze(WAISTS)
    keys = Study(path, where).query("SELECT * FROM patterns WHERE waist IN ('a', 'b', 'c')")
    return table, keys.sort("waist", "layer", "epoch", "sample")


@settings(max_examples=6)
@given(
    chunk=st.integers(5, 50),
    shard=st.integers(1, 3),
    threads=st.integers(1, 4),
    kilobytes=st.integers(10, 400),
    sampled=st.sampled_from([8, fitting.SAMPLED]),
    counting=st.sampled_from([0, 64 << 20]),
    first=st.lists(st.sampled_from([*WAISTS, *OTHER_INPUTS]), unique=True, max_size=2),
    keep=st.sampled_from(["auto", "always", "never"]),
    packed=st.booleans(),
    turn=st.sampled_from([1, committed.TURN_BYTES]),
    together=st.booleans(),
)
def test_chunks_threads_memory_and_what_is_there_change_no_number(
    alone, chunk, shard, threads, kilobytes, sampled, counting, first, keep, packed, turn, together
):
    with tempfile.TemporaryDirectory() as folder, pytest.MonkeyPatch.context() as patch:
        path = write(Path(folder, "lab.zarr"), Layout(chunk, chunk * shard), together=together)
        for name, value in {"BASE": 0, "LEAST": 0, "LEAST_FREE": 1 << 10}.items():
            patch.setattr(plan, name, value)
        patch.setattr(fitting, "SAMPLED", sampled)
        patch.setattr(committed, "TURN_BYTES", turn)
        patch.setattr(Budget, "counting", 64 << 20)
        init = engine_counter_init(counting)
        patch.setattr("ibstore.analyze.sql.counts.KeyCounter.__init__", init)
        patch.setattr(packs, "MANY", 2 if packed else 1000)
        granted = {"memory": kilobytes << 10, "threads": threads, "keep_keys": keep}
        for waist in first:
            Study(path).analyze(waist, **granted)
        Study(path).analyze(WAISTS, **granted)
        table, keys = answers(path, results(path))
    assert table.equals(alone[0])
    assert keys.equals(alone[1]) if keep != "never" else keys.is_empty()


def engine_counter_init(room):
    """A counter that puts keys down where it has so little room for them."""
    from ibstore.analyze.sql.counts import KeyCounter

    original = KeyCounter.__init__

    def init(self, *arguments, **options):
        original(self, *arguments, **options)
        self._room = room

    return init


def test_each_file_is_read_once_for_all_waists(tmp_path, monkeypatch):
    path = write(tmp_path / "lab.zarr", Layout(10, 30))
    read, original = [], CommittedArray._read

    def noting(self, file, **options):
        read.append((self.key, file))
        return original(self, file, **options)

    monkeypatch.setattr(CommittedArray, "_read", noting)
    Study(path).analyze(WAISTS, layers=["conv"], epochs=[0])
    conv = [file for name, file in read if name.endswith("conv") and file.startswith("c.")]
    assert sorted(conv) == sorted(set(conv))
    assert len(conv) == 3


def test_a_damaged_block_is_told_and_costs_no_other_layer(tmp_path):
    path = write(tmp_path / "lab.zarr")
    file = layer_file(path, "out", 1)
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(content)
    with pytest.raises(DamagedError, match=r"run 'run0', layer 'out', epoch 1"):
        Study(path).analyze(WAISTS, threads=2)
    assert len(Study(path).parts.storage.files("information_plane")) == 2 * len(WAISTS)  # of layer conv
    assert len(Study(path).analyze(WAISTS, layers=["conv"])) == 2 * len(WAISTS)


def test_two_processes_that_compute_the_same_do_not_disturb_each_other(tmp_path, alone, monkeypatch):
    """The second begins when the first has its plan, and ends before it."""
    path = write(tmp_path / "lab.zarr")
    original = engine.compute

    def overtaken(*arguments):
        monkeypatch.setattr("ibstore.analyze.selection.compute", original)
        Study(path).analyze(WAISTS)
        original(*arguments)

    monkeypatch.setattr("ibstore.analyze.selection.compute", overtaken)
    table, keys = answers(path, results(path))
    assert table.equals(alone[0])
    assert keys.equals(alone[1])


def test_tasks_of_one_recipe_share_its_keys(tmp_path, monkeypatch):
    """Waists that differ in the input alone have the layer narrowed once."""
    from ibstore.analyze import scan

    narrowed, original = [], scan.narrow

    def noting(recipe, *rest):
        narrowed.append(str(recipe))
        return original(recipe, *rest)

    monkeypatch.setattr(scan, "narrow", noting)
    path = make_store(tmp_path / "lab.zarr", numbered(20, 2), layers={"t": np.ones((1, 20, 3), np.float32)})
    Study(path).analyze([f"w{edge}: x=identity | threshold({edge}); t=identity | exact" for edge in range(4)])
    assert narrowed.count("identity | exact") == 1
    assert len(Parts(Study(path).store.storage.beside(".analysis")).storage.files("patterns")) == 4 + 1


MEASURED = """
import json, re, sys
from ibstore.analyze import Study

asked = dict(waists=sys.argv[3:], memory=int(sys.argv[2]), threads=2)
study = Study(sys.argv[1], sys.argv[1] + "." + sys.argv[2])
planned = study.explain(**asked)
table = study.analyze(**asked)
peak = re.search(r"VmHWM:\\s+(\\d+) kB", open("/proc/self/status").read())
told = [planned["peak_bytes"].max(), planned["passes"].max(), int(peak[1]) << 10, table.drop("waist").rows()]
print(json.dumps(told))
"""


@pytest.mark.skipif(sys.platform != "linux", reason="the peak is read from /proc")
def test_the_memory_that_was_granted_is_kept_whatever_the_layer_s_size(tmp_path):
    """A layer of 300 MB, and the plan's figure held against the process's peak."""
    rng = np.random.default_rng(0)
    some = np.maximum(rng.normal(size=(1_250, 64, 8, 12)), 0).astype(np.float32)
    t = np.concatenate([some * scale for scale in range(1, 11)])[None]
    path = make_store(tmp_path / "lab.zarr", numbered(12_500, 1), np.arange(12_500) % 10, layers={"t": t})
    del some, t
    waists = ["a: t=identity | quantile(bins=2)", "b: t=maxpool(1, 2, 2) | quantile(bins=4)"]
    found = {}
    for mib in (768, 2048):
        done = subprocess.run(
            [sys.executable, "-c", MEASURED, path, str(mib << 20), *waists], capture_output=True, text=True, check=True
        )
        planned, passes, peak, rows = json.loads(done.stdout)
        assert planned / 2 < peak <= planned <= mib << 20
        found[passes] = rows
    assert len(found) == 2  # the less memory, the more passes
    assert len({json.dumps(rows) for rows in found.values()}) == 1


def test_a_waist_object_and_its_text_are_one_plan(tmp_path):
    study = Study(write(tmp_path / "lab.zarr"))
    assert study.explain(WAISTS).equals(study.explain([parse_waist(waist) for waist in WAISTS]))
