"""Many networks of one kind, trained at once: each on batches of its own, as if it were alone.

Parameters of R networks are stacks, (R, …), so that one operation works on all of them, and an optimizer that works on
single numbers (SGD, Adam, Adadelta, …) trains each as if apart. The loss is to be the *sum* over networks of each
one's mean: then each has the gradients that are its own. Whatever looks at all parameters together (the norm that
gradients are clipped to, Adafactor, L-BFGS) would mix them.

>>> ensemble = stack([nn.Linear(3, 1) for _ in range(5)])
>>> ensemble(torch.zeros(5, 8, 3)).shape
torch.Size([5, 8, 1])
"""

from collections.abc import Callable, Mapping, Sequence
from copy import deepcopy
from typing import Any, Final

import torch
from torch import nn
from torch.func import functional_call, vmap

from ibstore.capture.training.ensemble_checks import (
    ONE_BY_ONE,
    check_alike,
    check_forward,
    check_trains_alone,
    first_line,
    tensors,
)
from ibstore.capture.training.ensemble_layers import has_stacked_form, stacked_form
from ibstore.errors import ResumeError, UnknownNameError, UsageError

LARGE: Final = 10_000
"""Parameters from which networks that are mapped over gain nothing on a CPU."""

RunAll = Callable[[nn.Module, torch.Tensor], Any]
"""From a network whose parameters are stacks and inputs (R, batch, …) to outputs (R, batch, …)."""


def stack(models: Sequence[nn.Module]) -> "Ensemble":
    """Identically built networks as one; they stay as they are, and what they weigh now is what it begins with.

    A `nn.Sequential` (however deep) of `nn.Linear`, activations without parameters, softmax and `nn.Flatten` becomes
    one of stacked layers, any other network is mapped over by `torch.func.vmap`. Measured for 50 × 12-10-7-5-4-3-2 on
    two cores the former takes about half of the latter's time.

    Parameters
    ----------
    models
        R networks that differ in nothing but the values of their weights and buffers, on one device.

    Raises
    ------
    UsageError
        When there are none, two are not built alike, one keeps running statistics or has a dropout: such networks are
        to be trained one after another.
    """
    models = list(models)
    check_alike(models)
    check_trains_alone(models[0])
    module = deepcopy(models[0])
    sources = [tensors(model) for model in models]
    for name, tensor in tensors(module).items():
        tensor.data = torch.stack([source[name].detach() for source in sources])
    if has_stacked_form(module):
        return Ensemble(stacked_form(module), len(models), _run_stacked, tried=True)
    return Ensemble(module, len(models), _run_mapped, tried=False)


