"""Forward hooks: which layers a network has, and what they say in one forward pass.

Hooks live for one forward pass and go with it, also when it fails: the network is never left changed. Taps are heard
like modules (`ibstore.capture.taps`).
"""

import difflib
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any, Final

import torch
from torch import nn
from torch.utils.hooks import RemovableHandle

from ibstore.capture import specs, taps, unwrap
from ibstore.capture.specs import LayerSpec
from ibstore.errors import CaptureError, UnknownNameError, UsageError

See = Callable[[str, int, object], None]
"""Told of every firing: the module's path or the tap's name, which call of the pass (from 0), and what it puts out."""

Copy = Callable[[torch.Tensor], torch.Tensor]
"""Copies what a tensor is at this instant."""

ROOT: Final = ""
"""Path of the network itself."""

_PARAMETRIZATIONS: Final = "parametrizations"
"""Where torch keeps what computes a module's weights: it is no part of what the network says."""


@dataclass(frozen=True, slots=True)
class Firing:
    """The module at ``path``, or the tap of that name, put out ``output`` in its ``call``-th call of a forward pass."""

    path: str
    call: int
    output: object


def discover(
    model: nn.Module,
    layers: Sequence[str] | None,
    forward: Callable[[], object],
    batch: int,
    pass_over: Callable[[str], None],
) -> list[tuple[LayerSpec, torch.Tensor]]:
    """Layers to record in the order in which they fire, each with its activations in one forward pass.

    Parameters
    ----------
    model
        Any network.
    layers
        Their texts (see `ibstore.capture.specs`); None: every tap, and every leaf module that fires and has
        parameters or is an activation function, one layer a call; modules' tensors without a row a sample, as an
        embedding of positions puts out, are passed over.
    forward
        Runs one batch through ``model``.
    batch
        Samples in that batch.
    pass_over
        Told of each layer that is passed over, as a sentence's subject and fact.

    Raises
    ------
    UnknownNameError
        When the network has no such module or tap; the message names the near ones.
    CaptureError
        When a module never fires, fires more often than its text says, or puts out no tensor of one row a
        sample.
    UsageError
        When a text cannot be read or stands twice, or a tap is called like a module.
    """
    named = None if layers is None else _parse_all(layers)
    modules = unwrap.named_modules(model)
    watchable = {ROOT, *modules}
    paths = _leaf_paths(modules) if named is None else [spec.path for spec in named if spec.path in watchable]
    with tracing(model, paths) as firings:
        forward()
    if named is not None:
        check_known(named, [*modules, *dict.fromkeys(firing.path for firing in firings)])
    chosen = _every(firings) if named is None else named
    located = sorted((_locate(spec, firings), order) for order, spec in enumerate(chosen))
    found = [(chosen[order], firings[index].output) for index, order in located]
    if named is None:
        found = _with_rows(found, modules, batch, pass_over)
    try:
        return [(spec, _recordable(spec, output, batch)) for spec, output in found]
    except CaptureError as error:
        if named is not None:
            raise
        names = [spec.name for spec, _ in found]
        raise CaptureError(f"{error}, or name the layers that you want; these fire: {', '.join(names)}") from None


@contextmanager
def tracing(model: nn.Module, paths: Iterable[str]) -> Iterator[list[Firing]]:
    """Note what the modules at ``paths`` and all taps put out while the context lasts, in that order."""
    firings: list[Firing] = []
    with _watching(model, paths, lambda path, call, output: firings.append(Firing(path, call, output))):
        yield firings


