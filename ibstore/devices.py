"""Devices of torch by name, for those who compute on one; torch is loaded when one is asked for."""

import os
from typing import TYPE_CHECKING

from ibstore.errors import UsageError

if TYPE_CHECKING:
    import torch


def resolve_device(name: "str | torch.device") -> "torch.device":
    """Device of that name; ``auto`` is the first CUDA device where there is one, else the CPU.

    Raises
    ------
    UsageError
        When torch knows no such device, or cannot work on it here.
    """
    import torch

    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        device = torch.device(name)
        torch.zeros(1, device=device).item()
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        reason = str(error).splitlines()[0]
        raise UsageError(f"device {str(name)!r} cannot be used here ({reason}); give --device cpu, or auto") from None
    return device


def gpus_of(device: str) -> list[str]:
    """GPUs that processes of this machine can be given one each, as ``CUDA_VISIBLE_DEVICES`` speaks of them.

    There are none where the device is no GPU, or is a certain one: ``cuda:1`` is the same for all.
    """
    if device not in {"auto", "cuda"}:
        return []
    import torch

    count = torch.cuda.device_count()
    named = os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",")
    return named[:count] if named[0] else [str(number) for number in range(count)]
