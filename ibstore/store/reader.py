"""Reading a store: listings from plain JSON, arrays chunk by chunk. Only committed segments are seen."""

import contextlib
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ibstore.errors import DamagedError, NewerFormatError, NotAStoreError, UnknownNameError
from ibstore.store import shown
from ibstore.store.committed import CommittedArray, Result
from ibstore.store.format.layout import listed
from ibstore.store.format.names import escape, segment_name, unescape
from ibstore.store.format.schema import (
    FORMAT,
    Files,
    LayerInfo,
    Manifest,
    SegmentRecord,
    SplitInfo,
    group_attributes,
    load_files,
    unchecked_attributes,
)
from ibstore.store.places import RECORD, Storage, open_storage
from ibstore.store.places.lease import LEASE, Holder, holder_of
from ibstore.store.probes import ProbeReader

if TYPE_CHECKING:
    from numpy.typing import NDArray


def check_store(storage: Storage) -> None:
    """Return when there is a store that this ibstore can read.

    Raises
    ------
    NotAStoreError
        When nothing is there, or something else.
    NewerFormatError
        When a later ibstore wrote it.
    DamagedError
        When its mark cannot be read.
    """
    place = storage.location
    if not storage.exists():
        raise NotAStoreError(f"there is no store at {place}; `ibstore capture mnist-cnn --store {place}` makes one")
    try:
        content = storage.read(RECORD)
    except FileNotFoundError:
        raise NotAStoreError(f"{place} is no ibstore store (it has no zarr.json); give a store's path") from None
    except NotADirectoryError:
        raise NotAStoreError(f"{place} is no ibstore store (it is a file); give a store's path") from None
    # first of all, since a later format's checksum may be another
    version = _parsed(storage, "", content, unchecked_attributes).get("ibstore_format")
    if not isinstance(version, int):
        lack = "its zarr.json has no ibstore_format"
        raise NotAStoreError(f"{place} is no ibstore store ({lack}); give a store's path")
    check_version(storage, version)
    _parsed(storage, "", content)


def check_version(storage: Storage, version: object) -> None:
    """Return unless ``version`` is a later format's number; NewerFormatError then."""
    if isinstance(version, int) and version > FORMAT:
        raise NewerFormatError(
            f"{storage.location} has store format {version}, this ibstore reads up to {FORMAT}; install a newer ibstore"
        )


def _attributes(storage: Storage, key: str) -> dict[str, Any] | None:
    """Attributes of the group at ``key``; None where no group was committed."""
    (content,) = storage.read_all([f"{key}/{RECORD}"])
    return None if content is None else _parsed(storage, key, content)


def _parsed(
    storage: Storage, key: str, content: bytes, parse: Callable[[bytes], dict[str, Any]] = group_attributes
) -> dict[str, Any]:
    try:
        return parse(content)
    except ValueError as error:  # JSON and UTF-8 errors are ValueErrors
        where = storage.where(f"{key}/{RECORD}".lstrip("/"))
        raise DamagedError(f"{where} is no readable group record ({error}); restore it from a copy") from None


def segments_of(storage: Storage, run: str, damaged: Callable[[DamagedError], None] | None = None) -> "list[Segment]":
    """Committed segments of the run at the key ``run``, in the order of their epochs.

    A record that cannot be read is an error, unless somebody will be told of it: ``damaged``.
    """
    keys = [f"{run}/segments/{name}" for name in storage.folders(f"{run}/segments")]
    contents = storage.read_all(f"{key}/{RECORD}" for key in keys)
    found = []
    for key, content in zip(keys, contents, strict=True):
        if content is not None:
            try:
                found.append(_segment(storage, key, content))
            except DamagedError as error:
                named = DamagedError(f"run {unescape(run.rpartition('/')[2])!r}, {_epoch(key)}: {error}")
                if damaged is None:
                    raise named from None
                damaged(named)
    return sorted(found, key=lambda segment: segment.record.epochs)


def _epoch(key: str) -> str:
    """Which segment the one at ``key`` is, for messages."""
    name = key.rpartition("/")[2]
    return f"epoch {int(name)}" if name.isdecimal() else f"segment {name!r}"


def _segment(storage: Storage, key: str, content: bytes) -> "Segment":
    record = _load(SegmentRecord.load, _parsed(storage, key, content), storage, key)
    if key.rpartition("/")[2] != segment_name(record.epochs[0]):
        raise DamagedError(f"{storage.where(key)} says that it holds epoch {record.epochs[0]}; restore it from a copy")
    return Segment(storage, key, record)


