"""Segments of many epochs, and how a run says that its numbers become bytes."""

from collections import Counter

import numpy as np
import pytest
import xarray
import zarr

from ibstore.errors import DamagedError, StoreError, UsageError
from ibstore.store import Encoding, Store
from ibstore.store.format.layout import CHUNK_BYTES
from ibstore.store.places.disk import Disk
from ibstore.store.upkeep.verify import verify

from . import stores

EPOCHS = (3, 5, 1000)
VALUES = stores.layers(epochs=len(EPOCHS))
STEPS = (30, None, 10_000)
METRICS = tuple({"train": {"loss": 1.0 / (1 + index)}} for index in range(len(EPOCHS)))


def write(location, values=VALUES, **options):
    with stores.open_writer(location, values, **options) as writer:
        return stores.fill(writer.segment(*EPOCHS), values, *range(len(EPOCHS))).commit(STEPS, METRICS)


def assert_values(location, values=VALUES):
    for index, epoch in enumerate(EPOCHS):
        for layer, written in values.items():
            np.testing.assert_array_equal(stores.layer_values(location, layer, epoch), written[index])


def test_many_epochs_come_back_one_by_one(location):
    record = write(location)
    run = Store.open(location).run("run0")
    assert run.epochs == list(EPOCHS)
    assert (record.epochs, record.steps, record.metrics) == (EPOCHS, STEPS, METRICS)
    assert [segment.record for segment in run.segments] == [record]
    assert_values(location)


def test_many_epochs_are_one_file_a_layer(tmp_path):
    record = write(tmp_path / "lab.zarr")
    assert sorted(path for path in record.files if "/conv/" in path) == ["train/conv/c.0.0.0.0", "train/conv/zarr.json"]


def test_segments_of_one_and_of_many_epochs_stand_side_by_side(location):
    values = stores.layers(epochs=7)
    with stores.open_writer(location, values) as writer:
        stores.fill(writer.segment(0, 1, 2), values, 0, 1, 2).commit()
        stores.write_epoch(writer, values, 3)
        stores.fill(writer.segment(4, 5), values, 4, 5).commit()
    stores.assert_run(location, values, range(6))
    with stores.open_writer(location, values, resume=True) as writer:
        assert writer.epochs == list(range(6))
        stores.write_epoch(writer, values, 6)
    stores.assert_run(location, values, range(7))


def test_how_epochs_are_gathered_does_not_show_in_their_values(tmp_path):
    write(tmp_path / "many.zarr")
    with stores.open_writer(tmp_path / "one.zarr", VALUES) as writer:
        for index, epoch in enumerate(EPOCHS):
            stores.write_epoch(writer, VALUES, epoch, index)
    for epoch in EPOCHS:
        for layer in VALUES:
            one, many = (stores.layer_values(tmp_path / f"{name}.zarr", layer, epoch) for name in ("one", "many"))
            assert one.tobytes() == many.tobytes()


def test_without_words_steps_are_unknown_and_metrics_none(tmp_path):
    with stores.open_writer(tmp_path / "lab.zarr", VALUES) as writer:
        record = stores.fill(writer.segment(*EPOCHS), VALUES, 0, 1, 2).commit()
    assert record.steps == (None, None, None)
    assert record.metrics == ({}, {}, {})


def test_dynamics_come_back_and_neither_xarray_nor_the_other_values_see_them(tmp_path):
    dynamics = [{}, {"epoch": {"conv": {"gradient_mean": 0.25, "snr": None}}}, {"fixed": {"conv": {"snr": np.inf}}}]
    with stores.open_writer(tmp_path / "lab.zarr", VALUES) as writer:
        record = stores.fill(writer.segment(*EPOCHS), VALUES, 0, 1, 2).commit(STEPS, METRICS, dynamics)
    (segment,) = Store.open(tmp_path / "lab.zarr").run("run0").segments
    assert segment.record == record
    assert segment.record.dynamics == tuple(dynamics)
    assert_values(tmp_path / "lab.zarr")
    assert verify(tmp_path / "lab.zarr").ok