class Ensemble(nn.Module):
    """R networks as one module; made by `stack`.

    Parameters
    ----------
    module
        The network whose parameters and buffers are stacks, (R, …), under the names that they have in one network.
    replicas
        R.
    run
        How all of them are run.
    tried
        Whether it is known that a forward pass in training changes no buffer and draws no random numbers.
    """

    def __init__(self, module: nn.Module, replicas: int, run: RunAll, *, tried: bool) -> None:
        super().__init__()
        self.module, self.replicas = module, replicas
        self._run, self._tried = run, tried
        self.training = module.training

    def forward(self, x: torch.Tensor) -> Any:
        """Output of each network for its own batch: (R, batch, …) of (R, batch, …).

        The first batch in training mode is also run through one plain network, which must change no buffer and draw
        no random numbers, where the layers do not tell.

        Raises
        ------
        UsageError
            When it does, ``x`` is not as the networks take it, or they cannot be run at once.
        """
        if x.shape[:1] != (self.replicas,):
            raise UsageError(f"x is {tuple(x.shape)}; give ({self.replicas}, batch, …): a batch for each network")
        if self.training:
            self.check(x[0])
        try:
            return self._run(self.module, x)
        except torch.OutOfMemoryError:
            raise
        except (RuntimeError, ValueError, TypeError, IndexError) as error:
            raise UsageError(
                f"{self.replicas} networks cannot be run at once on x of {tuple(x.shape)} {x.dtype} "
                f"({first_line(error)}); give x as (replica, batch, …), with each batch as the network takes it, or "
                f"{ONE_BY_ONE}"
            ) from error

    def check(self, x: torch.Tensor) -> None:
        """Return when one of the networks can be trained on its batch (batch, …) as if it were alone.

        Raises
        ------
        UsageError
            When the forward pass changes a buffer, draws random numbers or fails.
        """
        if not self._tried:
            check_forward(self._first(), x)
            self._tried = True

    @property
    def slow(self) -> str | None:
        """Why it is likely to be slower than one network after another; None where that is not known.

        Measured on two cores (docs/benchmarks.md): networks that are mapped over are quicker at once while they are
        tiny, and those with convolutions of 30,000 weights have 0.7 times the speed.
        """
        weights = sum(parameter.numel() for parameter in self.parameters()) // self.replicas
        on_cpu = all(parameter.device.type == "cpu" for parameter in self.parameters())
        if self.replicas == 1 or not on_cpu or self._run is not _run_mapped or weights < LARGE:
            return None
        return (
            f"{self.replicas} networks of {weights:,} parameters are likely to train slower at once than one after "
            f"another on a CPU"
        )

    @property
    def stacked(self) -> dict[str, nn.Parameter]:
        """Parameters, (R, …), by their names in one network."""
        return dict(self.module.named_parameters())

    def parameters_of(self, path: str) -> list[nn.Parameter]:
        """Parameters, (R, …), of the module at a path of the plain network and of those inside it.

        >>> ensemble = stack([nn.Sequential(nn.Linear(3, 2), nn.Tanh()) for _ in range(5)])
        >>> [tuple(parameter.shape) for parameter in ensemble.parameters_of("0")]
        [(5, 2, 3), (5, 2)]

        Raises
        ------
        UnknownNameError
            When there is no such module.
        """
        modules = dict(self.module.named_modules(remove_duplicate=False))
        if path not in modules:
            known = ", ".join(name for name in modules if name) or "none inside"
            raise UnknownNameError(f"the networks have no module {path!r}; they have {known}")
        return list(modules[path].parameters())

    @torch.no_grad()
    def copy_to(self, replica: int, model: nn.Module) -> None:
        """Write a network's weights and buffers, bit for bit, into a plain network of the same kind.

        Raises
        ------
        UsageError
            When there is no such replica, or the network is of another kind.
        """
        own, targets = self.of(replica), tensors(model)
        if _told(targets) != _told(own):
            raise UsageError(
                f"a network with {_told(targets)} cannot take the weights of one with {_told(own)}; give one that is "
                "built as those in the ensemble"
            )
        for name, target in targets.items():
            target.copy_(own[name])

    def of(self, replica: int) -> dict[str, torch.Tensor]:
        """A network's weights and buffers by name, as views of the stacks.

        Raises
        ------
        UsageError
            When there is no such replica.
        """
        if not 0 <= replica < self.replicas:
            raise UsageError(f"there is no replica {replica!r} among {self.replicas}; give 0 to {self.replicas - 1}")
        return {name: tensor.detach()[replica] for name, tensor in tensors(self.module).items()}

    def extra_repr(self) -> str:
        """How many, and how they are run."""
        return f"{self.replicas} networks, {'vmap' if self._run is _run_mapped else 'stacked layers'}"

    def _first(self) -> nn.Module:
        """A plain network with the weights of the first, of networks that are mapped over."""
        model = deepcopy(self.module)
        for tensor in tensors(model).values():
            tensor.data = tensor.data[0]
        return model


