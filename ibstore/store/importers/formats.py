"""Which format a source has: asked for by name, or seen from its files."""

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from functools import partial
from pathlib import Path
from typing import Final

from ibstore.errors import SourceError, UsageError
from ibstore.store.importers.folders import epoch_files, files_of, layer_files
from ibstore.store.importers.hdf5 import SIGNATURE, hdf5_file
from ibstore.store.importers.names import epoch_of, layer_and_epoch_of
from ibstore.store.importers.saxe import SUFFIXES, epoch_pickles, saxe_folder
from ibstore.store.importers.source import Source, reading

FORMATS: Final[Mapping[str, Callable[[Path], AbstractContextManager[Source]]]] = {
    "npz": partial(epoch_files, suffix=".npz"),
    "npy": layer_files,
    "safetensors": partial(epoch_files, suffix=".safetensors"),
    "hdf5": hdf5_file,
    "pickle": saxe_folder,
}
_PATTERNS: Final = {"npz": "*.npz", "npy": "*.npy", "safetensors": "*.safetensors"}


def format_of(path: Path) -> str:
    """Format of what lies at a path.

    Raises
    ------
    UsageError
        When nothing is there, or several formats are.
    SourceError
        When it has none that is known.
    """
    if not path.exists():
        raise UsageError(f"there is nothing at {path}; give a folder or a file of activations")
    found = _of_folder(path) if path.is_dir() else _of_file(path)
    if not found:
        raise SourceError(
            f"{path} has no activations that are known: no files such as epoch_3.npz, conv1_epoch3.npy, "
            "epoch_3.safetensors, epoch00000003 or acts.h5; docs/moving.md lists names and layouts"
        )
    if len(found) > 1:
        raise UsageError(f"{path} has files of several formats ({', '.join(found)}); choose one with --format")
    return found[0]


def _of_file(path: Path) -> list[str]:
    with reading(str(path)), path.open("rb") as file:
        if file.read(len(SIGNATURE)) == SIGNATURE:
            return ["hdf5"]
    suffix = path.suffix.removeprefix(".").lower()
    if suffix in {"npz", "safetensors"}:
        return [suffix]
    return ["pickle"] if path.suffix in SUFFIXES and epoch_of(path.stem) is not None else []


def _of_folder(path: Path) -> list[str]:
    found = [
        form
        for form, pattern in _PATTERNS.items()
        if form != "npy" and any(epoch_of(file.stem) is not None for file in files_of(path, pattern))
    ]
    arrays = [file.relative_to(path).with_suffix("") for file in (*files_of(path, "*.npy"), *files_of(path, "*/*.npy"))]
    if any(layer_and_epoch_of(name.as_posix()) for name in arrays):
        found.append("npy")
    return [*found, "pickle"] if epoch_pickles(path) else found


def open_source(path: Path, form: str | None = None) -> AbstractContextManager[Source]:
    """Source at a path, of a format that is named or seen from its files.

    Raises
    ------
    UsageError
        When there is no such format, nothing is there, or the format cannot be told.
    SourceError
        When the files are not what their names say.
    """
    if form is not None and form not in FORMATS:
        raise UsageError(f"there is no format {form!r} to import; choose one of {', '.join(FORMATS)}")
    found = format_of(path) if form is None or not path.exists() else form
    return FORMATS[found](path)
