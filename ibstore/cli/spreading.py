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
        How many replicas there are, and how many are trained at once.
    group
        Which group of replicas this is, from 0, while others are trained elsewhere; None: all.
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
        at_once = isqrt(max(1, replicas)) if self.many.at_once is None else self.many.at_once
        many, found = replace(self.many, at_once=at_once), shared_out(self.settings.seed, replicas, at_once)
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
    from ibstore.store.upkeep.remove import remove_runs

    jobs = {job.key: job for each in trainings for job in _anywhere(each, recipe).groups}
    names, place = [name for job in jobs.values() for name in job.names], shared_place(trainings[0].store)
    there = _already(place, names)
    if there and not (force or resume):
        raise RunExistsError(
            f"run {there[0]!r} is in {place} already; go on with --resume, remove it with --force, or name another "
            "--run"
        )
    with connected(scheduler, gpus=gpus_of(trainings[0].settings.device)) as client:
        if force:
            remove_runs(place, there)
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


def _anywhere(training: Training, recipe: str) -> Training:
    """A training that means the same on every worker: it says whole paths, and how many threads."""
    from ibstore.analyze.cluster import shared_place

    file, _, name = recipe.rpartition(":")
    settings = training.settings
    data = None if settings.data_dir is None else Path(settings.data_dir).resolve()
    return replace(
        training,
        recipe=f"{Path(file).resolve()}:{name}" if file.endswith(".py") else recipe,
        store=shared_place(training.store),
        settings=replace(settings, data_dir=data, threads=settings.threads or 1),
    )


def _already(store: str, runs: Sequence[str]) -> list[str]:
    """Those of the runs that are in a store, which is made where there is none: workers go on with what they find."""
    from ibstore.store import Store, create_store

    create_store(store)
    names = Store.open(store).run_names()
    return [run for run in runs if run in names]
