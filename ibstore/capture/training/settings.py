"""What a bundled training hangs on beside its recipe: checked before anything is made."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields
from functools import partial
from math import isfinite
from pathlib import Path
from typing import Any, Final, Self

import torch

from ibstore.capture.arguments import is_count
from ibstore.capture.datasets import SPLITS
from ibstore.capture.recipes import Recipe
from ibstore.capture.recorder import PROBE_BATCH
from ibstore.capture.schedule import Schedule
from ibstore.capture.values import floating_dtype
from ibstore.errors import UsageError
from ibstore.store import Encoding

OPTIMIZERS: Final[Mapping[str, Callable[..., torch.optim.Optimizer]]] = {
    "Adam": torch.optim.Adam,
    "SGD": torch.optim.SGD,
    "SGD-momentum": partial(torch.optim.SGD, momentum=0.9),
    "SGD-momentum-decay": partial(torch.optim.SGD, momentum=0.9, weight_decay=0.001),
    "Adadelta": torch.optim.Adadelta,
}

EVERY_EPOCH: Final = Schedule.every(1)

_LOWEST: Final = {"epochs": 0, "seed": 0, "data_seed": 0, "batch_size": 1, "limit": 1, "threads": 1}
_MOST_THREADS: Final = 1024
"""torch takes any number, and the process dies without a word when the system has no more."""

_MAX_SEED: Final = 2**63 - 1
"""The largest seed that torch takes."""


@dataclass(frozen=True, slots=True)
class Recording:
    """What is recorded of a training, when, and as what numbers.

    Parameters
    ----------
    layers
        Layers that are recorded; None: the recipe's own.
    splits
        Splits that are recorded: ``train``, ``test``, ``all``.
    schedule
        At which epochs or steps.
    probe
        Record at most so many samples of each split, drawn by ``data_seed`` with each class by its share; None: all.
    probe_batch
        Samples in a batch of the recorder's forward pass.
    dtype
        What activations are rounded to; None: nothing is lost.
    encoding
        How they become bytes.
    fixed_minibatches
        Also record gradients of all minibatches at the same weights.
    parallel_minibatches
        Also train one network a minibatch, on it alone, and record the gradients over them.

    Raises
    ------
    UsageError
        When a value is out of range.
    """

    layers: tuple[str, ...] | None = None
    splits: tuple[str, ...] = ("train",)
    schedule: Schedule = EVERY_EPOCH
    probe: int | None = None
    probe_batch: int = PROBE_BATCH
    dtype: str | None = None
    encoding: Encoding = field(default_factory=Encoding)
    fixed_minibatches: bool = False
    parallel_minibatches: bool = False

    def __post_init__(self) -> None:
        _check_lowest(self, {"probe": 1, "probe_batch": 1})
        unknown = [split for split in self.splits if split not in SPLITS]
        if unknown or not self.splits or len(set(self.splits)) < len(self.splits):
            named = ", ".join(self.splits) or "none"
            raise UsageError(f"splits to record are {named}; give --split {', '.join(SPLITS)}, each at most once")
        floating_dtype(self.dtype)


@dataclass(frozen=True, slots=True)
class TrainSettings:
    """What a training hangs on beside its recipe: the command line's options.

    Parameters
    ----------
    dataset
        Name of the data set.
    epochs
        Epochs to train; 0 records the untrained network alone.
    batch_size
        Samples in a training batch.
    lr
        Learning rate.
    optimizer
        One of `OPTIMIZERS`.
    options
        The recipe's own: what its network is made with.
    seed
        Seed of the weights and of the order of the data.
    data_seed
        Seed of data that are drawn, of the part that is trained on and of the probe.
    limit
        Train on at most the first so many samples.
    train_fraction
        Train on that part of them, drawn by ``data_seed`` with each class by its share.
    device
        ``auto``, ``cpu``, ``cuda``, ``cuda:1``, …
    data_dir
        Folder with the files of a data set that no package ships.
    threads
        torch's threads; None: as torch is set.
    recording
        What is recorded.

    Raises
    ------
    UsageError
        When a value is out of range.
    """

    dataset: str
    epochs: int
    batch_size: int
    lr: float
    optimizer: str
    options: Mapping[str, Any] = field(default_factory=dict)
    seed: int = 0
    data_seed: int = 0
    limit: int | None = None
    train_fraction: float | None = None
    device: str = "auto"
    data_dir: str | Path | None = None
    threads: int | None = None
    recording: Recording = field(default_factory=Recording)

    def __post_init__(self) -> None:
        _check_lowest(self, _LOWEST)
        if self.threads is not None and self.threads > _MOST_THREADS:
            raise UsageError(f"threads is {self.threads}; give --threads {_MOST_THREADS} at most, one a core is best")
        for name in ("seed", "data_seed"):
            if getattr(self, name) > _MAX_SEED:
                option = _option(name)
                raise UsageError(f"{name} is {getattr(self, name)}; give {option} a number up to {_MAX_SEED}")
        if not (isinstance(self.lr, int | float) and self.lr > 0 and isfinite(self.lr)):
            raise UsageError(f"lr is {self.lr!r}; give --lr a number above 0, such as 0.002")
        if self.optimizer not in OPTIMIZERS:
            raise UsageError(f"optimizer is {self.optimizer!r}; give --optimizer {', '.join(OPTIMIZERS)}")

    @classmethod
    def of(cls, recipe: Recipe, **given: Any) -> Self:
        """Settings of a recipe with what is given in their place; None stands for what is not given.

        What `Recording` has a field for is its own, and ``options`` are laid over the recipe's.

        >>> from ibstore.capture.recipes import recipe
        >>> settings = TrainSettings.of(recipe("mnist-cnn"), epochs=3, lr=None, probe_batch=100)
        >>> settings.epochs, settings.lr, settings.recording.probe_batch
        (3, 0.002, 100)
        """
        known = {name: value for name, value in given.items() if value is not None}
        recorded = {each.name: known.pop(each.name) for each in fields(Recording) if each.name in known}
        own = {each.name: getattr(recipe, each.name) for each in fields(cls) if hasattr(recipe, each.name)}
        options = recipe.with_options(known.pop("options", {}))
        default: dict[str, Any] = {"splits": recipe.splits, "schedule": Schedule.parse(recipe.schedule)}
        return cls(**own | known | {"options": options, "recording": Recording(**default | recorded)})

    def told(self) -> dict[str, Any]:
        """What the manifest says of them beside its own fields: ``data_dir`` is a machine's business, not the run's.

        What is as it was before there was a choice is not said, so that runs of then can be resumed.
        """
        recording = self.recording
        chosen = {
            "options": dict(self.options),
            "data_seed": self.data_seed,
            "train_fraction": self.train_fraction,
            "schedule": None if recording.schedule == EVERY_EPOCH else str(recording.schedule),
            "probe": recording.probe,
            "fixed_minibatches": recording.fixed_minibatches,
            "parallel_minibatches": recording.parallel_minibatches,
        }
        always = {name: getattr(self, name) for name in ("dataset", "epochs", "batch_size", "lr", "limit")}
        return always | {name: value for name, value in chosen.items() if value}


def _option(name: str) -> str:
    return f"--{name.replace('_', '-')}"


def _check_lowest(settings: object, lowest: Mapping[str, int]) -> None:
    for name, low in lowest.items():
        value = getattr(settings, name)
        if value is not None and not (is_count(value) and value >= low):
            raise UsageError(f"{name} is {value!r}; give {_option(name)} an integer of {low} or more")
