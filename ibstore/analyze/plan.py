"""What an analysis will read, keep and count, decided before it starts: arithmetic on sizes, nothing is read for it.

A *scan* is one reading of a segment's layer for every waist that lacks it. The memory that the user grants is shared
out here: blocks in flight, values kept between passes, fitting, counting. What has no room is read again, fitted some
columns at a time, or spilled by DuckDB; it is never refused, and never approximated.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Final

import numpy as np

from ibstore.analyze.discretize import Binning, Coding
from ibstore.analyze.encode import WIDEST, bits_for
from ibstore.analyze.grammar import Call, Recipe
from ibstore.analyze.narrow import Form
from ibstore.analyze.plane import Task
from ibstore.analyze.scan import reduced_form
from ibstore.errors import UsageError

if TYPE_CHECKING:
    import polars as pl

BASE: Final = 448 << 20
"""What the interpreter and the libraries take before anything is read (measured)."""

LEAST: Final = 768 << 20
"""Less memory than this cannot be promised."""

LEAST_FREE: Final = 32 << 20
"""With less for fitting a layer would be read hundreds of times."""

MOST_THREADS: Final = 1024

MOST_BY_DEFAULT: Final = 8 << 30
COUNTING: Final = 1 << 30
DIGEST_BYTES: Final = 32


@dataclass(frozen=True)
class Budget:
    """What an analysis may use: bytes of memory, and threads."""

    memory: int
    threads: int

    def __post_init__(self) -> None:
        if self.memory < LEAST:
            raise UsageError(f"{self.memory >> 20} MiB of memory cannot be kept; give at least {LEAST >> 20} MiB")
        if not 1 <= self.threads <= MOST_THREADS:
            raise UsageError(f"threads is {self.threads}; give at least 1, and {MOST_THREADS} at most")

    @classmethod
    def of(cls, memory: int | None = None, threads: int | None = None) -> "Budget":
        """Given figures, or half of the memory that is free (8 GiB at most) and a thread for each core."""
        import psutil

        free = min(MOST_BY_DEFAULT, psutil.virtual_memory().available // 2)
        cores = len(psutil.Process().cpu_affinity()) if hasattr(psutil.Process, "cpu_affinity") else psutil.cpu_count()
        return cls(max(LEAST, free) if memory is None else memory, (cores or 1) if threads is None else threads)

    @property
    def counting(self) -> int:
        """Share of keys and of DuckDB."""
        return min(COUNTING, (self.memory - BASE) // 3)


@dataclass(frozen=True)
class Sizes:
    """Of a layer in a segment: epochs, samples, raw and stored bytes, and files that hold them."""

    epochs: int
    samples: int
    raw_bytes: int
    stored_bytes: int
    files: int

    @property
    def block_bytes(self) -> int:
        """At most of the largest piece that is read at once: raw, and the file that holds it."""
        files = max(1, self.files - 1)  # the last one may hold a single sample
        return self.raw_bytes // (self.epochs * files) + self.stored_bytes // files


@dataclass(frozen=True)
class Scan:
    """One reading of a layer in a segment, for every task that lacks it.

    Parameters
    ----------
    tasks
        What is computed from it.
    sizes
        Of what is read.
    forms
        What each recipe sees.
    budget
        Memory and threads.
    """

    tasks: tuple[Task, ...]
    sizes: Sizes
    forms: Mapping[Recipe, Form]
    budget: Budget

    @property
    def recipes(self) -> tuple[Recipe, ...]:
        """Distinct recipes of the layer."""
        return tuple(self.forms)

    @property
    def reductions(self) -> tuple[Call, ...]:
        """Distinct reductions: each is computed once a block."""
        return tuple(dict.fromkeys(recipe.reduction for recipe in self.recipes))

    @cached_property
    def threads(self) -> int:
        """Blocks that are worked on side by side: as many as fit into half of what is free for them."""
        free = (self.budget.memory - BASE - self.budget.counting) // 2
        return max(1, min(self.budget.threads, free // max(1, self.bytes_in_flight)))

    @property
    def bytes_in_flight(self) -> int:
        """A block as it is stored, raw, and reduced in every way, with the codes of one recipe."""
        reduced = {
            recipe.reduction: form.bytes for recipe, form in self.forms.items() if recipe.reduction.name != "identity"
        }  # identity is a view of what is raw
        codes = max(form.samples * form.units for form in self.forms.values())
        blocks = max(1, self.sizes.raw_bytes // self.sizes.epochs // max(1, self.sizes.block_bytes))
        return self.sizes.block_bytes + (sum(reduced.values()) + codes) // blocks

    @cached_property
    def fits(self) -> dict[Recipe, int]:
        """Bytes that fitting each recipe may take; a recipe that wants more is fitted some columns at a time."""
        wanted = {recipe: _fit_bytes(recipe, form) for recipe, form in self.forms.items() if _is_fitted(recipe)}
        total = self.sizes.epochs * sum(wanted.values())
        share = min(1.0, self._free / 2 / total) if total else 1.0
        return {recipe: int(size * share) for recipe, size in wanted.items()}

    @property
    def fit_bytes(self) -> int:
        """Bytes that fitting all epochs may take."""
        return self.sizes.epochs * sum(self.fits.values())

    @cached_property
    def held(self) -> frozenset[Call]:
        """Reductions whose values are kept between passes, the smallest first, as far as there is room."""
        fitted = {recipe.reduction: self.forms[recipe].bytes * self.sizes.epochs for recipe in self.fits}
        free = self._free - self.fit_bytes
        held = set()
        for call, size in sorted(fitted.items(), key=lambda item: (item[1], str(item[0]))):
            if size <= free:
                held.add(call)
                free -= size
        return frozenset(held)

    @property
    def held_bytes(self) -> int:
        """Bytes of the values that are kept between passes."""
        sizes = {recipe.reduction: form.bytes for recipe, form in self.forms.items()}
        return self.sizes.epochs * sum(sizes[call] for call in self.held)

    @property
    def passes(self) -> int:
        """How often the store is read: again for fitting (sample, collect) and for keys where nothing is kept."""
        again = [recipe for recipe in self.fits if recipe.reduction not in self.held]
        rounds = [-(-_fit_bytes(recipe, self.forms[recipe]) // max(1, self.fits[recipe])) for recipe in again]
        return max([1, *(2 * each + 1 for each in rounds)])  # to sample and to collect, in each round, then to encode

    @property
    def key_bytes(self) -> int:
        """Bytes of the keys of all recipes."""
        return self.sizes.epochs * sum(form.samples * key_bytes(recipe, form) for recipe, form in self.forms.items())

    @property
    def peak_bytes(self) -> int:
        """About the most memory that the process will take."""
        counting = min(self.budget.counting, 8 * self.key_bytes)  # the scan's before are counted beside it
        return BASE + self._flight + self.fit_bytes + self.held_bytes + counting

    @property
    def _free(self) -> int:
        """What is left for fitting and keeping."""
        return max(LEAST_FREE, self.budget.memory - BASE - self.budget.counting - self._flight)

    @property
    def _flight(self) -> int:
        """Bytes of all blocks that are worked on at one time."""
        return self.threads * self.bytes_in_flight


def key_bytes(recipe: Recipe, form: Form) -> int:
    """Bytes of a pattern's key."""
    discretize = recipe.discretize
    bits = discretize.bits(form.dtype) if isinstance(discretize, Coding) else bits_for(discretize.bins)
    width = -(-form.units * bits // 8)
    return width if width <= WIDEST else DIGEST_BYTES


def _is_fitted(recipe: Recipe) -> bool:
    """Whether a recipe's edges hang on an epoch's values."""
    discretize = recipe.discretize
    return isinstance(discretize, Binning) and bool(discretize.levels) and recipe.per == "epoch"


def _fit_bytes(recipe: Recipe, form: Form) -> int:
    discretize = recipe.discretize
    assert isinstance(discretize, Binning), "a coding is not fitted"
    population = form.population(recipe.scope)
    return population.groups * population.bytes_a_group(discretize.levels, form.dtype.itemsize)


def plan(tasks: Iterable[Task], budget: Budget) -> list[Scan]:
    """Scans that do the tasks, in the tasks' order: a layer of a segment is read once for all that want it."""
    groups: dict[tuple[str, str, str, str], list[Task]] = {}
    for task in tasks:
        groups.setdefault((task.run.name, task.split.name, task.layer.name, task.segment.key), []).append(task)
    return [_scan(group, budget) for group in groups.values()]


def _scan(tasks: Sequence[Task], budget: Budget) -> Scan:
    first = tasks[0]
    dtype, samples = np.dtype(first.layer.dtype), first.split.samples
    recipes = dict.fromkeys(task.recipe for task in tasks)
    forms = {recipe: reduced_form(recipe, first.layer.shape, dtype, samples, first.what) for recipe in recipes}
    files = first.segment.files(first.split, first.layer)
    epochs = len(first.segment.record.epochs)
    raw = epochs * samples * int(np.prod(first.layer.shape)) * dtype.itemsize
    sizes = Sizes(epochs, samples, raw, sum(info.bytes for info in files.values()), max(1, len(files) - 1))
    return Scan(tuple(tasks), sizes, forms, budget)


def explained(scans: Sequence[Scan]) -> "pl.DataFrame":
    """The plan as a table, a row a scan; sizes are bytes."""
    import polars as pl

    from ibstore.store.reader import listed

    rows = [
        {
            "run": scan.tasks[0].run.name,
            "split": scan.tasks[0].split.name,
            "layer": scan.tasks[0].layer.name,
            "epochs": listed(list(scan.tasks[0].segment.record.epochs)),
            "waists": len(scan.tasks),
            "recipes": len(scan.recipes),
            "reductions": len(scan.reductions),
            "raw_bytes": scan.sizes.raw_bytes,
            "stored_bytes": scan.sizes.stored_bytes,
            "passes": scan.passes,
            "held_bytes": scan.held_bytes,
            "fit_bytes": scan.fit_bytes,
            "key_bytes": scan.key_bytes,
            "threads": scan.threads,
            "peak_bytes": scan.peak_bytes,
        }
        for scan in scans
    ]
    texts = dict.fromkeys(("run", "split", "layer", "epochs"), pl.String)
    numbers = ("waists", "recipes", "reductions", "raw_bytes", "stored_bytes", "passes", "held_bytes", "fit_bytes")
    schema = {**texts, **dict.fromkeys((*numbers, "key_bytes", "threads", "peak_bytes"), pl.Int64)}
    return pl.DataFrame(rows, schema=schema)
