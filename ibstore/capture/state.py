"""What a training needs to go on, as one safetensors file: no pickle is written and none is ever loaded.

Whatever has ``state_dict`` and ``load_state_dict`` can be kept (networks, optimizers, schedulers, …), and so can a
`torch.Generator`; torch's own random numbers always are.
"""

import hashlib
import json
from collections.abc import Mapping
from typing import Any, Final

import torch
from safetensors.torch import load, save

from ibstore.errors import CaptureError, ResumeError

Keep = Mapping[str, Any]
"""What is kept, by a name of one's own."""

_RANDOM: Final = "random"
_TENSOR: Final = "tensor"
_ITEMS: Final = "items"
_TUPLE: Final = "tuple"


class State:
    """A copy of what a training is at one moment, on the CPU.

    Parameters
    ----------
    keep
        What is copied.
    device
        Whose random numbers are copied beside the CPU's.

    Raises
    ------
    CaptureError
        When something cannot be kept.
    """

    def __init__(self, keep: Keep, device: torch.device) -> None:
        self._tensors: dict[str, torch.Tensor] = {}
        parts = {name: _state_of(name, kept) for name, kept in keep.items()}
        self._tree = self._plain({_RANDOM: _random_state(device), **{f".{name}": part for name, part in parts.items()}})

    def dump(self) -> bytes:
        """As the content of a safetensors file, whose metadata holds the rest and a checksum."""
        tree = json.dumps(self._tree)
        try:
            return save(self._tensors, {"ibstore": tree, "sha256": _checksum(self._tensors, tree)})
        except (KeyError, ValueError) as error:
            raise CaptureError(
                f"a state holds a tensor that safetensors cannot keep ({error}); leave it out of keep, and restore it "
                "yourself"
            ) from None

    def _plain(self, value: Any) -> Any:
        """``value`` as JSON, its tensors numbered and put aside."""
        if isinstance(value, torch.Tensor) and value.layout is torch.strided:
            name = str(len(self._tensors))
            self._tensors[name] = value.detach().to("cpu", copy=True).contiguous()
            return {_TENSOR: name}
        if isinstance(value, Mapping):  # keys may be numbers, which JSON's objects do not have
            return {_ITEMS: [[self._plain(key), self._plain(item)] for key, item in value.items()]}
        if isinstance(value, tuple):
            return {_TUPLE: [self._plain(item) for item in value]}
        if isinstance(value, list):
            return [self._plain(item) for item in value]
        if value is None or isinstance(value, bool | int | float | str):
            return value
        raise CaptureError(
            f"a state holds a {type(value).__name__}, which cannot be kept without pickle; leave it out of keep, and "
            "restore it yourself"
        )


def restore(content: bytes, keep: Keep, device: torch.device, where: str) -> None:
    """Load a dumped state into ``keep``'s objects, and torch's random numbers.

    Raises
    ------
    ResumeError
        When it is damaged, or holds other parts than ``keep``.
    """
    tree, tensors = _loaded(content, where)
    parts = _rebuilt(tree, tensors)
    random = parts.pop(_RANDOM)
    kept = {name.removeprefix(".") for name in parts}
    if kept != set(keep):
        raise ResumeError(
            f"the state in {where} holds {', '.join(sorted(kept)) or 'nothing'}, but keep has "
            f"{', '.join(sorted(keep)) or 'nothing'}; give the same names"
        )
    for name, target in keep.items():
        try:
            _set_state(target, parts[f".{name}"])
        except (RuntimeError, ValueError, KeyError, TypeError) as error:
            reason = str(error).partition("\n")[0]
            raise ResumeError(f"the state of {name!r} in {where} does not fit ({reason}); keep the same") from error
    torch.set_rng_state(random["cpu"])
    if "cuda" in random and device.type == "cuda":
        torch.cuda.set_rng_state(random["cuda"], device)


def _loaded(content: bytes, where: str) -> tuple[Any, dict[str, torch.Tensor]]:
    try:
        header = json.loads(content[8 : 8 + int.from_bytes(content[:8], "little")])
        tree, checksum = header["__metadata__"]["ibstore"], header["__metadata__"]["sha256"]
        tensors = load(content)
        _check(_checksum(tensors, tree) == checksum)
    except Exception as error:  # safetensors has an exception of its own, and half a file may raise any
        reason = str(error).partition("\n")[0] or type(error).__name__
        raise ResumeError(
            f"the state in {where} cannot be read ({reason}); restore it from a copy, or begin another run"
        ) from error
    return json.loads(tree), tensors


def _check(sound: bool) -> None:
    if not sound:
        raise ValueError("it does not fit its checksum")


def _checksum(tensors: Mapping[str, torch.Tensor], tree: str) -> str:
    sha = hashlib.sha256(tree.encode())
    for name in sorted(tensors):
        sha.update(f"{name} {tensors[name].dtype} {tuple(tensors[name].shape)}".encode())
        sha.update(tensors[name].reshape(-1).view(torch.uint8).numpy().data)
    return sha.hexdigest()


def _rebuilt(value: Any, tensors: Mapping[str, torch.Tensor]) -> Any:
    match value:
        case {"tensor": name}:
            return tensors[name]
        case {"items": items}:
            return {_rebuilt(key, tensors): _rebuilt(item, tensors) for key, item in items}
        case {"tuple": items}:
            return tuple(_rebuilt(item, tensors) for item in items)
        case list():
            return [_rebuilt(item, tensors) for item in value]
    return value


def _state_of(name: str, kept: Any) -> Any:
    if isinstance(kept, torch.Generator):
        return {"generator": kept.get_state()}
    if not hasattr(kept, "state_dict") or not hasattr(kept, "load_state_dict"):
        raise CaptureError(
            f"keep has {name!r} of type {type(kept).__name__}, which has no state_dict and load_state_dict; give "
            "networks, optimizers, schedulers or generators"
        )
    return kept.state_dict()


def _set_state(target: Any, state: Any) -> None:
    if isinstance(target, torch.Generator):
        target.set_state(state["generator"])
    else:
        target.load_state_dict(state)


def _random_state(device: torch.device) -> dict[str, torch.Tensor]:
    found = {"cpu": torch.get_rng_state()}
    if device.type == "cuda":
        found["cuda"] = torch.cuda.get_rng_state(device)
    return found
