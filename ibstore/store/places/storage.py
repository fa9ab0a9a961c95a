"""Where a store lies, a folder or a bucket's prefix, seen as bytes by key.

Keys are relative to the place and use ``/``. Whatever the place is, reading what is not there raises
`FileNotFoundError`, putting new what is there `FileExistsError`, and every other refusal is a `StoreError`
(reading) or a `WriteError` (writing) that names the place, the fact and the next action.
"""

from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Final

RECORD: Final = "zarr.json"
"""A group's or an array's own file; a group's is its commit record."""


class Storage(ABC):
    """Bytes by key in one place.

    Parameters
    ----------
    location
        The place as its user names it: a path or a URL.
    """

    def __init__(self, location: str) -> None:
        self.location = location

    def where(self, key: str = "") -> str:
        """Full name of a key, for messages.

        >>> from ibstore.store.places import open_storage
        >>> open_storage("memory://lab.zarr").where("runs/seed0")
        'memory://lab.zarr/runs/seed0'
        """
        return f"{self.location.rstrip('/')}/{key}" if key else self.location

    @abstractmethod
    def exists(self) -> bool:
        """Whether anything is there."""

    @abstractmethod
    def read(self, key: str) -> bytes:
        """Content of a file."""

    @abstractmethod
    def read_range(self, key: str, start: int, stop: int) -> bytes:
        """Bytes ``start`` … ``stop`` − 1 of a file, fewer where it ends before."""

    def read_all(self, keys: Iterable[str]) -> list[bytes | None]:
        """Content of each file, None where there is none: one after another unless the place can do better."""
        return [self._read_or_none(key) for key in keys]

    def _read_or_none(self, key: str) -> bytes | None:
        try:
            return self.read(key)
        except (FileNotFoundError, NotADirectoryError):
            return None

    @abstractmethod
    def size(self, key: str) -> int:
        """Bytes of a file."""

    @abstractmethod
    def folders(self, key: str) -> list[str]:
        """Names of the folders directly below a key, in order; none where it does not exist."""

    @abstractmethod
    def files(self, key: str) -> dict[str, int]:
        """Every file below a key, by path relative to it, with its bytes."""

    def has(self, key: str) -> bool:
        """Whether there is a file."""
        try:
            self.size(key)
        except (FileNotFoundError, NotADirectoryError):
            return False
        return True

    @abstractmethod
    def make(self) -> None:
        """Make the place, durably; FileExistsError where something else is there."""

    @abstractmethod
    def put(self, key: str, content: bytes) -> None:
        """Write a file, whole or not at all; durable after `sync`."""

    @abstractmethod
    def put_new(self, key: str, content: bytes, *, durable: bool = False) -> None:
        """Write a file only if none is there, whole or not at all; whoever comes second gets FileExistsError.

        Durable after `sync`, or at once where that is asked for.
        """

    @abstractmethod
    def swap(self, key: str, old: bytes, new: bytes) -> None:
        """Write a file in place of one whose content is ``old``; FileExistsError where it is another's by now."""

    @abstractmethod
    def remove(self, key: str) -> None:
        """Remove a file, durably; it need not be there."""

    def remove_group(self, key: str) -> None:
        """Remove all below a key; its own record goes first, so that no reader sees half of it."""
        self.remove(f"{key}/{RECORD}")
        self.remove_below(key)

    @abstractmethod
    def remove_below(self, key: str) -> None:
        """Remove all below a key; nothing need be there."""

    @abstractmethod
    def remove_empty(self) -> None:
        """Remove the place itself where nothing is in it."""

    @abstractmethod
    def sync(self, key: str) -> None:
        """Make every file and name below a key, and its own name, survive a power cut."""

    @abstractmethod
    def locked(self, key: str) -> AbstractContextManager[bool]:
        """Be the only process that asks for this key, the others wait: true where the place knows how."""

    @abstractmethod
    def strays(self, key: str) -> list[str]:
        """Keys of temporary files directly below a key, which killed writers left there."""

    def sweep(self, key: str) -> None:
        """Remove the temporary files directly below a key; nobody may be writing there."""
        for stray in self.strays(key):
            self.remove(stray)

    @abstractmethod
    def free_bytes(self) -> int | None:
        """Free space; None where there is no end of it."""

    @abstractmethod
    def local(self, keys: Iterable[str], scratch: Path) -> list[Path]:
        """Paths of files on this machine with these files' contents: themselves, or copies in ``scratch``."""

    @abstractmethod
    def around(self) -> "Iterator[Storage]":
        """The places that this one lies in, the nearest first."""

    @abstractmethod
    def beside(self, suffix: str) -> "Storage":
        """The place whose name is this one's and ``suffix``."""
