"""A store in a folder of a local or a shared file system.

Durable means: the bytes and the name survive a power cut (``fsync`` of the file, then of its folder).
"""

import errno
import fcntl
import os
import shutil
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final

from ibstore.errors import StoreError, WriteError
from ibstore.store.places.storage import Storage

PARTIAL: Final = ".partial"


class Disk(Storage):
    """A folder."""

    def __init__(self, root: Path) -> None:
        super().__init__(str(root))
        self.root = root

    def exists(self) -> bool:
        """Whether anything is at that path, a file or a dangling link too."""
        with read_errors(self.root):
            try:
                self.root.lstat()
            except (FileNotFoundError, NotADirectoryError):
                return False
            return True

    def read(self, key: str) -> bytes:
        """Content of a file."""
        path = self.root / key
        with read_errors(path):
            return path.read_bytes()

    def read_range(self, key: str, start: int, stop: int) -> bytes:
        """Some bytes of a file."""
        path = self.root / key
        with read_errors(path), path.open("rb") as file:
            file.seek(start)
            return file.read(stop - start)

    def size(self, key: str) -> int:
        """Bytes of a file."""
        path = self.root / key
        with read_errors(path):
            return path.stat().st_size

    def folders(self, key: str) -> list[str]:
        """Names of the folders directly below a key."""
        path = self.root / key
        with read_errors(path):
            try:
                return sorted(entry.name for entry in os.scandir(path) if entry.is_dir())
            except (FileNotFoundError, NotADirectoryError):
                return []

    def files(self, key: str) -> dict[str, int]:
        """Every file below a key; those that vanish meanwhile are left out."""
        root = self.root / key
        found = {}
        with read_errors(root):
            for folder, _, names in os.walk(root, onerror=_raise_unless_gone):
                for path in (Path(folder, name) for name in names):
                    with suppress(FileNotFoundError):
                        found[path.relative_to(root).as_posix()] = path.lstat().st_size
        return dict(sorted(found.items()))

    def make(self) -> None:
        """Make the folder and those above it, each with a name that survives a power cut."""
        with write_errors(self.root):
            if os.path.lexists(self.root) and not self.root.is_dir():
                raise FileExistsError(self.location)
            self._make_folders(self.root)

    def _make_folders(self, folder: Path) -> None:
        made = [each for each in (folder, *folder.parents) if not each.exists()]
        folder.mkdir(parents=True, exist_ok=True)
        for each in made:
            sync(each.parent)

    def _sync_names(self, path: Path) -> None:
        """Make the name of a file durable, and those of the folders that lead to it from the root."""
        for folder in path.parents:
            sync(folder)
            if folder == self.root:
                break

    def put(self, key: str, content: bytes) -> None:
        """Write a file by way of a temporary one."""
        path = self.root / key
        with write_errors(path):
            _make_parents(path)
            put_file(path, content)

    def put_new(self, key: str, content: bytes, *, durable: bool = False) -> None:
        """Write a file by way of a temporary one and a link, which unlike a rename tells when it lost a race."""
        path = self.root / key
        with write_errors(path):
            _make_parents(path)
            with _temporary(path) as temporary:
                temporary.write_bytes(content)
                if durable:
                    sync(temporary)
                os.link(temporary, path)
            if durable:
                self._sync_names(path)

    def swap(self, key: str, old: bytes, new: bytes) -> None:
        """Compare and replace, not durably; two swappers are kept apart by a lock where the file system has some."""
        path = self.root / key
        if not self.has(key):
            raise FileExistsError(str(path))
        with write_errors(path), _flock(path.parent):
            if not path.exists() or path.read_bytes() != old:
                raise FileExistsError(str(path))
            with _temporary(path) as temporary:
                temporary.write_bytes(new)
                temporary.replace(path)

    def remove(self, key: str) -> None:
        """Remove a file, and its name durably."""
        path = self.root / key
        with write_errors(path), suppress(FileNotFoundError, NotADirectoryError):
            path.unlink()
            sync(path.parent)

    def remove_below(self, key: str) -> None:
        """Remove a folder with all below it; of a link to one, the link."""
        path = self.root / key
        with write_errors(path):
            if path.is_symlink():
                path.unlink()
            elif path.is_dir():
                shutil.rmtree(path)

    def remove_empty(self) -> None:
        """Remove the folder, if nothing is in it at that moment."""
        with suppress(OSError):
            self.root.rmdir()

    def sync(self, key: str) -> None:
        """Make a tree, and its root's own name, survive a power cut."""
        root = self.root / key
        with write_errors(root):
            for folder, _, names in os.walk(root, topdown=False):
                for name in names:
                    sync(Path(folder, name))
                sync(Path(folder))
            sync(root.parent)

    @contextmanager
    def locked(self, key: str) -> Iterator[bool]:
        """Hold the kernel's lock on a folder; without one where the file system has none."""
        path = self.root / key
        with write_errors(path):
            path.mkdir(parents=True, exist_ok=True)
        with _flock(path) as alone:
            yield alone

    def strays(self, key: str) -> list[str]:
        """Keys of temporary files directly below a key."""
        path = self.root / key
        with read_errors(path):
            names = sorted(entry.name for entry in os.scandir(path)) if path.is_dir() else []
        return [f"{key}/{name}".lstrip("/") for name in names if name.endswith(PARTIAL)]

    def free_bytes(self) -> int | None:
        """Free space of the file system that the folder is on, or will be."""
        path = self.root.absolute()
        with read_errors(path):
            while not path.exists():
                path = path.parent
            return shutil.disk_usage(path).free

    def local(self, keys: Iterable[str], scratch: Path) -> list[Path]:  # noqa: ARG002  (nothing is copied)
        """The files themselves, by absolute paths."""
        return [self.root.resolve() / key for key in keys]

    def around(self) -> "Iterator[Disk]":
        """The folders above."""
        return map(Disk, self.root.resolve().parents)

    def beside(self, suffix: str) -> "Disk":
        """The folder of that name beside this one."""
        whole = self.root.resolve()
        return Disk(whole.with_name(f"{whole.name}{suffix}"))


