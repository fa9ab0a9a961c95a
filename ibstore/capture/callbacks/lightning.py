"""Recording within Lightning's `Trainer`."""
# ruff: noqa: ARG002  # hooks are told more than they look at

from math import isfinite
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
from torch import nn

from ibstore.capture._torchvision import torchvision_datasets
from ibstore.capture.callbacks.following import Follower, FollowerContext, Running
from ibstore.capture.schedule import Schedule
from ibstore.errors import UnknownNameError, UsageError

torchvision_datasets()  # Lightning imports torchvision, which need not fit the installed torch
try:
    from lightning.fabric.utilities.exceptions import MisconfigurationException
    from lightning.pytorch import Callback, LightningModule, Trainer
    from lightning_utilities.core.apply_func import apply_to_collection
except ModuleNotFoundError:
    raise UsageError("LightningRecorder needs lightning; pip install 'ibstore[lightning]'") from None

_AUTOCAST: Final = {"bf16-mixed": torch.bfloat16, "16-mixed": torch.float16}
_WHOLE: Final = ("64-true", "bf16-true", "16-true")


class LightningRecorder(FollowerContext, Callback):
    """Records a network while Lightning trains it: ``Trainer(callbacks=[LightningRecorder("lab.zarr", x=x)])``.

    It begins when training starts: the untrained network is epoch 0, before it but after the sanity check of the
    validation. Metrics are what the module logs: ``val_loss`` becomes ``loss`` of the split ``val``, ``loss`` that of
    ``train``. The network is recorded as the trainer runs it (``bf16-mixed`` under autocast; ``bf16-true`` and
    ``64-true`` with ``x`` in that type), and is otherwise left alone.

    Process 0 alone records, unless ``ranks="shards"`` shares the probe set among all. When the trainer goes on from
    a checkpoint, or fits a second time, the run is gone on with; what was recorded already is not recorded again.

    Parameters
    ----------
    store
        Path of the store; it is made where it does not exist.
    schedule
        When to record, in epochs or steps: see `Schedule`. Steps are ``trainer.global_step``.
    network
        Path of the submodule that takes ``x``, such as ``model``; None: the module itself, by its ``forward``.
    resume
        Whether to go on with the run of that name; None: when the training goes on from some step.
    recorder
        What else `ibstore.Recorder` takes: ``x``, ``y`` or ``probes``, ``layers``, ``run``, ``measure``, …. With
        ``measure``, what the module logs of a recorded split is left out.

    Raises
    ------
    UsageError
        When an argument cannot be meant.
    """

    def __init__(
        self,
        store: str | Path,
        *,
        schedule: Schedule | str = "every:1",
        network: str | None = None,
        resume: bool | None = None,
        **recorder: Any,
    ) -> None:
        super().__init__()
        self._network, self._everywhere = network, recorder.get("ranks") == "shards"
        self._follower = Follower(store, schedule, resume, recorder)
        self._reached = 0

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Open the recorder; record the untrained network."""
        step, running = trainer.global_step, _running(trainer)
        self._reached = trainer.current_epoch
        if not (trainer.is_global_zero or self._everywhere):
            return
        model = pl_module if self._network is None else _submodule(pl_module, self._network)
        if self._follower.by_steps:
            self._follower.begin(model, running, step, step, _last_step(trainer, pl_module))
        else:
            # a checkpoint may be from within an epoch, or from its validation, when its end is still to come
            whole = step == 0 or (trainer.is_last_batch and not trainer.fit_loop.restarted_mid_epoch)
            self._follower.begin(model, running, self._reached if whole else None, step, _last_epoch(trainer))

    def on_train_batch_end(self, trainer: Trainer, *_: Any) -> None:
        """Record after a step that is due; batches whose gradients are accumulated are no steps."""
        if self._follower.by_steps:
            self._follower.reach(trainer.global_step, trainer.global_step, lambda: trainer.callback_metrics)

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Record after an epoch that is due, when its validation is done."""
        self._reached = trainer.current_epoch + 1
        if not self._follower.by_steps:
            self._follower.reach(self._reached, trainer.global_step, lambda: trainer.callback_metrics)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Record the trained network, and wait until all is committed."""
        step = trainer.global_step
        last = step if self._follower.by_steps else self._reached
        self._follower.finish(last, step, lambda: trainer.callback_metrics)
        self._follower.close()

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """Wait until what was recorded is committed; the exception stays what is raised."""
        self._follower.fail(exception)


def _running(trainer: Trainer) -> Running:
    """How the trainer runs the network."""
    if trainer.precision == "32-true":
        return Running("lightning")
    if trainer.precision in _AUTOCAST:
        return Running("lightning", _AUTOCAST[trainer.precision])
    if trainer.precision in _WHOLE:
        plugin = trainer.precision_plugin
        return Running("lightning", None, plugin.forward_context, lambda x: plugin.convert_input(_as_tensors(x)))
    known = ", ".join(("32-true", *_AUTOCAST, *_WHOLE))
    raise UsageError(f"a network cannot be recorded at precision {trainer.precision!r}; train at one of {known}")


def _as_tensors(x: Any) -> Any:
    return apply_to_collection(x, np.ndarray, torch.from_numpy)


def _submodule(module: LightningModule, path: str) -> nn.Module:
    try:
        return module.get_submodule(path)
    except AttributeError:
        children = ", ".join(name for name, _ in module.named_children())
        raise UnknownNameError(f"the module has no network {path!r}; it has {children or 'none'}") from None


def _last_epoch(trainer: Trainer) -> int | None:
    """Epochs of the training; None where steps, time or nothing ends it."""
    known = trainer.max_epochs is not None and trainer.max_epochs >= 0 and trainer.max_steps == -1
    return trainer.max_epochs if known else None


def _last_step(trainer: Trainer, module: LightningModule) -> int | None:
    """Steps of the training; None where nobody knows."""
    if not module.automatic_optimization:
        return None  # every step of every optimizer counts
    try:
        steps = trainer.estimated_stepping_batches
    except MisconfigurationException:
        return None  # gradients are accumulated by a schedule
    return int(steps) if isfinite(steps) and steps >= 0 else None
