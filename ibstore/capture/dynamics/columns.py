"""All parameters of a network as one row of numbers: which columns are whose.

Tiny networks have tiny tensors: one operation on the whole row costs less than one on each of them.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Self

import torch

from ibstore.errors import UsageError

Owners = Mapping[str, Sequence[torch.Tensor]]
"""Parameters by layer; of stacked networks each is (R, …), one slice a replica."""


@dataclass(frozen=True, slots=True)
class Columns:
    """The columns of parameters that lie side by side, layer after layer.

    Parameters
    ----------
    parameters
        They, in the order of the columns.
    layers
        Their positions in ``parameters``, by layer.
    replicas
        Rows: networks that are stacked in each parameter, R; 1 for a plain network.
    """

    parameters: tuple[torch.Tensor, ...]
    layers: Mapping[str, range]
    replicas: int

    @classmethod
    def of(cls, owners: Owners, replicas: int | None = None) -> Self:
        """Columns of the parameters of ``owners``; ``replicas`` is None for a plain network.

        Raises
        ------
        UsageError
            When there are none, one has two layers, they lie on several devices, or are no stacks of ``replicas``.
        """
        layers: dict[str, range] = {}
        parameters: list[torch.Tensor] = []
        for layer, own in owners.items():
            layers[layer] = range(len(parameters), len(parameters) + len(own))
            parameters += own
        _check(parameters, replicas)
        return cls(tuple(parameters), layers, replicas or 1)

    @property
    def device(self) -> torch.device:
        """Where the parameters are."""
        return self.parameters[0].device

    @property
    def width(self) -> int:
        """Columns of a row."""
        return sum(self._sizes())

    def rows(self, tensors: Sequence[torch.Tensor | None]) -> torch.Tensor:
        """Tensors like the parameters, one each and None for zeros, side by side: (replica, column)."""
        found = (
            torch.zeros_like(parameter) if tensor is None else tensor.to_dense()
            for tensor, parameter in zip(tensors, self.parameters, strict=True)
        )
        return torch.cat([tensor.reshape(self.replicas, -1) for tensor in found], dim=1)

    def sums(self, rows: torch.Tensor) -> list[list[float]]:
        """Sum over the columns of each parameter of rows (replica, column): a number a replica and parameter."""
        parts = torch.split(rows, self._sizes(), dim=1)
        found: list[list[float]] = torch.stack([part.sum(1) for part in parts], 1).tolist()
        return found

    def by_layer(self, numbers: Sequence[float]) -> dict[str, float]:
        """Sum over the parameters of each layer of numbers, one a parameter."""
        return {layer: sum(numbers[index] for index in own) for layer, own in self.layers.items()}

    def _sizes(self) -> list[int]:
        return [parameter.numel() // self.replicas for parameter in self.parameters]


def precise(device: torch.device) -> torch.dtype:
    """The widest floating type of a device: float64, but Apple's mps has float32 alone."""
    return torch.float32 if device.type == "mps" else torch.float64


def _check(parameters: Sequence[torch.Tensor], replicas: int | None) -> None:
    if not parameters:
        raise UsageError("no layer has a parameter; give the parameters of a network that is trained")
    if len({id(parameter) for parameter in parameters}) < len(parameters):
        raise UsageError("a parameter stands in two layers, or twice in one; give it to one layer, as owners() does")
    devices = sorted({str(parameter.device) for parameter in parameters})
    if len(devices) > 1:
        raise UsageError(f"parameters lie on {', '.join(devices)}; give those of one device")
    shapes = [tuple(parameter.shape) for parameter in parameters]
    misfit = [shape for shape in shapes if replicas is not None and shape[:1] != (replicas,)]
    if misfit:
        raise UsageError(f"a parameter of shape {misfit[0]} is no stack of {replicas}; give stacked parameters, (R, …)")
    if not all(parameter.is_floating_point() for parameter in parameters):
        raise UsageError("a parameter holds no real numbers; leave it out")
