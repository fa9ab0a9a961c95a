"""The loop: one network, or many of one kind at once, on their way through their steps."""

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from typing import Final

import torch
from torch import nn

from ibstore.capture.datasets import Samples
from ibstore.capture.dropout import Lagrangian, listening
from ibstore.capture.dropout.statistics import settled
from ibstore.capture.forward import ProbePass, batches, evaluating
from ibstore.capture.inputs import Inputs
from ibstore.capture.metrics import Means
from ibstore.capture.running import Named
from ibstore.capture.training.networks import Networks
from ibstore.capture.training.objectives import Objective

STATISTICS: Final = 10_000
STATISTICS_BATCH: Final = 500
"""Samples from which batch normalization learns its statistics again, the first of those that are trained on."""


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
    lagrangian
        What the loss adds for stochastic layers; None where there are none.
    """

    def __init__(
        self,
        networks: Networks,
        objective: Objective,
        samples: Samples,
        device: torch.device,
        seen: Callable[[], None],
        lagrangian: Lagrangian | None = None,
    ) -> None:
        self.step = 0
        self._networks, self._objective, self._seen, self._lagrangian = networks, objective, seen, lagrangian
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
        module = self._networks.module
        with listening(module, self._lagrangian) as heard:
            output = module(self._x[rows])
        losses = self._objective.losses(output.reshape(-1, *output.shape[rows.ndim :]), self._y[rows].reshape(-1))
        loss = losses.reshape(rows.shape).mean(-1).sum()
        return loss if self._lagrangian is None else loss + self._lagrangian(heard, len(rows))

    def settled(self, network: nn.Module) -> AbstractContextManager[None]:
        """Let a network whose statistics were gathered with noise have those without it while the context lasts."""
        rows = batches(min(len(self._x), STATISTICS), STATISTICS_BATCH)
        return settled(network, (self._x[each] for each in rows))


def measured(
    network: nn.Module, objective: Objective, split: str, samples: Samples, batch: int, device: torch.device
) -> dict[str, float]:
    """Mean loss and accuracy of a network over the samples of a split, in eval mode."""
    means, labels, named = Means(), torch.from_numpy(samples.y), Named(split, samples.sample)
    one = ProbePass(network, Inputs.of(samples.x), batch, device, labels, objective.measure, named)
    with evaluating(network):
        for spoken in one.spoken([], one.batches()):
            means.add(spoken.measured, spoken.samples)
    return means.result()