def manifest_of(storage: Storage, run: str) -> Manifest | None:
    """Manifest of the run at the key ``run``; None where there is no run."""
    attributes = _attributes(storage, run)
    return None if attributes is None else _load(Manifest.load, attributes, storage, run)


def _load(load: Any, attributes: dict[str, Any], storage: Storage, key: str) -> Any:
    try:
        return load(attributes)
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        where = storage.where(f"{key}/{RECORD}")
        raise DamagedError(
            f"{where} lacks what format {FORMAT} has there ({error!r}); restore it from a copy"
        ) from None


@dataclass(frozen=True)
class Segment:
    """A committed segment: where it is, and its commit record."""

    storage: Storage
    key: str
    record: SegmentRecord

    @property
    def stored_bytes(self) -> int:
        """Bytes of its files on disk."""
        return sum(info.bytes for info in self.record.files.values())

    def files(self, split: SplitInfo, layer: LayerInfo) -> Files:
        """The layer's files, by path in the segment, with their sizes and checksums."""
        head = f"{split.node}/{layer.node}/"
        return {path: info for path, info in sorted(self.record.files.items()) if path.startswith(head)}

    def checksums(self, split: SplitInfo, layer: LayerInfo) -> list[str]:
        """What the layer's content hangs on: path, size and checksum of each of its files."""
        return [f"{path} {info.bytes} {info.sha256}" for path, info in self.files(split, layer).items()]

    def blocks(self, split: SplitInfo, layer: LayerInfo, epoch: int) -> "Iterator[NDArray[Any]]":
        """Activations of one epoch, (sample, …), in order, a shard at a time (32 MiB, or what was chosen).

        Raises
        ------
        DamagedError
            When a committed file is missing, truncated or altered.
        """
        return self._array(split, layer, f"epoch {epoch}").blocks(self.record.epochs.index(epoch))

    def map(
        self,
        split: SplitInfo,
        layer: LayerInfo,
        work: "Callable[[int, int, NDArray[Any]], Result]",
        threads: int,
        positions: Sequence[int] | None = None,
        within: range | None = None,
    ) -> "Iterator[Result]":
        """Results of ``work(number of the first epoch, first sample, values)``, in order.

        Of all epochs, or of those at some positions in the segment, numbered from 0 in that order; of all samples, or
        of one of the layer's `CommittedArray.spans`.
        Values, (epoch, sample, …), are what `blocks` gives of one epoch, or of some successive ones where that is
        little; they are worked on in the thread that decoded them.
        """
        epochs = self.record.epochs
        array = self._array(split, layer, f"epoch{'s' * (len(epochs) > 1)} {listed(list(epochs))}")
        numbers = {position: number for number, position in enumerate(positions or range(len(epochs)))}
        prefixes = [(position,) for position in numbers]
        return array.map(
            lambda prefix, start, values: work(numbers[prefix[0]], start, values), prefixes, threads, within
        )

    def array(self, split: SplitInfo, layer: LayerInfo) -> CommittedArray:
        """The layer's array, (epoch, sample, …), for reading some of its chunks."""
        return self._array(split, layer, f"epochs {listed(list(self.record.epochs))}")

    def _array(self, split: SplitInfo, layer: LayerInfo, epochs: str) -> CommittedArray:
        what = f"run {unescape(self.key.split('/')[1])!r}, layer {layer.name!r}, {epochs}"
        remedy = "restore it from a copy, or leave that epoch out with --epoch"
        path = f"{split.node}/{layer.node}"
        return CommittedArray.of(self.storage, self.key, path, self.record.files, what, remedy)


@dataclass(frozen=True)
class Run:
    """A run as it stood when it was opened: its manifest and its committed segments.

    Without ``damaged``, a segment's record that cannot be read is an error; with it, that is told of it, and the
    other segments are there.
    """

    storage: Storage
    key: str
    manifest: Manifest
    damaged: Callable[[DamagedError], None] | None = field(default=None, repr=False, compare=False)

    @property
    def name(self) -> str:
        """The run's name."""
        return self.manifest.run

    @cached_property
    def segments(self) -> tuple[Segment, ...]:
        """Committed segments in the order of their epochs."""
        return tuple(segments_of(self.storage, self.key, self.damaged))

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
        """Probe set behind one of the run's splits; its record is read once."""
        if split.data in self._probes:
            return self._probes[split.data]
        key = f"data/{split.data}"
        attributes = _attributes(self.storage, key)
        if attributes is None:
            raise DamagedError(
                f"{self.storage.where(key)} is missing, which split {split.name!r} of run {self.name!r} needs; "
                "restore it from a copy"
            )
        files = _load(lambda found: load_files(found["files"]), attributes, self.storage, key)
        return self._probes.setdefault(split.data, ProbeReader(self.storage, key, files))

    @cached_property
    def _probes(self) -> dict[str, ProbeReader]:
        return {}

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

    def _repr_html_(self) -> str:
        """Its layers, for a notebook."""
        return shown.of_run(self)


