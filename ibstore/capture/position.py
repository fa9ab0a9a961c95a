"""Which samples of a probe set a network is running: what draws random numbers for a sample can name it.

A pass over a probe set says so (`ibstore.capture.forward`); elsewhere nobody does, and samples count from 0.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

_first: ContextVar[int] = ContextVar("first", default=0)


def first_sample() -> int:
    """Position of the batch's first sample in its probe set."""
    return _first.get()


@contextmanager
def samples_from(position: int) -> Iterator[None]:
    """Say that the batch begins there while the context lasts.

    >>> with samples_from(500):
    ...     first_sample()
    500
    """
    token = _first.set(position)
    try:
        yield
    finally:
        _first.reset(token)