def _make_parents(path: Path) -> None:
    try:
        with suppress(FileNotFoundError):  # another process removed an empty one on the way
            path.parent.mkdir(parents=True, exist_ok=True)
        path.parent.mkdir(parents=True, exist_ok=True)
    except FileExistsError as error:
        raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), error.filename) from None


def put_file(path: Path, content: bytes) -> None:
    """Write ``content`` at ``path``, whole or not at all; a device or a pipe is written as it is."""
    if path.exists() and not path.is_file():
        path.write_bytes(content)
        return
    path = path.resolve()  # a link keeps leading to the file
    with _temporary(path) as temporary:
        temporary.write_bytes(content)
        temporary.replace(path)


def save(path: Path, content: bytes, option: str) -> None:
    """Write a file of the user's, who named it with an option, whole or not at all.

    Raises
    ------
    WriteError
        When that cannot be.
    """
    try:
        put_file(path, content)
    except OSError as error:
        raise WriteError(
            f"cannot write {path}: {error.strerror or error}; choose another path with {option}"
        ) from error


def sync(path: Path) -> None:
    """Make a file, or the names in a folder, survive a power cut."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextmanager
def _temporary(path: Path) -> Iterator[Path]:
    import secrets

    temporary = path.with_name(f".{path.name}.{secrets.token_hex(8)}{PARTIAL}")
    try:
        yield temporary
    finally:
        temporary.unlink(missing_ok=True)


@contextmanager
def _flock(folder: Path) -> Iterator[bool]:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    locked = False
    try:
        with suppress(OSError):  # some network file systems have no locks
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            locked = True
        yield locked
    finally:
        if locked:  # though a process that was forked since may still hold a copy
            fcntl.flock(descriptor, fcntl.LOCK_UN)
        os.close(descriptor)


def _raise_unless_gone(error: OSError) -> None:
    if not isinstance(error, FileNotFoundError | NotADirectoryError):
        raise error


@contextmanager
def write_errors(path: Path) -> Iterator[None]:
    """Turn the system's refusals (no space, no permission) into a `WriteError` that names ``path``."""
    try:
        yield
    except FileExistsError:
        raise
    except OSError as error:
        reason = error.strerror or str(error)
        raise WriteError(
            f"cannot write to {path}: {reason}; whatever was committed before is whole: free space or mend "
            "the permissions, then do it again, a capture with --resume"
        ) from error


@contextmanager
def read_errors(path: Path) -> Iterator[None]:
    """Turn the system's refusals (no permission, a failing disk) into a `StoreError` that names the place."""
    try:
        yield
    except (FileNotFoundError, NotADirectoryError):
        raise
    except OSError as error:
        reason = error.strerror or str(error)
        action = "ask its owner for access" if isinstance(error, PermissionError) else "mend that, then ask again"
        raise StoreError(f"cannot read {error.filename or path}: {reason}; {action}") from error
