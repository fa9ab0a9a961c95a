"""One scan, many waists: a layer's stored values are read once for all recipes that want them.

Each block is read, reduced once for each reduction, and shown to every recipe with that reduction, in the thread that
decompressed it; epochs of a tiny layer come many in a block. A recipe that has to see the values again, to fit its
edges, finds them reduced in memory where the plan keeps them (`held`), and is shown the stored ones again where not: no
layer is ever held as it is stored.
"""

import ctypes
import sys
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any, Final

import numpy as np
from numpy.typing import NDArray

from ibstore.analyze.encode import Packed
from ibstore.analyze.grammar import Recipe, View
from ibstore.analyze.narrow import (
    DIVERGED,
    Edges,
    Form,
    Pass,
    fit,
    has_nan,
    is_fitted,
    nan_refused,
    narrow,
    takes_nan,
)
from ibstore.errors import ValuesError, WaistError

if TYPE_CHECKING:
    from ibstore.analyze.device import Device

Block = NDArray[Any]
Work = Callable[[int, int, Block], Any]
"""What is done to a block: position of its first epoch in the scan, its first sample, its values (epoch, sample, …)."""

Sink = Callable[[Recipe, int, int, Packed], None]
"""Told of keys: recipe, position of the epoch, first sample, (sample, byte)."""

Fit = Callable[[Recipe, Form, int, int], Generator[Pass, Sequence[Any], NDArray[np.float64]]]
"""What `narrow.fit` and `narrow.fit_levels` are."""

SLICE_BYTES: Final = 1 << 20


@dataclass(frozen=True)
class Source:
    """Stored values of a layer over some epochs, or of an input.

    Parameters
    ----------
    passes
        Called for each pass: does the work to every block, and gives the results epoch by epoch, in order.
    names
        What each epoch's values are, for messages: ``run 'seed0', layer 'conv1', epoch 3``.
    shape, dtype
        Of one sample's stored value.
    samples
        How many samples an epoch has.
    remedy
        What to do about NaN, for messages.
    """

    passes: Callable[[Work], Iterable[Any]]
    names: tuple[str, ...]
    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    samples: int
    remedy: str = DIVERGED

    @property
    def bytes(self) -> int:
        """Of all values, raw."""
        return len(self.names) * self.samples * int(np.prod(self.shape)) * self.dtype.itemsize

    def form(self, recipe: Recipe) -> Form:
        """What a recipe sees; WaistError where its reduction does not fit the shape."""
        return reduced_form(recipe, self.shape, self.dtype, self.samples, self.names[0])


def reduced_form(recipe: Recipe, shape: tuple[int, ...], dtype: np.dtype[Any], samples: int, what: str) -> Form:
    """Form of a recipe's reduced values.

    Raises
    ------
    WaistError
        When the recipe does not fit the shape, naming ``what`` has it.
    """
    try:
        like = recipe.reduce(np.zeros((1, *shape), dtype))
    except WaistError as error:
        raise WaistError(f"{what}: {error}") from None
    return Form(like.shape[1:], like.dtype, samples)


def scan(
    source: Source,
    recipes: Mapping[Recipe, Edges | int],
    sink: Sink,
    *,
    held: frozenset[View] = frozenset(),
    threads: int = 1,
    device: "Device | None" = None,
) -> None:
    """Give ``sink`` the keys of every epoch under each recipe.

    With each recipe come its edges, or the bytes that fitting them may take in each epoch. ``held`` are the reductions
    whose values are kept between passes. What a ``device`` can compute is computed there.
    """
    forms = {recipe: source.form(recipe) for recipe in recipes}
    running: _Running = {
        (recipe, epoch): narrow(recipe, forms[recipe], edges, device)
        for recipe, edges in recipes.items()
        for epoch in (range(len(source.names)) if is_fitted(recipe) and isinstance(edges, int) else [None])
    }
    _Passes(source, running, held, sink, device).run(threads)


