"""The recorder: writes what the layers of a network say about a probe set, epoch by epoch, into a store."""

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from ibstore.capture import hooks, values
from ibstore.capture.background import BackgroundWriter, queue_length
from ibstore.capture.forward import ProbePass, device_of, evaluating, resolve_device
from ibstore.capture.metrics import Means, Measure, by_split
from ibstore.capture.provenance import Provenance, versions
from ibstore.capture.sink import EpochSink
from ibstore.capture.specs import LayerSpec
from ibstore.errors import CaptureError, UsageError
from ibstore.events import Emit, Event, ignore
from ibstore.store import LayerInfo, Manifest, ProbeSet, RunWriter, SplitInfo, create_store, write_probe_set
from ibstore.store.names import escape
from ibstore.store.schema import Metrics

PROBE_BATCH: Final = 1000
_UNKNOWN: Final = Provenance()


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
        What floating activations are stored as: ``float16``, ``float32`` or ``float64``. Integers keep their
        type, truth values become bytes.
    device
        Where the network is; by default where its first parameter is.
    measure
        Takes the network's output and the labels of a batch and gives means by name, such as loss and
        accuracy. They become metrics of this split, at no second forward pass.
    force
        Remove a run of that name first.
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
        dtype: str = "float32",
        device: str | torch.device | None = None,
        measure: Measure | None = None,
        force: bool = False,
        provenance: Provenance = _UNKNOWN,
        emit: Emit = ignore,
    ) -> None:
        _check_arguments(model, batch_size, y, measure)
        self._floating = values.floating_dtype(dtype)
        self._probe = _probe_set(x, y, sample)
        where = device_of(model) if device is None else resolve_device(device)
        self._pass = ProbePass(model, values.as_tensor(x), batch_size, where)
        self._measure, self._emit = measure, emit
        self._layers, self._infos = self._discover(layers)
        self._split, self._last, self._closed = split, -1, False
        manifest = self._manifest(run, provenance)
        self._sink = self._open(Path(store), manifest, force)
        row_bytes = sum(np.dtype(info.dtype).itemsize * int(np.prod(info.shape)) for info in self._infos.values())
        try:
            self._background = BackgroundWriter(queue_length(row_bytes * min(batch_size, len(self._probe.x))))
        except BaseException:
            self._sink.close()
            raise

    @property
    def layers(self) -> tuple[LayerInfo, ...]:
        """What is recorded, in execution order."""
        return tuple(self._infos.values())

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
        self._background.put(partial(self._sink.commit, None if step is None else int(step), scalars))
        self._last = int(epoch)
        return scalars

    def close(self) -> None:
        """Wait until every recorded epoch is committed, and let the run go; it can be called twice.

        Raises
        ------
        StoreError
            When an epoch could not be written.
        """
        self._closed = True
        try:
            self._background.close()
        finally:
            self._sink.close()

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

    def _discover(self, layers: Sequence[str] | None) -> tuple[list[LayerSpec], dict[str, LayerInfo]]:
        model, batch = self._pass.model, len(self._pass.x[: self._pass.batch_size])
        with evaluating(model):
            found = hooks.discover(model, layers, self._pass.try_first, batch)
        infos = [
            LayerInfo(
                spec.name,
                escape(spec.name),
                tuple(tensor.shape[1:]),
                values.numpy_name(values.stored_dtype(tensor.dtype, self._floating)),
            )
            for spec, tensor in found
        ]
        return [spec for spec, _ in found], {info.name: info for info in infos}

    def _manifest(self, run: str, provenance: Provenance) -> Manifest:
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
            settings=dict(provenance.settings),
            versions=versions(),
        )

    def _open(self, store: Path, manifest: Manifest, force: bool) -> EpochSink:
        create_store(store)
        write_probe_set(store, self._probe)
        samples = {self._split: self._probe.sample}
        return EpochSink(RunWriter(store, manifest, samples, replace=force, emit=self._emit), self._split)

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
            return values.encode(copy, dtype)
        except OverflowError as error:
            raise CaptureError(
                f"layer {name!r} at epoch {epoch} has the value {error.args[0]:g}, beyond the largest {info.dtype} "
                f"({torch.finfo(dtype).max:g}); record under another run name with dtype='float32' (or 'float64')"
            ) from None

    def _check_epoch(self, epoch: int, step: int | None) -> None:
        if self._closed:
            raise CaptureError("the recorder is closed; make a new one, under another run name, to record more")
        if not _is_count(epoch) or not (step is None or _is_count(step)):
            name, number = ("step", step) if _is_count(epoch) else ("epoch", epoch)
            raise CaptureError(f"{name} is {number!r}; give an integer from 0")
        if epoch == self._last:
            raise CaptureError(f"epoch {epoch} is recorded already; give every epoch a number of its own")
        if epoch < self._last:
            raise CaptureError(f"epoch {epoch} comes after epoch {self._last}; record epochs in growing order")


def _is_count(number: object) -> bool:
    return isinstance(number, int | np.integer) and not isinstance(number, bool) and int(number) >= 0


def _check_arguments(model: object, batch_size: int, y: Any, measure: Measure | None) -> None:
    if not isinstance(model, nn.Module):
        raise UsageError(f"model is of type {type(model).__name__}; give a torch.nn.Module")
    if not _is_count(batch_size) or batch_size < 1:
        raise UsageError(f"batch_size is {batch_size!r}; give an integer from 1")
    if measure is not None and y is None:
        raise UsageError("measure compares the network's output with labels, and there are none; give y")


def _probe_set(x: Any, y: Any, sample: Any) -> ProbeSet:
    inputs = values.as_array(x)
    if inputs.ndim == 0:
        raise CaptureError("x is a single number; give an array with one row a sample")
    return ProbeSet.of(
        inputs, None if y is None else values.as_array(y), None if sample is None else values.as_array(sample)
    )
