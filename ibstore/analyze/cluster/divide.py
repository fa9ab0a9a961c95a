"""A layer that is too large for one piece of work: divided into blocks of samples, whose parts are put together.

Edges are fitted in passes over all blocks, as in one process: what these find is joined by a worker, and this process
learns no more than brackets and edges. Then the keys of each block are counted, and at last the counts are added up.
Edges and counts are kept as soon as they are there, so that whatever ends costs no more than what is in flight.
"""

from collections.abc import Generator, Iterator, Sequence
from typing import TYPE_CHECKING, Any, Final
from uuid import uuid4

from ibstore.analyze.cluster.blocks import (
    TABLE,
    Block,
    Divided,
    count,
    joined,
    keep_edges,
    look,
    name_inputs,
    piece,
)
from ibstore.analyze.cluster.sums import add_up, finish
from ibstore.analyze.cluster.unit import Unit
from ibstore.analyze.looking import Key, Looking
from ibstore.analyze.narrow import fit, is_fitted
from ibstore.analyze.parts import content_key
from ibstore.analyze.plan import Budget, bytes_to_fit, kept_bytes
from ibstore.analyze.scan import Passes
from ibstore.analyze.sources import layer_source
from ibstore.analyze.tasks import Task

if TYPE_CHECKING:
    from distributed import Client, Future

    from ibstore.analyze.cluster.hands import Script
    from ibstore.analyze.parts import Parts
    from ibstore.store import Segment

BLOCK_BYTES: Final = 256 << 20
"""Raw bytes of a block; a layer of no more is one piece of work."""

MOST_BLOCKS: Final = 1024
"""Of an epoch's layer: of one that is larger than 256 GiB blocks are larger, since each task costs the scheduler."""

MOST_ROWS: Final = 1 << 27
"""Rows whose counts are added up at one time: of more samples the keys are cut into parts by their hash."""


def is_large(task: Task) -> bool:
    """Whether a task's layer is read in blocks: an epoch of it is large, and each is a segment of its own."""
    source = layer_source(task, _passed_over(task), 1)
    several = len(task.segment.files(task.split, task.layer)) > 2  # noqa: PLR2004  (a shard, and what describes it)
    return several and len(source.names) == len(_passed_over(task)) and source.bytes > BLOCK_BYTES * len(source.names)


def _passed_over(task: Task) -> "Sequence[Segment]":
    """Segments that a task's edges are fitted on."""
    return task.run.segments if task.recipe.per == "run" else [task.segment]


def divided(unit: Unit, tasks: Sequence[Task], budget: Budget) -> Divided:
    """A unit of some tasks, which share the segments that they are fitted on, in blocks."""
    chosen = {task.segment.key for task in tasks}
    blocks = tuple(block for block in _blocks(tasks, budget) if block.segment in chosen)
    source = layer_source(tasks[0], [tasks[0].segment], 1)
    kept = {task.t_key: budget.keeps(kept_bytes(task.recipe, source.form(task.recipe)), source.bytes) for task in tasks}
    parts = -(-source.samples // MOST_ROWS)
    return Divided(unit, blocks, tuple(kept), tuple(key for key, keeps in kept.items() if keeps), parts)


def _blocks(tasks: Sequence[Task], budget: Budget) -> Iterator[Block]:
    """All samples of the segments that edges are fitted on; what fitting finds of a block has room."""
    task, source = tasks[0], layer_source(tasks[0], [tasks[0].segment], 1)
    recipes = {task.recipe for task in tasks if is_fitted(task.recipe)}
    found = sum(bytes_to_fit(recipe, source.form(recipe)) for recipe in recipes)
    blocks = max(1, min(MOST_BLOCKS, source.bytes // BLOCK_BYTES), found // budget.counting)
    for number, segment in enumerate(_passed_over(task)):
        for span in segment.array(task.split, task.layer).spans(1, -(-source.samples // blocks)):
            yield Block(segment.key, number, span.start, span.stop)


def script(client: "Client", work: Divided, tasks: Sequence[Task], parts: "Parts", budget: Budget) -> "Script":
    """How a layer in blocks is done."""
    inputs = {"x": sorted({task.x_key for task in tasks}), "kept": work.unit.results}
    marginals = client.submit(name_inputs, work.unit, key=f"ibstore-inputs-{content_key(inputs)}")
    yield from _fitted(client, work, tasks, parts, budget)
    counts = [
        client.submit(count, work, block, marginals, key=f"{work.key}-count{block.number}-{block.start}")
        for block in work.blocks
    ]
    sums = [
        client.submit(add_up, work, part, marginals, *counts, key=f"{work.key}-sum{part}") for part in range(work.parts)
    ]
    done = yield client.submit(finish, work, marginals, *sums, key=f"{work.key}-finish")
    for task in (each for each in tasks if done and is_fitted(each.recipe)):
        parts.storage.remove(f"{TABLE}/{task.edges_key}.parquet")
    return bool(done)


def _fitted(client: "Client", work: Divided, tasks: Sequence[Task], parts: "Parts", budget: Budget) -> "Script":
    """Edges of the tasks, in passes over all blocks, are kept."""
    fitted = {task.recipe: task for task in tasks if is_fitted(task.recipe)}
    there = parts.existing(TABLE, {task.edges_key for task in fitted.values()})
    lacking = {recipe: task for recipe, task in fitted.items() if task.edges_key not in there}
    if not lacking:
        return True
    source, blocks = layer_source(tasks[0], _passed_over(tasks[0]), 1), list(_blocks(tasks, budget))
    epochs, allowance = len(source.names), budget.counting // len(lacking)
    findings = {recipe: fit(recipe, source.form(recipe), epochs, allowance, at_once=True) for recipe in lacking}
    passes = Passes(source, {(recipe, None): finding for recipe, finding in findings.items()})
    while passes.wants:
        passes.advance((yield from _looked(client, work, blocks, passes.looking(passes.wants))))
    for (recipe, _), edges in passes.results.items():
        keep_edges(lacking[recipe], edges, parts)
    return True


def _looked(
    client: "Client", work: Divided, blocks: Sequence[Block], looking: Looking
) -> "Generator[Future[Any], Any, dict[Key, Any]]":
    """What a pass over all blocks finds, by key: each part of it is joined by itself, by whatever worker."""
    name = f"{work.key}-{uuid4().hex[:8]}"  # what is found hangs on the budget: it is for nobody else
    wanted = client.submit(_same, looking, key=f"{name}-looking")
    found = [
        client.submit(look, work, block, wanted, key=f"{name}-look{block.number}-{block.start}") for block in blocks
    ]
    joins = []
    for at, (key, want) in enumerate(looking.wants.items()):
        for number, part in enumerate(want.parts or [want]):
            place, among = f"{at}.{number}", number if want.parts else None
            pieces = [
                client.submit(piece, own, key, among, key=f"{name}-piece{place}-{own_number}")
                for own_number, own in enumerate(found)
            ]
            joins.append(client.submit(joined, part.join, *pieces, key=f"{name}-joined{place}"))
    del found, pieces
    results = iter((yield client.submit(_listed, *joins, key=f"{name}-all")))
    return {
        key: [next(results) for _ in want.parts] if want.parts else next(results) for key, want in looking.wants.items()
    }


def _same(looking: Looking) -> Looking:
    """What is wanted, as a result that workers hand on to each other."""
    return looking


def _listed(*found: Any) -> list[Any]:
    return list(found)
