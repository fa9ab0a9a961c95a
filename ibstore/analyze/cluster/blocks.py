"""What a worker does with some samples of a layer.

Keys stay with the worker that made them: it keeps how often each was seen, and with which label and input, as Parquet
beside the results, for `sums`. Only what edges are fitted with, a few values out of hundreds, goes from worker to
worker.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from ibstore.analyze import estimates
from ibstore.analyze.cache import BLOCKS
from ibstore.analyze.cluster.unit import Unit, opened
from ibstore.analyze.engine import keep_inputs
from ibstore.analyze.estimate.entropy import CountsOfCounts
from ibstore.analyze.fit import Join, Pass
from ibstore.analyze.grammar import View
from ibstore.analyze.looking import Key
from ibstore.analyze.narrow import Edges, is_fitted
from ibstore.analyze.parts import Parts, content_key
from ibstore.analyze.scan import Memory, give_back, one_pass, scan
from ibstore.analyze.sources import layer_source
from ibstore.analyze.tasks import Task
from ibstore.errors import StoreError

if TYPE_CHECKING:
    from ibstore.analyze.selection import Selection

Marginals = Mapping[str, CountsOfCounts]
"""Counts of counts of a probe set's inputs, by content key, and of its labels, as ``y``."""


@dataclass(frozen=True)
class Block:
    """Samples ``start`` … ``stop`` − 1 of a layer in a segment of one epoch."""

    segment: str
    start: int
    stop: int

    @property
    def name(self) -> str:
        """For keys of work."""
        return f"{self.segment.rpartition('/')[2]}.{self.start}"

    @property
    def samples(self) -> range:
        """Rows of the split."""
        return range(self.start, self.stop)


@dataclass(frozen=True)
class Divided:
    """A unit whose layer is read in blocks.

    Parameters
    ----------
    unit
        What it is about.
    blocks
        All samples of the segments that edges are fitted on.
    t_keys, kept
        Content keys of the patterns that are lacking, and those of them that are kept.
    parts
        Into how many parts keys are cut by their hash: each is added up by itself.
    """

    unit: Unit
    blocks: tuple[Block, ...]
    t_keys: tuple[str, ...]
    kept: tuple[str, ...]
    parts: int = 1

    @property
    def key(self) -> str:
        """Name of the work, the same whoever asks for it again."""
        about = {"t": self.t_keys, "kept": self.kept, "parts": self.parts}
        return f"{self.unit.key}-{content_key(about | {'blocks': [vars(block) for block in self.blocks]})}"

    @property
    def counted(self) -> list[Block]:
        """Those of the segments that are asked for."""
        return [block for block in self.blocks if block.segment in self.unit.segments]

    def tasks(self, selection: "Selection", segment: str | None = None) -> list[Task]:
        """Its tasks, or those of a segment."""
        of_segment = [task for task in selection.todo if segment is None or task.segment.key == segment]
        return [task for task in of_segment if task.t_key in self.t_keys]


def name_inputs(unit: Unit) -> dict[str, CountsOfCounts]:
    """Keep the patterns of the unit's inputs; their `Marginals`."""
    selection = opened(unit)
    return keep_inputs(selection.todo, selection.parts, selection.budget)


@dataclass(frozen=True)
class Seen:
    """What was found of a block by whoever wanted to look, and its reduced values that are held for another time."""

    found: Mapping[Key, list[Any]]
    memory: Memory


def look(
    divided: Divided, block: Block, wants: Mapping[Key, Pass], held: frozenset[View], memory: Memory | None
) -> Seen:
    """Show a block of samples to whoever wants to look."""
    selection = opened(divided.unit)
    task = selection.todo[0]
    (segment,) = [each for each in task.run.segments if each.key == block.segment]
    source = layer_source(task, [segment], selection.budget.threads, within=block.samples)
    known = dict(memory or {})
    found = one_pass(source, wants, known, held, threads=selection.budget.threads)
    give_back()
    return Seen(found, known)


def memory(seen: Seen) -> Memory:
    """Reduced values that are held for another time."""
    return seen.memory


def piece(seen: Seen, key: Key, number: int | None) -> list[Any]:
    """What was found of a block for a key, or a part of it."""
    found = seen.found[key]
    return found if number is None else [each[number] for each in found]


def joined(join: Join, *found: Sequence[Any]) -> Any:
    """What the blocks' findings are together."""
    return join([each for own in found for each in own])


