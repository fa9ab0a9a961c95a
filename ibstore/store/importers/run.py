"""Importing: the epochs of foreign files are held against the first one and committed as a run."""

from collections.abc import Callable, Collection, Sequence
from contextlib import suppress
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from ibstore.errors import ResumeError, SourceError, StoreError
from ibstore.events import Emit, Event, ignore
from ibstore.store.exporters.exported import MANIFEST, Exported, exported_at
from ibstore.store.format.encoding import Encoding
from ibstore.store.format.layout import epochs_per_segment, listed
from ibstore.store.format.names import LAST_EPOCH, escape
from ibstore.store.format.probe import ProbeSet
from ibstore.store.format.schema import Dynamics, Manifest, Metrics, SplitInfo
from ibstore.store.importers.expected import Expected
from ibstore.store.importers.formats import format_of, open_source
from ibstore.store.importers.inputs import probe_set
from ibstore.store.importers.source import Epoch, Source
from ibstore.store.places import local_path, open_storage
from ibstore.store.reader import Run, Store
from ibstore.store.segment import SegmentWriter
from ibstore.store.writer import RunWriter

UNKNOWN: Final = "unknown"
Check = Callable[[Epoch], None]


def import_run(
    source: str | Path,
    store: str | Path,
    *,
    run: str | None = None,
    form: str | None = None,
    x: str | Path | None = None,
    y: str | Path | None = None,
    split: str | None = None,
    layers: Sequence[str] | None = None,
    encoding: Encoding | None = None,
    force: bool = False,
    resume: bool = False,
    emit: Emit = ignore,
) -> Run:
    """Commit activations that other code wrote as a run, an epoch after the other, and return it.

    Nothing is lost: numbers keep their type (truth values become bytes, bfloat16 becomes float32). What can be
    known from the files' headers is checked before anything is committed, and no epoch is ever committed in part.

    Parameters
    ----------
    source
        A folder or a file: docs/moving.md lists formats, names and layouts. What `ibstore export` wrote gives the
        same run again, with its metrics and manifest.
    store
        Path or URL of the store; it is made where it does not exist.
    run
        Name of the run; by default that of the exported run, or of the source.
    form
        ``npz``, ``npy``, ``safetensors``, ``hdf5`` or ``pickle``; by default seen from the files.
    x, y
        Files of the network's inputs (sample, …) and integer labels (sample,): ``.npy``, ``.npz``, ``.safetensors``.
        By default what lies beside the epochs; without inputs X is the sample's number.
    split
        Name of the samples; by default ``train``, and ``test`` for the pickles, which hold the test set.
    layers
        Which layers, in execution order; by default all, in the source's order.
    encoding
        How the numbers become bytes.
    force
        Remove a run of that name first.
    resume
        Go on with an import that was cut short.
    emit
        Told of progress: stage ``import``, in epochs.

    Raises
    ------
    SourceError
        When the files cannot be read, do not fit each other, or could run code.
    UsageError
        When an argument cannot be meant, or the source's format cannot be told.
    StoreError
        When the store cannot be written, or has epochs of a run of that name.
    """
    path = local_path(source, "what is imported")
    given = {name: Path(file) for name, file in (("x", x), ("y", y)) if file is not None}
    exported = exported_at(path)
    form = form or (format_of(path) if exported is None else exported.form)
    with open_source(path, form) as opened:
        found = opened if exported is None else _as_exported(opened, exported, path / MANIFEST)
        first = _first(found, f"{path} has no epoch as {form}")
        expected = Expected.of(first, layers or _layer_names(exported))
        probe = probe_set(found, first, expected, given, emit)
        check = partial(expected.check, inputs=_within(probe, given))
        for open_epoch in found.epochs.values() if found.sized else [lambda: first]:
            check(open_epoch())
        storage = open_storage(store)
        called = split or found.split
        info = SplitInfo(called, escape(called), probe.digest(), expected.samples)
        told = _unknown(path, form) if exported is None else exported.manifest
        manifest = replace(told, run=run or told.run, layers=expected.infos, splits=(info,))
        if encoding is not None:
            manifest = replace(manifest, codec=encoding.codec, chunk_bytes=encoding.chunk_bytes)
        samples = {called: probe.sample}
        with RunWriter(storage, manifest, samples, probes=[probe], replace=force, resume=resume, emit=emit) as writer:
            _write(writer, found, check, expected.epoch_bytes, emit)
    return Store(storage).run(manifest.run)


