"""Writing a run: the one writer that its lease lets in, and the commit protocol of format 1.

A group's own ``zarr.json`` is its commit record: it is put last, atomically and only if absent. Until then
what lies there does not exist, neither for ibstore nor for any other Zarr reader, and the next writer
sweeps it.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from ibstore.errors import DamagedError, ResumeError, RunExistsError, StoreError, WriteError
from ibstore.events import Emit, Event, ignore
from ibstore.store import reader
from ibstore.store.committed import THREADS
from ibstore.store.create import create_store, write_probe_set
from ibstore.store.format.layout import counted, listed
from ibstore.store.format.names import escape, segment_name, without_record
from ibstore.store.format.probe import ProbeSet
from ibstore.store.format.schema import Manifest, SegmentRecord, group, group_attributes
from ibstore.store.places import RECORD, Storage
from ibstore.store.places.lease import LEASE, Lease
from ibstore.store.segment import SegmentWriter
from ibstore.store.states import States


class RunWriter:
    """The one writer of a run: holds its lease, writes its manifest, commits its segments.

    Parameters
    ----------
    location
        Of the store; it is made where it does not exist.
    manifest
        What is known of the run.
    samples
        Sample ids of each split, (sample,) int64.
    probes
        Its splits' data, where `write_probe_set` has not written it: it is written when the run is this writer's.
    replace
        Remove a run of that name first.
    resume
        Go on with a run of that name, whose manifest must be the same.
    emit
        Told of what is removed.

    Raises
    ------
    RunExistsError
        When a run of that name has committed epochs, and neither ``replace`` nor ``resume`` is true.
    ResumeError
        When the run to go on with is described by another manifest.
    RunBusyError
        When another process is writing it.
    """

    def __init__(
        self,
        location: str | Path | Storage,
        manifest: Manifest,
        samples: Mapping[str, NDArray[np.int64]],
        *,
        probes: Iterable[ProbeSet] = (),
        replace: bool = False,
        resume: bool = False,
        emit: Emit = ignore,
    ) -> None:
        self.manifest = manifest
        self._run = f"runs/{escape(manifest.run)}"  # refuses a name that cannot be one, before anything is written
        self.storage = create_store(location)
        self.states = States(self.storage, manifest.run)
        self._samples = {split: samples[split.name] for split in manifest.splits}
        self._emit = emit
        self._begun: set[str] = set()
        self._lease: Lease | None = take_lease(self.storage, manifest.run)
        self._pool = ThreadPoolExecutor(THREADS)
        try:
            if resume:
                self._check_same()
                self._sweep()
            else:
                self._clear(replace)
            self._begin(probes)
            found = reader.segments_of(self.storage, self._run)
        except BaseException:
            self.close()
            raise
        self.found: tuple[SegmentRecord, ...] = tuple(segment.record for segment in found)
        self._homes = {epoch: segment.key for segment in found for epoch in segment.record.epochs}

    @property
    def epochs(self) -> list[int]:
        """Committed epochs as they are in the store now, in order; `found` has those of the opening, read already."""
        return [epoch for segment in reader.segments_of(self.storage, self._run) for epoch in segment.record.epochs]

    def _begin(self, probes: Iterable[ProbeSet]) -> None:
        """Write its data, and put the records of the run and of what holds its segments, unless they are there."""
        for probe in probes:
            write_probe_set(self.storage, probe)
        for key, attributes in ((f"{self._run}/segments", {}), (self._run, self.manifest.dump())):
            if not self.storage.has(f"{key}/{RECORD}"):
                self.storage.put_new(f"{key}/{RECORD}", group(attributes), durable=True)

    def _check_same(self) -> None:
        """Return when the run, if there is one, is described by the same manifest."""
        found = reader.manifest_of(self.storage, self._run)
        if found is None:
            if self.epochs:
                raise ResumeError(
                    f"run {self.manifest.run!r} has committed epochs but no manifest, as an interrupted --force leaves "
                    "it; restore the manifest from a copy, or begin anew with --force (force=True)"
                )
            self._clear(replace=False)
            return
        there, here = (group_attributes(group(each.dump())) for each in (found, self.manifest))  # as JSON keeps them
        differing = _differences(there, here)
        if differing:
            raise ResumeError(
                f"run {self.manifest.run!r} cannot be resumed with other settings: {'; '.join(differing)}; give the "
                "same, or begin another run"
            )

    def _clear(self, replace: bool) -> None:
        """Empty the run of what an earlier one or a killed writer left there."""
        self._check_free(replace)
        clear_run(self.storage, self._run)
        self.states.drop()

    def _check_free(self, replace: bool) -> None:
        """Return when no committed epoch would be lost against the user's will."""
        try:
            epochs = self.epochs
        except DamagedError:
            if not replace:
                raise
            self._emit(Event("notice", detail=f"removing run {self.manifest.run!r} (damaged)"))
            return
        if epochs and not replace:
            raise RunExistsError(
                f"run {self.manifest.run!r} is already in the store with {counted(len(epochs), 'epoch')} "
                f"({listed(epochs)}); choose another run name, go on with it with --resume (resume=True), or "
                "replace it with --force (force=True)"
            )
        if epochs:
            self._emit(Event("notice", detail=f"removing run {self.manifest.run!r} ({counted(len(epochs), 'epoch')})"))

    def _sweep(self) -> None:
        """Remove what a killed writer left of a segment that was never committed: it is behind all that were."""
        segments = f"{self._run}/segments"
        names = sorted(self.storage.folders(segments))
        committed = [name for name in names if self.storage.has(f"{segments}/{name}/{RECORD}")]
        for name in without_record(names, committed):
            where = self.storage.where(f"{segments}/{name}/{RECORD}")
            raise DamagedError(
                f"run {self.manifest.run!r}, epoch {int(name)}: {where} is missing, though later epochs are "
                "committed; restore it from a copy, or go on without that epoch after `ibstore repair`"
            )
        for name in names:
            if name not in committed:
                self.storage.remove_below(f"{segments}/{name}")
            self.storage.sweep(f"{segments}/{name}")
        for key in (segments, self._run):
            self.storage.sweep(key)

    def segment(self, *epochs: int) -> SegmentWriter:
        """Begin a segment; what this writer's earlier attempt left of it is swept.

        Raises
        ------
        StoreError
            When an epoch is committed already.
        WriteError
            When the run is closed, or another writer has taken it over.
        """
        if self._lease is None:
            raise WriteError(f"run {self.manifest.run!r} is closed; open it again with resume=True, or another run")
        key = f"{self._run}/segments/{segment_name(epochs[0])}"
        self._check_new(key, epochs)
        self._lease.check()
        if key in self._begun:  # never what another writer, who took over a moment ago, has there
            self.storage.remove_below(key)
        self._begun.add(key)
        allowed = self._lease.check
        return SegmentWriter(self.storage, key, epochs, self.manifest, self._samples, allowed, self._spread)

    def _check_new(self, key: str, epochs: Sequence[int]) -> None:
        """Return when no epoch is committed, at ``key`` or in a segment that begins with another one."""
        homes = {key: epochs[0]} | {self._homes.get(epoch, key): epoch for epoch in reversed(epochs)}
        for home, epoch in homes.items():
            if self.storage.has(f"{home}/{RECORD}"):
                raise StoreError(
                    f"epoch {epoch} of run {self.manifest.run!r} is committed already; give every epoch its own number"
                )
        others = {epoch: home for epoch, home in self._homes.items() if home != key}  # an attempt there came to nothing
        self._homes = others | dict.fromkeys(epochs, key)

    def _spread(self, function: Callable[[NDArray[Any]], bytes], chunks: Iterable[NDArray[Any]]) -> Iterable[bytes]:
        chunks = list(chunks)
        try:
            return self._pool.map(function, chunks)
        except RuntimeError:  # the interpreter is about to end, and its pools take nothing any more
            return map(function, chunks)

    def close(self) -> None:
        """Let the run go; it can be called twice."""
        if self._lease is not None:
            lease, self._lease = self._lease, None
            self._pool.shutdown()
            lease.release()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def take_lease(storage: Storage, run: str) -> Lease:
    """Lease on a run; RunBusyError when another writer is alive."""
    return Lease(storage, f"runs/{escape(run)}/{LEASE}", f"run {run!r}")


