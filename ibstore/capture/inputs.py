"""What a network takes: one tensor, several of them in order, or several by name; always one row a sample.

>>> inputs = Inputs.of({"a": [[1.0], [2.0]], "b": [[3.0], [4.0]]})
>>> len(inputs), inputs.first.tolist()
(2, [[1.0], [2.0]])
>>> inputs.given_to(lambda a, b: (a + b).tolist(), slice(1, 2), torch.device("cpu"))
[[6.0]]
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Self

import numpy as np
import torch

from ibstore.capture import values
from ibstore.errors import CaptureError, UsageError
from ibstore.store.format.probe import data_digest


@dataclass(frozen=True, slots=True)
class Inputs:
    """Tensors on the CPU that a network is called with, each (sample, …) with the same number of samples.

    Parameters
    ----------
    ordered
        Those that are given in order.
    named
        Those that are given by name.
    """

    ordered: tuple[torch.Tensor, ...] = ()
    named: Mapping[str, torch.Tensor] = field(default_factory=dict)

    @classmethod
    def of(cls, x: Any) -> Self:
        """Inputs of tensors or arrays, which are not copied where that is possible.

        One is for ``model(x)``, a tuple or list of them for ``model(*x)``, a mapping of them for ``model(**x)``.

        Raises
        ------
        UsageError
            When there is none, a name is no text, or their numbers of samples differ.
        CaptureError
            When one of them cannot be a tensor of one row a sample.
        """
        if isinstance(x, Mapping):
            found = cls(named={name: _tensor(f"x[{name!r}]", value) for name, value in x.items()})
        elif _are_several(x):
            found = cls(ordered=tuple(_tensor(f"x[{place}]", value) for place, value in enumerate(x)))
        else:
            found = cls(ordered=(_tensor("x", x),))
        found._check()
        return found

    def _check(self) -> None:
        every = self.every
        if not every:
            raise UsageError("x is empty: there is nothing to give the network; give a tensor, or several")
        for name in self.named:
            if not isinstance(name, str):
                raise UsageError(f"x has an input called {name!r}; give the names of the network's arguments as text")
        for name, tensor in every.items():
            if len(tensor) != len(self):
                raise UsageError(
                    f"x has inputs of {len(self)} and of {len(tensor)} samples ({', '.join(map(str, every))}, of which "
                    f"{name} differs); give each one row a sample"
                )

    @property
    def every(self) -> dict[str, torch.Tensor]:
        """All of them, by name or place."""
        return {str(place): tensor for place, tensor in enumerate(self.ordered)} | dict(self.named)

    @property
    def first(self) -> torch.Tensor:
        """The first of them: what a store keeps as x."""
        return next(iter(self.every.values()))

    def __len__(self) -> int:
        return len(self.first)

    def given_to(self, model: Callable[..., Any], rows: slice, device: torch.device) -> Any:
        """What ``model`` puts out for these rows, moved to ``device``."""
        ordered = [tensor[rows].to(device) for tensor in self.ordered]
        return model(*ordered, **{name: tensor[rows].to(device) for name, tensor in self.named.items()})

    def shapes(self, rows: slice) -> str:
        """Shapes and dtypes of these rows, in words."""
        return ", ".join(f"{tuple(tensor[rows].shape)} {tensor.dtype}" for tensor in self.every.values())

    def other_digests(self) -> dict[str, str]:
        """Digest of each input but the first, which the digest of the probe set covers."""
        others = list(self.every.items())[1:]
        arrays = {name: values.as_array(tensor) for name, tensor in others}
        return {name: data_digest((each.dtype, each.shape, [each])) for name, each in arrays.items()}


def _are_several(x: Any) -> bool:
    """Whether it is a tuple or list of tensors and arrays, not an array written as lists of numbers."""
    return isinstance(x, tuple | list) and all(isinstance(each, torch.Tensor | np.ndarray) for each in x)


def _tensor(name: str, value: Any) -> torch.Tensor:
    try:
        tensor = values.as_tensor(value, name)
    except ValueError as error:  # lists of several lengths
        raise CaptureError(f"{name} is no array ({error}); give one row of the same shape a sample") from None
    if tensor.ndim == 0:
        raise CaptureError(f"{name} is a single number; give an array with one row a sample")
    return tensor
