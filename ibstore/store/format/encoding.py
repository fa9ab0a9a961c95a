"""How numbers become bytes: the codec of inner chunks and their size.

Chosen from measurements (docs/benchmarks.md): zstd level −1 on chunks of 4 MiB stores a CNN's activations in less
than half their size and reads at more than 1 GB/s on two cores. No shuffle: it makes post-ReLU data larger.
"""

import re
from dataclasses import dataclass
from typing import Any, Final

from ibstore.errors import UsageError
from ibstore.store.format.layout import CHUNK_BYTES

CODEC: Final = "zstd:-1"
"""What is taken unless another is asked for."""

_CODEC: Final = re.compile(r"(?P<name>zstd|lz4|none)(:(?P<level>-?\d+))?")
_LEVELS: Final = {"zstd": range(-7, 23), "lz4": range(1), "none": range(1)}


@dataclass(frozen=True, slots=True)
class Encoding:
    """Codec and size of the inner chunks of a run's layers.

    Parameters
    ----------
    codec
        ``zstd`` (level -1), ``zstd:LEVEL`` from -7 (fast) to 22 (small), ``lz4`` (faster, larger) or ``none``.
        Each is lossless, and each chunk ends with its CRC-32C.
    chunk_bytes
        Bytes of a chunk before compression, at most (but a sample at least).

    Raises
    ------
    UsageError
        When the codec is unknown, or a chunk would be smaller than 1 KiB or larger than 1 GiB.

    Examples
    --------
    >>> Encoding("zstd:3").level
    3
    """

    codec: str = CODEC
    chunk_bytes: int = CHUNK_BYTES

    def __post_init__(self) -> None:
        found = _CODEC.fullmatch(self.codec)
        if not found or (found["level"] and int(found["level"]) not in _LEVELS[found["name"]]):
            raise UsageError(f"there is no codec {self.codec!r}; choose zstd, zstd:LEVEL (-7 to 22), lz4 or none")
        if not 1 << 10 <= self.chunk_bytes <= 1 << 30:
            raise UsageError(f"chunks of {self.chunk_bytes} bytes are out of range; choose 1024 to 1073741824")

    @property
    def name(self) -> str:
        """The codec without its level."""
        return self.codec.partition(":")[0]

    @property
    def level(self) -> int:
        """The codec's level."""
        level = self.codec.partition(":")[2]
        return int(level or CODEC.partition(":")[2])

    def compressors(self) -> list[dict[str, Any]]:
        """The codec as Zarr's metadata name it, with a CRC-32C behind it."""
        blosc = {"cname": "lz4", "clevel": 5, "shuffle": "noshuffle", "typesize": 4, "blocksize": 0}
        chosen: dict[str, list[dict[str, Any]]] = {
            "zstd": [{"name": "zstd", "configuration": {"level": self.level, "checksum": False}}],
            "lz4": [{"name": "blosc", "configuration": blosc}],
            "none": [],
        }
        return [*chosen[self.name], {"name": "crc32c"}]
