"""One at a time in a worker's process, however many threads it has."""

from collections.abc import Iterator
from contextlib import contextmanager
from threading import Lock
from typing import Final

from distributed import Reschedule

SECONDS: Final = 2.0
"""How long a free moment is waited for before the scheduler may find another worker."""

_FREE: Final = Lock()


@contextmanager
def alone() -> Iterator[None]:
    """Keep others of the process out who ask for the same: torch has one source of random numbers in it, and one GPU.

    Raises
    ------
    Reschedule
        When somebody else is at it: Dask hands the work out again, to an idle worker where there is one.
    """
    if not _FREE.acquire(timeout=SECONDS):
        raise Reschedule
    try:
        yield
    finally:
        _FREE.release()
