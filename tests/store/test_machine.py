"""Writers that write, commit, die, resume and replace, in any order, against a model in a dict."""

import tempfile
from contextlib import suppress
from dataclasses import asdict, dataclass, field, replace
from itertools import count
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from ibstore.errors import ResumeError, RunBusyError, RunExistsError, UnknownNameError
from ibstore.store import RunWriter, Store, create_store, write_probe_set
from ibstore.store.format.names import escape
from ibstore.store.places import Storage, open_storage
from ibstore.store.places.lease import LEASE, Holder, Lease
from ibstore.store.states import States
from ibstore.store.upkeep.verify import verify

from .stores import METRICS, PROBE, SAMPLES, manifest

RUNS = ["a", "b/ü"]
SHAPES = {"conv": (3, 2), "out:1": ()}
LIVES = st.none() | st.sampled_from(range(24))
"""After how many writes a process dies; None: it lives."""

_places = count()


class Killed(BaseException):
    """The process is no more: nothing that comes after can be done."""


@dataclass
class Life:
    """What is left of a process, in writes."""

    left: int | None = None
    dead: bool = False

    def spend(self, writes: int) -> None:
        if self.left is not None and writes:
            self.dead = self.dead or self.left == 0
            self.left -= 1
        if self.dead:
            raise Killed


def _through(name: str, writes: int) -> Any:
    def method(self: Any, *arguments: Any, **options: Any) -> Any:
        self.life.spend(writes)
        return getattr(self.inner, name)(*arguments, **options)

    return method


class _Mortal:
    """A storage as a process sees it that dies: some writes get through, then nothing does."""

    def __init__(self, inner: Storage, life: Life) -> None:
        Storage.__init__(self, inner.location)  # type: ignore[arg-type]
        self.inner, self.life = inner, life

    def beside(self, suffix: str) -> Any:
        return Mortal(self.inner.beside(suffix), self.life)

    def remove_below(self, key: str) -> None:
        for path in self.inner.files(key):
            self.life.spend(1)
            self.inner.remove(f"{key}/{path}")
        self.life.spend(1)
        self.inner.remove_below(key)


_WRITES = {"make", "put", "put_new", "swap", "remove", "remove_empty", "sync"}
Mortal: Any = type(
    "Mortal",
    (_Mortal, Storage),
    {name: _through(name, name in _WRITES) for name in Storage.__abstractmethods__ - {"beside", "remove_below"}},
)


@dataclass
class Known:
    """What must be there of a run: its seed, its epochs in segments; ``torn`` when its removal was cut short."""

    seed: int = 0
    segments: list[tuple[int, ...]] = field(default_factory=list)
    exists: bool = False
    torn: bool = False

    @property
    def epochs(self) -> list[int]:
        return [epoch for segment in self.segments for epoch in segment]


def values(run: str, seed: int, layer: str, epoch: int) -> Any:
    """What a layer says, distinct for each of them."""
    key = [len(run), seed, len(layer), epoch]
    return np.random.default_rng(key).normal(size=(SAMPLES, *SHAPES[layer])).astype(np.float32)


def key_of(run: str) -> str:
    """Where a run is."""
    return f"runs/{escape(run)}"


