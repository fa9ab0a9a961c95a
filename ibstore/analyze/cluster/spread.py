"""Spreading a question: units are handed to the workers, and again those that were lost on the way.

Results are kept by content, beside the store: little but names goes over the network, and whatever happens to workers
or to the scheduler costs the work in flight alone.
"""

import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from ibstore.analyze import densities, estimates
from ibstore.analyze.cluster.divide import divided, is_large, most_blocks, script
from ibstore.analyze.cluster.hands import followed, single
from ibstore.analyze.cluster.unit import Unit, do, granted
from ibstore.analyze.estimate.density import is_density
from ibstore.analyze.parts import content_key
from ibstore.analyze.plan import LEAST, Budget
from ibstore.analyze.sources import layer_source
from ibstore.analyze.tasks import Task
from ibstore.errors import IbstoreError, UsageError
from ibstore.events import Event

if TYPE_CHECKING:
    from distributed import Client

    from ibstore.analyze.cluster.hands import Script
    from ibstore.analyze.selection import Selection

PATIENCE: Final = 90
SECONDS_BETWEEN_LOOKS: Final = 0.5
"""How long a scheduler that was lost is waited for, and how often it is looked for."""


@dataclass(frozen=True)
class Work:
    """A unit, the tasks that it is done for, and whether its layer is read in blocks."""

    unit: Unit
    tasks: Sequence[Task]
    in_blocks: bool

    @property
    def bytes(self) -> int:
        """Raw values that are read, at least once."""
        segments = {each.segment.key: each.segment for each in self.tasks}
        return layer_source(self.tasks[0], list(segments.values()), 1).bytes

    def weight(self) -> int:
        """About how many tasks it has at one time."""
        return most_blocks(self.bytes) if self.in_blocks else 1


@dataclass(frozen=True)
class Cluster:
    """Workers that an analysis is spread over.

    Parameters
    ----------
    client
        Of the scheduler.
    memory, threads
        What each unit may use: bytes, by default the worker's own limit, shared among its threads; and threads,
        by default one.
    """

    client: "Client"
    memory: int | None = None
    threads: int | None = None

    def compute(self, selection: "Selection", estimators: Sequence[str]) -> None:
        """Have the workers compute and keep what a selection lacks.

        Raises
        ------
        UsageError
            When the store or the results are where no worker finds them.
        IbstoreError
            When a unit cannot be done, in the words of the worker; when it kills worker after worker; or when the
            scheduler is gone for good. What was done is kept.
        """
        todo = self._work(selection, estimators)
        done, total = 0, len(todo)
        while todo:
            self._tell_of_nobody(selection)
            before = done
            for work, what in followed(self._scripts(todo, selection), self.client, Work.weight):
                selection.emit(Event("analyze", done, total, f"{work.unit.title}{f' · {what}' if what else ''}"))
                done += what is None
            lost = len(todo) - (done - before)
            todo = self._work(selection, estimators)
            if todo:
                self._check(selection, lost)
        if total:
            selection.emit(Event("analyze", total, total))

    def _tell_of_nobody(self, selection: "Selection") -> None:
        """Say why nothing happens where that is so."""
        if not self._workers():
            selection.emit(Event("notice", detail="the cluster has no workers; they are waited for"))

    def _workers(self) -> list[Mapping[str, Any]]:
        return list(self.client.scheduler_info(n_workers=-1)["workers"].values())

    def _check(self, selection: "Selection", lost: int) -> None:
        """Return when what is lacking can be handed out again."""
        if not lost:
            where = selection.parts.storage.location
            raise IbstoreError(
                f"the workers have done their work, and nothing of it is in {where}: name a folder that they and this "
                "process share, or a bucket, with --results"
            )
        if not self._answers():
            raise IbstoreError(
                "the scheduler is gone, and none answered again; what was computed is kept: ask again when there is one"
            )

    def _answers(self) -> bool:
        """Whether there is a scheduler, after a while where it was lost: the client looks for it at its address."""
        until = time.monotonic() + PATIENCE
        while self.client.status == "connecting" and time.monotonic() < until:
            time.sleep(SECONDS_BETWEEN_LOOKS)
        return bool(self.client.status == "running")

    def _scripts(self, todo: Sequence[Work], selection: "Selection") -> "Iterator[tuple[Work, Script]]":
        """How each piece of work is done."""
        budget = self._budget(selection)
        for work in todo:
            if work.in_blocks:
                blocks = divided(work.unit, work.tasks, budget)
                yield work, script(self.client, blocks, work.tasks, selection.parts, budget)
            else:
                yield work, single(self.client, do, work.unit, work.unit.key)

    def _budget(self, selection: "Selection") -> Budget:
        """What any of the workers may use for one unit."""
        limits = [worker["memory_limit"] / worker["nthreads"] for worker in self._workers() if worker["memory_limit"]]
        asked = selection.budget
        return Budget(granted(self.memory, limits) or LEAST, self.threads or 1, asked.keep_keys, asked.device)

    def _work(self, selection: "Selection", estimators: Sequence[str]) -> list[Work]:
        """What is lacking, the largest first; see `_groups`."""
        budget: dict[str, Any] = {"memory": self.memory, "threads": self.threads or 1}
        budget |= {"keep_keys": selection.budget.keep_keys, "device": selection.budget.device}
        found = [
            Work(_unit(selection, names, tasks, budget), tasks, in_blocks)
            for tasks, names, in_blocks in _groups(selection, estimators)
        ]
        return sorted(found, key=lambda work: work.bytes, reverse=True)


