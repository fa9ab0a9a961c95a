"""The recorder: writes what the layers of a network say about a probe set, epoch by epoch, into a store."""

import atexit
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from types import MappingProxyType, TracebackType
from typing import Any, Final, Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from ibstore.capture import hooks, room, values
from ibstore.capture.arguments import check_arguments, is_count, probe_set
from ibstore.capture.background import BackgroundWriter, queue_length
from ibstore.capture.forward import ProbePass, device_of, evaluating
from ibstore.capture.metrics import Means, Measure, by_split
from ibstore.capture.provenance import Provenance, versions
from ibstore.capture.sink import EpochSink
from ibstore.capture.specs import LayerSpec
from ibstore.capture.state import Keep, State, restore
from ibstore.capture.termination import forget_sigterm, leave_on_sigterm, sigterm_waits
from ibstore.devices import resolve_device
from ibstore.errors import CaptureError, ResumeError
from ibstore.events import Emit, Event, ignore
from ibstore.store import (
    Encoding,
    LayerInfo,
    Manifest,
    RunWriter,
    SplitInfo,
)
from ibstore.store.estimate import Estimate
from ibstore.store.format.names import LAST_EPOCH, escape
from ibstore.store.format.schema import Metrics
from ibstore.store.places import Storage, open_storage
from ibstore.store.states import States

Found = Sequence[tuple[LayerSpec, torch.Tensor]]
"""Layers that fired on the first batch, with what they put out."""

PROBE_BATCH: Final = 1000
_UNKNOWN: Final = Provenance()
_LOSSLESS: Final = Encoding()
_NOTHING: Final[Keep] = MappingProxyType({})


