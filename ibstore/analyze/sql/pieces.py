"""What a query reads at once: a stored chunk of a layer, and the parts of it that its filter may want."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache, cached_property, partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ibstore.analyze.sql.pruning import Range
from ibstore.store import LayerInfo, Run, SplitInfo
from ibstore.store.committed import CommittedArray

Block = NDArray[Any]


class Layer:
    """A layer of a run's split over all its epochs, to be read chunk by chunk.

    Parameters
    ----------
    run, split, info
        Which it is.
    samples
        Gives the ids of the split's samples when they are asked for.
    """

    def __init__(self, run: Run, split: SplitInfo, info: LayerInfo, samples: Callable[[], NDArray[np.int64]]) -> None:
        self.names = {"run": run.name, "split": split.name, "layer": info.name}
        self.info, self.epochs = info, run.epochs
        self.units = int(np.prod(info.shape))
        self._places = [(segment, place) for segment in run.segments for place in range(len(segment.record.epochs))]
        self._split, self._samples = split, samples
        self._arrays: dict[str, CommittedArray] = {}

    @cached_property
    def samples(self) -> NDArray[np.int64]:
        """Ids of its samples."""
        return self._samples()

    def array(self, position: int) -> tuple[CommittedArray, int]:
        """Where the epoch at a position is stored: in which array, and at which place there."""
        segment, place = self._places[position]
        if segment.key not in self._arrays:
            self._arrays[segment.key] = segment.array(self._split, self.info)
        return self._arrays[segment.key], place


@dataclass(frozen=True)
class Part:
    """Some samples of a layer, by their positions, and some of its units."""

    rows: Range
    units: tuple[Range, ...]

    @property
    def whole(self) -> bool:
        """Whether nothing of it has to be filtered."""
        return self.rows.whole or all(units.whole for units in self.units)

    def touches(self, first: int, last: int) -> bool:
        """Whether it has samples of the positions ``first`` … ``last``."""
        return self.rows.start <= last and first < self.rows.stop


@dataclass(frozen=True)
class Piece:
    """A chunk of ``size`` samples of a layer's epoch, at a position among its epochs, and the parts that it has of."""

    layer: Layer
    position: int
    chunk: int
    size: int
    parts: Sequence[Part]

    @property
    def epoch(self) -> int:
        """Its epoch."""
        return self.layer.epochs[self.position]

    def read(self) -> Block:
        """Its values, (row, unit)."""
        array, place = self.layer.array(self.position)
        block = array.chunk((place,), self.chunk)
        return block.reshape(len(block), -1)

    def unread(self) -> Block:
        """As many numbers in the same form, in no memory: for rows of which only the other columns are wanted."""
        rows = len(self.layer.samples[self.chunk * self.size :][: self.size])
        return np.broadcast_to(np.float32(0), (rows, self.layer.units))

    def samples(self, part: Part) -> NDArray[np.int64]:
        """Ids of those of its samples that a part has."""
        return self.layer.samples[self.chunk * self.size :][: self.size][self._rows(part)]

    def values(self, part: Part, block: Block) -> Block:
        """Values of a part, (row, unit), from those of the chunk; without a copy where its units stand together."""
        rows = block[self._rows(part)]
        taken = [rows[:, units.start : units.stop] for units in part.units]
        return taken[0] if len(taken) == 1 else np.concatenate([rows[:, :0], *taken], axis=1)

    def _rows(self, part: Part) -> slice:
        first = self.chunk * self.size
        return slice(max(0, part.rows.start - first), part.rows.stop - first)


def layers_of(runs: Sequence[Run]) -> list[Layer]:
    """Every layer of the runs that has epochs: by run, split, and as executed."""
    found = []
    for run in runs:
        for split in run.manifest.splits:
            samples = cache(partial(_samples, run, split))
            found += [Layer(run, split, info, samples) for info in run.manifest.layers if run.epochs]
    return found


def _samples(run: Run, split: SplitInfo) -> NDArray[np.int64]:
    return run.probe(split).samples()
