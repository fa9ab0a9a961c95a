"""Keys: a pattern of bin numbers as packed bits, exactly; equal keys if and only if equal patterns.

>>> pack(np.array([[1, 0, 1]], dtype=np.uint8), bits=1)
array([[160]], dtype=uint8)
>>> pack(np.array([[2, 1]], dtype=np.uint8), bits=2)
array([[144]], dtype=uint8)
"""

from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

Packed = NDArray[np.uint8]
"""Keys of some samples, (sample, byte); every row has as many bytes."""

_SLICE_BYTES: Final = 16 << 20


def bits_for(codes: int) -> int:
    """Bits for the bin numbers 0 … codes − 1: as few as serve up to 8, then 16 or 32.

    >>> [bits_for(codes) for codes in (1, 2, 3, 256, 257, 70_000)]
    [1, 1, 2, 8, 16, 32]
    """
    needed = max(1, (codes - 1).bit_length())
    return needed if needed <= 8 else 16 if needed <= 16 else 32  # noqa: PLR2004  (machine word sizes)


def pack(codes: NDArray[Any], bits: int) -> Packed:
    """Pack ``codes`` (sample, unit), unsigned or bool and below 2**bits, most significant bit first.

    Returns (sample, ⌈units · bits / 8⌉) uint8; the last byte's spare bits are zero.
    """
    if bits == 1:
        return np.packbits(codes.astype(bool, copy=False), axis=1)
    if bits in {8, 16, 32, 64}:
        wide = codes.astype(f">u{bits // 8}", copy=False)
        return np.ascontiguousarray(wide).view(np.uint8).reshape(len(codes), -1)
    shifts = np.arange(bits - 1, -1, -1, dtype=np.uint8)
    rows = max(1, _SLICE_BYTES // (max(1, codes.shape[1]) * bits))  # the unpacked bits of a slice stay small
    parts = [
        np.packbits(((part[..., None] >> shifts) & 1).reshape(len(part), -1).astype(np.uint8), axis=1)
        for part in (codes[start : start + rows] for start in range(0, len(codes), rows))
    ]
    return np.concatenate(parts)
