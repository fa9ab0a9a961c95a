"""Reading a store: listings from plain JSON, arrays chunk by chunk. Only committed segments are seen."""

import contextlib
import json
import math
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ibstore.errors import DamagedError, NewerFormatError, NotAStoreError, UnknownNameError
from ibstore.store import files
from ibstore.store.committed import CommittedArray
from ibstore.store.names import escape, segment_name, unescape
from ibstore.store.schema import FORMAT, Files, LayerInfo, Manifest, SegmentRecord, SplitInfo, load_files

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


def check_store(path: Path) -> None:
    """Return when ``path`` holds a store that this ibstore can read.

    Raises
    ------
    NotAStoreError
        When nothing is there, or something else.
    NewerFormatError
        When a later ibstore wrote it.
    DamagedError
        When its mark cannot be read.
    """
    with files.read_errors(path):
        if not path.exists():
            raise NotAStoreError(f"there is no store at {path}; `ibstore capture mnist-cnn --store {path}` makes one")
    attributes = _attributes(path)
    version = attributes.get("ibstore_format") if attributes is not None else None
    if not isinstance(version, int):
        lack = "it has no zarr.json" if attributes is None else "its zarr.json has no ibstore_format"
        fact = lack if path.is_dir() else "it is a file"
        raise NotAStoreError(f"{path} is no ibstore store ({fact}); give a store's path")
    if version > FORMAT:
        raise NewerFormatError(
            f"{path} has store format {version}, this ibstore reads up to {FORMAT}; install a newer ibstore"
        )


def _attributes(folder: Path) -> dict[str, Any] | None:
    """Attributes of the group at ``folder``; None where no group was committed."""
    record = folder / "zarr.json"
    try:
        with files.read_errors(record):
            document = files.read_json(record)
    except ValueError as error:  # JSON and UTF-8 errors are ValueErrors
        raise DamagedError(f"{record} is no readable group record ({error}); restore it from a copy") from None
    if document is None:
        return None
    attributes = document.get("attributes", {})
    if not isinstance(attributes, dict):
        raise DamagedError(f"{record} is no group record (its attributes are no object); restore it from a copy")
    return attributes


def committed_epochs(run: Path) -> list[int]:
    """Epochs with a commit record in the run's folder ``run``, in order."""
    return [epoch for segment in _segments(run) for epoch in segment.record.epochs]


def _segments(run: Path) -> "list[Segment]":
    found = []
    for folder in files.folders(run / "segments"):
        attributes = _attributes(folder)
        if attributes is not None:
            record = _load(SegmentRecord.load, attributes, folder)
            if folder.name != segment_name(record.epochs[0]):
                raise DamagedError(f"{folder} says that it holds epoch {record.epochs[0]}; restore it from a copy")
            found.append(Segment(folder, record))
    return found


def _load(load: Any, attributes: dict[str, Any], folder: Path) -> Any:
    try:
        return load(attributes)
    except (AttributeError, KeyError, TypeError, ValueError) as error:
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
            for path, info in sorted(self.record.files.items())
            if path.startswith(f"{split.node}/{layer.node}/")
        ]

    def blocks(self, split: SplitInfo, layer: LayerInfo, epoch: int) -> "Iterator[NDArray[Any]]":
        """Activations of one epoch, (sample, …), in order, a shard at a time (64 MiB at most).

        Raises
        ------
        DamagedError
            When a committed file is missing, truncated or altered.
        """
        what = f"layer {layer.name!r}, epoch {epoch}"
        remedy = "restore it from a copy, or leave that epoch out with --epoch"
        array = CommittedArray.of(self.folder, f"{split.node}/{layer.node}", self.record.files, what, remedy)
        return array.blocks(self.record.epochs.index(epoch))


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
        shape, dtype = self._array("x").form()
        return shape[1:], dtype

    def x_blocks(self) -> "Iterator[NDArray[Any]]":
        """Inputs, (sample, …), in order, a shard at a time."""
        return self._array("x").blocks()

    def labels(self) -> "NDArray[Any] | None":
        """Labels, (sample,), or None where the probe set has none."""
        return self._array("y").whole() if self.has_labels else None

    def samples(self) -> "NDArray[np.int64]":
        """Sample ids, (sample,)."""
        return self._array("sample").whole()

    def _array(self, name: str) -> CommittedArray:
        what = f"{name} of probe set {self.digest}"
        return CommittedArray.of(self.folder, name, self.committed, what, "restore it from a copy")


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
                f"{folder} is missing, which split {split.name!r} of run {self.name!r} needs; restore it from a copy"
            )
        return ProbeReader(folder, _load(lambda found: load_files(found["files"]), attributes, folder))

    @property
    def raw_bytes(self) -> int:
        """Bytes of all committed activations before compression."""
        return sum(self.layer_bytes(layer)[0] for layer in self.manifest.layers)

    def layer_bytes(self, layer: LayerInfo) -> tuple[int, int]:
        """Bytes of a layer in all committed epochs and splits: raw, and stored on disk."""
        import numpy as np

        samples = sum(split.samples for split in self.manifest.splits)
        raw = len(self.epochs) * samples * math.prod(layer.shape) * np.dtype(layer.dtype).itemsize
        heads = tuple(f"{split.node}/{layer.node}/" for split in self.manifest.splits)
        records = [segment.record.files for segment in self.segments]
        stored = sum(info.bytes for record in records for path, info in record.items() if path.startswith(heads))
        return raw, stored

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
        """Names of the runs, in order; folders that ibstore did not make are passed over."""
        names = []
        for folder in files.folders(self.path / "runs"):
            with files.read_errors(folder), contextlib.suppress(ValueError):
                if (folder / "zarr.json").exists():
                    names.append(unescape(folder.name))
        return sorted(names)

    def run(self, name: str) -> Run:
        """Run of that name, as it stands now."""
        run = self._find(name)
        if run is None:
            names = ", ".join(self.run_names()) or "none yet"
            raise UnknownNameError(f"{self.path} has no run {name!r}; it has {names}")
        return run

    def runs(self) -> list[Run]:
        """All runs, in the order of their names; one that is removed at this moment is there or not."""
        return [run for name in self.run_names() if (run := self._find(name)) is not None]

    def _find(self, name: str) -> Run | None:
        folder = self.path / "runs" / escape(name)
        attributes = _attributes(folder)
        return None if attributes is None else Run(self.path, folder, _load(Manifest.load, attributes, folder))


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
