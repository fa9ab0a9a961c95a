"""From checkpoints, after the fact: a network that was trained long ago, recorded from the weights that were kept.

Files are read as tensors alone, never unpickled, and held against the network before anything is written.
"""

import re
import zipfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final

import torch
from safetensors import safe_open
from torch import nn

from ibstore.capture.loading import Factory, load_network
from ibstore.capture.numbering import Checkpoint, find_checkpoints
from ibstore.capture.provenance import Provenance
from ibstore.capture.recorder import Recorder
from ibstore.devices import resolve_device
from ibstore.errors import SourceError
from ibstore.events import Emit, Event, ignore

Weights = Mapping[str, Any]
"""A state dict: tensors by the names of parameters and buffers."""

_HOLDERS: Final = ("state_dict", "model_state_dict", "model")
"""Where trainings put the network's weights beside the optimizer's."""

_WRAPPERS: Final = ("module.", "model.")
"""What DataParallel and Lightning modules prefix names with."""

_COMPILED: Final = "_orig_mod."
"""What `torch.compile` puts between names."""

_SHOWN: Final = 6


def record_checkpoints(
    store: str | Path,
    pattern: str,
    factory: Factory,
    *,
    resume: bool = False,
    device: str | torch.device | None = None,
    emit: Emit = ignore,
    **recorder: Any,
) -> tuple[Checkpoint, ...]:
    """Record the network of every checkpoint that matches a pattern, in the order of their epochs.

    All files are looked at first: that they can be read, and fit the network. What only shows on reading a file
    whole (a flipped byte) ends the recording there; the epochs before are committed, and ``resume`` goes on.

    Parameters
    ----------
    store
        Path of the store; it is made where it does not exist.
    pattern
        As a shell's, such as ``ckpt/epoch_*.pt``: files of `torch.save` or ``.safetensors``. How their epochs are
        told: `ibstore.capture.numbering.find_checkpoints`.
    factory
        Makes the network, without weights that matter: a callable, or ``package.module:name``, ``file.py:name``.
    resume
        Go on with the run of that name; epochs up to its last one are passed over.
    device
        Where the network runs; by default where the factory puts it.
    emit
        Told of progress: stage ``checkpoints``, in files, beside what `Recorder` tells.
    recorder
        What else `Recorder` takes: ``layers``, ``x``, ``y`` or ``probes``, ``run``, ``measure``, ….

    Returns
    -------
    tuple[Checkpoint, ...]
        Those that were recorded.

    Raises
    ------
    UsageError
        When no file matches, epochs cannot be told, or the factory makes no network.
    SourceError
        When a file cannot be read without running code, is damaged, or does not fit the network.
    CaptureError, StoreError
        As `Recorder` raises them.
    """
    found = find_checkpoints(pattern)
    model = load_network(factory)
    if device is not None:
        model.to(resolve_device(device))
    for checkpoint in found:
        fitted(checkpoint.path, read_weights(checkpoint.path, lazily=True), model)
    load_weights(model, found[0].path)
    options = {"epochs": len(found), "provenance": _provenance(factory), "device": device, **recorder}
    with Recorder(store, model, resume=resume, emit=emit, **options) as running:
        last = -1 if running.epoch is None else running.epoch
        left = [checkpoint for checkpoint in found if checkpoint.epoch > last]
        for done, checkpoint in enumerate(left, start=len(found) - len(left) + 1):
            load_weights(model, checkpoint.path)
            running.record(checkpoint.epoch, checkpoint.step)
            emit(Event("checkpoints", done, len(found), f"epoch {checkpoint.epoch}: {checkpoint.path.name}"))
    return tuple(left)


def load_weights(model: nn.Module, path: Path) -> None:
    """Put a checkpoint's weights into a network; what it does not fit is refused, and the network left as it was.

    Raises
    ------
    SourceError
        As `read_weights` and `fitted` do.
    """
    weights = fitted(path, read_weights(path), model)
    try:
        model.load_state_dict(weights)
    except Exception as error:
        raise SourceError(
            f"{path} cannot be loaded into the network ({error}); give the factory of its training"
        ) from error


def read_weights(path: Path, *, lazily: bool = False) -> Weights:
    """State dict that a file holds, at the top or under one of the usual keys, on the CPU.

    Parameters
    ----------
    path
        A file of `torch.save` or ``.safetensors``.
    lazily
        Look at names and shapes; values are read when they are used, where the format can.

    Raises
    ------
    SourceError
        When it is damaged, or holds objects that only unpickling would make.
    """
    try:
        content = _safetensors(path) if path.suffix == ".safetensors" else _torch(path, lazily)
    except SourceError:
        raise
    except Exception as error:  # torch and safetensors raise many kinds for damaged files
        raise _unreadable(path, error) from error
    held = [key for key in _HOLDERS if isinstance(content, Mapping) and isinstance(content.get(key), Mapping)]
    weights = content[held[0]] if held else content
    if not isinstance(weights, Mapping) or not weights or not all(isinstance(key, str) for key in weights):
        raise SourceError(
            f"{path} holds a {type(content).__name__} without a state dict, neither itself nor under "
            f"{', '.join(_HOLDERS)}; save torch.save(model.state_dict(), path)"
        )
    return weights


