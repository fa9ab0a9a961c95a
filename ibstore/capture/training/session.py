"""Runs that are trained together, from one capture point to the next."""

from bisect import bisect_right
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from math import fsum, isfinite

from torch import nn

from ibstore.capture.recorder import Recorder
from ibstore.capture.stopping import InformationStopping
from ibstore.capture.training.gradients import GradientsSeen
from ibstore.capture.training.job import Job
from ibstore.capture.training.networks import Networks
from ibstore.capture.training.trainer import Trainer, measured
from ibstore.events import Event
from ibstore.store.format.schema import Dynamics, Metrics

STOPPED = "stopped"
"""Metric of the training split at the point where a run was stopped: that it is complete."""


@dataclass
class Member:
    """One run: its place among the networks, its recorder, what stops it, and its metrics so far."""

    index: int
    name: str
    recorder: Recorder
    stopping: InformationStopping | None
    history: list[Metrics] = field(default_factory=list)

    @property
    def has_just_diverged(self) -> bool:
        """Whether the last loss is no finite number, and the one before it was."""
        losses = [metrics["train"].get("loss", 0.0) for metrics in self.history[-2:]]
        return bool(losses) and not isfinite(losses[-1]) and all(map(isfinite, losses[:-1]))


class Session:
    """Trains networks from where their recorders are, and records each at its capture points.

    Parameters
    ----------
    job
        What the runs share.
    networks, trainer, seen
        What is trained, by whom, and who has seen the gradients.
    members
        The runs, all at the same capture point.
    """

    def __init__(
        self, job: Job, networks: Networks, trainer: Trainer, seen: GradientsSeen, members: Sequence[Member]
    ) -> None:
        self._job, self._networks, self._trainer, self._seen = job, networks, trainer, seen
        self._running = list(members)
        self._points = job.points()
        self._steps = list(self._points)
        self._unrecorded = job.unrecorded()

    def run(self) -> None:
        """Train and record until the last capture point, or until every run is stopped."""
        recorded = self._running[0].recorder.epoch
        for step in self._moments(-1 if recorded is None else self._trainer.step):
            self._train_until(step)
            stopped = [member for member in self._running if self._stops(member, step)]
            for member in stopped:
                self._job.emit(Event("notice", detail=f"run {member.name!r} is stopped: {member.stopping}"))
            due = self._running if step in self._points else stopped
            if due:
                dynamics = self._seen.now()
                for member in due:
                    self._record(member, step, dynamics[member.index], stopped=member in stopped)
                self._tell(step, due)
            if step in self._points:
                self._seen.restart()
            self._running = [member for member in self._running if member not in stopped]
            if not self._running:
                return

    def _moments(self, after: int) -> Iterator[int]:
        """Steps behind ``after`` at which there is something to do, in order."""
        steps = set(self._points)
        for member in self._running:
            if member.stopping is not None:
                steps |= set(range(0, max(self._points) + 1, member.stopping.every * self._job.per_epoch))
        return (step for step in sorted(steps) if step > after)

    def _train_until(self, step: int) -> None:
        each = self._job.per_epoch
        while self._trainer.step < step:
            self._trainer.train_step()
            done = (self._trainer.step - 1) % each + 1
            if done == each:
                self._seen.end_epoch()
            if each > 1:
                epoch = -(-self._trainer.step // each)
                self._job.emit(Event("batches", done, each, f"epoch {epoch}", inner=True))

    def _stops(self, member: Member, step: int) -> bool:
        """Whether what stops a run looks at it now, and says so."""
        if member.stopping is None or step % self._job.per_epoch:
            return False
        probe = self._job.probes[self._job.settings.recording.splits[0]]
        network = self._networks.plain(member.index)
        with self._trainer.settled(network):
            return member.stopping(step // self._job.per_epoch, network, probe.x, probe.y)

    def _record(self, member: Member, step: int, dynamics: Dynamics, *, stopped: bool) -> None:
        network = self._networks.plain(member.index)
        with self._trainer.settled(network):
            metrics = {split: self._measured(network, split) for split in self._unrecorded}
            if stopped:
                metrics["train"] = {**metrics.get("train", {}), STOPPED: 1.0}
            member.history.append(member.recorder.record(self._job.point(step), step, dynamics=dynamics, **metrics))
        if member.has_just_diverged:
            loss, rate = member.history[-1]["train"]["loss"], self._job.settings.lr
            detail = f"run {member.name!r} has diverged: its loss is {loss}; a --lr below {rate} may keep it"
            self._job.emit(Event("notice", detail=detail))

    def _measured(self, network: nn.Module, split: str) -> dict[str, float]:
        job = self._job
        batch = job.settings.recording.probe_batch
        return measured(network, job.objective, split, self._unrecorded[split], batch, job.device)

    def _tell(self, step: int, due: Sequence[Member]) -> None:
        """Say how far it is, with the mean loss and accuracy of those that were recorded."""
        last = [member.history[-1]["train"] for member in due]
        shown = [name for name in ("loss", "accuracy") if name in last[0]]
        runs = f", {len(due)} runs" if len(due) > 1 else ""
        unit = self._job.settings.recording.schedule.unit.removesuffix("s")
        done = bisect_right(self._steps, step)
        told = " ".join(f"{name} {fsum(each[name] for each in last) / len(last):.3f}" for name in shown)
        detail = f"{unit} {self._job.point(step)}{runs}: {told}"
        self._job.emit(Event("train", done, len(self._points), detail))
