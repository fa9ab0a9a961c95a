"""Captures that are killed at random instants: `python -m tests.kills [--kills 200] [--seed 0]` (or `make kills`).

Each run is begun, killed with SIGKILL, resumed and killed again until it is complete. After every kill the store must
open, whatever was committed before must still be, and every committed epoch must be that of an undisturbed run, to the
last bit; what is complete must be the same as an undisturbed run, and leave nothing behind.
"""

import argparse
import multiprocessing
import os
import signal
import sys
import tempfile
import time
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from multiprocessing.context import ForkServerContext
from pathlib import Path
from random import Random

import numpy as np

from ibstore.capture.datasets import digits
from ibstore.cli import main as command_line
from ibstore.errors import IbstoreError, NotAStoreError, UnknownNameError
from ibstore.store import Store
from ibstore.store.format import layout
from ibstore.store.upkeep.verify import verify

RUN = "mnist-cnn-seed0"
LIMIT = 40
PER_CLASS = 25
EPOCH_BYTES = 4 * (3136 + 1568 + 10) * LIMIT
MODES = {"one epoch a segment": EPOCH_BYTES, "three epochs a segment": 3 * EPOCH_BYTES}
"""Bytes of a segment by what that means."""

UNHEARD = 255
"""The exit code that multiprocessing makes up when another thread, which started a child at that moment, heard the true
one: it reaps whatever child has ended."""


@dataclass(frozen=True)
class Whole:
    """An undisturbed run: every epoch by what is known of it, and the seconds it takes."""

    epochs: dict[int, object]
    seconds: float


@dataclass
class Tally:
    """What became of the kills."""

    kills: int = 0
    lost: int = 0
    unreadable: int = 0
    completed: int = 0
    faults: list[str] = field(default_factory=list)

    def __str__(self) -> str:
        told = (
            f"kills {self.kills}, epochs lost {self.lost}, stores unreadable {self.unreadable}, "
            f"runs completed {self.completed}, faults {len(self.faults)}"
        )
        return "\n".join([told, *self.faults])

    @classmethod
    def sum(cls, tallies: Iterable["Tally"]) -> "Tally":
        """All together."""
        each = list(tallies)
        return cls(
            *(sum(getattr(tally, name) for tally in each) for name in ("kills", "lost", "unreadable", "completed")),
            [fault for tally in each for fault in tally.faults],
        )


def capture(store: str, rows: str, epochs: int, segment_bytes: int) -> None:
    """What the child does: `ibstore capture … --resume`, with segments of another size."""
    sys.stderr = open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115, PTH123  (until it is killed)
    layout.SEGMENT_BYTES = segment_bytes
    digits._mnist_sample_rows = lambda: np.load(rows)  # few, and parsed already: what is killed shall be the writing
    options = f"--epochs {epochs} --limit {LIMIT} --threads 1 --device cpu --resume"
    sys.argv = ["ibstore", "capture", "mnist-cnn", "--store", store, *options.split()]
    command_line()


