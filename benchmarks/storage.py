"""One epoch of the MNIST CNN's activations, written, stored and read by ibstore and by what the field uses.

Each way writes the same arrays (conv1, conv2, out) durably, and reads them back whole; sizes are those of its files.
"""

import os
import sys
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.measure import Cost, keep, machine, measured, report
from benchmarks.plane import capture

LAYERS, EPOCH, REPEATS = ("conv1", "conv2", "out"), 1, 3
ROWS = 1000  # a recorded batch

Layers = Mapping[str, Any]


@dataclass(frozen=True)
class Way:
    """A row of the table: how it is called, and how often it is measured."""

    name: str
    repeats: int = REPEATS


WAYS = {
    "float32": Way("ibstore, lossless (the default: zstd −1)"),
    "zstd:1": Way("ibstore, lossless, `--codec zstd:1`"),
    "lz4": Way("ibstore, lossless, `--codec lz4`"),
    "float16": Way("ibstore, `--dtype float16`"),
    "bfloat16": Way("ibstore, `--dtype bfloat16`"),
    "npy": Way("`np.save`"),
    "npz": Way("`np.savez_compressed`", 1),
    "hdf5": Way("HDF5, gzip 4, chunks of 256 samples", 1),
    "safetensors": Way("safetensors"),
}


def main() -> None:
    with tempfile.TemporaryDirectory(prefix="ibstore-bench-") as folder:
        source = Path(folder, "source")
        dataset, raw = take_activations(Path(folder, "lab.zarr"), source)
        what = f"{dataset}, {' + '.join(LAYERS)} of one epoch: {raw / 1e9:.2f} GB"
        lines = [
            f"{datetime.now(UTC):%Y-%m-%d}, {machine()}; {what}.",
            "",
            "| what | stored | raw / stored | written | read |",
            "| --- | ---: | ---: | ---: | ---: |",
        ]
        for key, way in WAYS.items():
            target = Path(folder, key)
            written = measured("benchmarks.storage", "write", key, str(source), str(target), repeats=way.repeats)
            read = measured("benchmarks.storage", "read", key, str(target), repeats=way.repeats)
            lines.append(row(way, sizes(target), raw, written, read))
    keep("storage", "\n".join(lines))


def row(way: Way, stored: int, raw: int, written: Cost, read: Cost) -> str:
    rates = " | ".join(f"{raw / cost.seconds / 1e9:.2f} GB/s" for cost in (written, read))
    return f"| {way.name} | {stored / 1e9:.3f} GB | {raw / stored:.2f} | {rates} |"


def take_activations(store: Path, target: Path) -> tuple[str, int]:
    """Capture a store and put one epoch's layers aside as plain arrays; their data set and bytes."""
    from ibstore.store import Store

    dataset = capture(store)
    run = Store.open(store).runs()[0]
    split, raw = run.manifest.splits[0], 0
    target.mkdir()
    for name in LAYERS:
        values = np.concatenate(list(run.segment(EPOCH).blocks(split, run.layer(name), EPOCH)))
        np.save(target / f"{name}.npy", values)
        raw += values.nbytes
    return dataset, raw


def sizes(folder: Path) -> int:
    """Bytes of the layers' files; a store's probe set is not counted, since the others have none."""
    segments = folder / "runs" / "run" / "segments"
    return sum(path.stat().st_size for path in (segments if segments.exists() else folder).rglob("*") if path.is_file())


def write(key: str, layers: Layers, folder: Path) -> None:
    """Write the layers durably."""
    folder.mkdir(exist_ok=True)
    match key:
        case "npy":
            for name, values in layers.items():
                np.save(folder / f"{name}.npy", values)
        case "npz":
            np.savez_compressed(folder / "epoch.npz", **layers)
        case "hdf5":
            import h5py

            with h5py.File(folder / "epoch.h5", "w") as file:
                for name, values in layers.items():
                    chunks = (min(256, len(values)), *values.shape[1:])
                    file.create_dataset(name, data=values, chunks=chunks, compression="gzip")
        case "safetensors":
            from safetensors.numpy import save_file

            save_file(dict(layers), folder / "epoch.safetensors")
        case _:
            write_store(key, layers, folder)
            return
    for path in folder.iterdir():
        with path.open("rb") as file:
            os.fsync(file.fileno())


def write_store(key: str, layers: Layers, folder: Path) -> None:
    """Write a segment as a recorder does: batch by batch, rounded where that is asked for."""
    import torch

    from ibstore.capture import values
    from ibstore.store import LayerInfo, Manifest, ProbeSet, RunWriter, SplitInfo, write_probe_set
    from ibstore.store.create import create_store
    from ibstore.store.format.encoding import CODEC

    codec, dtype = (key, None) if key in {"lz4", "zstd:1"} else (CODEC, key)
    floating = values.floating_dtype(dtype)
    stored = values.numpy_name(values.stored_dtype(torch.float32, floating))
    probe = ProbeSet.of(np.zeros((len(next(iter(layers.values()))), 1), np.float32))
    create_store(folder)
    infos = tuple(LayerInfo(name, name, array.shape[1:], stored) for name, array in layers.items())
    split = SplitInfo("train", "train", write_probe_set(folder, probe), len(probe.x))
    manifest = Manifest("run", infos, (split,), codec=codec)
    with RunWriter(folder, manifest, {"train": probe.sample}, replace=True) as writer:
        segment = writer.segment(EPOCH)
        for start in range(0, len(probe.x), ROWS):
            for name, array in layers.items():
                batch = torch.from_numpy(array[start : start + ROWS])
                segment.append("train", name, values.encode(batch, floating))
        segment.commit()


def read(key: str, folder: Path) -> None:
    """Read all layers: a store block by block, each checked; the others whole, as they do."""
    match key:
        case "npy":
            for name in LAYERS:
                np.load(folder / f"{name}.npy")
        case "npz":
            with np.load(folder / "epoch.npz") as arrays:
                for name in LAYERS:
                    arrays[name]
        case "hdf5":
            import h5py

            with h5py.File(folder / "epoch.h5") as file:
                for name in LAYERS:
                    file[name][...]
        case "safetensors":
            from safetensors.numpy import load_file

            load_file(folder / "epoch.safetensors")
        case _:
            read_store(folder)


def read_store(folder: Path) -> None:
    from ibstore.store import Store

    run = Store.open(folder).runs()[0]
    for layer in run.manifest.layers:
        for _ in run.segments[0].blocks(run.manifest.splits[0], layer, EPOCH):
            pass


def load_modules() -> None:
    """Import what the works import when first used, so that it is not counted."""
    import h5py
    import safetensors.numpy
    import torch

    import ibstore.capture.values
    import ibstore.store.format.arrays
    import ibstore.store.format.shards
    import ibstore.store.writer

    modules = (
        h5py,
        safetensors.numpy,
        torch,
        ibstore.capture.values,
        ibstore.store.format.arrays,
        ibstore.store.format.shards,
    )
    assert all((*modules, ibstore.store.writer))


if __name__ == "__main__":
    if len(sys.argv) == 1:
        main()
    elif sys.argv[1] == "write":
        load_modules()
        arrays = {name: np.load(Path(sys.argv[3], f"{name}.npy")) for name in LAYERS}
        report(lambda: write(sys.argv[2], arrays, Path(sys.argv[4])))
    else:
        load_modules()
        report(lambda: read(sys.argv[2], Path(sys.argv[3])))
