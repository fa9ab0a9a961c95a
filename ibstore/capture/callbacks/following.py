"""What callbacks of all libraries share: following a training that somebody else runs, by a schedule."""

import re
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from inspect import signature
from numbers import Real
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self

import torch
from torch import nn

from ibstore.capture.metrics import KEYS
from ibstore.capture.provenance import Provenance
from ibstore.capture.recorder import Recorder
from ibstore.capture.schedule import Schedule
from ibstore.errors import UsageError
from ibstore.events import Event, ignore

_OWN: Final = frozenset({"store", "model", "resume", "epochs", "keep", "autocast"})
"""What a callback knows itself of what `Recorder` takes."""

_SPLIT: Final = re.compile(r"(train|val|valid|validation|eval|test)[_/](.+)")


@dataclass(frozen=True, slots=True)
class Running:
    """How a trainer runs the network.

    Parameters
    ----------
    trainer
        Its name, for the manifest.
    autocast
        What it casts to on the way; None: nothing.
    context
        Makes what every forward pass happens in beside that.
    inputs
        Makes of inputs what the network is given; None: they are given as they are.
    """

    trainer: str
    autocast: torch.dtype | None = None
    context: Callable[[], AbstractContextManager[Any]] = nullcontext
    inputs: Callable[[Any], Any] | None = None


class Follower:
    """Records a network that somebody else trains, whenever a schedule says so.

    Parameters
    ----------
    store
        Path of the store.
    schedule
        When to record: a `Schedule`, or its text.
    resume
        Whether to go on with the run of that name; None: when the training itself goes on from some step.
    options
        What else `Recorder` takes.

    Raises
    ------
    UsageError
        When the schedule cannot be meant, or `Recorder` takes no such option.
    """

    def __init__(
        self, store: str | Path, schedule: Schedule | str, resume: bool | None, options: Mapping[str, Any]
    ) -> None:
        known = [name for name in signature(Recorder).parameters if name not in _OWN]
        unknown = [name for name in options if name not in known]
        if unknown:
            raise UsageError(f"a callback takes no {unknown[0]!r} for its recorder; it takes {', '.join(known)}")
        self._schedule = Schedule.parse(schedule) if isinstance(schedule, str) else schedule
        self._store, self._resume, self._options = store, resume, dict(options)
        self._recorder: Recorder | None = None
        self._running = Running("")
        self._total: int | None = None
        self._seen: int | None = None

    @property
    def by_steps(self) -> bool:
        """Whether capture points are steps of the optimizer rather than epochs."""
        return self._schedule.unit == "steps"

    def begin(self, model: nn.Module, running: Running, point: int | None, step: int, total: int | None) -> None:
        """Open the recorder, and record the network as it is where that is due.

        Parameters
        ----------
        model
            The network, on its device.
        running
            How it is run.
        point
            Where the training begins or goes on, in the schedule's unit; None within an epoch.
        step
            The optimizer's step there.
        total
            Where the training ends, in the schedule's unit; None where nobody knows.

        Raises
        ------
        UsageError
            When the schedule does not fit the training; beside what `Recorder` raises.
        """
        self.close()
        points = None if total is None else len(self._schedule.points(total))
        due = self._schedule.due(0 if point is None else point, total)  # refuses before anything is written
        self._running, self._total, self._seen = running, total, point
        told = Provenance(settings={"trainer": running.trainer, "schedule": str(self._schedule)})
        options = {"epochs": points, "provenance": told, **self._options, **self._converted(running)}
        resume = step > 0 if self._resume is None else self._resume
        with running.context():
            self._recorder = Recorder(self._store, model, resume=resume, autocast=running.autocast, **options)
        self._tell_overlap(self._recorder, point)
        if due and point is not None:
            self._record(point, step, {})

    def reach(self, point: int, step: int, scalars: Callable[[], Mapping[str, Any]] = dict) -> None:
        """Record the network where a capture point has come since the last call; ``scalars`` are metrics by name."""
        if self._recorder is None:
            return
        first = point if self._seen is None else self._seen + 1
        self._seen = point
        # a trainer with several optimizers counts several steps at once
        if any(self._schedule.due(passed, self._total) for passed in range(first, point + 1)):
            self._record(point, step, scalars())

    def finish(self, point: int, step: int, scalars: Callable[[], Mapping[str, Any]] = dict) -> None:
        """Record the trained network where that was not due, as when a training ends early."""
        if self._recorder is not None:
            self._record(point, step, scalars())

    def close(self) -> None:
        """Wait until every recorded epoch is committed; it can be called twice."""
        recorder, self._recorder = self._recorder, None
        if recorder is not None:
            recorder.close()

    def fail(self, error: BaseException) -> None:
        """Close after an error, which stays what is raised."""
        recorder, self._recorder = self._recorder, None
        if recorder is not None:
            recorder.__exit__(type(error), error, error.__traceback__)

    def _record(self, point: int, step: int, scalars: Mapping[str, Any]) -> None:
        recorder = self._recorder
        if recorder is None or (recorder.epoch is not None and point <= recorder.epoch):
            return
        with self._running.context():
            recorder.record(point, step, None, **self._metrics(scalars))

    def _converted(self, running: Running) -> dict[str, Any]:
        """Inputs as the network is given them."""
        if running.inputs is None:
            return {}
        given = {"x": running.inputs(self._options["x"])} if "x" in self._options else {}
        probes = self._options.get("probes") or {}
        converted = {split: replace(probe, x=running.inputs(probe.x)) for split, probe in probes.items()}
        return given | ({"probes": converted} if converted else {})

    def _metrics(self, scalars: Mapping[str, Any]) -> dict[str, dict[str, float]]:
        """Metrics by split; what is measured at the recorded weights is not replaced by a training's running means."""
        recorded = self._options.get("probes") or [self._options.get("split", "train")]
        measured = () if self._options.get("measure") is None else recorded
        return {split: own for split, own in metrics_by_split(scalars).items() if split not in measured}

    def _tell_overlap(self, recorder: Recorder, point: int | None) -> None:
        if recorder.epoch is not None and point is not None and point < recorder.epoch:
            emit = self._options.get("emit", ignore)
            detail = (
                f"the run is recorded up to {recorder.epoch}, and the training goes on from {point}: what it does "
                "again is not recorded again"
            )
            emit(Event("notice", detail=detail))