def test_xarray_opens_many_epochs_by_their_number(tmp_path):
    write(tmp_path / "lab.zarr")
    folder = stores.segment_folder(tmp_path / "lab.zarr", EPOCHS[0]) / "train"
    with xarray.open_zarr(folder, consolidated=False) as split:
        assert split["epoch"].values.tolist() == list(EPOCHS)
        assert split["sample"].values.tolist() == stores.PROBE.sample.tolist()
        assert split["conv"].dims == ("epoch", "sample", "conv_0", "conv_1")
        np.testing.assert_array_equal(split["conv"].sel(epoch=5).values, VALUES["conv"][1])
        np.testing.assert_array_equal(split["out=3A1"].sel(epoch=1000, sample=20).values, VALUES["out:1"][2, 3])


def test_epochs_are_appended_one_after_another_in_any_pieces(tmp_path):
    with stores.open_writer(tmp_path / "lab.zarr", VALUES) as writer:
        segment = writer.segment(*EPOCHS)
        for layer, written in VALUES.items():
            rows = written.reshape(-1, *written.shape[2:])
            for piece in np.split(rows, [1, 5, 6, 13]):  # across the ends of epochs
                segment.append("train", layer, piece)
        segment.commit(STEPS, METRICS)
    assert_values(tmp_path / "lab.zarr")


def test_many_epochs_with_missing_rows_are_refused(tmp_path):
    with stores.open_writer(tmp_path / "lab.zarr", VALUES) as writer:
        segment = stores.fill(writer.segment(*EPOCHS), VALUES, 0, 1)
        with pytest.raises(
            StoreError, match=r"layer 'conv' of split 'train' has 12 of 18 samples of epochs 3–1000; rec"
        ):
            segment.commit()
        segment.discard()
    assert Store.open(tmp_path / "lab.zarr").run("run0").epochs == []


def test_more_rows_than_the_epochs_have_are_refused(tmp_path):
    with stores.open_writer(tmp_path / "lab.zarr", VALUES) as writer:
        segment = stores.fill(writer.segment(*EPOCHS), VALUES, 0, 1, 2)
        with pytest.raises(StoreError, match=r"layer 'conv' .* where up to 0 samples .* at epochs 3–1000"):
            stores.fill(segment, VALUES, 0)


def test_a_shard_of_many_epochs_is_read_once(tmp_path, monkeypatch):
    write(tmp_path / "lab.zarr")
    reads, read = Counter(), Disk.read

    def counting(self, key):
        reads[key] += 1
        return read(self, key)

    monkeypatch.setattr(Disk, "read", counting)
    run = Store.open(tmp_path / "lab.zarr").run("run0")
    for epoch in run.epochs:
        blocks = run.segment(epoch).blocks(run.manifest.splits[0], run.layer("conv"), epoch)
        np.testing.assert_array_equal(np.concatenate(list(blocks)), VALUES["conv"][EPOCHS.index(epoch)])
    shard = f"runs/run0/segments/{EPOCHS[0]:010d}/train/conv/c.0.0.0.0"
    assert {key: count for key, count in reads.items() if "/c." in key} == {shard: 1}


def test_a_flipped_byte_is_found_by_the_epochs_that_it_touches(tmp_path):
    store = tmp_path / "lab.zarr"
    write(store)
    path = stores.segment_folder(store, EPOCHS[0]) / "train" / "conv" / "c.0.0.0.0"
    content = bytearray(path.read_bytes())
    content[0] ^= 1
    path.write_bytes(content)
    with pytest.raises(
        DamagedError, match=r"run 'run0', layer 'conv', epoch 3: .*c.0.0.0.0 cannot be read \(chunk 0 do"
    ):
        stores.layer_values(store, "conv", 3)
    for epoch, index in ((5, 1), (1000, 2)):
        np.testing.assert_array_equal(stores.layer_values(store, "conv", epoch), VALUES["conv"][index])


