"""What an importer sees of foreign files: epochs of named arrays, known by their shapes before they are read."""

import zipfile
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from math import prod
from typing import Any, Final, Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray

from ibstore.errors import SourceError
from ibstore.store.format.schema import Dynamics, Metrics
from ibstore.store.importers.names import natural

INPUTS: Final = ("x", "y", "sample")
"""Arrays of the samples themselves, which are no layers unless they are asked for as such."""
BLOCK_BYTES: Final = 32 << 20
"""What is read of an array at once, where its file can be read in parts."""

_UNREADABLE: Final = (OSError, ValueError, EOFError, KeyError, TypeError, RuntimeError, MemoryError)
_UNZIPPABLE: Final = (zipfile.BadZipFile, zlib.error)
_Value = TypeVar("_Value")


class Rows(Protocol):
    """An open array, of which rows can be had."""

    def __getitem__(self, rows: slice, /) -> Any:
        """Some of the rows, (sample, …)."""


@dataclass(frozen=True, slots=True)
class Array:
    """An array in a file.

    Parameters
    ----------
    where
        The file and the array in it, for messages.
    shape
        (sample, …).
    dtype
        As it is in the file.
    open
        Opens it; what that gives may read rows only when they are asked for.
    """

    where: str
    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    open: Callable[[], Rows]

    @property
    def stored(self) -> "np.dtype[Any]":
        """Dtype in the store: the same numbers in this machine's byte order, truth values as bytes.

        Raises
        ------
        SourceError
            When they are no numbers that a store holds.
        """
        if self.dtype.kind == "b":
            return np.dtype(np.uint8)
        if self.dtype.kind not in "iuf" or self.dtype.itemsize > np.dtype(np.float64).itemsize:
            raise SourceError(
                f"{self.where} has values of type {self.dtype}; only real numbers of up to 64 bits are imported: "
                "convert it, or leave it out with --layers"
            )
        return self.dtype.newbyteorder("=")

    def blocks(self) -> Iterator[NDArray[Any]]:
        """All rows in order, (sample, …), about 32 MiB at a time, in C order and this machine's byte order."""
        stored = self.stored
        row = prod(self.shape[1:]) * self.dtype.itemsize
        step = max(1, BLOCK_BYTES // max(1, row))
        with reading(self.where):
            rows = self.open()
        for start in range(0, self.shape[0], step):
            with reading(self.where):
                block = np.ascontiguousarray(rows[start : min(start + step, self.shape[0])], stored)
            yield block

    def whole(self) -> NDArray[Any]:
        """All rows at once, (sample, …)."""
        self.check_rows()
        return np.concatenate([np.empty((0, *self.shape[1:]), self.stored), *self.blocks()])

    def check_rows(self) -> None:
        """Return when there is an axis of samples."""
        if not self.shape:
            raise SourceError(f"{self.where} is a single number; an array of one row a sample is due")


def array_of(values: NDArray[Any], where: str) -> Array:
    """Array that is in memory, or mapped into it."""
    return Array(where, values.shape, values.dtype, lambda: values)


@dataclass(frozen=True, slots=True)
class Epoch:
    """What is known of one epoch.

    Parameters
    ----------
    where
        Its file, for messages.
    arrays
        By name, in the file's order.
    step
        The optimizer's step count.
    metrics
        Scalars by split and name; those of the recorded split, whatever it is called, under ``""``.
    dynamics
        What training did since the epoch before, where that is known.
    """

    where: str
    arrays: Mapping[str, Array]
    step: int | None = None
    metrics: Metrics = field(default_factory=dict)
    dynamics: Dynamics = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Source:
    """Epochs that other code wrote.

    Parameters
    ----------
    epochs
        Opens each epoch, by number in growing order.
    sized
        Whether opening an epoch tells its shapes without reading the numbers.
    inputs
        ``x``, ``y``, ``sample`` and ``target_<name>`` where they lie beside the epochs.
    split
        Name of the split that the files speak of.
    """

    epochs: Mapping[int, Callable[[], Epoch]]
    sized: bool = True
    inputs: Mapping[str, Array] = field(default_factory=dict)
    split: str = "train"


def numbered(found: Iterable[tuple[int, str, _Value]]) -> dict[int, _Value]:
    """Values by number in growing order, from (number, where, value).

    Raises
    ------
    SourceError
        When a number stands twice.
    """
    places: dict[int, str] = {}
    values: dict[int, _Value] = {}
    for number, where, value in found:
        if number in places:
            raise SourceError(f"epoch {number} is there twice, in {places[number]} and in {where}; remove one of them")
        places[number], values[number] = where, value
    return dict(sorted(values.items()))


def in_natural_order(arrays: Mapping[str, Array]) -> dict[str, Array]:
    """Arrays with numbers in their names put in order: ``layer2`` before ``layer10``."""
    return {name: arrays[name] for name in sorted(arrays, key=natural)}


@contextmanager
def reading(where: str) -> Iterator[None]:
    """Turn the many ways in which a file is not what its name says into one error that names it."""
    try:
        yield
    except (*_UNREADABLE, *_UNZIPPABLE) as error:
        told = getattr(error, "strerror", None) or str(error)  # HDF5 has many lines
        reason = next(iter(told.splitlines()), "") or type(error).__name__
        raise SourceError(f"{where} cannot be read ({reason}); write it anew, or leave it out") from error
