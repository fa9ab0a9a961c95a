"""Writing a store: probe sets, runs and segments, with the commit protocol of format 1.

A group's own ``zarr.json`` is its commit record: it is put last, atomically and only if absent. Until then
what lies there does not exist, neither for ibstore nor for any other Zarr reader, and the next writer
sweeps it.
"""

import contextlib
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from ibstore.errors import DamagedError, RunBusyError, RunExistsError, StoreError, WriteError
from ibstore.events import Emit, Event, ignore
from ibstore.store import files, reader
from ibstore.store.layout import Layout, plan, shard_budget
from ibstore.store.names import escape, segment_name
from ibstore.store.probe import ProbeSet
from ibstore.store.schema import (
    FORMAT,
    FileInfo,
    LayerInfo,
    Manifest,
    Metrics,
    SegmentRecord,
    SplitInfo,
    dump_files,
    file_info,
    group,
    load_files,
)


def create_store(path: Path) -> None:
    """Make an empty store at ``path``; an existing store is left as it is.

    Raises
    ------
    StoreError
        When something else is there: a file, or a folder that is not empty and no store.
    """
    with files.write_errors(path):
        if os.path.lexists(path) and not path.is_dir():
            raise _no_store(path)
        files.make_folders(path)
        with files.locked(path):  # others may make the same store at the same moment
            if (path / "zarr.json").exists():
                reader.check_store(path)
            elif any(_foreign(path)):
                raise _no_store(path)
            for folder, attributes in ((path / "data", {}), (path / "runs", {}), (path, {"ibstore_format": FORMAT})):
                folder.mkdir(exist_ok=True)
                files.sweep_partial(folder)
                if not (folder / "zarr.json").exists():
                    files.put_new(folder / "zarr.json", group(attributes))


def _no_store(path: Path) -> StoreError:
    return StoreError(f"{path} exists and is no ibstore store; choose another path, or move it away")


def _foreign(path: Path) -> Iterator[Path]:
    """What lies in ``path`` that a creation cut short would not have left there."""
    for child in path.rglob("*"):
        ours = child.is_dir() if child.parent == path and child.name in {"data", "runs"} else child.name == "zarr.json"
        if not ours and child.suffix != files.PARTIAL:
            yield child


def write_probe_set(path: Path, probe: ProbeSet) -> str:
    """Write ``probe`` to ``data/<digest>`` of the store at ``path``, once, and return the digest."""
    from ibstore.store.arrays import RecordingStore, create, create_coordinate, unit_dimensions

    digest = probe.digest()
    folder = path / "data" / digest
    with files.write_errors(folder), files.locked(path / "data"):
        for other in files.folders(path / "data"):  # what killed writers left there
            if (other / "zarr.json").exists():
                files.sweep_partial(other)
            else:
                files.remove_tree(other)
        if folder.exists():
            _check_probe_set(folder)
            return digest
        folder.mkdir()
        store = RecordingStore.at(folder)
        dimensions = ["sample", *unit_dimensions("x", probe.x.ndim - 1)]
        layout = plan(probe.x[:1].nbytes, len(probe.x), shard_budget(1))
        array = create(store, "x", probe.x.shape, probe.x.dtype, dimensions, layout)
        for start in range(0, len(probe.x), layout.shard):
            array[start : start + layout.shard] = probe.x[start : start + layout.shard]
        create_coordinate(store, "sample", "sample", probe.sample)
        if probe.y is not None:
            create_coordinate(store, "y", "sample", probe.y)
        files.sync_tree(folder)
        files.put_new(folder / "zarr.json", group({"files": dump_files(store.files)}))
    return digest


def _check_probe_set(folder: Path) -> None:
    """Refuse to build a run on a probe set whose files are not what was committed."""
    attributes = (files.read_json(folder / "zarr.json") or {}).get("attributes", {})
    for path, info in load_files(attributes.get("files", {})).items():
        with files.read_errors(folder / path):
            found = (folder / path).read_bytes() if (folder / path).exists() else b""
        if file_info(found) != info:
            raise DamagedError(
                f"{folder / path}, which this run would share, is not what was committed; restore it from a copy, or "
                "capture into another store"
            )


