"""Copying committed runs between stores, file by file and byte for byte, each checked against its record on the way.

A copied run's own record is put last, behind those of all its segments: a copy that was cut short is no run yet,
and copying again completes it.
"""

from collections.abc import Mapping, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from enum import Enum
from pathlib import Path

from ibstore.errors import DamagedError, RunExistsError, UnknownNameError, UsageError
from ibstore.events import Emit, Event, ignore
from ibstore.store import reader
from ibstore.store.create import create_store
from ibstore.store.format.layout import listed
from ibstore.store.format.names import escape
from ibstore.store.format.schema import Files, group, group_attributes
from ibstore.store.places import RECORD, Storage, open_storage
from ibstore.store.places.lease import Lease
from ibstore.store.probes import ProbeReader
from ibstore.store.reader import Run, Segment, Store
from ibstore.store.segment import GroupFiles
from ibstore.store.upkeep.remove import holding


class Standing(Enum):
    """What is where a copy shall be."""

    FREE = "nothing, or a part of it"
    WHOLE = "all of it"
    TAKEN = "another run"


@dataclass(frozen=True)
class Copy:
    """A run on its way into another store, where it will be called ``name``."""

    run: Run
    name: str

    @property
    def key(self) -> str:
        """Where it will be."""
        return f"runs/{escape(self.name)}"

    def record(self) -> bytes:
        """Its record: the same bytes, unless the name is another."""
        content = self.run.storage.read(f"{self.run.key}/{RECORD}")
        return content if self.name == self.run.name else group({**group_attributes(content), "run": self.name})


def copy_runs(
    source: str | Path, target: str | Path, runs: Sequence[str] | None = None, emit: Emit = ignore
) -> list[str]:
    """Copy committed runs, all or those chosen, and their probe sets into a new or an existing store.

    A run that is being written is copied as it stands; what is there already, the same, is not copied again.

    Returns
    -------
    list of str
        Names of the runs that were copied, or completed.

    Raises
    ------
    UnknownNameError
        When there is no such run.
    RunExistsError
        When the target has another run of such a name; nothing is copied.
    RunBusyError
        When such a run is being written there; nothing is copied.
    DamagedError
        When a file is not what was committed; what was copied before stays, and is completed by copying again.
    """
    opened = Store.open(source)
    names = list(dict.fromkeys(runs)) if runs else opened.run_names()
    return _copy([Copy(opened.run(name), name) for name in names], open_storage(target), emit)


def merge_stores(
    target: str | Path, sources: Sequence[str | Path], renamed: Mapping[str, str] | None = None, emit: Emit = ignore
) -> list[str]:
    """Copy all runs of ``sources`` into the store at ``target``, those in ``renamed`` under another name.

    Raises
    ------
    UnknownNameError
        When a run that shall be renamed is in none of the sources.
    RunExistsError
        When runs would have one name; all of them are listed, and nothing is copied.
    RunBusyError, DamagedError
        As for `copy_runs`.
    """
    renamed = renamed or {}
    storage = Store.open(target).storage
    copies = [Copy(run, renamed.get(run.name, run.name)) for source in sources for run in Store.open(source).runs()]
    missing = set(renamed) - {copy.run.name for copy in copies}
    if missing:
        known = ", ".join(dict.fromkeys(copy.run.name for copy in copies)) or "none"
        raise UnknownNameError(f"there is no run {min(missing)!r} to rename; the stores to merge have {known}")
    return _copy(copies, storage, emit)


def _copy(copies: Sequence[Copy], target: Storage, emit: Emit) -> list[str]:
    missing = _missing(copies, target, emit)
    create_store(target)
    with ExitStack() as stack:
        leased = {stack.enter_context(holding(target, copy.name)): copy for copy in missing}
        _missing(missing, target, ignore)  # again: nobody else can begin them now
        _Copier(leased, target, emit).copy()
    return [copy.name for copy in missing]


# ---- what may be copied


def _missing(copies: Sequence[Copy], target: Storage, emit: Emit) -> list[Copy]:
    """Copies that are not there, or not whole yet; an error where one would take the place of another run."""
    if any(_place(copy.run.storage) == _place(target) for copy in copies):
        raise UsageError(f"{target.location} cannot be copied into itself; give another store")
    if target.has(RECORD):
        reader.check_store(target)
    names = [copy.name for copy in copies]
    standing = {copy.name: _standing(copy, target) for copy in copies}
    taken = {name for name in names if names.count(name) > 1 or standing[name] is Standing.TAKEN}
    if taken:
        raise RunExistsError(
            f"nothing was copied: {target.location} has, or would get from several stores, another run of the name "
            f"{', '.join(map(repr, sorted(taken)))}; choose runs with `ibstore cp --run`, or give another name with "
            "`ibstore merge --rename`"
        )
    for name in names:
        if standing[name] is Standing.WHOLE:
            emit(Event("notice", detail=f"run {name!r} is in {target.location} already, the same"))
    return [copy for copy in copies if standing[copy.name] is Standing.FREE]


