"""Recording within Hugging Face's `Trainer`."""
# ruff: noqa: ARG002  # hooks are told more than they look at

import sys
from math import ceil
from pathlib import Path
from typing import Any

import torch

from ibstore.capture._torchvision import torchvision_datasets
from ibstore.capture.callbacks.following import Follower, FollowerContext, Running
from ibstore.capture.schedule import Schedule
from ibstore.errors import UsageError

torchvision_datasets()  # transformers imports torchvision, which need not fit the installed torch
try:
    from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments
except ModuleNotFoundError:
    raise UsageError("TransformersRecorder needs transformers; pip install 'ibstore[transformers]'") from None


class TransformersRecorder(FollowerContext, TrainerCallback):
    """Records a network while Hugging Face's `Trainer` trains it: ``Trainer(callbacks=[TransformersRecorder(…)])``.

    ``x`` is a mapping of what the network takes by name: ``{"input_ids": …, "attention_mask": …}``, each (sample, …).
    The untrained network is epoch 0; a step is the optimizer's (``state.global_step``), however many batches it
    accumulates. With ``bf16`` or ``fp16`` the network is recorded under autocast, as it is trained.

    The trainer's own logs come after the hooks in which the network is recorded; for metrics of the recorded
    network give ``measure``, which takes its output (``.logits``) and the labels.

    Process 0 alone records, unless ``ranks="shards"`` shares the probe set among all. When the trainer goes on from a
    checkpoint, the run is gone on with; what was recorded already is not recorded again. The trainer tells no
    callback of an exception: as a context, ``with TransformersRecorder(…) as recorder: …``, it closes then too.

    Parameters
    ----------
    store
        Path of the store; it is made where it does not exist.
    schedule
        When to record, in epochs or steps: see `Schedule`.
    resume
        Whether to go on with the run of that name; None: when the training goes on from some step.
    recorder
        What else `ibstore.Recorder` takes: ``x``, ``y`` or ``probes``, ``layers``, ``run``, ``measure``, ….

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
        resume: bool | None = None,
        **recorder: Any,
    ) -> None:
        super().__init__()
        self._everywhere = recorder.get("ranks") == "shards"
        self._follower = Follower(store, schedule, resume, recorder)

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **told: Any
    ) -> None:
        """Open the recorder; record the untrained network."""
        if not (state.is_world_process_zero or self._everywhere):
            return
        point: int | None = state.global_step
        total: int | None = state.max_steps
        if not self._follower.by_steps:
            epoch, last = float(state.epoch or 0), state.num_train_epochs
            point = int(epoch) if epoch.is_integer() else None  # a checkpoint may be from within an epoch
            total = last if last < sys.maxsize else None
        autocast = torch.bfloat16 if args.bf16 else torch.float16 if args.fp16 else None
        self._follower.begin(told["model"], Running("transformers", autocast), point, state.global_step, total)

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        """Record after a step that is due."""
        if self._follower.by_steps:
            self._follower.reach(state.global_step, state.global_step)

    def on_epoch_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        """Record after an epoch that is due."""
        if not self._follower.by_steps:
            self._follower.reach(_epochs(state), state.global_step)

    def on_log(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **told: Any) -> None:
        """Record the trained network: this is said after the last step, and before the best weights are put back."""
        if "train_runtime" in (told.get("logs") or {}):
            self._follower.finish(state.global_step if self._follower.by_steps else _epochs(state), state.global_step)

    def on_train_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        """Wait until all is committed."""
        self._follower.close()


def _epochs(state: TrainerState) -> int:
    """Epochs that are over, one that was cut short included."""
    return ceil(round(state.epoch or 0, 6))