class FollowerContext:
    """A callback that closes what it records at the end of a ``with`` block, also when the training fails in it."""

    _follower: Follower

    def close(self) -> None:
        """Wait until every recorded epoch is committed, and let the run go."""
        self._follower.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is None:
            self._follower.close()
        else:
            self._follower.fail(error)


def metrics_by_split(scalars: Mapping[str, Any]) -> dict[str, dict[str, float]]:
    """Scalars that a trainer logs, by the split that their names begin with; those without one are of ``train``.

    What is no number, and what the table `epochs` has a column of its own for, is left out; of names that are the
    same but for that, the first one counts.

    >>> metrics_by_split({"val_loss": 0.5, "loss": 0.25, "train/acc": 1.0, "epoch": 3})
    {'val': {'loss': 0.5}, 'train': {'loss': 0.25, 'acc': 1.0}}
    """
    found: dict[str, dict[str, float]] = {}
    for name, value in scalars.items():
        number = value.item() if isinstance(value, torch.Tensor) and value.numel() == 1 else value
        match = _SPLIT.fullmatch(name)
        split, metric = (match[1], match[2]) if match else ("train", name)
        own = found.setdefault(split, {})
        taken = {*KEYS, *(other.lower() for other in own)}
        if _is_number(number) and metric and metric.lower() not in taken:
            own[metric] = float(number)
    return {split: own for split, own in found.items() if own}


def _is_number(value: object) -> bool:
    return isinstance(value, Real) and not isinstance(value, bool)