def count(divided: Divided, block: Block, marginals: Marginals, memory: Memory | None) -> None:
    """Keep the counts of a block's keys, unless they are kept."""
    selection = opened(divided.unit)
    wanted = uncounted(divided.tasks(selection, block.segment), selection.parts)
    due = {name for task in wanted for name in names_of(divided, task, block, marginals)}
    if due <= selection.parts.existing(BLOCKS, due):
        return
    found = {task.recipe: _edges(task, selection.parts) for task in wanted}
    edges = {recipe: own for recipe, own in found.items() if own is not None}
    tasks = {task.recipe: task for task in wanted if task.recipe in edges}
    if not tasks:
        return
    names = {recipe: f"t{number}" for number, recipe in enumerate(tasks)}
    from ibstore.analyze.sql.counts import KeyCounter

    task, budget = next(iter(tasks.values())), selection.budget
    epochs = task.segment.record.epochs
    with KeyCounter(budget.counting, budget.threads) as counter:
        _begin(counter, task, block, counted_with(marginals, task), selection.parts)
        scan(
            layer_source(task, [task.segment], budget.threads, within=block.samples),
            edges,
            lambda recipe, epoch, start, keys: counter.take(names[recipe], epochs[epoch], start - block.start, keys),
            threads=budget.threads,
            device=budget.find_device(),
            memory=memory,
        )
        for recipe, own in tasks.items():
            contents = counter.partial(names[recipe], divided.parts)
            if own.t_key in divided.kept:
                contents.append(counter.patterns(names[recipe], own.t_key))
            for name, content in zip(names_of(divided, own, block, marginals), contents, strict=True):
                selection.parts.put(BLOCKS, name, content)


def _begin(counter: Any, task: Task, block: Block, together: Sequence[str], parts: Parts) -> None:
    """Give a counter the samples of a block, their labels, and their inputs."""
    import polars as pl

    probe, rows = task.run.probe(task.split), slice(block.start, block.stop)
    samples, classes = probe.samples()[rows], probe.classes()
    counter.begin(samples, None if classes is None else classes[rows])
    for key in together:
        (patterns,) = parts.rows("patterns", [key])
        own = pl.DataFrame({"sample": samples}).join(patterns, on="sample", how="left", maintain_order="left")
        counter.give(key, own["key"].to_arrow())


def counted_with(marginals: Marginals, task: Task) -> list[str]:
    """Inputs that a task's keys are counted with: those that do not tell every sample apart."""
    samples = task.split.samples
    return sorted(key for key, counts in marginals.items() if key != "y" and counts.distinct < samples)


def names_of(divided: Divided, task: Task, block: Block, marginals: Marginals) -> list[str]:
    """Names of what is kept of a block for a task: counts of each part of its keys, and the keys if they are kept."""
    from ibstore.analyze.sql.partial import HASH

    about = {"t": task.t_key, "samples": [block.start, block.stop]}
    hashed = {"hash": HASH, "parts": divided.parts} if divided.parts > 1 else {}
    counts = [
        content_key({"counts": counted_with(marginals, task), "part": part, **hashed, **about})
        for part in range(divided.parts)
    ]
    return [*counts, content_key({"patterns": True, **about})] if task.t_key in divided.kept else counts


def uncounted(tasks: Iterable[Task], parts: Parts) -> list[Task]:
    """Those whose counts are not kept by now: whoever else asked for them may have finished them."""
    by_key = {task.counts_key: task for task in tasks}
    there = parts.existing("counts", by_key.keys())
    return [task for key, task in by_key.items() if key not in there]


def _edges(task: Task, parts: Parts) -> Edges | int | None:
    """Edges that are kept; 0 where nothing is fitted, None where nobody needs them any more."""
    if not is_fitted(task.recipe):
        return 0
    found = parts.rows(BLOCKS, [task.edges_key])
    if not found:
        if not uncounted([task], parts):
            return None
        raise StoreError(
            f"{task.what}: its edges are not in {parts.storage.where(BLOCKS)}; name a folder that all workers and this "
            "process share, or a bucket, with --results; if they were removed meanwhile, analyze again"
        )
    rows = found[0]
    return np.array(rows["edges"].to_list(), np.float64).reshape(len(rows), -1).T


def keep_edges(task: Task, edges: Edges, parts: Parts) -> None:
    """Keep edges (edge, group), a row a group."""
    import polars as pl

    groups = pl.Series("edges", edges.T.tolist(), pl.List(pl.Float64))
    estimates.put(
        parts, BLOCKS, task.edges_key, groups.to_frame().select(pl.lit(task.edges_key).alias("part"), "edges")
    )
