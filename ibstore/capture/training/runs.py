"""Where runs are recorded, what of them is there already, and how they are carried out from there."""

from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import nn

from ibstore.capture.recorder import Recorder
from ibstore.capture.stopping import InformationStopping
from ibstore.capture.training.gradients import GradientsSeen
from ibstore.capture.training.job import Job
from ibstore.capture.training.networks import Networks
from ibstore.capture.training.session import STOPPED, Member, Session
from ibstore.capture.training.trainer import Trainer
from ibstore.events import Event
from ibstore.store.format.names import escape
from ibstore.store.format.schema import Metrics
from ibstore.store.places import open_storage
from ibstore.store.reader import segments_of

MakeStopping = Callable[[str], InformationStopping]
"""Makes what stops a run, from the name of the last layer that it records: each run has its own."""


@dataclass(frozen=True, slots=True)
class Trained:
    """A training that has ended: the run's name, the metrics of each capture point from 0 on, and the network.

    The network is None where the run to be resumed was complete already.
    """

    run: str
    history: tuple[Metrics, ...]
    model: nn.Module | None


@dataclass(frozen=True, slots=True)
class Begun:
    """How far a run is: its last committed capture point, None before any, and whether it was stopped there."""

    epoch: int | None
    stopped: bool


@dataclass(frozen=True, slots=True)
class Runs:
    """Where runs are recorded, and what becomes of those that are there.

    Parameters
    ----------
    store
        Path of the store.
    force, resume
        Remove what is there, or go on with it.
    stopping
        Makes what may stop a run; None: nothing does.
    """

    store: str | Path
    force: bool
    resume: bool
    stopping: MakeStopping | None

    def begun(self, name: str) -> Begun:
        """How far the run of that name is, if it is to be resumed."""
        found = segments_of(open_storage(self.store), f"runs/{escape(name)}") if self.resume else []
        if not found:
            return Begun(None, stopped=False)
        record = found[-1].record
        return Begun(record.epochs[-1], STOPPED in record.metrics[-1].get("train", {}))

    def groups(self, names: Mapping[int, str]) -> list[dict[int, str]]:
        """Runs, by seed, that go on from the same capture point: replicas need not wait for each other."""
        found: dict[Begun, dict[int, str]] = {}
        for seed, name in names.items():
            found.setdefault(self.begun(name), {})[seed] = name
        return list(found.values())

    def carry_out(self, job: Job, networks: Networks, names: Mapping[int, str]) -> list[Trained]:
        """Train networks, one a name, all from the same capture point on, and record each as a run."""
        begun, last = self.begun(next(iter(names.values()))), max(job.points().values())
        complete = begun.stopped or begun.epoch == last
        job.check_last_batch(networks.plain(0))
        seen = GradientsSeen(job, networks)
        paid = job.paid_by(networks.module)
        trainer = Trainer(networks, job.objective, job.data.train, job.device, seen.add, paid)
        shared = {"training": trainer, **seen.kept}
        with ExitStack() as opened:
            members = [
                self._member(opened, job, networks, index, seed, name, shared, 0 if complete else len(job.points()))
                for index, (seed, name) in enumerate(names.items())
            ]
            if complete:
                _tell_complete(job, members)
            else:
                _tell_too_few_looks(job, members[0].stopping)
                _tell_idle_weights(job, networks.plain(0))
                Session(job, networks, trainer, seen, members).run()
            for member in members:
                member.recorder.complete()
            return [
                Trained(each.name, tuple(each.history), None if complete else networks.own(each.index))
                for each in members
            ]

    def _member(
        self,
        opened: ExitStack,
        job: Job,
        networks: Networks,
        index: int,
        seed: int,
        name: str,
        shared: Mapping[str, Any],
        points: int,
    ) -> Member:
        """A run with its recorder open."""
        model, recording = networks.plain(index), job.settings.recording
        layers = job.layers(model)
        stopping = None if self.stopping is None else self.stopping(layers[-1])
        own = networks.kept(index) if stopping is None else networks.kept(index) | {"stopping": stopping}
        recorder = Recorder(
            self.store,
            model,
            layers=layers,
            probes=job.probes,
            run=name,
            batch_size=recording.probe_batch,
            dtype=recording.dtype,
            encoding=recording.encoding,
            device=job.device,
            measure=job.objective.measure,
            force=self.force,
            resume=self.resume,
            keep={**own, **shared},
            epochs=points,
            provenance=job.provenance(seed, stopping),
            emit=job.emit,
        )
        return Member(index, name, opened.enter_context(recorder), stopping, recorder.history)


def _tell_too_few_looks(job: Job, stopping: InformationStopping | None) -> None:
    """Say so where the rule, which is the same for all runs, comes to nothing."""
    epochs = job.settings.epochs
    if stopping is not None and not stopping.can_stop(epochs):
        rule = ", ".join(f"{name}={stopping.told[name]}" for name in ("every", "patience"))
        detail = f"--stop-information cannot stop a training of {epochs} epochs before its end: it looks by {rule}"
        job.emit(Event("notice", detail=detail))


def _tell_idle_weights(job: Job, network: nn.Module) -> None:
    """Say so where the loss weighs what no layer tells."""
    lagrangian = job.lagrangian
    if lagrangian is not None and lagrangian.weighs and job.paid_by(network) is None:
        job.emit(Event("notice", detail=f"{lagrangian} weighs nothing: no layer of this network tells a divergence"))


def _tell_complete(job: Job, members: list[Member]) -> None:
    for member in members:
        job.emit(Event("notice", detail=f"run {member.name!r} is complete already; there is nothing to do"))
