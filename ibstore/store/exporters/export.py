"""Exporting: one split of a run as files that other programs read, one an epoch."""

import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, BinaryIO, Final

import numpy as np

from ibstore.errors import UnknownNameError, UsageError, WriteError
from ibstore.events import Emit, Event, ignore
from ibstore.store.create import refuse_inside
from ibstore.store.exporters.columns import WRITERS, Column, column
from ibstore.store.exporters.exported import MANIFEST, Exported
from ibstore.store.format.names import EPOCH_DIGITS, segment_name
from ibstore.store.format.schema import LayerInfo, SegmentRecord, SplitInfo
from ibstore.store.places import local_path, open_storage
from ibstore.store.places.disk import PARTIAL, put_file
from ibstore.store.probes import TARGET
from ibstore.store.reader import Run, Store

INPUTS: Final = "inputs"
"""Name of the file that has ``x`` and what each epoch's file has beside its layers."""

_EXPORTED: Final = re.compile(rf"({INPUTS}|epoch_\d{{{EPOCH_DIGITS}}})\.({'|'.join(WRITERS)})|{re.escape(MANIFEST)}")
"""What an export's files are called, in any format."""


def export_run(
    store: str | Path,
    run: str,
    out: str | Path,
    *,
    form: str = "npz",
    epochs: Sequence[int] | None = None,
    layers: Sequence[str] | None = None,
    split: str | None = None,
    force: bool = False,
    emit: Emit = ignore,
) -> list[Path]:
    """Write a run's activations as files, one an epoch, and return their paths, the manifest's last.

    ``inputs.npz`` holds sample ids, labels, targets and inputs: ``sample``, ``y``, ``target_<name>``, ``x``;
    ``epoch_0000000003.npz`` holds ``sample``, ``y`` and each layer under its name, (sample, …). In Parquet the labels'
    column is ``label``.
    ``manifest.json``, written last, holds the run's manifest, steps and metrics. A file is there whole or not at all,
    and a block of a layer is in memory at a time.

    Parameters
    ----------
    store, run
        What to export.
    out
        Folder for the files; it is made where it does not exist.
    form
        ``npz``, ``safetensors`` or ``parquet``.
    epochs, layers
        Which; by default all.
    split
        Which split; it may be left out where the run has one.
    force
        Put it in the place of an export that is there: its files are removed.
    emit
        Told of progress: stage ``export``, in epochs.

    Raises
    ------
    UsageError
        When the format, an epoch, a layer or the split does not exist, a layer is called as a coordinate is, or ``out``
        is a URL.
    StoreError
        When ``out`` is a store, or inside of one.
    WriteError
        When a file is there already, or cannot be written.
    DamagedError
        When something committed is missing or altered.
    """
    if form not in WRITERS:
        raise UsageError(f"there is no format {form!r} to export; choose one of {', '.join(WRITERS)}")
    found = Store.open(store).run(run)
    part = _split(found, split)
    infos = tuple(found.manifest.layers if layers is None else map(found.layer, dict.fromkeys(layers)))
    numbers = sorted(set(found.epochs if epochs is None else epochs))
    noted = _noted(found, form, part, infos, numbers)
    folder = local_path(out, "an export")
    _refuse_store(folder)
    paths = [folder / name for name in (f"{INPUTS}.{form}", *noted.files, MANIFEST)]
    coordinates = _coordinates(found, part, "label" if form == "parquet" else "y", infos)
    _make_room(paths, force)
    _write(paths[0], form, [*coordinates, *_inputs(found, part)])
    for done, (path, epoch) in enumerate(zip(paths[1:-1], numbers, strict=True), 1):
        _write(path, form, [*coordinates, *(_layer(found, part, info, epoch) for info in infos)])
        emit(Event("export", done, len(numbers), f"epoch {epoch}"))
    with _write_errors(paths[-1]):
        put_file(paths[-1], noted.dump())
    return paths