def _groups(selection: "Selection", estimators: Sequence[str]) -> Iterator[tuple[list[Task], Sequence[str], bool]]:
    """Tasks of a unit, the estimators it is done for, and whether its layer is read in blocks.

    A layer of a split in a segment each; of edges over a run, in all segments. The keys of a large layer are counted in
    blocks, unless they are kept; estimators that look at values want them whole.
    """
    looking = [name for name in estimators if is_density(name)]
    counting = [name for name in estimators if not is_density(name)]
    lacks = [task for task, _ in estimates.lacking(selection.todo, counting, selection.parts)]
    known = selection.parts.existing("counts", {task.counts_key for task in lacks})
    known |= selection.parts.existing("patterns", {task.t_key for task in lacks})
    values = densities.lacking(selection.todo, looking, selection.epochs, selection.parts)
    counted, seen = _by_place(lacks), _by_place(task for task, *_ in values.values())
    for place in counted | seen:
        own, beside = counted.get(place, []), seen.get(place, [])
        unread = [task for task in own if not {task.counts_key, task.t_key} & known]
        if unread and is_large(unread[0]):
            rest = [task for task in own if {task.counts_key, task.t_key} & known]
            yield unread, counting, True
            yield from ((tasks, names, False) for tasks, names in ((rest, counting), (beside, looking)) if tasks)
        else:
            yield own + beside, estimators, False


def _by_place(tasks: Iterable[Task]) -> dict[tuple[str, ...], list[Task]]:
    groups: dict[tuple[str, ...], dict[int, Task]] = {}
    for task in tasks:
        segment = "" if task.recipe.per == "run" else task.segment.key
        groups.setdefault((task.run.name, task.split.name, task.layer.name, segment), {})[id(task)] = task
    return {place: list(own.values()) for place, own in groups.items()}


def _unit(selection: "Selection", estimators: Sequence[str], own: Sequence[Task], budget: Mapping[str, Any]) -> Unit:
    task = own[0]
    return Unit(
        store=shared_place(task.run.storage.location),
        results=shared_place(selection.parts.storage.location),
        run=task.run.name,
        split=task.split.name,
        layer=task.layer.name,
        segments=tuple(dict.fromkeys(each.segment.key for each in own)),
        waists={each.waist.name: each.waist.texts for each in own},
        channels=selection.channels,
        epochs=None if selection.epochs is None else tuple(selection.epochs),
        estimators=tuple(estimators),
        content=content_key({"values": sorted({each.t_values_key for each in own})}),
        budget=budget,
    )


def shared_place(location: str) -> str:
    """A place as every worker finds it; raises `UsageError` for one process's memory."""
    if location.startswith("memory:"):
        raise UsageError(f"{location} is in the memory of one process, where no worker finds it; copy it elsewhere")
    return location if "://" in location else str(Path(location).resolve())
