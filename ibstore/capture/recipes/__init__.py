"""Recipes: trainings as declared data, by name or from a user's own file.

>>> recipe("mnist-cnn").batch_size
100
"""

from collections.abc import Mapping
from typing import Final

from ibstore.capture.loading import load_object
from ibstore.capture.recipes.bundled import BUNDLED
from ibstore.capture.recipes.entry import Recipe
from ibstore.errors import UnknownNameError, UsageError

__all__ = ["RECIPES", "Recipe", "recipe", "recipe_names"]

RECIPES: Final[Mapping[str, Recipe]] = {entry.name: entry for entry in BUNDLED}


def recipe_names() -> list[str]:
    """Names that `recipe` takes."""
    return sorted(RECIPES)


def recipe(name: str) -> Recipe:
    """Recipe of that name, or the one that ``file.py:name`` or ``package.module:name`` holds.

    Raises
    ------
    UnknownNameError
        When there is none; the message lists what there is.
    UsageError
        When what is there is no `Recipe`.
    """
    if ":" in name:
        found = load_object(name)
        if not isinstance(found, Recipe):
            raise UsageError(f"{name} is of type {type(found).__name__}; let it be an ibstore.Recipe")
        return found
    if name.endswith(".py"):
        raise UnknownNameError(f"{name!r} says no recipe of the file; write {name}:NAME, the NAME of an ibstore.Recipe")
    try:
        return RECIPES[name]
    except KeyError:
        raise UnknownNameError(
            f"there is no recipe {name!r}; choose one of {', '.join(recipe_names())}, or give your own as FILE.py:NAME"
        ) from None
