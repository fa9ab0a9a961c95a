"""The layers of a run as they were when it began, and whether what they say now is still of that form."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from ibstore.capture import values
from ibstore.capture.specs import LayerSpec
from ibstore.errors import CaptureError
from ibstore.store import LayerInfo
from ibstore.store.format.names import escape

Batch = Mapping[str, NDArray[Any]]
"""Activations (sample, …) by layer."""


class Layers:
    """Layers in execution order, and how what they say becomes arrays.

    Parameters
    ----------
    found
        Each with what it puts out for a batch, (sample, …).
    floating
        What floats are rounded to; None: not at all.
    """

    def __init__(self, found: Sequence[tuple[LayerSpec, torch.Tensor]], floating: torch.dtype | None) -> None:
        self.specs = [spec for spec, _ in found]
        self.rounded = any(values.rounds(tensor.dtype, floating) for _, tensor in found)
        self._floating = floating
        self._infos = {spec.name: self._described(spec.name, tensor) for spec, tensor in found}

    @property
    def infos(self) -> tuple[LayerInfo, ...]:
        """What the manifest says of them."""
        return tuple(self._infos.values())

    @property
    def rounding(self) -> str | None:
        """Name of the type that floats are rounded to; None where nothing is lost."""
        return str(self._floating).removeprefix("torch.") if self.rounded else None

    @property
    def sample_bytes(self) -> int:
        """Bytes of one sample's activations."""
        return sum(np.dtype(info.dtype).itemsize * int(np.prod(info.shape)) for info in self.infos)

    def check(self, spoken: Mapping[str, torch.Tensor], samples: int, split: str, first: str) -> None:
        """Raise `CaptureError` when what they say of ``split`` has another form than what they say of ``first``."""
        for name, tensor in spoken.items():
            if misfit := self._misfit(name, tensor, samples):
                raise CaptureError(
                    f"layer {name!r} puts out {misfit[0]} for split {split!r}, but would {misfit[1]} as for split "
                    f"{first!r}; record splits whose samples have one shape"
                )

    def encode(self, spoken: Mapping[str, torch.Tensor], samples: int, epoch: int) -> Batch:
        """What they say of a batch at ``epoch``, as arrays.

        Raises
        ------
        CaptureError
            When a layer has another form than when the run began, or cannot be rounded.
        """
        return {name: self._encode(name, tensor, samples, epoch) for name, tensor in spoken.items()}

    def _described(self, name: str, tensor: torch.Tensor) -> LayerInfo:
        dtype = values.numpy_name(values.stored_dtype(tensor.dtype, self._floating))
        return LayerInfo(name, escape(name), tuple(tensor.shape[1:]), dtype)

    def _misfit(self, name: str, tensor: torch.Tensor, samples: int) -> tuple[str, str] | None:
        """What the layer puts out and what it should, where they differ."""
        info, dtype = self._infos[name], values.numpy_name(values.stored_dtype(tensor.dtype, self._floating))
        found, due = f"{dtype} {tuple(tensor.shape)}", f"{info.dtype} {(samples, *info.shape)}"
        return None if found == due else (found, due)

    def _encode(self, name: str, tensor: torch.Tensor, samples: int, epoch: int) -> NDArray[Any]:
        if misfit := self._misfit(name, tensor, samples):
            raise CaptureError(
                f"layer {name!r} puts out {misfit[0]} at epoch {epoch}, but {misfit[1]} when the run began; record the "
                "changed network under another run name"
            )
        try:
            return values.encode(tensor, self._floating)
        except ArithmeticError as error:
            raise CaptureError(
                f"layer {name!r} at epoch {epoch} cannot be rounded: {error}; record under another run name without "
                "dtype (--dtype), or with a wider one"
            ) from None
