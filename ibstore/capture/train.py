"""The bundled training: a recipe, trained and recorded, the same bit for bit whenever its settings are the same.

Metrics are means in eval mode at the capture point: of a recorded split over what is recorded of it (``probe``), out of
the recorder's own pass; of others over the whole split, from a pass over them.
"""

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from itertools import chain
from pathlib import Path
from typing import Any

import torch

from ibstore.capture.datasets import load_dataset
from ibstore.capture.recipes import Recipe, recipe
from ibstore.capture.sweep import shared_out
from ibstore.capture.training.job import Job, lagrangian_of
from ibstore.capture.training.runs import MakeStopping, Runs, Trained
from ibstore.capture.training.settings import TrainSettings
from ibstore.devices import resolve_device
from ibstore.events import Emit, Event, ignore

__all__ = ["MakeStopping", "TrainSettings", "Trained", "check_options", "train", "train_replicas"]


def train(
    recipe_name: str | Recipe,
    store: str | Path,
    *,
    settings: TrainSettings | None = None,
    run: str | None = None,
    force: bool = False,
    resume: bool = False,
    stopping: MakeStopping | None = None,
    emit: Emit = ignore,
) -> Trained:
    """Train a recipe's network and record it at its capture points, the untrained network first.

    Parameters
    ----------
    recipe_name
        One of `ibstore.capture.recipes.recipe_names`, ``file.py:name``, or a recipe.
    store
        Path of the store; it is made where it does not exist.
    settings
        By default the recipe's own.
    run
        Name of the run, by default ``<recipe>-seed<seed>``.
    force
        Remove a run of that name first, and begin though the space seems too small.
    resume
        Go on with the run of that name after its last committed epoch, or begin it: it ends as if it had never been
        interrupted, bit for bit.
    stopping
        Makes what may stop the training before its last epoch; what it looks at is the first recorded split.
    emit
        Told of progress: stages ``train`` (capture points, the untrained network included; the detail has loss and
        accuracy), ``batches`` (of the epoch being trained) and ``record`` (samples of the epoch being recorded).

    Raises
    ------
    UsageError
        When a name is unknown, a value is out of range or the device cannot be used.
    DatasetError
        When the data set is not to be had.
    ResumeError
        When the run to go on with has other settings.
    StoreError
        When the run exists or the store cannot be written; before training, as far as can be known then.
    """
    with _prepared(recipe_name, settings, {}, emit) as job:
        name = f"{job.recipe.name}-seed{job.settings.seed}" if run is None else run
        (trained,) = Runs(store, force, resume, stopping).carry_out(job, job.one(), {job.settings.seed: name})
        return trained


def train_replicas(
    recipe_name: str | Recipe,
    store: str | Path,
    replicas: int,
    *,
    at_once: int | None = None,
    group: int | None = None,
    same_init: bool = False,
    settings: TrainSettings | None = None,
    run: str | None = None,
    force: bool = False,
    resume: bool = False,
    stopping: MakeStopping | None = None,
    emit: Emit = ignore,
) -> list[Trained]:
    """Train identically built networks of successive seeds at once, and record each as a run of its own.

    In which groups is a setting of the runs, like their number: how many are summed at once may change the last bits.

    Parameters are those of `train`, and:

    Parameters
    ----------
    replicas
        How many; their seeds are ``settings.seed`` and those after it.
    at_once
        Train so many of them at once, at most, one group after another; None: all.
    group
        Train this group alone, from 0: the others are trained elsewhere.
    same_init
        All begin with the weights of the first seed; they differ in the order of the data alone.
    run
        What the runs' names begin with, by default the recipe's name: ``<run>-seed<seed>``.

    Returns
    -------
    list[Trained]
        In the order of the seeds.

    Raises
    ------
    UsageError
        When the network cannot be trained with others at once, beside what `train` raises.
    """
    groups = shared_out(0, replicas, at_once)
    divided = {"at_once": len(groups[0])} if len(groups) > 1 else {}
    told = {"replicas": replicas, **divided} | ({"same_init": True} if same_init else {})
    with _prepared(recipe_name, settings, told, emit) as job:
        head, first = job.recipe.name if run is None else run, job.settings.seed
        own = groups if group is None else [groups[group]]
        named = [{first + each: f"{head}-seed{first + each}" for each in members} for members in own]
        runs = Runs(store, force, resume, stopping)
        found: dict[str, Trained] = {}
        for names in chain.from_iterable(map(runs.groups, named)):
            networks = job.many(list(names), same_init=same_init)
            if networks.slow:
                emit(Event("notice", detail=f"{networks.slow}; --sweep seed=FIRST:LAST does that, with the same runs"))
            found |= {trained.run: trained for trained in runs.carry_out(job, networks, names)}
        return [found[name] for names in named for name in names.values()]


def check_options(recipe: Recipe, settings: TrainSettings) -> None:
    """Return when a network can be made of a recipe's options; torch's random numbers stay as they are.

    Raises
    ------
    UsageError
        When it cannot.
    """
    lagrangian_of(recipe, settings)
    with torch.random.fork_rng([]):
        recipe.make(settings.options)


@contextmanager
def _prepared(
    recipe_name: str | Recipe, settings: TrainSettings | None, told: Mapping[str, Any], emit: Emit
) -> Iterator[Job]:
    """What the runs of a training share, while torch is set as they need it."""
    chosen = recipe_name if isinstance(recipe_name, Recipe) else recipe(recipe_name)
    settings = TrainSettings.of(chosen) if settings is None else settings
    device = resolve_device(settings.device)
    data = load_dataset(
        settings.dataset,
        settings.data_dir,
        limit=settings.limit,
        fraction=settings.train_fraction,
        seed=settings.data_seed,
    )
    if data.note:
        emit(Event("notice", detail=data.note))
    with _reproducible(settings, device):
        yield Job(chosen, settings, data, device, told, emit)


@contextmanager
def _reproducible(settings: TrainSettings, device: torch.device) -> Iterator[None]:
    """Seed torch, set its threads and ask for deterministic algorithms; all is put back afterwards."""
    threads, benchmark = torch.get_num_threads(), torch.backends.cudnn.benchmark
    deterministic = torch.get_deterministic_debug_mode()
    if device.type == "cuda":  # cuBLAS looks there when it is first used
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    with torch.random.fork_rng([device.index or 0] if device.type == "cuda" else []):
        try:
            torch.set_num_threads(settings.threads or threads)
            torch.set_deterministic_debug_mode("error")
            torch.backends.cudnn.benchmark = False
            yield
        finally:
            torch.set_num_threads(threads)
            torch.set_deterministic_debug_mode(deterministic)
            torch.backends.cudnn.benchmark = benchmark
