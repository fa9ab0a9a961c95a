"""Stores written from plain arrays, without a network: what the tests of the analysis ask questions to."""

from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np

from ibstore.analyze.parts import Parts
from ibstore.store import (
    LayerInfo,
    Manifest,
    ProbeSet,
    RunWriter,
    SplitInfo,
    Store,
    create_store,
    write_probe_set,
)
from ibstore.store import create as store_create
from ibstore.store import segment as store_segment
from ibstore.store.format.layout import Layout
from ibstore.store.format.names import escape
from ibstore.store.places import open_storage


def make_store(path: Path, x, y=None, *, layers: Mapping[str, Any], rows: Layout | None = None, **run: Any) -> Path:
    """Write one run of one split ``train`` to the store at ``path``, made where it does not exist.

    ``layers`` holds (epoch, sample, …) by name, in execution order. ``rows`` cuts every array along ``sample``.
    """
    return make_run(path, {"train": (x, y)}, {"train": layers}, rows=rows, **run)


def make_run(
    path: Path,
    data: Mapping[str, tuple[Any, Any]],
    layers: Mapping[str, Mapping[str, Any]],
    *,
    run: str = "run0",
    epochs: list[int] | None = None,
    sample=None,
    rows: Layout | None = None,
    replace: bool = False,
    metrics: Mapping[int, Any] | None = None,
    together: bool = False,
) -> Path:
    """Write one run, ``data`` and ``layers`` by split; each epoch in its own segment, or all ``together``."""
    probes = {split: ProbeSet.of(np.asarray(x), y, sample) for split, (x, y) in data.items()}
    first = next(iter(layers.values()))
    infos = tuple(
        LayerInfo(name, escape(name), np.shape(values)[2:], np.asarray(values).dtype.name)
        for name, values in first.items()
    )
    with cut(rows), patch("os.fsync"):  # no power will be cut here
        create_store(path)
        splits = tuple(
            SplitInfo(split, escape(split), write_probe_set(path, probe), len(probe.x))
            for split, probe in probes.items()
        )
        ids = {split: probe.sample for split, probe in probes.items()}
        with RunWriter(path, Manifest(run, infos, splits), ids, replace=replace) as writer:
            count = len(next(iter(first.values())))
            write = write_together if together else write_epochs
            write(writer, layers, epochs if epochs is not None else list(range(count)), metrics or {})
    return path


@contextmanager
def cut(rows: Layout | None) -> Iterator[None]:
    """Cut arrays along ``sample`` as ``rows`` says, if it says anything."""
    with ExitStack() as patches:
        for module in (store_create, store_segment) if rows is not None else ():
            patches.enter_context(patch.object(module, "plan", lambda *_: rows))
        yield


def results(store: str | Path) -> Path:
    """Where results lie by default."""
    return Path(Parts.beside(open_storage(store)).storage.location)


def write_epochs(writer: RunWriter, layers: Mapping[str, Mapping[str, Any]], epochs: list[int], metrics: Any) -> None:
    """Commit one segment an epoch."""
    for index, epoch in enumerate(epochs):
        segment = writer.segment(epoch)
        for split, arrays in layers.items():
            for name, values in arrays.items():
                segment.append(split, name, np.ascontiguousarray(values[index]))
        segment.commit([10 * epoch], [metrics.get(epoch, {})])


def write_together(writer: RunWriter, layers: Mapping[str, Mapping[str, Any]], epochs: list[int], metrics: Any) -> None:
    """Commit all epochs as one segment."""
    segment = writer.segment(*epochs)
    for split, arrays in layers.items():
        for name, values in arrays.items():
            segment.append(split, name, np.ascontiguousarray(values).reshape(-1, *values.shape[2:]))
    segment.commit([10 * epoch for epoch in epochs], [metrics.get(epoch, {}) for epoch in epochs])


def layer_file(store: Path, layer: str, epoch: int = 0, run: str = "run0", split: str = "train") -> Path:
    """The file of a layer's first shard."""
    found = Store.open(store).run(run)
    folder = store / found.segment(epoch).key / split / found.layer(layer).node
    return next(path for path in sorted(folder.iterdir()) if path.name.startswith("c."))


def files_below(folder: Path) -> set[Path]:
    """Every file and folder below ``folder``."""
    return set(folder.rglob("*"))


def numbered(count: int, *shape: int) -> np.ndarray:
    """Inputs that are all distinct: sample i is filled with i."""
    return np.broadcast_to(np.arange(count, dtype=np.float32).reshape(-1, *[1] * len(shape)), (count, *shape)).copy()
