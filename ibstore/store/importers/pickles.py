"""Pickles of NumPy arrays and plain containers, read without running anything that stands in them.

A pickle is a program: it names functions of any module and calls them. Here every name that it may ask for is
answered by a stand-in of ours, and no name leads to Python's or NumPy's own objects: arrays are built from their
declared type, shape and bytes, which must fit each other. All else is refused, most of it before the program starts.
"""

import mmap
import pickle
import pickletools
import re
import warnings
from collections.abc import Callable, Mapping
from math import prod
from pathlib import Path
from typing import Any, Final, NoReturn

import numpy as np
from numpy.typing import NDArray

from ibstore.errors import SourceError
from ibstore.store.importers.source import reading

TUPLES: Final = 10_000
"""More in one pickle are refused: hashing tuples that are nested too deeply would end the process."""

_NUMBER: Final = re.compile(r"(?P<order>[<>=|]?)(?P<code>b1|[iu][1248]|f[248]|[?bBhHiIlLqQefd])")
_FOREIGN: Final = {
    **dict.fromkeys(("EXT1", "EXT2", "EXT4"), "objects of copyreg's registry"),
    **dict.fromkeys(("PERSID", "BINPERSID"), "a persistent id"),
    **dict.fromkeys(("NEXT_BUFFER", "READONLY_BUFFER"), "buffers that lie elsewhere"),
}


def load(path: Path) -> Any:
    """What a pickle holds: dicts, lists, tuples, sets, strings, numbers, and `Numbers` where an array was.

    Raises
    ------
    SourceError
        When it asks for anything else, is cut short, or declares what it does not hold. Nothing of it was run.
    """
    where = str(path)
    with reading(where), path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
        try:
            with warnings.catch_warnings(action="ignore"):  # about odd escapes in the strings of old pickles
                _scan(content)
                content.seek(0)
                return _Unpickler(content, encoding="latin1").load()
        except _RefusedError as error:
            raise SourceError(
                f"{where} asks for {error}; only NumPy arrays of numbers and plain containers are read, and nothing "
                "of it was run: write it anew with such alone (np.savez, safetensors)"
            ) from None
        except (pickle.UnpicklingError, AttributeError, IndexError, OverflowError) as error:
            raise ValueError(f"it is no whole pickle of arrays: {error}") from error


class Numbers:
    """An array in a pickle: ``values``, once they are known."""

    __slots__ = ("_values",)

    def __init__(self, values: NDArray[Any] | None = None) -> None:
        self._values = values

    @property
    def values(self) -> NDArray[Any]:
        """The numbers, read-only; ValueError where the pickle did not give them."""
        if self._values is None:
            raise ValueError("an array has no content")
        return self._values

    def __setstate__(self, state: Any) -> None:
        *_, shape, dtype, fortran, raw = state
        self._values = _numbers(shape, dtype, "F" if fortran else "C", raw)


class _RefusedError(Exception):
    """What a pickle may not ask for."""


class _Type:
    """Stand-in for a pickled ``numpy.dtype``: of numbers alone."""

    __slots__ = ("dtype",)

    def __init__(self, code: Any, *_: Any) -> None:
        found = _NUMBER.fullmatch(code) if isinstance(code, str) else None
        if not found:
            raise _RefusedError(f"an array of type {str(code)[:40]!r}")
        self.dtype = np.dtype(code)

    def __setstate__(self, state: Any) -> None:
        _, order, base, names, fields, *_ = state
        if order not in tuple("<>=|") or (base, names, fields) != (None, None, None):
            raise _RefusedError("an array of structures")
        self.dtype = self.dtype.newbyteorder(order)


class _Answer:
    """Answer to a name: can be called, and nothing in it can be set."""

    __slots__ = ("_make",)

    def __init__(self, make: Callable[..., Any]) -> None:
        self._make = make

    def __call__(self, *arguments: Any) -> Any:
        return self._make(*arguments)

    def __setstate__(self, state: Any) -> NoReturn:
        raise _RefusedError("a function's change")


