"""What lies in a store, as its records say, where one bad record does not hide the others."""

import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Final, TypeVar

from ibstore.errors import StoreError
from ibstore.store import reader
from ibstore.store.format.names import escape, segment_name, unescape, without_record
from ibstore.store.format.schema import (
    CHECKSUM,
    FORMAT,
    Files,
    Manifest,
    SegmentRecord,
    SplitInfo,
    group,
    group_attributes,
    load_files,
    unchecked_attributes,
)
from ibstore.store.places import RECORD, Storage
from ibstore.store.places.lease import LEASE, holder_of
from ibstore.store.upkeep.report import Finding, Kind

T = TypeVar("T")

_MARK: Final = group({"ibstore_format": FORMAT})
COPY: Final = "restore it from a copy"
CONSTANT: Final = "copy it from another store, where it is the same"


@dataclass(frozen=True)
class FoundSegment:
    """A committed segment; ``record`` is None where it cannot be read."""

    key: str
    record: SegmentRecord | None

    @property
    def epochs(self) -> tuple[int, ...]:
        """Its epochs: of an unreadable record only the first, which names the segment."""
        if self.record is not None:
            return self.record.epochs
        name = self.key.rpartition("/")[2]
        return (int(name),) if name.isdecimal() else ()


@dataclass(frozen=True)
class FoundRun:
    """A run's folder.

    Parameters
    ----------
    name, key
        Of the run.
    live
        Whether its writer was alive before anything else was looked at.
    described
        Whether it has a record; ``manifest`` is None where that cannot be read, too.
    segments
        Committed ones, in the order of their names; ``folders`` are all of them, committed or not.
    findings
        What is wrong with its records.
    """

    name: str
    key: str
    live: bool
    described: bool
    manifest: Manifest | None
    segments: tuple[FoundSegment, ...]
    folders: tuple[str, ...]
    findings: tuple[Finding, ...]

    @property
    def exists(self) -> bool:
        """Whether anything of it was committed."""
        return self.described or bool(self.segments)

    @property
    def splits(self) -> tuple[SplitInfo, ...]:
        """Splits, as far as they are known."""
        return self.manifest.splits if self.manifest else ()

    @property
    def epochs(self) -> tuple[int, ...]:
        """Committed epochs, as far as they are known, in order."""
        return tuple(sorted({epoch for segment in self.segments for epoch in segment.epochs}))


@dataclass(frozen=True)
class FoundProbeSet:
    """A committed probe set; ``files`` is None where its record cannot be read."""

    key: str
    files: Files | None
    findings: tuple[Finding, ...]

    @property
    def digest(self) -> str:
        """Name of the data."""
        return self.key.rpartition("/")[2]


def find_runs(storage: Storage) -> list[FoundRun]:
    """All runs' folders, in the order of their names."""
    nodes = sorted(filter(is_node, storage.folders("runs")), key=unescape)
    return [find_run(storage, node) for node in nodes]


def find_run(storage: Storage, node: str) -> FoundRun:
    """What the folder of a run holds, as its records say."""
    name, key = unescape(node), f"runs/{node}"
    live = holder_of(storage, f"{key}/{LEASE}") is not None
    folders = [f"{key}/segments/{each}" for each in storage.folders(f"{key}/segments")]
    own, inner, *contents = read_each(storage, [f"{each}/{RECORD}" for each in (key, f"{key}/segments", *folders)])
    manifest, findings = _manifest(storage, name, key, own)
    segments = []
    for folder, content in zip(folders, contents, strict=True):
        if content is not None:
            segment, fault = _segment(storage, name, folder, content)
            segments.append(segment)
            findings += fault
    described = own is not None
    if described or segments:
        findings += _constant(storage, f"{key}/segments", inner, group({}), name)
    findings += _order(storage, name, segments)
    findings += _lost_records(storage, name, folders, segments)
    if segments and not described and not live:
        findings.append(_lost_manifest(storage, name, key))
    return FoundRun(name, key, live, described, manifest, tuple(segments), tuple(folders), tuple(findings))


def find_probe_sets(storage: Storage) -> list[FoundProbeSet]:
    """All committed probe sets."""
    keys = [f"data/{digest}" for digest in storage.folders("data")]
    contents = read_each(storage, [f"{key}/{RECORD}" for key in keys])
    return [_probe_set(storage, key, content) for key, content in zip(keys, contents, strict=True) if content]


def store_findings(storage: Storage) -> list[Finding]:
    """What is wrong with the records of the store itself and of its two parts.

    Raises
    ------
    NotAStoreError
        When nothing is there, or something else.
    NewerFormatError
        When a later ibstore wrote it.
    """
    mark, data, runs = read_each(storage, [RECORD, f"data/{RECORD}", f"runs/{RECORD}"])
    if data is None and runs is None:
        reader.check_store(storage)
    if isinstance(mark, bytes):
        _check_format(storage, mark)
    findings = _constant(storage, "", mark, _MARK)
    return [*findings, *_constant(storage, "data", data, group({})), *_constant(storage, "runs", runs, group({}))]


def read_each(storage: Storage, keys: Sequence[str]) -> "list[bytes | StoreError | None]":
    """Content of each file, None where there is none, or why it cannot be read."""
    try:
        return list(storage.read_all(keys))
    except StoreError:
        return [_read(storage, key) for key in keys]


def is_node(name: str) -> bool:
    """Whether a folder's name is one that ibstore gives."""
    try:
        unescape(name)
    except (ValueError, StoreError):
        return False
    return True


