"""Small networks for the tests, one peculiarity each, and how to read what was recorded."""

from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn
from torch.nn import functional

from ibstore.capture.taps import tap
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
    """All that is committed of a run, by value: manifest, every epoch's scalars and dynamics, every layer's bytes."""
    found = Store.open(store).run(run)
    scalars = [row for segment in found.segments for row in zip(*segment.record.scalars(), strict=True)]
    blocks = {
        (epoch, layer.name): b"".join(block.tobytes() for block in segment.blocks(split, layer, epoch))
        for segment in found.segments
        for epoch in segment.record.epochs
        for split in found.manifest.splits
        for layer in found.manifest.layers
    }
    dynamics = [each for segment in found.segments for each in segment.record.dynamics]
    return {"manifest": found.manifest.dump(), "scalars": scalars, "dynamics": dynamics, "blocks": blocks}


def epochs(store: Path, run: str = "run0") -> list[int]:
    """Committed epochs."""
    return Store.open(store).run(run).epochs


# Networks of every kind: what each is made of, what it takes, and what its layers say, computed by hand

Said = dict[str, torch.Tensor]


@dataclass(frozen=True)
class Kind:
    """A kind of network.

    ``make`` makes it, ``said`` computes from it and a batch what its layers say without any hook, ``wrapped`` is what a
    user trains and hands to the recorder, on ``device``.
    """

    make: Callable[[], nn.Module]
    x: Any
    said: Callable[..., Said]
    wrapped: Callable[[nn.Module], nn.Module] = field(default=lambda network: network)
    autocast: torch.dtype | None = None
    device: str = "cpu"

    def batch(self, rows: slice) -> tuple[tuple[torch.Tensor, ...], dict[str, torch.Tensor]]:
        """What the network is called with."""
        if isinstance(self.x, dict):
            return (), {name: tensor[rows].to(self.device) for name, tensor in self.x.items()}
        several = self.x if isinstance(self.x, tuple) else (self.x,)
        return tuple(tensor[rows].to(self.device) for tensor in several), {}


class Residual(nn.Module):
    """A sum and a functional operation, which no module puts out."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.fc, self.relu, self.out = nn.Linear(4, 4), nn.ReLU(inplace=True), nn.Linear(4, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = tap("sum", x + self.relu(self.fc(x)))
        x = tap("squashed", tap("squashed", functional.silu(x)).tanh_())
        return self.out(x)


def residual_said(network: Any, x: torch.Tensor) -> Said:
    fc = network.fc(x)
    total = x + fc.relu()
    return {
        "fc": fc,
        "relu": fc.relu(),
        "sum": total,
        "squashed:0": functional.silu(total),
        "squashed:1": functional.silu(total).tanh(),
        "out": network.out(functional.silu(total).tanh()),
    }


class Functional(nn.Module):
    """Weights without modules."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.weight = nn.Parameter(torch.randn(3, 4))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return tap("out", functional.linear(x, self.weight)).tanh()


class Output(OrderedDict[str, Any]):
    """What networks of transformers put out: a mapping whose keys are attributes too."""

    def __getattr__(self, name: str) -> Any:
        try:
            return self[name]
        except KeyError:
            raise AttributeError(name) from None


@dataclass
class Record:
    """What some networks put out."""

    logits: torch.Tensor
    hidden: tuple[torch.Tensor, ...]


class Pair(NamedTuple):
    """What others put out."""

    mean: torch.Tensor
    spread: torch.Tensor


class Heads(nn.Module):
    """Takes two inputs and has modules that put out a mapping with attributes, a dataclass and a named tuple."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.fc = nn.Linear(4, 3)
        self.mapped = Apply(lambda x: Output(logits=x * 2, loss=x.sum()))
        self.record = Apply(lambda x: Record(x + 1, (x - 1,)))
        self.pair = Apply(lambda x: Pair(x.abs(), x.exp()))

    def forward(self, tokens: torch.Tensor, mask: torch.Tensor) -> Output:
        x = self.mapped(self.fc(tokens) * mask).logits
        return Output(logits=self.pair(self.record(x).hidden[0]).mean)


def heads_said(network: Any, tokens: torch.Tensor, mask: torch.Tensor) -> Said:
    doubled = network.fc(tokens) * mask * 2
    return {
        "fc": network.fc(tokens),
        "mapped[logits]": doubled,
        "record[logits]": doubled + 1,
        "record[hidden][0]": doubled - 1,
        "pair[mean]": (doubled - 1).abs(),
        "pair[1]": (doubled - 1).exp(),
    }


class Tied(nn.Module):
    """One module under two paths, and one whose weights are computed."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.first = nn.utils.parametrizations.weight_norm(nn.Linear(4, 4))
        self.second = self.first

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.second(self.first(x).tanh())


