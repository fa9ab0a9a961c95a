"""Activations on their way from the network's device to the host, without making either wait for the other.

A copy is taken in the order of the device's own work, so it is of the instant at which the layer spoke; the host reads
a batch only when its copies have arrived, which it asks after the next batch was begun.
"""

from collections.abc import Callable, Iterable, Iterator
from typing import TypeVar

import torch

Wait = Callable[[], None]
"""Returns when the host may read."""

Item = TypeVar("Item")


def one_behind(made: Iterable[Item]) -> Iterator[Item]:
    """Hand out each item when the one after it has been made.

    >>> def made():
    ...     for number in range(3):
    ...         print("made", number)
    ...         yield number
    >>> for number in one_behind(made()):
    ...     print("read", number)
    made 0
    made 1
    read 0
    made 2
    read 1
    read 2
    """
    waiting: list[Item] = []
    for item in made:
        waiting.append(item)
        if len(waiting) > 1:
            yield waiting.pop(0)
    yield from waiting


class Transfer:
    """Copies of one batch's activations.

    On CUDA they are one more thing that the device does in its current stream, into pinned memory, which torch uses
    again when nobody holds the copy any more. Elsewhere they are made at once.
    """

    def __init__(self) -> None:
        self._streams: set[torch.cuda.Stream] = set()

    def copy(self, tensor: torch.Tensor) -> torch.Tensor:
        """Copy on the host of what ``tensor`` is now; not to be read before what `sent` gives has returned."""
        tensor = tensor.detach()
        if not tensor.is_cuda:
            return tensor.to("cpu", copy=True)
        self._streams.add(torch.cuda.current_stream(tensor.device))
        pinned = torch.empty_like(tensor, device="cpu", pin_memory=True)
        return pinned.copy_(tensor, non_blocking=True)

    def copied(self, number: torch.Tensor | float) -> torch.Tensor | float:
        """A number, copied where it is a tensor."""
        return self.copy(number) if isinstance(number, torch.Tensor) else number

    def sent(self) -> Wait:
        """Say that all copies were asked for."""
        events = [stream.record_event() for stream in self._streams]

        def wait() -> None:
            for event in events:
                event.synchronize()

        return wait
