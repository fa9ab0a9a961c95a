"""A reader in a loop beside a writer: `python -m tests.beside [--seconds 60]` (or `make beside`).

A process records a network whose activations are known numbers; this one lists, reads, analyzes and
queries the store again and again, by the command line and by Python. It counts what it saw, errors, and epochs that
were not whole; both must be 0.
"""

import argparse
import contextlib
import io
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from ibstore.analyze import Study
from ibstore.cli import main as command_line
from ibstore.errors import IbstoreError
from ibstore.store import Store

SAMPLES, UNITS, LAYERS = 512, 32, ("a", "b")
WAIST = "w: *=identity | quantile(bins=2)"


def expected(layer: str, epoch: int) -> np.ndarray:
    """What a layer says at an epoch: the sample's number plus the epoch's, times 2 in layer b."""
    values = np.arange(SAMPLES, dtype=np.float32)[:, None] + np.float32(epoch)
    return np.broadcast_to(values * (2 if layer == "b" else 1), (SAMPLES, UNITS))


@dataclass
class Seen:
    """What a reader saw."""

    rounds: int = 0
    epochs: int = 0
    errors: list[str] = field(default_factory=list)
    partial: list[str] = field(default_factory=list)

    def __str__(self) -> str:
        return (
            f"{self.rounds} rounds beside the writer, {self.epochs} epochs in the end: "
            f"{len(self.errors)} errors, {len(self.partial)} partial epochs"
        )


def write(store: Path, goes_on: Callable[[int], bool]) -> None:
    """Record epoch after epoch, in segments of one epoch and of several."""
    import torch
    from torch import nn

    import ibstore
    from ibstore.capture import sink

    class Known(nn.Module):
        """Adds its epoch."""

        def __init__(self) -> None:
            super().__init__()
            self.a, self.b, self.epoch = nn.Identity(), nn.Identity(), 0

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.b(2 * self.a((x + self.epoch).expand(-1, UNITS)))

    sink.SECONDS = 0.05
    model, x = Known(), torch.arange(SAMPLES, dtype=torch.float32)[:, None]
    with ibstore.Recorder(store, model, layers=LAYERS, x=x, y=torch.arange(SAMPLES) % 3, run="live") as recorder:
        while goes_on(model.epoch):
            recorder.record(model.epoch)
            model.epoch += 1


def look(store: Path, seen: Seen) -> None:
    """Ask everything once."""
    run = Store.open(store).run("live")
    if run.epochs != list(range(len(run.epochs))) or len(run.epochs) < seen.epochs:
        seen.partial.append(f"epochs {run.epochs}")
    for layer in LAYERS:
        for epoch in run.epochs[-40:]:
            blocks = run.segment(epoch).blocks(run.manifest.split("train"), run.layer(layer), epoch)
            if not np.array_equal(np.concatenate(list(blocks)), expected(layer, epoch)):
                seen.partial.append(f"layer {layer}, epoch {epoch}")
    table = Study(store).analyze(WAIST, runs=["live"]) if run.epochs else None
    if table is not None and len(table) < len(LAYERS) * len(run.epochs):
        seen.partial.append(f"{len(table)} rows for {len(run.epochs)} epochs")
    for arguments in (["ls", store], ["info", store], ["query", store, "SELECT max(epoch) FROM epochs", "-f", "csv"]):
        run_command(seen, *arguments)
    seen.epochs = len(run.epochs)


def run_command(seen: Seen, *arguments: object) -> None:
    """Run ``ibstore ARGUMENTS`` in this process."""
    said = io.StringIO()
    sys.argv = ["ibstore", *map(str, arguments)]
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(said):
        try:
            command_line()
        except SystemExit as leaving:
            if leaving.code:
                seen.errors.append(f"{arguments[0]}: {said.getvalue()}")


def beside(folder: Path, *limit: str) -> Seen:
    """Read beside a writer with that limit (``--seconds N`` or ``--epochs N``) until it has ended, and once more."""
    store, seen = folder / "lab.zarr", Seen()
    writer = subprocess.Popen([sys.executable, "-m", "tests.beside", "--write", str(store), *limit])
    ended = False
    while not ended:
        ended = writer.poll() is not None
        if not (store / "runs" / "live" / "zarr.json").exists():
            continue
        try:
            look(store, seen)
        except IbstoreError as error:
            seen.errors.append(str(error))
        seen.rounds += 1
    if writer.returncode:
        seen.errors.append(f"the writer ended with {writer.returncode}")
    return seen


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--epochs", type=int)
    parser.add_argument("--pace", type=float, default=0.1, help="seconds between epochs: as a fast training")
    parser.add_argument("--write", type=Path, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.write:
        end = time.monotonic() + given.seconds

        def goes_on(epoch: int) -> bool:
            time.sleep(given.pace)
            return epoch < given.epochs if given.epochs else time.monotonic() < end

        write(given.write, goes_on)
        return 0
    with tempfile.TemporaryDirectory(prefix="ibstore-beside-") as folder:
        seen = beside(Path(folder), "--seconds", str(given.seconds))
    sys.stdout.write("\n".join([str(seen), *seen.errors[:5], *seen.partial[:5]]) + "\n")
    return bool(seen.errors or seen.partial)


if __name__ == "__main__":
    sys.exit(main())
