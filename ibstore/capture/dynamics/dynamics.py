"""What training does to each layer between two capture points: gradients, weights, learning rate, predicted loss.

Of a step θ ← θ − α ∇L̃ the loss changes, to first order, by −α ∇L · ∇L̃, in the mean over minibatches by −α Σ_θ μ_θ²
with μ the mean gradient. So a layer's share of the change over the minibatches since the last reading is
``predicted_change`` = −(Σ_t α_t) Σ_θ μ_θ², with α_t the learning rate of step t. That is what plain SGD does; momentum,
weight decay and adaptive optimizers take other steps than −α ∇L̃, and have none.
"""

from collections import defaultdict
from collections.abc import Sequence
from math import sqrt
from typing import Final

import torch

from ibstore.capture.dynamics.columns import Columns, Owners, precise
from ibstore.capture.dynamics.gradients import Gradients, LayerQuantities
from ibstore.errors import UsageError
from ibstore.store.format import schema

EPOCH: Final = "epoch"
"""Name of the gradients over the minibatches since the capture point before, at the weights that each one met."""


class Dynamics:
    """Gathers the training dynamics of one network, or of many that are stacked, from capture point to capture point.

    Parameters
    ----------
    owners
        Parameters by layer, as `ibstore.capture.dynamics.owners` finds them.
    optimizer
        Whose steps the network takes.
    replicas
        Networks that are stacked in each parameter, (R, …); None: a plain network.

    Raises
    ------
    UsageError
        When the parameters cannot be taken together.

    Examples
    --------
    >>> model = torch.nn.Linear(2, 1)
    >>> optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    >>> dynamics = Dynamics({"out": list(model.parameters())}, optimizer)
    >>> for x in torch.eye(2):
    ...     optimizer.zero_grad()
    ...     model(x).square().sum().backward()
    ...     dynamics.add()
    ...     optimizer.step()
    >>> sorted(dynamics.read()["epoch"]["out"])
    ['batches', 'gradient_mean', 'gradient_std', 'learning_rate', 'predicted_change', 'snr', 'weight_norm']
    """

    def __init__(self, owners: Owners, optimizer: torch.optim.Optimizer, replicas: int | None = None) -> None:
        if not isinstance(optimizer, torch.optim.Optimizer):
            raise UsageError(
                f"optimizer is of type {type(optimizer).__name__}; give the torch.optim.Optimizer that takes the steps"
            )
        self._gradients = Gradients(owners, replicas)
        self._optimizer = optimizer
        self._rates: defaultdict[int, float | torch.Tensor] = defaultdict(float)  # Σ_t α_t by parameter group

    def add(self) -> None:
        """Take the gradients of a step: see `Gradients.add`."""
        self._gradients.add()
        for index, group in enumerate(self._optimizer.param_groups):
            self._rates[index] = self._rates[index] + group["lr"]

    def read(self) -> schema.Dynamics:
        """Quantities by variant, layer and name since the last reading, and start anew.

        Beside those of `Gradients.now` they are ``weight_norm`` (Euclidean, weights and biases together),
        ``learning_rate`` (None where a layer's parameters have several, or none) and ``predicted_change``.

        Raises
        ------
        UsageError
            When there are several replicas.
        """
        if self._gradients.columns.replicas > 1:
            raise UsageError("there are several replicas, each with dynamics of its own; take now() and restart()")
        (found,) = self.now()
        self.restart()
        return found

    @torch.no_grad()
    def now(self) -> list[schema.Dynamics]:
        """What `read` says, of each replica, without starting anew."""
        columns = self._gradients.columns
        weights = columns.rows(columns.parameters).to(precise(columns.device)).square()
        groups = self._groups()
        rates = self._learning_rates(groups)
        found = zip(self._gradients.now(), columns.sums(weights), self._predicted(groups), strict=True)
        return [
            {EPOCH: _joined(gradients, _norms(columns, norms), rates, changes)} for gradients, norms, changes in found
        ]

    def restart(self) -> None:
        """Forget the gradients that were taken."""
        self._gradients.restart()
        self._rates.clear()

    def _groups(self) -> list[int | None]:
        """Index of the optimizer's group that each parameter is in; None where in none."""
        of = {
            id(parameter): index
            for index, group in enumerate(self._optimizer.param_groups)
            for parameter in group["params"]
        }
        return [of.get(id(parameter)) for parameter in self._gradients.columns.parameters]

    def _learning_rates(self, groups: Sequence[int | None]) -> dict[str, float | None]:
        rates = [float(group["lr"]) for group in self._optimizer.param_groups]
        layers = self._gradients.columns.layers
        several = {
            layer: {rates[group] for group in (groups[index] for index in own) if group is not None}
            for layer, own in layers.items()
        }
        return {layer: one.pop() if len(one) == 1 else None for layer, one in several.items()}

    def _predicted(self, groups: Sequence[int | None]) -> list[dict[str, float | None]]:
        """First-order change of the loss by layer, of each replica; parameters in no group do not move."""
        columns = self._gradients.columns
        if not (self._gradients.batches and _is_plain(self._optimizer)):
            return [dict.fromkeys(columns.layers) for _ in range(columns.replicas)]
        moved = [0.0 if group is None else float(self._rates[group]) for group in groups]
        return [
            {layer: -sum(moved[index] * mean_squares[index] for index in own) for layer, own in columns.layers.items()}
            for mean_squares in self._gradients.mean_squares()
        ]


def _is_plain(optimizer: torch.optim.Optimizer) -> bool:
    """Whether its steps are −α ∇L̃ and nothing else."""
    return type(optimizer) is torch.optim.SGD and not any(
        group["momentum"] or group["weight_decay"] or group["maximize"] for group in optimizer.param_groups
    )


def _norms(columns: Columns, squares: Sequence[float]) -> dict[str, float]:
    return {layer: sqrt(total) for layer, total in columns.by_layer(squares).items()}


def _joined(
    gradients: LayerQuantities,
    norms: dict[str, float],
    rates: dict[str, float | None],
    changes: dict[str, float | None],
) -> LayerQuantities:
    return {
        layer: {
            **found,
            "weight_norm": norms[layer],
            "learning_rate": rates[layer],
            "predicted_change": changes[layer],
        }
        for layer, found in gradients.items()
    }