class Killer:
    """Starts captures and kills them.

    Parameters
    ----------
    folder
        Where the stores are made.
    epochs
        That each run trains.
    seed
        Of the instants.
    """

    def __init__(self, folder: Path, epochs: int, seed: int) -> None:
        self._folder, self._epochs, self._seed = folder, epochs, seed
        self._rows = folder / "rows.npy"
        np.save(
            self._rows, digits._mnist_sample_rows().reshape(digits.CLASSES, -1, 785)[:, :PER_CLASS].reshape(-1, 785)
        )
        self._context = forkserver()
        self.whole: dict[str, Whole] = {}
        for mode in MODES:
            store = folder / f"undisturbed, {mode}"
            self._run(store, mode, None)
            store.rename(folder / f"first, {mode}")  # the one that waited for the imports
            begun = time.monotonic()
            self._run(store, mode, None)
            self.whole[mode] = Whole(contents(store), time.monotonic() - begun)
        assert len({repr(whole.epochs) for whole in self.whole.values()}) == 1, "modes differ in segments alone"

    def _run(self, store: Path, mode: str, seconds: float | None) -> int:
        """Capture, and kill it after ``seconds``; its exit code, negative where it may have been killed."""
        arguments = (str(store), str(self._rows), self._epochs, MODES[mode])
        child = self._context.Process(target=capture, args=arguments)
        child.start()
        child.join(seconds)
        child.kill()
        child.join()
        code = child.exitcode
        assert code is not None
        return -signal.SIGKILL if code == UNHEARD else code

    def chain(self, number: int, most: int | None = None) -> Tally:
        """Begin a run and kill it until it is complete, which it must be after ``most`` kills."""
        mode = list(MODES)[number % len(MODES)]
        tally, random = Tally(), Random(f"{self._seed} {number}")
        store, before, idle = self._folder / f"{number}.zarr", 0, 0
        while True:
            longest = self.whole[mode].seconds * (1 + idle / 8)  # a busier machine must get on, too
            seconds = None if tally.kills == most else random.uniform(0, longest)
            code = self._run(store, mode, seconds)
            tally.kills += code < 0
            try:
                committed = self._check(store, mode, tally)
            except IbstoreError as error:
                tally.unreadable += 1
                tally.faults.append(f"{store.name}: {error}")
                return tally
            tally.lost += max(0, before - committed)
            before, idle = committed, 0 if committed > before else idle + 1
            if code >= 0:
                self._check_complete(store, mode, code, tally)
                return tally

    def _check(self, store: Path, mode: str, tally: Tally) -> int:
        """How many epochs are committed; what is wrong with them goes into the tally."""
        try:
            report = verify(store, deep=True)
            found = contents(store)
        except (NotAStoreError, UnknownNameError):  # killed before it was made: then no epoch may be missing
            return 0
        expected = self.whole[mode].epochs
        tally.faults += [f"{store.name}: {each.message}" for each in report.damage]
        tally.faults += [f"{store.name}: epoch {epoch} differs" for epoch in found if found[epoch] != expected[epoch]]
        if list(found) != list(expected)[: len(found)]:
            tally.faults.append(f"{store.name}: epochs {list(found)}")
        return len(found)

    def _check_complete(self, store: Path, mode: str, code: int, tally: Tally) -> None:
        tally.completed += 1
        if code or contents(store) != self.whole[mode].epochs:
            tally.faults.append(f"{store.name}: ended with code {code} and epochs {Store.open(store).run(RUN).epochs}")
        tally.faults += [f"{store.name}: left {each.key}" for each in verify(store, deep=True).findings]
        if store.with_name(f"{store.name}.resume").exists():
            tally.faults.append(f"{store.name}: its states are still there")


def forkserver() -> ForkServerContext:
    """Processes that begin with everything imported: a kill costs no start-up."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(
        [
            "torch._dynamo",
            "ibstore.capture.train",
            "ibstore.store.upkeep.verify",
            "ibstore.store.format.arrays",
            "ibstore.cli",
        ]
    )
    return context


def contents(store: Path) -> dict[int, object]:
    """All that is committed by epoch: the manifest, step, scalars and every layer's bytes."""
    run = Store.open(store).run(RUN)
    return {
        epoch: (
            repr(run.manifest),
            step,
            metrics,
            [
                b"".join(block.tobytes() for block in segment.blocks(split, layer, epoch))
                for split in run.manifest.splits
                for layer in run.manifest.layers
            ],
        )
        for segment in run.segments
        for epoch, step, metrics in zip(*segment.record.scalars(), strict=True)
    }


def kill_often(folder: Path, kills: int, epochs: int, seed: int, jobs: int) -> Tally:
    """Kill at least so often, and let every run become complete."""
    killer, tallies, number = Killer(folder, epochs, seed), list[Tally](), 0
    with ThreadPoolExecutor(jobs) as pool:
        while sum(tally.kills for tally in tallies) < kills:
            tallies += pool.map(killer.chain, range(number, number + jobs))
            number += jobs
            sys.stderr.write(f"{Tally.sum(tallies)}\n")
    return Tally.sum(tallies)


def main() -> None:
    """Read the arguments, kill, report; exit code 1 if anything was wrong."""
    parser = argparse.ArgumentParser(prog="python -m tests.kills", description=(__doc__ or "").partition("\n\n")[2])
    parser.add_argument("--kills", type=int, default=200)
    parser.add_argument("--epochs", type=int, default=8)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--jobs", type=int, default=2)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        tally = kill_often(Path(folder), given.kills, given.epochs, given.seed, given.jobs)
    sys.stdout.write(f"{tally}\n")
    sys.exit(bool(tally.faults or tally.lost or tally.unreadable))


if __name__ == "__main__":
    main()
