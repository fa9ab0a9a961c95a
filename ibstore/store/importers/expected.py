"""What every epoch of a source must be like: the first one's layers, of the same samples."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import prod
from typing import Any, Final, Self

import numpy as np
from numpy.typing import NDArray

from ibstore.errors import SourceError, UsageError
from ibstore.store.format.names import escape
from ibstore.store.format.schema import LayerInfo
from ibstore.store.importers.source import INPUTS, Array, Epoch

_SAME: Final = "every epoch must have the same layers of the same samples"


@dataclass(frozen=True)
class Expected:
    """The first epoch's layers.

    Parameters
    ----------
    where
        The first epoch, for messages.
    layers
        Its layers, in execution order.
    chosen
        Whether they were asked for by name: then other arrays are passed over.
    """

    where: str
    layers: Mapping[str, Array]
    chosen: bool

    @classmethod
    def of(cls, first: Epoch, names: Sequence[str] | None) -> Self:
        """What the first epoch lets expect; without ``names`` all its arrays are layers but x, y and sample.

        Raises
        ------
        UsageError
            When it has no layer of a name.
        SourceError
            When it has none at all, or one without samples.
        """
        wanted = [name for name in first.arrays if name not in INPUTS] if names is None else list(dict.fromkeys(names))
        if missing := [name for name in wanted if name not in first.arrays]:
            has = ", ".join(first.arrays) or "none"
            raise UsageError(f"{first.where} has no layer {missing[0]!r}; it has {has}")
        if not wanted:
            raise SourceError(f"{first.where} has no layer; put one array a layer into it")
        for name in wanted:
            first.arrays[name].check_rows()
            if 0 in first.arrays[name].shape[1:]:
                raise SourceError(f"{first.arrays[name].where} has no values; leave it out with --layers")
        return cls(first.where, {name: first.arrays[name] for name in wanted}, names is not None)

    @property
    def samples(self) -> int:
        """How many samples there are."""
        return next(iter(self.layers.values())).shape[0]

    @property
    def infos(self) -> tuple[LayerInfo, ...]:
        """Layers as a manifest has them."""
        layers = self.layers.items()
        return tuple(LayerInfo(name, escape(name), each.shape[1:], each.stored.name) for name, each in layers)

    @property
    def epoch_bytes(self) -> int:
        """Bytes of an epoch in the store before compression."""
        return sum(prod(each.shape) * each.stored.itemsize for each in self.layers.values())

    def check(self, epoch: Epoch, inputs: Mapping[str, NDArray[Any]]) -> None:
        """Return when an epoch is as expected, and has these inputs, labels and ids where it has any.

        Raises
        ------
        SourceError
            When a layer is missing, too many, of another shape or type, or the samples are others; it names the file.
        """
        self._check_names(epoch)
        for name, first in self.layers.items():
            array, shape = epoch.arrays[name], (self.samples, *first.shape[1:])
            if array.shape != shape:
                raise SourceError(f"{array.where} has shape {array.shape} where {shape} is due; {_SAME}")
            if array.stored != first.stored:
                raise SourceError(f"{array.where} has type {array.stored} where {first.stored} is due; {_SAME}")
        for name in inputs.keys() & epoch.arrays.keys() - self.layers.keys():
            array = epoch.arrays[name]
            if not np.array_equal(array.whole(), inputs[name], equal_nan=True):
                raise SourceError(
                    f"{array.where} is not what the run has; every epoch must have the same samples in the same order"
                )

    def _check_names(self, epoch: Epoch) -> None:
        for name in self.layers:
            if name not in epoch.arrays:
                raise SourceError(
                    f"{epoch.where} has no layer {name!r}, which {self.where} has; add it, or choose the layers that "
                    "all epochs have with --layers"
                )
        for name in epoch.arrays:
            if not self.chosen and name not in self.layers and name not in INPUTS:
                raise SourceError(
                    f"{epoch.where} has a layer {name!r}, which {self.where} has not; choose the layers that all "
                    "epochs have with --layers"
                )
