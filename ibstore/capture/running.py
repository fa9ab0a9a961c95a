"""Which samples of a probe set a network is running: what draws random numbers for a sample can name it.

A pass over a probe set says so (`ibstore.capture.forward`); elsewhere nobody does.
"""

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field

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


@dataclass(frozen=True, slots=True, eq=False)
class Pass:
    """One forward pass: of which samples, and how often each module, by its identity, was called in it so far."""

    samples: Named
    calls: Counter[int] = field(default_factory=Counter)


_now: ContextVar[Pass | None] = ContextVar("now", default=None)
_looks: ContextVar[int] = ContextVar("looks", default=0)


def samples_now(rows: int) -> tuple[Named, NDArray[np.int64]]:
    """Sample of each of so many rows, and the row's number among those of its sample.

    A network that has folded another dimension into the batch has several rows a sample, one after another. Where
    nobody has said which samples are run, rows are samples called 0, 1, 2, ….
    """
    now = _now.get()
    samples = None if now is None else now.samples
    if samples is None or not len(samples.ids) or rows % len(samples.ids):
        return Named("", np.arange(rows)), np.zeros(rows, np.int64)
    each = rows // len(samples.ids)
    return Named(samples.split, samples.ids.repeat(each)), np.tile(np.arange(each), len(samples.ids))


def call_now(module: object) -> int:
    """How often a module was called in this pass before; 0 where nobody has said that there is one."""
    now = _now.get()
    if now is None:
        return 0
    now.calls[id(module)] += 1
    return now.calls[id(module)] - 1


@contextmanager
def running(samples: Named) -> Iterator[None]:
    """Say that these are run, in one forward pass, while the context lasts.

    >>> with running(Named("train", np.array([7, 3]))):
    ...     named, number = samples_now(4)
    >>> named.ids.tolist(), number.tolist()
    ([7, 7, 3, 3], [0, 1, 0, 1])
    """
    token = _now.set(Pass(samples))
    try:
        yield
    finally:
        _now.reset(token)


@contextmanager
def looking() -> Iterator[None]:
    """Say that passes are not those of whoever began to listen before, while the context lasts."""
    token = _looks.set(_looks.get() + 1)
    try:
        yield
    finally:
        _looks.reset(token)


def looks() -> int:
    """How many such contexts there are."""
    return _looks.get()
