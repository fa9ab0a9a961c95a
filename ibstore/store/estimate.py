"""What a run will take, told before it begins: measured on the first batch, since codecs know no other way."""

from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from ibstore.store.format.encoding import Encoding
from ibstore.store.format.layout import Layout, counted, size
from ibstore.store.format.shards import Shards

SAMPLE_BYTES: Final = 4 << 20


@dataclass(frozen=True, slots=True)
class Estimate:
    """Bytes of an epoch of a run, raw and about as many as will be stored, and how many epochs are planned.

    Parameters
    ----------
    epoch_raw, epoch_stored
        Bytes of one epoch.
    once
        Bytes stored once: the probe set.
    epochs
        How many are planned; None where nobody said.
    free
        Free bytes where the store is; None where there is no end of them.
    """

    epoch_raw: int
    epoch_stored: int
    once: int
    epochs: int | None
    free: int | None

    @property
    def stored(self) -> int:
        """Bytes that will be stored: of all planned epochs, or of one."""
        return self.once + self.epoch_stored * (1 if self.epochs is None else self.epochs)

    @property
    def fits(self) -> bool:
        """Whether there is room for it."""
        return self.free is None or self.stored <= self.free

    def __str__(self) -> str:
        """As a sentence's part.

        >>> str(Estimate(10 << 20, 4 << 20, 1 << 20, 11, 100 << 30))
        '11 epochs of 10.0 MiB, stored in about 45.0 MiB, with 100.0 GiB free'
        """
        planned = "an epoch" if self.epochs is None else counted(self.epochs, "epoch")
        free = "" if self.free is None else f", with {size(self.free)} free"
        return f"{planned} of {size(self.epoch_raw)}, stored in about {size(self.stored)}{free}"


def stored_bytes(values: NDArray[Any], rows: int, encoding: Encoding) -> int:
    """About how many bytes ``rows`` rows like ``values`` (sample, …) will be stored in."""
    from ibstore.store.format.arrays import create

    row = max(1, values[:1].nbytes)
    sample = values[: max(1, SAMPLE_BYTES // row)]
    dimensions = ["sample", *(f"axis_{axis}" for axis in range(1, sample.ndim))]
    array, _ = create(sample.shape, sample.dtype, dimensions, Layout(len(sample), len(sample)), encoding)
    return int(np.ceil(len(Shards.of(array).encode(sample)) * rows / len(sample)))
