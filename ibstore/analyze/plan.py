"""What an analysis will read, keep and count, decided before it starts: arithmetic on sizes, nothing is read for it.

A *scan* is one reading of a segment's layer for every waist that lacks it; where all its keys are kept from before, it
is recalled and not read. The memory that the user grants is shared out here: blocks in flight, values held between
passes, fitting, counting. What has no room is read again, fitted some columns at a time, or spilled by DuckDB; it is
never refused, and never approximated.
"""

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Final

import numpy as np

from ibstore.analyze.discretize import Binning, Coding
from ibstore.analyze.encode import DIGEST_BYTES, WIDEST, bits_for
from ibstore.analyze.grammar import Recipe, View
from ibstore.analyze.narrow import Form, is_fitted
from ibstore.analyze.scan import reduced_form
from ibstore.analyze.tasks import Task
from ibstore.errors import IbstoreError, UsageError
from ibstore.store.committed import TURN_BYTES

if TYPE_CHECKING:
    import polars as pl

    from ibstore.analyze.device import Device

BASE: Final = 416 << 20
"""What the interpreter and the libraries take before anything is read (measured)."""

TORCH: Final = 1 << 30
"""What torch takes of the host's memory beside it, where a device of its is used."""

LEAST: Final = 768 << 20
"""Less memory than this cannot be promised."""

LEAST_FREE: Final = 32 << 20
"""With less for fitting a layer would be read hundreds of times."""

MOST_THREADS: Final = 1024

MOST_BY_DEFAULT: Final = 8 << 30
COUNTING: Final = 1 << 30

KEEPING: Final = ("auto", "always", "never")

WORTH: Final = 8
"""Keys are kept that take at most so small a part of what is read to compute them again."""

NO_MATTER: Final = 1 << 20
"""As few bytes are kept in any case."""


