"""`tap`: a name for a tensor that no module puts out.

>>> class Residual(torch.nn.Module):
...     def __init__(self):
...         super().__init__()
...         self.fc = torch.nn.Linear(3, 3)
...     def forward(self, x):
...         return tap("sum", x + self.fc(x))
"""

import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Final

import torch

from ibstore.errors import UsageError

_NAME: Final = re.compile(r"[^:\[\]]+")
_watcher: ContextVar[Callable[[str, torch.Tensor], None] | None] = ContextVar("watcher", default=None)


def tap(name: str, tensor: torch.Tensor) -> torch.Tensor:
    """The tensor itself; while a recorder watches, it is a layer called ``name``, as it is at this instant.

    For what no module puts out: residual sums, functional operations, attention weights. The k-th call of a name in
    one forward pass is ``name:k``, as for modules. It does nothing while torch compiles, traces or scripts, nor on
    tensors inside ``vmap`` and ``grad``.

    Parameters
    ----------
    name
        Not that of a module, and without ``:``, ``[`` and ``]``.
    tensor
        One row of real numbers a sample.

    Raises
    ------
    UsageError
        When there is no tensor, or the name cannot be one.

    Examples
    --------
    >>> tap("sum", torch.ones(2) + 1)
    tensor([2., 2.])
    """
    if torch.jit.is_scripting():
        return tensor
    else:  # noqa: RET505  (TorchScript leaves this branch uncompiled)
        return _tapped(name, tensor)


@torch.jit.ignore  # type: ignore[untyped-decorator]
def _tapped(name: str, tensor: torch.Tensor) -> torch.Tensor:
    if torch.compiler.is_compiling() or torch.jit.is_tracing():  # type: ignore[no-untyped-call]
        return tensor
    if not isinstance(tensor, torch.Tensor):
        raise UsageError(
            f"tap {name!r} is given a {type(tensor).__name__}, no tensor; tap each tensor in it by a name of its own"
        )
    if not isinstance(name, str) or not _NAME.fullmatch(name):
        raise UsageError(f"a tap is called {name!r}; give a text without ':', '[' and ']', such as 'sum'")
    watcher = _watcher.get()
    if watcher is not None and not torch._C._functorch.is_functorch_wrapped_tensor(tensor):  # torch has no public way
        watcher(name, tensor)
    return tensor


@contextmanager
def watched(watcher: Callable[[str, torch.Tensor], None]) -> Iterator[None]:
    """Tell ``watcher`` of every tap of this thread while the context lasts."""
    token = _watcher.set(watcher)
    try:
        yield
    finally:
        _watcher.reset(token)
