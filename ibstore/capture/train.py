"""The bundled training: a recipe, trained and recorded, the same bit for bit whenever its settings are the same.

Metrics are means over whole splits in eval mode after the epoch: those of the training split come out of the
recorder's own pass, those of the test split from a pass over it.
"""

import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, fields
from math import isfinite
from pathlib import Path
from typing import Any, Final, Self

import torch
from torch import nn
from torch.nn import functional

from ibstore.capture.datasets import Dataset, load_dataset
from ibstore.capture.forward import batches, evaluating
from ibstore.capture.metrics import Means
from ibstore.capture.provenance import Provenance
from ibstore.capture.recipes import Recipe, recipe
from ibstore.capture.recorder import PROBE_BATCH, Recorder
from ibstore.capture.values import floating_dtype
from ibstore.devices import resolve_device
from ibstore.errors import UsageError
from ibstore.events import Emit, Event, ignore
from ibstore.store import Encoding
from ibstore.store.format.schema import Metrics

OPTIMIZERS: Final[Mapping[str, Callable[..., torch.optim.Optimizer]]] = {"Adam": torch.optim.Adam}
LOSSES: Final[Mapping[str, Callable[[torch.Tensor, torch.Tensor], torch.Tensor]]] = {
    "cross-entropy": functional.cross_entropy
}

_MANIFEST_SETTINGS: Final = ("dataset", "epochs", "batch_size", "lr", "limit")
"""What the manifest has no field of its own for; ``data_dir`` is a machine's business, not the run's."""

_LOWEST: Final = {"epochs": 0, "seed": 0, "batch_size": 1, "limit": 1, "threads": 1, "probe_batch": 1}
_MOST_THREADS: Final = 1024
"""torch takes any number, and the process dies without a word when the system has no more."""