@contextmanager
def copying(model: nn.Module, layers: Sequence[LayerSpec], copy: Copy) -> Iterator[dict[str, torch.Tensor]]:
    """Copy what ``layers`` say in the one forward pass of the context, by the layer's name.

    ``copy`` is called at the instant when the module has spoken: what comes after it may work in place.

    Raises
    ------
    CaptureError
        When a layer does not fire, fires twice without a call in its text, or no longer puts out a tensor.
    """
    copies: dict[str, torch.Tensor] = {}

    def see(path: str, call: int, output: object) -> None:
        for spec in layers:
            if spec.path == path and spec.call in (None, call):
                if spec.name in copies:
                    raise CaptureError(
                        f"layer {spec.name!r} fires more than once now, once when the run began; name one call, "
                        f"such as '{path}:0', and record under another run name"
                    )
                copies[spec.name] = copy(specs.select(spec, output))

    with _watching(model, {spec.path for spec in layers}, see):
        yield copies
    missing = [spec.name for spec in layers if spec.name not in copies]
    if missing:
        raise CaptureError(
            f"layer {missing[0]!r} did not fire now, though it did when the run began; record layers that every "
            "forward pass goes through"
        )


@contextmanager
def _watching(model: nn.Module, paths: Iterable[str], see: See) -> Iterator[None]:
    """Hook the modules at ``paths`` and hear all taps while the context lasts."""
    modules = unwrap.named_modules(model)
    taken: Counter[str] = Counter()

    def tapped(name: str, tensor: torch.Tensor) -> None:
        if name in modules:
            raise UsageError(f"a tap is called {name!r}, as a module of the network is; give the tap another name")
        taken[name] += 1
        see(name, taken[name] - 1, tensor)

    with ExitStack() as hooks:
        hookable = {**modules, ROOT: unwrap.unwrapped(model)}
        for path in dict.fromkeys(paths):
            if path in hookable:  # the others are taps
                hooks.callback(_hooked(path, hookable[path], see).remove)
        hooks.enter_context(taps.watched(tapped))
        yield


def _hooked(path: str, module: nn.Module, see: See) -> RemovableHandle:
    if isinstance(module, torch.jit.ScriptModule):
        raise CaptureError(
            f"module {path!r} is a {type(module).__name__}, on which TorchScript takes no hooks; tap what it puts out, "
            "ibstore.tap('name', tensor), and name the layers that you want"
        )
    calls = 0

    def hook(_module: nn.Module, _inputs: Any, output: Any) -> None:
        nonlocal calls
        see(path, calls, output)
        calls += 1

    return module.register_forward_hook(hook)


def _parse_all(layers: Sequence[str]) -> list[LayerSpec]:
    if isinstance(layers, str) or not layers:
        raise UsageError(
            f"layers is {layers!r}; give a list of at least one layer, such as layers=['conv1'], or leave it out to "
            "record every layer"
        )
    for text in layers:
        if not isinstance(text, str):
            raise UsageError(f"a layer is named {text!r}; give the module's path as text, such as 'conv1' or '0'")
    parsed = [specs.parse(text) for text in layers]
    twice = [name for name, count in Counter(spec.name for spec in parsed).items() if count > 1]
    if twice:
        raise UsageError(f"layer {twice[0]!r} is named twice; name it once")
    return parsed


def check_known(named: Sequence[LayerSpec], known: Sequence[str]) -> None:
    """Return when all are of modules and taps that are known; raises `UnknownNameError`, which names the near ones."""
    paths = list(dict.fromkeys(known))
    for spec in named:
        if spec.path not in paths:
            raise UnknownNameError(f"the network has no module and no tap {spec.path!r}; {_near(spec.path, paths)}")


def _near(path: str, known: Sequence[str]) -> str:
    """The names that may be meant, as the next action of a message."""
    inside = [name for name in known if name.endswith(f".{path}")]
    near = list(dict.fromkeys(inside + difflib.get_close_matches(path, known, n=specs.SHOWN)))[: specs.SHOWN]
    if near:
        return f"did you mean {', '.join(near)}?"
    if not known:
        return "it has no modules inside: wrap it, as torch.nn.Sequential(model), and name layer '0'"
    more = ", …" if len(known) > specs.SHOWN else ""
    return f"it has {', '.join(known[: specs.SHOWN])}{more}"


def _leaf_paths(modules: Mapping[str, nn.Module]) -> list[str]:
    """Paths of the modules without modules inside that have parameters or are activation functions, one path each."""
    first = {id(module): path for path, module in reversed(list(modules.items()))}
    return [
        path
        for path, module in modules.items()
        if first[id(module)] == path
        and _PARAMETRIZATIONS not in path.split(".")
        and _is_leaf(module)
        and _is_layer(module)
    ]


