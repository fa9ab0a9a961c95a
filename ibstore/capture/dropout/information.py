"""The information Lagrangian: what a network pays for what its stochastic layers tell about their input.

L = cross-entropy + (β · ΣKL + γ · TC) / N_train, with KL summed over layers and units and averaged over the batch. KL
is against a factorized prior and holds TC already: on average over x, KL = I(X;Z) + TC(Z) + Σᵢ KL(p(zᵢ) ‖ q(zᵢ)). So
the KL form is the Lagrangian whose γ equals its β where the prior fits, and ``gamma_tc`` weighs what TC costs beyond
that: β = 0 and γ > 0 is the loss of independent components, β = 0 and γ = 0 ordinary training.

Sources: Achille & Soatto 2018 (arXiv:1611.01353), equations 5 to 8, and their code for the division by N_train.
"""

from collections import Counter
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from functools import partial
from math import isfinite
from numbers import Real
from typing import Any

import torch
from torch import nn

from ibstore.capture.arguments import is_count
from ibstore.capture.dropout import divergences
from ibstore.capture.dropout.priors import Prior
from ibstore.capture.running import looks
from ibstore.errors import CaptureError, UsageError

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
        """Divergence of each row, summed over units, (sample,); of several rows a sample where a network makes them."""
        return self.kl.reshape(len(self.kl), -1).sum(1)

    def total_correlation(self) -> Tensor:
        """TC of the units in nats; of pictures that of the channels, at all places alike."""
        location, deviation = (_by_channel(each) for each in (self.location, self.deviation))
        return divergences.total_correlation(location, deviation)


@contextmanager
def transmitting(network: nn.Module) -> Iterator[dict[str, Transmitted]]:
    """Hear what stochastic layers tell while the context lasts, by their paths, in the order in which they speak.

    A layer that is called several times in a pass tells as often: ``path:0``, ``path:1``, …, as a recorder calls it.
    What a recorder runs in the midst of that is not heard.

    Examples
    --------
    >>> from ibstore.capture.dropout import CAP, InformationDropout, LogUniform
    >>> network = nn.Sequential(InformationDropout(nn.ReLU(), nn.Identity(), LogUniform(CAP), seed=1))
    >>> with transmitting(network) as heard:
    ...     _ = network(torch.zeros(5, 3))
    >>> {path: told.nats.shape for path, told in heard.items()}
    {'0': torch.Size([5])}
    """
    heard: dict[str, Transmitted] = {}
    calls: Counter[str] = Counter()
    own = looks()

    def hear(path: str, prior: Prior, inputs: tuple[Tensor, Tensor], kl: Tensor) -> None:
        if looks() != own:
            return
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


def tells(network: nn.Module) -> bool:
    """Whether any layer tells a divergence."""
    return bool(_priors(network))


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
            weight: Any = getattr(self, name)
            if not (isinstance(weight, Real) and float(weight) >= 0 and isfinite(weight)):
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

    def __call__(self, heard: dict[str, Transmitted], batch: int | None = None) -> Tensor | float:
        """What is added, from what `transmitting` has heard of ``batch`` samples; None: each row is one.

        Raises
        ------
        CaptureError
            When there is something to pay and nothing was heard.
        """
        if not self.weighs:
            return 0.0
        if not heard:
            raise CaptureError(
                f"{self} weighs what no layer has told; leave it out where none does (tells(network)), and of a "
                "compiled network, which hears no one that comes later, enter transmitting before its first call"
            )
        *_, last = heard.values()
        cost: Tensor | float = 0.0
        if self.beta_kl:
            rows = [told.nats for told in heard.values()]
            cost = self.beta_kl * torch.stack([nats.sum() / (batch or len(nats)) for nats in rows]).sum()
        if self.gamma_tc:
            cost = cost + self.gamma_tc * last.total_correlation()
        return cost / self.samples


def listening(network: nn.Module, lagrangian: Lagrangian | None) -> AbstractContextManager[dict[str, Transmitted]]:
    """`transmitting` where there is a Lagrangian to pay; else nothing is heard."""
    return nullcontext({}) if lagrangian is None else transmitting(network)


def _by_channel(values: Tensor) -> Tensor:
    """Units of (sample, unit); of (sample, channel, …) each place of each sample as a sample of its channels."""
    rows = values.reshape(len(values), -1) if values.ndim < 2 else values  # noqa: PLR2004
    return rows if rows.ndim == 2 else rows.transpose(0, 1).flatten(1).T  # noqa: PLR2004
