"""A probe set in memory: the samples that a run records at every epoch."""

import hashlib
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from ibstore.errors import CaptureError, ValuesError
from ibstore.store.format.schema import DIGEST_CHARACTERS

_TARGET_NAME: Final = re.compile(r"[A-Za-z0-9_]{1,64}")


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
    targets
        What else is known of the samples, (sample,) float64 by name, such as p(y = 1 given x) as ``p_y1``.

    Raises
    ------
    CaptureError
        When there is no sample, the lengths differ, an id is no integer or stands twice, or a target's name is not of
        letters, digits and underscores.
    ValuesError
        When a label is no integer, or too large for int64; when a target is no finite number.
    """

    x: NDArray[Any]
    y: NDArray[np.int64] | None
    sample: NDArray[np.int64]
    targets: Mapping[str, NDArray[np.float64]] = field(default_factory=dict)

    @classmethod
    def of(
        cls,
        x: NDArray[Any],
        y: NDArray[Any] | None = None,
        sample: NDArray[Any] | None = None,
        targets: Mapping[str, NDArray[Any]] | None = None,
    ) -> "ProbeSet":
        """Probe set of plain arrays, checked."""
        known = {name: _target(name, np.asarray(values)) for name, values in (targets or {}).items()}
        ids = np.arange(len(x)) if sample is None else _sample_ids(np.asarray(sample))
        labels = None if y is None else integer_labels(np.asarray(y))
        if len(x) == 0:
            raise CaptureError("the probe set is empty; give at least one sample as x")
        named = {f"target {name!r}": values for name, values in known.items()}
        for name, values in ({"y": labels, "sample": ids} | named).items():
            if values is not None and values.shape != (len(x),):
                raise CaptureError(
                    f"{name} has shape {values.shape} where x has {len(x)} samples; give one value a sample"
                )
        if len(np.unique(ids)) != len(ids):
            raise CaptureError("a sample id stands twice; give every sample an id of its own")
        native = x.astype(x.dtype.newbyteorder("="), copy=False)
        return cls(np.ascontiguousarray(native), labels, ids, known)

    def digest(self) -> str:
        """Name of this data: SHA-256 over dtypes, shapes and bytes of x, y, ids and targets, 32 hex digits."""
        return self._digest

    @cached_property
    def _digest(self) -> str:  # of all the data, and asked for wherever a run is begun
        return probe_digest(_blocks(self.x), self.y, self.sample, self.targets)


Blocks = tuple[np.dtype[Any], tuple[int, ...], Iterable[NDArray[Any]]]
"""An array that need not fit in memory: its dtype, its shape, and its rows in order."""


def probe_digest(x: Blocks, y: NDArray[Any] | None, sample: NDArray[Any], targets: Mapping[str, NDArray[Any]]) -> str:
    """Digest of a probe set, whose inputs need not fit in memory.

    Each target follows its own name, in the order of names; without targets it is the digest of x, y and ids alone.
    """
    named = [array for name in sorted(targets) for array in (np.frombuffer(name.encode(), np.uint8), targets[name])]
    return data_digest(x, None if y is None else _blocks(y), *map(_blocks, (sample, *named)))


def _blocks(array: NDArray[Any]) -> Blocks:
    return array.dtype, array.shape, [array]


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


def _target(name: str, values: NDArray[Any]) -> NDArray[np.float64]:
    if not (isinstance(name, str) and _TARGET_NAME.fullmatch(name)):
        raise CaptureError(f"a target is called {name!r}; give it a name of up to 64 letters, digits and underscores")
    if values.dtype.kind not in "biuf":
        raise ValuesError(f"target {name!r} must be numbers, found values of type {values.dtype}; give one a sample")
    wide = values.astype(np.float64)
    if len(strange := np.flatnonzero(~np.isfinite(wide))):
        found = f"{wide.reshape(-1)[strange[0]]} at sample {strange[0]}"
        raise ValuesError(f"target {name!r} must be finite, found {found}; leave out what is not known of every sample")
    return wide


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
