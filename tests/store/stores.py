"""Stores written from plain arrays, how to read them back, and how to compare them."""

import hashlib
import warnings
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import zarr

from ibstore.events import Emit, ignore
from ibstore.store import LayerInfo, Manifest, ProbeSet, RunWriter, SplitInfo, Store, create_store, write_probe_set
from ibstore.store.names import escape

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
    path: Path,
    arrays: Arrays,
    *,
    run: str = "run0",
    probe: ProbeSet = PROBE,
    replace: bool = False,
    emit: Emit = ignore,
) -> RunWriter:
    """Writer of a run of one split, ``train``, whose probe set lies in the store."""
    create_store(path)
    digest = write_probe_set(path, probe)
    described = manifest(arrays, digest, run, samples=len(probe.x))
    return RunWriter(path, described, {"train": probe.sample}, replace=replace, emit=emit)


def write_epoch(writer: RunWriter, arrays: Arrays, epoch: int, index: int | None = None) -> None:
    """Commit one epoch, two rows at a time."""
    segment = writer.segment(epoch)
    for name, values in arrays.items():
        rows = values[epoch if index is None else index]
        for start in range(0, len(rows), 2):
            segment.append("train", name, rows[start : start + 2])
    segment.commit(100 * epoch, METRICS)


def write_run(path: Path, arrays: Arrays, **options: Any) -> Path:
    """Write a whole run, one segment an epoch."""
    with open_writer(path, arrays, **options) as writer:
        for epoch in range(len(next(iter(arrays.values())))):
            write_epoch(writer, arrays, epoch)
    return path


def layer_values(path: Path, layer: str, epoch: int = 0, run: str = "run0", split: str = "train") -> Any:
    """Activations of one epoch as they lie in the store, (sample, …)."""
    found = Store.open(path).run(run)
    blocks = found.segment(epoch).blocks(found.manifest.split(split), found.layer(layer), epoch)
    return np.concatenate(list(blocks))


def assert_run(path: Path, arrays: Arrays, epochs: Iterable[int], run: str = "run0") -> None:
    """Assert that exactly these epochs of the run are there, and each of them whole."""
    assert Store.open(path).run(run).epochs == list(epochs)
    for epoch in epochs:
        for name, values in arrays.items():
            np.testing.assert_array_equal(layer_values(path, name, epoch, run), values[epoch])


def segment_folder(path: Path, epoch: int = 0, run: str = "run0") -> Path:
    """Where an epoch lies."""
    return path / "runs" / run / "segments" / f"{epoch:010d}"


def tree(path: Path) -> dict[str, str]:
    """Every file below ``path`` with a digest of its content, and every folder."""
    return {
        str(each.relative_to(path)): hashlib.sha256(each.read_bytes()).hexdigest() if each.is_file() else "folder"
        for each in sorted(path.rglob("*"))
    }


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
