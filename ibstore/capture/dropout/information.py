"""The information Lagrangian: what a network pays for what its stochastic layers tell about their input.

L = cross-entropy + (β · ΣKL + γ · TC) / N_train, with KL summed over layers and units and averaged over the batch. KL
is against a factorized prior and holds TC already: on average over x, KL = I(X;Z) + TC(Z) + Σᵢ KL(p(zᵢ) ‖ q(zᵢ)). So
the KL form is the Lagrangian whose γ equals its β where the prior fits, and ``gamma_tc`` weighs what TC costs beyond
that: β = 0 and γ > 0 is the loss of independent components, β = 0 and γ = 0 ordinary training.

Sources: Achille & Soatto 2018 (arXiv:1611.01353), equations 5 to 8, and their code for the division by N_train.
"""

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from math import isfinite

import torch
from torch import nn

from ibstore.capture.arguments import is_count
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

    A layer that is called several times in a pass tells as often: ``path:0``, ``path:1``, …, as a recorder calls it.

    >>> from ibstore.capture.dropout import CAP, InformationDropout, LogUniform
    >>> network = nn.Sequential(InformationDropout(nn.ReLU(), nn.Identity(), LogUniform(CAP), seed=1))
    >>> with transmitting(network) as heard:
    ...     _ = network(torch.zeros(5, 3))
    >>> {path: told.nats.shape for path, told in heard.items()}
    {'0': torch.Size([5])}
    """
    heard: dict[str, Transmitted] = {}
    calls: Counter[str] = Counter()

    def hear(path: str, prior: Prior, inputs: tuple[Tensor, Tensor], kl: Tensor) -> None:
        if calls[path] == 1:  # only now it is known that its first call has a number
            before = {f"{path}:0" if name == path else name: told for name, told in heard.items()}
            heard.clear()
            heard.update(before)
        name = f"{path}:{calls[path]}" if calls[path] else path
        heard[name] = Transmitted(prior.location(inputs[0]), inputs[1], kl)
        calls[path] += 1

    handles = [prior.register_forward_hook(partial(hear, path)) for path, prior in _priors(network)]
    try:
        yield heard
    finally:
        for handle in handles:
            handle.remove()


def normal_codes(network: nn.Module) -> list[str]:
    """Paths of stochastic layers whose z itself is normal given x; that of others is log-normal."""
    return [path for path, prior in _priors(network) if prior.is_of_z]


def _priors(network: nn.Module) -> list[tuple[str, Prior]]:
    """Priors by the paths of their layers."""
    modules = network.named_modules()
    return [(path.rpartition(".")[0], module) for path, module in modules if isinstance(module, Prior)]


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
        When a weight is not a number from 0, or ``samples`` no integer from 1.
    """

    beta_kl: float = 0.0
    gamma_tc: float = 0.0
    samples: int = 1

    def __post_init__(self) -> None:
        for name in ("beta_kl", "gamma_tc"):
            weight = getattr(self, name)
            if not (isinstance(weight, int | float) and weight >= 0 and isfinite(weight)):
                raise UsageError(f"{name} is {weight!r}; give a number from 0, such as 0.1")
        if not is_count(self.samples) or self.samples < 1:
            raise UsageError(f"samples is {self.samples!r}; give how many samples are trained on, 1 or more")

    @property
    def weighs(self) -> bool:
        """Whether it adds anything."""
        return bool(self.beta_kl or self.gamma_tc)

    def __str__(self) -> str:
        weights = {"beta_kl": self.beta_kl, "gamma_tc": self.gamma_tc}
        return ", ".join(f"{name}={weight:g}" for name, weight in weights.items() if weight)

    def __call__(self, heard: dict[str, Transmitted]) -> Tensor | float:
        """What is added, from what `transmitting` has heard."""
        if not heard or not self.weighs:
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
