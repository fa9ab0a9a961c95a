"""The information Lagrangian: what a network pays for what its stochastic layers tell about their input.

L = cross-entropy + (β · ΣKL + γ · TC) / N_train, with KL summed over layers and units and averaged over the batch. KL
is against a factorized prior and holds TC already: on average over x, KL = I(X;Z) + TC(Z) + Σᵢ KL(p(zᵢ) ‖ q(zᵢ)). So
the KL form is the Lagrangian whose γ equals its β where the prior fits, and ``gamma_tc`` weighs what TC costs beyond
that: β = 0 and γ > 0 is the loss of independent components, β = 0 and γ = 0 ordinary training.

Sources: Achille & Soatto 2018 (arXiv:1611.01353), equations 5 to 8, and their code for the division by N_train.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from math import isfinite

import torch
from torch import nn

from ibstore.capture.dropout import divergences
from ibstore.capture.dropout.priors import Prior
from ibstore.errors import UsageError

Tensor = torch.Tensor


@dataclass(frozen=True, slots=True)
class Transmitted:
    """What a stochastic layer told of a batch.

    Parameters
    ----------
    location, deviation
        Of the normal variable behind z, (sample, …): log z, or z itself.
    kl
        Divergence from the prior, nats, (sample, …).
    """

    location: Tensor
    deviation: Tensor
    kl: Tensor

    @property
    def nats(self) -> Tensor:
        """Divergence of each sample, summed over units, (sample,)."""
        return self.kl.flatten(1).sum(1)

    def total_correlation(self) -> Tensor:
        """TC of the units in nats; of pictures that of the channels, at all places alike."""
        location, deviation = (_by_channel(each) for each in (self.location, self.deviation))
        return divergences.total_correlation(location, deviation)


@contextmanager
def transmitting(network: nn.Module) -> Iterator[dict[str, Transmitted]]:
    """Hear what stochastic layers tell while the context lasts, by their paths, in the order in which they speak.

    >>> from ibstore.capture.dropout import CAP, InformationDropout, LogUniform
    >>> network = nn.Sequential(InformationDropout(nn.ReLU(), nn.Identity(), LogUniform(CAP), seed=1))
    >>> with transmitting(network) as heard:
    ...     _ = network(torch.zeros(5, 3))
    >>> {path: told.nats.shape for path, told in heard.items()}
    {'0': torch.Size([5])}
    """
    heard: dict[str, Transmitted] = {}

    def hear(path: str, prior: Prior, inputs: tuple[Tensor, Tensor], kl: Tensor) -> None:
        heard[path] = Transmitted(prior.location(inputs[0]), inputs[1], kl)

    handles = [
        module.register_forward_hook(partial(hear, path.rpartition(".")[0]))
        for path, module in network.named_modules()
        if isinstance(module, Prior)
    ]
    try:
        yield heard
    finally:
        for handle in handles:
            handle.remove()


@dataclass(frozen=True, slots=True)
class Lagrangian:
    """What is added to the mean loss of a batch: (β · ΣKL + γ · TC) / N.

    Parameters
    ----------
    beta_kl
        Weight of the divergences.
    gamma_tc
        Weight of the total correlation of the last stochastic layer.
    samples
        N: samples that are trained on; 1 for a loss in nats a sample.

    Raises
    ------
    UsageError
        When a weight is not a number from 0.
    """

    beta_kl: float = 0.0
    gamma_tc: float = 0.0
    samples: int = 1

    def __post_init__(self) -> None:
        for name in ("beta_kl", "gamma_tc"):
            weight = getattr(self, name)
            if not (weight >= 0 and isfinite(weight)):
                raise UsageError(f"{name} is {weight}; give a number from 0, such as 0.1")

    def __call__(self, heard: dict[str, Transmitted]) -> Tensor | float:
        """What is added, from what `transmitting` has heard."""
        if not heard or not (self.beta_kl or self.gamma_tc):
            return 0.0
        *_, last = heard.values()
        cost: Tensor | float = 0.0
        if self.beta_kl:
            cost = self.beta_kl * torch.stack([told.nats.mean() for told in heard.values()]).sum()
        if self.gamma_tc:
            cost = cost + self.gamma_tc * last.total_correlation()
        return cost / self.samples


def _by_channel(values: Tensor) -> Tensor:
    """Units of (sample, unit); of (sample, channel, …) each place of each sample as a sample of its channels."""
    return values if values.ndim == 2 else values.transpose(0, 1).flatten(1).T  # noqa: PLR2004
