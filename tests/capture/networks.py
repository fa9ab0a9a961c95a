"""Small networks for the tests, one peculiarity each, and how to read what was recorded."""

from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from ibstore.store import Store


def inplace_cnn() -> nn.Module:
    """A convolution whose output is overwritten by the ReLU after it."""
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(1, 3, 3), nn.ReLU(inplace=True), nn.Flatten(), nn.Linear(3 * 4 * 4, 5))


class Reused(nn.Module):
    """One ReLU, three calls."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.fc1, self.fc2, self.relu = nn.Linear(4, 4), nn.Linear(4, 4), nn.ReLU()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.relu(self.fc2(self.relu(self.fc1(self.relu(x)))))


class Parts(nn.Module):
    """Puts out a mapping with a tuple in it."""

    def forward(self, x: torch.Tensor) -> dict[str, Any]:
        return {"logits": 2 * x, "hidden": (x + 1, [x - 1]), "loss": x.sum(), "note": "text"}


class Nested(nn.Module):
    """Modules whose outputs are a mapping and a tuple; declared in another order than they are called."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.out = nn.Linear(3, 2)
        self.lstm = nn.LSTM(4, 3, batch_first=True)
        self.parts = Parts()
        self.unused = nn.Linear(4, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        sequence, _ = self.lstm(x.reshape(len(x), 2, 4))
        return self.out(self.parts(sequence[:, -1])["logits"])


def dropout_net() -> nn.Module:
    """Batch norm and dropout: training mode and random numbers matter."""
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, 8), nn.BatchNorm1d(8), nn.Tanh(), nn.Dropout(0.5), nn.Linear(8, 3))


class Apply(nn.Module):
    """Applies a function, which a test may exchange."""

    def __init__(self, function: Any) -> None:
        super().__init__()
        self.function = function

    def forward(self, x: torch.Tensor) -> Any:
        return self.function(x)


def hook_count(model: nn.Module) -> int:
    """Forward hooks that are registered anywhere in the network."""
    return sum(len(module._forward_hooks) for module in model.modules())


def recorded(store: Path, layer: str, epoch: int = 0, run: str = "run0", split: str = "train") -> NDArray[Any]:
    """Activations of a layer as they stand in the store, (sample, …)."""
    found = Store.open(store).run(run)
    blocks = found.segment(epoch).blocks(found.manifest.split(split), found.layer(layer), epoch)
    return np.concatenate(list(blocks))


def contents(store: Path, run: str = "run0") -> dict[str, Any]:
    """All that is committed of a run, by value: its manifest, every epoch's scalars, every layer's bytes."""
    found = Store.open(store).run(run)
    scalars = [row for segment in found.segments for row in zip(*segment.record.scalars(), strict=True)]
    blocks = {
        (epoch, layer.name): b"".join(block.tobytes() for block in segment.blocks(split, layer, epoch))
        for segment in found.segments
        for epoch in segment.record.epochs
        for split in found.manifest.splits
        for layer in found.manifest.layers
    }
    return {"manifest": found.manifest.dump(), "scalars": scalars, "blocks": blocks}


def epochs(store: Path, run: str = "run0") -> list[int]:
    """Committed epochs."""
    return Store.open(store).run(run).epochs