def fitted(path: Path, weights: Weights, model: nn.Module) -> Weights:
    """The weights under the network's own names, with wrappers' prefixes stripped where that makes them fit.

    Raises
    ------
    SourceError
        When names are missing or left over, or a shape or type differs.
    """
    own = model.state_dict()
    named = [_with_ties(renamed, own) for renamed in _renamed(weights)]
    fitting = next((renamed for renamed in named if renamed.keys() == own.keys()), None)
    if fitting is None:
        nearest = max(named, key=lambda renamed: len(renamed.keys() & own.keys()))
        missing = [key for key in own if key not in nearest]
        unexpected = [key for key in nearest if key not in own]
        facts = [f"{fact} {_listed(keys)}" for fact, keys in (("lacks", missing), ("also has", unexpected)) if keys]
        raise SourceError(
            f"{path} does not fit the network: it {' and '.join(facts)}; give the factory of its training"
        )
    for name, tensor in own.items():
        _check_tensor(f"{path}: {name}", fitting[name], tensor)
    return fitting


def _renamed(weights: Weights) -> Iterator[Weights]:
    """The weights as they are named, and with ever more wrappers' prefixes stripped from all of them."""
    yield weights
    weights = {key.replace(_COMPILED, ""): value for key, value in weights.items()}
    yield weights
    while prefix := next((each for each in _WRAPPERS if all(key.startswith(each) for key in weights)), None):
        weights = {key.removeprefix(prefix): value for key, value in weights.items()}
        yield weights


def _with_ties(weights: Weights, own: Weights) -> Weights:
    """The weights with those that the network shares between two names and the file, as safetensors does, has once."""
    places = {own[key].data_ptr(): value for key, value in weights.items() if isinstance(own.get(key), torch.Tensor)}
    places.pop(0, None)  # of tensors without values
    absent = {key: own[key] for key in own if key not in weights and isinstance(own[key], torch.Tensor)}
    tied = {key: places[tensor.data_ptr()] for key, tensor in absent.items() if tensor.data_ptr() in places}
    return {**weights, **tied}


def _check_tensor(what: str, given: object, own: object) -> None:
    if not isinstance(given, torch.Tensor) or not isinstance(own, torch.Tensor):
        return  # a module's extra state, which is its own affair
    if given.shape != own.shape:
        raise SourceError(
            f"{what} has shape {tuple(given.shape)}, but {tuple(own.shape)} in the network; give the factory of its "
            "training"
        )
    if torch.promote_types(given.dtype, own.dtype) != own.dtype:
        raise SourceError(
            f"{what} is {given.dtype}, which would be rounded to the network's {own.dtype}; let the factory make a "
            f"network of {given.dtype}"
        )


def _safetensors(path: Path) -> Weights:
    with safe_open(path, framework="pt", device="cpu") as file:
        return {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118  # it is no mapping


def _torch(path: Path, lazily: bool) -> Any:
    """Content of a file of `torch.save`, which checks no checksum itself though its archives have them."""
    archive = zipfile.is_zipfile(path)
    if archive and not lazily:
        with zipfile.ZipFile(path) as members:
            damaged = members.testzip()
        if damaged is not None:
            raise SourceError(
                f"{path} is damaged: {damaged} is not what its CRC-32 says; copy it anew, or leave it out"
            )
    return torch.load(path, map_location="cpu", weights_only=True, mmap=archive and lazily)


def _unreadable(path: Path, error: Exception) -> SourceError:
    foreign = re.search(r"Unsupported \w+: (?:GLOBAL )?([\w.]*\w)", str(error))
    if foreign is None:
        first = str(error).partition("\n")[0].partition(". In PyTorch 2.6")[0]  # torch advises to unpickle it
        return SourceError(
            f"{path} cannot be read as a checkpoint ({type(error).__name__}: {first}); it is damaged or none: copy it "
            "anew, or leave it out of the pattern"
        )
    return SourceError(
        f"{path} holds {foreign[1]}, which only unpickling would make, and that can run any code; save the weights "
        "alone, torch.save(model.state_dict(), path), or allow a class that you trust with "
        "torch.serialization.add_safe_globals in the factory's module"
    )


def _listed(names: list[str]) -> str:
    return f"{', '.join(names[:_SHOWN])}{', …' if len(names) > _SHOWN else ''}"


def _provenance(factory: Factory) -> Provenance:
    name = factory if isinstance(factory, str) else getattr(factory, "__qualname__", type(factory).__name__)
    return Provenance(settings={"from": "checkpoints", "factory": name})
