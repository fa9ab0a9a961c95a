"""Removing what no commit record names; whatever was committed, damaged or not, is never touched."""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from ibstore.errors import RunBusyError
from ibstore.events import Emit, Event, ignore
from ibstore.store.format.names import unescape
from ibstore.store.places import Storage, open_storage
from ibstore.store.places.lease import LEASE, holder_of
from ibstore.store.upkeep.leftovers import run_leftovers, shared_leftovers
from ibstore.store.upkeep.remove import holding, remove_run
from ibstore.store.upkeep.report import Finding, Kind
from ibstore.store.upkeep.survey import find_probe_sets, find_run, is_node


def repair(location: str | Path | Storage, leftovers: Sequence[Finding], emit: Emit = ignore) -> list[Finding]:
    """Remove ``leftovers`` that a verification found, as far as they are leftovers still, and return those removed.

    A run is let alone while another process writes it.

    Parameters
    ----------
    location
        Of the store.
    leftovers
        What to remove.
    emit
        Told of each thing that is removed, and of runs that are let alone.

    Raises
    ------
    WriteError
        When the store cannot be written.
    """
    storage = open_storage(location)
    nodes = dict.fromkeys(node for found in leftovers if (node := _run_node(found)) is not None)
    removed = [] if all(_run_node(found) for found in leftovers) else _shared(storage, leftovers, emit)
    for node in nodes:
        try:
            with holding(storage, unescape(node)):
                removed += _run(storage, node, leftovers, emit)
        except RunBusyError as error:
            emit(Event("notice", detail=f"its leftovers stay: {error}"))
    return removed


def _run_node(found: Finding) -> str | None:
    """Node of the run that a leftover lies below, or is the folder of."""
    match found.key.split("/"):
        case ["runs", node, *_] if found.run is not None:
            return node
    return None


def _run(storage: Storage, node: str, leftovers: Iterable[Finding], emit: Emit) -> list[Finding]:
    """Remove leftovers of a run whose lease is held; a dead writer's lease has just become this process's."""
    key = f"runs/{node}"
    lease = f"{key}/{LEASE}"
    found = {f"{key}/{path}": size for path, size in storage.files(key).items() if f"{key}/{path}" != lease}
    removed = _remove(storage, leftovers, run_leftovers(storage, find_run(storage, node), found), found, emit)
    return [*removed, *(each for each in leftovers if each.key == lease)]


def _shared(storage: Storage, leftovers: Iterable[Finding], emit: Emit) -> list[Finding]:
    """Remove leftovers outside of runs, while nobody makes the store or writes a probe set."""
    with storage.locked(""), storage.locked("data"):
        nodes = [node for node in storage.folders("runs") if is_node(node)]
        live = any(holder_of(storage, f"runs/{node}/{LEASE}") for node in nodes)
        found = storage.files("")
        now = shared_leftovers(storage, find_probe_sets(storage), found, ["data"] if live else [])
        return _remove(storage, leftovers, now, found, emit)


def _remove(
    storage: Storage, leftovers: Iterable[Finding], now: Iterable[Finding], found: Mapping[str, int], emit: Emit
) -> list[Finding]:
    """Remove what was a leftover and is one now."""
    listed = {each.key for each in leftovers}
    chosen = [each for each in now if each.key in listed]
    for count, each in enumerate(chosen, 1):
        if each.key in found:
            storage.remove(each.key)
        elif each.kind is Kind.TORN and each.key.count("/") == 1 and each.run is not None:
            remove_run(storage, each.key)
        else:
            storage.remove_below(each.key)
        emit(Event("repair", count, len(chosen), each.key))
    return chosen
