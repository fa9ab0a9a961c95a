"""Doing a plan: each scan read once for all its waists, its keys counted, the parts kept.

While one scan reads, the keys of those before are counted and kept: of one in DuckDB, of another in Python.
"""

from collections import deque
from collections.abc import Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace
from typing import TYPE_CHECKING, Final

from ibstore.analyze import estimates
from ibstore.analyze.estimate.entropy import CountsOfCounts
from ibstore.analyze.grammar import Recipe
from ibstore.analyze.narrow import Edges
from ibstore.analyze.parts import Parts, unreadable
from ibstore.analyze.plan import Budget, Scan, kept_bytes
from ibstore.analyze.scan import fit_together, nan_epochs, scan
from ibstore.analyze.sources import input_source, layer_source
from ibstore.analyze.tasks import Task
from ibstore.errors import ValuesError
from ibstore.events import Emit, Event
from ibstore.store.format.layout import listed

if TYPE_CHECKING:
    from ibstore.analyze.sql.counts import KeyCounter

BESIDE: Final = 2
"""Scans whose keys are counted and kept while another reads."""


def compute(scans: Sequence[Scan], estimators: Sequence[str], parts: Parts, budget: Budget, emit: Emit) -> None:
    """Do the scans, one after another, and keep the counts of their tasks and what the estimators make of them."""
    if not scans:
        return
    from ibstore.analyze.sql.counts import KeyCounter

    for task in {(task.split.data, task.waist.x): task for each in scans for task in each.tasks}.values():
        input_source(task, budget.threads).form(task.waist.x)  # refuses what does not fit before anything is computed
    tasks = [task for each in scans for task in each.tasks]
    with KeyCounter(budget.counting, budget.threads) as counter, ThreadPoolExecutor(BESIDE) as beside:
        engine = _Engine(tasks, estimators, counter, parts, budget, beside)
        for done, each in enumerate(scans):
            emit(Event("analyze", done, len(scans), _title(each)))
            engine.do(each)
        engine.settle()
        emit(Event("analyze", len(scans), len(scans)))


def keep_inputs(tasks: Sequence[Task], parts: Parts, budget: Budget) -> dict[str, CountsOfCounts]:
    """Keep the patterns of a probe set's inputs; counts of counts of them, by content key, and of the labels, ``y``."""
    from ibstore.analyze.sql.counts import KeyCounter

    keeping = replace(budget, keep_keys="always")
    with KeyCounter(budget.counting, budget.threads) as counter, ThreadPoolExecutor(1) as beside:
        engine = _Engine(tasks, (), counter, parts, keeping, beside)
        engine.load(tasks[0])
        return engine.marginals()


def _title(each: Scan) -> str:
    task = each.tasks[0]
    return f"{task.run.name} · {task.layer.name} · epoch {listed(list(task.segment.record.epochs))}"


