"""Whether networks can be trained at once, and each as if it were alone: told before they are, as far as can be.

They must be built alike, and a step of training must change nothing but weights, and draw no random numbers: running
statistics are refused, and so is dropout, whose random numbers could not be those of a network that is trained alone.
"""

from collections.abc import Mapping, Sequence
from typing import Final

import torch
from torch import nn
from torch.nn.modules.dropout import _DropoutNd
from torch.nn.parameter import is_lazy
from torch.nn.utils.parametrize import type_before_parametrizations

from ibstore.errors import UsageError

ONE_BY_ONE: Final = "train them one after another (--sweep seed=0:5)"
"""What to do with networks that cannot be trained at once."""

_BY_VALUE: Final = (bool, int, float, complex, str, tuple, type(None), torch.dtype)


def check_alike(models: Sequence[nn.Module]) -> None:
    """Return when they are networks that differ in the values of their weights and buffers alone.

    Modules are compared by path and class, their tensors by shape, dtype, device and `requires_grad`, and what else
    they hold by value where it is a number, a text, a tuple or a tensor.

    Raises
    ------
    UsageError
        When there are none, one is no network or has no weights yet, or two differ; the message says where.
    """
    if not models:
        raise UsageError("there are no networks to train at once; give one or more")
    for index, model in enumerate(models):
        if not isinstance(model, nn.Module):
            raise UsageError(f"network {index} is of type {type(model).__name__}; give torch.nn.Module")
        if any(map(is_lazy, tensors(model).values())):
            raise UsageError(f"network {index} has no weights yet (it is lazy); run a batch through it first")
        where = _difference(models[0], model)
        if where is not None:
            raise UsageError(f"networks 0 and {index} are not built alike: they differ in {where}; {ONE_BY_ONE}")


def check_trains_alone(model: nn.Module) -> None:
    """Return when no module is of a kind that keeps statistics or draws random numbers in training.

    Raises
    ------
    UsageError
        When one has running statistics, or is a dropout of more than nothing.
    """
    for path, module in model.named_modules():
        named = f"{path or 'the network'} ({type(module).__name__})"
        if getattr(module, "track_running_stats", False):
            raise UsageError(
                f"{named} keeps running statistics, which training changes: networks with it are not trained at once; "
                f"{ONE_BY_ONE}, or make it with track_running_stats=False"
            )
        if isinstance(module, _DropoutNd) and module.p > 0:
            raise UsageError(
                f"{named} draws random numbers, which would not be those of a network that is trained alone; "
                f"{ONE_BY_ONE}"
            )


def check_forward(model: nn.Module, x: torch.Tensor) -> None:
    """Return when a forward pass of a network changes no buffer of it and draws no random numbers of torch.

    It finds what `check_trains_alone` cannot know: functions, and modules of one's own. The random numbers are put
    back; the network is used up.

    Raises
    ------
    UsageError
        When it does, or fails.
    """
    devices = [x.device] if x.device.type == "cuda" else []
    with torch.random.fork_rng(devices), torch.no_grad():
        buffers = dict(model.named_buffers())
        versions = {name: buffer._version for name, buffer in buffers.items()}
        drawn = _random_state(devices)
        try:
            model(x)
        except torch.OutOfMemoryError:
            raise
        except (RuntimeError, ValueError, TypeError, IndexError) as error:
            raise UsageError(
                f"the network fails on a batch of {tuple(x.shape)} {x.dtype} on {x.device} ({first_line(error)}); give "
                "x as (replica, batch, …), with each batch as the network takes it"
            ) from error
        for name, buffer in model.named_buffers():
            if buffer is not buffers.get(name) or buffer._version != versions[name]:
                raise UsageError(
                    f"buffer {name!r} changes in training, so that networks cannot be at once; {ONE_BY_ONE}"
                )
        if not all(map(torch.equal, drawn, _random_state(devices))):
            raise UsageError(
                "the network draws random numbers in training, which would not be those of one that is trained alone; "
                f"{ONE_BY_ONE}"
            )


def _random_state(devices: Sequence[torch.device]) -> list[torch.Tensor]:
    return [torch.get_rng_state(), *(torch.cuda.get_rng_state(device) for device in devices)]


def first_line(error: Exception) -> str:
    """An error's kind and the first line of what it says."""
    return f"{type(error).__name__}: {str(error).partition(chr(10))[0]}"


def _difference(first: nn.Module, other: nn.Module) -> str | None:
    """Where two networks differ in what they compute, values of weights and buffers aside; None where nowhere."""
    firsts, others = (dict(model.named_modules(remove_duplicate=False)) for model in (first, other))
    lacking = sorted(firsts.keys() ^ others.keys())
    if lacking:
        return f"module {lacking[0]!r}, which one of them lacks"
    for path, module in firsts.items():
        fact = _differing_fact(module, others[path])
        if fact is not None:
            return f"module {path!r}: {fact}" if path else fact
    if list(firsts) != list(others):
        return "the order of their modules"
    return None if list(tensors(first)) == list(tensors(other)) else "which modules share their weights"


def _differing_fact(first: nn.Module, other: nn.Module) -> str | None:
    """What two modules, seen without those inside them, differ in."""
    kinds = [type_before_parametrizations(module) for module in (first, other)]
    if kinds[0] is not kinds[1]:
        return " and ".join(kind.__name__ for kind in kinds)
    tensors, tensors_too = _told(first), _told(other)
    for name in sorted(tensors.keys() | tensors_too.keys()):
        if tensors.get(name) != tensors_too.get(name):
            return f"its {name}, {tensors.get(name)} and {tensors_too.get(name)}"
    held, held_too = vars(first), vars(other)
    differing = [name for name in sorted(held.keys() | held_too.keys()) if not _same(held, held_too, name)]
    return f"its attribute {differing[0]}" if differing else None


def _told(module: nn.Module) -> dict[str, str]:
    """What a module's own tensors have in common with those of one that is built alike."""
    return {
        name: f"{tuple(tensor.shape)} {tensor.dtype} on {tensor.device}{'' if tensor.requires_grad else ' (frozen)'}"
        for name, tensor in tensors(module, recurse=False).items()
    }


def _same(held: Mapping[str, object], held_too: Mapping[str, object], name: str) -> bool:
    """Whether both hold the same attribute; what cannot be told is taken to be the same."""
    if name not in held or name not in held_too:
        return False
    first, other = held[name], held_too[name]
    if isinstance(first, torch.Tensor) and isinstance(other, torch.Tensor):
        return first.dtype == other.dtype and first.device == other.device and torch.equal(first, other)
    if isinstance(first, _BY_VALUE) or isinstance(other, _BY_VALUE):
        return repr(first) == repr(other)  # a tuple may hold what has no truth value
    return type(first) is type(other)


def tensors(module: nn.Module, *, recurse: bool = True) -> dict[str, torch.Tensor]:
    """Parameters and buffers by name."""
    return {**dict(module.named_parameters(recurse=recurse)), **dict(module.named_buffers(recurse=recurse))}
