"""A probe set in memory: the samples that a run records at every epoch."""

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ibstore.errors import CaptureError, ValuesError
from ibstore.store.format.schema import DIGEST_CHARACTERS


@dataclass(frozen=True)
class ProbeSet:
    """Samples of one split.

    Parameters
    ----------
    x
        Network inputs, (sample, …), as the network takes them.
    y
        Integer labels, (sample,), or None.
    sample
        Sample ids, (sample,) int64, distinct; by default 0, 1, 2, …

    Raises
    ------
    CaptureError
        When there is no sample, the lengths differ, an id is no integer or stands twice.
    ValuesError
        When a label is no integer, or too large for int64.
    """

    x: NDArray[Any]
    y: NDArray[np.int64] | None
    sample: NDArray[np.int64]

    @classmethod
    def of(cls, x: NDArray[Any], y: NDArray[Any] | None = None, sample: NDArray[Any] | None = None) -> "ProbeSet":
        """Probe set of plain arrays, checked."""
        ids = np.arange(len(x)) if sample is None else _sample_ids(np.asarray(sample))
        labels = None if y is None else integer_labels(np.asarray(y))
        if len(x) == 0:
            raise CaptureError("the probe set is empty; give at least one sample as x")
        for name, values in (("y", labels), ("sample", ids)):
            if values is not None and values.shape != (len(x),):
                raise CaptureError(
                    f"{name} has shape {values.shape} where x has {len(x)} samples; give one value a sample"
                )
        if len(np.unique(ids)) != len(ids):
            raise CaptureError("a sample id stands twice; give every sample an id of its own")
        native = x.astype(x.dtype.newbyteorder("="), copy=False)
        return cls(np.ascontiguousarray(native), labels, ids)

    def digest(self) -> str:
        """Name of this data: SHA-256 over dtypes, shapes and bytes of x, y and the ids, 32 hex digits."""
        return self._digest

    @cached_property
    def _digest(self) -> str:  # of all the data, and asked for wherever a run is begun
        arrays = (self.x, self.y, self.sample)
        return data_digest(*(None if each is None else (each.dtype, each.shape, [each]) for each in arrays))


Blocks = tuple[np.dtype[Any], tuple[int, ...], Iterable[NDArray[Any]]]
"""An array that need not fit in memory: its dtype, its shape, and its rows in order."""


def data_digest(*arrays: Blocks | None) -> str:
    """SHA-256 over dtypes, shapes and bytes of arrays, or that there is none, 32 hex digits."""
    sha = hashlib.sha256()
    for array in arrays:
        if array is None:
            sha.update(b"none")
            continue
        dtype, shape, blocks = array
        little = dtype.newbyteorder("<")
        sha.update(f"{little.str}{shape}".encode())
        for block in blocks:
            sha.update(np.ascontiguousarray(block, little).data)
    return sha.hexdigest()[:DIGEST_CHARACTERS]


def integer_labels(y: NDArray[Any]) -> NDArray[np.int64]:
    """Labels as int64.

    Raises
    ------
    ValuesError
        When a label is no integer.

    Examples
    --------
    >>> integer_labels(np.array([1.0, 2.0]))
    array([1, 2])
    """
    if fault := _not_integer(y):
        raise ValuesError(f"a label must be an integer, found {fault}; give class numbers as y")
    return y.astype(np.int64)


def _sample_ids(ids: NDArray[Any]) -> NDArray[np.int64]:
    if fault := _not_integer(ids):
        raise CaptureError(f"a sample id must be an integer, found {fault}; give every sample a number")
    return ids.astype(np.int64)


def _not_integer(values: NDArray[Any]) -> str | None:
    """First value that int64 does not hold exactly, in words; None where there is none."""
    kind = values.dtype.kind
    if kind in "ib":
        return None
    if kind == "u":
        wrong = values > np.uint64(np.iinfo(np.int64).max)
    elif kind == "f":
        wide = values.astype(np.float64)
        wrong = ~((np.floor(wide) == wide) & (np.abs(wide) < 2.0**63))
    else:
        return f"values of type {values.dtype}"
    first = np.flatnonzero(wrong)[:1]
    return f"{values.reshape(-1)[first[0]]!s} at sample {first[0]}" if len(first) else None
