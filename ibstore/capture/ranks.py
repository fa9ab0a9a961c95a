"""Processes that train one network together: which of them records, and how they share a probe set.

By default rank 0 records, and nothing is exchanged. With shards, batch i of the probe set is run by rank i mod W, and
rank 0 writes what all of them have found, in order: the same store as one process makes of the same batches.

Whatever one rank raises, all of them raise: nobody waits for it. A rank that dies closes its connections, which the
others find out at once; one that hangs is given up after `PATIENCE`.
"""

import zlib
from collections.abc import Generator, Iterable, Iterator, Sequence, Sized
from contextlib import contextmanager
from datetime import timedelta
from typing import Any, Final, Literal, TypeVar, get_args

import torch
from torch import distributed, nn

from ibstore.errors import CaptureError, UsageError

T = TypeVar("T")
Mode = Literal["first", "shards"]

PATIENCE: Final = timedelta(minutes=30)
"""How long a rank waits for another one, as torch's collectives do."""

_BITS: Final = {1: torch.uint8, 2: torch.int16, 4: torch.int32, 8: torch.int64}


def rank() -> int:
    """Number of this process among those of `torch.distributed`; 0 where there are no others."""
    return distributed.get_rank() if _distributed() else 0


def world_size() -> int:
    """Processes of `torch.distributed`; 1 where there are no others."""
    return distributed.get_world_size() if _distributed() else 1


