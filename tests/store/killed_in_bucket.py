"""Write runs into a bucket, killed before one change after another: an object put, or one removed.

``python -m tests.store.killed_in_bucket URL CHANGE …`` leaves ``URL/CHANGE`` for each change, as a SIGKILL at that
instant does; the bucket's address and keys come from the environment. A process of its own, because it forks: that is
safe while no request has been made.
"""

import os
import signal
import sys
from collections.abc import Callable
from itertools import count
from typing import Any

import zarr  # noqa: F401  (once, not once a fork)

from ibstore.store.format import arrays  # noqa: F401
from ibstore.store.places.bucket import Bucket

from . import stores

VALUES = stores.layers(epochs=2)


def killing(function: Callable[..., Any], change: int, done: "count[int]") -> Callable[..., Any]:
    """Stand-in for ``function`` that kills this process instead of making the change of that number."""

    def counted(*arguments: Any) -> Any:
        if next(done) == change:
            os.kill(os.getpid(), signal.SIGKILL)
        return function(*arguments)

    return counted


def write(url: str, change: int) -> int:
    """Write both epochs in a process of its own, and return how it ended."""
    child = os.fork()
    if not child:
        done = count()
        for name in ("_put", "remove"):
            setattr(Bucket, name, killing(getattr(Bucket, name), change, done))
        stores.write_run(url, VALUES)
        os._exit(0)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


if __name__ == "__main__":
    for change in map(int, sys.argv[2:]):
        ended = write(f"{sys.argv[1]}/{change}", change)
        assert ended in {0, -signal.SIGKILL}, f"the writer failed at change {change}"
        print(change, ended, flush=True)  # noqa: T201
