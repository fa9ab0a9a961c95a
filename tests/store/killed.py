"""Write a store again and again, killed before its 1st, 2nd, … change in the hierarchy, until it survives.

A change is a folder made, a file put in its place (its temporary file then lies beside it), a file or folder removed.
``python -m tests.store.killed FOLDER [OLD]`` leaves FOLDER/0, FOLDER/1, …: what a SIGKILL at each of these instants
leaves. With OLD, each begins as a copy of that store and its run is replaced. This is a process of its own because
it forks: that is safe only while there are no threads.
"""

import os
import shutil
import signal
import sys
from collections.abc import Iterator
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np
import zarr  # noqa: F401  (once, not once a fork)

from ibstore.store.format import arrays  # noqa: F401

from . import stores


def numbers(layer: str, epochs: int) -> stores.Arrays:
    """What is written: numbers that are all distinct."""
    shape = (epochs, stores.SAMPLES, 2)
    return {layer: np.arange(np.prod(shape), dtype=np.float32).reshape(shape)}


NEW, NEW_ALONE, OLD = numbers("new", 1), numbers("new", 2), numbers("old", 1)


def place(path: Any, directory: int) -> Path:
    """Whole path of what an audit event names, which may be relative to an open folder."""
    base = f"/proc/self/fd/{directory}" if directory >= 0 else "."
    return Path(os.path.realpath(base), os.fsdecode(path))


def changes(event: str, arguments: tuple[Any, ...]) -> Path | None:
    """File or folder that this audit event is about to change; None when it changes nothing."""
    match event, arguments:
        case "os.mkdir", (path, _, directory) if not (where := place(path, directory)).exists():
            return where
        case (("os.remove" | "os.rmdir"), (path, directory)) if (where := place(path, directory)).exists():
            return where
        case (("os.rename" | "os.link"), (_, path, _, directory)):
            return place(path, directory)
    return None


def kill_before(change: int, folder: Path) -> None:
    """From now on, kill this process when ``change`` changes below ``folder`` are done and the next begins."""
    done = count()

    def hook(event: str, arguments: tuple[Any, ...]) -> None:
        where = changes(event, arguments)
        if where is not None and where.is_relative_to(folder) and next(done) == change:
            os.kill(os.getpid(), signal.SIGKILL)

    sys.addaudithook(hook)


def attempts(folder: Path, old: Path | None) -> Iterator[bool]:
    """Whether the writer was killed at its 1st, 2nd, … change."""
    for change in count():
        own = folder / str(change)
        if old is not None:
            shutil.copytree(old, own / "lab.zarr")
        own.mkdir(exist_ok=True)
        child = os.fork()
        if not child:
            os.fsync = lambda _: None  # a kill is no power cut
            kill_before(change, own)
            stores.write_run(own / "lab.zarr", NEW_ALONE if old is None else NEW, replace=True)
            os._exit(0)
        _, status = os.waitpid(child, 0)
        killed = os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGKILL
        assert killed or status == 0, f"the writer failed at change {change}"
        yield killed
        if not killed:
            return


if __name__ == "__main__":
    assert len(list(attempts(Path(sys.argv[1]).resolve(), Path(sys.argv[2]) if len(sys.argv) > 2 else None))) > 1
