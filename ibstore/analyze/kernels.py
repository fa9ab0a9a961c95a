"""The loops that numpy has no single pass for, compiled by numba when they are first called.

Chosen from measurements (docs/benchmarks.md): what numpy does as fast in one or two calls stays numpy. Each one
releases the interpreter's lock, so that blocks are worked on side by side. Their plain numpy versions are the tests'
oracle.
"""

from typing import Any

import numpy as np
from numba import njit
from numpy.typing import NDArray

_compiled = njit(nogil=True, cache=True)


@_compiled
def tally(
    values: NDArray[Any],
    low: NDArray[Any],
    high: NDArray[Any],
    below: NDArray[np.int32],
    at_low: NDArray[np.int32],
    at_high: NDArray[np.int32],
    inside: NDArray[np.int32],
) -> None:
    """Add, unit by unit, how many of ``values``, (row, unit), are below, at ``low``, at ``high`` and between them."""
    for row in range(values.shape[0]):
        for unit in range(values.shape[1]):
            value = values[row, unit]
            below[unit] += value < low[unit]
            at_low[unit] += value == low[unit]
            at_high[unit] += value == high[unit]
            inside[unit] += (value > low[unit]) & (value < high[unit])


@_compiled
def gather(
    values: NDArray[Any], low: NDArray[Any], high: NDArray[Any], ends: NDArray[np.int64], out: NDArray[Any]
) -> None:
    """Put the values between ``low`` and ``high``, unit after unit, into ``out``; a unit begins at its ``ends``."""
    units = values.shape[1]
    inside = np.zeros((units + 7) // 8 * 8, np.uint8)
    eights = inside.view(np.uint64)
    for row in range(values.shape[0]):
        for unit in range(units):  # without a branch, which nobody could predict
            inside[unit] = (values[row, unit] > low[unit]) & (values[row, unit] < high[unit])
        for eight in range(len(eights)):
            if eights[eight]:
                for unit in range(8 * eight, min(units, 8 * eight + 8)):
                    if inside[unit]:
                        out[ends[unit]] = values[row, unit]
                        ends[unit] += 1


@_compiled
def regroup(values: NDArray[Any], counts: NDArray[np.int64], ends: NDArray[np.int64], out: NDArray[Any]) -> None:
    """Append ``values``, of which each group has so many, one group after the other, to the groups in ``out``."""
    place = 0
    for group in range(len(counts)):
        for _ in range(counts[group]):
            out[ends[group]] = values[place]
            ends[group] += 1
            place += 1


@_compiled
def count_edges(values: NDArray[Any], edges: NDArray[Any], codes: NDArray[Any]) -> None:
    """Add to ``codes``, (row, unit), how many of ``edges``, (edge, unit), are ≤ the value."""
    for row in range(values.shape[0]):
        for edge in range(edges.shape[0]):
            for unit in range(values.shape[1]):
                codes[row, unit] += values[row, unit] >= edges[edge, unit]


@_compiled
def count_steps(values: NDArray[Any], step: float, codes: NDArray[np.uint32]) -> None:
    """Put 2k, or −2k − 1 where k < 0, for k = floor(value / step) within 32 bits, into ``codes``, (row, unit)."""
    for row in range(values.shape[0]):
        for unit in range(values.shape[1]):
            count = np.floor(np.float64(values[row, unit]) / step)
            count = min(max(count, -(2.0**31)), 2.0**31 - 1)
            codes[row, unit] = 2 * count if count >= 0 else -2 * count - 1


@_compiled
def pack_bits(codes: NDArray[Any], bits: int, out: NDArray[np.uint8]) -> None:
    """Put the last ``bits`` < 32 bits of each code, (row, unit), into ``out``, (row, byte), most significant first."""
    byte = np.uint64(255)
    for row in range(codes.shape[0]):
        word, filled, place = np.uint64(0), 0, 0
        for unit in range(codes.shape[1]):
            word = (word << np.uint64(bits)) | np.uint64(codes[row, unit])
            filled += bits
            while filled >= 8:  # noqa: PLR2004  (a byte)
                filled -= 8
                out[row, place] = (word >> np.uint64(filled)) & byte
                place += 1
        if filled:
            out[row, place] = (word << np.uint64(8 - filled)) & byte


@_compiled
def mark_varying(keys: NDArray[np.uint8], first: NDArray[np.uint8], varying: NDArray[np.uint8]) -> None:
    """Set bits in ``varying``, (byte,), where any of ``keys``, (row, byte), differs from ``first``, (byte,)."""
    for row in range(keys.shape[0]):
        for place in range(keys.shape[1]):
            varying[place] |= keys[row, place] ^ first[place]


@_compiled
def join_bits(
    keys: NDArray[np.uint8],
    places: NDArray[np.int64],
    digits: NDArray[np.uint8],
    counts: NDArray[np.int64],
    homes: NDArray[np.int64],
    words: NDArray[np.uint64],
) -> None:
    """Put some bits of the bytes of ``keys``, (row, byte), at some places, (place,), into ``words``, (word, row).

    Of a byte at a place they are ``digits``, (place, byte), of ``counts`` bits, and go to the word ``homes``.
    """
    words[:] = 0
    for number, place in enumerate(places):
        word, table, count = words[homes[number]], digits[number], np.uint64(counts[number])
        for row in range(keys.shape[0]):
            word[row] = (word[row] << count) | np.uint64(table[keys[row, place]])


@_compiled
def pool(values: NDArray[Any], window: tuple[int, int, int], adding: bool, out: NDArray[Any]) -> None:
    """Maximum over windows of ``values``, (row, channel, height, width), or their sum, into ``out``.

    Whole lines are combined before neighbours in a line are; a window that has NaN gives NaN.
    """
    deep, high, wide = window
    line = np.empty(out.shape[3] * wide, out.dtype)
    for row in range(out.shape[0]):
        for channel in range(out.shape[1]):
            for place in range(out.shape[2]):
                for unit in range(len(line)):
                    line[unit] = values[row, channel * deep, place * high, unit]
                for inner in range(1, deep * high):
                    other, shift = channel * deep + inner // high, place * high + inner % high
                    for unit in range(len(line)):
                        line[unit] = _combined(line[unit], values[row, other, shift, unit], adding)
                for unit in range(out.shape[3]):
                    found = line[unit * wide]
                    for inner in range(1, wide):
                        found = _combined(found, line[unit * wide + inner], adding)
                    out[row, channel, place, unit] = found


@njit(nogil=True, inline="always")
def _combined(first: Any, second: Any, adding: bool) -> Any:
    if adding:
        return first + second
    return second if (second > first) | (second != second) else first  # noqa: PLR0124  (NaN)
