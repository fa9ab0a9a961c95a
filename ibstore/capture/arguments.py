"""What a recorder is given, checked before anything is written."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
from torch import nn

from ibstore.capture import values
from ibstore.capture.inputs import Inputs
from ibstore.capture.metrics import Measure
from ibstore.errors import CaptureError, UsageError
from ibstore.store import ProbeSet
from ibstore.store.format.names import LAST_EPOCH

SPLIT: Final = "train"
"""Name of a single split, unless it is given another one."""


@dataclass(frozen=True, slots=True)
class Probe:
    """Samples of one split, as they are given to a recorder.

    Parameters
    ----------
    x
        What the network takes: a tensor or array (``model(x)``), a tuple or list of them (``model(*x)``) or a
        mapping of them (``model(**x)``), each (sample, …). They are kept on the CPU, without a copy where possible, and
        must not be changed. The store keeps the first as x, and of the others their digests, in the manifest.
    y
        Integer labels, (sample,), or None.
    sample
        Sample ids, (sample,), distinct; by default 0, 1, 2, …
    targets
        What else is known of the samples, by name, (sample, …): kept in the store beside x and y.
    """

    x: Any
    y: Any = None
    sample: Any = None
    targets: Mapping[str, Any] = field(default_factory=dict)

    def inputs(self) -> Inputs:
        """What the network is called with."""
        return Inputs.of(self.x)

    def stored(self, inputs: Inputs) -> ProbeSet:
        """What the store keeps of it; raises `CaptureError` when that cannot be a probe set."""
        labels, ids = (None if each is None else values.as_array(each) for each in (self.y, self.sample))
        targets = {name: values.as_array(each) for name, each in self.targets.items()}
        return ProbeSet.of(values.as_array(inputs.first), labels, ids, targets)


def splits_of(x: Any, y: Any, sample: Any, split: str, probes: Mapping[str, Probe] | None) -> dict[str, Probe]:
    """Probes by split, from ``probes`` or from the rest.

    Raises
    ------
    UsageError
        When both are given, or none, or something in ``probes`` is no probe.
    """
    if probes is None:
        if x is None:
            raise UsageError("there is nothing to record: give x, or probes={'train': Probe(x, y), …}")
        return {split: Probe(x, y, sample)}
    if not (x is None and y is None and sample is None and split == SPLIT):
        raise UsageError("x, y, sample and split are those of a single one, and probes has its own; give either")
    if not isinstance(probes, Mapping) or not probes:
        raise UsageError(f"probes is {probes!r}; give at least one split, such as probes={{'train': Probe(x, y)}}")
    for name, probe in probes.items():
        if not isinstance(probe, Probe):
            raise UsageError(f"probes[{name!r}] is of type {type(probe).__name__}; give an ibstore.Probe")
    return dict(probes)


def is_count(number: object) -> bool:
    """Whether it is an integer from 0."""
    return isinstance(number, int | np.integer) and not isinstance(number, bool) and int(number) >= 0


def check_model(model: object, batch_size: int) -> None:
    """Raise `UsageError` when a network cannot be run in such batches."""
    if not isinstance(model, nn.Module):
        raise UsageError(f"model is of type {type(model).__name__}; give a torch.nn.Module")
    if not is_count(batch_size) or batch_size < 1:
        raise UsageError(f"batch_size is {batch_size!r}; give an integer from 1")


def check_place(store: object, epochs: object, keep: object) -> None:
    """Raise `UsageError` when nobody can record there, so much, with that to go on from."""
    if not isinstance(store, str | Path) or not str(store):
        raise UsageError(f"store is {store!r}; give its path or URL")
    if not (epochs is None or is_count(epochs)):
        raise UsageError(f"epochs is {epochs!r}; give how many will be recorded, or leave it out")
    if not isinstance(keep, Mapping):
        raise UsageError(f"keep is {keep!r}; give objects by name, such as keep={{'optimizer': optimizer}}")


def check_arguments(
    model: object, batch_size: int, probes: Mapping[str, Probe], measure: Measure | None, autocast: torch.dtype | None
) -> None:
    """Raise `UsageError` when they cannot be meant."""
    check_model(model, batch_size)
    if measure is not None and not callable(measure):
        raise UsageError(f"measure is {measure!r}; give a function of the network's output and the labels")
    if measure is not None and all(probe.y is None for probe in probes.values()):
        raise UsageError("measure compares the network's output with labels, and there are none; give y")
    if autocast not in (None, torch.bfloat16, torch.float16):
        raise UsageError(f"autocast is {autocast!r}; give torch.bfloat16, torch.float16, or None for the network's own")


def check_epoch(epoch: int, step: int | None, last: int) -> None:
    """Raise `CaptureError` when an epoch cannot follow ``last``, the one before it (−1: there is none)."""
    if not is_count(epoch) or not (step is None or is_count(step)):
        name, number = ("step", step) if is_count(epoch) else ("epoch", epoch)
        raise CaptureError(f"{name} is {number!r}; give an integer from 0")
    if epoch > LAST_EPOCH or (step or 0) > np.iinfo(np.int64).max:
        raise CaptureError(f"epoch {epoch}, step {step} is too large; an epoch may be up to {LAST_EPOCH}")
    if epoch == last:
        raise CaptureError(f"epoch {epoch} is recorded already; give every epoch a number of its own")
    if epoch < last:
        raise CaptureError(f"epoch {epoch} comes after epoch {last}; record epochs in growing order")
