"""Stores written from plain arrays, how to read them back, and how to compare them."""

import dataclasses
import hashlib
import warnings
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import zarr

from ibstore.events import Emit, ignore
from ibstore.store import (
    LayerInfo,
    Manifest,
    ProbeSet,
    RunWriter,
    SegmentWriter,
    SplitInfo,
    Store,
    create_store,
    write_probe_set,
)
from ibstore.store.format.names import escape
from ibstore.store.places import open_storage

Location = Path | str
Place = TypeVar("Place", Path, str)
Arrays = Mapping[str, Any]
"""Activations (epoch, sample, …) by layer name."""

SAMPLES = 6
PROBE = ProbeSet.of(
    np.arange(SAMPLES * 4, dtype=np.float32).reshape(SAMPLES, 2, 2),
    np.array([0, 1, 1, 0, 2, 2]),
    np.array([10, 11, 12, 20, 21, 22]),
)
METRICS = {"train": {"loss": 0.5, "accuracy": 1.0}, "test": {"loss": float("nan")}}


def layers(epochs: int = 2, seed: int = 0) -> Arrays:
    """A layer of two axes and a scalar one, distinct in every number."""
    values = np.random.default_rng(seed).normal(size=(epochs, SAMPLES, 7)).astype(np.float32)
    return {"conv": values[..., :6].reshape(epochs, SAMPLES, 3, 2), "out:1": values[..., 6]}


def manifest(
    arrays: Arrays, digest: str, run: str = "run0", splits: Iterable[str] = ("train",), samples: int = SAMPLES
) -> Manifest:
    """What a run of these layers says of itself."""
    infos = tuple(LayerInfo(name, escape(name), values.shape[2:], values.dtype.name) for name, values in arrays.items())
    return Manifest(run, infos, tuple(SplitInfo(split, escape(split), digest, samples) for split in splits))


def open_writer(
    location: Location,
    arrays: Arrays,
    *,
    run: str = "run0",
    probe: ProbeSet = PROBE,
    replace: bool = False,
    resume: bool = False,
    emit: Emit = ignore,
    **described: Any,
) -> RunWriter:
    """Writer of a run of one split, ``train``, whose probe set lies in the store."""
    create_store(location)
    digest = write_probe_set(location, probe)
    about = dataclasses.replace(manifest(arrays, digest, run, samples=len(probe.x)), **described)
    return RunWriter(location, about, {"train": probe.sample}, replace=replace, resume=resume, emit=emit)


def fill(segment: SegmentWriter, arrays: Arrays, *indices: int) -> SegmentWriter:
    """Append the epochs at these indices of the arrays, two rows at a time."""
    for index in indices:
        for name, values in arrays.items():
            for start in range(0, len(values[index]), 2):
                segment.append("train", name, values[index][start : start + 2])
    return segment


def write_epoch(writer: RunWriter, arrays: Arrays, epoch: int, index: int | None = None) -> None:
    """Commit one epoch."""
    fill(writer.segment(epoch), arrays, epoch if index is None else index).commit([100 * epoch], [METRICS])


def write_run(location: Place, arrays: Arrays, **options: Any) -> Place:
    """Write a whole run, one segment an epoch; with ``resume`` what is missing of it."""
    with open_writer(location, arrays, **options) as writer:
        for epoch in range(len(writer.epochs), len(next(iter(arrays.values())))):
            write_epoch(writer, arrays, epoch)
    return location


def layer_values(location: Location, layer: str, epoch: int = 0, run: str = "run0", split: str = "train") -> Any:
    """Activations of one epoch as they lie in the store, (sample, …)."""
    found = Store.open(location).run(run)
    blocks = found.segment(epoch).blocks(found.manifest.split(split), found.layer(layer), epoch)
    return np.concatenate(list(blocks))


def assert_run(location: Location, arrays: Arrays, epochs: Iterable[int], run: str = "run0") -> None:
    """Assert that exactly these epochs of the run are there, and each of them whole."""
    assert Store.open(location).run(run).epochs == list(epochs)
    for epoch in epochs:
        for name, values in arrays.items():
            np.testing.assert_array_equal(layer_values(location, name, epoch, run), values[epoch])


def segment_folder(path: Path, epoch: int = 0, run: str = "run0") -> Path:
    """Where an epoch lies."""
    return path / "runs" / run / "segments" / f"{epoch:010d}"


def tree(path: Path) -> dict[str, str]:
    """Every file below ``path`` with a digest of its content, and every folder."""
    return {
        str(each.relative_to(path)): hashlib.sha256(each.read_bytes()).hexdigest() if each.is_file() else "folder"
        for each in sorted(path.rglob("*"))
    }


def contents(location: Location) -> dict[str, bytes]:
    """Every file of a store, wherever it is, with its content."""
    storage = open_storage(location)
    files = list(storage.files(""))
    return dict(zip(files, storage.read_all(files), strict=True))


def zarr_segments(path: Path, run: str = "run0") -> list[str]:
    """Segments of a run that zarr itself sees."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", zarr.errors.ZarrUserWarning)  # about what has no record
        return sorted(name for name, _ in zarr.open_group(path / "runs" / run / "segments", mode="r").groups())


def calls_before(function: Callable[..., Any], allowed: int, error: BaseException) -> Callable[..., Any]:
    """Stand-in for ``function`` that works ``allowed`` times and raises ``error`` from then on."""
    count = 0

    def counted(*arguments: Any, **options: Any) -> Any:
        nonlocal count
        count += 1
        if count > allowed:
            raise error
        return function(*arguments, **options)

    return counted
