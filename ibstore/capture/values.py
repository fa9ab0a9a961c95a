"""Numbers on their way into the store: torch tensors become NumPy arrays of the dtype that was asked for."""

from collections.abc import Mapping
from typing import Any, Final

import numpy as np
import torch
from numpy.typing import NDArray

from ibstore.errors import CaptureError, UsageError

FLOATING: Final[Mapping[str, torch.dtype]] = {
    "float16": torch.float16,
    "float32": torch.float32,
    "float64": torch.float64,
}
"""What floating activations can be stored as."""


def floating_dtype(name: str) -> torch.dtype:
    """Dtype of that name.

    Raises
    ------
    UsageError
        When activations cannot be stored as that.
    """
    try:
        return FLOATING[name]
    except KeyError:
        raise UsageError(
            f"activations cannot be stored as dtype {name!r}; choose one of {', '.join(FLOATING)}"
        ) from None


def stored_dtype(dtype: torch.dtype, floating: torch.dtype) -> torch.dtype:
    """What values of ``dtype`` are stored as: floats as ``floating``, truth values as bytes, integers as they are.

    >>> stored_dtype(torch.bfloat16, torch.float32), stored_dtype(torch.bool, torch.float32)
    (torch.float32, torch.uint8)
    """
    if dtype.is_floating_point:
        return floating
    return torch.uint8 if dtype is torch.bool else dtype


def numpy_name(dtype: torch.dtype) -> str:
    """NumPy's name of a stored dtype.

    >>> numpy_name(torch.float16)
    'float16'
    """
    return torch.empty(0, dtype=dtype).numpy().dtype.name


def encode(values: torch.Tensor, dtype: torch.dtype) -> NDArray[Any]:
    """Values of a CPU tensor as NumPy array of ``dtype``; infinities stay what they are.

    Raises
    ------
    OverflowError
        When a finite value is too large for ``dtype``; its only argument is that value.
    """
    stored = values.to(dtype)
    if dtype.is_floating_point and torch.finfo(dtype).max < torch.finfo(values.dtype).max:
        overflowed = stored.isinf() & ~values.isinf()
        if overflowed.any():
            raise OverflowError(values[overflowed][0].item())
    return stored.numpy()


def as_array(values: Any) -> NDArray[Any]:
    """Tensor or array-like as NumPy array, without a copy where possible; bfloat16 becomes float32, exactly."""
    if not isinstance(values, torch.Tensor):
        return np.asarray(values)
    values = values.detach().cpu()
    array: NDArray[Any] = (values.float() if values.dtype is torch.bfloat16 else values).numpy()
    return array


def as_tensor(values: Any) -> torch.Tensor:
    """Tensor or array-like as CPU tensor, without a copy where possible.

    Raises
    ------
    CaptureError
        When torch has no such dtype.
    """
    if isinstance(values, torch.Tensor):
        return values.detach().cpu()
    array = np.asarray(values)
    # torch shares memory, and takes neither read-only arrays, nor negative strides, nor foreign byte order
    array = np.require(array, array.dtype.newbyteorder("="), ["C", "W"])
    try:
        return torch.from_numpy(array)
    except TypeError:
        raise CaptureError(f"x has dtype {array.dtype}, which torch does not have; give numbers as x") from None
