"""Trainings that the command line asks for: carried out here, or on the workers of a Dask cluster."""

import hashlib
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from math import isqrt
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from ibstore.cli.capturing import Many, Stop
from ibstore.errors import IbstoreError, RunBusyError, RunExistsError
from ibstore.events import Event

if TYPE_CHECKING:
    from ibstore.capture.recipes import Recipe
    from ibstore.capture.train import TrainSettings
    from ibstore.events import Emit

PATIENCE: Final = 180
SECONDS_BETWEEN_LOOKS: Final = 5.0
"""How long the lease of a worker that died is waited for."""


@dataclass(frozen=True)
class Training:
    """One training, or an ensemble's: what a worker is given are names, texts and numbers alone.

    Parameters
    ----------
    recipe, store, settings, stop
        What is trained, where it is recorded, how, and what stops it.
    run
        Name of the run; of replicas, how their names begin.
    many
        How many replicas there are; other than those of `group` are trained by others, unless it is None.
    """

    recipe: "str | Recipe"
    store: str
    run: str
    settings: "TrainSettings"
    stop: Stop
    many: Many
    group: int | None = None

    @property
    def names(self) -> list[str]:
        """Its runs."""
        from ibstore.capture.sweep import shared_out

        if self.many.replicas is None:
            return [self.run]
        groups = shared_out(self.settings.seed, self.many.replicas, self.many.at_once)
        own = groups if self.group is None else [groups[self.group]]
        return [f"{self.run}-seed{seed}" for seeds in own for seed in seeds]

    @property
    def groups(self) -> "list[Training]":
        """What several workers can do of it: one training, or the groups of replicas that are trained at once.

        Their size hangs on the number of replicas and on what was asked for, never on workers: it may show in the last
        bits of what is recorded.
        """
        from ibstore.capture.sweep import shared_out

        replicas = self.many.replicas
        if replicas is None:
            return [self]
        many = replace(self.many, at_once=self.many.at_once or max(1, isqrt(replicas)))
        found = shared_out(self.settings.seed, replicas, many.at_once)
        return [replace(self, many=many, group=number) for number in range(len(found))]

    @property
    def key(self) -> str:
        """Name of the work, the same whoever asks for it again, and another where anything else is asked for."""
        return f"ibstore-capture-{self.names[0]}-{hashlib.sha256(repr(self).encode()).hexdigest()[:32]}"

    def carry_out(self, **how: Any) -> list[str]:
        """Train, and record each run; return their names."""
        from ibstore.capture.train import train, train_replicas

        how |= {"run": self.run, "settings": self.settings, "stopping": self.stop.maker()}
        many = self.many
        if many.replicas is None:
            return [train(self.recipe, self.store, **how).run]
        how |= {"at_once": many.at_once, "group": self.group, "same_init": many.same_init}
        return [each.run for each in train_replicas(self.recipe, self.store, many.replicas, **how)]


def do(training: Training) -> list[str]:
    """Train, alone on a worker, or go on where a worker that died has left off."""
    from ibstore.analyze.cluster.alone import alone

    until = time.monotonic() + PATIENCE
    with alone():
        while True:
            try:
                return training.carry_out(resume=True)
            except RunBusyError:  # the dead worker's lease has not ended yet
                if time.monotonic() > until:
                    raise
                time.sleep(SECONDS_BETWEEN_LOOKS)


def spread(
    scheduler: str, recipe: str, trainings: Sequence[Training], *, force: bool, resume: bool, emit: "Emit"
) -> list[str]:
    """Have workers carry out trainings of a recipe, by its name; return the runs' names.

    Raises
    ------
    RunExistsError
        When one is there already, and is neither to be gone on with nor to be removed.
    IbstoreError
        When a training fails, in the words of the worker, or the scheduler is lost.
    """
    from ibstore.analyze.cluster import connected, handed_out, shared_place
    from ibstore.devices import gpus_of

    place, found = shared_place(trainings[0].store), _found_anywhere(recipe)
    jobs = {
        job.key: job
        for each in trainings
        for job in replace(each, recipe=found, store=place, settings=_anywhere(each.settings)).groups
    }
    names = [name for job in jobs.values() for name in job.names]
    _make_room(place, names, force=force, resume=resume)
    with connected(scheduler, gpus=gpus_of(trainings[0].settings.device)) as client:
        done = 0
        for training in handed_out(do, jobs, client):
            emit(Event("train", done, len(jobs), _told(training)))
            done += 1
    if done < len(jobs):
        raise IbstoreError(
            f"the scheduler was lost with {len(jobs) - done} of {len(jobs)} trainings; what is recorded is kept: "
            "give the same command with --resume when there is one again"
        )
    emit(Event("train", len(jobs), len(jobs)))
    return names


def _told(training: Training) -> str:
    """A training that is done, for progress."""
    names = training.names
    return names[0] if len(names) == 1 else f"{names[0]} and {len(names) - 1} more"


def _found_anywhere(recipe: str) -> str:
    """A recipe's name; one of a file with the file's whole path."""
    file, _, name = recipe.rpartition(":")
    return f"{Path(file).resolve()}:{name}" if file.endswith(".py") else recipe


def _anywhere(settings: "TrainSettings") -> "TrainSettings":
    """Settings that mean the same on every worker: the whole path of the data's folder, and how many threads."""
    data = None if settings.data_dir is None else Path(settings.data_dir).resolve()
    return replace(settings, data_dir=data, threads=settings.threads or 1)


def _make_room(store: str, runs: Sequence[str], *, force: bool, resume: bool) -> None:
    """See to runs of these names that are there: workers go on with whatever they find."""
    from ibstore.store import Store, create_store
    from ibstore.store.upkeep.remove import remove_runs

    create_store(store)
    names = Store.open(store).run_names()
    there = [run for run in runs if run in names]
    if there and force:
        remove_runs(store, there)
    elif there and not resume:
        raise RunExistsError(
            f"run {there[0]!r} is in {store} already; go on with --resume, remove it with --force, or name another "
            "--run"
        )
