"""Gradients of minibatches under other definitions than "over the minibatches of an epoch", as variants of their own.

``fixed``: all minibatches at the same weights, those of the capture point. ``parallel``: the literature's definition.
As many identical networks as minibatches (the same first weights) are trained side by side, each on its own minibatch
alone, and statistics are over them at a capture point, each network's gradient at its own weights. Before training both
are the same.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from copy import deepcopy
from typing import Any, Final

import torch
from torch import nn
from torch.func import functional_call, grad, vmap

from ibstore.capture.dropout import Lagrangian, listening
from ibstore.capture.dynamics.columns import Columns, Owners
from ibstore.capture.dynamics.gradients import LayerQuantities, quantities, zero_moments
from ibstore.capture.forward import evaluating
from ibstore.errors import UsageError

Tensor = torch.Tensor
Batch = tuple[Tensor, Tensor]
"""Inputs (sample, …) and labels (sample, …)."""
Losses = Callable[[Tensor, Tensor], Tensor]
"""From a network's output and labels to the loss of each sample, (sample,); its mean is what is trained on."""

MakeOptimizer = Callable[[list[Tensor]], torch.optim.Optimizer]
"""From parameters to their optimizer."""
_GradientsOf = Callable[[dict[str, Tensor], Tensor, Tensor, Tensor], dict[str, Tensor]]

FIXED: Final = "fixed"
PARALLEL: Final = "parallel"

AT_ONCE: Final = 32
"""Networks that `ParallelMinibatches` holds activations and gradients of at one time."""


def fixed_minibatches(
    model: nn.Module,
    owners: Owners,
    batches: Iterable[Batch],
    losses: Losses,
    lagrangian: Lagrangian | None = None,
) -> LayerQuantities:
    """Gradient statistics over minibatches at the network's present weights, by layer: variant ``fixed``.

    The network runs in eval mode, as when it is recorded: no dropout, and batch norm by its running statistics. Its
    gradients, buffers, modes and the random numbers stay as they are.

    Parameters
    ----------
    model
        The network.
    owners
        Its parameters by layer, as `ibstore.capture.dynamics.owners` finds them.
    batches
        Minibatches, on the network's device.
    losses
        Loss of each sample.
    lagrangian
        What the loss adds for stochastic layers, which are without noise here; None where there are none.

    Returns
    -------
    LayerQuantities
        ``batches``, ``gradient_mean``, ``gradient_std`` and ``snr`` of each layer: see `Gradients.now`.
    """
    columns = Columns.of(owners)
    moments = zero_moments(columns)
    trained = [parameter for parameter in columns.parameters if parameter.requires_grad]
    with evaluating(model):
        for x, y in batches:
            with torch.enable_grad(), listening(model, lagrangian) as heard:
                loss = losses(model(x), y).mean()
                loss = loss if lagrangian is None else loss + lagrangian(heard, len(x))
                found = torch.autograd.grad(loss, trained, allow_unused=True)
            gradients = dict(zip(map(id, trained), found, strict=True))
            moments.add(columns.rows([gradients.get(id(parameter)) for parameter in columns.parameters]))
    return quantities(columns, moments)[0]


