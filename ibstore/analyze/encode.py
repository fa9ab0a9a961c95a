"""Keys: a pattern of bin numbers as packed bits, exactly; equal keys if and only if equal patterns.

>>> pack(np.array([[1, 0, 1]], dtype=np.uint8), bits=1)
array([[160]], dtype=uint8)
>>> pack(np.array([[2, 1]], dtype=np.uint8), bits=2)
array([[144]], dtype=uint8)
"""

import hashlib
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

Packed = NDArray[np.uint8]
"""Keys of some samples, (sample, byte); every row has as many bytes."""

WIDEST: Final = 1024
DIGEST_BYTES: Final = 32


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
    from ibstore.analyze.kernels import pack_bits

    out = np.empty((len(codes), -(-codes.shape[1] * bits // 8)), np.uint8)
    pack_bits(codes, bits, out)
    return out


def compact(keys: Packed) -> Packed:
    """Keys that are counted as they are up to 1,024 bytes, and by their SHA-256 where they are wider.

    No two patterns with one SHA-256 have ever been found; among 10^10 patterns there are some with a probability below
    10^-57.
    """
    if keys.shape[1] <= WIDEST:
        return keys
    digests = b"".join(hashlib.sha256(key).digest() for key in np.ascontiguousarray(keys))
    return np.frombuffer(digests, np.uint8).reshape(len(keys), -1)
