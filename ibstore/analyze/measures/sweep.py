"""Sensitivity to the number of bins: a waist with other numbers, everything else the same."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final

from ibstore.analyze.discretize import MOST_BINS
from ibstore.analyze.grammar import Call, Recipe, parse_recipe
from ibstore.analyze.waist import Waist
from ibstore.errors import UsageError, WaistError

if TYPE_CHECKING:
    import polars as pl

SWEPT: Final = ("bins", "num")
"""Parameters of discretizations that say how many bins there are."""


def parse_bins(text: str) -> list[int]:
    """Numbers of bins: ``2,3,5``; ``2:64``, from one to the other by doubling; or ``2:10:1`` in steps.

    Raises
    ------
    UsageError
        When it cannot be read.

    Examples
    --------
    >>> parse_bins("2:20"), parse_bins("2:8:3"), parse_bins("5,3")
    ([2, 4, 8, 16, 20], [2, 5, 8], [5, 3])
    """
    try:
        numbers = [int(part) for part in text.split(":" if ":" in text else ",")]
        found = _range(*numbers) if ":" in text else numbers
    except (ValueError, TypeError):  # no number; more or fewer than two or three of them
        found = []
    if not found or min(found) < 1:
        raise UsageError(
            f"{text!r} is no numbers of bins; write 2,3,5 or 2:64 (doubling) or 2:10:1 (in steps), to {MOST_BINS:,}"
        )
    return list(dict.fromkeys(found))


def _range(low: int, high: int, step: int | None = None) -> list[int]:
    """From one to the other in steps, or by doubling; nothing where that cannot be."""
    if not 1 <= low <= high <= MOST_BINS:
        return []
    if step is not None:
        return list(range(low, high + 1, step))
    return [low * 2**power for power in range(MOST_BINS.bit_length()) if low * 2**power < high] + [high]


def with_bins(waist: Waist, bins: int) -> Waist:
    """The waist with so many bins wherever it says how many, called ``name@bins=4``; the input stays as it is.

    Raises
    ------
    UsageError
        When it says nowhere how many.
    """
    recipes = tuple((layer, recipe if layer == "x" else _with_bins(recipe, bins)) for layer, recipe in waist.recipes)
    if recipes == waist.recipes and not any(_number(recipe) for layer, recipe in recipes if layer != "x"):
        raise UsageError(
            f"waist {waist.name!r} says nowhere how many bins there are; sweep one that does, such as "
            "'mine: *=identity | quantile(bins=2)'"
        )
    return Waist(f"{waist.name}@bins={bins}", recipes)


def _number(recipe: Recipe) -> str | None:
    """Name of the parameter that says how many bins a recipe has."""
    return next((name for name, _ in recipe.discretization.kwargs if name in SWEPT), None)


def _with_bins(recipe: Recipe, bins: int) -> Recipe:
    name, call = _number(recipe), recipe.discretization
    if name is None:
        return recipe
    kwargs = tuple((key, bins if key == name else value) for key, value in call.kwargs)
    changed = replace(recipe, discretization=Call(call.name, call.args, kwargs))
    try:
        return parse_recipe(str(changed))  # refuses numbers that the discretization does
    except WaistError as error:
        raise WaistError(f"{bins} bins: {error}") from None


@dataclass(frozen=True)
class Swept:
    """A waist with so many bins, and the name of the one that it was made of."""

    waist: Waist
    name: str
    bins: int


def swept(waists: Sequence[Waist], bins: Sequence[int]) -> list[Swept]:
    """Waists with all numbers of bins."""
    return [Swept(with_bins(waist, n), waist.name, n) for waist in waists for n in bins]


def by_bins(table: "pl.DataFrame", waists: Sequence[Swept]) -> "pl.DataFrame":
    """A table of such waists with the names that they had, the column ``bins`` after them, and rows in its order."""
    import polars as pl

    names = {each.waist.name: each.name for each in waists}
    numbers = {each.waist.name: each.bins for each in waists}
    at = table.columns.index("waist") + 1
    return (
        table.with_columns(
            pl.col("waist").replace_strict(names, return_dtype=pl.String),
            bins=pl.col("waist").replace_strict(numbers, return_dtype=pl.Int64),
        )
        .with_columns(place=pl.int_range(pl.len()).over("waist", "bins"))
        .sort("waist", "place", "bins")
        .select(*table.columns[:at], "bins", *table.columns[at:])
    )
