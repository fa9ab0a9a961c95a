"""Which samples of a probe set a network is running: what draws random numbers for a sample can name it.

A pass over a probe set says so (`ibstore.capture.forward`); elsewhere nobody does.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, slots=True, eq=False)
class Named:
    """Samples by their names.

    Parameters
    ----------
    split
        Whose they are.
    ids
        Sample ids, (sample,) int64.
    """

    split: str
    ids: NDArray[np.int64]

    def rows(self, rows: slice) -> "Named":
        """Some of them."""
        return Named(self.split, self.ids[rows])


_now: ContextVar[Named | None] = ContextVar("now", default=None)


def samples_now(count: int) -> Named:
    """Samples of the batch that is run: ``count`` of them, called 0, 1, 2, … where nobody has said which.

    The same where a network has made something else than a row a sample of them.
    """
    now = _now.get()
    return now if now is not None and len(now.ids) == count else Named("", np.arange(count))


@contextmanager
def running(samples: Named) -> Iterator[None]:
    """Say that these are run while the context lasts.

    >>> with running(Named("train", np.array([7, 3]))):
    ...     samples_now(2).ids.tolist()
    [7, 3]
    """
    token = _now.set(samples)
    try:
        yield
    finally:
        _now.reset(token)
