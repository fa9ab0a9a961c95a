"""Spreading a question: units are handed to the workers, and again those that were lost on the way.

Results are kept by content, beside the store: nothing but names goes over the network, and whatever happens to workers
or to the scheduler costs the work in flight alone.
"""

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, TypeVar

from ibstore.analyze import densities, estimates
from ibstore.analyze.cluster.unit import Unit, do
from ibstore.analyze.estimate.density import is_density
from ibstore.analyze.tasks import Task
from ibstore.errors import IbstoreError, UsageError
from ibstore.events import Event

if TYPE_CHECKING:
    from distributed import Client

    from ibstore.analyze.selection import Selection

Job = TypeVar("Job")

PATIENCE: Final = 90
SECONDS_BETWEEN_LOOKS: Final = 0.5
"""How long a scheduler that was lost is waited for, and how often it is looked for."""


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
        todo = self._units(selection, estimators)
        done, total = 0, len(todo)
        while todo:
            self._tell_of_nobody(selection)
            before = done
            for unit in handed_out(do, {unit.key: unit for unit in todo}, self.client):
                selection.emit(Event("analyze", done, total, unit.title))
                done += 1
            lost = len(todo) - (done - before)
            todo = self._units(selection, estimators)
            if todo:
                self._check(selection, lost)
        if total:
            selection.emit(Event("analyze", total, total))

    def _tell_of_nobody(self, selection: "Selection") -> None:
        """Say why nothing happens where that is so."""
        if not self.client.scheduler_info(n_workers=-1)["workers"]:
            selection.emit(Event("notice", detail="the cluster has no workers; they are waited for"))

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

    def _units(self, selection: "Selection", estimators: Sequence[str]) -> list[Unit]:
        """What is lacking, a layer of a split in a segment each; of edges over a run, in all segments."""
        groups: dict[tuple[str, ...], list[Task]] = {}
        for task in _lacking(selection, estimators):
            segment = "" if task.recipe.per == "run" else task.segment.key
            groups.setdefault((task.run.name, task.split.name, task.layer.name, segment), []).append(task)
        budget: dict[str, Any] = {"memory": self.memory, "threads": self.threads or 1}
        budget |= {"keep_keys": selection.budget.keep_keys, "device": selection.budget.device}
        return [_unit(selection, estimators, own, budget) for own in groups.values()]


def handed_out(work: Callable[[Job], Any], jobs: Mapping[str, Job], client: "Client") -> Iterator[Job]:
    """Jobs, by names that are the same whoever asks again, as workers have done them.

    Those that were lost with the scheduler are passed over.

    Raises
    ------
    IbstoreError
        When a job cannot be done, in the words of the worker, or kills worker after worker.
    """
    from concurrent.futures import CancelledError

    from distributed import KilledWorker, as_completed

    futures = {client.submit(work, job, key=name): job for name, job in jobs.items()}
    try:
        for future in as_completed(futures, loop=client.loop):
            try:
                future.result()
            except CancelledError:
                continue
            except KilledWorker as error:
                raise IbstoreError(
                    f"worker after worker died at {future.key}; give workers more memory, or see what ends them; what "
                    "is done is kept"
                ) from error
            yield futures[future]
    finally:
        client.cancel(list(futures))


def _lacking(selection: "Selection", estimators: Sequence[str]) -> list[Task]:
    """Tasks that lack an estimate, in their order."""
    looking = [name for name in estimators if is_density(name)]
    counting = [name for name in estimators if not is_density(name)]
    lacks = [task for task, _ in estimates.lacking(selection.todo, counting, selection.parts)]
    values = densities.lacking(selection.todo, looking, selection.epochs, selection.parts)
    return list({id(task): task for task in (*lacks, *(task for task, *_ in values.values()))}.values())


def _unit(selection: "Selection", estimators: Sequence[str], own: Sequence[Task], budget: Mapping[str, Any]) -> Unit:
    task = own[0]
    waists = {each.waist.name: each.waist.texts for each in own}
    return Unit(
        store=shared_place(task.run.storage.location),
        results=shared_place(selection.parts.storage.location),
        run=task.run.name,
        split=task.split.name,
        layer=task.layer.name,
        segments=tuple(dict.fromkeys(each.segment.key for each in own)),
        waists=waists,
        channels=selection.channels,
        epochs=None if selection.epochs is None else tuple(selection.epochs),
        estimators=tuple(estimators),
        budget=budget,
    )


def shared_place(location: str) -> str:
    """A place as every worker finds it; raises `UsageError` for one process's memory."""
    if location.startswith("memory:"):
        raise UsageError(f"{location} is in the memory of one process, where no worker finds it; copy it elsewhere")
    return location if "://" in location else str(Path(location).resolve())
