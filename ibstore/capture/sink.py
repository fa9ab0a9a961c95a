"""The background thread's end of a recorder: what arrives becomes segments of a run.

An epoch of more than half of `SEGMENT_BYTES` is a segment of its own and is written while it arrives. Smaller ones
are gathered until a segment is full or `SECONDS` have passed, so that a tiny network's thousands of epochs are
few files; what is gathered is committed at the end. Many runs at once have smaller segments: together they hold
`GATHERED` bytes at most.
"""

import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Final
from weakref import WeakSet

from ibstore.capture.layers import Batch
from ibstore.capture.state import State
from ibstore.errors import StoreError
from ibstore.store import RunWriter, SegmentWriter
from ibstore.store.format.layout import epochs_per_segment
from ibstore.store.format.schema import Dynamics, Metrics

GATHERED: Final = 512 << 20
"""Bytes that all sinks of a process gather."""

SECONDS: Final = 30.0
"""What a kill may cost of a network whose epochs are gathered."""


_open: Final["WeakSet[EpochSink]"] = WeakSet()
"""Sinks that gather."""


@dataclass
class _Epoch:
    """An epoch in memory."""

    number: int
    batches: list[tuple[str, Batch]] = field(default_factory=list)
    step: int | None = None
    metrics: Metrics = field(default_factory=dict)
    dynamics: Dynamics = field(default_factory=dict)


class EpochSink:
    """Writes the epochs of a run: `begin`, then `append` for each batch of each split, then `commit`.

    An epoch that is begun and not committed is discarded when the next one begins or the sink is closed.

    Parameters
    ----------
    writer
        Writer of the run; the sink closes it.
    epoch_bytes
        Bytes of an epoch's activations, of all splits together.
    seconds
        After which gathered epochs are written.
    clock
        Tells the seconds.
    """

    def __init__(
        self,
        writer: RunWriter,
        epoch_bytes: int,
        seconds: float = SECONDS,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._writer = writer
        self._epoch_bytes, self._capacity = epoch_bytes, epochs_per_segment(epoch_bytes)
        self._seconds, self._clock = seconds, clock
        self._segment: SegmentWriter | None = None
        self._epoch: _Epoch | None = None
        self._gathered: list[_Epoch] = []
        self._since = 0.0
        self._state: State | None = None
        _open.add(self)

    def begin(self, epoch: int) -> None:
        """Expect the batches of ``epoch``."""
        self._discard()
        self._epoch = _Epoch(epoch)
        if self._capacity == 1:
            self._segment = self._writer.segment(epoch)

    def append(self, split: str, batch: Batch) -> None:
        """Take the next batch of a split."""
        if self._segment is None:
            self._opened().batches.append((split, batch))
            self.flush_when_due()
        else:
            _write(self._segment, split, batch)

    def commit(self, step: int | None, metrics: Metrics, dynamics: Dynamics, state: State | None = None) -> None:
        """Make the epoch exist, with the state of its training; at once, or together with others."""
        epoch, self._epoch = self._opened(), None
        epoch.step, epoch.metrics, epoch.dynamics, self._state = step, metrics, dynamics, state
        if not self._gathered:
            self._since = self._clock()
        self._gathered.append(epoch)
        self.flush_when_due()

    def flush_when_due(self) -> None:
        """Commit what is gathered when it fills a segment or has waited long enough."""
        share = GATHERED // max(1, len(_open)) // max(1, self._epoch_bytes)
        full = len(self._gathered) >= min(self._capacity, max(1, share))
        if self._gathered and (full or self._clock() - self._since >= self._seconds):
            self.flush()

    def flush(self) -> None:
        """Commit what is gathered."""
        if not self._gathered:
            return
        epochs, self._gathered = self._gathered, []
        self._segment = self._segment or self._writer.segment(*[epoch.number for epoch in epochs])
        for epoch in epochs:
            for split, batch in epoch.batches:
                _write(self._segment, split, batch)
        last = epochs[-1].number
        if self._state is not None:
            self._writer.states.put(last, self._state.dump())
        self._segment.commit(
            [epoch.step for epoch in epochs],
            [epoch.metrics for epoch in epochs],
            [epoch.dynamics for epoch in epochs],
        )
        self._segment = None
        if self._state is not None:
            self._writer.states.drop(keep=last)

    def close(self) -> None:
        """Commit what is gathered, discard what is unfinished and let the run go."""
        try:
            self.flush()
        finally:
            with suppress(StoreError):  # the next writer sweeps it; an error of the writing says more
                self._discard()
            _open.discard(self)
            self._writer.close()

    def complete(self) -> None:
        """Commit what is gathered; nobody will go on with the run."""
        self.flush()
        self._writer.states.drop()

    def _opened(self) -> _Epoch:
        if self._epoch is None:
            raise StoreError("no epoch was begun; begin one first")
        return self._epoch

    def _discard(self) -> None:
        self._epoch = None
        if self._segment is not None:
            segment, self._segment = self._segment, None
            segment.discard()


def _write(segment: SegmentWriter, split: str, batch: Batch) -> None:
    for layer, rows in batch.items():
        segment.append(split, layer, rows)
