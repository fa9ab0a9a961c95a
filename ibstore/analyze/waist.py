"""Waists: how each layer is narrowed, as data: a name, and a recipe for each layer."""

import tomllib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cache
from importlib import resources
from pathlib import Path

from ibstore.analyze.grammar import EXACT, Recipe, near, parse_recipe
from ibstore.errors import UnknownNameError, UsageError, WaistError


@dataclass(frozen=True)
class Waist:
    """A name, and a recipe for each layer; ``x`` is the input, ``*`` every layer not named.

    Examples
    --------
    >>> waist = parse_waist("mine: x=maxpool(4, 4) | threshold(0.5); *=argmax | exact")
    >>> waist.name, waist.recipe("out")
    ('mine', Recipe('argmax | exact'))
    """

    name: str
    recipes: tuple[tuple[str, Recipe], ...]

    def recipe(self, layer: str) -> Recipe | None:
        """Recipe of a layer; None where the waist says nothing of it."""
        known = dict(self.recipes)
        return known.get(layer) or known.get("*")

    @property
    def x(self) -> Recipe:
        """Recipe of the input: its own, or every distinct input its own pattern."""
        return dict(self.recipes).get("x", EXACT)

    @property
    def layers(self) -> tuple[str, ...]:
        """Layers that the waist names, without ``x`` and ``*``."""
        return tuple(layer for layer, _ in self.recipes if layer not in {"x", "*"})

    @property
    def texts(self) -> dict[str, str]:
        """Texts of its recipes by layer, of which `of` makes the waist again.

        >>> waist = parse_waist("mine: x=maxpool(4, 4) | threshold(0.5); *=argmax | exact")
        >>> waist.texts["*"], Waist.of(waist.name, waist.texts) == waist
        ('argmax | exact', True)
        """
        return {layer: str(recipe) for layer, recipe in self.recipes}

    @classmethod
    def of(cls, name: str, texts: Mapping[str, str]) -> "Waist":
        """Waist from the texts of its recipes by layer."""
        if not name:
            raise WaistError("a waist needs a name; write it before the colon, as in 'mine: x=…; *=…'")
        if not set(texts) - {"x"}:
            raise WaistError(f"waist {name!r} narrows no layer; give at least one, or * for all")
        recipes = []
        for layer, text in texts.items():
            if not layer:
                raise WaistError(f"waist {name!r}: {text!r} names no layer; write layer=recipe")
            try:
                recipes.append((layer, parse_recipe(text)))
            except WaistError as error:
                raise WaistError(f"waist {name!r}, layer {layer!r}: {error}") from None
        return cls(name, tuple(recipes))


def parse_waist(text: str) -> Waist:
    """Waist from its inline text, ``NAME: x=…; conv1=…; *=…``.

    Raises
    ------
    WaistError
        Naming the part that cannot be read.
    """
    name, colon, body = text.partition(":")
    if not colon:
        raise WaistError(f"{text!r} is no waist; write NAME: layer=reduction | discretization; …")
    texts: dict[str, str] = {}
    for part in filter(str.strip, body.split(";")):
        layer, equals, recipe = part.partition("=")
        if not equals or not layer.strip() or "(" in layer or "|" in layer:
            raise WaistError(f"waist {name.strip()!r}: {part.strip()!r} names no layer; write layer=recipe")
        if layer.strip() in texts:
            raise WaistError(f"waist {name.strip()!r} names layer {layer.strip()!r} twice; keep one")
        texts[layer.strip()] = recipe.strip()
    return Waist.of(name.strip(), texts)


def load_waists(path: Path) -> dict[str, Waist]:
    """Waists of a TOML file: a table a waist, in it the recipes' texts by layer."""
    try:
        document = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise UsageError(f"cannot read waists from {path}: {error.strerror}; give a TOML file's path") from None
    except ValueError as error:  # not TOML, or not UTF-8
        raise WaistError(f"{path} is no TOML file: {error}; see `ibstore waists --toml` for one") from None
    if not document:
        raise WaistError(f'{path} holds no waist; write ["name"] and below it layer = "recipe"')
    for name, texts in document.items():
        if not isinstance(texts, dict) or not all(isinstance(text, str) for text in texts.values()):
            raise WaistError(f'{path}: {name!r} is no table of texts; write ["{name}"] and below it layer = "recipe"')
    try:
        return {name: Waist.of(name, texts) for name, texts in document.items()}
    except WaistError as error:
        raise WaistError(f"{path}: {error}") from None


def preset_text() -> str:
    """Text of the TOML file of the presets that ship."""
    return resources.files("ibstore.analyze").joinpath("presets.toml").read_text(encoding="utf-8")


def presets() -> dict[str, Waist]:
    """Waists that ship, by name."""
    return dict(_presets())


@cache
def _presets() -> dict[str, Waist]:
    return {name: Waist.of(name, texts) for name, texts in tomllib.loads(preset_text()).items()}


def find_waists(names: Iterable["str | Waist"], known: Mapping[str, Waist]) -> list[Waist]:
    """Waists by name, by inline text (it has a colon) or as they are; a name twice is refused."""
    found: dict[str, Waist] = {}
    for name in names:
        waist = name if isinstance(name, Waist) else parse_waist(name) if ":" in name else known.get(name)
        if waist is None:
            hint = near(str(name), known) or f"; there are {', '.join(known)}"
            raise UnknownNameError(f"there is no waist {name!r}{hint}")
        if waist != _presets().get(waist.name, waist):
            raise UsageError(f"{waist.name!r} is a preset and cannot mean something else; give the waist another name")
        if waist.name in found and waist != found[waist.name]:
            raise UsageError(f"two waists are called {waist.name!r}; give one of them another name")
        found[waist.name] = waist
    return list(found.values())
