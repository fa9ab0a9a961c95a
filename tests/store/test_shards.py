"""Shards, with zarr as the oracle: it reads what is encoded here, and what it writes is decoded here."""

import dataclasses
import struct
from itertools import product

import google_crc32c
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as np_st

from ibstore.store.format.arrays import create, open_array
from ibstore.store.format.encoding import Encoding
from ibstore.store.format.layout import Layout
from ibstore.store.format.shards import ABSENT, Shards

DTYPES = ["f2", "f4", "f8", "i1", "i4", "i8", "u1", "u2", "?"]
CODECS = ["zstd:1", "zstd:-7", "zstd:19", "lz4", "none"]


@st.composite
def cases(draw):
    """Values (sample, …) or (epoch, sample, …), as a segment has them, with the layout and the codec of their array."""
    epochs = draw(st.none() | st.integers(1, 3))
    samples = draw(st.integers(1, 9))
    units = draw(np_st.array_shapes(min_dims=0, max_dims=2, max_side=3))
    shape = (*(() if epochs is None else (epochs,)), samples, *units)
    values = draw(np_st.arrays(draw(st.sampled_from(DTYPES)), shape, fill=st.nothing() | st.none().map(lambda _: 0)))
    chunk = draw(st.integers(1, 5))
    pieces = -(-samples // chunk)
    # As `SegmentWriter` has it: many epochs are one shard, one epoch (or none) may be many.
    shard = chunk * (pieces if epochs and epochs > 1 else draw(st.integers(1, pieces)))
    return values, epochs, Layout(chunk, shard), draw(st.sampled_from(CODECS))


def made(values, epochs, layout, codec):
    """Empty array for the values, and its files, which grow as zarr writes."""
    head = ["sample"] if epochs is None else ["epoch", "sample"]
    names = [*head, *(f"unit_{axis}" for axis in range(values.ndim - len(head)))]
    return create(values.shape, values.dtype, names, layout, Encoding(codec))


def pieces(values, epochs, layout):
    """Shards of the values by their key."""
    axis = 0 if epochs is None else 1
    for number, start in enumerate(range(0, values.shape[axis], layout.shard)):
        place = [0] * values.ndim
        place[axis] = number
        cut = (slice(None),) * axis + (slice(start, start + layout.shard),)
        yield "c." + ".".join(map(str, place)), values[cut]


def same(one, other):
    """Equality of every bit, NaN's included."""
    return (one.shape, one.dtype, one.tobytes()) == (other.shape, other.dtype, np.ascontiguousarray(other).tobytes())


@settings(deadline=None, max_examples=60)
@given(cases())
def test_zarr_reads_what_is_encoded(case):
    values, epochs, layout, _ = case
    array, files = made(*case)
    coder = Shards.of(array)
    contents = {key: content.to_bytes() for key, content in files.items()}
    assert list(contents) == ["zarr.json"]
    contents |= {key: coder.encode(block) for key, block in pieces(values, epochs, layout)}
    assert same(np.asarray(open_array(contents)[...]), values)


@settings(deadline=None, max_examples=60)
@given(cases())
def test_what_zarr_writes_is_decoded(case):
    values, epochs, layout, _ = case
    array, files = made(*case)
    array[...] = values
    coder = Shards.of(array)
    for key, block in pieces(values, epochs, layout):
        content = files[key].to_bytes()
        if epochs is None:
            assert same(coder.decode(content, [()], len(block))[0], block)
        for epoch in range(epochs or 0):
            assert same(coder.decode(content, [(epoch,)], block.shape[1])[0], block[epoch])


def shard_of(codec, epochs=1, samples=5):
    values = np.random.default_rng(0).normal(size=(epochs, samples, 3)).astype(np.float32)
    array, _ = made(values, epochs, Layout(2, 6), codec)
    coder = Shards.of(array)
    return coder, coder.encode(values), values


def decode_all(coder, content, values):
    return coder.decode(content, [(epoch,) for epoch in range(len(values))], values.shape[1])


@pytest.mark.parametrize("codec", ["zstd:1", "lz4", "none"])
@pytest.mark.parametrize("epochs", [1, 3])
def test_no_flipped_bit_is_taken_for_a_value(codec, epochs):
    coder, content, values = shard_of(codec, epochs)
    np.testing.assert_array_equal(decode_all(coder, content, values), values)
    for position in range(len(content)):
        damaged = bytearray(content)
        damaged[position] ^= 1 << position % 8
        with pytest.raises(ValueError, match=r"does not fit its checksum|is not there"):
            decode_all(coder, bytes(damaged), values)


def test_a_flipped_bit_of_one_epoch_leaves_the_others_readable():
    coder, content, values = shard_of("zstd:1", epochs=3)
    damaged = bytearray(content)
    damaged[0] ^= 1
    with pytest.raises(ValueError, match="chunk 0 does not fit its checksum"):
        coder.decode(bytes(damaged), [(0,)], 5)
    for epoch in (1, 2):
        np.testing.assert_array_equal(coder.decode(bytes(damaged), [(epoch,)], 5)[0], values[epoch])


@pytest.mark.parametrize("codec", ["zstd:1", "lz4", "none"])
def test_no_truncated_shard_is_taken_for_a_shorter_one(codec):
    coder, content, values = shard_of(codec)
    for length in range(len(content)):
        with pytest.raises(ValueError):  # noqa: PT011  (its index has lost its place, or its shape, or its checksum)
            decode_all(coder, content[:length], values)


def reindexed(content, chunks, change):
    """The shard with another index, whose checksum fits it."""
    tail = 16 * chunks + 4
    index = np.frombuffer(content[-tail:-4], "<u8").reshape(chunks, 2).copy()
    change(index)
    new = index.tobytes()
    return content[:-tail] + new + struct.pack("<I", google_crc32c.value(new))


def lacking(index):
    index[1] = ABSENT


def beyond(index):
    index[1, 0] = index[2].sum() - 1


def overlong(index):
    index[1, 1] = 2**63


def empty(index):
    index[1, 1] = 0


@pytest.mark.parametrize("change", [lacking, beyond, overlong, empty])
def test_a_chunk_that_is_not_there_is_no_fill_value(change):
    coder, content, values = shard_of("none")
    damaged = reindexed(content, 3, change)
    with pytest.raises(ValueError, match=r"chunk 1 (is not there|does not fit its checksum)"):
        decode_all(coder, damaged, values)


@pytest.mark.parametrize(("codec", "rows"), [("zstd:1", 4), ("lz4", 4), ("none", 4), ("none", 1)])
def test_a_sound_chunk_of_another_size_is_found(codec, rows):
    """As when two shards have changed places."""
    coder, _, values = shard_of(codec)
    other = dataclasses.replace(coder, chunk=(1, rows, 3), shard=(1, 3 * rows, 3))
    content = other.encode(np.ones((1, 3 * rows, 3), np.float32))
    with pytest.raises((ValueError, RuntimeError)):
        decode_all(coder, content, values)


def test_a_compressed_chunk_that_is_rubbish_is_found():
    coder, _, values = shard_of("zstd:1")
    plain = dataclasses.replace(coder, codec=None)
    with pytest.raises((ValueError, RuntimeError)):
        decode_all(coder, plain.encode(values), values)


def test_chunks_may_be_encoded_in_any_order_and_at_once():
    coder, content, values = shard_of("zstd:1")

    def backwards(function, chunks):
        return reversed([function(chunk) for chunk in reversed(list(chunks))])

    assert coder.encode(values, backwards) == content


def test_every_position_of_the_grid_is_a_chunk_of_its_own():
    coder, content, values = shard_of("none", epochs=2, samples=6)
    size = len(coder._encode_chunk(values[:1, :2]))
    index = np.frombuffer(content[-(16 * 6 + 4) : -4], "<u8").reshape(2, 3, 2)
    for number, (epoch, chunk) in enumerate(product(range(2), range(3))):
        assert index[epoch, chunk].tolist() == [number * size, size]


# ---- arrays that ibstore does not write


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"shards": None}, "its chunks are not in shards"),
        ({"compressors": []}, r"its chunks are coded by \['bytes'\], which format 1 does not have"),
        ({"compressors": ["gzip", "crc32c"]}, r"coded by \['bytes', 'gzip', 'crc32c'\], which format 1 does not have"),
        (
            {"compressors": ["shuffled", "crc32c"]},
            r"coded by \['bytes', 'blosc', 'crc32c'\], which format 1 does not have",
        ),
    ],
)
def test_arrays_that_are_coded_in_other_ways_are_refused(options, message):
    import zarr
    from zarr.codecs import BloscCodec, Crc32cCodec, GzipCodec

    codecs = {"gzip": GzipCodec(), "crc32c": Crc32cCodec(), "shuffled": BloscCodec(typesize=4, shuffle="shuffle")}
    given = {"shards": (4,), "compressors": ["crc32c"]} | options
    array = zarr.create_array(
        zarr.storage.MemoryStore(),
        shape=(4,),
        chunks=(2,),
        shards=given["shards"],
        dtype="f4",
        compressors=[codecs[name] for name in given["compressors"]],
        filters=None,
    )
    with pytest.raises(ValueError, match=message):
        Shards.of(array)
