"""What a worker is given: names and texts alone, from which it makes its part of the question anew."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from functools import cached_property, lru_cache
from typing import TYPE_CHECKING, Any, Final

from ibstore.analyze.parts import VERSION, Parts, content_key
from ibstore.analyze.plan import LEAST, Budget
from ibstore.analyze.waist import Waist
from ibstore.errors import IbstoreError
from ibstore.events import ignore
from ibstore.store import Store
from ibstore.store.format.arrays import turn_down
from ibstore.store.places import open_storage

if TYPE_CHECKING:
    from ibstore.analyze.selection import Selection

SHARE: Final = 0.7
"""Part of its limit that a worker's work may take: beyond 0.8 of it Dask pauses a worker, and ends it at 0.95."""


@dataclass(frozen=True, eq=False)
class Unit:
    """A layer of a run's split in some segments, under all the waists of a question: read once, by one worker.

    Parameters
    ----------
    store, results
        Where they lie, as every worker finds them.
    run, split, layer, segments
        What is read.
    waists
        Recipes' texts by layer, by waist.
    channels, epochs, estimators
        As of the question.
    content
        Name of the values that it is about: a store may be made anew at its place.
    budget
        What a worker may use, by the names of `Budget.of`; memory is at most what the worker has.
    version
        Of the numbers, which workers must share with whoever asks.
    """

    store: str
    results: str
    run: str
    split: str
    layer: str
    segments: tuple[str, ...]
    waists: Mapping[str, Mapping[str, str]]
    channels: str
    epochs: tuple[int, ...] | None
    estimators: tuple[str, ...]
    content: str
    budget: Mapping[str, Any]
    version: int = VERSION

    @cached_property
    def key(self) -> str:
        """Name of the work, the same whoever asks for it again."""
        about = {name: value for name, value in vars(self).items() if name not in {"budget", "key"}}
        return f"ibstore-{self.run}-{self.layer}-{content_key(about | {'keep_keys': self.budget['keep_keys']})}"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Unit) and (self.key, self.budget) == (other.key, other.budget)

    def __hash__(self) -> int:
        return hash(self.key)

    @property
    def title(self) -> str:
        """For progress."""
        return f"{self.run} · {self.layer}"

    def selection(self) -> "Selection":
        """The unit as a question of its own."""
        from ibstore.analyze.selection import Selection

        waists = [Waist.of(name, texts) for name, texts in self.waists.items()]
        budget = Budget.of(**{**self.budget, "memory": _memory(self.budget["memory"])})
        store, parts = _opened(self.store), Parts(open_storage(self.results))
        whole = Selection.of(
            store, parts, waists, self.run, self.layer, self.epochs, None, self.channels, budget, ignore
        )
        own = [task for task in whole.todo if task.split.name == self.split and task.segment.key in self.segments]
        return replace(whole, todo=own)


@lru_cache(maxsize=16)
def opened(unit: Unit) -> "Selection":
    """The unit as a question of its own; for each of its blocks it is asked again."""
    if unit.version != VERSION:
        raise IbstoreError(
            f"the worker's ibstore gives numbers of version {VERSION}, and {unit.version} are asked for; install the "
            "same version on both"
        )
    turn_down()
    return unit.selection()


@lru_cache(maxsize=4)
def _opened(location: str) -> Store:
    return Store.open(location)


def _memory(asked: int | None) -> int | None:
    """Bytes for one of the worker's threads: what was asked for, where the worker's limit has that."""
    from distributed import get_worker

    worker = get_worker()
    limit = worker.memory_manager.memory_limit
    return granted(asked, [limit / worker.state.nthreads] if limit else [])


def granted(asked: int | None, limits: Iterable[float]) -> int | None:
    """Bytes that a unit may take on workers of such limits a thread, at most what was asked for; None: no limit."""
    own = [max(LEAST, int(SHARE * limit)) for limit in limits]
    return min([*own, *([] if asked is None else [asked])], default=None)


def do(unit: Unit) -> str:
    """Compute and keep what the unit lacks; what is kept already costs a look."""
    opened(unit).compute(unit.estimators)
    return unit.title