def clear_run(storage: Storage, key: str) -> None:
    """Remove what is below a run's key, its record first, so that no reader sees half of it; the lease stays."""
    storage.remove(f"{key}/{RECORD}")
    for name in storage.folders(key):
        storage.remove_group(f"{key}/{name}")
    for path in storage.files(key):
        if path != LEASE:
            storage.remove(f"{key}/{path}")


def _differences(found: Mapping[str, Any], given: Mapping[str, Any], head: str = "") -> list[str]:
    """What differs between two manifests, field by field, in words.

    >>> _differences({"seed": 0, "settings": {"lr": 0.1}}, {"seed": 1, "settings": {"lr": 0.1}})
    ['seed is 0 in the store and 1 here']
    """
    differing = []
    for name in dict.fromkeys((*found, *given)):
        one, other = _by_name(found.get(name)), _by_name(given.get(name))
        if name not in found or name not in given:
            differing.append(f"{head}{name} is {'here' if name in given else 'in the store'} alone")
        elif isinstance(one, Mapping) and isinstance(other, Mapping):
            differing += _differences(one, other, f"{head}{name}.")
            if isinstance(found[name], list) and set(one) == set(other) and list(one) != list(other):
                differing.append(f"{head}{name} are {', '.join(one)} in the store and {', '.join(other)} here")
        elif one != other:
            differing.append(f"{head}{name} is {_shortened(one)} in the store and {_shortened(other)} here")
    return differing


def _by_name(value: object) -> object:
    """Layers and splits by their names, so that what differs in one of them is found in it."""
    if isinstance(value, list | tuple) and value and all(isinstance(item, Mapping) for item in value):
        return {item.get("name"): item for item in value}
    return value


def _shortened(value: object, length: int = 80) -> str:
    text = repr(value)
    return text if len(text) <= length else f"{text[:length]}…"
