"""Information of activations that are in memory, by the waists and estimators that stores are analyzed with."""

from dataclasses import dataclass
from typing import Any, Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ibstore.analyze.encode import Packed, compact
from ibstore.analyze.estimate.density import is_density
from ibstore.analyze.estimate.entropy import NATS_PER_BIT, find_estimator
from ibstore.analyze.estimate.joint import joint
from ibstore.analyze.grammar import Recipe, parse_recipe
from ibstore.analyze.plane import row
from ibstore.analyze.scan import Source, scan
from ibstore.analyze.waist import Waist, find_waists, presets
from ibstore.errors import UsageError, ValuesError
from ibstore.store.format.probe import integer_labels

ALLOWANCE: Final = 1 << 28
"""Bytes that fitting a layer's edges may take."""


class Informations(NamedTuple):
    """What a layer tells: of the input, each sample being its own, and of the labels."""

    i_xt: float
    i_ty: float


@dataclass(frozen=True, slots=True)
class Informer:
    """Gives I(X;T) and I(T;Y) of activations (sample, …) and labels (sample,); made by `informations`.

    >>> print(informations("identity | threshold(0)"))
    plugin of identity | threshold(t=0.0), in bits
    """

    recipe: Recipe
    estimator: str
    unit: str

    def __call__(self, t: NDArray[Any], y: NDArray[Any]) -> Informations:
        """Both, in its unit; raises `ValuesError` when the activations are no numbers."""
        codes = _codes(self.recipe, np.asarray(t))
        counted = joint(np.arange(len(codes)), codes, integer_labels(np.asarray(y))).counted
        found = row({variable: counted[variable] for variable in ("x", "t", "xt", "y", "ty")}, self.estimator)
        scale = NATS_PER_BIT if self.unit == "nats" else 1.0
        return Informations(found["h_t"] * scale, found["i_ty"] * scale)

    def __str__(self) -> str:
        return f"{self.estimator} of {self.recipe}, in {self.unit}"


def informations(waist: "str | Waist", layer: str = "*", estimator: str = "plugin", unit: str = "bits") -> Informer:
    """Make what gives I(X;T) and I(T;Y) of activations (sample, …) and labels (sample,).

    X is the sample's identity, so that I(X;T) = H(T), the column ``h_t`` of the plane; I(T;Y) is its ``i_ty``. Both are
    to the bit what an analysis of the same values in a store says.

    Parameters
    ----------
    waist
        A waist, its name, its text (``NAME: out=…; *=…``), or a recipe alone, such as
        ``identity | uniform(bins=49, lo=-1, hi=1)``.
    layer
        Whose recipe of the waist it is.
    estimator
        Of entropies, from counts.
    unit
        ``bits`` or ``nats``.

    Raises
    ------
    UsageError
        When the waist has no recipe for the layer, or something of this cannot be meant.

    Examples
    --------
    >>> estimate = informations("identity | threshold(0)")
    >>> estimate(np.array([[-1.0], [1.0], [2.0], [-3.0]]), np.array([0, 1, 1, 0]))
    Informations(i_xt=1.0, i_ty=1.0)
    """
    recipe = _recipe(waist, layer)
    if is_density(estimator):
        raise UsageError(f"{estimator} looks at values and takes long; give an estimator of counts, such as plugin")
    find_estimator(estimator)
    if unit not in ("bits", "nats"):
        raise UsageError(f"there is no unit {unit!r}; give bits or nats")
    return Informer(recipe, estimator, unit)


def _recipe(waist: "str | Waist", layer: str) -> Recipe:
    if not isinstance(waist, str | Waist):
        raise UsageError(f"waist is {waist!r}; give a waist, its name, or its text")
    if isinstance(waist, str) and "|" in waist and ":" not in waist:
        recipe = parse_recipe(waist)
    else:
        (found,) = find_waists([waist], presets())
        chosen = found.recipe(layer)
        if chosen is None:
            raise UsageError(f"waist {found.name!r} has no recipe for layer {layer!r}; give one that has")
        recipe = chosen
    if recipe.per == "run":
        raise UsageError(f"{recipe} fits its edges to a whole run, of which one epoch is there; take per=epoch")
    return recipe


def _codes(recipe: Recipe, values: NDArray[Any]) -> NDArray[np.int64]:
    """Number of each sample's pattern, (sample,)."""
    if values.ndim == 0 or not values.size or values.dtype.kind not in "biuf":
        raise ValuesError(
            f"activations are {values.dtype} of shape {values.shape}; give real numbers (sample, …), at least one"
        )
    keys: list[Packed] = []
    block = values.reshape(1, *values.shape)
    source = Source(lambda work: [work(0, 0, block)], ("the activations",), values.shape[1:], values.dtype, len(values))
    scan(source, {recipe: ALLOWANCE}, lambda *found: keys.append(found[-1]))
    rows = np.ascontiguousarray(compact(np.concatenate(keys)))
    _, codes = np.unique(rows.view([("key", np.void, rows.shape[1])]).reshape(-1), return_inverse=True)
    return codes.astype(np.int64)