class RowWriter:
    """Appends rows to one array, a whole shard at a time (writing part of a shard would rewrite it)."""

    def __init__(self, array: Any, shape: tuple[int, ...], dtype: np.dtype[Any], layout: Layout) -> None:
        self.array = array
        self.samples = shape[0]
        self.buffer = np.empty((min(layout.shard, shape[0]), *shape[1:]), dtype)
        self.filled = 0
        self.written = 0

    @property
    def due(self) -> int:
        """Samples that have not come yet."""
        return self.samples - self.written - self.filled

    def misfit(self, rows: NDArray[Any]) -> str | None:
        """Why ``rows`` cannot be the next ones; None when they can."""
        if rows.shape[1:] != self.buffer.shape[1:] or len(rows) > self.due:
            return f"shape {rows.shape} where up to {self.due} samples of shape {self.buffer.shape[1:]} are due"
        if not np.can_cast(rows.dtype, self.buffer.dtype):
            return f"{rows.dtype} where {self.buffer.dtype} is due"
        return None

    def append(self, rows: NDArray[Any]) -> None:
        """Take ``rows`` (sample, …) as the next ones."""
        while len(rows):
            taken = rows[: len(self.buffer) - self.filled]
            self.buffer[self.filled : self.filled + len(taken)] = taken
            self.filled += len(taken)
            rows = rows[len(taken) :]
            if self.filled == len(self.buffer) or not self.due:
                self._flush()

    def _flush(self) -> None:
        self.array[0, self.written : self.written + self.filled] = self.buffer[: self.filled]
        self.written += self.filled
        self.filled = 0


class SegmentWriter:
    """One epoch of a run on its way into the store; nothing of it exists before `commit`."""

    def __init__(
        self,
        folder: Path,
        epoch: int,
        layers: tuple[LayerInfo, ...],
        samples: Mapping[SplitInfo, NDArray[np.int64]],
    ) -> None:
        self.folder = folder
        self.epoch = epoch
        self._splits = tuple(samples)
        self._stores: dict[str, Any] = {}
        self._rows: dict[tuple[str, str], RowWriter] = {}
        with files.write_errors(folder):
            for split, ids in samples.items():
                self._open_split(split, layers, ids)

    def _open_split(self, split: SplitInfo, layers: tuple[LayerInfo, ...], ids: NDArray[np.int64]) -> None:
        from ibstore.store.arrays import (
            RecordingStore,
            create,
            create_coordinate,
            create_group,
            unit_dimensions,
        )

        store = self._stores[split.node] = RecordingStore.at(self.folder / split.node)
        create_group(store)
        create_coordinate(store, "epoch", "epoch", np.array([self.epoch], np.int64))
        create_coordinate(store, "sample", "sample", ids)
        budget = shard_budget(len(layers) * len(self._splits))
        for layer in layers:
            dtype = np.dtype(layer.dtype)
            shape = (split.samples, *layer.shape)
            layout = plan(dtype.itemsize * int(np.prod(layer.shape)), split.samples, budget)
            dimensions = ["epoch", "sample", *unit_dimensions(layer.node, len(layer.shape))]
            array = create(store, layer.node, (1, *shape), dtype, dimensions, layout)
            self._rows[split.name, layer.name] = RowWriter(array, shape, dtype, layout)

    def append(self, split: str, layer: str, rows: NDArray[Any]) -> None:
        """Take the next ``rows`` (sample, …) of a layer; samples come in the split's order.

        Raises
        ------
        StoreError
            When they are not what the manifest says: another shape, a wider type, more than are due.
        """
        writer = self._rows[split, layer]
        if misfit := writer.misfit(rows):
            raise StoreError(
                f"layer {layer!r} of split {split!r} got rows of {misfit} at epoch {self.epoch}; append what the "
                "manifest says"
            )
        with files.write_errors(self.folder):
            writer.append(rows)

    def commit(self, step: int | None = None, metrics: Metrics | None = None) -> SegmentRecord:
        """Make the epoch exist: everything durable first, the record last.

        Raises
        ------
        StoreError
            When rows are missing, or the epoch was committed by someone else meanwhile.
        """
        for (split, layer), rows in self._rows.items():
            if rows.due:
                raise StoreError(
                    f"layer {layer!r} of split {split!r} has {rows.samples - rows.due} of {rows.samples} samples of "
                    f"epoch {self.epoch}; record the whole probe set before committing"
                )
        record = SegmentRecord((self.epoch,), (step,), (metrics or {},), self._files())
        with files.write_errors(self.folder):
            files.sync_tree(self.folder)
            try:
                files.put_new(self.folder / "zarr.json", group(record.dump()))
            except FileExistsError:
                raise StoreError(
                    f"epoch {self.epoch} was committed by another writer meanwhile; record under another run name"
                ) from None
        return record

    def discard(self) -> None:
        """Remove what was written of an epoch that will not be committed; a committed one stays."""
        if not (self.folder / "zarr.json").exists():
            files.remove_tree(self.folder)

    def _files(self) -> dict[str, FileInfo]:
        return {f"{split}/{path}": info for split, store in self._stores.items() for path, info in store.files.items()}