class Machine(RuleBasedStateMachine):
    """Any number of processes, at most one a run."""

    def __init__(self, scheme: str) -> None:
        super().__init__()
        self.folder = tempfile.TemporaryDirectory()
        place = Path(self.folder.name, "lab.zarr") if scheme == "disk" else f"memory://machine-{next(_places)}"
        self.storage = open_storage(place)
        self.runs = {run: Known() for run in RUNS}
        self.writers: dict[str, tuple[RunWriter, Life]] = {}
        self.unverified = False

    @initialize()
    def make(self) -> None:
        create_store(self.storage)
        self.digest = write_probe_set(self.storage, PROBE)

    # ---- what processes do

    def described(self, run: str, seed: int) -> Any:
        arrays = {name: np.zeros((1, SAMPLES, *shape), np.float32) for name, shape in SHAPES.items()}
        return replace(manifest(arrays, self.digest, run), seed=seed)

    @rule(
        run=st.sampled_from(RUNS), seed=st.integers(0, 1), mode=st.sampled_from(["", "replace", "resume"]), left=LIVES
    )
    def open(self, run: str, seed: int, mode: str, left: int | None) -> None:
        known, life = self.runs[run], Life(left)
        expected: Any = ()
        if run in self.writers:
            expected = RunBusyError
        elif mode != "replace" and known.torn:
            expected = ResumeError if mode == "resume" else RunExistsError
        elif mode == "resume" and known.exists and known.seed != seed:
            expected = ResumeError
        elif not mode and known.epochs:
            expected = RunExistsError
        try:
            writer = RunWriter(
                Mortal(self.storage, life),
                self.described(run, seed),
                {"train": PROBE.sample},
                replace=mode == "replace",
                resume=mode == "resume",
            )
        except expected:
            return
        except Killed:
            self.died(run)
            self.learn_what_is_left(run, seed, mode)
            return
        assert not expected
        life.left = None
        self.writers[run] = writer, life
        if mode != "resume" or not known.exists:
            self.runs[run] = Known(seed, [], exists=True)

    def learn_what_is_left(self, run: str, seed: int, mode: str) -> None:
        """After a death in the opening: what was there, or less if that was to go, or the new one, empty."""
        known = self.runs[run]
        try:
            found = self.found(run)
        except UnknownNameError:
            assert not known.exists or mode == "replace" or not known.epochs
            torn = bool(self.torn(run))
            assert not torn or mode == "replace" or known.torn
            self.runs[run] = Known(torn=torn)
            return
        if found.epochs != known.epochs or found.manifest.seed != known.seed:
            assert found.epochs == []
            assert found.manifest.seed == seed
            assert mode == "replace" or not known.epochs
            self.runs[run] = Known(seed, [], exists=True)
        else:
            known.exists = True

    @precondition(lambda self: self.writers)
    @rule(data=st.data(), size=st.integers(1, 3), step=st.integers(1, 2), left=LIVES, whole=st.booleans())
    def write(self, data: Any, size: int, step: int, left: int | None, whole: bool) -> None:
        """A segment of one epoch or of several, with the state that a training keeps; or not to its end."""
        run = data.draw(st.sampled_from(sorted(self.writers)))
        known, (writer, life) = self.runs[run], self.writers[run]
        first = known.epochs[-1] + step if known.segments else 0
        epochs = tuple(range(first, first + size))
        life.left = left
        try:
            segment = writer.segment(*epochs)
            for epoch in epochs:
                for layer in SHAPES:
                    segment.append("train", layer, values(run, known.seed, layer, epoch)[: None if whole else 1])
            if whole:
                writer.states.put(epochs[-1], b"%d" % epochs[-1])
                segment.commit([None] * size, [METRICS] * size)
                writer.states.drop(keep=epochs[-1])
            else:
                segment.discard()
        except Killed:
            self.died(run)
            if self.found(run).epochs == [*known.epochs, *epochs]:
                assert whole
                known.segments.append(epochs)
            return
        life.left = None
        if whole:
            known.segments.append(epochs)

    @precondition(lambda self: self.writers)
    @rule(data=st.data(), left=LIVES)
    def close(self, data: Any, left: int | None) -> None:
        run = data.draw(st.sampled_from(sorted(self.writers)))
        writer, life = self.writers.pop(run)
        life.left = left
        try:
            writer.close()
        except Killed:
            self.died(run)

    @precondition(lambda self: self.writers)
    @rule(data=st.data())
    def kill(self, data: Any) -> None:
        """Between two writes."""
        run = data.draw(st.sampled_from(sorted(self.writers)))
        self.writers[run][1].dead = True
        self.died(run)

    def died(self, run: str) -> None:
        """Let its lease be that of a dead process."""
        self.unverified = True
        if run in self.writers:
            writer, _ = self.writers.pop(run)
            with suppress(Killed):
                writer.close()
        key = f"{key_of(run)}/{LEASE}"
        with suppress(FileNotFoundError):
            content = self.storage.read(key)
            holder = Holder.load(content)
            assert holder is not None
            self.storage.put(key, Holder(**asdict(holder) | {"started": -1}).dump())

    # ---- what readers see

    def found(self, run: str) -> Any:
        return Store(self.storage).run(run)

    def torn(self, run: str) -> list[str]:
        """Segments with a record in a run without one."""
        segments = f"{key_of(run)}/segments"
        return [name for name in self.storage.folders(segments) if self.storage.has(f"{segments}/{name}/zarr.json")]

    @invariant()
    def exactly_what_was_committed_is_there(self) -> None:
        store = Store(self.storage)
        assert store.run_names() == sorted(run for run, known in self.runs.items() if known.exists)
        for run, known in self.runs.items():
            if not known.exists:
                continue
            found = store.run(run)
            assert found.manifest.seed == known.seed
            assert [segment.record.epochs for segment in found.segments] == known.segments
            for segment in found.segments:
                for epoch in segment.record.epochs:
                    for layer in found.manifest.layers:
                        blocks = list(segment.blocks(found.manifest.split("train"), layer, epoch))
                        np.testing.assert_array_equal(
                            np.concatenate(blocks), values(run, known.seed, layer.name, epoch)
                        )

    @invariant()
    def the_last_epoch_has_its_state(self) -> None:
        for run, known in self.runs.items():
            if known.epochs:
                assert States(self.storage, run).get(known.epochs[-1]) == b"%d" % known.epochs[-1]

    @precondition(lambda self: self.unverified)
    @invariant()
    def nothing_is_damaged(self) -> None:
        self.unverified = False
        torn = {run for run, known in self.runs.items() if known.torn}
        assert [found for found in verify(self.storage, deep=True).damage if found.run not in torn] == []

    def teardown(self) -> None:
        """Everything is opened once more, and then nothing is left over."""
        for run in list(self.writers):
            self.writers[run][0].close()
            del self.writers[run]
        for run, known in self.runs.items():
            how = {"resume": True} if known.exists else {"replace": True}
            RunWriter(self.storage, self.described(run, known.seed), {"train": PROBE.sample}, **how).close()
        assert verify(self.storage, deep=True).findings == ()
        self.folder.cleanup()