def nested_said(network: Any, x: torch.Tensor) -> Said:
    sequence, _ = network.lstm(x.reshape(len(x), 2, 4))
    last = sequence[:, -1]
    return {
        "lstm[0]": sequence,
        "parts[hidden][1][0]": last - 1,
        "parts[logits]": 2 * last,
        "out": network.out(2 * last),
    }


def reused_said(network: Any, x: torch.Tensor) -> Said:
    first = x.relu()
    second = network.fc1(first).relu()
    return {"relu:0": first, "relu:1": second, "fc2": network.fc2(second), "relu:2": network.fc2(second).relu()}


def sequential_said(*names: str) -> Callable[..., Said]:
    """Layers of a plain sequence, each computed from the start."""

    def said(network: Any, x: torch.Tensor) -> Said:
        return {name: network[: int(name) + 1](x).clone() for name in names}

    return said


def inside_compiled(network: nn.Module) -> nn.Module:
    """A module in the midst is compiled, the rest is not."""
    network.fc = torch.compile(network.fc, backend="aot_eager")  # type: ignore[assignment]
    return network


def compiled_in_place(network: nn.Module) -> nn.Module:
    network.compile(backend="eager")
    return network


def _random(*shape: int) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(len(shape)))


X4, X8, TOKENS, MASK = _random(10, 4), _random(10, 8), _random(10, 4), torch.arange(30).reshape(10, 3) % 2
PARALLEL = "cuda" if torch.cuda.is_available() else "cpu"
"""Where `nn.DataParallel` takes its network as soon as it is made."""

PLAIN = Kind(inplace_cnn, _random(10, 1, 6, 6), sequential_said("0", "1", "3"))
RESIDUAL = Kind(Residual, X4, residual_said)
HEADS = Kind(Heads, (TOKENS, MASK), heads_said)

KINDS = {
    "in place": PLAIN,
    "channels last": replace(PLAIN, x=PLAIN.x.contiguous(memory_format=torch.channels_last)),
    "batch norm and dropout": Kind(dropout_net, X4, sequential_said("0", "1", "2", "4")),
    "reused": Kind(Reused, X4, reused_said),
    "tuples and mappings": Kind(Nested, X8, nested_said),
    "residual": RESIDUAL,
    "functional": Kind(Functional, X4, lambda network, x: {"out": functional.linear(x, network.weight)}),
    "tied and parametrized": Kind(
        Tied, X4, lambda network, x: {"first:0": network.first(x), "first:1": network.first(network.first(x).tanh())}
    ),
    "several inputs": HEADS,
    "inputs by name": replace(HEADS, x={"mask": MASK, "tokens": TOKENS}),
    "compiled": replace(RESIDUAL, wrapped=partial(torch.compile, backend="aot_eager")),
    "compiled in place": replace(RESIDUAL, wrapped=compiled_in_place),
    "compiled inside": replace(RESIDUAL, wrapped=inside_compiled),
    "data parallel": replace(PLAIN, wrapped=nn.DataParallel, device=PARALLEL),
    "wrapped twice": replace(
        RESIDUAL, wrapped=lambda network: nn.DataParallel(torch.compile(network, backend="eager")), device=PARALLEL
    ),
    "parallel inside": replace(
        PLAIN,
        make=lambda: nn.Sequential(nn.DataParallel(inplace_cnn())),
        said=lambda network, x: {f"0.{name}": each for name, each in PLAIN.said(network[0].module, x).items()},
        device=PARALLEL,
    ),
    "mixed precision": replace(PLAIN, autocast=torch.bfloat16),
    "mixed precision of a sum": replace(RESIDUAL, autocast=torch.bfloat16),
}