def _read(storage: Storage, key: str) -> "bytes | StoreError | None":
    try:
        return storage.read(key)
    except (FileNotFoundError, NotADirectoryError):
        return None
    except StoreError as error:
        return error


def _check_format(storage: Storage, mark: bytes) -> None:
    """Return unless a later ibstore wrote the mark; one that still has this format's checksum is damaged."""
    try:
        version = unchecked_attributes(mark).get("ibstore_format")
    except ValueError:
        return
    ours = json.loads(_MARK)["attributes"][CHECKSUM].encode()
    if ours not in mark:
        reader.check_version(storage, version)


def _constant(
    storage: Storage, key: str, content: "bytes | StoreError | None", due: bytes, run: str | None = None
) -> list[Finding]:
    """What is wrong with a group's record that is the same in every store."""
    if content == due:
        return []
    record = f"{key}/{RECORD}".lstrip("/")
    kind = Kind.MISSING if content is None else Kind.RECORD
    fact = "is missing" if content is None else "is not what was written"
    return [Finding(kind, record, f"{storage.where(record)} {fact}; {CONSTANT}", run)]


def _lost_records(
    storage: Storage, run: str, folders: Sequence[str], segments: Sequence[FoundSegment]
) -> Iterator[Finding]:
    """Segments without a record before one that has one: a killed writer leaves such a folder behind all others."""
    by_name = {key.rpartition("/")[2]: key for key in folders}
    for name in without_record(by_name, (segment.key.rpartition("/")[2] for segment in segments)):
        record = f"{by_name[name]}/{RECORD}"
        message = (
            f"run {run!r}, epoch {int(name)}: {storage.where(record)} is missing, though later epochs are "
            f"committed; {COPY}"
        )
        yield Finding(Kind.MISSING, record, message, run, (int(name),))


def _lost_manifest(storage: Storage, name: str, key: str) -> Finding:
    record = f"{key}/{RECORD}"
    return Finding(
        Kind.MISSING,
        record,
        f"run {name!r}: {storage.where(record)} is missing, though epochs are committed below; complete the `ibstore "
        f"cp` that began it, {COPY}, or remove the rest with `ibstore rm`",
        name,
    )


def _manifest(
    storage: Storage, name: str, key: str, content: "bytes | StoreError | None"
) -> tuple[Manifest | None, list[Finding]]:
    if content is None:
        return None, []
    manifest, fault = _parsed(content, partial(_manifest_of, name))
    if fault is None:
        return manifest, []
    record = f"{key}/{RECORD}"
    message = f"run {name!r}: {storage.where(record)}, its manifest, {fault}; {COPY}"
    return None, [Finding(Kind.RECORD, record, message, name)]


def _manifest_of(name: str, attributes: dict[str, Any]) -> Manifest:
    manifest = Manifest.load(attributes)
    if manifest.run != name:
        raise ValueError(f"it says that it is run {manifest.run!r}")
    nodes = [(part.name, part.node) for part in manifest.layers] + [(part.name, part.node) for part in manifest.splits]
    for part, node in nodes:
        if node != escape(part):
            raise ValueError(f"it has {part!r} at {node!r}")
    return manifest


def _segment(storage: Storage, run: str, key: str, content: "bytes | StoreError") -> tuple[FoundSegment, list[Finding]]:
    parsed, fault = _parsed(content, SegmentRecord.load)
    segment = FoundSegment(key, parsed)
    record, head = f"{key}/{RECORD}", f"run {run!r}, epoch {', '.join(map(str, segment.epochs[:1]))}"
    if fault is not None:
        message = f"{head}: {storage.where(record)}, its commit record, {fault}; {COPY}"
        return segment, [Finding(Kind.RECORD, record, message, run, segment.epochs)]
    if key.rpartition("/")[2] != segment_name(segment.epochs[0]):
        message = f"{head}: it is committed in {storage.where(key)}, which is another epoch's; {COPY}"
        return segment, [Finding(Kind.EPOCHS, record, message, run, segment.epochs)]
    return segment, []


def _probe_set(storage: Storage, key: str, content: "bytes | StoreError") -> FoundProbeSet:
    files, fault = _parsed(content, lambda attributes: load_files(attributes["files"]))
    if fault is None:
        return FoundProbeSet(key, files, ())
    record = f"{key}/{RECORD}"
    message = f"probe set {key.rpartition('/')[2]}: {storage.where(record)}, its commit record, {fault}; {COPY}"
    return FoundProbeSet(key, None, (Finding(Kind.RECORD, record, message),))


def _parsed(content: "bytes | StoreError", load: Callable[[dict[str, Any]], T]) -> tuple[T | None, str | None]:
    """What a group's record says, or what is wrong with it.

    A reader asks the attributes' checksum alone; here every byte of the file must be what ibstore writes.
    """
    if isinstance(content, StoreError):
        return None, f"cannot be read ({content})"
    try:
        attributes = group_attributes(content)
        if group(attributes) != content:
            return None, "is not what was written"
        return load(attributes), None
    except (AttributeError, KeyError, TypeError, ValueError, StoreError) as error:
        return None, f"is not what was written ({error!s})"


def _order(storage: Storage, run: str, segments: Iterable[FoundSegment]) -> Iterator[Finding]:
    """Segments whose epochs do not grow, or are in an earlier one already."""
    last = -1
    for segment in segments:
        for epoch in segment.epochs:
            if epoch <= last:
                record = f"{segment.key}/{RECORD}"
                message = (
                    f"run {run!r}, epoch {epoch}: {storage.where(record)} has it behind epoch {last}, or again; {COPY}"
                )
                yield Finding(Kind.EPOCHS, record, message, run, segment.epochs)
                break
            last = epoch