@dataclass(frozen=True)
class Listed:
    """A run in a listing: what can be read of it, None where its manifest cannot, and what is damaged."""

    name: str
    run: Run | None
    damage: tuple[DamagedError, ...]


@dataclass(frozen=True)
class Store:
    """A store, for reading.

    Examples
    --------
    >>> Store.open("no-such.zarr")  # doctest: +ELLIPSIS
    Traceback (most recent call last):
    ibstore.errors.NotAStoreError: there is no store at no-such.zarr; ...
    """

    storage: Storage

    @classmethod
    def open(cls, location: "str | Path") -> "Store":
        """Store at a path or a URL; raises `NotAStoreError` or `NewerFormatError`."""
        storage = open_storage(location)
        check_store(storage)
        return cls(storage)

    @property
    def location(self) -> str:
        """Where it is: a path or a URL."""
        return self.storage.location

    def _repr_html_(self) -> str:
        """Its runs, for a notebook."""
        return shown.of_store(self)

    def run_names(self) -> list[str]:
        """Names of the runs, in order; folders that ibstore did not make are passed over."""
        return [name for name in self._nodes() if self.storage.has(f"runs/{escape(name)}/{RECORD}")]

    def _nodes(self) -> list[str]:
        """Names that folders of runs have, in order."""
        names = []
        for node in self.storage.folders("runs"):
            with contextlib.suppress(ValueError):
                names.append(unescape(node))
        return sorted(names)

    def run(self, name: str) -> Run:
        """Run of that name, as it stands now."""
        run = self._find(name)
        if run is None:
            names = ", ".join(self.run_names()) or "none yet"
            raise UnknownNameError(f"{self.location} has no run {name!r}; it has {names}")
        return run

    def runs(self) -> list[Run]:
        """All runs, in the order of their names; one that is removed at this moment is there or not.

        Raises
        ------
        DamagedError
            When a manifest cannot be read: to leave a run out in silence would change results. `listing` goes on.
        """
        return [run for name in self.run_names() if (run := self._find(name)) is not None]

    def listing(self) -> "list[Listed]":
        """All runs, in the order of their names, with what of each can be read: nothing damaged hides the rest."""
        return [found for name in self._nodes() if (found := self._listed(name)) is not None]

    def listed(self, name: str) -> "Listed":
        """What can be read of the run of that name."""
        return self._listed(name) or Listed(name, self.run(name), ())

    def _listed(self, name: str) -> "Listed | None":
        damage: list[DamagedError] = []
        try:
            run = self._find(name, damage.append)
        except DamagedError as error:
            return Listed(name, None, (error,))
        if run is None:
            return self._lost(name)
        _ = run.segments  # tells of their damage
        return Listed(name, run, tuple(damage))

    def _lost(self, name: str) -> "Listed | None":
        """A run that has committed segments and no manifest, unless somebody is about to write or to remove it."""
        key = f"runs/{escape(name)}"
        if not segments_of(self.storage, key, lambda _: None) or holder_of(self.storage, f"{key}/{LEASE}"):
            return None
        where = self.storage.where(f"{key}/{RECORD}")
        fact = "is missing, though epochs are committed below; restore it from a copy, or remove them with `ibstore rm`"
        return Listed(name, None, (DamagedError(f"run {name!r}: {where} {fact}"),))

    def writers(self) -> dict[str, Holder]:
        """Who is writing which run at this moment, by the run's name."""
        found = {}
        for node in self.storage.folders("runs"):
            with contextlib.suppress(ValueError):
                if holder := holder_of(self.storage, f"runs/{node}/{LEASE}"):
                    found[unescape(node)] = holder
        return found

    def _find(self, name: str, damaged: Callable[[DamagedError], None] | None = None) -> Run | None:
        key = f"runs/{escape(name)}"
        try:
            manifest = manifest_of(self.storage, key)
        except DamagedError as error:
            raise DamagedError(f"run {name!r}: {error}") from None
        return None if manifest is None else Run(self.storage, key, manifest, damaged)
