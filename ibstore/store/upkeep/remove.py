"""Removing runs, with what nobody else needs: their training states, and probe sets that no other run uses."""

from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from ibstore.errors import UnknownNameError
from ibstore.events import Emit, Event, ignore
from ibstore.store import reader
from ibstore.store.format.names import escape
from ibstore.store.places import Storage, open_storage
from ibstore.store.places.lease import LEASE, Lease
from ibstore.store.states import States
from ibstore.store.upkeep.survey import FoundRun, find_probe_sets, find_runs
from ibstore.store.writer import clear_run, take_lease


@dataclass(frozen=True, slots=True)
class Removal:
    """What removing runs takes away.

    Parameters
    ----------
    runs
        Their names, with the committed epochs of each.
    probe_sets
        Digests of the probe sets that no other run uses.
    bytes
        Of all their files.
    """

    runs: dict[str, tuple[int, ...]]
    probe_sets: tuple[str, ...]
    bytes: int


@contextmanager
def holding(storage: Storage, name: str) -> Iterator[Lease]:
    """Keep every writer of a run away; RunBusyError when one is there."""
    lease = take_lease(storage, name)
    try:
        yield lease
    finally:
        lease.release()


def remove_run(storage: Storage, key: str) -> None:
    """Remove the run at a key, whose lease is held; the lease goes last: until then no writer is let in."""
    clear_run(storage, key)
    storage.remove_below(key)


def plan_removal(location: str | Path | Storage, names: Sequence[str]) -> Removal:
    """What `remove_runs` would remove; damaged runs, and the rest of half removed ones, can be removed too.

    Raises
    ------
    UnknownNameError
        When there is no such run.
    """
    storage = open_storage(location)
    reader.check_store(storage)
    found = {run.name: run for run in find_runs(storage)}
    for name in names:
        if name not in found or not found[name].exists:
            known = ", ".join(run.name for run in found.values() if run.exists) or "none"
            raise UnknownNameError(f"{storage.location} has no run {name!r}; it has {known}")
    going = [found[name] for name in dict.fromkeys(names)]
    unused = _unused(storage, going, [run for run in found.values() if run not in going])
    keys = [*(run.key for run in going), *(f"data/{digest}" for digest in unused)]
    size = sum(bytes_ for key in keys for path, bytes_ in storage.files(key).items() if path != LEASE)
    return Removal({run.name: run.epochs for run in going}, tuple(unused), size)


def _unused(storage: Storage, going: Iterable[FoundRun], staying: Iterable[FoundRun]) -> list[str]:
    """Probe sets of runs that go, all where that is unknown; without those of runs that stay, none where unknown."""
    staying = [run for run in staying if run.exists or run.live]
    if not all(run.manifest for run in staying):
        return []
    used = {split.data for run in staying for split in run.splits}
    known = [probe.digest for probe in find_probe_sets(storage)]
    theirs = {split.data for run in going for split in run.splits} if all(run.manifest for run in going) else set(known)
    return [digest for digest in known if digest in theirs - used]


def remove_runs(location: str | Path | Storage, names: Sequence[str], emit: Emit = ignore) -> Removal:
    """Remove runs, their training states and the probe sets that no other run uses; say what was removed.

    Raises
    ------
    UnknownNameError
        When there is no such run; none is removed.
    RunBusyError
        When one is being written; none is removed.
    """
    storage = open_storage(location)
    plan_removal(storage, names)
    with ExitStack() as leases:
        for name in dict.fromkeys(names):
            leases.enter_context(holding(storage, name))
        removal = plan_removal(storage, names)
        for count, name in enumerate(removal.runs, 1):
            remove_run(storage, f"runs/{escape(name)}")
            States(storage, name).drop()
            emit(Event("remove", count, len(removal.runs), f"run {name}"))
        with storage.locked("data"):
            for digest in removal.probe_sets:
                storage.remove_group(f"data/{digest}")
    return removal
