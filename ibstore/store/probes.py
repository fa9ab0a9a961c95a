"""Reading the stored data of a probe set: inputs, labels and sample ids."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any, Final

from ibstore.store.committed import CommittedArray, Result
from ibstore.store.format.schema import Files
from ibstore.store.places import Storage

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

TARGET: Final = "target_"
"""How arrays of targets are called, before their own names."""


@dataclass(frozen=True)
class ProbeReader:
    """A stored probe set: what it was named after, and its arrays."""

    storage: Storage
    key: str
    committed: Files

    @property
    def digest(self) -> str:
        """Name of the data."""
        return self.key.rpartition("/")[2]

    @property
    def has_labels(self) -> bool:
        """Whether samples have labels."""
        return any(path.startswith("y/") for path in self.committed)

    @property
    def stored_bytes(self) -> int:
        """Bytes of its files on disk."""
        return sum(info.bytes for info in self.committed.values())

    def x_form(self) -> "tuple[tuple[int, ...], np.dtype[Any]]":
        """Shape of one sample's input, and its dtype."""
        return self._x_form

    @cached_property
    def _x_form(self) -> "tuple[tuple[int, ...], np.dtype[Any]]":
        shape, dtype = self._array("x").form()
        return shape[1:], dtype

    def x_blocks(self) -> "Iterator[NDArray[Any]]":
        """Inputs, (sample, …), in order, a shard at a time."""
        return self._array("x").blocks()

    def map_x(self, work: "Callable[[int, NDArray[Any]], Result]", threads: int) -> "Iterator[Result]":
        """Results of ``work(first sample, inputs)`` for every block of inputs, in order; see `Segment.map`."""
        return self._array("x").map(lambda _, start, blocks: work(start, blocks[0]), [()], threads)

    def labels(self) -> "NDArray[Any] | None":
        """Labels, (sample,), or None where the probe set has none."""
        return self._array("y").whole() if self.has_labels else None

    def classes(self) -> "NDArray[np.int64] | None":
        """Labels as int64, (sample,), or None where there are none; ValuesError where one is no integer."""
        from ibstore.store.format.probe import integer_labels

        labels = self.labels()
        return None if labels is None else integer_labels(labels)

    def targets(self) -> "dict[str, NDArray[np.float64]]":
        """What else is known of the samples, (sample,) by name; empty where nothing is."""
        nodes = sorted({path.partition("/")[0] for path in self.committed if path.startswith(TARGET)})
        return {node.removeprefix(TARGET): self._array(node).whole() for node in nodes}

    def samples(self) -> "NDArray[np.int64]":
        """Sample ids, (sample,)."""
        return self._array("sample").whole()

    def _array(self, name: str) -> CommittedArray:
        what = f"{name} of probe set {self.digest}"
        return CommittedArray.of(self.storage, self.key, name, self.committed, what, "restore it from a copy")