class RunWriter:
    """The one writer of a run: claims its name, writes its manifest, commits its segments.

    Parameters
    ----------
    store
        Path of the store; it is made where it does not exist.
    manifest
        What is known of the run; its splits' data must have been written by `write_probe_set`.
    samples
        Sample ids of each split, (sample,) int64.
    replace
        Remove a run of that name first.
    emit
        Told of what is removed.

    Raises
    ------
    RunExistsError
        When a run of that name has committed epochs and ``replace`` is false.
    RunBusyError
        When another process is writing it.
    """

    def __init__(
        self,
        store: Path,
        manifest: Manifest,
        samples: Mapping[str, NDArray[np.int64]],
        *,
        replace: bool = False,
        emit: Emit = ignore,
    ) -> None:
        self.manifest = manifest
        self.folder = store / "runs" / escape(manifest.run)
        self.segments = self.folder / "segments"
        self._samples = {split: samples[split.name] for split in manifest.splits}
        self._emit = emit
        create_store(store)
        with files.write_errors(self.folder):
            self._lock: int | None = self._claim()
            try:
                self._clear(replace)
                self.segments.mkdir()
                files.put_new(self.segments / "zarr.json", group({}))
                files.put_new(self.folder / "zarr.json", group(manifest.dump()))
                files.sync(self.folder.parent)
            except BaseException:
                self.close()
                raise

    def _claim(self) -> int:
        """Lock the run's folder."""
        self.folder.mkdir(exist_ok=True)
        lock = files.claim(self.folder)
        if lock is None:
            raise RunBusyError(
                f"run {self.manifest.run!r} is being written, by another process or a recorder that is not closed; "
                "choose another run name, or wait until it ends"
            )
        return lock

    def _clear(self, replace: bool) -> None:
        """Empty the folder of what an earlier run or a killed writer left there."""
        self._check_free(replace)
        files.remove_record(self.folder)
        for child in self.folder.iterdir():
            if child.is_dir():
                files.remove_tree(child)
            else:
                child.unlink()

    def _check_free(self, replace: bool) -> None:
        """Return when no committed epoch would be lost against the user's will."""
        try:
            epochs = reader.committed_epochs(self.folder)
        except DamagedError:
            if not replace:
                raise
            self._emit(Event("notice", detail=f"removing run {self.manifest.run!r} (damaged)"))
            return
        if epochs and not replace:
            self._sweep()
            raise RunExistsError(
                f"run {self.manifest.run!r} is already in the store with {len(epochs)} epochs "
                f"({reader.listed(epochs)}); choose another run name, or replace it with --force (force=True)"
            )
        if epochs:
            self._emit(Event("notice", detail=f"removing run {self.manifest.run!r} ({len(epochs)} epochs)"))

    def _sweep(self) -> None:
        """Remove what a killed writer left of segments that were never committed."""
        for folder in files.folders(self.segments):
            if not (folder / "zarr.json").exists():
                files.remove_tree(folder)

    def segment(self, epoch: int) -> SegmentWriter:
        """Begin an epoch; what an earlier attempt left of it is swept.

        Raises
        ------
        StoreError
            When the epoch is committed already, or the run is closed.
        """
        if self._lock is None:
            raise WriteError(f"run {self.manifest.run!r} is closed; open it again under another run name")
        folder = self.segments / segment_name(epoch)
        if (folder / "zarr.json").exists():
            raise StoreError(
                f"epoch {epoch} of run {self.manifest.run!r} is committed already; give every epoch its own number"
            )
        with files.write_errors(folder):
            files.remove_tree(folder)
        try:
            return SegmentWriter(folder, epoch, self.manifest.layers, self._samples)
        except BaseException:
            with contextlib.suppress(OSError):  # the error itself says more
                files.remove_tree(folder)
            raise

    def close(self) -> None:
        """Let the run go; it can be called twice."""
        if self._lock is not None:
            files.release(self._lock)
            self._lock = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
