"""The loop: one network, or many of one kind at once, on their way through their steps."""

from collections.abc import Callable, Mapping

import torch
from torch import nn

from ibstore.capture.datasets import Samples
from ibstore.capture.forward import ProbePass, evaluating
from ibstore.capture.inputs import Inputs
from ibstore.capture.metrics import Means
from ibstore.capture.training.networks import Networks
from ibstore.capture.training.objectives import Objective


class Trainer:
    """Takes steps, each of one batch a network.

    Parameters
    ----------
    networks
        What is trained.
    objective
        What is minimized: of many networks the sum of each one's mean, so that each has the gradients that are its own.
    samples
        What is trained on; it is held on ``device``.
    device
        Where it trains.
    seen
        Called when the gradients of a step are there.
    """

    def __init__(
        self,
        networks: Networks,
        objective: Objective,
        samples: Samples,
        device: torch.device,
        seen: Callable[[], None],
    ) -> None:
        self.step = 0
        self._networks, self._objective, self._seen = networks, objective, seen
        self._x, self._y = (torch.from_numpy(array).to(device) for array in (samples.x, samples.y))
        networks.module.train()

    def train_step(self) -> None:
        """Take one step."""
        self._networks.optimizer.zero_grad()
        self._loss(self._networks.draw().to(self._x.device)).backward()  # type: ignore[no-untyped-call]
        self._seen()
        self._networks.optimizer.step()
        self.step += 1

    def state_dict(self) -> dict[str, int]:
        """What it counts itself."""
        return {"step": self.step}

    def load_state_dict(self, state: Mapping[str, int]) -> None:
        """Go on from there."""
        self.step = state["step"]

    def _loss(self, rows: torch.Tensor) -> torch.Tensor:
        """Loss of a batch, rows (batch,), or the sum over networks of theirs, rows (R, batch)."""
        output = self._networks.module(self._x[rows])
        losses = self._objective.losses(output.reshape(-1, *output.shape[rows.ndim :]), self._y[rows].reshape(-1))
        return losses.reshape(rows.shape).mean(-1).sum()


def measured(
    network: nn.Module, objective: Objective, samples: Samples, batch: int, device: torch.device
) -> dict[str, float]:
    """Mean loss and accuracy of a network over samples, in eval mode."""
    means, labels = Means(), torch.from_numpy(samples.y)
    one = ProbePass(network, Inputs.of(samples.x), batch, device, labels, objective.measure)
    with evaluating(network):
        for spoken in one.spoken([], one.batches()):
            means.add(spoken.measured, spoken.samples)
    return means.result()