class Recorder:
    """Records a network's layers: made once before training, told `record` at every epoch, closed at the end.

    Making one runs a single batch, so that whatever is wrong is refused before training. Recording never
    changes the training: weights, modes, gradients and random numbers stay as they are.

    Parameters
    ----------
    store
        Path of the store; it is made where it does not exist.
    model
        Any network that takes ``x``.
    layers
        What to record: ``path[:call][[part]…]`` of named modules, such as ``conv1``, ``encoder.0``, ``relu:1``
        (second call) or ``lstm[0]`` (part of a tuple). None: every leaf module that has parameters or is an
        activation function.
    x
        Network inputs, (sample, …), tensor or array. They are kept on the CPU, without a copy where possible,
        and must not be changed; each batch is moved to the network's device.
    y
        Integer labels, (sample,).
    run
        Name of the run.
    split
        Name of this probe set.
    sample
        Sample ids, (sample,), distinct; by default 0, 1, 2, …
    batch_size
        Samples in a batch of the probe's forward pass; activations differ in the last bits between sizes.
    dtype
        What floating activations are rounded to: ``float16``, ``bfloat16``, ``float32`` or ``float64``; by default
        nothing is lost. Integers keep their type, truth values become bytes.
    encoding
        How the numbers become bytes.
    device
        Where the network is; by default where its first parameter is.
    measure
        Takes the network's output and the labels of a batch and gives means by name, such as loss and
        accuracy. They become metrics of this split, at no second forward pass.
    force
        Remove a run of that name first, and begin though the space seems too small.
    resume
        Go on with the run of that name after its last committed epoch (`epoch` tells which), if there is one.
    keep
        What else the training needs to go on, by name: networks, optimizers, schedulers, generators. Their states are
        kept with every commit, beside the store, and loaded into them on ``resume``, with torch's random numbers.
    epochs
        How many epochs will be recorded, where that is known: so it can be told whether there is room.
    provenance
        What else the manifest shall say of the run.
    emit
        Told of progress: stage ``record``, in samples.

    Raises
    ------
    CaptureError
        When the network or the data cannot be recorded as asked.
    UsageError
        When an argument cannot be meant.
    StoreError
        When the store cannot be written, or has epochs of a run of that name.

    Examples
    --------
    >>> import tempfile
    >>> model = nn.Sequential(nn.Linear(4, 3), nn.Tanh())
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     with Recorder(f"{folder}/lab.zarr", model, x=torch.zeros(5, 4)) as recorder:
    ...         recorder.record(0, loss=2.5)
    {'train': {'loss': 2.5}}
    """

    def __init__(
        self,
        store: str | Path,
        model: nn.Module,
        *,
        layers: Sequence[str] | None = None,
        x: Any,
        y: Any = None,
        run: str = "run0",
        split: str = "train",
        sample: Any = None,
        batch_size: int = PROBE_BATCH,
        dtype: str | None = None,
        encoding: Encoding = _LOSSLESS,
        device: str | torch.device | None = None,
        measure: Measure | None = None,
        force: bool = False,
        resume: bool = False,
        keep: Keep = _NOTHING,
        epochs: int | None = None,
        provenance: Provenance = _UNKNOWN,
        emit: Emit = ignore,
    ) -> None:
        check_arguments(model, batch_size, y, measure)
        self._floating = values.floating_dtype(dtype)
        self._probe = probe_set(x, y, sample)
        where = device_of(model) if device is None else resolve_device(device)
        self._pass = ProbePass(model, values.as_tensor(x), batch_size, where)
        self._measure, self._emit, self._keep = measure, emit, dict(keep)
        State(self._keep, where).dump()  # refuses what cannot be kept
        found = self._discover(layers)
        self._layers, self._infos = [spec for spec, _ in found], {info.name: info for info in self._described(found)}
        self._split, self._closed = split, False
        rounded = any(values.rounds(tensor.dtype, self._floating) for _, tensor in found)
        manifest = self._manifest(run, provenance, encoding, rounded=rounded)
        storage = open_storage(store)
        planned = room.epochs_to_come(storage, run, epochs) if resume else epochs
        expected = self._expected(storage, found, manifest, planned)
        if not force:
            room.check(run, storage, expected, resume=resume)
        writer = self._open(storage, manifest, force, resume)
        try:
            self._recorded = writer.found
            self._last = self._recorded[-1].epochs[-1] if self._recorded else -1
            if self._last >= 0 and planned != 0:
                self._restore(writer.states)
            row_bytes = sum(np.dtype(info.dtype).itemsize * int(np.prod(info.shape)) for info in self.layers)
            self._sink = EpochSink(writer, split, row_bytes * len(self._probe.x))
            length = queue_length(row_bytes * min(batch_size, len(self._probe.x)))
            self._background = BackgroundWriter(length, self._sink.flush_when_due, self._sink.close)
        except BaseException:
            writer.close()
            raise
        leave_on_sigterm()
        atexit.register(self.close)

    @property
    def layers(self) -> tuple[LayerInfo, ...]:
        """What is recorded, in execution order."""
        return tuple(self._infos.values())

    @property
    def epoch(self) -> int | None:
        """The last epoch that was recorded, by this recorder or by the one that it goes on for; None before any."""
        return None if self._last < 0 else self._last

    @property
    def history(self) -> list[Metrics]:
        """Metrics of the epochs that were committed before this recorder began, in order."""
        return [metrics for record in self._recorded for metrics in record.metrics]

    def record(self, epoch: int, step: int | None = None, **metrics: Any) -> Metrics:
        """Record every layer's activations of the probe set, as the network is now.

        It returns when the forward pass is done; the epoch is written and committed in the background.

        Parameters
        ----------
        epoch
            A growing integer from 0 (the untrained network).
        step
            The optimizer's step count.
        metrics
            A number is a metric of the recorded split; a mapping holds those of the split of its name:
            ``loss=0.1, test={"loss": 0.2}``. A metric that is given replaces one that is measured.

        Returns
        -------
        Metrics
            The epoch's metrics by split, measured ones included.

        Raises
        ------
        CaptureError
            When the epoch does not grow, a metric is no number, or a layer is not what it was; the epoch is
            not recorded, those before it are.
        StoreError
            When an earlier epoch could not be written.
        """
        self._check_epoch(epoch, step)
        given = by_split(self._split, metrics)
        self._background.put(partial(self._sink.begin, int(epoch)))
        measured = {self._split: self._run_pass(int(epoch))}
        merged = {name: measured.get(name, {}) | given.get(name, {}) for name in measured | given}
        scalars = {name: own for name, own in merged.items() if own}
        state = State(self._keep, self._pass.device) if self._keep else None
        self._background.put(partial(self._sink.commit, None if step is None else int(step), scalars, state))
        self._last = int(epoch)
        return scalars

    def complete(self) -> None:
        """Say that nobody will go on with the run: what was kept for that is removed once all is committed."""
        self._background.put(self._sink.complete)

    def close(self) -> None:
        """Wait until every recorded epoch is committed, and let the run go; it can be called twice.

        Raises
        ------
        StoreError
            When an epoch could not be written.
        """
        begun, self._closed = self._closed, True
        with sigterm_waits():
            try:
                self._background.close()
            finally:
                if not begun:
                    atexit.unregister(self.close)
                    forget_sigterm()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            self.close()
        except Exception as late:
            if error is None:
                raise
            if late is not error:
                error.add_note(f"and the recorder could not be closed: {late}")

    def _discover(self, layers: Sequence[str] | None) -> Found:
        model, batch = self._pass.model, len(self._pass.x[: self._pass.batch_size])
        with evaluating(model):
            return hooks.discover(model, layers, self._pass.try_first, batch)

    def _described(self, found: Found) -> list[LayerInfo]:
        return [
            LayerInfo(
                spec.name,
                escape(spec.name),
                tuple(tensor.shape[1:]),
                values.numpy_name(values.stored_dtype(tensor.dtype, self._floating)),
            )
            for spec, tensor in found
        ]

    def _expected(self, storage: Storage, found: Found, manifest: Manifest, epochs: int | None) -> Estimate:
        """Tell what the run will take."""
        first = {spec.name: self._encoded(spec.name, tensor.cpu(), len(tensor), 0) for spec, tensor in found}
        expected = room.estimate(storage, first, self._probe, manifest.encoding, epochs)
        if epochs != 0:
            self._emit(Event("notice", detail=f"run {manifest.run!r}: {expected}"))
        return expected

    def _restore(self, states: States) -> None:
        """Load what was kept after the last committed epoch."""
        if not self._keep:
            return
        content = states.get(self._last)
        if content is None:
            raise ResumeError(
                f"there is no state of the training after epoch {self._last} in {states.where()}; it was complete, or "
                "begun without keep: leave keep out and restore the training yourself, or begin another run"
            )
        restore(content, self._keep, self._pass.device, states.where())

    def _manifest(self, run: str, provenance: Provenance, encoding: Encoding, *, rounded: bool) -> Manifest:
        escape(run)  # refuses a name that cannot be one, before anything is written
        split = SplitInfo(self._split, escape(self._split), self._probe.digest(), len(self._probe.x))
        return Manifest(
            run=run,
            layers=self.layers,
            splits=(split,),
            module=repr(self._pass.model),
            recipe=provenance.recipe,
            seed=provenance.seed,
            loss=provenance.loss,
            optimizer=provenance.optimizer,
            mode="eval",
            device=self._pass.device.type,
            threads=torch.get_num_threads(),
            probe_batch=self._pass.batch_size,
            rounding=str(self._floating).removeprefix("torch.") if rounded else None,
            codec=encoding.codec,
            chunk_bytes=encoding.chunk_bytes,
            settings=dict(provenance.settings),
            versions=versions(),
        )

    def _open(self, storage: Storage, manifest: Manifest, force: bool, resume: bool) -> RunWriter:
        samples, probes = {self._split: self._probe.sample}, [self._probe]
        return RunWriter(storage, manifest, samples, probes=probes, replace=force, resume=resume, emit=self._emit)

    def _run_pass(self, epoch: int) -> dict[str, float]:
        """Hand every batch's activations to the background thread; return what was measured."""
        means, done, total = Means(), 0, len(self._pass.x)
        with evaluating(self._pass.model):
            for rows in self._pass.batches():
                with hooks.copying(self._pass.model, self._layers) as copies:
                    output = self._pass.run(rows)
                samples = len(self._pass.x[rows])
                batch = {name: self._encoded(name, copy, samples, epoch) for name, copy in copies.items()}
                self._background.put(partial(self._sink.append, batch))
                if self._measure is not None:
                    means.add(self._measure(output, self._labels(rows)), samples)
                done += samples
                self._emit(Event("record", done, total, f"epoch {epoch}", inner=True))
        return means.result()

    def _labels(self, rows: slice) -> torch.Tensor:
        assert self._probe.y is not None  # whoever measures has given labels
        return torch.from_numpy(self._probe.y[rows]).to(self._pass.device)

    def _encoded(self, name: str, copy: torch.Tensor, samples: int, epoch: int) -> NDArray[Any]:
        info = self._infos[name]
        dtype = values.stored_dtype(copy.dtype, self._floating)
        found = (tuple(copy.shape), values.numpy_name(dtype))
        if found != ((samples, *info.shape), info.dtype):
            raise CaptureError(
                f"layer {name!r} puts out {found[1]} {found[0]} at epoch {epoch}, but {info.dtype} "
                f"{(samples, *info.shape)} when the run began; record the changed network under another run name"
            )
        try:
            return values.encode(copy, self._floating)
        except ArithmeticError as error:
            raise CaptureError(
                f"layer {name!r} at epoch {epoch} cannot be rounded: {error}; record under another run name without "
                "dtype (--dtype), or with a wider one"
            ) from None

    def _check_epoch(self, epoch: int, step: int | None) -> None:
        if self._closed:
            raise CaptureError("the recorder is closed; make a new one, under another run name, to record more")
        if not is_count(epoch) or not (step is None or is_count(step)):
            name, number = ("step", step) if is_count(epoch) else ("epoch", epoch)
            raise CaptureError(f"{name} is {number!r}; give an integer from 0")
        if epoch > LAST_EPOCH or (step or 0) > np.iinfo(np.int64).max:
            raise CaptureError(f"epoch {epoch}, step {step} is too large; an epoch may be up to {LAST_EPOCH}")
        if epoch == self._last:
            raise CaptureError(f"epoch {epoch} is recorded already; give every epoch a number of its own")
        if epoch < self._last:
            raise CaptureError(f"epoch {epoch} comes after epoch {self._last}; record epochs in growing order")
