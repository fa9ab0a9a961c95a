"""The literature's experiments from end to end, as a user gives them: `ibstore capture`, then what the store is asked.

Each command is a process of its own, imports and all. The reference is the same training with the untrained and the
last network recorded alone: what is beside it is recording at every point, and the analysis.
"""

import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from benchmarks.measure import keep, machine
from benchmarks.plane import DATA

ENDS = ("--schedule", "list:0")
"""Records the untrained network, and the last one."""


@dataclass(frozen=True)
class Experiment:
    """What is trained and asked, and how many seconds that took where it is from."""

    title: str
    capture: tuple[str, ...]
    asked: tuple[tuple[str, ...], ...]
    there: int


BLACKBOX = ("--waist", "blackbox-50")
KDE = ("--waist", "values: *=identity | threshold(0)", "--estimator", "kde")
MLP = ("mlp-mnist", "--dataset", "mnist", "--data-dir", str(DATA), "--split", "test")
EXPERIMENTS = (
    Experiment(
        "12-10-7-5-4-3-1, 1,000 steps, each recorded",
        ("szt-complicated",),
        (("analyze", *BLACKBOX),),
        11 * 60 + 10,
    ),
    Experiment(
        "five of them, each and pooled",
        ("szt-complicated", "--replicas", "5"),
        (("analyze", *BLACKBOX), ("measure", "extended", *BLACKBOX)),
        11 * 60 + 46,
    ),
    Experiment(
        "MNIST 14 × 14, three networks, 6,000 steps, each and pooled",
        ("mnist14-conv", "--replicas", "3"),
        (("analyze", *BLACKBOX), ("measure", "extended", *BLACKBOX)),
        4 * 3600 + 44 * 60 + 41,
    ),
    Experiment("784-1024-20-20-10, 20 epochs, KDE: 1,000 digits", (*MLP, "--probe", "1000"), (("analyze", *KDE),), 50),
    Experiment("the same, KDE: all 10,000 test digits", MLP, (("analyze", *KDE),), 50),
)


def main() -> None:
    lines = [
        f"{datetime.now(UTC):%Y-%m-%d}, {machine()}; whole commands.",
        "",
        "| what | training alone | capture | asked | in all | × training alone | there |",
        "| --- | ---: | ---: | ---: | ---: | ---: | ---: |",
    ]
    lines += [row(experiment) for experiment in EXPERIMENTS if "--data-dir" not in experiment.capture or DATA.exists()]
    keep("literature", "\n".join(lines))


def row(experiment: Experiment) -> str:
    """Carry it out, and say what it took."""
    with tempfile.TemporaryDirectory(prefix="ibstore-bench-") as folder:
        alone = seconds("capture", *experiment.capture, *ENDS, "--store", f"{folder}/ends.zarr")
        store = f"{folder}/lab.zarr"
        capture = seconds("capture", *experiment.capture, "--store", store)
        asked = sum(seconds(command, store, *rest) for command, *rest in experiment.asked)
    whole = capture + asked
    return (
        f"| {experiment.title} | {alone:.1f} s | {capture:.1f} s | {asked:.1f} s | {whole:.1f} s "
        f"| {whole / alone:.1f} | {experiment.there:,} s |"
    )


def seconds(*arguments: str) -> float:
    """Wall time of an `ibstore` command."""
    start = time.perf_counter()
    command = Path(sys.executable).with_name("ibstore")
    subprocess.run([command, *arguments, "--quiet"], check=True, stdout=subprocess.DEVNULL)
    return time.perf_counter() - start


if __name__ == "__main__":
    main()
