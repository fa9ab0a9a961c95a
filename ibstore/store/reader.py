"""Reading a store: listings from plain JSON, arrays chunk by chunk. Only committed segments are seen."""

import json
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ibstore.errors import DamagedError, NewerFormatError, NotAStoreError, StoreError, UnknownNameError
from ibstore.store import files
from ibstore.store.names import escape, unescape
from ibstore.store.schema import FORMAT, Files, LayerInfo, Manifest, SegmentRecord, SplitInfo, load_files

if TYPE_CHECKING:
    from numpy.typing import NDArray


def check_store(path: Path) -> None:
    """Return when ``path`` holds a store that this ibstore can read.

    Raises
    ------
    NotAStoreError
        When nothing is there, or something else.
    NewerFormatError
        When a later ibstore wrote it.
    """
    if not path.exists():
        raise NotAStoreError(f"there is no store at {path}; `ibstore capture mnist-cnn --store {path}` makes one")
    attributes = _attributes(path)
    version = attributes.get("ibstore_format") if attributes is not None else None
    if not isinstance(version, int):
        raise NotAStoreError(f"{path} is no ibstore store (its zarr.json has no ibstore_format); give a store's path")
    if version > FORMAT:
        raise NewerFormatError(
            f"{path} has store format {version}, this ibstore reads up to {FORMAT}; install a newer ibstore"
        )


def _attributes(folder: Path) -> dict[str, Any] | None:
    """Attributes of the group at ``folder``; None where no group was committed."""
    try:
        document = files.read_json(folder / "zarr.json")
    except PermissionError as error:
        raise StoreError(f"cannot read {error.filename}: permission denied; ask its owner for access") from None
    except ValueError as error:  # JSON and UTF-8 errors are ValueErrors
        raise DamagedError(f"{folder / 'zarr.json'} is no readable group record ({error}); restore it") from None
    return None if document is None else dict(document.get("attributes", {}))


def committed_epochs(run: Path) -> list[int]:
    """Epochs with a commit record in the run's folder ``run``, in order."""
    return [epoch for segment in _segments(run) for epoch in segment.record.epochs]


def _segments(run: Path) -> "list[Segment]":
    return [
        Segment(folder, _load(SegmentRecord.load, attributes, folder))
        for folder in files.folders(run / "segments")
        if (attributes := _attributes(folder)) is not None
    ]


def _load(load: Any, attributes: dict[str, Any], folder: Path) -> Any:
    try:
        return load(attributes)
    except (KeyError, TypeError, ValueError) as error:
        raise DamagedError(
            f"{folder / 'zarr.json'} lacks what format {FORMAT} has there ({error!r}); restore it from a copy"
        ) from None


@dataclass(frozen=True)
class Segment:
    """A committed segment: its folder and its commit record."""

    folder: Path
    record: SegmentRecord

    @property
    def stored_bytes(self) -> int:
        """Bytes of its files on disk."""
        return sum(info.bytes for info in self.record.files.values())

    def checksums(self, split: SplitInfo, layer: LayerInfo) -> list[str]:
        """What the layer's content hangs on: path, size and checksum of each of its files."""
        return [
            f"{path} {info.bytes} {info.sha256}"
            for path, info in sorted(_below(f"{split.node}/{layer.node}/", self.record.files).items())
        ]

    def blocks(self, split: SplitInfo, layer: LayerInfo, epoch: int) -> "Iterator[NDArray[Any]]":
        """Activations of one epoch, (sample, …), in order, a shard at a time (64 MiB at most).

        Raises
        ------
        DamagedError
            When a committed file is missing, truncated or altered.
        """
        folder = self.folder / split.node / layer.node
        what = f"layer {layer.name!r}, epoch {epoch}"
        check_files(self.folder, _below(f"{split.node}/{layer.node}/", self.record.files), what)
        yield from _blocks(folder, what, self.record.epochs.index(epoch))


def _below(prefix: str, committed: Files) -> Files:
    return {path: info for path, info in committed.items() if path.startswith(prefix)}


def check_files(folder: Path, committed: Files, what: str) -> None:
    """Return when every committed file is there with its size: zarr reads a missing chunk as fill values.

    Raises
    ------
    DamagedError
        Naming ``what``, and the first file that is missing or has another size.
    """
    for path, info in committed.items():
        try:
            size = (folder / path).stat().st_size
        except FileNotFoundError:
            size = None
        if size != info.bytes:
            found = "is missing" if size is None else f"has {size} bytes instead of {info.bytes}"
            raise DamagedError(
                f"{what}: {folder / path} {found}; restore it from a copy, or leave that epoch out with --epoch"
            )


