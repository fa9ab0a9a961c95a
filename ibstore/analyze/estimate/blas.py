"""BLAS with one thread: its own threads would wait for ours, and how it cuts sums among them shows in the last bits."""

from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from threading import Lock
from typing import Any, Final

_ALONE: Final = Lock()
"""The number of threads is the process's: two who set it would undo each other."""


@contextmanager
def one_blas_thread() -> Iterator[None]:
    """Give BLAS one thread as long as this lasts; who else wants that waits."""
    with _ALONE, library().limit(limits=1):
        yield


@lru_cache
def library() -> Any:
    """What sets the number of BLAS's threads; to look for its library takes as long as a small layer."""
    from threadpoolctl import ThreadpoolController

    return ThreadpoolController().select(user_api="blas")
