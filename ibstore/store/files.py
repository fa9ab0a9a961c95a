"""Durable files on a local disk: put atomically, put only if absent, lock a folder, remove a tree.

Durable means: when the call returns, the bytes and the name survive a power cut (``fsync`` of the file, then
of its folder).
"""

import fcntl
import json
import os
import secrets
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

from ibstore.errors import StoreError, WriteError

PARTIAL: Final = ".partial"


def read_json(path: Path) -> dict[str, Any] | None:
    """Object in the JSON file at ``path``; None where there is no such file."""
    try:
        text = path.read_bytes()
    except (FileNotFoundError, NotADirectoryError):
        return None
    document = json.loads(text)
    if not isinstance(document, dict):
        raise ValueError(f"{path} holds no JSON object")  # noqa: TRY004  (bad data, not a bad argument)
    return document


def put_new(path: Path, document: Mapping[str, Any]) -> None:
    """Write ``document`` as JSON at ``path``: durable, atomic, and only if nothing is there.

    Raises
    ------
    FileExistsError
        When the path exists; whoever put it first has won.
    """
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(8)}{PARTIAL}")
    try:
        with temporary.open("x", encoding="utf-8") as file:
            json.dump(document, file, indent=1, allow_nan=False)
            file.flush()
            os.fsync(file.fileno())
        os.link(temporary, path)  # unlike a rename, a link tells when it lost the race
    finally:
        temporary.unlink(missing_ok=True)
    sync(path.parent)


def sync(path: Path) -> None:
    """Make a file, or the names in a folder, survive a power cut."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def sync_tree(root: Path) -> None:
    """Make every file and every name below ``root``, and ``root``'s own name, survive a power cut."""
    for folder, _, names in os.walk(root, topdown=False):
        for name in names:
            sync(Path(folder, name))
        sync(Path(folder))
    sync(root.parent)


def make_folders(folder: Path) -> None:
    """Make ``folder`` and the folders above it, each with a name that survives a power cut."""
    made = [each for each in (folder, *folder.parents) if not each.exists()]
    folder.mkdir(parents=True, exist_ok=True)
    for each in made:
        sync(each.parent)


def remove_record(group: Path) -> None:
    """Let the group at ``group`` exist no longer, durably; what lies below it stays."""
    record = group / "zarr.json"
    if record.exists():
        record.unlink()
        sync(group)


def remove_tree(root: Path) -> None:
    """Remove ``root`` with all below it; its own record goes first, so that no reader sees half of it."""
    remove_record(root)
    if root.exists():
        shutil.rmtree(root)


def sweep_partial(folder: Path) -> None:
    """Remove the temporary files that killed writers left in ``folder``; nobody may be writing there."""
    for left in folder.glob(f".*{PARTIAL}"):
        left.unlink()


def put(path: Path, content: bytes) -> None:
    """Write ``content`` at ``path``, whole or not at all; a device or a pipe is written as it is."""
    if path.exists() and not path.is_file():
        path.write_bytes(content)
        return
    path = path.resolve()  # a link keeps leading to the file
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(8)}{PARTIAL}")
    try:
        temporary.write_bytes(content)
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def folders(root: Path) -> list[Path]:
    """Folders directly below ``root``, by name; none where ``root`` does not exist."""
    with read_errors(root):
        try:
            return sorted(path for path in root.iterdir() if path.is_dir())
        except (FileNotFoundError, NotADirectoryError):
            return []


def claim(folder: Path) -> int | None:
    """Lock ``folder`` for this process and return what `release` takes; None when another holds it.

    The lock lives in the kernel, on the folder itself: nothing foreign lies in the store, and a process that
    is killed holds nothing.
    """
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(descriptor)
        return None
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor


def release(descriptor: int) -> None:
    """Give back what `claim` returned, though a process that was forked since may still hold a copy."""
    try:
        fcntl.flock(descriptor, fcntl.LOCK_UN)
    finally:
        os.close(descriptor)


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Be the only process in ``folder`` that asks for this: the others wait."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        release(descriptor)


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
            "the permissions, then capture again"
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
