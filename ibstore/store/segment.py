"""Writing a segment: rows gathered into whole shards, every file noted, the commit record last."""

from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ibstore.errors import StoreError
from ibstore.store.format.layout import Layout, plan, shard_budget
from ibstore.store.format.schema import (
    Dynamics,
    FileInfo,
    LayerInfo,
    Manifest,
    Metrics,
    SegmentRecord,
    SplitInfo,
    file_info,
    group,
)
from ibstore.store.format.shards import Map, Shards
from ibstore.store.places import RECORD, Storage

if TYPE_CHECKING:
    import zarr


class GroupFiles:
    """Writes the files of a group and notes the size and the checksum of each.

    Each file is put only if absent: two writers of one group never mix, whoever comes second fails. Only where
    all who write the group write the same bytes it is ``shared``, and files are put whoever put them before.
    """

    def __init__(self, storage: Storage, key: str, *, shared: bool = False) -> None:
        self.storage = storage
        self.key = key
        self._put = storage.put if shared else storage.put_new
        self.written: dict[str, FileInfo] = {}

    def put(self, path: str, content: bytes) -> None:
        """Write the file at ``path`` below the group.

        Raises
        ------
        StoreError
            When another writer has written it.
        """
        try:
            self._put(f"{self.key}/{path}", content)
        except FileExistsError:
            raise StoreError(
                f"{self.storage.where(self.key)} is being written by another process; let one of them write it"
            ) from None
        self.written[path] = file_info(content)

    def whole(self) -> bool:
        """Whether every file that was written is there, to the byte."""
        try:
            return all(
                file_info(self.storage.read(f"{self.key}/{path}")) == info for path, info in self.written.items()
            )
        except FileNotFoundError:
            return False

    def put_all(self, path: str, files: Mapping[str, bytes]) -> None:
        """Write all files of the node at ``path``."""
        for name, content in files.items():
            self.put(f"{path}/{name}", content)


class ArrayWriter:
    """Appends rows to one array, a whole shard at a time (a shard is written once, never in parts).

    Parameters
    ----------
    group, path
        Where it is.
    array
        The array, (sample, …), or (epoch, sample, …) whose rows come epoch after epoch.
    epochs
        How many epochs there are; None where the array has no such axis.
    spread
        Maps over chunks, on many threads if it likes.
    """

    def __init__(
        self, group: GroupFiles, path: str, array: "zarr.Array[Any]", epochs: int | None, spread: Map = map
    ) -> None:
        self._group, self._path, self._array, self._spread = group, path, array, spread
        self._shards = Shards.of(array)
        self._lead = () if epochs is None else (epochs,)
        axis = len(self._lead)
        self.samples = array.shape[axis] * (epochs or 1)
        rows = min(self._shards.shard[axis], array.shape[axis]) * (epochs or 1)
        self._buffer = np.empty((rows, *array.shape[axis + 1 :]), array.dtype)
        self._filled = self._written = self._count = 0

    @property
    def due(self) -> int:
        """Rows that have not come yet."""
        return self.samples - self._written - self._filled

    def misfit(self, rows: NDArray[Any]) -> str | None:
        """Why ``rows`` cannot be the next ones; None when they can."""
        shape, dtype = self._buffer.shape[1:], self._buffer.dtype
        if rows.shape[1:] != shape or len(rows) > self.due:
            return f"shape {rows.shape} where up to {self.due} samples of shape {shape} are due"
        if not np.can_cast(rows.dtype, dtype):
            return f"{rows.dtype} where {dtype} is due"
        return None

    def append(self, rows: NDArray[Any]) -> None:
        """Take ``rows`` (sample, …) as the next ones."""
        while len(rows):
            taken = rows[: len(self._buffer) - self._filled]
            self._buffer[self._filled : self._filled + len(taken)] = taken
            self._filled += len(taken)
            rows = rows[len(taken) :]
            if self._filled == len(self._buffer) or not self.due:
                self._flush()

    def _flush(self) -> None:
        units = self._buffer.shape[1:]
        block = self._buffer[: self._filled].reshape(*self._lead, -1, *units)
        place = (*(0 for _ in self._lead), self._count, *(0 for _ in units))
        name = self._array.metadata.encode_chunk_key(place)
        self._group.put(f"{self._path}/{name}", self._shards.encode(block, self._spread))
        self._written += self._filled
        self._filled = 0
        self._count += 1


