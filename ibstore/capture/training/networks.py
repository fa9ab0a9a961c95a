"""What is trained: one network, or many of one kind at once, behind one face.

Whoever trains sees ``module``, ``optimizer`` and `draw`; whoever records asks for the `plain` network of a run, and for
what is `kept` of it.
"""

from collections.abc import Callable, Mapping, Sequence
from copy import deepcopy
from typing import Any, Protocol

import torch
from torch import nn

from ibstore.capture.training.ensemble import Replica, stack
from ibstore.capture.training.order import Order

MakeOptimizer = Callable[..., torch.optim.Optimizer]
"""From parameters to their optimizer."""


class Networks(Protocol):
    """What is trained together."""

    @property
    def module(self) -> nn.Module:
        """What is run: (batch, …) to (batch, …), or of many (R, batch, …) to (R, batch, …)."""

    @property
    def optimizer(self) -> torch.optim.Optimizer:
        """What trains it."""

    @property
    def parameters(self) -> Mapping[str, nn.Parameter]:
        """By their names in one network; of many, each is a stack of them all, (R, …)."""

    @property
    def replicas(self) -> int | None:
        """How many; None for one that is not stacked."""

    def draw(self) -> torch.Tensor:
        """Rows of the next batch: (batch,) of one network, (R, batch) of many."""

    @property
    def slow(self) -> str | None:
        """Why training them together is likely to take longer than one after another; None where it is not."""

    def plain(self, index: int) -> nn.Module:
        """The network of a run as it is now, to be looked at until the next is asked for."""

    def own(self, index: int) -> nn.Module:
        """The network of a run, which nobody changes any more when all is trained."""

    def kept(self, index: int) -> dict[str, Any]:
        """What it needs to go on, by name."""


class One:
    """A single network."""

    def __init__(self, model: nn.Module, order: Order, make_optimizer: MakeOptimizer) -> None:
        self.module, self._order = model, order
        self.replicas = self.slow = None
        self.parameters = dict(model.named_parameters())
        self.optimizer = make_optimizer(model.parameters())

    def draw(self) -> torch.Tensor:
        """Rows of the next batch, (batch,)."""
        return self._order.draw()

    def plain(self, index: int) -> nn.Module:  # noqa: ARG002  (there is one)
        """The network itself."""
        return self.module

    own = plain

    def kept(self, index: int) -> dict[str, Any]:  # noqa: ARG002
        """Network, optimizer and order."""
        return {"model": self.module, "optimizer": self.optimizer, "order": self._order}


class Many:
    """Networks of one kind, trained at once, each in an order of its own."""

    def __init__(self, models: Sequence[nn.Module], orders: Sequence[Order], make_optimizer: MakeOptimizer) -> None:
        self.module = stack(models)
        self._shown, self._orders, self.replicas = models[0], orders, len(models)
        self.parameters, self.slow = self.module.stacked, self.module.slow
        self.optimizer = make_optimizer(self.module.parameters())

    def draw(self) -> torch.Tensor:
        """Rows of each one's next batch, (R, batch)."""
        return torch.stack([order.draw() for order in self._orders])

    def plain(self, index: int) -> nn.Module:
        """One network for all, with the weights of the run that is asked for."""
        self.module.copy_to(index, self._shown)
        return self._shown

    def own(self, index: int) -> nn.Module:
        """A network of its own."""
        return deepcopy(self.plain(index))

    def kept(self, index: int) -> dict[str, Any]:
        """Its part of the ensemble and of the optimizer, and its order."""
        return {"replica": Replica(self.module, self.optimizer, index), "order": self._orders[index]}
