"""Which parameters belong to which layer, so that dynamics and activations can be laid side by side.

Each parameter belongs to one layer:

1. A recorded layer has the parameters of its own module, those of modules inside it included. What several share (a
   reused module, tied weights) belongs to the first of them, in the order in which they fire.
2. A recorded layer without a module that has parameters (an activation ``act1`` behind ``fc1``, a tap, a part of the
   network's own output) has those of the modules that fired since the recorded layer before it.
3. All others, such as those behind the last recorded layer, stand under their own module's path, and the network's own
   under their name.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence, Set

from torch import nn

from ibstore.capture import specs, unwrap
from ibstore.capture.forward import evaluating
from ibstore.capture.hooks import ROOT, check_known, tracing
from ibstore.capture.specs import LayerSpec
from ibstore.errors import CaptureError

Modules = Mapping[str, nn.Module]
"""Modules by path."""


def owners(model: nn.Module, layers: Sequence[str], forward: Callable[[], object]) -> dict[str, list[nn.Parameter]]:
    """Parameters of each layer that has some.

    Parameters
    ----------
    model
        The network.
    layers
        The recorded layers' names, such as those of a run's manifest.
    forward
        Runs a batch through ``model``: it is called once, in eval mode and without gradients.

    Raises
    ------
    UnknownNameError
        When the network has no such module and no such tap.
    CaptureError
        When a layer does not fire.

    Examples
    --------
    >>> import torch
    >>> model = nn.Sequential(nn.Linear(3, 2), nn.Tanh(), nn.Linear(2, 2))
    >>> found = owners(model, ["1"], lambda: model(torch.zeros(1, 3)))
    >>> {layer: [tuple(parameter.shape) for parameter in own] for layer, own in found.items()}
    {'1': [(2, 3), (2,)], '2': [(2, 2), (2,)]}
    """
    modules = unwrap.named_modules(model)
    firings = _firings(model, modules, forward)
    named = [specs.parse(layer) for layer in layers]
    check_known(named, [*modules, *dict.fromkeys(path for path, _ in firings)])
    recorded = sorted((_place(layer, firings), order) for order, layer in enumerate(named))
    free = {id(parameter): parameter for parameter in model.parameters()}
    found = {layers[order]: _take(free, _own(modules, firings[place][0])) for place, order in recorded}
    since = 0
    for place, order in recorded:
        if not _own(modules, firings[place][0]):
            between = [path for path, _ in firings[since : place + 1] if path in modules]
            found[layers[order]] += _take(free, _of_fired(modules, between, {path for path, _ in firings}))
        since = place + 1
    for layer, parameter in _under_own_path(modules, model):
        found.setdefault(layer, []).extend(_take(free, [parameter]))
    return {layer: own for layer, own in found.items() if own}


def owned_names(model: nn.Module, layers: Sequence[str], forward: Callable[[], object]) -> dict[str, list[str]]:
    """What `owners` finds, as names that ``model.named_parameters()`` has: for copies of the network, or stacks."""
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    return {layer: [names[id(parameter)] for parameter in own] for layer, own in owners(model, layers, forward).items()}


def _firings(model: nn.Module, modules: Modules, forward: Callable[[], object]) -> list[tuple[str, int]]:
    """Path and call of every module and tap that fires, in order: a module that holds others fires after them."""
    with evaluating(model), tracing(model, [*modules, ROOT]) as firings:
        forward()
    return [(firing.path, firing.call) for firing in firings]


def _place(layer: LayerSpec, firings: Sequence[tuple[str, int]]) -> int:
    """Index of the firing that a layer is part of."""
    try:
        return firings.index((layer.path, layer.call or 0))
    except ValueError:
        raise CaptureError(
            f"layer {layer.name!r} never fires in the pass that looks whose parameters are whose; name layers that a "
            "recorder has taken"
        ) from None


def _own(modules: Modules, path: str) -> list[nn.Parameter]:
    """Parameters of the module at ``path`` and of those inside it; a tap has none."""
    return list(modules[path].parameters()) if path in modules else []


def _of_fired(modules: Modules, paths: Iterable[str], fired: Set[str]) -> list[nn.Parameter]:
    """Parameters of the modules at ``paths`` themselves and of those inside them that never fire on their own."""
    return [
        parameter
        for path in paths
        for inner, module in modules.items()
        if inner == path or (inner.startswith(f"{path}.") and inner not in fired)
        for parameter in module.parameters(recurse=False)
    ]


def _under_own_path(modules: Modules, model: nn.Module) -> Iterable[tuple[str, nn.Parameter]]:
    """Every parameter with the path of its module, and with its own name where it has no such module."""
    for path, module in modules.items():
        for parameter in module.parameters(recurse=False):
            yield path, parameter
    for name, parameter in unwrap.unwrapped(model).named_parameters():
        yield name, parameter


def _take(free: dict[int, nn.Parameter], parameters: Iterable[nn.Parameter]) -> list[nn.Parameter]:
    """Those of the parameters that no layer has yet; they are free no more."""
    return [free.pop(id(parameter)) for parameter in parameters if id(parameter) in free]
