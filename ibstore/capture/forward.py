"""The forward pass of a probe set: fixed order, eval mode, no gradients, nothing left behind."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from ibstore.errors import CaptureError


@dataclass(frozen=True, slots=True)
class ProbePass:
    """Runs a probe set through a network, batch by batch.

    Parameters
    ----------
    model
        The network.
    x
        Its inputs, (sample, …), on the CPU; they must stay as they are.
    batch_size
        Samples in a batch; the last one has what is left.
    device
        Where the network is.
    """

    model: nn.Module
    x: torch.Tensor
    batch_size: int
    device: torch.device

    def batches(self) -> list[slice]:
        """Rows of each batch, in order."""
        return batches(len(self.x), self.batch_size)

    def run(self, rows: slice) -> Any:
        """What the network puts out for these rows."""
        return self.model(self.x[rows].to(self.device))

    def try_first(self) -> Any:
        """Run the first batch.

        Raises
        ------
        CaptureError
            When the network cannot take it.
        """
        try:
            return self.run(self.batches()[0])
        except CaptureError:
            raise
        except Exception as error:
            shape = tuple(self.x[: self.batch_size].shape)
            raise CaptureError(
                f"the network fails on the first batch of x, {shape} {self.x.dtype} on {self.device} "
                f"({type(error).__name__}: {error}); give x as the network takes it"
            ) from error


def batches(samples: int, size: int) -> list[slice]:
    """Rows of each batch, in order; the last one has what is left.

    >>> batches(5, 2)
    [slice(0, 2, None), slice(2, 4, None), slice(4, 5, None)]
    """
    return [slice(start, min(start + size, samples)) for start in range(0, samples, size)]


def device_of(model: nn.Module) -> torch.device:
    """Device of the network's first parameter; the CPU where it has none."""
    return next((parameter.device for parameter in model.parameters()), torch.device("cpu"))


@contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """Eval mode without gradients; each module's own mode and the random numbers come back as they were."""
    modes = [(module, module.training) for module in model.modules()]
    # no_grad, not inference_mode: what a network caches in its forward pass must stay fit for training
    with _random_state_kept(model), torch.no_grad():
        try:
            model.eval()
            yield
        finally:
            for module, training in modes:
                module.training = training


@contextmanager
def _random_state_kept(model: nn.Module) -> Iterator[None]:
    """Put back the random state of the CPU and of the devices that the network is on.

    On Apple's mps, whose state torch cannot fork, the CPU's alone.
    """
    on = {parameter.device for parameter in model.parameters() if parameter.device.type not in ("cpu", "mps", "meta")}
    kind = min((device.type for device in on), default="cuda")
    indices = sorted(device.index or 0 for device in on if device.type == kind)
    with torch.random.fork_rng(indices, device_type=kind):
        yield
