"""Networks as they were written: torch's wrappers are taken off, and compiled code is passed by.

>>> network = nn.Sequential(nn.Linear(2, 2), nn.DataParallel(nn.Sequential(nn.Tanh())))
>>> list(named_modules(nn.DataParallel(network)))
['0', '1', '1.0']
"""

import sys
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from typing import Final

import torch
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from ibstore.errors import CaptureError

_SHARDING: Final = frozenset({"FullyShardedDataParallel", "FSDPModule"})
"""Classes of networks of whose weights a process has only a share; naming them spares the import."""


def unwrapped(model: nn.Module) -> nn.Module:
    """The network inside `torch.compile`, `DataParallel` and `DistributedDataParallel`, itself where there is none."""
    while (inner := _inside(model)) is not None:
        model = inner
    return model


def _inside(model: nn.Module) -> nn.Module | None:
    if isinstance(model, nn.DataParallel | DistributedDataParallel):
        inner: nn.Module = model.module
        return inner
    modules = model._modules  # a scripted module's has no get
    return modules["_orig_mod"] if "_orig_mod" in modules else None  # noqa: SIM401  (what torch.compile has wrapped)


def named_modules(model: nn.Module) -> dict[str, nn.Module]:
    """Modules inside a network by the paths that they have where nothing is wrapped, in the order of declaration.

    One that stands under two paths is found under both; what is inside a scripted module is not seen.
    """
    return dict(_walk("", unwrapped(model)))


def _walk(head: str, module: nn.Module) -> Iterator[tuple[str, nn.Module]]:
    if isinstance(module, torch.jit.ScriptModule):
        return
    for name, child in module._modules.items():
        if child is not None:
            path, inner = f"{head}{name}", unwrapped(child)
            yield path, inner
            yield from _walk(f"{path}.", inner)


def check_watchable(model: nn.Module) -> None:
    """Return when the modules of an unwrapped network can be watched in this process alone.

    Raises
    ------
    CaptureError
        When it is scripted, sharded, or distributed in part.
    """
    if isinstance(model, torch.jit.ScriptModule):
        raise CaptureError(
            f"the network is a {type(model).__name__}, inside of which TorchScript calls no hooks; record the Python "
            "network that it was made from, with load_state_dict(scripted.state_dict())"
        )
    for path, module in [("", model), *model.named_modules()]:
        where = f"module {path!r}" if path else "the network"
        if _SHARDING & {base.__name__ for base in type(module).__mro__}:
            raise CaptureError(
                f"{where} is sharded (FSDP): this process has only a share of its weights; record an unsharded network "
                "that loads its full state dict"
            )
        if isinstance(module, DistributedDataParallel):
            raise CaptureError(
                f"{where} is a DistributedDataParallel inside another module, whose forward pass waits for the other "
                "processes; wrap the whole network instead"
            )


@contextmanager
def as_written(model: nn.Module) -> Iterator[None]:
    """Let compiled code run eagerly, and every `DataParallel` inside the network on its module's own device."""
    parallel = [(module, module.device_ids) for module in model.modules() if isinstance(module, nn.DataParallel)]
    # without torch._dynamo nothing is compiled, and importing it takes seconds
    eager = torch.compiler.set_stance("force_eager") if "torch._dynamo" in sys.modules else nullcontext()
    with eager:
        try:
            for module, _ in parallel:
                module.device_ids = []
            yield
        finally:
            for module, ids in parallel:
                module.device_ids = ids
