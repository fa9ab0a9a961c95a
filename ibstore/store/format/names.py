"""Node names: any text as one path component that every file system and object store accepts.

Bytes of the UTF-8 form outside ``[A-Za-z0-9._-]`` become ``=HH``. Names that mean something else as they
stand (``.``, ``..``, a coordinate's name, ``zarr.json``, a leading dot) have their first byte escaped.
"""

import re
from collections.abc import Iterable
from typing import Final

from ibstore.errors import UsageError

RESERVED: Final = frozenset({"", ".", "..", "epoch", "sample", "zarr.json", "c"})
EPOCH_DIGITS: Final = 10
SEGMENT: Final = re.compile(rf"\d{{{EPOCH_DIGITS}}}")
"""What `segment_name` gives."""

LAST_EPOCH: Final = 10**EPOCH_DIGITS - 1
"""The largest number that an epoch can have: segments are named after their first one, in so many digits."""
MAX_BYTES: Final = 200  # file systems end at 255; zarr and temporary names add to it

_PLAIN: Final = frozenset(b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789._-")
_ESCAPED: Final = re.compile(rb"=([0-9A-F]{2})")


def escape(name: str) -> str:
    """Node name of ``name``; distinct names give distinct nodes.

    Raises
    ------
    UsageError
        When the name is no text, empty or no Unicode, or its node name would exceed 200 bytes.

    Examples
    --------
    >>> escape("encoder.0"), escape("relu:1"), escape("a/b"), escape("epoch"), escape("=")
    ('encoder.0', 'relu=3A1', 'a=2Fb', '=65poch', '=3D')
    """
    if not isinstance(name, str):
        raise UsageError(f"a name is {name!r}; give text")
    if not name:
        raise UsageError("a name is empty; give it at least one character")
    try:
        raw = name.encode()
    except UnicodeEncodeError:
        raise UsageError(f"the name {name[:40]!r} is no Unicode text; choose another") from None
    node = "".join(chr(byte) if byte in _PLAIN else f"={byte:02X}" for byte in raw)
    if node in RESERVED or node.startswith("."):
        node = f"={raw[0]:02X}{node[1:]}"
    if len(node) > MAX_BYTES:
        raise UsageError(f"the name {name[:40]!r}… takes {len(node)} bytes as a node name; keep it within {MAX_BYTES}")
    return node


def unescape(node: str) -> str:
    """Name of a node name: the inverse of `escape`.

    Raises
    ------
    ValueError
        When `escape` gives that node name to no name: a stranger put it there.

    Examples
    --------
    >>> unescape("relu=3A1"), unescape("=65poch")
    ('relu:1', 'epoch')
    """
    name = _decode(node)
    if not name or escape(name) != node:
        raise ValueError(f"{node!r} is no node name")
    return name


def _decode(node: str) -> str:
    return _ESCAPED.sub(lambda match: bytes([int(match[1], 16)]), node.encode()).decode()


def segment_name(epoch: int) -> str:
    """Node name of the segment that begins with ``epoch``: names sort as epochs do.

    >>> segment_name(7)
    '0000000007'
    """
    return f"{epoch:0{EPOCH_DIGITS}d}"


def without_record(names: Iterable[str], committed: Iterable[str]) -> list[str]:
    """Of segments' names those that had a record once: one behind them has.

    A killed writer leaves only what is behind all that is committed.

    >>> without_record(["0000000000", "0000000001", "0000000002", "0000000003", ".notes"], ["0000000000", "0000000002"])
    ['0000000001']
    """
    known = set(committed)
    last = max(filter(SEGMENT.fullmatch, known), default="")
    return [name for name in names if SEGMENT.fullmatch(name) and name not in known and name < last]