def _is_leaf(module: nn.Module) -> bool:
    if isinstance(module, torch.jit.ScriptModule):  # nothing inside can be watched
        return True
    return all(name == _PARAMETRIZATIONS for name, _ in module.named_children())


def _is_layer(module: nn.Module) -> bool:
    return any(True for _ in module.parameters()) or type(module).__module__ == nn.modules.activation.__name__


def _every(firings: Sequence[Firing]) -> list[LayerSpec]:
    """A layer a firing; the calls of a module that fires several times are numbered."""
    if not firings:
        raise CaptureError(
            "no module inside the network that has parameters or is an activation function fires; name the layers to "
            "record (layers=[…]), or wrap a network that is a single module, as torch.nn.Sequential(model)"
        )
    calls = Counter(firing.path for firing in firings)
    return [
        LayerSpec(firing.path, firing.path)
        if calls[firing.path] == 1
        else LayerSpec(f"{firing.path}:{firing.call}", firing.path, firing.call)
        for firing in firings
    ]


def _locate(spec: LayerSpec, firings: Sequence[Firing]) -> int:
    """Index of the firing that ``spec`` names."""
    own = [index for index, firing in enumerate(firings) if firing.path == spec.path]
    if not own:
        raise CaptureError(
            f"layer {spec.name!r} never fires: the forward pass does not call the module {spec.path!r}; name a layer "
            f"that it calls, or tap what it computes: ibstore.tap('name', tensor)"
        )
    calls = f"'{spec.path}:0' … '{spec.path}:{len(own) - 1}'" if len(own) > 1 else f"{spec.path!r} alone"
    if spec.call is None and len(own) > 1:
        raise CaptureError(f"layer {spec.name!r} fires {len(own)} times in a forward pass; name one call, {calls}")
    if (spec.call or 0) >= len(own):
        times = "once" if len(own) == 1 else f"{len(own)} times"
        raise CaptureError(f"layer {spec.name!r}: the module fires {times} in a forward pass; name {calls}")
    return own[spec.call or 0]


def _with_rows(
    found: Sequence[tuple[LayerSpec, object]],
    modules: Mapping[str, nn.Module],
    batch: int,
    pass_over: Callable[[str], None],
) -> list[tuple[LayerSpec, object]]:
    """Those that are no module's tensor without a row a sample, unless none is left: that is an error to tell.

    A tap was asked for, and is an error in any case.
    """
    rowless = {
        spec: output.shape
        for spec, output in found
        if spec.path in modules and isinstance(output, torch.Tensor) and not _has_rows(output, batch)
    }
    if len(rowless) == len(found):
        return list(found)
    for spec, shape in rowless.items():
        pass_over(f"layer {spec.name!r} puts out shape {tuple(shape)} for a batch of {batch} samples")
    return [(spec, output) for spec, output in found if spec not in rowless]


def _has_rows(tensor: torch.Tensor, batch: int) -> bool:
    return tensor.ndim > 0 and len(tensor) == batch


def _recordable(spec: LayerSpec, output: object, batch: int) -> torch.Tensor:
    """The layer's tensor in ``output``: one row of real numbers a sample."""
    tensor = specs.select(spec, output)
    if not _has_rows(tensor, batch):
        raise CaptureError(
            f"layer {spec.name!r} puts out shape {tuple(tensor.shape)} for a batch of {batch} samples; record a layer "
            "whose first dimension is the batch"
        )
    if batch and not tensor.numel():
        raise CaptureError(f"layer {spec.name!r} puts out no values, {tuple(tensor.shape)}; record another layer")
    if tensor.is_quantized:
        raise CaptureError(
            f"layer {spec.name!r} puts out {tensor.dtype}; record a layer of its integers (int_repr) or dequantized"
        )
    if tensor.is_complex() or tensor.layout is not torch.strided:
        raise CaptureError(
            f"layer {spec.name!r} puts out {tensor.layout} {tensor.dtype}; record a layer of dense real numbers"
        )
    return tensor
