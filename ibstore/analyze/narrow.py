"""One recipe over the values of one epoch: from reduced values to keys, as passes that somebody else makes.

A recipe sees a layer as blocks (row, unit). Nothing is read here and nothing is held: `narrow` and `fit` are coroutines
that yield what they want from each block (`Pass`) and are sent what was found; in the last pass these are the keys,
which nobody puts together.
"""

from collections.abc import Generator
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Any, Final

import numpy as np
from numpy.typing import NDArray

from ibstore.analyze.discretize import Binning, Coding
from ibstore.analyze.encode import Packed, bits_for, compact, pack
from ibstore.analyze.fit import Finding, Look, Pass, Population, quantiles
from ibstore.analyze.grammar import Recipe
from ibstore.errors import ValuesError, WaistError

if TYPE_CHECKING:
    from ibstore.analyze.device import Device

Edges = NDArray[np.float64]

FEW_EDGES: Final = 1

ROWS: Final = 1024
"""Samples that are compared with the ends of a range at one time, in float64."""

DIVERGED: Final = "the network diverged; leave the epoch out with --epoch, or the run with --run"


@dataclass(frozen=True)
class Form:
    """What a recipe sees of a layer: ``shape`` of one sample's reduced value, its dtype, and how many samples."""

    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    samples: int

    @property
    def units(self) -> int:
        """Reduced values of one sample."""
        return int(np.prod(self.shape))

    @property
    def bytes(self) -> int:
        """Of all samples' reduced values, in one epoch."""
        return self.samples * self.units * self.dtype.itemsize

    def groups(self, scope: str) -> int:
        """How many groups of units have edges of their own.

        >>> form = Form((2, 3, 3), np.dtype("f4"), 100)
        >>> [form.groups(scope) for scope in ("unit", "channel", "layer")]
        [18, 2, 1]
        """
        if scope == "unit":
            return self.units
        return 1 if scope == "layer" or not self.shape else self.shape[0]

    def population(self, scope: str, epochs: int = 1) -> Population:
        """The values that share edges under a scope."""
        groups = self.groups(scope)
        return Population(self.samples, groups, self.units // groups, epochs)


def fit(recipe: Recipe, form: Form, epochs: int, allowance: int, *, at_once: bool = False) -> Finding:
    """Edges (edge, group) of a binning, from the values of some epochs together; as `fit.quantiles` finds them."""
    return edges_of(recipe, (yield from fit_levels(recipe, form, epochs, allowance, at_once=at_once)))


def fit_levels(recipe: Recipe, form: Form, epochs: int, allowance: int, *, at_once: bool = False) -> Finding:
    """Sample quantiles (level, group) that a binning's edges are made of, from some epochs together; none if fixed."""
    binning = _binning(recipe)
    if not binning.levels:
        return np.empty((0, 1))
    population = form.population(recipe.scope, epochs)
    finding = quantiles(binning.levels, population, form.dtype.itemsize, allowance, at_once=at_once)
    return (yield from _as_passes(finding))


def _binning(recipe: Recipe) -> Binning:
    assert isinstance(recipe.discretize, Binning), "a coding has no edges"
    return recipe.discretize


def edges_of(recipe: Recipe, levels: NDArray[np.float64]) -> Edges:
    """Edges (edge, group) of a binning from its quantiles (level, group)."""
    binning = _binning(recipe)
    edges = binning.edges(levels)
    if len(edges) != binning.bins - 1:
        raise WaistError(
            f"{recipe}: the discretizer declares {binning.bins} bins but makes {len(edges)} edges, one less is right"
        )
    return edges


def _as_passes(finding: Finding) -> Finding:
    """The same, for blocks of any dtype."""
    each = next(finding)
    while True:
        found = yield replace(each, look=partial(_compared, each.look))
        try:
            each = finding.send(found)
        except StopIteration as done:
            return done.value  # type: ignore[no-any-return]


def _compared(look: Look, block: NDArray[Any], start: int) -> Any:
    return look(comparable(block), start)


def narrow(
    recipe: Recipe, form: Form, edges: Edges | int, device: "Device | None" = None
) -> Generator[Pass, Any, None]:
    """Keys of one epoch, by edges, or by those that are fitted to it in so many bytes; on a device where it can."""
    discretize = recipe.discretize
    if isinstance(discretize, Coding):
        yield Pass(_coder(discretize, form.dtype))
        return
    if isinstance(edges, int):
        edges = yield from fit(recipe, form, 1, edges)
    yield Pass(_binner(discretize.bins, edges, form, device))


def _coder(coding: Coding, dtype: np.dtype[Any]) -> Look:
    bits = coding.bits(dtype)
    return lambda block, _: compact(pack(coding.code(np.ascontiguousarray(block)), bits))


def _binner(bins: int, edges: Edges, form: Form, device: "Device | None") -> Look:
    bits = bits_for(bins)
    per_unit = _per_unit(edges, form)

    def look(block: NDArray[Any], _: int) -> Packed:
        values = comparable(block)
        keys = device.keys(values, per_unit, bits) if device else None
        return compact(pack(_bins(values, per_unit, bits), bits) if keys is None else keys)

    return look


def bins_of(recipe: Recipe, form: Form, edges: Edges | None, values: NDArray[Any]) -> NDArray[Any]:
    """Bin numbers or codes of values, (sample, unit), by edges where the recipe has some; ValueError as it refuses."""
    if isinstance(recipe.discretize, Coding):
        return recipe.discretize.code(np.ascontiguousarray(values))
    assert edges is not None, "a binning has edges"
    return _bins(comparable(values), _per_unit(edges, form), bits_for(recipe.discretize.bins))


def beyond(recipe: Recipe, form: Form, levels: NDArray[np.float64], values: NDArray[Any]) -> tuple[int, int]:
    """How many values lie below and above the range that a binning divides, and are clipped into its end bins."""
    low, high = _spread(_binning(recipe).limits(levels), form.units)
    blocks = [values[start : start + ROWS] for start in range(0, len(values), ROWS)]
    return sum(int((some < low).sum()) for some in blocks), sum(int((some > high).sum()) for some in blocks)


def _bins(values: NDArray[Any], edges: NDArray[Any], bits: int) -> NDArray[Any]:
    """Number of edges ≤ value, (row, unit)."""
    if len(edges) == FEW_EDGES:
        return np.asarray(values >= edges[0])
    from ibstore.analyze.kernels import count_edges

    codes = np.zeros(values.shape, np.uint8 if bits <= 8 else np.uint32)  # noqa: PLR2004  (a byte)
    count_edges(values, edges, codes)
    return codes


def _per_unit(edges: Edges, form: Form) -> NDArray[Any]:
    """Edges as numbers that values are compared with, (edge, unit)."""
    return round_up(_spread(edges, form.units), comparable(np.empty(0, form.dtype)).dtype)


def _spread(edges: Edges, units: int) -> Edges:
    """Edges of the groups as edges of the units, (edge, unit)."""
    return np.repeat(edges, units // edges.shape[1], axis=1)


def comparable(block: NDArray[Any]) -> NDArray[Any]:
    """The same numbers in a dtype that is compared without surprises: float16 as float32, truth values as bytes."""
    if block.dtype == np.float16:
        return block.astype(np.float32)
    return block.view(np.uint8) if block.dtype == np.bool_ else block


def round_up(edges: Edges, dtype: np.dtype[Any]) -> NDArray[Any]:
    """The smallest number of ``dtype`` that is ≥ each edge: comparing with it is comparing with the edge."""
    if dtype.kind != "f" or dtype.itemsize > edges.itemsize:
        return edges
    with np.errstate(over="ignore"):  # beyond the dtype's range: ±inf, mended below where it is too low
        rounded = edges.astype(dtype)
        above = np.nextafter(rounded, dtype.type(np.inf))
    return np.where(rounded < edges, above, rounded).astype(dtype)


def has_nan(block: NDArray[Any]) -> bool:
    """Whether any of the values is NaN."""
    return bool(block.dtype.kind == "f" and block.size and np.isnan(block.min()))


def nan_refused(what: str, remedy: str = DIVERGED) -> ValuesError:
    """The error of values that have NaN, naming whose they are."""
    return ValuesError(f"{what} has NaN, which no bin holds: {remedy}, or count exact values (| exact)")


def is_fitted(recipe: Recipe) -> bool:
    """Whether a recipe's edges hang on values."""
    return isinstance(recipe.discretize, Binning) and bool(recipe.discretize.levels)


def takes_nan(recipe: Recipe) -> bool:
    """Whether NaN has a code under a recipe."""
    discretize = recipe.discretize
    return isinstance(discretize, Coding) and discretize.takes_nan
