"""The recorder: writes what the layers of a network say about a probe set, epoch by epoch, into a store."""

import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType, TracebackType
from typing import Any, Final, Self

import torch
from torch import nn

from ibstore.capture import room, values
from ibstore.capture.arguments import SPLIT, Probe, check_arguments, check_epoch, check_place, splits_of
from ibstore.capture.layers import Batch
from ibstore.capture.metrics import Measure, as_dynamics, by_split
from ibstore.capture.outbox import Outbox
from ibstore.capture.probing import Probing, Way
from ibstore.capture.provenance import Provenance
from ibstore.capture.ranks import Mode, Ranks
from ibstore.capture.state import Keep, State, restore
from ibstore.devices import resolve_device
from ibstore.errors import CaptureError, ResumeError
from ibstore.events import Emit, Event, ignore
from ibstore.store import Encoding, LayerInfo, Manifest, RunWriter
from ibstore.store.estimate import Estimate
from ibstore.store.format.schema import Dynamics, Metrics, SegmentRecord
from ibstore.store.places import Storage, open_storage
from ibstore.store.states import States

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
        Any network that takes ``x``. What `torch.compile`, `DataParallel` and `DistributedDataParallel` wrap is
        recorded as it is inside, run eagerly.
    layers
        What to record: ``path[:call][[part]…]`` of named modules and taps (`ibstore.tap`), such as ``conv1``,
        ``encoder.0``, ``relu:1`` (second call) or ``lstm[0]`` (part of a tuple). None: every tap, and every leaf module
        that has parameters or is an activation function, except those whose tensor has no row a sample: a notice tells
        which, or a warning where nobody listens.
    x, y, sample, split
        What the network takes, labels, sample ids and the name of a single split: see `Probe`.
    probes
        Several splits by name, in the place of ``x``, ``y``, ``sample`` and ``split``: each is a `Probe`. All have the
        same layers.
    run
        Name of the run.
    batch_size
        Samples in a batch of the probe's forward pass; activations differ in the last bits between sizes.
    dtype
        What floating activations are rounded to: ``float16``, ``bfloat16``, ``float32`` or ``float64``; by default
        nothing is lost. Integers keep their type, truth values become bytes.
    encoding
        How the numbers become bytes.
    device
        Where the network is; by default where its first parameter is. Batches are moved there.
    autocast
        Record under automatic mixed precision of this type, `torch.bfloat16` or `torch.float16`. By default there is
        none, also where `record` is called inside the caller's own autocast.
    ranks
        Where several processes train one network (`torch.distributed`): ``first``, rank 0 records and the others do
        nothing; ``shards``, each runs its share of the probe set and rank 0 writes, the same as one process would whose
        torch has as many threads. Every process makes a recorder and tells it of every epoch.
    measure
        Takes the network's output and the labels of a batch and gives means by name, such as loss and
        accuracy. They become metrics of every split that has labels, at no second forward pass.
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
        Told of progress: stage ``record``, in samples of all splits.

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
        x: Any = None,
        y: Any = None,
        run: str = "run0",
        split: str = SPLIT,
        sample: Any = None,
        probes: Mapping[str, Probe] | None = None,
        batch_size: int = PROBE_BATCH,
        dtype: str | None = None,
        encoding: Encoding = _LOSSLESS,
        device: str | torch.device | None = None,
        autocast: torch.dtype | None = None,
        ranks: Mode = "first",
        measure: Measure | None = None,
        force: bool = False,
        resume: bool = False,
        keep: Keep = _NOTHING,
        epochs: int | None = None,
        provenance: Provenance = _UNKNOWN,
        emit: Emit = ignore,
    ) -> None:
        check_place(store, epochs, keep)
        splits = splits_of(x, y, sample, split, probes)
        check_arguments(model, batch_size, splits, measure, autocast)
        where = None if device is None else resolve_device(device)
        way = Way(batch_size, where, autocast, values.floating_dtype(dtype), measure)
        self._split, self._emit, self._keep, self._closed = next(iter(splits)), emit, dict(keep), False
        self._recorded: Sequence[SegmentRecord] = ()
        self._outbox: Outbox | None = None
        self._last, self._ranks = -1, Ranks(ranks)
        self._ranks.check_resume(resume, keep)
        with self._ranks.together():
            self._probing = Probing(model, splits, way, self._ranks, emit)
            State(self._keep, self._probing.device).dump()  # refuses what cannot be kept
            first = self._probing.begin(layers) if self._ranks.works else {}
        if self._ranks.writes:
            self._tell_passed_over()
        self._ranks.check_same("the probe set", [each.digest() for each in self._probing.sets.values()])
        with self._ranks.together():
            if self._ranks.writes:
                manifest = self._probing.manifest(run, provenance, encoding)
                self._begin(open_storage(store), manifest, first, epochs, force=force, resume=resume)
        if resume:
            self._last = self._ranks.agreed(self._last)

    def _begin(
        self,
        storage: Storage,
        manifest: Manifest,
        first: Mapping[str, Batch],
        epochs: int | None,
        *,
        force: bool,
        resume: bool,
    ) -> None:
        """Open the run for writing, where there is room for it, and go on from where it is."""
        planned = room.epochs_to_come(storage, manifest.run, epochs) if resume else epochs
        expected = self._expected(storage, first, manifest, planned)
        if not force:
            room.check(manifest.run, storage, expected, resume=resume)
        writer = self._open(storage, manifest, force, resume)
        try:
            self._recorded = writer.found
            self._last = self._recorded[-1].epochs[-1] if self._recorded else -1
            if self._last >= 0 and planned != 0:
                self._restore(writer.states)
            self._outbox = Outbox(writer, self._probing.epoch_bytes, self._probing.batch_bytes)
        except BaseException:
            writer.close()
            raise

    @property
    def layers(self) -> tuple[LayerInfo, ...]:
        """What is recorded, in execution order; nothing on a rank that does not record."""
        return self._probing.layers.infos if self._ranks.works else ()

    @property
    def epoch(self) -> int | None:
        """The last epoch that was recorded, by this recorder or by the one that it goes on for; None before any."""
        return None if self._last < 0 else self._last

    @property
    def history(self) -> list[Metrics]:
        """Metrics of the epochs that were committed before this recorder began, in order."""
        return [metrics for record in self._recorded for metrics in record.metrics]

    def record(self, epoch: int, step: int | None = None, dynamics: Dynamics | None = None, **metrics: Any) -> Metrics:
        """Record every layer's activations of the probe sets, as the network is now.

        It returns when the forward pass is done; the epoch is written and committed in the background.

        Parameters
        ----------
        epoch
            A growing integer from 0 (the untrained network).
        step
            The optimizer's step count.
        dynamics
            What training did since the epoch before, by variant, layer and quantity (`ibstore.capture.dynamics`).
        metrics
            A number is a metric of the recorded split, the first of several; a mapping holds those of the split of its
            name: ``loss=0.1, test={"loss": 0.2}``. A metric that is given replaces one that is measured.

        Returns
        -------
        Metrics
            The epoch's metrics by split, measured ones included.

        Raises
        ------
        CaptureError
            When the epoch does not grow, a metric or one of the dynamics is no number, or a layer is not what it was;
            the epoch is not recorded, those before it are.
        StoreError
            When an earlier epoch could not be written.
        """
        if self._closed:
            raise CaptureError("the recorder is closed; make a new one, under another run name, to record more")
        with self._ranks.together():
            check_epoch(epoch, step, self._last)
            given, changes = by_split(self._split, metrics), as_dynamics(dynamics or {})
            if self._outbox is not None:
                self._outbox.begin(int(epoch))
        measured = self._measured(int(epoch))
        merged = {name: measured.get(name, {}) | given.get(name, {}) for name in measured | given}
        scalars = {name: own for name, own in merged.items() if own}
        with self._ranks.together():
            if self._outbox is not None:
                state = State(self._keep, self._probing.device) if self._keep else None
                self._outbox.commit(None if step is None else int(step), scalars, changes, state)
        self._last = int(epoch)
        return scalars

    def _measured(self, epoch: int) -> dict[str, dict[str, float]]:
        """Run the probe sets, hand what they say to the outbox, and return what was measured, on every rank."""
        if not self._ranks.works:
            return {}
        found = self._probing.run(epoch, _passed_over if self._outbox is None else self._outbox.append)
        return self._ranks.shared(found)

    def complete(self) -> None:
        """Say that nobody will go on with the run: what was kept for that is removed once all is committed."""
        if self._outbox is not None:
            self._outbox.complete()

    def close(self) -> None:
        """Wait until every recorded epoch is committed, and let the run go; it can be called twice.

        Raises
        ------
        StoreError
            When an epoch could not be written.
        """
        self._closed = True
        try:
            if self._outbox is not None:
                self._outbox.close()
        finally:
            self._ranks.close()

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

    def _tell_passed_over(self) -> None:
        for fact in self._probing.passed_over:
            text = f"{fact}, and is not recorded; name the layers that you want, and nothing else is looked at"
            if self._emit is ignore:  # nobody would know why a layer is not there
                warnings.warn(text, stacklevel=3)
            else:
                self._emit(Event("notice", detail=text))

    def _expected(
        self, storage: Storage, first: Mapping[str, Batch], manifest: Manifest, epochs: int | None
    ) -> Estimate:
        """Tell what the run will take."""
        expected = room.estimate(storage, first, self._probing.sets, manifest.encoding, epochs)
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
        restore(content, self._keep, self._probing.device, states.where())

    def _open(self, storage: Storage, manifest: Manifest, force: bool, resume: bool) -> RunWriter:
        sets = self._probing.sets
        samples = {split: probe.sample for split, probe in sets.items()}
        return RunWriter(
            storage, manifest, samples, probes=sets.values(), replace=force, resume=resume, emit=self._emit
        )


def _passed_over(split: str, batch: Batch) -> None:
    """Rank 0 has the batches of all."""
