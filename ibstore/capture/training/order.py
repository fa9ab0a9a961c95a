"""In which order a training sees its samples: from a generator of its own, the same on every device.

>>> order = Order(samples=5, batch=2, seed=0)
>>> [len(order.draw()) for _ in range(order.per_epoch)]
[2, 2, 1]
"""

from collections.abc import Mapping
from typing import Any

import torch


class Order:
    """Batches of row numbers: all samples once an epoch in an order drawn anew, or one random batch a step.

    Parameters
    ----------
    samples
        Samples to train on.
    batch
        Samples in a batch; the last one of an epoch has what is left.
    seed
        Of the generator; drawn on the CPU, so that every device sees the same order.
    random_batches
        Whether each step draws a batch of its own, without replacement, and is an epoch.
    """

    def __init__(self, samples: int, batch: int, seed: int, *, random_batches: bool = False) -> None:
        self._samples, self._batch = samples, min(batch, samples)
        self._random_batches = random_batches
        self._generator = torch.Generator().manual_seed(seed)
        self._permutation = torch.empty(0, dtype=torch.int64)

    @property
    def per_epoch(self) -> int:
        """Batches in an epoch."""
        return 1 if self._random_batches else -(-self._samples // self._batch)

    @property
    def smallest(self) -> int:
        """Samples in the last batch of an epoch."""
        return self._batch if self._random_batches else self._samples % self._batch or self._batch

    def draw(self) -> torch.Tensor:
        """Rows of the next batch, (batch,) int64."""
        if not len(self._permutation):
            self._permutation = torch.randperm(self._samples, generator=self._generator)
        rows, rest = self._permutation[: self._batch], self._permutation[self._batch :]
        self._permutation = rest[:0] if self._random_batches else rest
        return rows

    def state_dict(self) -> dict[str, Any]:
        """Where it is: the generator, and what is left of the epoch."""
        return {"generator": self._generator.get_state(), "left": self._permutation.clone()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from there."""
        self._generator.set_state(state["generator"])
        self._permutation = state["left"]