def _place(storage: Storage) -> str:
    """Where it is, said in one way alone."""
    return storage.beside("").location


def _standing(copy: Copy, target: Storage) -> Standing:
    """What a copy would meet: records hold the checksums of all else, so that they alone are compared."""
    there = f"{copy.key}/segments"
    names = [name for name in target.folders(there) if target.has(f"{there}/{name}/{RECORD}")]
    manifest, *records = target.read_all([f"{copy.key}/{RECORD}", *(f"{there}/{name}/{RECORD}" for name in names)])
    own = copy.run.storage.read_all(f"{copy.run.key}/segments/{name}/{RECORD}" for name in names)
    if own != records or manifest not in {None, copy.record()}:
        return Standing.TAKEN
    return Standing.FREE if manifest is None or len(names) < len(copy.run.segments) else Standing.WHOLE


# ---- copying


class _Copier:
    """Copies runs whose leases are held."""

    def __init__(self, copies: Mapping[Lease, Copy], target: Storage, emit: Emit) -> None:
        self.copies, self.target, self.emit = copies, target, emit
        self.probes = {
            split.data: copy.run.probe(split) for copy in copies.values() for split in copy.run.manifest.splits
        }
        self.total = len(self.probes) + sum(len(copy.run.segments) for copy in copies.values())
        self.done = 0

    def copy(self) -> None:
        for probe in self.probes.values():
            self._probe_set(probe)
        for lease, copy in self.copies.items():
            self._run(copy, lease)

    def _step(self, detail: str) -> None:
        self.done += 1
        self.emit(Event("copy", self.done, self.total, detail))

    def _probe_set(self, probe: ProbeReader) -> None:
        record = f"{probe.key}/{RECORD}"
        with self.target.locked("data") as alone:
            if not self.target.has(record):
                if alone:
                    self.target.remove_below(probe.key)  # what a killed writer left
                self._files(probe.storage, probe.key, probe.committed, GroupFiles(self.target, probe.key, shared=True))
                with suppress(FileExistsError):  # another process put the same
                    self.target.put_new(record, _read(probe.storage, record), durable=True)
        self._step(f"probe set {probe.digest}")

    def _run(self, copy: Copy, lease: Lease) -> None:
        inner = f"{copy.key}/segments"
        for key in (copy.key, inner):
            self.target.sweep(key)
        self._put_record(lease, inner, group({}))
        for segment in copy.run.segments:
            self._segment(segment, f"{inner}/{segment.key.rpartition('/')[2]}", lease)
            self._step(f"run {copy.name}, epoch {listed(list(segment.record.epochs))}")
        self._put_record(lease, copy.key, copy.record())

    def _segment(self, segment: Segment, key: str, lease: Lease) -> None:
        if not self.target.has(f"{key}/{RECORD}"):
            self.target.remove_below(key)
            self._files(segment.storage, segment.key, segment.record.files, GroupFiles(self.target, key))
        self._put_record(lease, key, _read(segment.storage, f"{segment.key}/{RECORD}"))

    def _files(self, source: Storage, key: str, files: Files, written: GroupFiles) -> None:
        """Copy what a record names, and make it durable."""
        for path, info in files.items():
            written.put(path, _read(source, f"{key}/{path}"))
            if written.written[path] != info:
                raise _damaged(source, f"{key}/{path}", "is not what was committed")
        self.target.sync(written.key)

    def _put_record(self, lease: Lease, key: str, content: bytes) -> None:
        """Put a group's record, unless an earlier copy has put it."""
        if not self.target.has(f"{key}/{RECORD}"):
            lease.check()
            self.target.put_new(f"{key}/{RECORD}", content, durable=True)


def _read(storage: Storage, key: str) -> bytes:
    try:
        return storage.read(key)
    except (FileNotFoundError, NotADirectoryError):
        raise _damaged(storage, key, "is missing") from None


def _damaged(storage: Storage, key: str, fact: str) -> DamagedError:
    return DamagedError(
        f"{storage.where(key)} {fact}; see what is whole with `ibstore verify {storage.location} --deep`, and copy "
        "other runs with --run"
    )
