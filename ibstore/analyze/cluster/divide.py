"""A layer that is too large for one piece of work: divided into blocks of samples, whose parts are put together.

Edges are fitted in passes over all blocks, as in one process: what these find is joined by a worker, and this process
learns no more than brackets and edges. Then the keys of each block are counted, and at last the counts are added up.
Edges and counts are kept as soon as they are there, so that whatever ends costs no more than what is in flight.
"""

from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, Final
from uuid import uuid4

from ibstore.analyze.cache import BLOCKS
from ibstore.analyze.cluster.blocks import (
    Block,
    Divided,
    count,
    joined,
    keep_edges,
    look,
    memory,
    name_inputs,
    piece,
)
from ibstore.analyze.cluster.sums import add_up, finish
from ibstore.analyze.cluster.unit import Unit
from ibstore.analyze.fit import Pass
from ibstore.analyze.grammar import View
from ibstore.analyze.looking import Key
from ibstore.analyze.narrow import fit, is_fitted
from ibstore.analyze.parts import content_key
from ibstore.analyze.plan import Budget, bytes_to_fit, kept_bytes
from ibstore.analyze.scan import fitting
from ibstore.analyze.sources import layer_source
from ibstore.analyze.tasks import Task

if TYPE_CHECKING:
    from distributed import Client, Future

    from ibstore.analyze.cluster.hands import Script
    from ibstore.analyze.parts import Parts
    from ibstore.store import Segment

BLOCK_BYTES: Final = 1 << 30
"""Raw bytes of a block. A layer of less than two is one piece of work: in one process it may be held between passes."""

MOST_BLOCKS: Final = 128
"""Of an epoch's layer: of one that is larger than 128 GiB blocks are larger, since each task costs the scheduler."""

BEGUN: Final = 1
TAKEN: Final = 2
"""Priorities: what is begun comes before other layers, and what was found is taken before more is looked for."""

NARROW: Final = 8
"""Reduced values that are so many times smaller than stored ones are held by the workers from pass to pass."""

MOST_ROWS: Final = 1 << 27
"""Rows whose counts are added up at one time: of more samples the keys are cut into parts by their hash."""


def is_large(task: Task) -> bool:
    """Whether a task's layer is read in blocks: an epoch of it is large, and each is a segment of its own."""
    source = layer_source(task, _passed_over(task), 1)
    several = len(task.segment.files(task.split, task.layer)) > 2  # noqa: PLR2004  (a shard, and what describes it)
    each_alone = len(source.names) == len(_passed_over(task))
    return several and each_alone and source.bytes >= 2 * BLOCK_BYTES * len(source.names)


def _passed_over(task: Task) -> "Sequence[Segment]":
    """Segments that a task's edges are fitted on."""
    return task.run.segments if task.recipe.per == "run" else [task.segment]