class SegmentWriter:
    """Epochs of a run on their way into the store; nothing of them exists before `commit`.

    Parameters
    ----------
    storage, key
        Where the segment is.
    epochs
        The epochs; several only where all their arrays together are small.
    manifest
        Of the run.
    samples
        Sample ids of each split, (sample,) int64.
    allowed
        Called before the record is put: raises when this process must not write any more.
    spread
        Maps over chunks, on many threads if it likes.
    """

    def __init__(
        self,
        storage: Storage,
        key: str,
        epochs: Sequence[int],
        manifest: Manifest,
        samples: Mapping[SplitInfo, NDArray[np.int64]],
        allowed: Callable[[], None],
        spread: Map = map,
    ) -> None:
        self.epochs = tuple(epochs)
        self._files = GroupFiles(storage, key)
        self._manifest, self._allowed, self._spread = manifest, allowed, spread
        self._arrays: dict[tuple[str, str], ArrayWriter] = {}
        try:
            for split, ids in samples.items():
                self._open_split(split, ids)
        except BaseException:
            with suppress(StoreError):  # the error itself says more
                self.discard()
            raise

    def _open_split(self, split: SplitInfo, ids: NDArray[np.int64]) -> None:
        from ibstore.store.format.arrays import coordinate

        self._files.put(f"{split.node}/{RECORD}", group({}))
        self._files.put_all(f"{split.node}/epoch", coordinate("epoch", np.array(self.epochs, np.int64)))
        self._files.put_all(f"{split.node}/sample", coordinate("sample", ids))
        for layer in self._manifest.layers:
            self._arrays[split.name, layer.name] = self._open_layer(split, layer)

    def _open_layer(self, split: SplitInfo, layer: LayerInfo) -> ArrayWriter:
        from ibstore.store.format.arrays import create, unit_dimensions

        dtype, encoding = np.dtype(layer.dtype), self._manifest.encoding
        shape = (len(self.epochs), split.samples, *layer.shape)
        dimensions = ["epoch", "sample", *unit_dimensions(layer.node, len(layer.shape))]
        array, files = create(shape, dtype, dimensions, self._layout(split, layer), encoding)
        path = f"{split.node}/{layer.node}"
        self._files.put(f"{path}/{RECORD}", files[RECORD].to_bytes())
        return ArrayWriter(self._files, path, array, len(self.epochs), self._spread)

    def _layout(self, split: SplitInfo, layer: LayerInfo) -> Layout:
        sample_bytes = np.dtype(layer.dtype).itemsize * int(np.prod(layer.shape))
        budget = shard_budget(len(self._manifest.layers) * len(self._manifest.splits))
        layout = plan(sample_bytes, split.samples, budget, self._manifest.chunk_bytes)
        if len(self.epochs) == 1:
            return layout
        return Layout(layout.chunk, -(-split.samples // layout.chunk) * layout.chunk)  # many epochs, one shard

    def append(self, split: str, layer: str, rows: NDArray[Any]) -> None:
        """Take the next ``rows`` (sample, …) of a layer: samples in the split's order, epoch after epoch.

        Raises
        ------
        StoreError
            When they are not what the manifest says: another shape, a wider type, more than are due.
        """
        writer = self._arrays[split, layer]
        if misfit := writer.misfit(rows):
            raise StoreError(
                f"layer {layer!r} of split {split!r} got rows of {misfit} at {self}; append what the manifest says"
            )
        writer.append(rows)

    def commit(
        self, steps: Sequence[int | None] = (), metrics: Sequence[Metrics] = (), dynamics: Sequence[Dynamics] = ()
    ) -> SegmentRecord:
        """Make the epochs exist: everything durable first, the record last.

        ``steps``, ``metrics`` and ``dynamics`` have one entry an epoch, or none at all.

        Raises
        ------
        StoreError
            When rows are missing, or the epoch was committed by someone else meanwhile.
        """
        for (split, layer), rows in self._arrays.items():
            if rows.due:
                raise StoreError(
                    f"layer {layer!r} of split {split!r} has {rows.samples - rows.due} of {rows.samples} samples of "
                    f"{self}; record the whole probe set before committing"
                )
        unknown = [None] * len(self.epochs)
        record = SegmentRecord(
            self.epochs,
            tuple(steps or unknown),
            tuple(metrics or [{}] * len(unknown)),
            self._files.written,
            tuple(dynamics),
        )
        storage, key = self._files.storage, self._files.key
        storage.sync(key)
        self._allowed()
        try:
            storage.put_new(f"{key}/{RECORD}", group(record.dump()), durable=True)
        except FileExistsError:
            raise StoreError(
                f"{self} was committed by another writer meanwhile; record under another run name"
            ) from None
        self._check_still_allowed()
        return record

    def _check_still_allowed(self) -> None:
        """Return unless this process slept between its right and its record, and another took the run over.

        Then a record whose files the other replaced is taken back; one whose files are whole stands.
        """
        try:
            self._allowed()
        except StoreError:
            if not self._files.whole():
                self._files.storage.remove(f"{self._files.key}/{RECORD}")
            raise

    def discard(self) -> None:
        """Remove what was written of epochs that will not be committed; a committed segment stays.

        StoreError where another writer has taken the run over, whose segment it may be by now.
        """
        storage, key = self._files.storage, self._files.key
        if not storage.has(f"{key}/{RECORD}"):
            self._allowed()
            storage.remove_below(key)

    def __str__(self) -> str:
        first, last = self.epochs[0], self.epochs[-1]
        return f"epoch {first}" if first == last else f"epochs {first}–{last}"
