"""Samples of a stochastic layer that a recorder asks for: seeded, and none where nobody asks."""

from collections.abc import Callable
from typing import Final

import torch
from torch import nn

from ibstore.capture.position import first_sample

DRAWS: Final = 4

Tensor = torch.Tensor


class Draws(nn.Module):
    """Draws of z given x, of which a recorder records any: layers ``<path>.z[0]``, ``<path>.z[1]``, ….

    Draw m of a batch has random numbers of its own: they hang on ``seed``, m and the position of the batch's first
    sample in the probe set. So they are the same at every epoch, and other ones for other samples; they are drawn on
    the CPU, whatever the device. torch's own random numbers are not touched.

    Parameters
    ----------
    seed
        Two layers of one network have two seeds, or their noise would be the same.
    count
        How many draws.
    """

    def __init__(self, seed: int, count: int = DRAWS) -> None:
        super().__init__()
        self.seed, self.count = seed, count

    @property
    def wanted(self) -> bool:
        """Whether somebody watches."""
        return bool(self._forward_hooks)

    def forward(self, f: Tensor, noise: Callable[[Tensor], Tensor]) -> tuple[Tensor, ...]:
        """Draws of z, each of the shape of ``f``, from standard normal numbers through ``noise``."""
        return tuple(noise(self.normal(draw, f)) for draw in range(self.count))

    def normal(self, draw: int, f: Tensor) -> Tensor:
        """Standard normal numbers of a draw, of the shape and type of ``f``."""
        generator = torch.Generator().manual_seed(_mixed([self.seed, draw, first_sample()]))
        return torch.randn(f.shape, generator=generator).to(f)

    def extra_repr(self) -> str:
        """Seed and count."""
        return f"seed={self.seed}, count={self.count}"


def _mixed(words: list[int]) -> int:
    """One seed of several numbers; numpy mixes them."""
    from numpy.random import SeedSequence

    return int(SeedSequence(words).generate_state(1)[0])