def _split(run: Run, name: str | None) -> SplitInfo:
    splits = {split.name: split for split in run.manifest.splits}
    has = ", ".join(splits)
    if name is None and len(splits) != 1:
        raise UsageError(f"run {run.name!r} has several splits ({has}); choose one with --split")
    if name is not None and name not in splits:
        raise UnknownNameError(f"run {run.name!r} has no split {name!r}; it has {has}")
    return splits[name] if name is not None else next(iter(splits.values()))


def _noted(run: Run, form: str, split: SplitInfo, layers: tuple[LayerInfo, ...], epochs: list[int]) -> Exported:
    """What is written beside the files.

    Raises
    ------
    UsageError
        When there is no epoch, or not the one that was asked for.
    """
    if not epochs:
        raise UsageError(f"run {run.name!r} has no committed epoch yet; capture some first")
    steps, metrics, dynamics = [], [], []
    for epoch in epochs:
        record = run.segment(epoch).record
        place = record.epochs.index(epoch)
        steps.append(record.steps[place])
        metrics.append(record.metrics[place])
        dynamics.append(record.dynamics[place])
    scalars = SegmentRecord(tuple(epochs), tuple(steps), tuple(metrics), {}, tuple(dynamics))
    manifest = replace(run.manifest, layers=layers, splits=(split,))
    files = tuple(f"epoch_{segment_name(epoch)}.{form}" for epoch in epochs)
    return Exported(form, split.name, manifest, scalars, files)


def _make_room(paths: list[Path], force: bool) -> None:
    """Make the folder, and remove the export that was there.

    Its manifest goes first, so that it never stands beside another's files.
    """
    folder = paths[-1].parent
    with _write_errors(folder):
        folder.mkdir(parents=True, exist_ok=True)
        earlier = sorted(path for path in folder.iterdir() if _EXPORTED.fullmatch(path.name))
        if earlier and not force:
            raise WriteError(f"{earlier[0]} is there already; choose another folder, or replace it with --force")
        for path in [paths[-1], *earlier]:
            path.unlink(missing_ok=True)


def _refuse_store(folder: Path) -> None:
    """Raise `StoreError` when the folder is a store or inside of one, where the files would be strangers."""
    place = open_storage(folder / "export")
    refuse_inside(place)


def _coordinates(run: Run, split: SplitInfo, label: str, layers: tuple[LayerInfo, ...]) -> list[Column]:
    """Sample ids and, where there are some, labels."""
    probe = run.probe(split)
    labels = probe.labels()
    found = [column("sample", probe.samples())] + ([] if labels is None else [column(label, labels)])
    taken = {each.name for each in found}
    for layer in layers:
        if layer.name in taken:
            raise UsageError(
                f"layer {layer.name!r} cannot stand in one file with the samples' own {layer.name!r}; export the other "
                "layers with --layer"
            )
    return found


def _inputs(run: Run, split: SplitInfo) -> list[Column]:
    """Targets, where there are some, and inputs."""
    probe = run.probe(split)
    shape, dtype = probe.x_form()
    targets = [column(f"{TARGET}{name}", values) for name, values in probe.targets().items()]
    return [*targets, Column("x", (split.samples, *shape), dtype, probe.x_blocks)]


def _layer(run: Run, split: SplitInfo, layer: LayerInfo, epoch: int) -> Column:
    blocks: Callable[[], Iterator[Any]] = partial(run.segment(epoch).blocks, split, layer, epoch)
    return Column(layer.name, (split.samples, *layer.shape), np.dtype(layer.dtype), blocks)


def _write(path: Path, form: str, columns: list[Column]) -> None:
    with _replacing(path) as file:
        WRITERS[form](file, columns)


@contextmanager
def _replacing(path: Path) -> Iterator[BinaryIO]:
    """A file that takes the place of ``path`` when it is whole; an export that was killed is written over."""
    temporary = path.with_name(f".{path.name}{PARTIAL}")
    with _write_errors(path):
        try:
            with temporary.open("wb") as file:
                yield file
            temporary.replace(path)
        finally:
            temporary.unlink(missing_ok=True)


@contextmanager
def _write_errors(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        reason = error.strerror or str(error)
        raise WriteError(f"cannot write {path}: {reason}; free space or choose another folder with --out") from error
