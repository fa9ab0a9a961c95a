"""Zarr arrays as ibstore writes and reads them: the one module that imports zarr.

Inner chunks are ``zstd`` level 1 (no shuffle: it makes post-ReLU data larger) with a CRC-32C behind it, so
that a flipped byte is found on reading; chunks full of the fill value are written, so that a missing one is
never taken for data.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import zarr
from numpy.typing import NDArray
from zarr.abc.store import Store as ZarrStore
from zarr.codecs import Crc32cCodec, ZstdCodec
from zarr.core.buffer import Buffer
from zarr.storage import LocalStore, WrapperStore

from ibstore.store.layout import Layout
from ibstore.store.schema import FileInfo, file_info

ZSTD_LEVEL = 1


class RecordingStore(WrapperStore[LocalStore]):
    """A folder that notes the size and the SHA-256 of every file written through it."""

    def __init__(self, store: LocalStore) -> None:
        super().__init__(store)
        self.files: dict[str, FileInfo] = {}

    @classmethod
    def at(cls, folder: Path) -> "RecordingStore":
        """Store over ``folder``."""
        return cls(LocalStore(folder))

    def with_read_only(self, read_only: bool = False) -> "RecordingStore":
        """Zarr asks for this copy; the record goes along."""
        copy = RecordingStore(self._store.with_read_only(read_only))
        copy.files = self.files
        return copy

    async def set(self, key: str, value: Buffer) -> None:
        """Write and note."""
        await self._store.set(key, value)
        self.files[key] = file_info(value.to_bytes())

    async def set_if_not_exists(self, key: str, value: Buffer) -> None:
        """Do nothing: so zarr puts the records of the groups above an array, and ours are put last."""


def create_group(store: ZarrStore) -> None:
    """Make ``store`` itself a group."""
    zarr.create_group(store)


def create(
    store: ZarrStore,
    name: str,
    shape: tuple[int, ...],
    dtype: np.dtype[Any],
    dimensions: Sequence[str],
    layout: Layout | None = None,
) -> "zarr.Array[Any]":
    """New array ``name`` (its own path in ``store``) whose axis called ``sample`` is cut by ``layout``.

    Without a layout the array is one chunk: coordinates are.
    """
    chunks, shards = list(shape), None
    if layout is not None:
        axis = list(dimensions).index("sample")
        chunks = [1 if dimension == "epoch" else size for dimension, size in zip(dimensions, shape, strict=True)]
        chunks[axis] = layout.chunk
        shards = list(chunks)
        shards[axis] = layout.shard
    return zarr.create_array(
        store,
        name=name,
        shape=shape,
        dtype=dtype,
        chunks=tuple(max(1, size) for size in chunks),
        shards=None if shards is None else tuple(max(1, size) for size in shards),
        compressors=[ZstdCodec(level=ZSTD_LEVEL), Crc32cCodec()],
        filters=None,
        fill_value=np.nan if dtype.kind == "f" else 0,
        dimension_names=list(dimensions),
        chunk_key_encoding={"name": "default", "separator": "."},
        config={"write_empty_chunks": True},
    )


def create_coordinate(store: ZarrStore, name: str, dimension: str, values: NDArray[Any]) -> None:
    """Write ``values`` as the one-chunk array ``name`` along ``dimension``."""
    create(store, name, values.shape, values.dtype, [dimension])[...] = values


def unit_dimensions(node: str, rank: int) -> list[str]:
    """Names of a layer's unit axes, its own: two layers in one group never share a dimension by chance.

    >>> unit_dimensions("conv1", 3)
    ['conv1_0', 'conv1_1', 'conv1_2']
    """
    return [f"{node}_{axis}" for axis in range(rank)]


def open_array(folder: Path) -> "zarr.Array[Any]":
    """Array at ``folder``, for reading."""
    return zarr.open_array(LocalStore(folder, read_only=True), mode="r", zarr_format=3)
