import tempfile
from pathlib import Path
from unittest.mock import patch

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from ibstore.errors import StoreError, UnknownNameError
from ibstore.store import ProbeSet, RunWriter, Store, create_store, write_probe_set
from ibstore.store.format import layout

from . import stores

DTYPES = [np.float16, np.float32, np.float64, np.int8, np.int32, np.int64, np.uint8, np.bool_]
SHAPES = [(), (1,), (5,), (2, 3), (1, 2, 2)]


@pytest.fixture
def small_pieces(monkeypatch):
    """Many chunks and many shards, whatever is written."""
    monkeypatch.setattr(layout, "CHUNK_BYTES", 32)
    monkeypatch.setattr(layout, "SHARD_BYTES", 128)


def random_values(shape, dtype, seed=0):
    """Every bit pattern is possible, NaN and infinities included."""
    dtype = np.dtype(dtype)
    if dtype.kind == "b":
        return np.random.default_rng(seed).integers(0, 2, shape).astype(bool)
    count = int(np.prod(shape)) * dtype.itemsize
    return np.frombuffer(np.random.default_rng(seed).bytes(count), dtype).reshape(shape)


def same_bytes(one, other):
    return (one.dtype, one.shape, one.tobytes()) == (other.dtype, other.shape, other.tobytes())


def write(path, values, cuts=(), run="run0"):
    """Write ``values`` (sample, …) as the only layer of epoch 0, appended in the pieces that ``cuts`` give."""
    probe = ProbeSet.of(np.arange(len(values), dtype=np.uint8))
    create_store(path)
    described = stores.manifest({"a": values[None]}, write_probe_set(path, probe), run, samples=len(values))
    with RunWriter(path, described, {"train": probe.sample}) as writer:
        segment = writer.segment(0)
        for rows in np.split(values, sorted(cuts)):
            segment.append("train", "a", rows)
        return segment.commit()


@pytest.mark.parametrize("dtype", DTYPES)
def test_every_bit_comes_back(tmp_path, small_pieces, dtype):
    values = {f"layer{shape}": random_values((1, stores.SAMPLES, *shape), dtype) for shape in SHAPES}
    store = stores.write_run(tmp_path / "lab.zarr", values)
    for name, written in values.items():
        assert same_bytes(stores.layer_values(store, name), written[0])


def test_small_pieces_are_many_chunks_and_shards_given_back_one_by_one(tmp_path, small_pieces):
    values = random_values((37, 2), np.float32)
    record = write(tmp_path / "lab.zarr", values)
    shards = [path for path in record.files if path.startswith("train/a/c.")]
    assert sorted(shards) == [f"train/a/c.0.{shard}.0" for shard in range(3)]  # 16 samples would fit
    run = Store.open(tmp_path / "lab.zarr").run("run0")
    blocks = list(run.segment(0).blocks(run.manifest.split("train"), run.layer("a"), 0))
    assert [len(block) for block in blocks] == [13, 13, 11]
    assert same_bytes(np.concatenate(blocks), values)


@pytest.mark.parametrize("value", [np.uint8(0), np.float32(np.nan)])
def test_chunks_full_of_the_fill_value_are_written(tmp_path, small_pieces, value):
    """Else a missing file could be either."""
    values = np.full((37, 2), value)
    record = write(tmp_path / "lab.zarr", values)
    assert any(path.startswith("train/a/c.") for path in record.files)
    assert same_bytes(stores.layer_values(tmp_path / "lab.zarr", "a"), values)


@settings(deadline=None, max_examples=15)
@given(
    values=arrays.arrays(st.sampled_from(DTYPES), arrays.array_shapes(min_dims=1, max_dims=3, max_side=9)),
    cuts=st.lists(st.integers(0, 9), max_size=4),
    chunk_bytes=st.integers(1, 64),
    shard_bytes=st.integers(1, 256),
)
def test_pieces_of_any_size_cut_in_any_way_come_back(values, cuts, chunk_bytes, shard_bytes):
    sizes = patch.multiple(layout, CHUNK_BYTES=chunk_bytes, SHARD_BYTES=shard_bytes)
    with tempfile.TemporaryDirectory() as folder, sizes:
        store = Path(folder, "lab.zarr")
        write(store, values, [cut for cut in cuts if cut <= len(values)])
        assert same_bytes(stores.layer_values(store, "a"), values)


