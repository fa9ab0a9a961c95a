"""Layers with noise: z = ε ⊙ f(x) while they train, f(x) when they are used.

Children have names that a recorder can ask for: ``f``, the map without noise; ``z[m]``, draws of z given x; and where
the layer decides how noisy it is, ``alpha`` and ``kl``, the divergence of p(z|x) from the prior, in nats, of each unit.

What is recorded is noise of this layer on what comes from layers before it *without* noise, as the network is used: for
that z the divergence and the draws belong together exactly.

>>> from ibstore.capture.dropout.priors import LogUniform
>>> layer = InformationDropout(nn.Sequential(nn.Linear(3, 2), nn.ReLU()), nn.Linear(3, 2), LogUniform(CAP), seed=1)
>>> layer.eval()(torch.zeros(5, 3)).shape
torch.Size([5, 2])
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from statistics import NormalDist
from typing import Final

import torch
from torch import nn

from ibstore.capture.arguments import is_count
from ibstore.capture.dropout.draws import Draws
from ibstore.capture.dropout.priors import LOWEST, LogUniform, Prior, StandardNormal, positive
from ibstore.capture.running import call_now
from ibstore.errors import CaptureError, UsageError

Tensor = torch.Tensor

CAP: Final = 0.7 + LOWEST
"""The largest α."""

Noise = Callable[[Tensor], Tensor]
"""From standard normal numbers, of the shape of f(x), to z."""


class Noisy(nn.Module):
    """A layer z = noise(f(x)); what the noise is, is said by `noise`.

    Parameters
    ----------
    f
        From x to f(x), (sample, …).
    seed
        Of the draws that are recorded; layers of one network have different ones.
    """

    def __init__(self, f: nn.Module, seed: int) -> None:
        super().__init__()
        self.f = f
        self.z = Draws(seed)
        self.draw: int | None = None

    def noise(self, x: Tensor, f: Tensor) -> Noise:
        """What noise does to f(x)."""
        raise NotImplementedError

    def forward(self, x: Tensor) -> Tensor:
        """Noise in training, with torch's random numbers; while `drawing`, that of the draw; else f(x)."""
        f: Tensor = self.f(x)
        noise = self.noise(x, f)
        if self.draw is not None:
            return noise(self.z.normal(self.draw, f, call_now(self)))
        if self.training:
            return noise(torch.randn_like(f))
        if self.z.wanted:
            self.z(f, noise, call_now(self))
        return f


def check_seeds(network: nn.Module) -> None:
    """Raise `CaptureError` when two stochastic layers of a network would have the same noise."""
    found: dict[int, str] = {}
    for path, layer in network.named_modules():
        if isinstance(layer, Noisy):
            other = found.setdefault(layer.z.seed, path)
            if other != path:
                raise CaptureError(
                    f"stochastic layers {other!r} and {path!r} have the same seed {layer.z.seed}, and so the same "
                    "noise; give each one of its own"
                )


@contextmanager
def drawing(network: nn.Module, draw: int = 0) -> Iterator[None]:
    """Give stochastic layers the noise of one of their draws while the context lasts, whatever their mode.

    In the first of them z is its ``z[draw]``; those after it hear what noise has made of it.

    Raises
    ------
    UsageError
        When ``draw`` is no integer from 0.
    """
    if not is_count(draw):
        raise UsageError(f"draw is {draw!r}; give its number from 0")
    layers = [module for module in network.modules() if isinstance(module, Noisy)]
    try:
        for layer in layers:
            layer.draw = draw
        yield
    finally:
        for layer in layers:
            layer.draw = None


class BinaryDropout(Noisy):
    """A unit is dropped with probability ``share`` or divided by 1 − ``share`` (Srivastava et al. 2014)."""

    def __init__(self, f: nn.Module, seed: int, share: float = 0.5) -> None:
        super().__init__(f, seed)
        if not (isinstance(share, int | float) and 0 <= share < 1):
            raise UsageError(f"a share of {share!r} cannot be dropped; give 0 or more, and less than 1")
        self.share = share
        self._kept_below = NormalDist().inv_cdf(1 - share) if share else float("inf")

    def noise(self, x: Tensor, f: Tensor) -> Noise:  # noqa: ARG002
        """Of a normal number is asked only whether the unit stays."""
        return lambda normal: f * (normal < self._kept_below) / (1 - self.share)


