"""Making a store, and writing the probe sets that its runs share."""

from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Final

import numpy as np

from ibstore.errors import DamagedError, NewerFormatError, StoreError
from ibstore.store import reader
from ibstore.store.committed import THREADS
from ibstore.store.format.encoding import Encoding
from ibstore.store.format.layout import plan, shard_budget
from ibstore.store.format.probe import ProbeSet
from ibstore.store.format.schema import FORMAT, dump_files, file_info, group, group_attributes, load_files
from ibstore.store.places import RECORD, Storage, open_storage
from ibstore.store.places.disk import PARTIAL
from ibstore.store.probes import TARGET
from ibstore.store.segment import ArrayWriter, GroupFiles

_GROUPS: Final[Mapping[str, Mapping[str, int]]] = {"data": {}, "runs": {}, "": {"ibstore_format": FORMAT}}


def create_store(location: str | Path | Storage) -> Storage:
    """Make an empty store, unless it is there already, and return where it is.

    Raises
    ------
    StoreError
        When something else is there: a file, or a folder that is not empty and no store; or when the place lies
        inside another store.
    """
    storage = open_storage(location)
    if not storage.has(RECORD):
        refuse_inside(storage)
    try:
        storage.make()
    except FileExistsError:
        raise _no_store(storage) from None
    with storage.locked("") as alone:  # others may make the same store at the same moment
        if storage.has(RECORD):
            reader.check_store(storage)
        elif _foreign(storage):
            raise _no_store(storage)
        for key, attributes in _GROUPS.items():
            record = f"{key}/{RECORD}".lstrip("/")
            if alone:
                storage.sweep(key)
            if not storage.has(record):
                with suppress(FileExistsError):  # the other one was faster
                    storage.put_new(record, group(attributes), durable=True)
    return storage


def refuse_inside(place: Storage) -> None:
    """Return when a place lies inside no store, whose readers and whose `repair` would take it for a stranger.

    Raises
    ------
    StoreError
        When it does.
    """
    for around in place.around():
        try:
            reader.check_store(around)
        except (DamagedError, NewerFormatError):
            pass  # a store all the same
        except StoreError:
            continue  # none, or nothing that this process may read
        raise StoreError(f"{place.location} lies inside the store {around.location}; choose a path outside of it")


def _no_store(storage: Storage) -> StoreError:
    return StoreError(f"{storage.location} exists and is no ibstore store; choose another path, or move it away")


def _foreign(storage: Storage) -> bool:
    """Whether something lies there that a creation cut short would not have left."""
    ours = {f"{key}/{RECORD}".lstrip("/") for key in _GROUPS}
    files = any(path not in ours and not path.endswith(PARTIAL) for path in storage.files(""))
    return files or not set(storage.folders("")) <= {"data", "runs"}


def write_probe_set(location: str | Path | Storage, probe: ProbeSet) -> str:
    """Write ``probe`` to ``data/<digest>`` of the store there, once, and return the digest.

    Two processes that write the same probe set write the same bytes.

    Raises
    ------
    DamagedError
        When it is there already and is not what was committed.
    """
    storage = open_storage(location)
    digest = probe.digest()
    key = f"data/{digest}"
    with storage.locked("data") as alone:
        if alone:
            for name in storage.folders("data"):  # what killed writers left there
                if not storage.has(f"data/{name}/{RECORD}"):
                    storage.remove_below(f"data/{name}")
                storage.sweep(f"data/{name}")
        if storage.has(f"{key}/{RECORD}"):
            _check_probe_set(storage, key)
            return digest
        files = GroupFiles(storage, key, shared=True)
        _write_arrays(files, probe)
        storage.sync(key)
        with suppress(FileExistsError):  # another process wrote the same
            storage.put_new(f"{key}/{RECORD}", group({"files": dump_files(files.written)}), durable=True)
    return digest


def _write_arrays(files: GroupFiles, probe: ProbeSet) -> None:
    from ibstore.store.format.arrays import coordinate, create, unit_dimensions

    dimensions = ["sample", *unit_dimensions("x", probe.x.ndim - 1)]
    layout = plan(probe.x[:1].nbytes, len(probe.x), shard_budget(1))
    array, metadata = create(probe.x.shape, probe.x.dtype, dimensions, layout, Encoding())
    files.put(f"x/{RECORD}", metadata[RECORD].to_bytes())
    with ThreadPoolExecutor(THREADS) as pool:
        ArrayWriter(files, "x", array, None, pool.map).append(probe.x)
    files.put_all("sample", coordinate("sample", probe.sample))
    if probe.y is not None:
        files.put_all("y", coordinate("sample", np.asarray(probe.y)))
    for name, values in sorted(probe.targets.items()):
        files.put_all(f"{TARGET}{name}", coordinate("sample", values))


def _check_probe_set(storage: Storage, key: str) -> None:
    """Refuse to build a run on a probe set whose files are not what was committed."""
    where = storage.where(key)
    remedy = "restore it from a copy, or capture into another store"
    try:
        committed = load_files(group_attributes(storage.read(f"{key}/{RECORD}"))["files"])
    except (ValueError, KeyError, TypeError) as error:
        raise DamagedError(f"{where}, which this run would share, is damaged ({error}); {remedy}") from None
    for path, info in committed.items():
        try:
            found = storage.read(f"{key}/{path}")
        except (FileNotFoundError, NotADirectoryError):
            found = b""
        if file_info(found) != info:
            raise DamagedError(
                f"{storage.where(f'{key}/{path}')}, which this run would share, is not what was committed; {remedy}"
            )
