"""A recorder's passes over its probe sets: what is recorded is found out in the first, and said at every epoch."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass

import torch
from torch import nn

from ibstore.capture.arguments import Probe
from ibstore.capture.dropout import check_seeds, normal_codes
from ibstore.capture.forward import ProbePass, Spoken, device_of, evaluating
from ibstore.capture.layers import Batch, Layers
from ibstore.capture.metrics import Means, Measure
from ibstore.capture.provenance import Provenance, versions
from ibstore.capture.ranks import Ranks
from ibstore.capture.running import Named
from ibstore.capture.unwrap import check_watchable, unwrapped
from ibstore.errors import IbstoreError
from ibstore.events import Emit, Event
from ibstore.store import Encoding, Manifest, ProbeSet, SplitInfo
from ibstore.store.format.names import escape

Take = Callable[[str, Batch], None]
"""Takes the next batch of a split."""


@dataclass(frozen=True, slots=True)
class Way:
    """How a network is run over a probe set.

    Parameters
    ----------
    batch_size
        Samples in a batch.
    device
        Where the network is; None: where its first parameter is.
    autocast
        Type of automatic mixed precision; None: there is none.
    floating
        What floats are rounded to; None: not at all.
    measure
        Gives means by name from the output and the labels of a batch.
    """

    batch_size: int
    device: torch.device | None
    autocast: torch.dtype | None
    floating: torch.dtype | None
    measure: Measure | None


class Probing:
    """Runs a network over its probe sets.

    Parameters
    ----------
    model
        The network, wrapped or not.
    probes
        What it is given, by split.
    way
        How it is run.
    ranks
        Which of the batches this process runs.
    emit
        Told of progress: stage ``record``, in samples of all splits.

    Raises
    ------
    CaptureError
        When the network or the data cannot be recorded as asked.
    UsageError
        When something of it cannot be meant.
    """

    def __init__(
        self,
        model: nn.Module,
        probes: Mapping[str, Probe],
        way: Way,
        ranks: Ranks,
        emit: Emit,
    ) -> None:
        self._model = unwrapped(model)
        check_watchable(self._model)
        check_seeds(self._model)
        self.device = device_of(self._model) if way.device is None else way.device
        self._way, self._ranks, self._emit = way, ranks, emit
        self.sets: dict[str, ProbeSet] = {}
        self.passed_over: list[str] = []
        """What fires and is not recorded, in sentences without an end, where nobody has named layers."""
        self._passes: dict[str, ProbePass] = {}
        for split, probe in probes.items():
            with _named(split, len(probes)):
                self._add(split, probe)

    def _add(self, split: str, probe: Probe) -> None:
        inputs = probe.inputs()
        known = probe.stored(inputs)
        labels = None if known.y is None else torch.from_numpy(known.y)
        self.sets[split] = known
        named = Named(split, known.sample)
        self._passes[split] = ProbePass(
            self._model, inputs, self._way.batch_size, self.device, labels, self._way.measure, named
        )

    def begin(self, layers: Sequence[str] | None) -> dict[str, Batch]:
        """Find out what is recorded, given texts of layers or None for all; return the first batch of each split.

        Raises
        ------
        CaptureError
            When the network cannot take the data, or a layer cannot be recorded.
        UsageError
            When a layer cannot be meant.
        """
        (first, probe), *others = self._passes.items()
        with evaluating(self._model, self._way.autocast):
            with _named(first, len(self._passes)):
                found = probe.discover(layers, self.passed_over.append)
            self.layers = Layers(found, self._way.floating)
            said = {first: {spec.name: tensor.detach().cpu() for spec, tensor in found}}
            for split, each in others:
                with _named(split, len(self._passes)):
                    said[split] = each.first(self.layers.specs)
                self.layers.check(said[split], each.batches()[0].stop, split, first)
        return {
            split: self.layers.encode(said[split], each.batches()[0].stop, 0) for split, each in self._passes.items()
        }

    @property
    def epoch_bytes(self) -> int:
        """Bytes of an epoch's activations, of all splits together."""
        return self.layers.sample_bytes * self._samples

    @property
    def batch_bytes(self) -> int:
        """Bytes of the largest batch's activations."""
        return self.layers.sample_bytes * max(
            min(probe.batch_size, len(probe.inputs)) for probe in self._passes.values()
        )

    @property
    def _samples(self) -> int:
        return sum(len(probe.inputs) for probe in self._passes.values())

    def manifest(self, run: str, provenance: Provenance, encoding: Encoding) -> Manifest:
        """What a run of these passes hangs on."""
        escape(run)  # refuses a name that cannot be one, before anything is written
        kind = "" if self._way.autocast is None else f", autocast {str(self._way.autocast).removeprefix('torch.')}"
        return Manifest(
            run=run,
            layers=self.layers.infos,
            splits=tuple(SplitInfo(name, escape(name), each.digest(), len(each.x)) for name, each in self.sets.items()),
            module=repr(self._model),
            recipe=provenance.recipe,
            seed=provenance.seed,
            loss=provenance.loss,
            optimizer=provenance.optimizer,
            mode=f"eval{kind}",
            device=self.device.type,
            threads=torch.get_num_threads(),
            probe_batch=self._way.batch_size,
            rounding=self.layers.rounding,
            codec=encoding.codec,
            chunk_bytes=encoding.chunk_bytes,
            settings={**provenance.settings, **self._normal_codes(), **self._other_inputs()},
            versions=versions(),
        )

    def _normal_codes(self) -> dict[str, list[str]]:
        """Stochastic layers whose z is normal: nothing else in a store tells it."""
        found = normal_codes(self._model)
        return {"normal_codes": found} if found else {}

    def _other_inputs(self) -> dict[str, dict[str, dict[str, str]]]:
        """Digests of what no probe set covers, by split: a run cannot go on with others."""
        others = {split: probe.inputs.other_digests() for split, probe in self._passes.items()}
        return {"other_inputs": others} if any(others.values()) else {}

    def run(self, epoch: int, take: Take) -> dict[str, dict[str, float]]:
        """Give every batch's activations to ``take``, split by split, in order; return what was measured, by split.

        Raises
        ------
        CaptureError
            When a layer is not what it was.
        """
        means = {split: Means() for split in self._passes}
        done = 0
        with evaluating(self._model, self._way.autocast), self._ranks.same_network(self._model):
            for split, probe in self._passes.items():
                for samples, batch, measured in self._batches(probe, epoch):
                    take(split, batch)
                    means[split].add(measured, samples)
                    done += samples
                    self._emit(Event("record", done, self._samples, f"epoch {epoch}", inner=True))
        return {split: own.result() for split, own in means.items()}

    def _batches(self, probe: ProbePass, epoch: int) -> Iterator[tuple[int, Batch, dict[str, float]]]:
        """Samples, activations and what was measured of every batch, in order, whichever process has run it."""

        def read(spoken: Spoken) -> tuple[int, Batch, dict[str, float]]:
            measured = {name: float(mean) for name, mean in spoken.measured.items()}
            return spoken.samples, self.layers.encode(spoken.layers, spoken.samples, epoch), measured

        every = probe.batches()
        own = map(read, probe.spoken(self.layers.specs, self._ranks.mine(every)))
        with closing(self._ranks.merged(own, len(every))) as merged:
            yield from merged


@contextmanager
def _named(split: str, splits: int) -> Iterator[None]:
    """Let errors say which of several splits they are about."""
    try:
        yield
    except IbstoreError as error:
        if splits == 1:
            raise
        raise type(error)(f"split {split!r}: {error}") from error.__cause__