def _first(source: Source, nothing: str) -> Epoch:
    if not source.epochs:
        raise SourceError(f"{nothing}; docs/moving.md lists names and layouts")
    last = max(source.epochs)
    if last > LAST_EPOCH:
        raise SourceError(f"{str(last)[:30]} is too large for an epoch's number; give numbers up to {LAST_EPOCH}")
    return source.epochs[min(source.epochs)]()


def _within(probe: ProbeSet, given: Collection[str]) -> dict[str, NDArray[Any]]:
    """What epochs that have inputs, labels or ids must have: the run's, unless they were ``given`` by file."""
    arrays = {"x": probe.x, "y": probe.y, "sample": probe.sample}
    return {name: each for name, each in arrays.items() if each is not None and name not in given}


def _layer_names(exported: Exported | None) -> list[str] | None:
    return None if exported is None else [layer.name for layer in exported.manifest.layers]


def _unknown(path: Path, form: str) -> Manifest:
    """Manifest of a run of which nothing is known but its files."""
    return Manifest(
        path.resolve().name if path.is_dir() else path.resolve().stem,
        (),
        (),
        mode=UNKNOWN,
        device=UNKNOWN,
        threads=0,
        probe_batch=0,
        settings={"imported": form},
        versions={"numpy": np.__version__},
    )


def _as_exported(source: Source, exported: Exported, where: Path) -> Source:
    """The source with what was noted when it was exported.

    Raises
    ------
    SourceError
        When an epoch was not exported with the others, or is gone.
    """
    noted = set(exported.epochs.epochs)
    if noted != set(source.epochs):
        differing = listed(sorted(noted ^ set(source.epochs)))
        raise SourceError(
            f"{where} and the files beside it differ in epochs {differing}; export again, or remove {MANIFEST}, which "
            "also holds metrics"
        )

    def opened(number: int) -> Epoch:
        step, metrics, dynamics = exported.scalars(number)
        return replace(source.epochs[number](), step=step, metrics=metrics, dynamics=dynamics)

    return replace(source, epochs={number: partial(opened, number) for number in source.epochs}, split=exported.split)


def _write(writer: RunWriter, source: Source, check: Check, epoch_bytes: int, emit: Emit) -> None:
    """Commit the epochs that are not there yet, several small ones in a segment."""
    numbers, committed = list(source.epochs), [epoch for record in writer.found for epoch in record.epochs]
    if committed != numbers[: len(committed)]:
        raise ResumeError(
            f"run {writer.manifest.run!r} has epochs {listed(committed)}, which are not the first ones of what is "
            f"imported ({listed(numbers)}); import it as another run"
        )
    size = epochs_per_segment(epoch_bytes)
    for start in range(len(committed), len(numbers), size):
        part = numbers[start : start + size]
        segment = writer.segment(*part)
        try:
            epochs = [_append(segment, writer.manifest, source.epochs[number](), check) for number in part]
        except BaseException:
            with suppress(StoreError):  # the error itself says more
                segment.discard()
            raise
        steps, metrics, dynamics = zip(*epochs, strict=True)
        segment.commit(steps, metrics, dynamics)
        emit(Event("import", start + len(part), len(numbers), f"epoch {part[-1]}"))


def _append(
    segment: SegmentWriter, manifest: Manifest, epoch: Epoch, check: Check
) -> tuple[int | None, Metrics, Dynamics]:
    """Append an epoch's layers, if it is as expected, and return its step, metrics and dynamics."""
    check(epoch)
    (split,) = manifest.splits
    for layer in manifest.layers:
        for block in epoch.arrays[layer.name].blocks():
            segment.append(split.name, layer.name, block)
    metrics = {name or split.name: scalars for name, scalars in epoch.metrics.items()}
    return epoch.step, metrics, epoch.dynamics