@settings(deadline=None, max_examples=5)
@given(cuts=st.lists(st.integers(0, 37), max_size=5))
def test_how_rows_arrive_does_not_show_in_the_store(cuts):
    values = random_values((37, 3), np.float32)
    with tempfile.TemporaryDirectory() as folder, patch.multiple(layout, CHUNK_BYTES=32, SHARD_BYTES=128):
        write(Path(folder, "one.zarr"), values)
        write(Path(folder, "other.zarr"), values, cuts)
        assert stores.tree(Path(folder, "one.zarr")) == stores.tree(Path(folder, "other.zarr"))


def test_a_run_comes_back_with_its_scalars(tmp_path):
    arrays_ = stores.layers(epochs=3)
    stores.write_run(tmp_path / "lab.zarr", arrays_)
    stores.assert_run(tmp_path / "lab.zarr", arrays_, [0, 1, 2])
    run = Store.open(tmp_path / "lab.zarr").run("run0")
    record = run.segment(2).record
    assert (record.epochs, record.steps) == ((2,), (200,))
    assert repr(record.metrics) == repr((stores.METRICS,))
    assert run.raw_bytes == 3 * stores.SAMPLES * 7 * 4
    assert run.stored_bytes == sum(
        path.stat().st_size
        for epoch in range(3)
        for path in (stores.segment_folder(tmp_path / "lab.zarr", epoch) / "train").rglob("*")
        if path.is_file()
    )


def test_same_content_same_bytes(tmp_path):
    for name in ("one.zarr", "other.zarr"):
        stores.write_run(tmp_path / name, stores.layers())
    trees = [stores.tree(tmp_path / name) for name in ("one.zarr", "other.zarr")]
    assert trees[0] == trees[1]
    assert len(trees[0]) > 20


def test_epochs_need_not_follow_each_other(tmp_path):
    values = stores.layers(epochs=1)
    with stores.open_writer(tmp_path / "lab.zarr", values) as writer:
        for epoch in (1_000_000, 5, 70):
            stores.write_epoch(writer, values, epoch, index=0)
    run = Store.open(tmp_path / "lab.zarr").run("run0")
    assert run.epochs == [5, 70, 1_000_000]
    with pytest.raises(UnknownNameError, match="run 'run0' has no epoch 6; it has 5, 70, 1000000"):
        run.segment(6)


def test_several_splits_lie_side_by_side(tmp_path):
    store, values = tmp_path / "lab.zarr", stores.layers(epochs=1)
    create_store(store)
    test_probe = ProbeSet.of(stores.PROBE.x[:2], stores.PROBE.y[:2], np.array([100, 101]))
    train = stores.manifest(values, write_probe_set(store, stores.PROBE))
    test = stores.manifest(values, write_probe_set(store, test_probe), splits=["te/st"], samples=2)
    both = type(train)("run0", train.layers, train.splits + test.splits)
    with RunWriter(store, both, {"train": stores.PROBE.sample, "te/st": test_probe.sample}) as writer:
        segment = writer.segment(0)
        for name, rows in values.items():
            segment.append("train", name, rows[0])
            segment.append("te/st", name, rows[0, :2] + 1)
        segment.commit()
    for name, rows in values.items():
        np.testing.assert_array_equal(stores.layer_values(store, name), rows[0])
        np.testing.assert_array_equal(stores.layer_values(store, name, split="te/st"), rows[0, :2] + 1)
    run = Store.open(store).run("run0")
    assert [run.probe(split).samples().tolist() for split in run.manifest.splits] == [
        stores.PROBE.sample.tolist(),
        [100, 101],
    ]


def test_a_probe_set_comes_back(tmp_path, small_pieces):
    store = stores.write_run(tmp_path / "lab.zarr", stores.layers())
    run = Store.open(store).run("run0")
    probe = run.probe(run.manifest.split("train"))
    blocks = list(probe.x_blocks())
    assert [len(block) for block in blocks] == [6]
    assert same_bytes(np.concatenate(blocks), stores.PROBE.x)
    assert probe.x_form() == ((2, 2), np.dtype(np.float32))
    assert probe.has_labels
    assert probe.labels().tolist() == stores.PROBE.y.tolist()
    assert probe.samples().tolist() == stores.PROBE.sample.tolist()
    assert probe.digest == stores.PROBE.digest()
    stored = (store / "data" / probe.digest).rglob("*")
    assert probe.stored_bytes == sum(path.stat().st_size for path in stored if path.is_file()) - (
        (store / "data" / probe.digest / "zarr.json").stat().st_size
    )


