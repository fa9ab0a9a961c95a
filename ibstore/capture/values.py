"""Numbers on their way into the store: torch tensors become NumPy arrays of the dtype that was asked for."""

from collections.abc import Mapping
from typing import Any, Final

import numpy as np
import torch
from numpy.typing import NDArray

from ibstore.errors import CaptureError, UsageError

FLOATING: Final[Mapping[str, torch.dtype]] = {
    "float16": torch.float16,
    "bfloat16": torch.bfloat16,
    "float32": torch.float32,
    "float64": torch.float64,
}
"""What floating activations can be rounded to. NumPy has no bfloat16: such numbers are stored as float32, which
holds them exactly and which every reader knows."""


_NUMPY: Final = (torch.float16, torch.float32, torch.float64)


def floating_dtype(name: str | None) -> torch.dtype | None:
    """Dtype of that name; None, which rounds nothing, for None.

    Raises
    ------
    UsageError
        When activations cannot be stored as that.
    """
    if name is None:
        return None
    try:
        return FLOATING[name]
    except KeyError:
        raise UsageError(
            f"activations cannot be stored as dtype {name!r}; choose one of {', '.join(FLOATING)}"
        ) from None


def stored_dtype(dtype: torch.dtype, floating: torch.dtype | None) -> torch.dtype:
    """What values of ``dtype`` are stored as when floats are rounded to ``floating`` (None: not at all).

    Truth values become bytes, integers stay as they are, and so do floats that NumPy has; others become float32,
    which holds them exactly.

    >>> stored_dtype(torch.bfloat16, None), stored_dtype(torch.float64, None), stored_dtype(torch.bool, None)
    (torch.float32, torch.float64, torch.uint8)
    >>> stored_dtype(torch.float32, torch.float16), stored_dtype(torch.float32, torch.bfloat16)
    (torch.float16, torch.float32)
    """
    if dtype.is_floating_point:
        chosen = dtype if floating is None else floating
        return chosen if chosen in _NUMPY else torch.float32
    return torch.uint8 if dtype is torch.bool else dtype


def rounds(dtype: torch.dtype, floating: torch.dtype | None) -> bool:
    """Whether values of ``dtype`` lose something when they are rounded to ``floating``."""
    if floating is None or not dtype.is_floating_point:
        return False
    return torch.promote_types(dtype, floating) != floating


def numpy_name(dtype: torch.dtype) -> str:
    """NumPy's name of a stored dtype.

    >>> numpy_name(torch.float16)
    'float16'
    """
    return torch.empty(0, dtype=dtype).numpy().dtype.name


def encode(values: torch.Tensor, floating: torch.dtype | None) -> NDArray[Any]:
    """Values of a CPU tensor as NumPy array, floats rounded to ``floating``; NaN and infinities stay what they are.

    What rounding promises: no value moves by more than the type's unit roundoff (2⁻¹¹ for float16, 2⁻⁸ for
    bfloat16, 2⁻²⁴ for float32) of the largest magnitude in ``values``.

    Raises
    ------
    ArithmeticError
        When a value is too large for the type, or moves by more; its argument says so of "it".
    """
    stored = stored_dtype(values.dtype, floating)
    if floating is None or not rounds(values.dtype, floating):
        return values.to(stored).numpy()
    rounded = values.to(floating)
    _check_loss(values, rounded)
    return rounded.to(stored).numpy()


def _check_loss(values: torch.Tensor, rounded: torch.Tensor) -> None:
    limits, name = torch.finfo(rounded.dtype), str(rounded.dtype).removeprefix("torch.")
    if values.numel() == 0 or limits.tiny <= _largest(values) <= limits.max:
        return  # what is true of nearly every batch is found in one pass
    finite = values.isfinite()
    overflowed = rounded.isinf() & finite
    if overflowed.any():
        value = values[overflowed][0].item()
        raise OverflowError(f"it has the value {value:g}, beyond the largest {name} ({limits.max:g})")
    magnitudes = torch.where(finite, values, 0).abs()
    largest = magnitudes.max().item() if magnitudes.numel() else 0.0
    if 0 < largest < limits.tiny and _moved(values[finite], rounded[finite]) > largest * limits.eps / 2:
        raise ArithmeticError(  # from the smallest normal number on rounding keeps its promise by itself
            f"its values are all below {limits.tiny:g} (up to {largest:g}), where {name} keeps few bits"
        )


def _largest(values: torch.Tensor) -> float:
    """Largest magnitude; NaN where there is one."""
    low, high = torch.aminmax(values)
    return torch.maximum(-low, high).item()


def _moved(values: torch.Tensor, rounded: torch.Tensor) -> float:
    return (rounded.double() - values.double()).abs().max().item()


def as_array(values: Any) -> NDArray[Any]:
    """Tensor or array-like as NumPy array, without a copy where possible; bfloat16 becomes float32, exactly."""
    if not isinstance(values, torch.Tensor):
        return np.asarray(values)
    values = values.detach().cpu()
    array: NDArray[Any] = (values.float() if values.dtype is torch.bfloat16 else values).numpy()
    return array


def as_tensor(values: Any, name: str = "x") -> torch.Tensor:
    """Tensor or array-like as CPU tensor, without a copy where possible; ``name`` is what a refusal calls it.

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
        raise CaptureError(f"{name} has dtype {array.dtype}, which torch does not have; give numbers") from None
