"""A writer's lease on a run: while it lives no other writer is let in, and one that died blocks nobody for long.

The lease is a small file, put only if absent, that its holder renews. A holder on this machine is alive as long
as its process is, however long it slept; one elsewhere is dead when it has not renewed for `SECONDS`, or says that it
will have, on a clock so far ahead. A dead
holder's lease is swapped for one's own: of several who try, one succeeds. Even a lease that was lost to another
by mistake costs no committed data: a segment's record is put only if absent, by who still holds the lease.
"""

import json
import os
import time
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from threading import Event, Lock, Thread
from typing import Final, Self

from ibstore.errors import RunBusyError, WriteError
from ibstore.store.places.storage import Storage

LEASE: Final = "lease.json"
"""Its file, in the run's folder."""

SECONDS: Final = 60.0
RENEWALS: Final = 4
"""Renewals within `SECONDS`: three may fail."""


@dataclass(frozen=True, slots=True)
class Holder:
    """Who holds a lease: a process, in the numbering of its machine's boot and process namespace ``space``.

    Parameters
    ----------
    token
        Distinct for every lease ever taken.
    host, pid
        For people.
    started
        When the process began, in ticks since boot: a number that comes again is another process.
    space
        Where ``pid`` means this process; empty where that cannot be told.
    renewed
        When the lease was taken or renewed, in seconds since 1970.
    """

    token: str
    host: str
    pid: int
    started: int
    space: str
    renewed: float

    @classmethod
    def here(cls) -> Self:
        """A new lease's holder: this process."""
        import secrets
        import socket

        pid = os.getpid()
        return cls(secrets.token_hex(16), socket.gethostname(), pid, _started(pid) or 0, _space(), time.time())

    @classmethod
    def load(cls, content: bytes) -> "Holder | None":
        """From its file; None where that cannot be read: whoever wrote half of it is dead."""
        try:
            found = json.loads(content)
            return cls(**{each.name: each.type(found[each.name]) for each in fields(cls)})  # type: ignore[operator]
        except (KeyError, TypeError, ValueError):
            return None

    def dump(self) -> bytes:
        """Content of its file."""
        return json.dumps(asdict(self), indent=1).encode()

    def alive(self) -> bool:
        """Whether it may still write."""
        if self.space and self.space == _space():
            return _started(self.pid) == self.started
        return abs(time.time() - self.renewed) < SECONDS  # a clock that ran ahead blocks nobody until then

    def __str__(self) -> str:
        return f"process {self.pid} on {self.host}"


class Lease:
    """A lease that this process holds, renewed in the background until it is released.

    Parameters
    ----------
    storage, key
        Where its file is.
    what
        What it is for, in words: ``run 'seed0'``.

    Raises
    ------
    RunBusyError
        When another holder is alive.
    """

    def __init__(self, storage: Storage, key: str, what: str) -> None:
        self._storage, self._key, self._what = storage, key, what
        self._content = self._take(Holder.here())
        self._token = _token(self._content)
        self._released, self._lock = Event(), Lock()
        Thread(target=self._keep, name="ibstore-lease", daemon=True).start()

    def _take(self, mine: Holder) -> bytes:
        content = mine.dump()
        try:
            try:
                self._storage.put_new(self._key, content)
            except FileExistsError:
                self._storage.swap(self._key, self._dead_lease(), content)
        except FileExistsError:
            raise RunBusyError(f"{self._what} is being taken over by another process; wait until it ends") from None
        return content

    def _dead_lease(self) -> bytes:
        """Content of the lease that is there, whose holder is dead."""
        try:
            content = self._storage.read(self._key)
        except FileNotFoundError:  # released at this moment
            raise FileExistsError(self._key) from None
        holder = Holder.load(content)
        if holder is not None and holder.alive():
            raise RunBusyError(
                f"{self._what} is being written by {holder} (another process, or a recorder that is not closed); "
                "choose another run name, or wait until it ends"
            )
        return content

    def check(self) -> None:
        """Return while the lease is held.

        Raises
        ------
        WriteError
            When another writer has taken it, or somebody removed it.
        """
        try:
            held = _token(self._storage.read(self._key)) == self._token
        except FileNotFoundError:
            held = False
        if not held:
            raise WriteError(
                f"{self._what} was taken over by another writer, or its lease {self._storage.where(self._key)} was "
                "removed; whatever was committed is whole: see that one process writes it, then resume"
            )

    def release(self) -> None:
        """Give the lease back; it can be called twice."""
        if self._released.is_set():
            return
        self._released.set()
        with self._lock:
            try:
                self.check()
            except WriteError:
                return  # it is another's by now
            self._storage.remove(self._key)

    def _keep(self) -> None:
        while not self._released.wait(SECONDS / RENEWALS):
            try:
                with self._lock:
                    self._renew()
            except (FileExistsError, FileNotFoundError):
                return  # lost: `check` tells who asks
            except Exception:
                continue

    def _renew(self) -> None:
        if self._released.is_set():
            return
        holder = Holder.load(self._content)
        assert holder is not None, "a lease that was written here can be read here"
        renewed = Holder(**asdict(holder) | {"renewed": time.time()}).dump()
        self._storage.swap(self._key, self._content, renewed)
        self._content = renewed


def holder_of(storage: Storage, key: str) -> Holder | None:
    """Who is alive and holds the lease there; None where nobody does."""
    try:
        holder = Holder.load(storage.read(key))
    except (FileNotFoundError, NotADirectoryError):
        return None
    return holder if holder is not None and holder.alive() else None


def _token(content: bytes) -> str | None:
    holder = Holder.load(content)
    return None if holder is None else holder.token


def _started(pid: int) -> int | None:
    """When the process of that number began, in the kernel's ticks since boot; None where it is none or dead."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text(encoding="ascii", errors="replace").rpartition(")")[2].split()
    except OSError:
        return None
    state, ticks = fields[0], fields[19]  # proc(5), counted from behind the command's name
    return None if state in {"Z", "X"} else int(ticks)


def _space() -> str:
    """The boot and the process namespace in which this process has its number; empty where neither is told."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
        return f"{boot} {Path('/proc/self/ns/pid').readlink()}"
    except OSError:
        return ""