def fit_together(
    source: Source, recipes: Iterable[Recipe], allowance: int, find: Fit = fit
) -> dict[Recipe, NDArray[np.float64]]:
    """Edges of each recipe, or what else ``find`` finds, from all epochs together; ``allowance`` bytes each."""
    together = len(source.names)
    running: _Running = {(recipe, None): find(recipe, source.form(recipe), together, allowance) for recipe in recipes}
    passes = _Passes(source, running, frozenset(), lambda *_: None)
    passes.run(1)
    return {recipe: edges for (recipe, _), edges in passes.results.items()}


def nan_epochs(source: Source, recipes: Iterable[Recipe]) -> dict[Recipe, frozenset[int]]:
    """Epochs, by their position in the source, that have NaN where a recipe has no bin for it."""
    asked = list(recipes)

    def look(epoch: int, _: int, block: Block) -> list[tuple[Recipe, int]]:
        rows = block.reshape(-1, *block.shape[2:])
        reduced = {
            recipe: recipe.reduce(rows).reshape(*block.shape[:2], -1) for recipe in asked if not takes_nan(recipe)
        }
        return [
            (recipe, at) for recipe, values in reduced.items() for at, own in enumerate(values, epoch) if has_nan(own)
        ]

    found = [pair for pairs in source.passes(look) for pair in pairs]
    return {recipe: frozenset(epoch for whose, epoch in found if whose == recipe) for recipe in asked}


_Key = tuple[Recipe, int | None]
"""A recipe, and the epoch that it looks at; None where it looks at all of them."""

_Running = Mapping[_Key, Generator[Pass, Sequence[Any], Any]]


