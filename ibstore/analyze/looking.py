"""What is done to a block of values in a pass: reduced once for each reduction, and shown to whoever wants to look.

It holds nothing but what is wanted, so that it can be sent to another process.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any, Final

import numpy as np
from numpy.typing import NDArray

from ibstore.analyze.fit import Pass
from ibstore.analyze.grammar import Recipe, View
from ibstore.analyze.narrow import has_nan, nan_refused, takes_nan
from ibstore.errors import ValuesError

if TYPE_CHECKING:
    from ibstore.analyze.device import Device

Block = NDArray[Any]

SLICE_BYTES: Final = 1 << 20

Key = tuple[Recipe, int | None]
"""A recipe, and the epoch that it looks at; None where it looks at all of them."""


@dataclass(frozen=True, slots=True)
class Held:
    """Reduced values, (epoch, sample, unit), from an epoch and a sample on."""

    epoch: int
    start: int
    values: Block


@dataclass(frozen=True, slots=True)
class Found:
    """What was found for a key in the values of an epoch from a sample on."""

    key: Key
    epoch: int
    start: int
    finding: Any


@dataclass(frozen=True)
class Looking:
    """A pass: what is wanted for each key.

    Parameters
    ----------
    wants
        By key.
    names, remedy
        Of the values' source, for messages.
    held
        Reductions whose values are given back, to be looked at again.
    device
        Reduces what it can.
    """

    wants: Mapping[Key, Pass]
    names: Sequence[str]
    remedy: str
    held: frozenset[View] = frozenset()
    device: "Device | None" = None

    @cached_property
    def by_view(self) -> "Mapping[View, Lookers]":
        """Who wants to look, by the reduction that they share."""
        found: dict[View, Lookers] = {}
        for recipe, epoch in self.wants:
            found.setdefault(recipe.view, Lookers()).add(recipe, epoch)
        return found

    def __call__(self, epoch: int, start: int, block: Block) -> tuple[list[Found], dict[View, Held]]:
        """Show a block as it is stored, (epoch, sample, …), to all; in any thread."""
        found: list[Found] = []
        kept = {}
        rows = block.reshape(-1, *block.shape[2:])
        recipes = {view: lookers.recipes[0] for view, lookers in self.by_view.items()}
        for view, reduced in _reduced(recipes, rows, self.device).items():
            values = reduced.reshape(*block.shape[:2], -1)
            if not self.by_view[view].take_nan:
                self._refuse_nan(epoch, values)
            held = Held(epoch, start, values)
            if view in self.held:
                kept[view] = held
            found += self.look(self.by_view[view], held)
        return found, kept

    def _refuse_nan(self, first: int, values: Block) -> None:
        """Return when no epoch of the values has NaN; ValuesError then, naming the first that has."""
        if has_nan(values):
            epoch = next(epoch for epoch, own in enumerate(values, first) if has_nan(own))
            raise nan_refused(self.names[epoch], self.remedy)

    def look(self, lookers: "Lookers", block: Held) -> list[Found]:
        """What is found of reduced values, epoch by epoch, by those that look at them."""
        anywhere = [key for key in lookers.at(None) if self.wants[key].join]
        found = [each for key in lookers.at(None) if not self.wants[key].join for each in self._keys(key, block)]
        for epoch, values in enumerate(block.values, block.epoch):
            place = epoch, block.start
            found += [Found(key, *place, self._finding(key, *place, values)) for key in lookers.at(epoch) + anywhere]
        return found

    def _keys(self, key: Key, block: Held) -> Iterator[Found]:
        """Keys of all epochs of a block, made at one time: with many tiny epochs that is a tenth of the work."""
        epochs, samples, units = block.values.shape
        try:
            found = self.wants[key].look(block.values.reshape(epochs * samples, units), block.start)
            keys = found.reshape(epochs, samples, -1)
        except ValueError:  # which of the epochs cannot be discretized?
            keys = [self._finding(key, block.epoch + n, block.start, own) for n, own in enumerate(block.values)]
        return (Found(key, block.epoch + n, block.start, own) for n, own in enumerate(keys))

    def _finding(self, key: Key, epoch: int, start: int, values: Block) -> Any:
        try:
            return self.wants[key].look(values, start)
        except ValueError as error:
            raise ValuesError(f"{self.names[epoch]}: {error}; choose another discretization") from None


@dataclass
class Lookers:
    """Keys that share a reduction, by the epoch that they look at: there may be thousands of epochs."""

    recipes: list[Recipe] = field(default_factory=list)
    take_nan: bool = True
    _keys: dict[int | None, list[Key]] = field(default_factory=dict)

    def add(self, recipe: Recipe, epoch: int | None) -> None:
        """Take one more key."""
        if recipe not in self.recipes:
            self.recipes.append(recipe)
            self.take_nan &= takes_nan(recipe)
        self._keys.setdefault(epoch, []).append((recipe, epoch))

    def at(self, epoch: int | None) -> list[Key]:
        """Those that look at this epoch alone; for None, those that look at all of them."""
        return self._keys.get(epoch, [])


def _reduced(recipes: Mapping[View, Recipe], block: Block, device: "Device | None") -> dict[View, Block]:
    """A block under each reduction.

    The CPU takes a few samples at a time: what all reductions read stays in the processor's cache.
    """
    there = {view: device.reduced(recipe, block) for view, recipe in recipes.items()} if device else {}
    found = {view: values for view, values in there.items() if values is not None}
    recipes = {view: recipe for view, recipe in recipes.items() if view not in found}
    shared = [view for view, recipe in recipes.items() if np.may_share_memory(recipe.reduce(block[:1]), block)]
    found |= {view: recipes[view].reduce(block) for view in shared}  # as of identity
    rows = max(1, SLICE_BYTES * len(block) // max(1, block.nbytes))
    for start in range(0, len(block), rows):
        for view in recipes.keys() - shared:
            values = recipes[view].reduce(block[start : start + rows])
            if view not in found:
                found[view] = np.empty((len(block), *values.shape[1:]), values.dtype)
            found[view][start : start + rows] = values
    return found
