"""Keys and numbers as Arrow columns, for DuckDB to count: without a copy, and as small as they can be.

They are made from buffers: `pa.table` and `pa.array` would first load pandas where that is installed (0.2 s).
"""

from collections.abc import Sequence
from typing import Any, Final

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from ibstore.analyze.encode import Packed

WORD_BITS: Final = 64
WHOLE_WORDS: Final = (1, 2, 4, 8)
MOST_WORDS: Final = 2
MOST_BYTES: Final = 64
"""Wider keys are not looked through for bits that are always the same."""


def table(columns: dict[str, Any]) -> Any:
    """A table of columns."""
    return pa.Table.from_arrays(list(columns.values()), list(columns))


def column(numbers: NDArray[Any]) -> Any:
    """Integers as a column."""
    buffer = pa.py_buffer(np.ascontiguousarray(numbers))
    return pa.Array.from_buffers(pa.from_numpy_dtype(numbers.dtype), len(numbers), [None, buffer])


def numbers(integers: Any) -> NDArray[Any]:
    """A column of integers without NULLs as an array."""
    values = np.frombuffer(integers.buffers()[1], integers.type.to_pandas_dtype())
    return values[integers.offset : integers.offset + len(integers)]


def binary(blocks: Sequence[Packed]) -> Any:
    """Keys as a column of bytes."""
    width = blocks[0].shape[1]
    kind = pa.binary(width)
    buffers = [(len(keys), pa.py_buffer(np.ascontiguousarray(keys))) for keys in blocks]
    return pa.chunked_array(
        [pa.FixedSizeBinaryArray.from_buffers(kind, rows, [None, buffer]) for rows, buffer in buffers], kind
    )


def words(blocks: Sequence[Packed]) -> dict[str, Any] | None:
    """Keys as one or two columns of integers, which differ where the keys do; None where they are too wide for it.

    Bits that are the same in all keys are left out.
    """
    from ibstore.analyze.kernels import join_bits, mark_varying

    width = blocks[0].shape[1]
    if width in WHOLE_WORDS:
        views = [np.ascontiguousarray(keys).view(f"u{width}")[:, 0] for keys in blocks]
        return {"word0": pa.chunked_array([column(view) for view in views])}
    if width > MOST_BYTES:
        return None
    varying = np.zeros(width, np.uint8)
    for keys in blocks:
        mark_varying(keys, blocks[0][0], varying)
    places = np.flatnonzero(varying)
    counts = np.bitwise_count(varying[places]).astype(np.int64)
    homes = _homes(counts.tolist())
    if homes[-1] >= MOST_WORDS:
        return None
    digits = np.array([_digits(mask) for mask in varying[places].tolist()], np.uint8).reshape(len(places), 256)
    found = np.empty((homes[-1] + 1, sum(map(len, blocks))), np.uint64)
    start = 0
    for keys in blocks:
        join_bits(keys, places, digits, counts, np.array(homes), found[:, start : start + len(keys)])
        start += len(keys)
    return {f"word{number}": column(word) for number, word in enumerate(found)}


def _homes(counts: Sequence[int]) -> list[int]:
    """Words that so many bits each go to, none of them split; one word where there are none.

    >>> _homes([8, 50, 8]), _homes([])
    ([0, 0, 1], [0])
    """
    homes, filled = [0], 0
    for count in counts:
        fits = filled + count <= WORD_BITS
        homes.append(homes[-1] + (not fits))
        filled = filled * fits + count
    return homes[1:] or homes


def _digits(mask: int) -> NDArray[np.uint8]:
    """What each byte has at the bits of a mask, side by side, (256,).

    >>> int(_digits(0b101)[0b110])
    2
    """
    bits = np.unpackbits(np.arange(256, dtype=np.uint8)[:, None], axis=1)
    chosen = bits[:, np.unpackbits(np.array([mask], np.uint8)) == 1]
    return np.packbits(chosen, axis=1)[:, 0] >> np.uint8(8 - chosen.shape[1])


def epochs(places: "Sequence[tuple[int | None, int, int]]") -> Any:
    """Epochs of the rows of some blocks, (epoch, first row, rows) each, as a column."""
    known, rows = [epoch for epoch, _, _ in places], [rows for _, _, rows in places]
    if None in known:
        return pa.nulls(sum(rows), pa.int8())
    return column(np.repeat(narrowest(np.array(known, np.int64)), rows))


def narrowest(numbers: NDArray[Any]) -> NDArray[Any]:
    """The same integers in the smallest type that has them."""
    if not len(numbers):
        return numbers
    low, high = int(numbers.min()), int(numbers.max())
    return numbers.astype(np.result_type(np.min_scalar_type(low), np.min_scalar_type(high)), copy=False)