THE_FIRST = SimpleNamespace(draw=lambda _: RUNS[0])


def write_more(machine: Machine, left: int) -> None:
    machine.write(THE_FIRST, 2, 1, left, True)


def give_up(machine: Machine, left: int) -> None:
    machine.write(THE_FIRST, 1, 1, left, False)


def replace_it(machine: Machine, left: int) -> None:
    machine.close(THE_FIRST, None)
    machine.open(RUNS[0], 1, "replace", left)


def resume_it(machine: Machine, left: int) -> None:
    machine.write(THE_FIRST, 1, 1, 8, True)  # dies
    assert not machine.writers
    machine.open(RUNS[0], 0, "resume", left)


@pytest.mark.parametrize("action", [write_more, give_up, replace_it, resume_it])
def test_a_death_at_every_single_write_of_an_action_is_survived(monkeypatch, action):
    monkeypatch.setattr(Lease, "_keep", lambda _: None)
    for left in count():
        machine = Machine("memory")
        machine.make()
        machine.open(RUNS[0], 0, "", None)
        machine.write(THE_FIRST, 1, 1, None, True)
        machine.write(THE_FIRST, 2, 1, None, True)
        action(machine, left)
        machine.exactly_what_was_committed_is_there()
        machine.the_last_epoch_has_its_state()
        machine.nothing_is_damaged()
        survived = bool(machine.writers)
        machine.teardown()
        if survived:
            break
    assert left > 3


def test_epochs_of_an_attempt_that_was_given_up_are_free_again():
    machine = Machine("memory")
    machine.make()
    machine.open(RUNS[0], 0, "", None)
    machine.write(THE_FIRST, 2, 1, None, False)  # epochs 0 and 1, discarded
    machine.write(THE_FIRST, 1, 1, None, True)  # 0
    machine.write(THE_FIRST, 1, 1, None, True)  # 1
    machine.exactly_what_was_committed_is_there()
    machine.teardown()


@pytest.mark.parametrize(("scheme", "examples"), [("disk", 12), ("memory", 20)])
def test_whatever_happens_exactly_what_was_committed_is_there(monkeypatch, scheme, examples):
    monkeypatch.setattr(Lease, "_keep", lambda _: None)  # a dead process renews nothing
    checks = settings(
        max_examples=examples,
        stateful_step_count=15,
        deadline=None,
        suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much],
    )
    run_state_machine_as_test(lambda: Machine(scheme), settings=checks)