def test_checksums_hang_on_the_values_of_their_layer_alone(tmp_path):
    write(tmp_path / "one.zarr")
    write(tmp_path / "same.zarr")
    write(tmp_path / "other.zarr", VALUES | {"conv": VALUES["conv"] + 1})
    found = {}
    for name in ("one", "same", "other"):
        run = Store.open(tmp_path / f"{name}.zarr").run("run0")
        (segment,) = run.segments
        found[name] = {each.name: segment.checksums(run.manifest.splits[0], each) for each in run.manifest.layers}
    assert found["one"] == found["same"]
    assert found["one"]["out:1"] == found["other"]["out:1"]
    assert found["one"]["conv"] != found["other"]["conv"]
    assert all(found["one"].values())


@pytest.mark.parametrize("epochs", [(0, 5), (5, 6), (5,), (7, 5)])
def test_no_epoch_is_committed_twice(tmp_path, epochs):
    values = stores.layers(epochs=2)
    write(tmp_path / "lab.zarr", VALUES)
    with stores.open_writer(tmp_path / "lab.zarr", values, resume=True) as writer:
        with pytest.raises(StoreError, match="epoch 5 of run 'run0' is committed already; give every epoch its own"):
            writer.segment(*epochs)
        assert writer.epochs == list(EPOCHS)


# ---- encodings


ENCODED = {
    "zstd:1": ["zstd", "crc32c"],
    "zstd": ["zstd", "crc32c"],
    "zstd:-7": ["zstd", "crc32c"],
    "zstd:22": ["zstd", "crc32c"],
    "lz4": ["blosc", "crc32c"],
    "none": ["crc32c"],
}


@pytest.mark.parametrize("codec", ENCODED)
def test_every_codec_is_what_the_manifest_says_and_zarr_reads_it(tmp_path, codec):
    write(tmp_path / "lab.zarr", codec=codec, chunk_bytes=2048)
    manifest = Store.open(tmp_path / "lab.zarr").run("run0").manifest
    assert manifest.encoding == Encoding(codec, 2048)
    assert_values(tmp_path / "lab.zarr")
    array = zarr.open_array(stores.segment_folder(tmp_path / "lab.zarr", EPOCHS[0]) / "train" / "conv", mode="r")
    (sharding,) = array.metadata.to_dict()["codecs"]
    assert [each["name"] for each in sharding["configuration"]["codecs"]] == ["bytes", *ENCODED[codec]]
    np.testing.assert_array_equal(array[...], VALUES["conv"])


def test_levels_reach_the_codec(tmp_path):
    write(tmp_path / "lab.zarr", codec="zstd:19")
    array = zarr.open_array(stores.segment_folder(tmp_path / "lab.zarr", EPOCHS[0]) / "train" / "conv", mode="r")
    (sharding,) = array.metadata.to_dict()["codecs"]
    assert sharding["configuration"]["codecs"][1]["configuration"]["level"] == 19


def test_chunks_are_no_larger_than_was_asked(tmp_path):
    values = {"wide": np.random.default_rng(0).normal(size=(1, stores.SAMPLES, 200)).astype("f4")}  # 800 B a sample
    for chunk_bytes, samples in ((1024, 1), (1600, 2), (CHUNK_BYTES, stores.SAMPLES)):
        store = tmp_path / f"{chunk_bytes}.zarr"
        stores.write_run(store, values, chunk_bytes=chunk_bytes)
        assert zarr.open_array(stores.segment_folder(store) / "train" / "wide", mode="r").chunks == (1, samples, 200)
        stores.assert_run(store, values, [0])


@pytest.mark.parametrize("codec", ["gzip", "zstd:23", "zstd:-8", "zstd:", "lz4:1", "none:3", "", "zstd:1 "])
def test_an_unknown_codec_is_refused(codec):
    with pytest.raises(UsageError) as caught:
        Encoding(codec)
    assert str(caught.value) == f"there is no codec {codec!r}; choose zstd, zstd:LEVEL (-7 to 22), lz4 or none"


@pytest.mark.parametrize("chunk_bytes", [0, -1, 1023, (1 << 30) + 1])
def test_chunks_out_of_range_are_refused(chunk_bytes):
    with pytest.raises(UsageError, match=f"chunks of {chunk_bytes} bytes are out of range; choose 1024 to 1073741824"):
        Encoding("zstd", chunk_bytes)
