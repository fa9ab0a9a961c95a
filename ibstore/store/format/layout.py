"""Pure sizes: how an array of samples is cut into inner chunks and shards.

Inner chunks run along ``sample`` so that a reader can stream; shards are written whole, so that a run is
few files. Sizes are bytes before compression.

>>> plan(sample_bytes=12544, samples=60_000)  # conv1: 16 x 14 x 14 float32
Layout(chunk=256, shard=2560)
>>> plan(sample_bytes=40, samples=60_000)     # out: 10 float32
Layout(chunk=60000, shard=60000)
>>> plan(sample_bytes=40, samples=100)
Layout(chunk=100, shard=100)
>>> plan(sample_bytes=12544, samples=300)     # two chunks of 256 would be padded to 512
Layout(chunk=150, shard=300)
"""

from dataclasses import dataclass
from typing import Final

CHUNK_BYTES: Final = 4 << 20
SHARD_BYTES: Final = 32 << 20
"""Twice as fast to read as shards of 64 MiB: the C library gives such pieces of memory back to itself, not to the
system, which would have to fill every page with zeros again."""
BUFFER_BYTES: Final = 512 << 20
SEGMENT_BYTES: Final = 64 << 20
"""Epochs that together take no more are one segment."""


@dataclass(frozen=True, slots=True)
class Layout:
    """Samples in an inner chunk and in a shard; the shard is a multiple of the chunk."""

    chunk: int
    shard: int


def plan(sample_bytes: int, samples: int, shard_bytes: int = SHARD_BYTES, chunk_bytes: int = CHUNK_BYTES) -> Layout:
    """Layout of an array of ``samples`` rows of ``sample_bytes`` bytes each.

    Chunks are as few as the largest power of two of samples within ``chunk_bytes`` and ``shard_bytes`` allows (at
    least one sample), and as even as can be: the last one is stored padded to their length. A shard is as many chunks
    as fit in ``shard_bytes`` (at least one).
    """
    largest = _floor_power_of_two(max(1, min(chunk_bytes, shard_bytes) // max(1, sample_bytes)))
    chunks_needed = max(1, -(-samples // largest))
    chunk = max(1, -(-samples // chunks_needed))
    chunks_fitting = max(1, shard_bytes // (chunk * max(1, sample_bytes)))
    return Layout(chunk, chunk * max(1, min(chunks_needed, chunks_fitting)))


def shard_budget(arrays: int) -> int:
    """Bytes a shard may take when ``arrays`` arrays are written side by side.

    A shard is gathered in memory before it is written, one for each layer: together they stay within
    512 MiB, however many layers a network has (unless single samples are larger).

    >>> shard_budget(3) >> 20, shard_budget(64) >> 20
    (32, 8)
    """
    return min(SHARD_BYTES, BUFFER_BYTES // max(1, arrays))


def epochs_per_segment(epoch_bytes: int) -> int:
    """How many epochs of that many bytes are one segment: more than one only where two fit.

    >>> epochs_per_segment(280_000_000), epochs_per_segment(500_000)
    (1, 134)
    """
    return max(1, SEGMENT_BYTES // max(1, epoch_bytes))


def size(count: int) -> str:
    """Bytes for people, in powers of 1024.

    >>> size(0), size(1536), size(3 << 30)
    ('0 B', '1.5 KiB', '3.0 GiB')
    """
    amount = float(count)
    for unit in ("B", "KiB", "MiB", "GiB"):
        if amount < 1024:  # noqa: PLR2004  (the next unit)
            return f"{amount:.0f} B" if unit == "B" else f"{amount:.1f} {unit}"
        amount /= 1024
    return f"{amount:.1f} TiB"


def counted(number: int, noun: str) -> str:
    """So many of something.

    >>> counted(1, "epoch"), counted(2, "epoch")
    ('1 epoch', '2 epochs')
    """
    return f"{number} {noun}{'' if number == 1 else 's'}"


def listed(numbers: list[int]) -> str:
    """Numbers for a message, runs of consecutive ones shortened.

    >>> listed([0, 1, 2, 3, 7]), listed([])
    ('0–3, 7', 'none')
    """
    parts: list[list[int]] = []
    for number in sorted(numbers):
        if parts and number == parts[-1][-1] + 1:
            parts[-1].append(number)
        else:
            parts.append([number])
    return ", ".join(f"{part[0]}–{part[-1]}" if len(part) > 1 else str(part[0]) for part in parts) or "none"


def _floor_power_of_two(value: int) -> int:
    return 1 << (value.bit_length() - 1)
