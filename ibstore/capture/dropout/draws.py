"""Samples of a stochastic layer that a recorder asks for: seeded, and none where nobody asks."""

from collections.abc import Callable
from typing import Final
from zlib import crc32

import numpy as np
import torch
from torch import nn

from ibstore.capture.arguments import is_count
from ibstore.capture.running import samples_now
from ibstore.errors import UsageError

DRAWS: Final = 4

_MOST: Final = 2**63 - 1

Tensor = torch.Tensor


class Draws(nn.Module):
    """Draws of z given x, of which a recorder records any: layers ``<path>.z[0]``, ``<path>.z[1]``, ….

    Each sample has random numbers of its own in each draw. They hang on ``seed``, on m, on the split, on the sample's
    id and on which call of the layer it is, and on nothing else: they are the same at every epoch, in batches of any
    size, in any part of a probe set and on any device, since they are drawn on the CPU. torch's own random numbers are
    not touched.

    Parameters
    ----------
    seed
        Two layers of one network have two seeds, or their noise would be the same.
    count
        How many draws.

    Raises
    ------
    UsageError
        When ``seed`` is no integer from 0.
    """

    def __init__(self, seed: int, count: int = DRAWS) -> None:
        super().__init__()
        if not is_count(seed) or seed > _MOST:
            raise UsageError(f"seed is {seed!r}; give each stochastic layer an integer from 0 of its own")
        self.seed, self.count = int(seed), count

    @property
    def wanted(self) -> bool:
        """Whether somebody watches."""
        return bool(self._forward_hooks)

    def forward(self, f: Tensor, noise: Callable[[Tensor], Tensor], call: int = 0) -> tuple[Tensor, ...]:
        """Draws of z, each of the shape of ``f``, from standard normal numbers through ``noise``."""
        return tuple(noise(self.normal(draw, f, call)) for draw in range(self.count))

    def normal(self, draw: int, f: Tensor, call: int = 0) -> Tensor:
        """Standard normal numbers of a draw in a layer's call, of the shape and type of ``f``, (sample, …).

        Philox counts: where it begins to count for a row is the call, the draw and the sample's id, so that no two
        overlap.
        """
        samples, rows = samples_now(len(f))
        philox = np.random.Philox(key=np.array([self.seed, crc32(samples.split.encode())], np.uint64))
        generator, fresh = np.random.Generator(philox), philox.state
        found = np.empty(f.shape, np.float32)
        ids, places = samples.ids.astype(np.uint64), (call << 32) + rows.astype(np.uint64)
        for row, number, place in zip(found.reshape(len(f), -1), ids, places, strict=True):
            fresh["state"]["counter"] = np.array([0, place, draw, number], np.uint64)
            philox.state = fresh
            generator.standard_normal(out=row, dtype=np.float32)
        return torch.from_numpy(found).to(f)

    def extra_repr(self) -> str:
        """Seed and count."""
        return f"seed={self.seed}, count={self.count}"
