"""A probe set in memory: the samples that a run records at every epoch."""

import hashlib
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ibstore.errors import CaptureError, ValuesError
from ibstore.store.schema import DIGEST_CHARACTERS


@dataclass(frozen=True, slots=True)
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
        When there is no sample, the lengths differ or an id stands twice.
    ValuesError
        When a label is no integer.
    """

    x: NDArray[Any]
    y: NDArray[np.int64] | None
    sample: NDArray[np.int64]

    @classmethod
    def of(cls, x: NDArray[Any], y: NDArray[Any] | None = None, sample: NDArray[Any] | None = None) -> "ProbeSet":
        """Probe set of plain arrays, checked."""
        ids = np.arange(len(x)) if sample is None else np.asarray(sample)
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
        return cls(np.ascontiguousarray(x), labels, ids.astype(np.int64))

    def digest(self) -> str:
        """Name of this data: SHA-256 over dtypes, shapes and bytes of x, y and the ids, 32 hex digits."""
        sha = hashlib.sha256()
        for values in (self.x, self.y, self.sample):
            if values is None:
                sha.update(b"none")
                continue
            little = values.astype(values.dtype.newbyteorder("<"), copy=False)
            sha.update(f"{little.dtype.str}{little.shape}".encode())
            sha.update(np.ascontiguousarray(little).data)
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
    if y.dtype.kind in "iub":
        return y.astype(np.int64)
    if y.dtype.kind == "f":
        wrong = np.flatnonzero(~(np.isfinite(y) & (np.floor(y) == y)))
        if not len(wrong):
            return y.astype(np.int64)
        found = f"{y.reshape(-1)[wrong[0]]!s} at sample {wrong[0]}"
    else:
        found = f"values of type {y.dtype}"
    raise ValuesError(f"a label must be an integer, found {found}; give class numbers as y")