class Ranks:
    """What this process does of a recording.

    Parameters
    ----------
    mode
        ``first``: rank 0 records, the others do nothing, and nothing is exchanged unless `agreed` is called.
        ``shards``: all run their share of the batches. Every process has to make this object, and to call its methods
        in the same order.

    Raises
    ------
    UsageError
        When there is no such mode, or torch cannot exchange objects here.

    Examples
    --------
    >>> ranks = Ranks("shards")  # in a single process all of it is this one's
    >>> list(ranks.merged((batch * 10 for batch in ranks.mine([1, 2, 3])), 3))
    [10, 20, 30]
    """

    def __init__(self, mode: Mode = "first") -> None:
        if mode not in get_args(Mode):
            raise UsageError(f"ranks is {mode!r}; give 'first' (rank 0 records) or 'shards' (each runs its share)")
        self.rank, self.size = rank(), world_size()
        self._shared = mode == "shards" and self.size > 1
        self._group: Any = None
        if self._shared:
            if not distributed.is_gloo_available():
                raise UsageError("ranks='shards' needs a torch that was built with gloo; record with ranks='first'")
            # a group of its own, on the CPU: the training's collectives are under way in theirs
            self._group = distributed.new_group(backend="gloo", timeout=PATIENCE)

    @property
    def writes(self) -> bool:
        """Whether this process holds the store."""
        return self.rank == 0

    @property
    def works(self) -> bool:
        """Whether this process runs the network at all."""
        return self.writes or self._shared

    def mine(self, batches: Sequence[T]) -> Sequence[T]:
        """Those of the batches that this process runs, in order."""
        return batches[self.rank :: self.size] if self._shared else batches

    def merged(self, own: Iterable[T], total: int) -> Generator[T, None, None]:
        """What all ranks made of their batches, in the batches' order, on rank 0; nothing elsewhere.

        It has to be used up on every rank, and closed where it is left before (`contextlib.closing`).

        Parameters
        ----------
        own
            What this process makes of each of `mine`, made when it is asked for.
        total
            Batches of all.

        Raises
        ------
        CaptureError
            When another rank could not make its own; beside what ``own`` raises.
        """
        if not self._shared:
            yield from own
            return
        results = iter(own)
        for start in range(0, total, self.size):
            with self.together():
                result = next(results) if start + self.rank < total else None
            gathered = self._gather(result)
            try:
                yield from gathered[: total - start]
            except GeneratorExit:  # what this process does with them has failed
                self._exchange("it could not go on with what was recorded")
                raise
        with self.together():
            pass

    @contextmanager
    def together(self) -> Iterator[None]:
        """Wait at the end until all ranks have come there; what is raised inside on one of them all of them raise.

        Raises
        ------
        CaptureError
            When another rank has failed; its own error is raised as it is where it came up.
        """
        if not self._shared:
            yield
            return
        try:
            yield
        except Exception as error:
            self._exchange(f"{type(error).__name__}: {error}")
            raise
        self._raise_failures(self._exchange(None))

    def agreed(self, value: T) -> T:
        """Rank 0's value, on every rank, in both modes: every process has to call it."""
        if self.size == 1:
            return value
        values: list[Any] = [value if self.writes else None]
        try:
            distributed.broadcast_object_list(values, src=0, group=self._group)
        except RuntimeError as error:
            raise _lost(error) from error
        agreed: T = values[0]
        return agreed

    def shared(self, value: T) -> T:
        """Rank 0's value on every rank that works."""
        return self.agreed(value) if self._shared else value

    def check_resume(self, resume: bool, keep: Sized) -> None:
        """Raise `UsageError` where a state would be restored that is rank 0's alone."""
        if resume and len(keep) and self.size > 1:
            raise UsageError(
                "resume with keep restores networks, optimizers and random numbers on rank 0 alone; leave keep out, "
                "and restore them on every rank from a checkpoint of your own"
            )

    def check_same(self, what: str, value: object) -> None:
        """Return when all ranks have the same value of ``what``, such as "the probe set".

        Raises
        ------
        CaptureError
            On every rank, when they differ.
        """
        if not self._shared:
            return
        found = self._exchange(value)
        other = next((number for number, each in enumerate(found) if each != found[0]), None)
        if other is not None:
            raise CaptureError(
                f"{what} of rank {other} is not that of rank 0, so that their recordings do not belong together; let "
                "all have the same, or record with ranks='first'"
            )

    @contextmanager
    def same_network(self, model: nn.Module) -> Iterator[None]:
        """While the context lasts, rank 0's buffers are in every rank's network, whose parameters must be the same.

        Under DistributedDataParallel parameters are; buffers, such as the running statistics of batch norm, are not.

        Raises
        ------
        CaptureError
            On every rank, when parameters differ.
        """
        if not self._shared:
            yield
            return
        self.check_same("the network", fingerprint(model))
        buffers = dict(model.named_buffers())
        own = {name: buffer.clone() for name, buffer in buffers.items()}
        _fill(buffers, self.agreed({name: buffer.cpu() for name, buffer in own.items()}))
        try:
            yield
        finally:
            _fill(buffers, own)

    def close(self) -> None:
        """Let the processes' own group go; it can be called twice."""
        group, self._group = self._group, None
        if group is not None and _distributed():
            distributed.destroy_process_group(group)

    def _gather(self, value: T | None) -> list[Any]:
        """Values of all ranks on rank 0, nothing elsewhere."""
        values: list[Any] = [None] * self.size if self.writes else []
        try:
            distributed.gather_object(value, values or None, dst=0, group=self._group)
        except RuntimeError as error:
            raise _lost(error) from error
        return values

    def _exchange(self, value: object) -> list[Any]:
        """Values of all ranks, on all of them."""
        values: list[Any] = [None] * self.size
        try:
            distributed.all_gather_object(values, value, group=self._group)
        except RuntimeError as error:
            raise _lost(error) from error
        return values

    def _raise_failures(self, reports: Sequence[str | None]) -> None:
        for number, report in enumerate(reports):
            if report is not None:
                raise CaptureError(f"rank {number} could not record, and so no rank does: {report}")


def fingerprint(model: nn.Module) -> str:
    """Checksum of the parameters' bits, for a comparison between processes; no proof that they are the same."""
    sums = [_bits(parameter.detach()).sum(dtype=torch.int64).item() for parameter in model.parameters()]
    return f"{zlib.crc32(repr(sums).encode()):08x}"


def _bits(tensor: torch.Tensor) -> torch.Tensor:
    real = torch.view_as_real(tensor) if tensor.is_complex() else tensor
    return real.contiguous().view(_BITS[real.element_size()])


def _fill(buffers: dict[str, torch.Tensor], values: dict[str, torch.Tensor]) -> None:
    with torch.no_grad():
        for name, buffer in buffers.items():
            buffer.copy_(values[name])


def _distributed() -> bool:
    return distributed.is_available() and distributed.is_initialized()


def _lost(error: RuntimeError) -> CaptureError:
    reason = str(error).partition("\n")[0]
    return CaptureError(
        f"another rank has died, or did not answer within {PATIENCE} ({reason}); look at what it said, and resume"
    )
