"""Zarr arrays in memory: the one module that imports zarr. It makes and reads metadata and small arrays as files.

Chunks full of the fill value are written, so that a missing one is never taken for data.
"""

from collections.abc import Mapping, Sequence
from typing import Any, Final

import numpy as np
import zarr
from numpy.typing import NDArray
from zarr.core.buffer import Buffer, cpu
from zarr.storage import MemoryStore

from ibstore.store.format.encoding import Encoding
from ibstore.store.format.layout import Layout
from ibstore.store.format.shards import codec_of, encode_chunk
from ibstore.store.places import RECORD

COORDINATE: Final = Encoding()


def turn_down() -> None:
    """Have zarr do one thing at a time from now on: in a process that is one of many on its machine."""
    zarr.config.set({"async.concurrency": 1, "threading.max_workers": 1})


def create(
    shape: tuple[int, ...],
    dtype: np.dtype[Any],
    dimensions: Sequence[str],
    layout: Layout | None,
    encoding: Encoding,
) -> tuple["zarr.Array[Any]", dict[str, Buffer]]:
    """New array whose axis called ``sample`` is cut by ``layout``, and its files: what is written to it lands there.

    Along ``epoch`` a chunk has one element and a shard all of them. Without a layout the array is one chunk:
    coordinates are.
    """
    store: dict[str, Buffer] = {}
    chunks, shards = list(shape), None
    if layout is not None:
        axis = list(dimensions).index("sample")
        chunks = [1 if dimension == "epoch" else size for dimension, size in zip(dimensions, shape, strict=True)]
        chunks[axis] = layout.chunk
        shards = list(shape)
        shards[axis] = layout.shard
    array = zarr.create_array(
        MemoryStore(store),
        shape=shape,
        dtype=dtype,
        chunks=tuple(max(1, size) for size in chunks),
        shards=None if shards is None else tuple(max(1, size) for size in shards),
        compressors=encoding.compressors(),
        filters=None,
        fill_value=np.nan if dtype.kind == "f" else 0,
        dimension_names=list(dimensions),
        chunk_key_encoding={"name": "default", "separator": "."},
        config={"write_empty_chunks": True},
    )
    return array, store


def coordinate(dimension: str, values: NDArray[Any]) -> dict[str, bytes]:
    """Files of the one-chunk array of ``values`` along ``dimension``.

    The chunk is not coded by zarr: it would in another thread, and there is none to be had at an interpreter's end,
    when a recorder that nobody closed commits its last epochs.
    """
    array, files = create(values.shape, values.dtype, [dimension], None, COORDINATE)
    codec = codec_of([codec.to_dict() for codec in array.metadata.codecs])  # type: ignore[union-attr]
    path = array.metadata.encode_chunk_key((0,) * values.ndim)
    return {RECORD: files[RECORD].to_bytes(), path: encode_chunk(values, values.dtype, codec)}


def unit_dimensions(node: str, rank: int) -> list[str]:
    """Names of a layer's unit axes, its own: two layers in one group never share a dimension by chance.

    >>> unit_dimensions("conv1", 3)
    ['conv1_0', 'conv1_1', 'conv1_2']
    """
    return [f"{node}_{axis}" for axis in range(rank)]


def open_array(files: Mapping[str, bytes]) -> "zarr.Array[Any]":
    """Array of these files, for reading."""
    store = MemoryStore({key: cpu.Buffer.from_bytes(content) for key, content in files.items()}, read_only=True)
    return zarr.open_array(store, mode="r", zarr_format=3)
