"""Trainings on the workers of a Dask cluster, each its own run."""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Final

from ibstore.cli.capturing import Stop
from ibstore.errors import RunBusyError, RunExistsError
from ibstore.events import Event

if TYPE_CHECKING:
    from ibstore.capture.train import TrainSettings
    from ibstore.events import Emit

PATIENCE: Final = 180
SECONDS_BETWEEN_LOOKS: Final = 5.0
"""How long the lease of a worker that died is waited for."""


@dataclass(frozen=True)
class Training:
    """What a worker trains: names, texts and numbers alone."""

    recipe: str
    store: str
    run: str
    settings: "TrainSettings"
    stop: Stop


def do(training: Training) -> str:
    """Train, or go on where a worker that died has left off."""
    from ibstore.capture.train import train

    until = time.monotonic() + PATIENCE
    while True:
        try:
            return train(
                training.recipe,
                training.store,
                settings=training.settings,
                run=training.run,
                resume=True,
                stopping=training.stop.maker(),
            ).run
        except RunBusyError:  # the dead worker's lease has not ended yet
            if time.monotonic() > until:
                raise
            time.sleep(SECONDS_BETWEEN_LOOKS)


def spread(
    scheduler: str,
    recipe: str,
    store: str,
    runs: Mapping[str, "TrainSettings"],
    stop: Stop,
    how: Mapping[str, bool],
    emit: "Emit",
) -> Sequence[str]:
    """Have workers train each of the runs, by name; return their names.

    Raises
    ------
    RunExistsError
        When one is there already, and is neither to be gone on with nor to be removed.
    """
    from ibstore.analyze.cluster import connected, handed_out, shared_place

    place = shared_place(store)
    _make_room(place, list(runs), **how)
    found = _found_anywhere(recipe)
    jobs = {f"ibstore-capture-{run}": Training(found, place, run, _data_found(own), stop) for run, own in runs.items()}
    with connected(scheduler) as client:
        for done, training in enumerate(handed_out(do, jobs, client)):
            emit(Event("train", done, len(jobs), training.run))
    emit(Event("train", len(jobs), len(jobs)))
    return list(runs)


def _found_anywhere(recipe: str) -> str:
    """A recipe's name; one of a file with the file's whole path."""
    file, _, name = recipe.rpartition(":")
    return f"{Path(file).resolve()}:{name}" if file.endswith(".py") else recipe


def _data_found(settings: "TrainSettings") -> "TrainSettings":
    """Settings with the whole path of the data's folder."""
    return settings if settings.data_dir is None else replace(settings, data_dir=Path(settings.data_dir).resolve())


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
