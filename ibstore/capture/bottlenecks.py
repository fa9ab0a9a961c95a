"""Networks with stochastic layers that recipes train: see `ibstore.capture.dropout`.

Stochastic layers are called ``drop1``, ``drop2``, …: what to record of them is ``drop1.kl``, ``drop1.alpha``,
``drop1.f``, ``drop1.z[0]``, ….
"""

from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from itertools import count
from typing import Final

import torch
from torch import nn
from torch.nn.functional import binary_cross_entropy_with_logits

from ibstore.capture.dropout import (
    CAP,
    BinaryDropout,
    GaussianBottleneck,
    GaussianDropout,
    InformationDropout,
    LogNormal,
    LogNormalDropout,
    LogUniform,
    Noisy,
)
from ibstore.capture.models import named
from ibstore.errors import UsageError

Make = Callable[[], nn.Module]

ACTIVATIONS: Final = ("relu", "softplus")
HIDDEN: Final = 400
"""Units of the autoencoder's hidden layers."""

PIXELS: Final = 28 * 28


@dataclass(frozen=True)
class Kind:
    """How the layers of a network are made.

    Parameters
    ----------
    dropout
        ``information``, ``binary``, ``gaussian``, ``lognormal`` or ``none``.
    activation
        ``relu`` or ``softplus``.
    width
        Factor of all numbers of units, but those that go in and come out.
    normalized
        Whether there is batch normalization between a map and its activation.
    """

    dropout: str
    activation: str
    width: float
    normalized: bool

    def __post_init__(self) -> None:
        if self.dropout not in (*DROPOUTS, "none"):
            raise UsageError(f"dropout is {self.dropout!r}; give one of {', '.join(DROPOUTS)}, none")
        if self.activation not in ACTIVATIONS:
            raise UsageError(f"activation is {self.activation!r}; give one of {', '.join(ACTIVATIONS)}")
        if not 0 < self.width <= 8:  # noqa: PLR2004
            raise UsageError(f"width is {self.width}; give a factor above 0 and up to 8, such as 0.25")

    def units(self, number: int) -> int:
        """So many units, narrower or wider."""
        return max(1, round(number * self.width))

    def active(self, linear: nn.Module, norm: nn.Module) -> nn.Module:
        """A map and what follows it."""
        activation = nn.ReLU() if self.activation == "relu" else nn.Softplus()
        return nn.Sequential(linear, norm, activation) if self.normalized else nn.Sequential(linear, activation)

    def conv(self, before: int, after: int, size: int = 3, stride: int = 1) -> nn.Module:
        """A convolution that keeps the picture's size, up to its stride."""
        return self.active(
            nn.Conv2d(before, after, size, stride, padding=size // 2, bias=not self.normalized), nn.BatchNorm2d(after)
        )

    def noisy(self, f: nn.Module, head: Make, seed: int) -> nn.Module:
        """``f`` with the noise of this kind; ``head`` makes what decides on it."""
        return f if self.dropout == "none" else DROPOUTS[self.dropout](self, f, head, seed)

    def noisy_conv(self, before: int, after: int, stride: int, seed: int) -> nn.Module:
        """A 3 × 3 convolution with noise, which another one of the same input decides on."""
        return self.noisy(
            self.conv(before, after, stride=stride), lambda: nn.Conv2d(before, after, 3, stride, padding=1), seed
        )


def _information(kind: Kind, f: nn.Module, head: Make, seed: int) -> nn.Module:
    prior = LogUniform(CAP) if kind.activation == "relu" else LogNormal()
    return InformationDropout(f, head(), prior, seed)


DROPOUTS: Final[Mapping[str, Callable[[Kind, nn.Module, Make, int], nn.Module]]] = {
    "information": _information,
    "binary": lambda _, f, __, seed: BinaryDropout(f, seed),
    "gaussian": lambda _, f, __, seed: GaussianDropout(f, seed),
    "lognormal": lambda _, f, __, seed: LogNormalDropout(f, seed),
}


def mnist(dropout: str = "information", activation: str = "relu", width: float = 1.0) -> nn.Module:
    """For 28 × 28 digits: convolutions of 32 and 64 channels with stride 2 and 128 dense units, each with noise.

    >>> [name for name, _ in mnist(width=0.25).named_children()]
    ['drop1', 'drop2', 'flatten', 'drop3', 'out']
    """
    kind = Kind(dropout, activation, width, normalized=activation == "softplus")
    one, two, dense = (kind.units(number) for number in (32, 64, 128))
    flat = two * 7 * 7
    return named(
        drop1=kind.noisy_conv(1, one, 2, seed=1),
        drop2=kind.noisy_conv(one, two, 2, seed=2),
        flatten=nn.Flatten(),
        drop3=kind.noisy(
            kind.active(nn.Linear(flat, dense), nn.BatchNorm1d(dense)), lambda: nn.Linear(flat, dense), seed=3
        ),
        out=nn.Linear(dense, 10),
    )


def cluttered(dropout: str = "information", activation: str = "relu", width: float = 1.0) -> nn.Module:
    """For 96 × 96 pictures of one channel: four times three convolutions, the third with stride 2 and noise."""
    return _all_convolutional(Kind(dropout, activation, width, normalized=True), 1, (32, 64, 96, 192), kept=1.0)


def cifar(dropout: str = "information", activation: str = "softplus", width: float = 1.0) -> nn.Module:
    """For 32 × 32 pictures of three channels: the all-convolutional network; of the input a fifth is dropped.

    ``features`` is the representation that is classified, (192, 8, 8).
    """
    return _all_convolutional(Kind(dropout, activation, width, normalized=True), 3, (96, 192), kept=0.8)


def vae(bottleneck: str = "gaussian", latent: int = 20, width: float = 1.0) -> nn.Module:
    """A variational autoencoder of digits, 784-400-latent-400-784, or its twin whose code has Information Dropout.

    The twin's softplus units have no batch normalization: by it a unit that is not needed would vary with x all the
    same, and pay for that.

    What it puts out is the negative log-likelihood of its own input, in nats, (sample,): pixels as probabilities of
    ones.

    >>> vae(latent=5).eval()(torch.zeros(3, 1, 28, 28)).shape
    torch.Size([3])
    """
    if latent < 1:
        raise UsageError(f"latent is {latent}; give the units of the code, 1 or more")
    kind = Kind("information", "softplus", width, normalized=False)
    hidden = kind.units(HIDDEN)
    match bottleneck:
        case "gaussian":
            code: nn.Module = GaussianBottleneck(nn.Linear(hidden, latent), nn.Linear(hidden, latent), seed=1)
        case "information":
            f = nn.Sequential(nn.Linear(hidden, latent), nn.Softplus())
            code = kind.noisy(f, lambda: nn.Linear(hidden, latent), seed=1)
        case _:
            raise UsageError(f"bottleneck is {bottleneck!r}; give gaussian or information")
    return Autoencoder(
        encoder=nn.Sequential(nn.Flatten(), nn.Linear(PIXELS, hidden), nn.ReLU()),
        code=code,
        decoder=nn.Sequential(nn.Linear(latent, hidden), nn.ReLU(), nn.Linear(hidden, PIXELS)),
    )


class Autoencoder(nn.Module):
    """A network whose output is −log p(x|z) of its input x in [0, 1], nats, (sample,).

    Parameters
    ----------
    encoder, code, decoder
        From x to features, to z (called ``drop1``), to logits of the pixels.
    """

    def __init__(self, encoder: nn.Module, code: nn.Module, decoder: nn.Module) -> None:
        super().__init__()
        self.encoder, self.drop1, self.decoder = encoder, code, decoder

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Summed over pixels."""
        logits = self.decoder(self.drop1(self.encoder(x)))
        return binary_cross_entropy_with_logits(logits, x.flatten(1), reduction="none").sum(1)


def recorded(model: nn.Module) -> tuple[str, ...]:
    """What recipes record: of the last stochastic layer all that it says, of others their divergence.

    Beside them the representation and the output, where the network has some.

    >>> recorded(mnist(dropout="binary", width=0.25))
    ('drop3.f', 'drop3.z[0]', 'drop3.z[1]', 'out')
    """
    noisy = {name: module for name, module in model.named_children() if isinstance(module, Noisy)}
    found = [f"{name}.kl" for name, module in list(noisy.items())[:-1] if hasattr(module, "kl")]
    for name, module in list(noisy.items())[-1:]:
        told = ("alpha", "kl") if hasattr(module, "kl") else ()
        found += [f"{name}.{what}" for what in ("f", *told, "z[0]", "z[1]")]
    return (*found, *[name for name, _ in model.named_children() if name in {"features", "out"}])


def _all_convolutional(kind: Kind, channels: int, stages: tuple[int, ...], kept: float) -> nn.Module:
    """Stages of two convolutions and one with stride 2 and noise, then 3 × 3, 1 × 1 and 1 × 1 ones and the mean."""
    layers: OrderedDict[str, nn.Module] = OrderedDict()
    if kept < 1:
        layers["input"] = nn.Dropout(1 - kept)
    numbers, before = count(1), channels
    for stage, width in enumerate(stages, start=1):
        after = kind.units(width)
        layers[f"conv{next(numbers)}"] = kind.conv(before, after)
        layers[f"conv{next(numbers)}"] = kind.conv(after, after)
        layers[f"drop{stage}"] = kind.noisy_conv(after, after, 2, seed=stage)
        before = after
    wide = kind.units(stages[-1])
    layers[f"conv{next(numbers)}"] = kind.conv(before, wide)
    layers["features"] = kind.conv(wide, wide, size=1)
    layers["classes"] = kind.conv(wide, 10, size=1)
    layers["mean"] = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten())
    layers["out"] = nn.Linear(10, 10)
    return nn.Sequential(layers)
