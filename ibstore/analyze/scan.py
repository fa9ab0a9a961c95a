"""One scan, many waists: a layer's stored values are read once for all recipes that want them.

Each block is read, reduced once for each reduction, and shown to every recipe with that reduction, in the thread that
decompressed it; epochs of a tiny layer come many in a block. A recipe that has to see the values again, to fit its
edges, finds them reduced in memory where the plan keeps them (`held`), and is shown the stored ones again where not: no
layer is ever held as it is stored.
"""

import ctypes
import sys
from collections.abc import Callable, Generator, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from ibstore.analyze.encode import Packed
from ibstore.analyze.fit import Finding, Pass
from ibstore.analyze.grammar import Recipe, View
from ibstore.analyze.looking import Block, Found, Held, Key, Looking
from ibstore.analyze.narrow import DIVERGED, Edges, Form, fit, has_nan, is_fitted, narrow, takes_nan
from ibstore.errors import WaistError

if TYPE_CHECKING:
    from ibstore.analyze.device import Device

Work = Callable[[int, int, Block], Any]
"""What is done to a block: position of its first epoch in the scan, its first sample, its values (epoch, sample, …)."""

Sink = Callable[[Recipe, int, int, Packed], None]
"""Told of keys: recipe, position of the epoch, first sample, (sample, byte)."""

Fit = Callable[[Recipe, Form, int, int], Finding]
"""What `narrow.fit` and `narrow.fit_levels` are."""


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
    Passes(source, running, held, sink, device).run(threads)


def fit_together(source: Source, recipes: Iterable[Recipe], allowance: int, find: Fit = fit) -> dict[Recipe, Edges]:
    """Edges of each recipe, or what else ``find`` finds, from all epochs together; ``allowance`` bytes each."""
    together = len(source.names)
    passes = Passes(
        source, {(recipe, None): find(recipe, source.form(recipe), together, allowance) for recipe in recipes}
    )
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


_Running = Mapping[Key, Generator[Pass, Any, Any]]


@dataclass
class Passes:
    """Coroutines that want to look at a source's blocks, and the passes that show them."""

    source: Source
    running: _Running
    held: frozenset[View] = frozenset()
    sink: Sink = lambda *_: None
    device: "Device | None" = None
    results: dict[Key, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._memory: dict[View, list[Held]] = {}
        self.wants = {key: next(each) for key, each in self.running.items()}

    def run(self, threads: int) -> None:
        """Pass over the values until every coroutine has ended."""
        with ThreadPoolExecutor(threads) as pool:
            while self.wants:
                gathered: dict[Key, list[Any]] = {key: [] for key in self.wants}
                remembered = {key: each for key, each in self.wants.items() if key[0].view in self._memory}
                again = self.looking(remembered)
                for view, lookers in again.by_view.items():
                    for found in pool.map(partial(again.look, lookers), self._memory[view]):
                        self._take(found, gathered)
                if stored := {key: each for key, each in self.wants.items() if key not in remembered}:
                    for found, kept in self.source.passes(self.looking(stored)):
                        self._take(found, gathered)
                        for view, held in kept.items():
                            self._memory.setdefault(view, []).append(held)
                self.advance({key: self._joined(key, found) for key, found in gathered.items()})
                give_back()

    def looking(self, wants: Mapping[Key, Pass]) -> Looking:
        """What is done to each block in a pass."""
        return Looking(wants, self.source.names, self.source.remedy, self.held, self.device)

    def _take(self, found: Iterable[Found], gathered: dict[Key, list[Any]]) -> None:
        """Pass keys on at once, gather what else was found."""
        for each in found:
            if self.wants[each.key].join:
                gathered[each.key].append(each.finding)
            else:
                self.sink(each.key[0], each.epoch, each.start, each.finding)

    def _joined(self, key: Key, found: list[Any]) -> Any:
        join = self.wants[key].join
        return join(found) if join else None

    def advance(self, found: Mapping[Key, Any]) -> None:
        """Give each coroutine what was found in the pass; those that have ended leave."""
        for key in list(self.wants):
            try:
                self.wants[key] = self.running[key].send(found[key])
            except StopIteration as ended:
                self.results[key] = ended.value
                del self.wants[key]


def give_back() -> None:
    """Hand memory that is free back to the system (glibc; elsewhere nothing happens).

    Blocks are allocated in one thread and freed in another; what malloc keeps of them for each thread would add a half
    to what a scan takes.
    """
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None) if sys.platform == "linux" else None
    if trim is not None:
        trim(0)