class ParallelMinibatches:
    """Identical networks, as many as minibatches, each trained on its own minibatch alone: variant ``parallel``.

    They are copies of ``model`` as it is now, trained in train mode and stacked, `AT_ONCE` of them at one time.

    Parameters
    ----------
    model
        The network; it is copied.
    owned
        Names of its parameters by layer, as `ibstore.capture.dynamics.owned_names` finds them.
    batches
        The minibatches, on the network's device; they may differ in size. They are copied.
    losses
        Loss of each sample, of operations that `torch.func.vmap` knows.
    make_optimizer
        From stacked parameters to their optimizer, which must work element by element, as SGD and Adam do.

    Raises
    ------
    UsageError
        When there are no minibatches, none of the parameters is trained, or the network cannot be trained on them in
        parallel.
    """

    def __init__(
        self,
        model: nn.Module,
        owned: Mapping[str, Sequence[str]],
        batches: Sequence[Batch],
        losses: Losses,
        make_optimizer: MakeOptimizer,
    ) -> None:
        if not batches:
            raise UsageError("there are no minibatches; give one a network")
        self._model = deepcopy(model).train()
        trained = {name: parameter for name, parameter in self._model.named_parameters() if parameter.requires_grad}
        self._owned = {layer: [name for name in names if name in trained] for layer, names in owned.items()}
        self._columns = Columns.of({layer: [trained[name] for name in own] for layer, own in self._owned.items()})
        self._gradients_of: _GradientsOf = vmap(grad(self._loss_by(losses)))
        starts = range(0, len(batches), AT_ONCE)
        self._stacks = [_Stack(trained, batches[start : start + AT_ONCE], make_optimizer) for start in starts]
        self._gradients(self._stacks[0])  # refuses what cannot be

    def epoch(self) -> None:
        """Let each network take one step: one pass over the data in all."""
        for stack in self._stacks:
            stack.step(self._gradients(stack))

    def read(self) -> LayerQuantities:
        """Gradient statistics over the networks, each at its own weights and minibatch, by layer.

        They are ``batches``, ``gradient_mean``, ``gradient_std`` and ``snr``: see `Gradients.now`.
        """
        moments = zero_moments(self._columns)
        for stack in self._stacks:
            gradients = self._gradients(stack)
            own = {layer: [gradients[name] for name in names] for layer, names in self._owned.items()}
            columns = Columns.of(own, len(stack.x))
            for row in columns.rows(columns.parameters):
                moments.add(row.unsqueeze(0))
        return quantities(self._columns, moments)[0]

    def state_dict(self) -> dict[str, Any]:
        """Weights and optimizers of all networks, so that training goes on from there bit for bit."""
        return {"stacks": [stack.state_dict() for stack in self._stacks]}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from there; ValueError when it is of other minibatches."""
        for stack, own in zip(self._stacks, state["stacks"], strict=True):
            stack.load_state_dict(own)

    def _loss_by(self, losses: Losses) -> Callable[[dict[str, Tensor], Tensor, Tensor, Tensor], Tensor]:
        def loss(parameters: dict[str, Tensor], x: Tensor, y: Tensor, weights: Tensor) -> Tensor:
            return (losses(functional_call(self._model, parameters, (x,)), y) * weights).sum()

        return loss

    def _gradients(self, stack: "_Stack") -> dict[str, Tensor]:
        """Gradient of each network on its own minibatch, (network, …) by parameter."""
        try:
            with torch.no_grad():  # the inner gradients alone: none of them through the stacked weights
                return self._gradients_of(stack.parameters, stack.x, stack.y, stack.weights)
        except RuntimeError as error:  # of vmap: random numbers, buffers that change, operations that it does not know
            reason = str(error).partition("\n")[0]
            raise UsageError(
                "the network cannot be trained on all minibatches in parallel: as dropout and batch norm do, it draws "
                f"random numbers or changes buffers, or torch.func.vmap does not know it ({reason}); leave parallel "
                "minibatches out"
            ) from error


class _Stack:
    """Some of the networks: stacked weights, their optimizer, and a minibatch each, (network, sample, …)."""

    def __init__(
        self,
        trained: Mapping[str, Tensor],
        batches: Sequence[Batch],
        make_optimizer: MakeOptimizer,
    ) -> None:
        sizes = [len(x) for x, _ in batches]
        self.x, self.y = (
            torch.stack([_filled(each, max(sizes)) for each in side]) for side in zip(*batches, strict=True)
        )
        self.weights = _weights(sizes, like=next(iter(trained.values())))
        self.parameters: dict[str, Tensor] = {
            name: nn.Parameter(parameter.detach().expand(len(sizes), *parameter.shape).clone())
            for name, parameter in trained.items()
        }
        self._optimizer = make_optimizer(list(self.parameters.values()))

    def step(self, gradients: Mapping[str, Tensor]) -> None:
        for name, parameter in self.parameters.items():
            parameter.grad = gradients[name].detach()
        self._optimizer.step()
        self._optimizer.zero_grad()

    def state_dict(self) -> dict[str, Any]:
        weights = {name: parameter.detach() for name, parameter in self.parameters.items()}
        return {"weights": weights, "optimizer": self._optimizer.state_dict()}

    @torch.no_grad()
    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        for name, parameter in self.parameters.items():
            if parameter.shape != state["weights"][name].shape:  # copy_ would broadcast
                raise ValueError(f"parameter {name!r} has shape {tuple(state['weights'][name].shape)}")
            parameter.copy_(state["weights"][name])
        self._optimizer.load_state_dict(state["optimizer"])


def _filled(samples: Tensor, size: int) -> Tensor:
    """Samples repeated until there are ``size``: those that are repeated have no weight in the loss."""
    return samples[torch.arange(size, device=samples.device) % len(samples)]


def _weights(sizes: Sequence[int], like: Tensor) -> Tensor:
    """Weight of each sample in its minibatch's mean, (network, sample); 0 where it fills up."""
    weights = like.new_zeros(len(sizes), max(sizes))
    for own, size in zip(weights, sizes, strict=True):
        own[:size] = 1 / size
    return weights
