"""Folders of NumPy or safetensors files: one file an epoch, or for ``.npy`` one a layer and epoch."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Final

from ibstore.errors import SourceError
from ibstore.store.importers.files import READERS, Arrays, npy_file
from ibstore.store.importers.names import epoch_of, layer_and_epoch_of
from ibstore.store.importers.source import INPUTS, Array, Epoch, Source, in_natural_order, numbered, reading
from ibstore.store.probes import TARGET

INPUTS_FILE: Final = "inputs"
"""Name of the file beside the epochs that has ``x``, ``y``, ``sample`` and targets."""


@contextmanager
def epoch_files(path: Path, suffix: str) -> Iterator[Source]:
    """Source of the files with that ending, one an epoch, in a folder; or of a single such file."""
    files = files_of(path, f"*{suffix}") if path.is_dir() else [path]
    found = []
    for file in files:
        if file.stem == INPUTS_FILE:
            continue
        epoch = epoch_of(file.stem)
        if epoch is None:
            raise SourceError(f"{file} names no epoch; call it epoch_3{suffix}, or move it away")
        found.append((epoch, str(file), partial(_epoch, file, READERS[suffix])))
    yield Source(numbered(found), inputs=inputs_beside(path))


def _epoch(file: Path, read: Callable[[Path], Arrays]) -> Epoch:
    return Epoch(str(file), read(file))


@contextmanager
def layer_files(path: Path) -> Iterator[Source]:
    """Source of a folder's ``.npy`` files, one a layer and epoch, in it or one folder deeper."""
    epochs: dict[int, dict[str, Path]] = {}
    for file in (*files_of(path, "*.npy"), *files_of(path, "*/*.npy")):
        name = file.relative_to(path).with_suffix("").as_posix()
        if name in INPUTS:
            continue
        if (found := layer_and_epoch_of(name)) is None:
            raise SourceError(
                f"{file} names no layer and epoch; call it conv1_epoch3.npy, conv1/3.npy or epoch_3/conv1.npy, or "
                "move it away"
            )
        layer, epoch = found
        twin = epochs.setdefault(epoch, {}).setdefault(layer, file)
        if twin != file:
            raise SourceError(f"layer {layer!r} of epoch {epoch} is there twice, {twin} and {file}; remove one of them")
    opened = {epoch: partial(_gathered, f"{path}, epoch {epoch}", epochs[epoch]) for epoch in sorted(epochs)}
    yield Source(opened, inputs=inputs_beside(path))


def _gathered(where: str, files: dict[str, Path]) -> Epoch:
    arrays = {layer: next(iter(npy_file(file).values())) for layer, file in files.items()}
    return Epoch(where, in_natural_order(arrays))


def inputs_beside(path: Path) -> dict[str, Array]:
    """``x``, ``y``, ``sample`` of a folder: of its file ``inputs.npz`` or ``.safetensors``, or ``x.npy``, ….

    In that file there may be targets, too, each as ``target_<name>``.
    """
    if not path.is_dir():
        return {}
    found: dict[str, Array] = {}
    for name in INPUTS:
        if (path / f"{name}.npy").exists():
            found |= npy_file(path / f"{name}.npy")
    for suffix, read in READERS.items():
        if suffix != ".npy" and (path / f"{INPUTS_FILE}{suffix}").exists():
            beside = read(path / f"{INPUTS_FILE}{suffix}")
            found |= {name: array for name, array in beside.items() if name in INPUTS or name.startswith(TARGET)}
    return found


def files_of(folder: Path, pattern: str) -> list[Path]:
    """Files of a folder that match, by name; hidden ones are passed over."""
    with reading(str(folder)):
        return sorted(each for each in folder.glob(pattern) if each.is_file() and not each.name.startswith("."))
