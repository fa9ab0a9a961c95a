"""Files of arrays: ``.npy``, ``.npz`` and ``.safetensors``. Opening one reads headers alone, and never a pickle."""

import json
import zipfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import IO, Any, Final

import numpy as np
from numpy.lib import format as npy
from numpy.typing import NDArray

from ibstore.errors import SourceError, UsageError
from ibstore.store.importers.source import Array, Rows, array_of, in_natural_order, reading

Arrays = dict[str, Array]

_HEADERS: Final = {(1, 0): npy.read_array_header_1_0, (2, 0): npy.read_array_header_2_0}
_SAFETENSORS: Final = {
    **{f"F{bits}": f"f{bits // 8}" for bits in (16, 32, 64)},
    **{f"I{bits}": f"i{bits // 8}" for bits in (8, 16, 32, 64)},
    **{f"U{bits}": f"u{bits // 8}" for bits in (8, 16, 32, 64)},
    "BOOL": "?",
    "BF16": "f4",
}


def npy_file(path: Path) -> Arrays:
    """The array of a ``.npy`` file, mapped into memory, under the file's name."""
    with reading(str(path)):
        return {path.stem: array_of(np.load(path, mmap_mode="r", allow_pickle=False), str(path))}


def npz_file(path: Path) -> Arrays:
    """Arrays of a ``.npz`` file in its order; each is read whole when its rows are."""
    found = {}
    with reading(str(path)), zipfile.ZipFile(path) as archive:
        for member in archive.namelist():
            name = member.removesuffix(".npy")
            where = f"{path}, array {name!r}"
            if name in found:
                raise ValueError(f"array {name!r} is there twice")
            with reading(where), archive.open(member) as file:
                shape, dtype = _header(file)
            found[name] = Array(where, shape, dtype, partial(_npz_rows, path, name))
    return found


def _header(file: IO[bytes]) -> tuple[tuple[int, ...], "np.dtype[Any]"]:
    version = npy.read_magic(file)
    if version not in _HEADERS:
        raise ValueError(f"its .npy version {version} is not one for numbers")
    shape, _, dtype = _HEADERS[version](file)
    return shape, dtype


def _npz_rows(path: Path, name: str) -> NDArray[Any]:
    with np.load(path, allow_pickle=False) as archive:
        rows: NDArray[Any] = archive[name]
    return rows


def safetensors_file(path: Path) -> Arrays:
    """Tensors of a ``.safetensors`` file in the order of the numbers in their names; bfloat16 as float32, exactly."""
    found = {}
    with _tensors(path) as file:
        for name in file.keys():  # noqa: SIM118  (it is no mapping)
            tensor = file.get_slice(name)
            kind, where = tensor.get_dtype(), f"{path}, tensor {name!r}"
            if kind not in _SAFETENSORS:
                known = ", ".join(_SAFETENSORS)
                raise SourceError(f"{where} is of type {kind}; only {known} are imported: convert it")
            rows = partial(_bfloat16_rows if kind == "BF16" else _tensor_rows, path, name)
            found[name] = Array(where, tuple(tensor.get_shape()), np.dtype(_SAFETENSORS[kind]), rows)
    return in_natural_order(found)


@contextmanager
def _tensors(path: Path) -> Iterator[Any]:
    from safetensors import SafetensorError, safe_open

    with reading(str(path)):
        try:
            with safe_open(path, framework="numpy") as file:
                yield file
        except SafetensorError as error:
            raise ValueError(str(error)) from error


def _tensor_rows(path: Path, name: str) -> Rows:
    with _tensors(path) as file:
        rows: Rows = file.get_slice(name)  # it keeps the file open
    return rows


def _bfloat16_rows(path: Path, name: str) -> Rows:
    """NumPy has no bfloat16, so the library cannot give it: the bytes are mapped where its header says they are."""
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        header = json.loads(file.read(length))
    about = header[name]
    start = 8 + length + about["data_offsets"][0]
    return _BFloat16(np.memmap(path, "<u2", "r", start, tuple(about["shape"])))


class _BFloat16:
    """bfloat16 numbers as float32: they are its upper halves."""

    def __init__(self, halves: NDArray[np.uint16]) -> None:
        self._halves = halves

    def __getitem__(self, rows: slice, /) -> NDArray[np.float32]:
        return (self._halves[rows].astype(np.uint32) << np.uint32(16)).view(np.float32)


READERS: Final[Mapping[str, Callable[[Path], Arrays]]] = {
    ".npy": npy_file,
    ".npz": npz_file,
    ".safetensors": safetensors_file,
}


def one_array(path: Path, name: str) -> Array:
    """The array called ``name`` of a file, or the only one that it has.

    Raises
    ------
    UsageError
        When the file's ending is not known, or it has several arrays and none of that name.
    SourceError
        When it cannot be read.
    """
    if path.suffix.lower() not in READERS:
        raise UsageError(f"{path} cannot be read as {name}; give a file that ends in {', '.join(READERS)}")
    arrays = READERS[path.suffix.lower()](path)
    if name in arrays:
        return arrays[name]
    if len(arrays) != 1:
        has = ", ".join(arrays) or "none"
        raise UsageError(f"{path} has no array {name!r} among several ({has}); give a file with one, or name it so")
    return next(iter(arrays.values()))
