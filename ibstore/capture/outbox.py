"""The writing end of a recorder: a run that is open, and a thread of its own that writes what it is handed."""

import atexit
from functools import partial

from psutil import virtual_memory

from ibstore.capture.background import BackgroundWriter, queue_length
from ibstore.capture.layers import Batch
from ibstore.capture.sink import EpochSink
from ibstore.capture.state import State
from ibstore.capture.termination import forget_sigterm, leave_on_sigterm, sigterm_waits
from ibstore.store import RunWriter
from ibstore.store.format.schema import Dynamics, Metrics


class Outbox:
    """Hands epochs to the thread that writes them: `begin`, then `append` for each batch, then `commit`.

    Each of them raises what the writing of an earlier one has raised.

    Parameters
    ----------
    writer
        Of the run; it is closed with the outbox.
    epoch_bytes
        Bytes of an epoch's activations.
    batch_bytes
        Bytes of a batch's, at most.
    """

    def __init__(self, writer: RunWriter, epoch_bytes: int, batch_bytes: int) -> None:
        self._sink = EpochSink(writer, epoch_bytes)
        length = queue_length(batch_bytes, virtual_memory().available)
        self._background = BackgroundWriter(length, self._sink.flush_when_due, self._sink.close)
        self._closed = False
        leave_on_sigterm()
        atexit.register(self.close)

    def begin(self, epoch: int) -> None:
        """Expect the batches of ``epoch``; one that was begun and not committed is forgotten."""
        self._background.put(partial(self._sink.begin, epoch))

    def append(self, split: str, batch: Batch) -> None:
        """Hand over the next batch of a split; wait while too many are under way."""
        self._background.put(partial(self._sink.append, split, batch))

    def commit(self, step: int | None, metrics: Metrics, dynamics: Dynamics, state: State | None) -> None:
        """Make the epoch exist, once all is written."""
        self._background.put(partial(self._sink.commit, step, metrics, dynamics, state))

    def complete(self) -> None:
        """Say that nobody will go on with the run."""
        self._background.put(self._sink.complete)

    def close(self) -> None:
        """Wait until all is written, and let the run go; it can be called twice."""
        begun, self._closed = self._closed, True
        with sigterm_waits():
            try:
                self._background.close()
            finally:
                if not begun:
                    atexit.unregister(self.close)
                    forget_sigterm()
