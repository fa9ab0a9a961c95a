"""Priors of stochastic layers: modules that tell the divergence of what a layer says, unit by unit.

They are modules so that a recorder can record them (``<path>.kl``) and a loss can hear them.
"""

from typing import Final

import torch
from torch import nn

from ibstore.capture.dropout import divergences

Tensor = torch.Tensor

SMALLEST: Final = 1e-4
"""What softplus is taken for where it is less: its logarithm is needed."""


class Prior(nn.Module):
    """From f(x) and α(x), (sample, …), to the divergence of p(z|x) from the prior, in nats, of each unit."""

    def location(self, f: Tensor) -> Tensor:
        """Mean of the normal variable that the layer is a map of: log z, or z itself."""
        return f.clamp(min=SMALLEST).log()


class LogUniform(Prior):
    """Log-uniform with a point mass at 0: the prior of ReLU units."""

    def __init__(self, cap: float) -> None:
        super().__init__()
        self.cap = cap

    def forward(self, f: Tensor, alpha: Tensor) -> Tensor:  # noqa: ARG002  (where f is makes no difference)
        """−log(α / cap)."""
        return divergences.log_uniform(alpha, self.cap)

    def extra_repr(self) -> str:
        """The largest α."""
        return f"cap={self.cap}"


class LogNormal(Prior):
    """Log-normal, with one learned mean and deviation for all units of the layer: the prior of softplus units."""

    def __init__(self) -> None:
        super().__init__()
        self.mean = nn.Parameter(torch.zeros(()))
        self.log_deviation = nn.Parameter(torch.zeros(()))

    def forward(self, f: Tensor, alpha: Tensor) -> Tensor:
        """Of N(log f, α²) against N(m, σ²)."""
        return divergences.normal(self.location(f), alpha, self.mean, self.log_deviation.exp())


class StandardNormal(Prior):
    """N(0, 1) for each unit: the prior of a variational autoencoder."""

    def location(self, f: Tensor) -> Tensor:
        """What it is given."""
        return f

    def forward(self, f: Tensor, alpha: Tensor) -> Tensor:
        """Of N(f, α²) against N(0, 1)."""
        return divergences.normal(f, alpha, 0.0, 1.0)
