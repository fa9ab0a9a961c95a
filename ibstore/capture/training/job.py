"""What the runs of one training share, and what is made from it for each of them."""

from collections.abc import Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch import nn

from ibstore.capture.arguments import Probe
from ibstore.capture.datasets import Dataset, Samples
from ibstore.capture.dropout import Lagrangian, tells
from ibstore.capture.forward import random_state_kept
from ibstore.capture.provenance import Provenance
from ibstore.capture.recipes import Recipe
from ibstore.capture.stopping import InformationStopping
from ibstore.capture.training.networks import Many, Networks, One
from ibstore.capture.training.objectives import Objective, objective
from ibstore.capture.training.order import Order
from ibstore.capture.training.settings import OPTIMIZERS, TrainSettings
from ibstore.errors import UsageError
from ibstore.events import Emit, Event


@dataclass(frozen=True)
class Job:
    """A recipe with its settings and data, on a device.

    Parameters
    ----------
    recipe, settings, data, device
        What is trained, how, on what, where.
    told
        What else the manifest says of every run.
    emit
        Told of progress.
    """

    recipe: Recipe
    settings: TrainSettings
    data: Dataset
    device: torch.device
    told: Mapping[str, Any]
    emit: Emit

    @property
    def objective(self) -> Objective:
        """What is minimized."""
        return objective(self.recipe.loss)

    @property
    def lagrangian(self) -> Lagrangian | None:
        """What the recipe's loss adds for stochastic layers; None where it has no weights."""
        samples = len(self.data.train) if self.recipe.divided else 1
        return lagrangian_of(self.recipe, self.settings, samples)

    def paid_by(self, network: nn.Module) -> Lagrangian | None:
        """What the loss of a network adds; None where none of its layers tells a divergence."""
        return self.lagrangian if tells(network) else None

    @cached_property
    def per_epoch(self) -> int:
        """Steps in an epoch."""
        return self._order(0).per_epoch

    def points(self) -> dict[int, int]:
        """Capture points by the step at which they are due, in order."""
        schedule = self.settings.recording.schedule
        a_point = 1 if schedule.unit == "steps" else self.per_epoch
        total = self.settings.epochs * self.per_epoch // a_point
        return {point * a_point: point for point in schedule.points(total)}

    def point(self, step: int) -> int:
        """Number that a capture point at that step has."""
        return step if self.settings.recording.schedule.unit == "steps" else step // self.per_epoch

    def model(self, seed: int) -> nn.Module:
        """An untrained network; torch's random numbers go on from that seed."""
        torch.manual_seed(seed)
        return self.recipe.make(self.settings.options).to(self.device)

    def one(self) -> Networks:
        """The network of the settings' seed."""
        return One(self.model(self.settings.seed), self._order(self.settings.seed), self.optimizer)

    def many(self, seeds: Sequence[int], *, same_init: bool) -> Networks:
        """Networks of those seeds; with ``same_init`` all begin with the weights of the settings' seed.

        Raises
        ------
        UsageError
            When they cannot be trained at once: before anything is recorded.
        """
        models = [self.model(self.settings.seed if same_init else seed) for seed in seeds]
        networks = Many(models, [self._order(seed) for seed in seeds], self.optimizer)
        networks.module.check(torch.from_numpy(self.data.train.x[: self.settings.batch_size]).to(self.device))
        return networks

    def check_last_batch(self, model: nn.Module) -> None:
        """Return when a network can be trained on a last batch of one sample, if there is one.

        Batch normalization cannot where a sample has one value a unit.

        Raises
        ------
        UsageError
            When it cannot: before anything is recorded.
        """
        if self._order(self.settings.seed).smallest > 1:
            return
        one = torch.from_numpy(self.data.train.x[:1]).to(self.device)
        try:
            with random_state_kept(model), torch.no_grad():
                deepcopy(model).train()(one)
        except ValueError as error:
            raise UsageError(
                f"{len(self.data.train):,} samples in batches of {self.settings.batch_size} leave a last one of one "
                f"sample, on which the network cannot be trained ({error}); give another --batch-size"
            ) from error

    def optimizer(self, parameters: Any) -> torch.optim.Optimizer:
        """Optimizer of parameters."""
        return OPTIMIZERS[self.settings.optimizer](parameters, lr=self.settings.lr)

    def layers(self, model: nn.Module) -> tuple[str, ...]:
        """Layers to record of a network."""
        return self.settings.recording.layers or self.recipe.recorded_layers(model)

    @cached_property
    def probes(self) -> dict[str, Probe]:
        """What is recorded, by split."""
        recording = self.settings.recording
        return probes_of(self.data, recording.splits, recording.probe, self.settings.data_seed, self.emit)

    def unrecorded(self) -> dict[str, Samples]:
        """Splits that are measured without being recorded: those to train and to test on, where there are samples."""
        others = {split: self.data.split(split) for split in ("train", "test")}
        recorded = self.settings.recording.splits
        return {split: samples for split, samples in others.items() if len(samples) and split not in recorded}

    def provenance(self, seed: int, stopping: InformationStopping | None) -> Provenance:
        """What a run's manifest says of its training, and of what may stop it."""
        settings = self.settings
        rule = {} if stopping is None else {"stopping": stopping.told}
        return Provenance(
            recipe=self.recipe.name,
            seed=seed,
            loss=self.recipe.loss,
            optimizer=f"{settings.optimizer}(lr={settings.lr})",
            settings={**settings.told(), "dataset": self.data.name, **self.told, **rule},
        )

    def _order(self, seed: int) -> Order:
        settings, samples = self.settings, len(self.data.train)
        return Order(samples, settings.batch_size, seed, random_batches=self.recipe.random_batches)


def lagrangian_of(recipe: Recipe, settings: TrainSettings, samples: int = 1) -> Lagrangian | None:
    """What the loss of a recipe adds for stochastic layers; None where it has no weights."""
    weights = {name: settings.options[name] for name in recipe.weights}
    return Lagrangian(**weights, samples=samples) if weights else None


def probes_of(data: Dataset, splits: Sequence[str], count: int | None, seed: int, emit: Emit) -> dict[str, Probe]:
    """Splits of a data set as they are recorded: at most ``count`` samples of each, drawn class by class.

    Where a split has fewer, ``emit`` is told.

    Raises
    ------
    UsageError
        When a split has no samples.
    """
    found = {}
    for split in splits:
        samples = data.split(split)
        if not len(samples):
            raise UsageError(f"split {split!r} of data set {data.name!r} has no samples; record another --split")
        if count is not None and count < len(samples):
            samples = samples.stratified(count, seed)
        elif count is not None and count > len(samples):
            fewer = f"split {split!r} has {len(samples):,} samples, fewer than --probe {count:,}: all are recorded"
            emit(Event("notice", detail=fewer))
        found[split] = Probe(samples.x, samples.y, samples.sample, samples.targets)
    return found