@contextmanager
def _damage(what: str, folder: Path) -> Iterator[None]:
    """Zarr's many ways to say that bytes are wrong, as one error that names the place."""
    try:
        yield
    except (ValueError, RuntimeError, KeyError, TypeError, OSError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise DamagedError(
            f"{what}: {folder} cannot be read ({reason}); restore it from a copy, or leave that epoch out with --epoch"
        ) from error


def _blocks(folder: Path, what: str, *prefix: int) -> "Iterator[NDArray[Any]]":
    """Rows of the array at ``folder``, a shard at a time, the next one read while the last is worked on."""
    from concurrent.futures import ThreadPoolExecutor

    from ibstore.store.arrays import open_array

    with _damage(what, folder):
        array = open_array(folder)
        axis = len(prefix)
        rows = (array.shards or array.chunks)[axis]
        starts = range(0, array.shape[axis], rows)

    def read(start: int) -> "NDArray[Any]":
        with _damage(what, folder):
            index: tuple[int | slice, ...] = (*prefix, slice(start, start + rows))
            return np.asarray(array[index])

    with ThreadPoolExecutor(1) as ahead:
        pending = deque(ahead.submit(read, start) for start in starts[:1])
        for start in starts[1:]:
            pending.append(ahead.submit(read, start))
            yield pending.popleft().result()
        yield from (last.result() for last in pending)


@dataclass(frozen=True)
class ProbeReader:
    """A stored probe set: what it was named after, and its arrays."""

    folder: Path
    committed: Files

    @property
    def digest(self) -> str:
        """Name of the data."""
        return self.folder.name

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
        from ibstore.store.arrays import open_array

        with _damage(f"inputs of probe set {self.digest}", self.folder / "x"):
            array = open_array(self.folder / "x")
            return array.shape[1:], array.dtype

    def x_blocks(self) -> "Iterator[NDArray[Any]]":
        """Inputs, (sample, …), in order, a shard at a time."""
        what = f"inputs of probe set {self.digest}"
        check_files(self.folder, _below("x/", self.committed), what)
        yield from _blocks(self.folder / "x", what)

    def labels(self) -> "NDArray[Any] | None":
        """Labels, (sample,), or None where the probe set has none."""
        return self._column("y") if self.has_labels else None

    def samples(self) -> "NDArray[np.int64]":
        """Sample ids, (sample,)."""
        return self._column("sample")

    def _column(self, name: str) -> "NDArray[Any]":
        from ibstore.store.arrays import open_array

        what = f"{name} of probe set {self.digest}"
        check_files(self.folder, _below(f"{name}/", self.committed), what)
        with _damage(what, self.folder / name):
            return np.asarray(open_array(self.folder / name)[...])


@dataclass(frozen=True)
class Run:
    """A run as it stood when it was opened: its manifest and its committed segments."""

    store: Path
    folder: Path
    manifest: Manifest

    @property
    def name(self) -> str:
        """The run's name."""
        return self.manifest.run

    @cached_property
    def segments(self) -> tuple[Segment, ...]:
        """Committed segments in the order of their epochs."""
        return tuple(sorted(_segments(self.folder), key=lambda segment: segment.record.epochs))

    @property
    def epochs(self) -> list[int]:
        """Committed epochs, in order."""
        return [epoch for segment in self.segments for epoch in segment.record.epochs]

    def segment(self, epoch: int) -> Segment:
        """Segment that holds ``epoch``."""
        for segment in self.segments:
            if epoch in segment.record.epochs:
                return segment
        raise UnknownNameError(f"run {self.name!r} has no epoch {epoch}; it has {listed(self.epochs)}")

    def layer(self, name: str) -> LayerInfo:
        """Layer of that name."""
        try:
            return self.manifest.layer(name)
        except KeyError:
            layers = ", ".join(layer.name for layer in self.manifest.layers)
            raise UnknownNameError(f"run {self.name!r} has no layer {name!r}; it has {layers}") from None

    def probe(self, split: SplitInfo) -> ProbeReader:
        """Probe set behind one of the run's splits."""
        folder = self.store / "data" / split.data
        attributes = _attributes(folder)
        if attributes is None:
            raise DamagedError(
                f"{folder} is missing, which split {split.name!r} of run {self.name!r} needs; restore it"
            )
        return ProbeReader(folder, _load(lambda found: load_files(found["files"]), attributes, folder))

    @property
    def raw_bytes(self) -> int:
        """Bytes of all committed activations before compression."""
        samples = sum(split.samples for split in self.manifest.splits)
        sample_bytes = sum(int(np.prod(layer.shape)) * np.dtype(layer.dtype).itemsize for layer in self.manifest.layers)
        return len(self.epochs) * samples * sample_bytes

    @property
    def stored_bytes(self) -> int:
        """Bytes of the committed segments on disk."""
        return sum(segment.stored_bytes for segment in self.segments)


@dataclass(frozen=True)
class Store:
    """A store, for reading.

    Examples
    --------
    >>> Store.open("no-such.zarr")  # doctest: +ELLIPSIS
    Traceback (most recent call last):
    ibstore.errors.NotAStoreError: there is no store at no-such.zarr; ...
    """

    path: Path

    @classmethod
    def open(cls, path: "str | Path") -> "Store":
        """Store at ``path``; raises `NotAStoreError` or `NewerFormatError`."""
        check_store(Path(path))
        return cls(Path(path))

    def run_names(self) -> list[str]:
        """Names of the runs, in order."""
        return sorted(
            unescape(folder.name) for folder in files.folders(self.path / "runs") if (folder / "zarr.json").exists()
        )

    def run(self, name: str) -> Run:
        """Run of that name, as it stands now."""
        folder = self.path / "runs" / escape(name)
        attributes = _attributes(folder)
        if attributes is None:
            names = ", ".join(self.run_names()) or "none yet"
            raise UnknownNameError(f"{self.path} has no run {name!r}; it has {names}")
        return Run(self.path, folder, _load(Manifest.load, attributes, folder))

    def runs(self) -> list[Run]:
        """All runs, in the order of their names."""
        return [self.run(name) for name in self.run_names()]


def listed(numbers: list[int]) -> str:
    """Numbers for a message, runs of consecutive ones shortened.

    >>> listed([0, 1, 2, 3, 7]), listed([])
    ('0–3, 7', 'none')
    """
    parts: list[list[int]] = []
    for number in sorted(numbers):
        if parts and number == parts[-1][-1] + 1:
            parts[-1].append(number)
        else:
            parts.append([number])
    return ", ".join(f"{part[0]}–{part[-1]}" if len(part) > 1 else str(part[0]) for part in parts) or "none"


def dump_manifest(run: Run) -> str:
    """The manifest as readable JSON."""
    return json.dumps(run.manifest.dump(), indent=2, ensure_ascii=False)
