"""One scan, many waists: a layer's stored values are read once for all recipes that want them.

Each block is read, reduced once for each reduction, and shown to every recipe with that reduction, in the thread that
decompressed it. A recipe that has to see the values again, to fit its edges, finds them reduced in memory where the
plan keeps them (`held`), and is shown the stored ones again where not: no layer is ever held as it is stored.
"""

import ctypes
import sys
from collections.abc import Callable, Generator, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from ibstore.analyze.encode import Packed
from ibstore.analyze.grammar import Call, Recipe
from ibstore.analyze.narrow import Edges, Form, Pass, fit, narrow, refuse_nan, takes_nan
from ibstore.errors import ValuesError, WaistError

Block = NDArray[Any]
Work = Callable[[int, int, Block], Any]
"""What is done to a block, (sample, …): position of its epoch in the scan, its first sample, its values."""

Sink = Callable[[Recipe, int, int, Packed], None]
"""Told of keys: recipe, position of the epoch, first sample, (sample, byte)."""

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
    remedy: str = "the network diverged; leave the epoch out with --epoch, or the run with --run"

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
    held: frozenset[Call] = frozenset(),
    threads: int = 1,
) -> None:
    """Give ``sink`` the keys of every epoch under each recipe.

    With each recipe come its edges, or the bytes that fitting them may take in each epoch. ``held`` are the reductions
    whose values are kept between passes.
    """
    forms = {recipe: source.form(recipe) for recipe in recipes}
    running: _Running = {
        (recipe, epoch): narrow(recipe, forms[recipe], edges)
        for recipe, edges in recipes.items()
        for epoch in range(len(source.names))
    }
    _Passes(source, running, held, sink).run(threads)


def fit_together(source: Source, recipes: Iterable[Recipe], allowance: int) -> dict[Recipe, Edges]:
    """Edges of each recipe from the values of all epochs of the source together; ``allowance`` bytes each."""
    together = len(source.names)
    running: _Running = {(recipe, None): fit(recipe, source.form(recipe), together, allowance) for recipe in recipes}
    passes = _Passes(source, running, frozenset(), lambda *_: None)
    passes.run(1)
    return {recipe: edges for (recipe, _), edges in passes.results.items()}


_Key = tuple[Recipe, int | None]
"""A recipe, and the epoch that it looks at; None where it looks at all of them."""

_Running = Mapping[_Key, Generator[Pass, Sequence[Any], Any]]


@dataclass
class _Passes:
    """Coroutines that want to look at a source's blocks, and the passes that show them."""

    source: Source
    running: _Running
    held: frozenset[Call]
    sink: Sink
    results: dict[_Key, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._wants = {key: next(each) for key, each in self.running.items()}
        self._memory: dict[Call, list[_Held]] = {}

    def run(self, threads: int) -> None:
        """Pass over the values until every coroutine has ended."""
        with ThreadPoolExecutor(threads) as pool:
            while self._wants:
                found: dict[_Key, list[Any]] = {key: [] for key in self._wants}
                stored, remembered = self._by_reduction()
                for call, keys in remembered.items():
                    for shown in pool.map(partial(self._look_again, keys), self._memory[call]):
                        self._take(shown, found)
                if stored:
                    for shown, kept in self.source.passes(partial(self._look_at_stored, stored)):
                        self._take(shown, found)
                        for call, held in kept.items():
                            self._memory.setdefault(call, []).append(held)
                self._advance(found)
                give_back()

    def _by_reduction(self) -> tuple[dict[Call, list[_Key]], dict[Call, list[_Key]]]:
        """Who still wants to look, by the reduction that they share: at stored values, and at those in memory."""
        stored: dict[Call, list[_Key]] = {}
        remembered: dict[Call, list[_Key]] = {}
        for key in self._wants:
            call = key[0].reduction
            (remembered if call in self._memory else stored).setdefault(call, []).append(key)
        return stored, remembered

    def _look_at_stored(
        self, stored: Mapping[Call, list[_Key]], epoch: int, start: int, block: Block
    ) -> "tuple[_Shown, dict[Call, _Held]]":
        """Reduce a block once for each reduction, and show it to whoever wants it; in any thread."""
        found: dict[_Key, Any] = {}
        kept = {}
        for call, values in _reduced({call: keys[0][0] for call, keys in stored.items()}, block).items():
            keys = stored[call]
            if not all(takes_nan(key[0]) for key in keys):
                refuse_nan(values, self.source.names[epoch], self.source.remedy)
            held = _Held(epoch, start, values)
            if call in self.held:
                kept[call] = held
            found |= self._look(keys, held)
        return _Shown(epoch, start, found), kept

    def _look_again(self, keys: list[_Key], held: "_Held") -> "_Shown":
        return _Shown(held.epoch, held.start, self._look(keys, held))

    def _look(self, keys: list[_Key], block: "_Held") -> dict[_Key, Any]:
        values = block.values.reshape(len(block.values), -1)
        try:
            return {
                key: self._wants[key].look(values, block.start)
                for key in keys
                if key[1] is None or key[1] == block.epoch
            }
        except ValueError as error:
            name = self.source.names[block.epoch]
            raise ValuesError(f"{name}: {error}; choose another discretization") from None

    def _take(self, shown: "_Shown", found: dict[_Key, list[Any]]) -> None:
        """Pass keys on at once, gather what else was found."""
        for key, finding in shown.found.items():
            if self._wants[key].keys:
                self.sink(key[0], shown.epoch, shown.start, finding)
            else:
                found[key].append(finding)

    def _advance(self, found: Mapping[_Key, Sequence[Any]]) -> None:
        """Give each coroutine what was found in the pass; those that have ended leave."""
        for key in list(self._wants):
            try:
                self._wants[key] = self.running[key].send(found[key])
            except StopIteration as ended:
                self.results[key] = ended.value
                del self._wants[key]


@dataclass(frozen=True, slots=True)
class _Held:
    """Reduced values, (sample, …), of an epoch from a sample on."""

    epoch: int
    start: int
    values: Block


@dataclass(frozen=True, slots=True)
class _Shown:
    """What each coroutine found in the block of an epoch that begins at a sample."""

    epoch: int
    start: int
    found: dict[_Key, Any]


def give_back() -> None:
    """Hand memory that is free back to the system (glibc; elsewhere nothing happens).

    Blocks are allocated in one thread and freed in another; what malloc keeps of them for each thread would add a half
    to what a scan takes.
    """
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None) if sys.platform == "linux" else None
    if trim is not None:
        trim(0)


def _reduced(recipes: Mapping[Call, Recipe], block: Block) -> dict[Call, Block]:
    """A block under each reduction, a few samples at a time: what all of them read stays in the processor's cache."""
    views = [call for call, recipe in recipes.items() if np.may_share_memory(recipe.reduce(block[:1]), block)]
    found = {call: recipes[call].reduce(block) for call in views}  # as of identity
    rows = max(1, SLICE_BYTES * len(block) // max(1, block.nbytes))
    for start in range(0, len(block), rows):
        for call in recipes.keys() - views:
            values = recipes[call].reduce(block[start : start + rows])
            if call not in found:
                found[call] = np.empty((len(block), *values.shape[1:]), values.dtype)
            found[call][start : start + rows] = values
    return found