@dataclass(frozen=True)
class Budget:
    """What an analysis may use: bytes of memory, threads, and disk: whether keys are kept (one of `KEEPING`).

    And the device that narrows: ``cpu``, or one of torch's.
    """

    memory: int
    threads: int
    keep_keys: str = "auto"
    device: str = "cpu"

    def __post_init__(self) -> None:
        least = LEAST - BASE + self.base
        if self.memory < least:
            raise UsageError(f"{self.memory >> 20} MiB of memory cannot be kept; give at least {least >> 20} MiB")
        if not 1 <= self.threads <= MOST_THREADS:
            raise UsageError(f"threads is {self.threads}; give at least 1, and {MOST_THREADS} at most")
        if self.keep_keys not in KEEPING:
            raise UsageError(f"keys are kept {', '.join(KEEPING)}, not {self.keep_keys!r}; give one of these")

    @classmethod
    def of(
        cls, memory: int | None = None, threads: int | None = None, keep_keys: str = "auto", device: str = "cpu"
    ) -> "Budget":
        """Given figures, or half of the memory that is free (8 GiB at most) and a thread for each core."""
        import psutil

        free = min(MOST_BY_DEFAULT, psutil.virtual_memory().available // 2)
        cores = len(psutil.Process().cpu_affinity()) if hasattr(psutil.Process, "cpu_affinity") else psutil.cpu_count()
        least = LEAST + TORCH * (device != "cpu")
        default = max(least, free), cores or 1
        given = default[0] if memory is None else memory, default[1] if threads is None else threads
        return cls(*given, keep_keys, device)

    @property
    def base(self) -> int:
        """Taken by the interpreter and the libraries."""
        return BASE + TORCH * (self.device != "cpu")

    @property
    def counting(self) -> int:
        """Share of keys and of DuckDB."""
        return min(COUNTING, (self.memory - self.base) // 3)

    @property
    def values(self) -> int:
        """Share of values that are looked at as they are, and as much again to work on them."""
        return (self.memory - self.base) // 3

    def check_room(self, what: str, needed: int, advice: str, taken: int = 0) -> None:
        """Return when so many bytes have room beside what is taken; IbstoreError, with what to do, before they are."""
        room = max(0, self.memory - self.base - taken)
        if needed > room:
            raise IbstoreError(
                f"{what} take about {needed >> 20:,} MiB beside the values, and {room >> 20:,} MiB are left; {advice}, "
                "or give more --memory"
            )

    def find_device(self) -> "Device | None":
        """The device, where it is another than the CPU."""
        if self.device == "cpu":
            return None
        from ibstore.analyze.device import Device

        found = Device(self.device)
        return found if found.beside_the_cpu else None

    def keeps(self, bytes_of_keys: int, bytes_read: int) -> bool:
        """Whether keys of a size are kept, which it takes the reading of so many bytes to compute again.

        >>> auto = Budget(2 << 30, 2)
        >>> auto.keeps(100 << 20, 1 << 30), auto.keeps(300 << 20, 1 << 30), auto.keeps(1 << 10, 1 << 10)
        (True, False, True)
        """
        worth = bytes_of_keys <= max(NO_MATTER, bytes_read // WORTH)
        return self.keep_keys == "always" or (self.keep_keys == "auto" and worth)


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
        """At most of what is read at once, one piece or several small ones: raw, and the file that holds it."""
        files = max(1, self.files - 1)  # the last one may hold a single sample
        one = self.raw_bytes // (self.epochs * files)
        return max(one, min(TURN_BYTES, self.raw_bytes)) + self.stored_bytes // files


@dataclass(frozen=True)
class Scan:
    """One reading of a layer in a segment, for every task that lacks it.

    Parameters
    ----------
    tasks
        What is computed from it.
    sizes
        Of the layer.
    forms
        What each recipe sees whose keys are read.
    recalled
        Content keys of the patterns that are there, of the recipes whose keys are not read.
    budget
        Memory, threads, and whether keys are kept.
    """

    tasks: tuple[Task, ...]
    sizes: Sizes
    forms: Mapping[Recipe, Form]
    recalled: Mapping[Recipe, str]
    budget: Budget

    @property
    def recipes(self) -> tuple[Recipe, ...]:
        """Distinct recipes of the layer that it is read for."""
        return tuple(self.forms)

    @property
    def views(self) -> tuple[View, ...]:
        """Distinct reductions: each is computed once a block."""
        return tuple(dict.fromkeys(recipe.view for recipe in self.recipes))

    @cached_property
    def threads(self) -> int:
        """Blocks that are worked on side by side: as many as fit into half of what is free for them."""
        free = (self.budget.memory - self.budget.base - self.budget.counting) // 2
        return max(1, min(self.budget.threads, free // max(1, self.bytes_in_flight)))

    @property
    def bytes_in_flight(self) -> int:
        """A block as it is stored, raw, and reduced in every way, with the codes of one recipe."""
        reduced = {recipe.view: form.bytes for recipe, form in self.forms.items() if not recipe.view.is_stored}
        codes = max((form.samples * form.units for form in self.forms.values()), default=0)
        blocks = max(1, self.sizes.raw_bytes // self.sizes.epochs // max(1, self.sizes.block_bytes))
        return self.sizes.block_bytes + (sum(reduced.values()) + codes) // blocks

    @cached_property
    def fits(self) -> dict[Recipe, int]:
        """Bytes that fitting each recipe may take; a recipe that wants more is fitted some columns at a time."""
        wanted = {recipe: bytes_to_fit(recipe, form) for recipe, form in self.forms.items() if _by_epoch(recipe)}
        total = self.sizes.epochs * sum(wanted.values())
        share = min(1.0, self._free / 2 / total) if total else 1.0
        return {recipe: int(size * share) for recipe, size in wanted.items()}

    @property
    def fit_bytes(self) -> int:
        """Bytes that fitting all epochs may take."""
        return self.sizes.epochs * sum(self.fits.values())

    @cached_property
    def held(self) -> frozenset[View]:
        """Reductions whose values are kept between passes, the smallest first, as far as there is room."""
        fitted = {recipe.view: self.forms[recipe].bytes * self.sizes.epochs for recipe in self.fits}
        free = self._free - self.fit_bytes
        held = set()
        for view, size in sorted(fitted.items(), key=lambda item: (item[1], str(item[0]))):
            if size <= free:
                held.add(view)
                free -= size
        return frozenset(held)

    @property
    def held_bytes(self) -> int:
        """Bytes of the values that are kept between passes."""
        sizes = {recipe.view: form.bytes for recipe, form in self.forms.items()}
        return self.sizes.epochs * sum(sizes[view] for view in self.held)

    @property
    def passes(self) -> int:
        """How often the layer is read: again for fitting (sample, collect) and for keys where nothing is held."""
        if not self.forms:
            return 0
        again = [recipe for recipe in self.fits if recipe.view not in self.held]
        rounds = [-(-bytes_to_fit(recipe, self.forms[recipe]) // max(1, self.fits[recipe])) for recipe in again]
        return max([1, *(2 * each + 1 for each in rounds)])  # to sample and to collect, in each round, then to encode

    @property
    def key_bytes(self) -> int:
        """Bytes of the keys of all recipes that it is read for, as they are counted."""
        return self.sizes.epochs * sum(form.samples * key_bytes(recipe, form) for recipe, form in self.forms.items())

    @cached_property
    def kept(self) -> dict[Recipe, int]:
        """Recipes whose keys will be kept, since that is cheaper than to compute them again; bytes uncompressed."""
        sizes = {recipe: self.sizes.epochs * kept_bytes(recipe, form) for recipe, form in self.forms.items()}
        read = self.passes * self.sizes.raw_bytes
        return {recipe: size for recipe, size in sizes.items() if self.budget.keeps(size, read)}

    @property
    def peak_bytes(self) -> int:
        """About the most memory that the process will take."""
        counting = min(self.budget.counting, 8 * self.key_bytes)  # the scan's before are counted beside it
        return self.budget.base + self._flight + self.fit_bytes + self.held_bytes + counting

    @property
    def _free(self) -> int:
        """What is left for fitting and keeping."""
        return max(LEAST_FREE, self.budget.memory - self.budget.base - self.budget.counting - self._flight)

    @property
    def _flight(self) -> int:
        """Bytes of all blocks that are worked on at one time."""
        return self.threads * self.bytes_in_flight


def key_bytes(recipe: Recipe, form: Form) -> int:
    """Bytes of a pattern's key as it is counted."""
    discretize = recipe.discretize
    bits = discretize.bits(form.dtype) if isinstance(discretize, Coding) else bits_for(discretize.bins)
    width = -(-form.units * bits // 8)
    return width if width <= WIDEST else DIGEST_BYTES


def kept_bytes(recipe: Recipe, form: Form) -> int:
    """Bytes of an epoch's keys as they are kept: wide ones by their digest."""
    return form.samples * min(key_bytes(recipe, form), DIGEST_BYTES)


def _by_epoch(recipe: Recipe) -> bool:
    """Whether a recipe is fitted to each epoch."""
    return is_fitted(recipe) and recipe.per == "epoch"


def bytes_to_fit(recipe: Recipe, form: Form) -> int:
    """About what fitting a recipe's edges to an epoch takes."""
    discretize = recipe.discretize
    assert isinstance(discretize, Binning), "a coding is not fitted"
    population = form.population(recipe.scope)
    return population.groups * population.bytes_a_group(discretize.levels, form.dtype.itemsize)


def plan(tasks: Iterable[Task], budget: Budget, there: Collection[str] = ()) -> list[Scan]:
    """Scans that do the tasks, in the tasks' order: a layer of a segment is read once for all that want it.

    ``there`` are the content keys of patterns that are kept from before.
    """
    groups: dict[tuple[str, str, str, str], list[Task]] = {}
    for task in tasks:
        groups.setdefault((task.run.name, task.split.name, task.layer.name, task.segment.key), []).append(task)
    return [_scan(group, budget, there) for group in groups.values()]


def _scan(tasks: Sequence[Task], budget: Budget, there: Collection[str]) -> Scan:
    first = tasks[0]
    dtype, samples = np.dtype(first.layer.dtype), first.split.samples
    recalled = {task.recipe: task.t_key for task in tasks if task.t_key in there}
    recipes = dict.fromkeys(task.recipe for task in tasks if task.recipe not in recalled)
    forms = {recipe: reduced_form(recipe, first.layer.shape, dtype, samples, first.what) for recipe in recipes}
    files = first.segment.files(first.split, first.layer)
    epochs = len(first.segment.record.epochs)
    raw = epochs * samples * int(np.prod(first.layer.shape)) * dtype.itemsize
    sizes = Sizes(epochs, samples, raw, sum(info.bytes for info in files.values()), max(1, len(files) - 1))
    return Scan(tuple(tasks), sizes, forms, recalled, budget)


def explained(scans: Sequence[Scan]) -> "pl.DataFrame":
    """The plan as a table, a row a scan; sizes are bytes."""
    import polars as pl

    from ibstore.store.format.layout import listed

    rows = [
        {
            "run": scan.tasks[0].run.name,
            "split": scan.tasks[0].split.name,
            "layer": scan.tasks[0].layer.name,
            "epochs": listed(list(scan.tasks[0].segment.record.epochs)),
            "waists": len(scan.tasks),
            "recipes": len(scan.recipes),
            "recalled": len(scan.recalled),
            "reductions": len(scan.views),
            "raw_bytes": scan.sizes.raw_bytes if scan.passes else 0,
            "stored_bytes": scan.sizes.stored_bytes if scan.passes else 0,
            "passes": scan.passes,
            "held_bytes": scan.held_bytes,
            "fit_bytes": scan.fit_bytes,
            "key_bytes": scan.key_bytes,
            "kept_bytes": sum(scan.kept.values()),
            "threads": scan.threads,
            "peak_bytes": scan.peak_bytes,
        }
        for scan in scans
    ]
    texts = dict.fromkeys(("run", "split", "layer", "epochs"), pl.String)
    numbers = ("waists", "recipes", "recalled", "reductions", "raw_bytes", "stored_bytes", "passes", "held_bytes")
    more = ("fit_bytes", "key_bytes", "kept_bytes", "threads", "peak_bytes")
    return pl.DataFrame(rows, schema={**texts, **dict.fromkeys((*numbers, *more), pl.Int64)})
