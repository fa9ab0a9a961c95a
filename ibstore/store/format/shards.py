"""Shards as Zarr's sharding codec lays them: compressed chunks one after another, and their index at the end.

Zarr's own pipeline, which codes chunk by chunk through an event loop, reads the CNN's activations at 0.6 GB/s on two
cores; these few lines reach 1.1 GB/s (docs/benchmarks.md). Zarr writes the arrays' metadata, reads what is
written here, and is what the tests hold it against.
"""

import struct
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import product
from math import prod
from typing import TYPE_CHECKING, Any, Final

import google_crc32c
import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    import zarr

ABSENT: Final = 2**64 - 1
"""Offset and length of a chunk that a shard does not hold."""

_CRC: Final = struct.Struct("<I")
Map = Callable[[Callable[[NDArray[Any]], bytes], Iterable[NDArray[Any]]], Iterable[bytes]]


@dataclass(frozen=True)
class Shards:
    """Coder of the shards of one array: along ``sample`` many chunks, along the axes before it one element each.

    Parameters
    ----------
    shard, chunk
        Shapes of a shard and of a chunk within it.
    dtype
        Of the array.
    codec
        What chunks are compressed with (``encode`` and ``decode``), or None.
    fill
        What pads the last chunk.
    """

    shard: tuple[int, ...]
    chunk: tuple[int, ...]
    dtype: np.dtype[Any]
    codec: Any
    fill: Any

    @classmethod
    def of(cls, array: "zarr.Array[Any]") -> "Shards":
        """Coder of a sharded array.

        Raises
        ------
        ValueError
            When its chunks are coded in a way that ibstore does not write.
        """
        described: Any = array.metadata.to_dict()
        sharding = described["codecs"][0]
        if sharding["name"] != "sharding_indexed" or array.shards is None:
            raise ValueError("its chunks are not in shards")
        codecs, location = (sharding["configuration"][name] for name in ("codecs", "index_location"))
        names = [codec["name"] for codec in codecs]
        if (names[0], names[-1], location) != ("bytes", "crc32c", "end"):
            raise ValueError(f"its chunks are coded by {names}, which format 1 does not have")
        return cls(array.shards, array.chunks, array.dtype, codec_of(codecs), array.fill_value)

    @property
    def grid(self) -> tuple[int, ...]:
        """How many chunks lie along each axis of a shard."""
        return tuple(whole // part for whole, part in zip(self.shard, self.chunk, strict=True))

    def encode(self, block: NDArray[Any], spread: Map = map) -> bytes:
        """A shard's file from its elements, which may end before the shard does; ``spread`` maps over chunks."""
        places = [place for place in product(*map(range, self.grid)) if self._cut(block, place).size]
        bodies = spread(self._encode_chunk, (self._cut(block, place) for place in places))
        index = np.full((*self.grid, 2), ABSENT, "<u8")
        parts, end = [], 0
        for place, body in zip(places, bodies, strict=True):
            index[place] = end, len(body)
            parts.append(body)
            end += len(body)
        tail = index.tobytes()
        return b"".join([*parts, tail, _CRC.pack(google_crc32c.value(tail))])

    def _cut(self, block: NDArray[Any], place: tuple[int, ...]) -> NDArray[Any]:
        return block[tuple(slice(at * size, (at + 1) * size) for at, size in zip(place, self.chunk, strict=True))]

    def _encode_chunk(self, values: NDArray[Any]) -> bytes:
        if values.shape != self.chunk:
            short, values = values, np.full(self.chunk, self.fill, self.dtype)
            values[tuple(map(slice, short.shape))] = short
        return encode_chunk(values, self.dtype, self.codec)

    def decode(self, content: bytes, places: Sequence[tuple[int, ...]], rows: int) -> NDArray[Any]:
        """The first ``rows`` rows along ``sample`` at some positions on the axes before it, (position, sample, …).

        Raises
        ------
        ValueError
            When the index or a chunk is not what its checksum says, or a chunk is missing.
        """
        axis = len(places[0])
        size, units = self.chunk[axis], self.chunk[axis + 1 :]
        count = -(-rows // size)
        out = np.empty((len(places), count * size, *units), self.dtype.newbyteorder("<"))
        chunks = out.reshape(len(places) * count, size * prod(units)).view(np.uint8)
        for chunk, body in zip(chunks, self._bodies(content, places, count), strict=True):
            self._decode_chunk(body, chunk)
        return out[:, :rows]

    def _bodies(self, content: bytes, places: Sequence[tuple[int, ...]], count: int) -> Iterator[memoryview]:
        view = memoryview(content)
        index = self.index(view[-self.index_bytes :])
        for at, number in product(places, range(count)):
            start, stop = self.span(index, len(view), at, number)
            yield _checked(view[start:stop], f"chunk {number}")

    @property
    def index_bytes(self) -> int:
        """Bytes at a shard's end that tell where its chunks are."""
        return 16 * prod(self.grid) + _CRC.size

    def index(self, tail: bytes | memoryview) -> NDArray[np.uint64]:
        """Offsets and lengths of the chunks, (…, 2), from a shard's end; ValueError where it is altered."""
        return np.frombuffer(_checked(memoryview(tail), "its index"), "<u8").reshape(*self.grid, 2)

    def span(self, index: NDArray[np.uint64], size: int, at: tuple[int, ...], number: int) -> tuple[int, int]:
        """First byte of a chunk and the first after it, in a shard of ``size`` bytes; ValueError where it is absent."""
        offset, length = map(int, index[(*at, number, *(0,) * (len(self.grid) - len(at) - 1))])
        if offset == ABSENT or offset + length > size - self.index_bytes:
            raise ValueError(f"chunk {number} is not there")
        return offset, offset + length

    def decode_chunk(self, coded: bytes, axis: int, number: int) -> NDArray[Any]:
        """Rows of one chunk, (sample, …), from its bytes, where ``sample`` is the axis ``axis``; raises as `decode`."""
        out = np.empty(self.chunk[axis:], self.dtype.newbyteorder("<"))
        self._decode_chunk(_checked(memoryview(coded), f"chunk {number}"), out.reshape(-1).view(np.uint8))
        return out

    def _decode_chunk(self, body: memoryview, out: NDArray[np.uint8]) -> None:
        if self.codec is not None:
            self.codec.decode(body, out)
        elif len(body) == len(out):
            out[:] = np.frombuffer(body, np.uint8)
        else:
            raise ValueError(f"a chunk has {len(body)} bytes instead of {len(out)}")


def encode_chunk(values: NDArray[Any], dtype: np.dtype[Any], codec: Any) -> bytes:
    """A chunk's bytes: little-endian, compressed, its CRC-32C at the end."""
    plain = np.ascontiguousarray(values, dtype.newbyteorder("<"))
    body = plain.tobytes() if codec is None else bytes(codec.encode(plain))
    return body + _CRC.pack(google_crc32c.value(body))


def _checked(coded: memoryview, what: str) -> memoryview:
    """What lies before the CRC-32C at the end, which must fit it."""
    body = coded[: -_CRC.size]
    if len(coded) < _CRC.size or (google_crc32c.value(bytes(body)),) != _CRC.unpack(coded[-_CRC.size :]):
        raise ValueError(f"{what} does not fit its checksum")
    return body


def codec_of(coded: list[dict[str, Any]]) -> Any:
    """What numcodecs has for the codecs between the bytes and the checksum, which are the first and the last."""
    from numcodecs.blosc import Blosc
    from numcodecs.zstd import Zstd

    match coded[1:-1]:
        case []:
            return None
        case [{"name": "zstd", "configuration": {"level": level}}]:
            return Zstd(level)
        case [{"name": "blosc", "configuration": {"cname": cname, "clevel": clevel, "shuffle": "noshuffle"}}]:
            return Blosc(cname, clevel, Blosc.NOSHUFFLE)
    raise ValueError(f"its chunks are coded by {[codec['name'] for codec in coded]}, which format 1 does not have")