@dataclass
class _Passes:
    """Coroutines that want to look at a source's blocks, and the passes that show them."""

    source: Source
    running: _Running
    held: frozenset[View]
    sink: Sink
    device: "Device | None" = None
    results: dict[_Key, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._wants = {key: next(each) for key, each in self.running.items()}
        self._memory: dict[View, list[_Held]] = {}

    def run(self, threads: int) -> None:
        """Pass over the values until every coroutine has ended."""
        with ThreadPoolExecutor(threads) as pool:
            while self._wants:
                gathered: dict[_Key, list[Any]] = {key: [] for key in self._wants}
                stored, remembered = self._by_reduction()
                for view, lookers in remembered.items():
                    for found in pool.map(partial(self._look, lookers), self._memory[view]):
                        self._take(found, gathered)
                if stored:
                    for found, kept in self.source.passes(partial(self._look_at_stored, stored)):
                        self._take(found, gathered)
                        for view, held in kept.items():
                            self._memory.setdefault(view, []).append(held)
                self._advance(gathered)
                give_back()

    def _by_reduction(self) -> "tuple[dict[View, _Lookers], dict[View, _Lookers]]":
        """Who still wants to look, by the reduction that they share: at stored values, and at those in memory."""
        stored: dict[View, _Lookers] = {}
        remembered: dict[View, _Lookers] = {}
        for recipe, epoch in self._wants:
            lookers = remembered if recipe.view in self._memory else stored
            lookers.setdefault(recipe.view, _Lookers()).add(recipe, epoch)
        return stored, remembered

    def _look_at_stored(
        self, stored: "Mapping[View, _Lookers]", epoch: int, start: int, block: Block
    ) -> "tuple[list[_Found], dict[View, _Held]]":
        """Reduce a block once for each reduction, and show it to whoever wants it; in any thread."""
        found: list[_Found] = []
        kept = {}
        rows = block.reshape(-1, *block.shape[2:])
        recipes = {view: lookers.recipes[0] for view, lookers in stored.items()}
        for view, reduced in _reduced(recipes, rows, self.device).items():
            values = reduced.reshape(*block.shape[:2], -1)
            if not stored[view].take_nan:
                self._refuse_nan(epoch, values)
            held = _Held(epoch, start, values)
            if view in self.held:
                kept[view] = held
            found += self._look(stored[view], held)
        return found, kept

    def _refuse_nan(self, first: int, values: Block) -> None:
        """Return when no epoch of the values has NaN; ValuesError then, naming the first that has."""
        if has_nan(values):
            epoch = next(epoch for epoch, own in enumerate(values, first) if has_nan(own))
            raise nan_refused(self.source.names[epoch], self.source.remedy)

    def _look(self, lookers: "_Lookers", block: "_Held") -> "list[_Found]":
        """What each coroutine finds, epoch by epoch, in the epochs that it looks at."""
        anywhere = [key for key in lookers.at(None) if not self._wants[key].keys]
        found = [each for key in lookers.at(None) if self._wants[key].keys for each in self._keys(key, block)]
        for epoch, values in enumerate(block.values, block.epoch):
            place = epoch, block.start
            found += [_Found(key, *place, self._finding(key, *place, values)) for key in lookers.at(epoch) + anywhere]
        return found

    def _keys(self, key: _Key, block: "_Held") -> "Iterator[_Found]":
        """Keys of all epochs of a block, made at one time: with many tiny epochs that is a tenth of the work."""
        epochs, samples, units = block.values.shape
        try:
            found = self._wants[key].look(block.values.reshape(epochs * samples, units), block.start)
            keys = found.reshape(epochs, samples, -1)
        except ValueError:  # which of the epochs cannot be discretized?
            keys = [self._finding(key, block.epoch + n, block.start, own) for n, own in enumerate(block.values)]
        return (_Found(key, block.epoch + n, block.start, own) for n, own in enumerate(keys))

    def _finding(self, key: _Key, epoch: int, start: int, values: Block) -> Any:
        try:
            return self._wants[key].look(values, start)
        except ValueError as error:
            name = self.source.names[epoch]
            raise ValuesError(f"{name}: {error}; choose another discretization") from None

    def _take(self, found: "Iterable[_Found]", gathered: dict[_Key, list[Any]]) -> None:
        """Pass keys on at once, gather what else was found."""
        for each in found:
            if self._wants[each.key].keys:
                self.sink(each.key[0], each.epoch, each.start, each.finding)
            else:
                gathered[each.key].append(each.finding)

    def _advance(self, found: Mapping[_Key, Sequence[Any]]) -> None:
        """Give each coroutine what was found in the pass; those that have ended leave."""
        for key in list(self._wants):
            try:
                self._wants[key] = self.running[key].send(found[key])
            except StopIteration as ended:
                self.results[key] = ended.value
                del self._wants[key]


@dataclass
class _Lookers:
    """Coroutines that share a reduction, by the epoch that they look at: there may be thousands of epochs."""

    recipes: list[Recipe] = field(default_factory=list)
    take_nan: bool = True
    _keys: dict[int | None, list[_Key]] = field(default_factory=dict)

    def add(self, recipe: Recipe, epoch: int | None) -> None:
        if recipe not in self.recipes:
            self.recipes.append(recipe)
            self.take_nan &= takes_nan(recipe)
        self._keys.setdefault(epoch, []).append((recipe, epoch))

    def at(self, epoch: int | None) -> list[_Key]:
        """Those that look at this epoch alone; for None, those that look at all of them."""
        return self._keys.get(epoch, [])


@dataclass(frozen=True, slots=True)
class _Held:
    """Reduced values, (epoch, sample, unit), from an epoch and a sample on."""

    epoch: int
    start: int
    values: Block


@dataclass(frozen=True, slots=True)
class _Found:
    """What a coroutine found in the values of an epoch from a sample on."""

    key: _Key
    epoch: int
    start: int
    finding: Any


def give_back() -> None:
    """Hand memory that is free back to the system (glibc; elsewhere nothing happens).

    Blocks are allocated in one thread and freed in another; what malloc keeps of them for each thread would add a half
    to what a scan takes.
    """
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None) if sys.platform == "linux" else None
    if trim is not None:
        trim(0)


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