def most_blocks(size: int) -> int:
    """Into how many blocks so many bytes are cut, unless what is found of them has no room."""
    return max(1, min(MOST_BLOCKS, size // BLOCK_BYTES))


def divided(unit: Unit, tasks: Sequence[Task], budget: Budget) -> Divided:
    """A unit of some tasks, which share the segments that they are fitted on, in blocks."""
    source = layer_source(tasks[0], [tasks[0].segment], 1)
    kept = {task.t_key: budget.keeps(kept_bytes(task.recipe, source.form(task.recipe)), source.bytes) for task in tasks}
    parts = -(-source.samples // MOST_ROWS)
    return Divided(
        unit, tuple(_blocks(tasks, budget)), tuple(kept), tuple(key for key, keeps in kept.items() if keeps), parts
    )


def _blocks(tasks: Sequence[Task], budget: Budget) -> Iterator[Block]:
    """All samples of the segments that edges are fitted on; what fitting finds of a block has room."""
    task, source = tasks[0], layer_source(tasks[0], [tasks[0].segment], 1)
    recipes = {task.recipe for task in tasks if is_fitted(task.recipe)}
    found = sum(bytes_to_fit(recipe, source.form(recipe)) for recipe in recipes)
    blocks = max(most_blocks(source.bytes), 2 * found // budget.counting)
    for segment in _passed_over(task):
        for span in segment.array(task.split, task.layer).spans(1, -(-source.samples // blocks)):
            yield Block(segment.key, span.start, span.stop)


def script(client: "Client", work: Divided, tasks: Sequence[Task], parts: "Parts", budget: Budget) -> "Script":
    """How a layer in blocks is done."""
    inputs = {"x": sorted({task.x_key for task in tasks}), "kept": work.unit.results}
    marginals = client.submit(name_inputs, work.unit, key=f"ibstore-inputs-{content_key(inputs)}")
    held = yield from _fitted(client, work, tasks, parts, budget)
    name = f"{work.key}-count"
    counts = [
        client.submit(count, work, block, marginals, held.get(block), key=f"{name}-{block.name}", priority=BEGUN)
        for block in work.counted
    ]
    sums = [
        client.submit(add_up, work, part, marginals, *counts, key=f"{work.key}-sum{part}", priority=TAKEN)
        for part in range(work.parts)
    ]
    last = client.submit(finish, work, marginals, *sums, key=f"{work.key}-finish", priority=TAKEN)
    del held, sums
    for number, each in enumerate(counts, 1):
        yield each, f"{number} of {len(counts)} blocks"
    yield last, "added up"
    for task in (each for each in tasks if is_fitted(each.recipe)):
        parts.storage.remove(f"{BLOCKS}/{task.edges_key}.parquet")
    return True


def _fitted(
    client: "Client", work: Divided, tasks: Sequence[Task], parts: "Parts", budget: Budget
) -> "Generator[tuple[Future[Any], str], Any, dict[Block, Future[Any]]]":
    """Edges of the tasks, in passes over all blocks, are kept; what the workers hold of the blocks from now on."""
    fitted = {task.recipe: task for task in tasks if is_fitted(task.recipe)}
    there = parts.existing(BLOCKS, {task.edges_key for task in fitted.values()})
    lacking = {recipe: task for recipe, task in fitted.items() if task.edges_key not in there}
    if not lacking:
        return {}
    source = layer_source(tasks[0], _passed_over(tasks[0]), 1)
    passes = fitting(source, lacking, budget.counting // 2 // len(lacking), partial(fit, at_once=True))
    size = source.bytes // len(source.names)
    views = frozenset(recipe.view for recipe in lacking if source.form(recipe).bytes * NARROW <= size)
    held: dict[Block, Future[Any]] = {}
    priority = 0
    while passes.wants:
        looks = _looks(client, work, passes.wants, views, held, priority)
        priority = BEGUN
        held = {block: _taken(client, memory, own, "memory") for block, own in looks.items() if views}
        passes.advance((yield from _joined(client, passes.wants, looks)))
    for (recipe, _), edges in passes.results.items():
        keep_edges(lacking[recipe], edges, parts)
    return held


def _looks(
    client: "Client",
    work: Divided,
    wants: Mapping[Key, Pass],
    views: frozenset[View],
    held: "Mapping[Block, Future[Any]]",
    priority: int,
) -> "dict[Block, Future[Any]]":
    """What a pass finds of each block."""
    name = f"{work.key}-{uuid4().hex[:8]}"  # what is found hangs on the budget: it is for nobody else
    wanted = client.submit(_same, dict(wants), key=f"{name}-wants", priority=priority)
    given = {block: (work, block, wanted, views, held.get(block)) for block in work.blocks}
    return {
        block: client.submit(look, *own, key=f"{name}-look-{block.name}", priority=priority)
        for block, own in given.items()
    }


def _taken(client: "Client", take: Callable[..., Any], look: "Future[Any]", name: str, *about: Any) -> "Future[Any]":
    """A part of what was found of a block: before others are looked at, so that the whole of it can be forgotten."""
    return client.submit(take, look, *about, key=f"{look.key}-{name}", priority=TAKEN)


def _joined(
    client: "Client", wants: Mapping[Key, Pass], looks: "dict[Block, Future[Any]]"
) -> "Generator[tuple[Future[Any], str], Any, dict[Key, Any]]":
    """What was found of all blocks, by key: each part of it is joined by itself, by whatever worker; looks are gone."""
    name, joins = next(iter(looks.values())).key, []
    for at, (key, want) in enumerate(wants.items()):
        for number, part in enumerate(want.parts or [want]):
            among = number if want.parts else None
            pieces = [_taken(client, piece, own, f"piece{at}.{number}", key, among) for own in looks.values()]
            joins.append(client.submit(joined, part.join, *pieces, key=f"{name}-joined{at}.{number}", priority=TAKEN))
    looks.clear()
    results = iter((yield client.submit(_listed, *joins, key=f"{name}-joined", priority=TAKEN), "passed over"))
    return {key: [next(results) for _ in want.parts] if want.parts else next(results) for key, want in wants.items()}


def _same(wants: Mapping[Key, Pass]) -> Mapping[Key, Pass]:
    """What is wanted, as a result that workers hand on to each other."""
    return wants


def _listed(*found: Any) -> list[Any]:
    return list(found)