class _Engine:
    """What is carried from scan to scan: the input that is loaded, edges over a run, which parts are there."""

    def __init__(
        self,
        tasks: Sequence[Task],
        estimators: Sequence[str],
        counter: "KeyCounter",
        parts: Parts,
        budget: Budget,
        beside: ThreadPoolExecutor,
    ) -> None:
        self._estimators = estimators
        self._counter, self._parts, self._budget, self._beside = counter, parts, budget, beside
        self._device = budget.find_device()
        self._pending: deque[Future[None]] = deque()
        self._count = 0
        self._inputs: dict[str, dict[Recipe, str]] = {}
        self._tasks = tasks
        for task in self._tasks:
            names = self._inputs.setdefault(task.split.data, {})
            names.setdefault(task.waist.x, f"x{len(names)}")
        keys = {key for task in self._tasks for key in (task.x_key, task.t_key)}
        self._kept = parts.existing("patterns", keys)
        self._loaded: str | None = None
        self._fitted: tuple[tuple[str, ...], dict[Recipe, Edges]] = (), {}

    def do(self, each: Scan) -> None:
        """Read, and leave the keys to be counted and kept while the next scan reads."""
        task = each.tasks[0]
        if task.split.data != self._loaded:
            self.load(task)
        self._count += 1
        names = {recipe: f"t{self._count}_{number}" for number, recipe in enumerate((*each.recipes, *each.recalled))}
        for recipe, key in each.recalled.items():
            self._recall(names[recipe], key)
        if each.recipes:
            self._scan(each, names)
        self.settle(BESIDE - 1)
        self._pending.append(self._beside.submit(self._keep_all, each, names))

    def _scan(self, each: Scan, names: dict[Recipe, str]) -> None:
        segment = each.tasks[0].segment
        over_run = self._edges_over_run(each)
        edges = {recipe: over_run.get(recipe, each.fits.get(recipe, 0)) for recipe in each.recipes}
        everything = range(len(segment.record.epochs))
        try:
            self._scan_epochs(each, names, edges, everything)
        except ValuesError:
            refused = nan_epochs(layer_source(each.tasks[0], [segment], each.threads), each.recipes)
            if len(everything) == 1 or not any(refused.values()):
                raise
            for name in names.values():
                self._counter.drop(name)
            for some in set(refused.values()) - {frozenset(everything)}:
                sound = [position for position in everything if position not in some]
                self._scan_epochs(each, names, {one: edges[one] for one in edges if refused[one] == some}, sound)

    def _scan_epochs(
        self, each: Scan, names: dict[Recipe, str], edges: Mapping[Recipe, Edges | int], positions: Sequence[int]
    ) -> None:
        """Give the counter the keys of a segment's epochs at some positions."""
        task = each.tasks[0]
        epochs = [task.segment.record.epochs[position] for position in positions]
        scan(
            layer_source(task, [task.segment], each.threads, positions),
            edges,
            lambda recipe, epoch, start, keys: self._counter.take(names[recipe], epochs[epoch], start, keys),
            held=each.held,
            threads=each.threads,
            device=self._device,
        )

    def _recall(self, name: str, key: str) -> None:
        """Give the counter keys that are kept."""
        found = self._parts.rows("patterns", [key])
        if not found or not self._counter.recall(name, found[0].to_arrow()):
            raise unreadable(self._parts.storage.where(f"patterns/{key}.parquet"), "it has not all samples")

    def settle(self, but: int = 0) -> None:
        """Wait until what was read is counted and kept, ``but`` so many scans."""
        while len(self._pending) > but:
            self._pending.popleft().result()

    def _keep_all(self, each: Scan, names: dict[Recipe, str]) -> None:
        for recipe, name in names.items():
            tasks = {task.counts_key: task for task in each.tasks if task.recipe == recipe}
            if recipe in each.kept and name in self._counter:
                self._keep_patterns(next(iter(tasks.values())).t_key, name)
            self._keep(list(tasks.values()), name)
            self._counter.drop(name)

    def load(self, task: Task) -> None:
        """Give the counter a probe set: samples, labels, and the input under every recipe that a waist has for it."""
        self.settle()
        probe, names = task.run.probe(task.split), self._inputs[task.split.data]
        self._counter.begin(probe.samples(), probe.classes())
        source = input_source(task, self._budget.threads)
        keys = {each.waist.x: each.x_key for each in self._tasks if each.split.data == task.split.data}
        there = {recipe for recipe, key in keys.items() if key in self._kept}
        for recipe in there:
            self._recall(names[recipe], keys[recipe])
        unread = {recipe: self._budget.counting for recipe in names if recipe not in there}
        scan(
            source,
            unread,
            lambda recipe, _, start, keys: self._counter.take(names[recipe], None, start, keys),
            device=self._device,
        )
        for recipe, name in names.items():
            self._counter.name_inputs(name)
            form = source.form(recipe)
            if recipe in unread and self._budget.keeps(kept_bytes(recipe, form), source.bytes):
                self._keep_patterns(keys[recipe], name)
        self._loaded = task.split.data

    def marginals(self) -> dict[str, CountsOfCounts]:
        """Of the inputs of the probe set that is loaded, by content key, and of its labels, ``y``."""
        found = self._counter.marginals
        named = self._inputs[self._loaded] if self._loaded else {}
        keys = {task.waist.x: task.x_key for task in self._tasks if task.split.data == self._loaded}
        labels = {"y": found["y"]} if "y" in found else {}
        return labels | {keys[recipe]: found[name] for recipe, name in named.items()}

    def _edges_over_run(self, each: Scan) -> dict[Recipe, Edges]:
        """Edges that hold for all epochs of the scan's run, fitted when they are first asked for."""
        task = each.tasks[0]
        recipes = [recipe for recipe in each.recipes if recipe.per == "run"]
        whose = (task.run.name, task.split.name, task.layer.name)
        known, edges = self._fitted
        if recipes and (known != whose or not set(recipes) <= set(edges)):
            source = layer_source(task, task.run.segments, each.threads)
            edges = fit_together(source, recipes, self._budget.counting // len(recipes))
            self._fitted = whose, edges
        return {recipe: edges[recipe] for recipe in recipes}

    def _keep(self, tasks: Sequence[Task], name: str) -> None:
        """Count the keys of a recipe, and keep what hangs on them of the tasks that it is the recipe of."""
        names = self._inputs[tasks[0].split.data]
        inputs = dict.fromkeys(names[task.waist.x] for task in tasks)
        counted = self._counter.counts(name, list(inputs)) if name in self._counter else {}
        for task in tasks:
            estimates.keep(task, counted.get(names[task.waist.x], {}), self._estimators, self._parts)

    def _keep_patterns(self, key: str, name: str) -> None:
        """Keep the keys of a variable, unless they are there."""
        if key not in self._kept:
            self._parts.put("patterns", key, self._counter.patterns(name, key))
            self._kept.add(key)