_MAX_SEED: Final = 2**63 - 1
"""The largest seed that torch takes."""


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
    seed
        Seed of the weights and of the order of the data.
    device
        ``auto``, ``cpu``, ``cuda``, ``cuda:1``, …
    dtype
        What activations are rounded to; None: nothing is lost.
    encoding
        How they become bytes.
    limit
        Train on at most the first so many samples.
    data_dir
        Folder with the files of a data set that no package ships.
    threads
        torch's threads; None: as torch is set.
    probe_batch
        Samples in a batch of the recorder's forward pass.

    Raises
    ------
    UsageError
        When a value is out of range.
    """

    dataset: str
    epochs: int
    batch_size: int
    lr: float
    seed: int = 0
    device: str = "auto"
    dtype: str | None = None
    encoding: Encoding = field(default_factory=Encoding)
    limit: int | None = None
    data_dir: str | Path | None = None
    threads: int | None = None
    probe_batch: int = PROBE_BATCH

    def __post_init__(self) -> None:
        for name, low in _LOWEST.items():
            value = getattr(self, name)
            if value is not None and value < low:
                raise UsageError(f"{name} is {value}; give --{name.replace('_', '-')} {low} or more")
        if self.threads is not None and self.threads > _MOST_THREADS:
            raise UsageError(f"threads is {self.threads}; give --threads {_MOST_THREADS} at most, one a core is best")
        if self.seed > _MAX_SEED:
            raise UsageError(f"seed is {self.seed}; give --seed a number up to {_MAX_SEED}")
        if not (self.lr > 0 and isfinite(self.lr)):
            raise UsageError(f"lr is {self.lr}; give --lr a number above 0, such as 0.002")
        floating_dtype(self.dtype)

    @classmethod
    def of(cls, recipe: Recipe, **given: Any) -> Self:
        """Settings of a recipe with what is given in their place; None stands for what is not given.

        >>> from ibstore.capture.recipes import recipe
        >>> settings = TrainSettings.of(recipe("mnist-cnn"), epochs=3, lr=None)
        >>> settings.epochs, settings.lr
        (3, 0.002)
        """
        own = {each.name: getattr(recipe, each.name) for each in fields(cls) if hasattr(recipe, each.name)}
        return cls(**own | {name: value for name, value in given.items() if value is not None})


@dataclass(frozen=True, slots=True)
class Trained:
    """A training that has ended: the run's name, the metrics of each epoch from 0 on, and the network.

    The network is None where the run to be resumed was complete already.
    """

    run: str
    history: tuple[Metrics, ...]
    model: nn.Module | None


def train(
    recipe_name: str,
    store: str | Path,
    *,
    settings: TrainSettings | None = None,
    run: str | None = None,
    force: bool = False,
    resume: bool = False,
    emit: Emit = ignore,
) -> Trained:
    """Train a recipe's network and record the untrained network and every epoch after.

    Parameters
    ----------
    recipe_name
        One of `ibstore.capture.recipes.recipe_names`.
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
    emit
        Told of progress: stages ``train`` (recorded epochs, the untrained included; the detail has loss and
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
    chosen = recipe(recipe_name)
    settings = TrainSettings.of(chosen) if settings is None else settings
    name = f"{chosen.name}-seed{settings.seed}" if run is None else run
    device = resolve_device(settings.device)
    data = load_dataset(settings.dataset, settings.data_dir, settings.limit)
    with _reproducible(settings, device):
        trainer = _Trainer(chosen, settings, data, device, emit)
        recorder = Recorder(
            store,
            trainer.model,
            layers=chosen.layers,
            x=data.x_train,
            y=data.y_train,
            run=name,
            sample=data.id_train,
            batch_size=settings.probe_batch,
            dtype=settings.dtype,
            encoding=settings.encoding,
            device=device,
            measure=trainer.measure,
            force=force,
            resume=resume,
            keep=trainer.kept,
            epochs=settings.epochs + 1,
            provenance=_provenance(chosen, settings),
            emit=emit,
        )
        with recorder:
            complete = recorder.epoch == settings.epochs
            if complete:
                emit(Event("notice", detail=f"run {name!r} is complete already; there is nothing to do"))
            history = (*recorder.history, *trainer.epochs(recorder))
            recorder.complete()
            return Trained(name, history, None if complete else trainer.model)


class _Trainer:
    """A network on its way through its epochs."""

    def __init__(self, chosen: Recipe, settings: TrainSettings, data: Dataset, device: torch.device, emit: Emit):
        self.settings = settings
        self.model = chosen.model().to(device)
        self.optimizer = OPTIMIZERS[chosen.optimizer](self.model.parameters(), lr=settings.lr)
        self.loss = LOSSES[chosen.loss]
        self.order = torch.Generator().manual_seed(settings.seed)
        self.step = 0
        self._emit = emit
        arrays = (data.x_train, data.y_train, data.x_test, data.y_test)
        self._x, self._y, self._x_test, self._y_test = (torch.from_numpy(array).to(device) for array in arrays)

    @property
    def kept(self) -> dict[str, Any]:
        """What it needs to go on."""
        return {"model": self.model, "optimizer": self.optimizer, "order": self.order, "training": self}

    def state_dict(self) -> dict[str, int]:
        """What it counts itself."""
        return {"step": self.step}

    def load_state_dict(self, state: Mapping[str, int]) -> None:
        """Go on from there."""
        self.step = state["step"]

    def epochs(self, recorder: Recorder) -> Iterator[Metrics]:
        """Record the untrained network, then train and record each epoch; yield their metrics."""
        total = self.settings.epochs + 1
        begun = 0 if recorder.epoch is None else recorder.epoch + 1
        for epoch in range(begun, total):
            if epoch:
                self.train_epoch(epoch)
            metrics = recorder.record(epoch, self.step, test=self.test())
            loss, accuracy = metrics["train"]["loss"], metrics["train"]["accuracy"]
            self._emit(Event("train", epoch + 1, total, f"epoch {epoch}: loss {loss:.3f} accuracy {accuracy:.3f}"))
            yield metrics

    def train_epoch(self, epoch: int) -> None:
        """Go through the training split once, in an order of its own."""
        self.model.train()
        # Drawn on the CPU, so that every device sees the same order.
        order = torch.randperm(len(self._x), generator=self.order).to(self._x.device)
        slices = batches(len(order), self.settings.batch_size)
        for done, batch in enumerate(slices, start=1):
            rows = order[batch]
            self.optimizer.zero_grad()
            self.loss(self.model(self._x[rows]), self._y[rows]).backward()  # type: ignore[no-untyped-call]
            self.optimizer.step()
            self.step += 1
            self._emit(Event("batches", done, len(slices), f"epoch {epoch}", inner=True))

    def measure(self, output: torch.Tensor, labels: torch.Tensor) -> dict[str, torch.Tensor]:
        """Mean loss and accuracy of a batch."""
        return {"loss": self.loss(output, labels), "accuracy": (output.argmax(1) == labels).double().mean()}

    def test(self) -> dict[str, float]:
        """Loss and accuracy of the test split."""
        means = Means()
        with evaluating(self.model):
            for rows in batches(len(self._x_test), self.settings.probe_batch):
                x, y = self._x_test[rows], self._y_test[rows]
                means.add(self.measure(self.model(x), y), len(x))
        return means.result()


def _provenance(chosen: Recipe, settings: TrainSettings) -> Provenance:
    return Provenance(
        recipe=chosen.name,
        seed=settings.seed,
        loss=chosen.loss,
        optimizer=f"{chosen.optimizer}(lr={settings.lr})",
        settings={name: getattr(settings, name) for name in _MANIFEST_SETTINGS},
    )


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
            torch.manual_seed(settings.seed)
            yield
        finally:
            torch.set_num_threads(threads)
            torch.set_deterministic_debug_mode(deterministic)
            torch.backends.cudnn.benchmark = benchmark
