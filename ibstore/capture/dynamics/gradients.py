"""Gradients over minibatches: their mean, their standard deviation and the ratio of both, layer by layer.

For the parameters θ of a layer, weights and biases together, and minibatches b: ``gradient_mean`` = ‖mean_b ∇_b L‖,
``gradient_std`` = ‖std_b ∇_b L‖ (of the population, not of a sample), both Euclidean, and their ratio ``snr``. So in
Shwartz-Ziv & Tishby 2017 and Saxe et al. 2018; *which* minibatches and weights is the variant's matter.
"""

from collections.abc import Sequence
from math import sqrt

import torch

from ibstore.capture.dynamics.columns import Columns, Owners, precise
from ibstore.capture.dynamics.moments import Moments
from ibstore.errors import UsageError

LayerQuantities = dict[str, dict[str, float | None]]
"""Quantities by layer and name; None where there is no such number."""


class Gradients:
    """Gathers gradients until they are read.

    Parameters
    ----------
    owners
        Parameters by layer; each in one.
    replicas
        Networks that are stacked in each parameter, (R, …), each with statistics of its own; None: a plain network.

    Raises
    ------
    UsageError
        When the parameters cannot be taken together.

    Examples
    --------
    >>> weight = torch.nn.Parameter(torch.zeros(2))
    >>> gradients = Gradients({"out": [weight]})
    >>> for gradient in ([3.0, 3.0], [3.0, 5.0]):
    ...     weight.grad = torch.tensor(gradient)
    ...     gradients.add()
    >>> gradients.read()[0]["out"]
    {'batches': 2, 'gradient_mean': 5.0, 'gradient_std': 1.0, 'snr': 5.0}
    """

    def __init__(self, owners: Owners, replicas: int | None = None) -> None:
        self.columns = Columns.of(owners, replicas)
        self._moments = zero_moments(self.columns)

    @torch.no_grad()
    def add(self) -> None:
        """Take the gradients that a step is made of, once a step, between ``backward`` and the optimizer's ``step``.

        A parameter without gradient counts as zero. With a `torch.amp.GradScaler` call its ``unscale_`` before. What
        clips gradients or sums them over several backwards goes before, too: what stands in ``.grad`` is taken.

        Raises
        ------
        UsageError
            When no parameter has a gradient.
        """
        taken = [parameter.grad for parameter in self.columns.parameters]
        if all(gradient is None for gradient in taken):
            raise UsageError("no parameter has a gradient; call add() behind backward() and before zero_grad()")
        self._moments.add(self.columns.rows(taken))

    @property
    def batches(self) -> int:
        """Minibatches since the last reading."""
        return self._moments.count

    def mean_squares(self) -> list[list[float]]:
        """Σ_θ (mean_b ∇)² of each replica and parameter."""
        return self.columns.sums(self._moments.mean.square())

    def now(self) -> list[LayerQuantities]:
        """Quantities so far, of each replica: ``gradient_mean``, ``gradient_std``, ``snr``, ``batches``.

        ``snr`` is None where there is one batch, which has no noise, or the deviation is 0; all are without a batch.
        """
        return quantities(self.columns, self._moments)

    def restart(self) -> None:
        """Forget what was taken."""
        self._moments.restart()

    def read(self) -> list[LayerQuantities]:
        """What `now` says, and start anew."""
        found = self.now()
        self.restart()
        return found


def zero_moments(columns: Columns) -> Moments:
    """Moments of rows of these columns, before any."""
    zeros = torch.zeros(columns.replicas, columns.width, dtype=precise(columns.device), device=columns.device)
    return Moments(zeros)


def quantities(columns: Columns, moments: Moments) -> list[LayerQuantities]:
    """Quantities of each replica, from the moments of its gradients, (replica, column)."""
    means, variances = columns.sums(moments.mean.square()), columns.sums(moments.variance)
    return [_of_layers(columns, moments.count, *sums) for sums in zip(means, variances, strict=True)]


def _of_layers(
    columns: Columns, batches: int, mean_squares: Sequence[float], variances: Sequence[float]
) -> LayerQuantities:
    means, deviations = columns.by_layer(mean_squares), columns.by_layer(variances)
    return {layer: _of_layer(batches, sqrt(means[layer]), sqrt(deviations[layer])) for layer in columns.layers}


def _of_layer(batches: int, mean: float, deviation: float) -> dict[str, float | None]:
    if not batches:
        return {"batches": 0, "gradient_mean": None, "gradient_std": None, "snr": None}
    snr = None if batches == 1 or deviation == 0 else mean / deviation
    return {"batches": batches, "gradient_mean": mean, "gradient_std": deviation, "snr": snr}