class GaussianDropout(Noisy):
    """ε ~ N(1, α²), α the same for all units; α² = p / (1 − p) has the variance of dropping a share p."""

    def __init__(self, f: nn.Module, seed: int, alpha: float = 1.0) -> None:
        super().__init__(f, seed)
        self.alpha = positive(alpha)

    def noise(self, x: Tensor, f: Tensor) -> Noise:  # noqa: ARG002
        """Of a normal number e: f (1 + α e)."""
        return lambda normal: f * (1 + self.alpha * normal)


class LogNormalDropout(Noisy):
    """log ε ~ N(0, α²), α the same for all units."""

    def __init__(self, f: nn.Module, seed: int, alpha: float = 0.7) -> None:
        super().__init__(f, seed)
        self.alpha = positive(alpha)

    def noise(self, x: Tensor, f: Tensor) -> Noise:  # noqa: ARG002
        """Of a normal number e: f exp(α e)."""
        return lambda normal: f * (self.alpha * normal).exp()


class InformationDropout(Noisy):
    """log ε ~ N(0, α²(x)): the layer learns from x how noisy each unit may be (Achille & Soatto 2018).

    Parameters
    ----------
    f
        From x to f(x) ≥ 0: it ends in ReLU, or in batch normalization and softplus.
    head
        From x to as many numbers, of which α(x) = 0.001 + (cap − 0.001) · sigmoid is made.
    prior
        `LogUniform` for ReLU, `ibstore.capture.dropout.priors.LogNormal` for softplus.
    seed
        Of the draws that are recorded.
    cap
        The largest α.
    """

    def __init__(self, f: nn.Module, head: nn.Module, prior: Prior, seed: int, cap: float = CAP) -> None:
        super().__init__(f, seed)
        if not isinstance(prior, Prior) or prior.is_of_z:
            raise UsageError(f"prior is {prior!r}, which is not of log z; give LogNormal() or LogUniform(cap)")
        if isinstance(prior, LogUniform) and prior.cap != cap:
            raise UsageError(f"α is capped at {cap}, and the prior's is {prior.cap}; give both the same cap")
        self.alpha = nn.Sequential(head, Capped(cap))
        self.kl = prior

    def noise(self, x: Tensor, f: Tensor) -> Noise:
        """Of a normal number e: f exp(α e). The divergence is told."""
        alpha = _one_a_unit(self.alpha(x), f)
        self.kl(f, alpha)
        return lambda normal: f * (alpha * normal).exp()


class GaussianBottleneck(Noisy):
    """z ~ N(μ(x), σ²(x)) against N(0, 1): the latent variable of a variational autoencoder; ``f`` is μ, ``alpha`` is σ.

    Parameters
    ----------
    mean
        From x to μ(x).
    log_deviation
        From x to log σ(x).
    seed
        Of the draws that are recorded.
    """

    def __init__(self, mean: nn.Module, log_deviation: nn.Module, seed: int) -> None:
        super().__init__(mean, seed)
        self.alpha = nn.Sequential(log_deviation, Exp())
        self.kl = StandardNormal()

    def noise(self, x: Tensor, f: Tensor) -> Noise:
        """Of a normal number e: μ + σ e. The divergence is told."""
        alpha = _one_a_unit(self.alpha(x), f)
        self.kl(f, alpha)
        return lambda normal: f + alpha * normal


class Capped(nn.Module):
    """0.001 + (cap − 0.001) · sigmoid."""

    def __init__(self, cap: float = CAP) -> None:
        super().__init__()
        self.cap = positive(cap)

    def forward(self, x: Tensor) -> Tensor:
        """Between 0.001 and the cap."""
        return LOWEST + (self.cap - LOWEST) * x.sigmoid()

    def extra_repr(self) -> str:
        """The largest α."""
        return f"cap={self.cap}"


class Exp(nn.Module):
    """exp(x)."""

    def forward(self, x: Tensor) -> Tensor:
        """exp(x)."""
        return x.exp()


def _one_a_unit(alpha: Tensor, f: Tensor) -> Tensor:
    """α as it is, where each unit of f(x) has one: a broadcast one would pay for fewer units than it makes noisy."""
    if alpha.shape != f.shape:
        raise CaptureError(
            f"the layer's head puts out {tuple(alpha.shape)} where f puts out {tuple(f.shape)}; let it put out one α "
            "a unit"
        )
    return alpha
