"""From stored activations to keys: a layer is streamed through its recipe, never held whole."""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from ibstore.analyze.discretize import Coding
from ibstore.analyze.encode import Packed, bits_for, pack
from ibstore.analyze.fit import quantiles
from ibstore.analyze.grammar import Recipe
from ibstore.errors import ValuesError, WaistError

Blocks = Callable[[], Iterable[NDArray[Any]]]
"""Called for each pass over a layer's values: blocks (sample, …), in order."""

HELD_BYTES: Final = 256 << 20
SLICE_BYTES: Final = 1 << 20


@dataclass
class Reduced:
    """A layer's reduced values of one epoch, pass after pass.

    While they are small (256 MiB) the first pass keeps them, so that the store is read once; larger ones are
    read and reduced anew at each pass, and so are all where ``keep`` is false.

    Parameters
    ----------
    blocks
        The stored values.
    what
        What they are, for messages: ``run 'seed0', layer 'conv1', epoch 3``.
    shape
        Shape of one sample's stored value.
    samples
        How many samples there are.
    recipe
        Whose reduction is applied.
    keep
        Whether small values are kept.
    remedy
        What to do about NaN, for messages.
    """

    blocks: Blocks
    what: str
    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    samples: int
    recipe: Recipe
    keep: bool = True
    remedy: str = "the network diverged; leave the epoch out with --epoch, or the run with --run"
    _kept: list[NDArray[Any]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.like = reduced_like(self.recipe, self.shape, self.dtype, self.what)

    @property
    def units(self) -> int:
        """Reduced values of one sample."""
        return int(np.prod(self.like.shape[1:]))

    def __iter__(self) -> Iterator[NDArray[Any]]:
        """Blocks (sample, reduced …), in order."""
        if self._kept:
            yield from self._kept
            return
        keep = self.keep and self.samples * self.units * self.like.dtype.itemsize <= HELD_BYTES
        kept = []
        for block in self.blocks():
            reduced = self._checked(_in_slices(self.recipe.reduce, block))
            if keep:
                kept.append(np.ascontiguousarray(reduced))
            yield reduced
        self._kept = kept

    def grouped(self) -> Iterator[NDArray[Any]]:
        """Blocks (value, group): the columns share edges."""
        for block in self:
            yield group(block, self.recipe.scope)

    @property
    def groups(self) -> int:
        """How many groups have edges of their own."""
        return int(group(self.like, self.recipe.scope).shape[1])

    def _checked(self, block: NDArray[Any]) -> NDArray[Any]:
        discretize = self.recipe.discretize
        takes_nan = isinstance(discretize, Coding) and discretize.takes_nan
        if block.dtype.kind == "f" and not takes_nan and np.isnan(block).any():
            raise ValuesError(
                f"{self.what} has NaN, which no bin holds: {self.remedy}, or count exact values (| exact)"
            )
        return block


def _in_slices(reduce: Callable[[NDArray[Any]], NDArray[Any]], block: NDArray[Any]) -> NDArray[Any]:
    """Reduce a few samples at a time: what is written in between stays in the processor's cache."""
    rows = max(1, SLICE_BYTES * len(block) // max(1, block.nbytes))
    return np.concatenate([reduce(block[start : start + rows]) for start in range(0, len(block), rows)])


def reduced_like(recipe: Recipe, shape: tuple[int, ...], dtype: np.dtype[Any], what: str) -> NDArray[Any]:
    """An array of one sample that is shaped like a recipe's result.

    Raises
    ------
    WaistError
        When the recipe does not fit the shape, naming ``what`` has it.
    """
    try:
        like = recipe.reduce(np.zeros((1, *shape), dtype))
        group(like, recipe.scope)
    except WaistError as error:
        raise WaistError(f"{what}: {error}") from None
    return like


def group(block: NDArray[Any], scope: str) -> NDArray[Any]:
    """Arrange values (sample, …) as (value, group) for a fit scope.

    >>> block = np.arange(8).reshape(1, 2, 2, 2)
    >>> [group(block, scope).shape for scope in ("unit", "channel", "layer")]
    [(1, 8), (4, 2), (8, 1)]
    """
    if scope == "unit":
        return block.reshape(len(block), -1)
    if scope == "layer" or block.ndim == 1:
        return block.reshape(-1, 1)
    return np.moveaxis(block, 1, -1).reshape(-1, block.shape[1])


def fit(recipe: Recipe, epochs: list[Reduced]) -> NDArray[np.float64] | None:
    """Edges (edge, group) from the values of ``epochs`` together; None for a coding, which needs none."""
    discretize = recipe.discretize
    if isinstance(discretize, Coding):
        return None
    levels = np.empty((0, 1))
    if discretize.levels:
        groups = epochs[0].groups
        values = sum(reduced.samples * reduced.units // groups for reduced in epochs)
        levels = quantiles(
            lambda: (block for reduced in epochs for block in reduced.grouped()), discretize.levels, values, groups
        )
    edges = discretize.edges(levels)
    if len(edges) != discretize.bins - 1:
        raise WaistError(
            f"{recipe}: the discretizer declares {discretize.bins} bins but makes {len(edges)} edges, one less is right"
        )
    return edges


def encode(reduced: Reduced, edges: NDArray[np.float64] | None) -> Iterator[Packed]:
    """Keys (sample, byte) of a layer's values, block by block."""
    discretize = reduced.recipe.discretize
    if isinstance(discretize, Coding):
        yield from _encode_codes(reduced, discretize)
        return
    assert edges is not None, "a binning has edges"
    units = reduced.units
    bits = bits_for(discretize.bins)
    per_unit = _round_up(_spread(edges, reduced), reduced.like.dtype)
    for block in reduced:
        yield pack(_bin(block.reshape(len(block), units), per_unit, bits), bits)


def _encode_codes(reduced: Reduced, coding: Coding) -> Iterator[Packed]:
    bits = coding.bits(reduced.like.dtype)
    for block in reduced:
        try:
            codes = coding.code(np.ascontiguousarray(block).reshape(len(block), -1))
        except ValueError as error:
            raise ValuesError(f"{reduced.what}: {error}; choose another discretization") from None
        yield pack(codes, bits)


def _bin(values: NDArray[Any], edges: NDArray[Any], bits: int) -> NDArray[Any]:
    """Number of edges ≤ value, (sample, unit)."""
    if len(edges) == 1:
        return np.asarray(values >= edges[0])
    codes = np.zeros(values.shape, np.uint8 if bits <= 8 else np.uint32)  # noqa: PLR2004  (a byte)
    for edge in edges:
        codes += values >= edge
    return codes


def _spread(edges: NDArray[np.float64], reduced: Reduced) -> NDArray[np.float64]:
    """Edges of the groups as edges of the units, (edge, unit)."""
    if edges.shape[1] == 1 or reduced.recipe.scope != "channel":
        return edges
    return np.repeat(edges, reduced.units // edges.shape[1], axis=1)


def _round_up(edges: NDArray[np.float64], dtype: np.dtype[Any]) -> NDArray[Any]:
    """The smallest number of ``dtype`` that is ≥ each edge: comparing with it is comparing with the edge."""
    if dtype.kind != "f" or dtype.itemsize > edges.itemsize:
        return edges
    with np.errstate(over="ignore"):  # beyond the dtype's range: ±inf, mended below where it is too low
        rounded = edges.astype(dtype)
        above = np.nextafter(rounded, dtype.type(np.inf))
    return np.where(rounded < edges, above, rounded).astype(dtype)
