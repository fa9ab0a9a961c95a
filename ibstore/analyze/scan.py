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

Memory = dict[View, list[Held]]
"""Reduced values of a source's blocks."""

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
    memory: Memory | None = None,
) -> None:
    """Give ``sink`` the keys of every epoch under each recipe.

    With each recipe come its edges, or the bytes that fitting them may take in each epoch. ``held`` are the reductions
    whose values are kept between passes, ``memory`` has some that are there. What a ``device`` can compute is computed
    there.
    """
    forms = {recipe: source.form(recipe) for recipe in recipes}
    running: _Running = {
        (recipe, epoch): narrow(recipe, forms[recipe], edges, device)
        for recipe, edges in recipes.items()
        for epoch in (range(len(source.names)) if is_fitted(recipe) and isinstance(edges, int) else [None])
    }
    Passes(source, running, held, sink, device, memory or {}).run(threads)


def fit_together(source: Source, recipes: Iterable[Recipe], allowance: int, find: Fit = fit) -> dict[Recipe, Edges]:
    """Edges of each recipe, or what else ``find`` finds, from all epochs together; ``allowance`` bytes each."""
    passes = fitting(source, recipes, allowance, find)
    passes.run(1)
    return {recipe: edges for (recipe, _), edges in passes.results.items()}


def fitting(source: Source, recipes: Iterable[Recipe], allowance: int, find: Fit = fit) -> "Passes":
    """The passes that find it, for whoever makes them."""
    together = len(source.names)
    return Passes(
        source, {(recipe, None): find(recipe, source.form(recipe), together, allowance) for recipe in recipes}
    )


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
    """Coroutines that want to look at a source's blocks, and the passes that show them.

    ``memory`` has reduced values of all blocks; those of the reductions that are ``held`` are added by the first pass.
    """

    source: Source
    running: _Running
    held: frozenset[View] = frozenset()
    sink: Sink = lambda *_: None
    device: "Device | None" = None
    memory: Memory = field(default_factory=dict)
    results: dict[Key, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.wants = {key: next(each) for key, each in self.running.items()}

    def run(self, threads: int) -> None:
        """Pass over the values until every coroutine has ended."""
        while self.wants:
            found = one_pass(self.source, self.wants, self.memory, self.held, self.sink, self.device, threads)
            self.advance({key: each.join(found[key]) if each.join else None for key, each in self.wants.items()})
            give_back()

    def advance(self, found: Mapping[Key, Any]) -> None:
        """Give each coroutine what was found in the pass; those that have ended leave."""
        for key in list(self.wants):
            try:
                self.wants[key] = self.running[key].send(found[key])
            except StopIteration as ended:
                self.results[key] = ended.value
                del self.wants[key]


def one_pass(
    source: Source,
    wants: Mapping[Key, Pass],
    memory: Memory,
    held: frozenset[View] = frozenset(),
    sink: Sink = lambda *_: None,
    device: "Device | None" = None,
    threads: int = 1,
) -> dict[Key, list[Any]]:
    """What is found of each block by those who want to look, in memory or as it is stored; keys go to the sink."""
    gathered: dict[Key, list[Any]] = {key: [] for key in wants}
    remembered = {key: each for key, each in wants.items() if key[0].view in memory}
    stored = {key: each for key, each in wants.items() if key not in remembered}

    def take(found: Iterable[Found]) -> None:
        for each in found:
            if wants[each.key].join:
                gathered[each.key].append(each.finding)
            else:
                sink(each.key[0], each.epoch, each.start, each.finding)

    again = Looking(remembered, source.names, source.remedy)
    with ThreadPoolExecutor(threads) as pool:
        for view, lookers in again.by_view.items():
            for found in pool.map(partial(again.look, lookers), memory[view]):
                take(found)
    if stored:
        for found, kept in source.passes(Looking(stored, source.names, source.remedy, held, device)):
            take(found)
            for view, own in kept.items():
                memory.setdefault(view, []).append(own)
    return gathered


def give_back() -> None:
    """Hand memory that is free back to the system (glibc; elsewhere nothing happens).

    Blocks are allocated in one thread and freed in another; what malloc keeps of them for each thread would add a half
    to what a scan takes.
    """
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None) if sys.platform == "linux" else None
    if trim is not None:
        trim(0)
