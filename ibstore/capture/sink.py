"""The background thread's end of a recorder: what arrives becomes segments of a run."""

import contextlib
from collections.abc import Mapping
from typing import Any

from numpy.typing import NDArray

from ibstore.store.schema import Metrics
from ibstore.store.writer import RunWriter, SegmentWriter


class EpochSink:
    """Writes the epochs of one split of a run: `begin`, then `append` for each batch, then `commit`.

    An epoch that is begun and not committed is discarded when the next one begins or the sink is closed.

    Parameters
    ----------
    writer
        Writer of the run; the sink closes it.
    split
        Name of the split.
    """

    def __init__(self, writer: RunWriter, split: str) -> None:
        self._writer = writer
        self._split = split
        self._segment: SegmentWriter | None = None

    def begin(self, epoch: int) -> None:
        """Open the segment of ``epoch``."""
        self._discard()
        self._segment = self._writer.segment(epoch)

    def append(self, batch: Mapping[str, NDArray[Any]]) -> None:
        """Take a batch: activations (sample, …) by layer name."""
        for layer, rows in batch.items():
            self._opened().append(self._split, layer, rows)

    def commit(self, step: int | None, metrics: Metrics) -> None:
        """Make the epoch exist."""
        self._opened().commit(step, metrics)
        self._segment = None

    def close(self) -> None:
        """Discard what is unfinished and let the run go."""
        try:
            with contextlib.suppress(OSError):  # the next writer sweeps it; an error of the writing says more
                self._discard()
        finally:
            self._writer.close()

    def _opened(self) -> SegmentWriter:
        if self._segment is None:
            raise RuntimeError("no epoch is open")
        return self._segment

    def _discard(self) -> None:
        if self._segment is not None:
            segment, self._segment = self._segment, None
            segment.discard()
