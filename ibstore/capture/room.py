"""Whether there is room for a run: told before it begins."""

from collections.abc import Mapping

from ibstore.capture.layers import Batch
from ibstore.errors import CaptureError
from ibstore.store import Encoding, ProbeSet
from ibstore.store.estimate import Estimate, stored_bytes
from ibstore.store.format.names import escape
from ibstore.store.places import RECORD, Storage
from ibstore.store.reader import segments_of


def estimate(
    storage: Storage,
    first: Mapping[str, Batch],
    probes: Mapping[str, ProbeSet],
    encoding: Encoding,
    epochs: int | None,
) -> Estimate:
    """What a run will take whose layers put out ``first`` for the first samples of each split."""
    new = {probe.digest(): probe for probe in probes.values()}
    once = [probe for digest, probe in new.items() if not storage.has(f"data/{digest}/{RECORD}")]
    layers = [(rows, len(probes[split].x)) for split, batch in first.items() for rows in batch.values()]
    return Estimate(
        epoch_raw=sum(rows[:1].nbytes * samples for rows, samples in layers),
        epoch_stored=sum(stored_bytes(rows, samples, encoding) for rows, samples in layers),
        once=sum(stored_bytes(probe.x, len(probe.x), Encoding()) for probe in once),
        epochs=epochs,
        free=storage.free_bytes(),
    )


def epochs_to_come(storage: Storage, run: str, planned: int | None) -> int | None:
    """Planned epochs that a run to be resumed does not have yet."""
    if planned is None:
        return None
    committed = sum(len(segment.record.epochs) for segment in segments_of(storage, f"runs/{escape(run)}"))
    return max(0, planned - committed)


def check(run: str, storage: Storage, expected: Estimate, *, resume: bool = False) -> None:
    """Return when there is room.

    Raises
    ------
    CaptureError
        When there is not.
    """
    if expected.fits:
        return
    remedy = (
        "free space, record fewer layers or epochs, round with dtype='float16' (--dtype), or try all the same with "
        "force=True (--force)"
    )
    if resume:  # with other settings it would be another run
        remedy = "free space and resume it again, or go on all the same with force=True (--force)"
    raise CaptureError(f"run {run!r} does not fit into {storage.location}: {expected}; {remedy}")
