"""What a recorder is given, checked before anything is written."""

from typing import Any

import numpy as np
from torch import nn

from ibstore.capture import values
from ibstore.capture.metrics import Measure
from ibstore.errors import CaptureError, UsageError
from ibstore.store import ProbeSet


def is_count(number: object) -> bool:
    """Whether it is an integer from 0."""
    return isinstance(number, int | np.integer) and not isinstance(number, bool) and int(number) >= 0


def check_arguments(model: object, batch_size: int, y: Any, measure: Measure | None) -> None:
    """Raise `UsageError` when they cannot be meant."""
    if not isinstance(model, nn.Module):
        raise UsageError(f"model is of type {type(model).__name__}; give a torch.nn.Module")
    if not is_count(batch_size) or batch_size < 1:
        raise UsageError(f"batch_size is {batch_size!r}; give an integer from 1")
    if measure is not None and y is None:
        raise UsageError("measure compares the network's output with labels, and there are none; give y")


def probe_set(x: Any, y: Any, sample: Any) -> ProbeSet:
    """Probe set of tensors or arrays; raises `CaptureError` when they cannot be one."""
    inputs = values.as_array(x)
    if inputs.ndim == 0:
        raise CaptureError("x is a single number; give an array with one row a sample")
    return ProbeSet.of(
        inputs, None if y is None else values.as_array(y), None if sample is None else values.as_array(sample)
    )
