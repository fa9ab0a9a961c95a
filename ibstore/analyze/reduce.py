"""Reductions: functions from a block (sample, …) to a smaller block (sample, …), registered by name.

A reduction's text in a waist is its Python call without the block: ``maxpool(1, 4, 4)`` calls
``maxpool(block, 1, 4, 4)``. The *channel axis* is the first one after ``sample``.
"""

from collections.abc import Callable
from functools import partial
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

Block = NDArray[Any]
"""Values of some samples, (sample, …)."""

REDUCTIONS: Final[dict[str, Callable[..., Block]]] = {}

FLOOR: Final = 1e-4
"""What numbers are taken for where they are less and a logarithm is needed."""

CHECKS: Final[dict[str, Callable[..., None]]] = {}
"""What refuses a reduction's arguments whatever the layer's shape, by the reduction's name."""


def register_reduction(
    function: Callable[..., Block], check: Callable[..., None] | None = None
) -> Callable[..., Block]:
    """Make ``function`` a reduction that waists can name; use it as a decorator.

    The first argument is the block, (sample, …); the others are what a waist's text gives, annotated with
    ``int``, ``float`` or ``str``. The result keeps the sample axis. A ValueError becomes the user's message.
    ``check`` takes the other arguments alone when a waist is read, and may refuse them with a ValueError.

    Examples
    --------
    >>> @register_reduction
    ... def first(block: Block, count: int) -> Block:
    ...     return block[:, :count]
    >>> from ibstore.analyze.grammar import parse_recipe
    >>> parse_recipe("first(2) | threshold(0.5)").reduce(np.array([[3.0, 1.0, 2.0]]))
    array([[3., 1.]])
    >>> _ = REDUCTIONS.pop("first")
    """
    REDUCTIONS[function.__name__] = function
    if check is not None:
        CHECKS[function.__name__] = check
    return function


def _check_sizes(*window: int) -> None:
    if len(window) not in {2, 3} or min(window) < 1:
        raise ValueError(f"a window has 2 or 3 sizes of at least 1, not {window}")


@register_reduction
def identity(block: Block) -> Block:
    """Every unit as it is."""
    return block


@partial(register_reduction, check=_check_sizes)
def maxpool(block: Block, *window: int) -> Block:
    """Maximum over windows of the trailing axes; what a window does not cover is left out, as torch does."""
    if block.dtype == np.float16:  # no compiled loop knows it; every one of its numbers is a float32
        return _pool(block.astype(np.float32), window).astype(np.float16)
    return _pool(block.view(np.uint8), window).view(bool) if block.dtype == bool else _pool(block, window)


@partial(register_reduction, check=_check_sizes)
def avgpool(block: Block, *window: int) -> Block:
    """Mean over windows of the trailing axes, summed in float64; uncovered ends are left out, as torch does."""
    values = block.astype(np.float64) if block.dtype in (np.float16, bool) else block
    sums = _pool(values, window, np.dtype(np.float64))
    return np.asarray((sums / np.prod(window)).astype(np.result_type(block.dtype, np.float32)))


@register_reduction
def softmax(block: Block) -> Block:
    """Softmax over the channel axis: exp(v − max) / Σ exp(v − max)."""
    _needs_axes(block, 1)
    values = block.astype(np.result_type(block.dtype, np.float32), copy=False)
    powers = np.exp(values - values.max(axis=1, keepdims=True))
    return np.asarray(powers / powers.sum(axis=1, keepdims=True))


@register_reduction
def argmax(block: Block) -> Block:
    """Index of the largest channel (the first of equals; NaN counts as largest), one axis less."""
    _needs_axes(block, 1)
    return np.asarray(block.argmax(axis=1)).reshape(len(block), -1)


@register_reduction
def channelmean(block: Block) -> Block:
    """Mean of each channel over its places, (sample, channel), summed in float64."""
    _needs_axes(block, 1)
    means = block.reshape(*block.shape[:2], -1).mean(axis=2, dtype=np.float64)
    return np.asarray(means.astype(np.result_type(block.dtype, np.float32)))


@register_reduction
def channelmax(block: Block) -> Block:
    """Maximum of each channel over its places, (sample, channel)."""
    _needs_axes(block, 1)
    return np.asarray(block.reshape(*block.shape[:2], -1).max(axis=2))


def _check_floor(floor: float = FLOOR) -> None:
    if not floor > 0:
        raise ValueError(f"a logarithm is taken of what is above 0, and the floor is {floor}")


@partial(register_reduction, check=_check_floor)
def log(block: Block, floor: float = FLOOR) -> Block:
    """Natural logarithm of every unit, of the floor where it is less: log-normal noise becomes normal."""
    values = block.astype(np.result_type(block.dtype, np.float32), copy=False)
    return np.asarray(np.log(np.maximum(values, np.asarray(floor, values.dtype))))


@partial(register_reduction, check=_check_floor)
def channellog(block: Block, floor: float = FLOOR) -> Block:
    """Mean of the logarithms of each channel over its places, (sample, channel): as `channelmean` of `log`."""
    return channelmean(log(block, floor))


def _pool(block: Block, window: tuple[int, ...], total: np.dtype[Any] | None = None) -> Block:
    """Maximum over windows of the trailing axes, or their sum in the dtype ``total``."""
    from ibstore.analyze.kernels import pool

    values, sizes, shape = windows(block, window)
    out = np.empty(shape, total or block.dtype)
    pooled = [length // size for length, size in zip(values.shape[1:], sizes, strict=True)]
    pool(values, sizes, total is not None, out.reshape(-1, *pooled))
    return out


def windows(block: Block, window: tuple[int, ...]) -> tuple[Block, tuple[int, int, int], tuple[int, ...]]:
    """What is pooled as (row, channel, height, width), its window, and the shape (sample, …) of what comes out."""
    _check_window(block.shape[1:], window)
    lead, trailing = block.shape[: -len(window)], block.shape[-len(window) :]
    pooled = [length // size for length, size in zip(trailing, window, strict=True)]
    ones = (1,) * (3 - len(window))
    deep, high, wide = (*ones, *window)
    return block.reshape(-1, *ones, *trailing), (deep, high, wide), (*lead, *pooled)


def _check_window(shape: tuple[int, ...], window: tuple[int, ...]) -> None:
    if len(window) > len(shape):
        raise ValueError(f"a window of {len(window)} sizes does not fit a layer of shape {shape}")
    trailing = shape[-len(window) :]
    if any(size > length for size, length in zip(window, trailing, strict=True)):
        raise ValueError(f"the window {window} is larger than the layer's trailing axes {trailing}")


def _needs_axes(block: Block, axes: int) -> None:
    if block.ndim - 1 < axes:
        raise ValueError("the layer has one number a sample and no channel axis")