def _numbers(shape: Any, kind: Any, order: Any, raw: Any) -> NDArray[Any]:
    """Array of these bytes, which must be as many as type and shape say."""
    if not isinstance(kind, _Type):
        raise _RefusedError("an array without a type")
    content = raw.encode("latin1") if isinstance(raw, str) else raw
    lengths = isinstance(shape, tuple) and all(type(length) is int and length >= 0 for length in shape)
    if not lengths or not isinstance(content, bytes | bytearray) or order not in {"C", "F"}:
        raise _RefusedError("an array that is no plain one")
    if prod(shape) * kind.dtype.itemsize != len(content):
        raise ValueError(f"an array of shape {shape} has {len(content)} bytes, which do not fit it")
    return np.ndarray(shape, kind.dtype, bytes(content), order=order)


def _subtype(*_: Any) -> NoReturn:
    raise _RefusedError("an array that is made by hand")


_NDARRAY: Final = _Answer(_subtype)


def _reconstruct(subtype: Any, *_: Any) -> Numbers:
    if subtype is not _NDARRAY:
        raise _RefusedError("an array of a class of its own")
    return Numbers()


def _scalar(kind: Any, raw: Any = None) -> Any:
    return _numbers((), kind, "C", raw)[()]


def _frombuffer(raw: Any, kind: Any, shape: Any, order: Any, *_: Any) -> Numbers:
    return Numbers(_numbers(shape, kind, order, raw))


def _encode(text: Any, encoding: Any = "latin1") -> bytes:
    if not isinstance(text, str) or encoding not in {"latin1", "latin-1"}:
        raise _RefusedError("an encoding other than latin1")
    return text.encode("latin1")


def _no_bytes(*arguments: Any) -> bytes:
    """Empty bytes, as Python 2 can read them; no others are written so."""
    if arguments:
        raise _RefusedError("bytes made by hand")
    return b""


_ANSWERS: Final[Mapping[tuple[str, str], _Answer]] = {
    **{
        (f"numpy.{core}.{module}", name): _Answer(make)
        for core in ("core", "_core")
        for module, name, make in (
            ("multiarray", "_reconstruct", _reconstruct),
            ("multiarray", "scalar", _scalar),
            ("numeric", "_frombuffer", _frombuffer),
        )
    },
    ("numpy", "ndarray"): _NDARRAY,
    ("numpy", "dtype"): _Answer(_Type),
    ("_codecs", "encode"): _Answer(_encode),
    ("collections", "OrderedDict"): _Answer(dict),
    **{(module, "set"): _Answer(set) for module in ("builtins", "__builtin__")},
    **{(module, "frozenset"): _Answer(frozenset) for module in ("builtins", "__builtin__")},
    **{(module, "bytes"): _Answer(_no_bytes) for module in ("builtins", "__builtin__")},
}


def _answer(module: str, name: str) -> _Answer:
    try:
        return _ANSWERS[module, name]
    except KeyError:
        raise _RefusedError(f"{module}.{name}"[:120]) from None


class _Unpickler(pickle.Unpickler):
    """Unpickler that knows no names but ours."""

    def find_class(self, module: str, name: str) -> Any:
        return _answer(module, name)


def _scan(content: Any) -> None:
    """Return when a pickle's program holds only what is harmless; lengths that it does not hold end here too."""
    tuples = 0
    for count, (opcode, argument, _) in enumerate(pickletools.genops(content)):
        if opcode.name in _FOREIGN:
            raise _RefusedError(_FOREIGN[opcode.name])
        if opcode.name in {"GLOBAL", "INST"}:
            _answer(*str(argument).split(" ", 1))
        if opcode.name in {"PUT", "BINPUT", "LONG_BINPUT"} and int(argument or 0) > count:
            raise ValueError(f"its memo has a hole before number {argument}")
        tuples += opcode.name.startswith("TUPLE")
        if tuples > TUPLES:
            raise _RefusedError(f"more than {TUPLES} tuples")
