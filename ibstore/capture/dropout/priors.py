"""Priors of stochastic layers: modules that tell the divergence of what a layer says, unit by unit.

They are modules so that a recorder can record them (``<path>.kl``) and a loss can hear them.
"""

from math import inf
from numbers import Real
from typing import Any, Final

import torch
from torch import nn

from ibstore.capture.dropout import divergences
from ibstore.errors import UsageError

Tensor = torch.Tensor

LOWEST: Final = 0.001
"""The smallest α."""

SMALLEST: Final = 1e-4
"""What softplus is taken for where it is less: its logarithm is needed."""


def positive(alpha: Any) -> float:
    """An α, or the largest, that can be meant.

    Raises
    ------
    UsageError
        When it is not.
    """
    if not (isinstance(alpha, Real) and LOWEST < float(alpha) < inf):
        raise UsageError(f"α is {alpha!r}; give a number above {LOWEST}")
    return float(alpha)


class Prior(nn.Module):
    """From f(x) and α(x), (sample, …), to the divergence of p(z|x) from the prior, in nats, of each unit.

    ``is_of_z`` says of which variable the layer makes a normal one: of z itself, or of log z.
    """

    is_of_z = False

    def location(self, f: Tensor) -> Tensor:
        """Mean of that normal variable."""
        return f.clamp(min=SMALLEST).log()


class LogUniform(Prior):
    """Log-uniform with a point mass at 0: the prior of ReLU units. Its cap is that of the layer's α."""

    def __init__(self, cap: float) -> None:
        super().__init__()
        self.cap = positive(cap)

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

    is_of_z = True

    def location(self, f: Tensor) -> Tensor:
        """What it is given."""
        return f

    def forward(self, f: Tensor, alpha: Tensor) -> Tensor:
        """Of N(f, α²) against N(0, 1)."""
        return divergences.normal(f, alpha, 0.0, 1.0)
