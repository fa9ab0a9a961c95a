"""HDF5: one group an epoch, in it one dataset a layer, ordered by the numbers in their names."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any, Final

import numpy as np

from ibstore.errors import SourceError, UsageError
from ibstore.store.importers.names import epoch_of
from ibstore.store.importers.source import INPUTS, Array, Epoch, Source, in_natural_order, numbered, reading

SIGNATURE: Final = b"\x89HDF\r\n\x1a\n"


@contextmanager
def hdf5_file(path: Path) -> Iterator[Source]:
    """Source of an HDF5 file; scalar attributes of an epoch's group are its metrics, ``step`` the optimizer's step.

    Raises
    ------
    UsageError
        When h5py is not installed.
    SourceError
        When the file is laid out otherwise, or leads to other files.
    """
    try:
        import h5py
    except ImportError:
        raise UsageError("reading HDF5 files needs h5py; pip install 'ibstore[hdf5]'") from None
    with reading(str(path)):
        file = h5py.File(path, "r")
    with file:
        nodes = _nodes(path, file)
        groups = {name: node for name, node in nodes.items() if isinstance(node, h5py.Group)}
        others = {name: node for name, node in nodes.items() if name not in groups}
        if strange := sorted(set(others) - set(INPUTS)):
            raise SourceError(f"{path} has a dataset {strange[0]!r} outside of its epochs; only x, y and sample may be")
        epochs = numbered((_number(path, name), name, partial(_epoch, path, group)) for name, group in groups.items())
        yield Source(epochs, inputs={name: _array(path, node) for name, node in others.items()})


def _number(path: Path, name: str) -> int:
    epoch = epoch_of(name)
    if epoch is None:
        raise SourceError(f"{path} has a group {name!r}, which names no epoch; call it epoch_3, or remove it")
    return epoch


def _nodes(path: Path, group: Any) -> dict[str, Any]:
    """Members of a group; links are not followed, since they may lead to any file."""
    import h5py

    for name in group:
        if not isinstance(group.get(name, getlink=True), h5py.HardLink):
            raise SourceError(f"{path}, {group.name}: {name!r} is a link; copy what it leads to into its place")
    with reading(str(path)):
        return {name: group[name] for name in group}


def _epoch(path: Path, group: Any) -> Epoch:
    """An epoch of a group: its datasets of rows are layers, its scalars are metrics."""
    import h5py

    where = f"{path}, group {group.name}"
    nodes = _nodes(path, group)
    for name, node in nodes.items():
        if not isinstance(node, h5py.Dataset):
            raise SourceError(f"{where} has a group {name!r} where a layer's dataset is due; move its datasets up")
    arrays = {name: _array(path, node) for name, node in nodes.items()}
    scalars = _scalars(group.attrs)
    step = scalars.pop("step", None)
    metrics = {"": scalars} if scalars else {}
    return Epoch(where, in_natural_order(arrays), None if step is None else int(step), metrics)


def _array(path: Path, dataset: Any) -> Array:
    where = f"{path}, dataset {dataset.name}"
    if dataset.external or dataset.is_virtual:
        raise SourceError(f"{where} lies in other files; copy it into this one")
    return Array(where, dataset.shape or (), dataset.dtype, lambda: dataset)


def _scalars(attributes: Mapping[str, Any]) -> dict[str, float]:
    values = {name: np.asarray(value) for name, value in attributes.items()}
    return {name: float(value) for name, value in values.items() if value.ndim == 0 and value.dtype.kind in "biuf"}
