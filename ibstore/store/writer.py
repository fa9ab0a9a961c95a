"""Writing a store: probe sets, runs and segments, with the commit protocol of format 1.

A group's own ``zarr.json`` is its commit record: it is put last, atomically and only if absent. Until then
what lies there does not exist, neither for ibstore nor for any other Zarr reader, and the next writer
sweeps it.
"""

import contextlib
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from ibstore.errors import RunBusyError, RunExistsError, StoreError
from ibstore.events import Emit, Event, ignore
from ibstore.store import files, reader
from ibstore.store.layout import Layout, plan, shard_budget
from ibstore.store.names import escape
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
    group,
)

EPOCH_DIGITS = 10


def create_store(path: Path) -> None:
    """Make an empty store at ``path``; an existing store is left as it is.

    Raises
    ------
    StoreError
        When something else is there: a file, or a folder that is not empty and no store.
    """
    if (path / "zarr.json").exists():
        reader.check_store(path)
        return
    if path.is_file() or (path.is_dir() and any(_foreign(path))):
        raise StoreError(f"{path} exists and is no ibstore store; choose another path, or move it away")
    with files.write_errors(path):
        for folder in (path, path / "data", path / "runs"):
            folder.mkdir(parents=True, exist_ok=True)
        for folder in (path / "data", path / "runs"):
            _put_if_absent(folder, {})
        _put_if_absent(path, {"ibstore_format": FORMAT})


def _foreign(path: Path) -> list[Path]:
    """What lies in ``path`` that a creation cut short would not have left there."""
    return [child for child in path.iterdir() if child.name not in {"data", "runs"} and not _partial(child)]


def _partial(path: Path) -> bool:
    return path.name.endswith(files.PARTIAL)


def _put_if_absent(folder: Path, attributes: Mapping[str, Any]) -> None:
    if not (folder / "zarr.json").exists():
        with contextlib.suppress(FileExistsError):  # another process made the same group a moment ago
            files.put_new(folder / "zarr.json", group(attributes))


def write_probe_set(path: Path, probe: ProbeSet) -> str:
    """Write ``probe`` to ``data/<digest>`` of the store at ``path``, once, and return the digest."""
    from ibstore.store.arrays import RecordingStore, create, create_coordinate, unit_dimensions

    digest = probe.digest()
    folder = path / "data" / digest
    with files.write_errors(folder), files.locked(path / "data"):
        if (folder / "zarr.json").exists():
            return digest
        files.remove_tree(folder)  # what a killed writer left
        folder.mkdir()
        store = RecordingStore.at(folder)
        dimensions = ["sample", *unit_dimensions("x", probe.x.ndim - 1)]
        layout = plan(probe.x[:1].nbytes, len(probe.x))
        array = create(store, "x", probe.x.shape, probe.x.dtype, dimensions, layout)
        for start in range(0, len(probe.x), layout.shard):
            array[start : start + layout.shard] = probe.x[start : start + layout.shard]
        create_coordinate(store, "sample", "sample", probe.sample)
        if probe.y is not None:
            create_coordinate(store, "y", "sample", probe.y)
        (folder / "zarr.json").unlink(missing_ok=True)  # zarr may put one for the implicit parent group
        store.files.pop("zarr.json", None)
        files.sync_tree(folder)
        files.put_new(folder / "zarr.json", group({"files": dump_files(store.files)}))
    return digest


class RowWriter:
    """Appends rows to one array, a whole shard at a time (writing part of a shard would rewrite it)."""

    def __init__(self, array: Any, shape: tuple[int, ...], dtype: np.dtype[Any], layout: Layout) -> None:
        self.array = array
        self.samples = shape[0]
        self.buffer = np.empty((min(layout.shard, shape[0]), *shape[1:]), dtype)
        self.filled = 0
        self.written = 0

    def append(self, rows: NDArray[Any]) -> None:
        """Take ``rows`` (sample, …) as the next ones."""
        while len(rows):
            taken = rows[: len(self.buffer) - self.filled]
            self.buffer[self.filled : self.filled + len(taken)] = taken
            self.filled += len(taken)
            rows = rows[len(taken) :]
            if self.filled == len(self.buffer) or self.written + self.filled == self.samples:
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
        """Take the next ``rows`` (sample, …) of a layer; samples come in the split's order."""
        with files.write_errors(self.folder):
            self._rows[split, layer].append(rows)

    def commit(self, step: int | None = None, metrics: Metrics | None = None) -> SegmentRecord:
        """Make the epoch exist: everything durable first, the record last.

        Raises
        ------
        StoreError
            When rows are missing, or the epoch was committed by someone else meanwhile.
        """
        for (split, layer), rows in self._rows.items():
            if rows.written != rows.samples:
                raise StoreError(
                    f"layer {layer!r} of split {split!r} has {rows.written} of {rows.samples} samples of epoch "
                    f"{self.epoch}; record the whole probe set before committing"
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
        """Remove what was written of an epoch that will not be committed."""
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
        create_store(store)
        self.manifest = manifest
        self.folder = store / "runs" / escape(manifest.run)
        self._samples = {split: samples[split.name] for split in manifest.splits}
        self._emit = emit
        with files.write_errors(self.folder):
            self._lock: int | None = self._claim(replace)
            self.segments = self.folder / "segments"
            self.segments.mkdir()
            files.put_new(self.segments / "zarr.json", group({}))
            files.put_new(self.folder / "zarr.json", group(manifest.dump()))
            files.sync(self.folder.parent)

    def _claim(self, replace: bool) -> int:
        """Lock the run's folder, emptied of what an earlier run or a killed writer left there."""
        self.folder.mkdir(exist_ok=True)
        lock = files.claim(self.folder)
        if lock is None:
            raise RunBusyError(
                f"run {self.manifest.run!r} is being written by another process; choose another run name, or "
                "wait until it ends"
            )
        try:
            self._clear(replace)
        except BaseException:
            files.release(lock)
            raise
        return lock

    def _clear(self, replace: bool) -> None:
        epochs = reader.committed_epochs(self.folder)
        if epochs and not replace:
            raise RunExistsError(
                f"run {self.manifest.run!r} is already in the store with {len(epochs)} epochs "
                f"({epochs[0]}–{epochs[-1]}); choose another run name, or replace it with --force (force=True)"
            )
        if epochs:
            self._emit(Event("notice", detail=f"removing run {self.manifest.run!r} ({len(epochs)} epochs)"))
        for child in (self.folder / "zarr.json", *self.folder.iterdir()):
            if child.is_dir():
                files.remove_tree(child)
            else:
                child.unlink(missing_ok=True)

    def segment(self, epoch: int) -> SegmentWriter:
        """Begin an epoch; what a killed writer left of it is swept."""
        folder = self.segments / f"{epoch:0{EPOCH_DIGITS}d}"
        if (folder / "zarr.json").exists():
            raise StoreError(f"epoch {epoch} of run {self.manifest.run!r} is committed already")
        with files.write_errors(folder):
            files.remove_tree(folder)
        return SegmentWriter(folder, epoch, self.manifest.layers, self._samples)

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