@pytest.mark.parametrize(("dtype", "shape"), [*zip(DTYPES, SHAPES * 2, strict=False)])
def test_inputs_of_any_form_come_back_in_pieces(tmp_path, small_pieces, dtype, shape):
    probe = ProbeSet.of(random_values((50, *shape), dtype), np.arange(50))
    store = stores.write_run(tmp_path / "lab.zarr", {"a": np.zeros((1, 50), np.uint8)}, probe=probe)
    run = Store.open(store).run("run0")
    found = run.probe(run.manifest.split("train"))
    assert same_bytes(np.concatenate(list(found.x_blocks())), probe.x)
    assert found.x_form() == (shape, np.dtype(dtype))


def test_a_probe_set_without_labels_says_so(tmp_path):
    probe = ProbeSet.of(stores.PROBE.x)
    store = stores.write_run(tmp_path / "lab.zarr", stores.layers(), probe=probe)
    run = Store.open(store).run("run0")
    found = run.probe(run.manifest.split("train"))
    assert not found.has_labels
    assert found.labels() is None
    assert found.samples().tolist() == list(range(stores.SAMPLES))


def test_a_probe_set_is_written_once_for_all_runs(tmp_path, monkeypatch):
    store = stores.write_run(tmp_path / "lab.zarr", stores.layers(), run="one")
    before = stores.tree(store / "data")
    inodes = {path: path.stat().st_ino for path in (store / "data").rglob("*")}
    stores.write_run(store, stores.layers(seed=1), run="two")
    assert stores.tree(store / "data") == before
    assert {path: path.stat().st_ino for path in (store / "data").rglob("*")} == inodes
    runs = Store.open(store).runs()
    assert [run.name for run in runs] == ["one", "two"]
    assert len({run.probe(run.manifest.split("train")).key for run in runs}) == 1
    stores.write_run(store, stores.layers(), run="three", probe=ProbeSet.of(stores.PROBE.x + 1))
    assert len([path for path in (store / "data").iterdir() if path.is_dir()]) == 2


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        (np.zeros((2, 3), np.float32), r"got rows of shape \(2, 3\) where up to 6 samples of shape \(3, 2\) are due"),
        (np.zeros((2, 1, 1), np.float32), r"got rows of shape \(2, 1, 1\)"),  # NumPy would repeat it
        (np.zeros((7, 3, 2), np.float32), r"got rows of shape \(7, 3, 2\) where up to 6 samples"),
        (np.zeros((2, 3, 2), np.float64), "got rows of float64 where float32 is due"),
        (np.zeros((2, 3, 2), np.int64), "got rows of int64 where float32 is due"),
    ],
)
def test_rows_that_are_not_what_the_manifest_says_are_refused(tmp_path, rows, message):
    with stores.open_writer(tmp_path / "lab.zarr", stores.layers()) as writer:
        segment = writer.segment(0)
        with pytest.raises(StoreError, match=f"layer 'conv' of split 'train' {message}.* at epoch 0"):
            segment.append("train", "conv", rows)
        segment.discard()


def test_more_rows_than_samples_are_refused_not_lost(tmp_path):
    with stores.open_writer(tmp_path / "lab.zarr", stores.layers()) as writer:
        segment = writer.segment(0)
        segment.append("train", "out:1", np.zeros(stores.SAMPLES, np.float32))
        segment.append("train", "out:1", np.zeros(0, np.float32))
        with pytest.raises(StoreError, match="where up to 0 samples"):
            segment.append("train", "out:1", np.zeros(1, np.float32))
        segment.discard()


def test_names_are_free(tmp_path):
    names = ["epoch", "sample", "c", "zarr.json", ".", "a/b", "relu:1", "Ω", "conv", "conv_0"]
    values = {name: np.full((1, stores.SAMPLES, 2), number, np.float32) for number, name in enumerate(names)}
    for run in ("..", "seed 0/β=1", "zarr.json"):
        store = stores.write_run(tmp_path / "lab.zarr", values, run=run)
        stores.assert_run(store, values, [0], run)
    assert Store.open(store).run_names() == sorted(["..", "seed 0/β=1", "zarr.json"])


def test_what_a_run_says_of_its_probe_set_is_read_once(tmp_path, monkeypatch):
    stores.write_run(tmp_path / "lab.zarr", stores.layers())
    run = Store.open(tmp_path / "lab.zarr").runs()[0]
    read, real = [], type(run.storage).read
    monkeypatch.setattr(type(run.storage), "read", lambda self, key: read.append(key) or real(self, key))
    forms = [run.probe(run.manifest.splits[0]).x_form() for _ in range(3)]
    assert forms == [(stores.PROBE.x.shape[1:], stores.PROBE.x.dtype)] * 3
    assert len(read) == 2  # its record, and x's