class Replica:
    """One network's part of an ensemble and of its optimizer: what it needs to go on.

    Its state is that of a network which is trained alone: any networks at the same step can go on together from theirs,
    or one of them alone. It can be kept (``Recorder(…, keep={"replica": Replica(…)})``).

    Parameters
    ----------
    ensemble, optimizer
        The networks, and what trains them.
    index
        Which one, from 0.

    Raises
    ------
    UsageError
        When there is no such replica, or the optimizer trains something else.
    """

    def __init__(self, ensemble: Ensemble, optimizer: torch.optim.Optimizer, index: int) -> None:
        ensemble.of(index)
        own = {id(parameter) for parameter in ensemble.parameters()}
        if any(id(parameter) not in own for parameter, _ in _parameters(optimizer)):
            raise UsageError("the optimizer trains something else than the ensemble; give it ensemble.parameters()")
        self._ensemble, self._optimizer, self._index = ensemble, optimizer, index

    def state_dict(self) -> dict[str, Any]:
        """Its state.

        Returns
        -------
        dict
            ``model``: weights and buffers by name; ``optimizer``: what an optimizer of this network alone would say;
            ``shared``: names of what of the latter is the same for all networks (a number of steps).

        Raises
        ------
        UsageError
            When the optimizer keeps something that cannot be told apart by networks.
        """
        whole = self._optimizer.state_dict()
        slots = {
            position: {name: self._part_of(parameter, name, value) for name, value in whole["state"][position].items()}
            for position, (parameter, _) in enumerate(_parameters(self._optimizer))
            if position in whole["state"]
        }
        return {
            "model": {name: tensor.clone() for name, tensor in self._ensemble.of(self._index).items()},
            "optimizer": {"state": slots, "param_groups": whole["param_groups"]},
            "shared": sorted({name for slot in whole["state"].values() for name in slot if _is_shared(slot[name])}),
        }

    @torch.no_grad()
    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from there; what was said of the other replicas stays.

        Raises
        ------
        ResumeError
            When it is the state of another network or optimizer, or the optimizer is at another step for the other
            replicas: those go on together that stopped together, in an ensemble and with an optimizer that are new.
        """
        own, groups = self._ensemble.of(self._index), self._optimizer.param_groups
        saved, saved_groups = state["model"], state["optimizer"]["param_groups"]
        if _told(saved) != _told(own) or _sizes(saved_groups) != _sizes(groups):
            raise ResumeError(
                f"the state is of a network with {_told(saved)}, to be loaded into one with {_told(own)}, or of an "
                "optimizer with other groups; go on with the network and the optimizer that it is of"
            )
        slots = state["optimizer"]["state"]
        if not all(
            _same_step(self._optimizer.state[parameter], slots.get(position, {}), state["shared"])
            for position, (parameter, _) in enumerate(_parameters(self._optimizer))
        ):
            raise ResumeError(
                "the optimizer is at another step for the other replicas; let those go on together that stopped "
                "together, with an ensemble and an optimizer that are new"
            )
        for position, (parameter, group) in enumerate(_parameters(self._optimizer)):
            self._load_part(parameter, group, slots.get(position, {}), state["shared"])
        for name, target in own.items():
            target.copy_(saved[name])
        for group, saved_group in zip(groups, saved_groups, strict=True):
            group.update({name: value for name, value in saved_group.items() if name != "params"})

    def _part_of(self, parameter: torch.Tensor, name: str, value: Any) -> Any:
        """What the optimizer keeps of a parameter, for this network."""
        if isinstance(value, torch.Tensor) and value.shape == parameter.shape:
            return value[self._index].clone()
        if _is_shared(value):
            return value.clone()
        if isinstance(value, Untold):
            return value
        raise UsageError(
            f"{type(self._optimizer).__name__} keeps {name!r} of all networks together and does not train them as if "
            f"apart; take an optimizer that works on single numbers, such as SGD or Adam, or {ONE_BY_ONE}"
        )

    def _load_part(
        self, parameter: torch.Tensor, group: Mapping[str, Any], saved: Mapping[str, Any], shared: Sequence[str]
    ) -> None:
        slot = self._optimizer.state[parameter]
        for name, value in saved.items():
            if not isinstance(value, torch.Tensor):
                slot[name] = value
            elif name not in shared:
                slot.setdefault(name, torch.zeros_like(parameter, dtype=value.dtype))[self._index].copy_(value)
            elif name not in slot:  # counted on the CPU unless the optimizer says otherwise, as torch does it
                on_device = group.get("capturable") or group.get("fused")
                slot[name] = value.to(parameter.device if on_device else "cpu", copy=True)


Untold = bool | int | float | str | None
"""What an optimizer may keep beside tensors: the same for all networks."""


def _is_shared(value: Any) -> bool:
    """Whether what an optimizer keeps is a number for all networks, such as how many steps they have taken."""
    return isinstance(value, torch.Tensor) and not value.ndim


def _same_step(slot: Mapping[str, Any], saved: Mapping[str, Any], shared: Sequence[str]) -> bool:
    """Whether what an optimizer keeps of a parameter, if anything yet, can take what was saved of one network."""
    if not slot:
        return True
    return slot.keys() == saved.keys() and all(
        torch.equal(slot[name].cpu(), value.cpu())
        if name in shared
        else isinstance(value, torch.Tensor) or slot[name] == value
        for name, value in saved.items()
    )


def _sizes(groups: Sequence[Mapping[str, Any]]) -> list[int]:
    return [len(group["params"]) for group in groups]


def _run_stacked(module: nn.Module, x: torch.Tensor) -> Any:
    return module(x)


def _run_mapped(module: nn.Module, x: torch.Tensor) -> Any:
    return vmap(lambda own, batch: functional_call(module, own, (batch,)))(tensors(module), x)


def _parameters(optimizer: torch.optim.Optimizer) -> list[tuple[torch.Tensor, Mapping[str, Any]]]:
    """Parameters in the order in which an optimizer counts them, each with its group."""
    return [(parameter, group) for group in optimizer.param_groups for parameter in group["params"]]


def _told(own: Mapping[str, torch.Tensor]) -> str:
    return ", ".join(f"{name} {tuple(tensor.shape)} {tensor.dtype}" for name, tensor in own.items()) or "no weights"
