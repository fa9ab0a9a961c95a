"""What recording costs a training: the MNIST CNN trained alone, with a bare forward pass of the probe, and recorded.

Against the bare pass: what hooks, copies and writing cost, as far as the background thread does not hide it; durability
is told apart. Each is run several times, in turn, since a machine that is shared drifts by more than what is measured.
"""

import os
import sys
import tempfile
from contextlib import ExitStack
from datetime import UTC, datetime
from pathlib import Path
from unittest.mock import patch

from benchmarks.measure import Cost, keep, machine, measured, report
from benchmarks.plane import DATA

EPOCHS = 2
ROUNDS = 5
WORKS = {
    "train": "training alone",
    "bare": "and a bare forward pass of the probe set at every capture point",
    "pass": "and the recorded forward pass, nothing written",
    "unsafe": "and writing, without fsync",
    "record": "and writing, durably: what `ibstore capture` does",
}


def main() -> None:
    dataset = "mnist" if (DATA / "MNIST").exists() else "mnist-sample"
    costs = in_turn(dataset)
    lines = [
        f"{datetime.now(UTC):%Y-%m-%d}, {machine()}; {dataset}, {EPOCHS} epochs and the untrained network; "
        f"median of {ROUNDS}, in turn.",
        "",
        "| what | time | × the row above | × training alone | peak memory |",
        "| --- | ---: | ---: | ---: | ---: |",
    ]
    above, bare = costs["train"], costs["bare"]
    for key, name in WORKS.items():
        lines.append(row(name, costs[key], above, costs["train"]))
        above = costs[key]
    lines += ["", f"Recorded, over training and the bare pass: {costs['record'].seconds / bare.seconds:.2f}."]
    keep("capture", "\n".join(lines))


def in_turn(dataset: str) -> dict[str, Cost]:
    """Median cost of each work."""
    found: dict[str, list[Cost]] = {key: [] for key in WORKS}
    for _ in range(ROUNDS):
        for key in WORKS:
            with tempfile.TemporaryDirectory(prefix="ibstore-bench-") as folder:
                found[key].append(measured("benchmarks.capture", key, str(Path(folder, "lab.zarr")), dataset))
    return {key: sorted(costs, key=lambda cost: cost.seconds)[ROUNDS // 2] for key, costs in found.items()}


def row(name: str, cost: Cost, above: Cost, alone: Cost) -> str:
    ratios = f"{cost.seconds / above.seconds:.2f} | {cost.seconds / alone.seconds:.2f}"
    return f"| {name} | {cost.seconds:.1f} s | {ratios} | {cost.peak_bytes / 2**30:.2f} GiB |"


def work(key: str, store: str, dataset: str) -> None:
    from ibstore.capture.forward import evaluating
    from ibstore.capture.probing import Probing
    from ibstore.capture.recipes import recipe
    from ibstore.capture.sink import EpochSink
    from ibstore.capture.train import TrainSettings, train

    folder = DATA if dataset == "mnist" else None
    settings = TrainSettings.of(recipe("mnist-cnn"), dataset=dataset, data_dir=folder, epochs=EPOCHS)
    with ExitStack() as patches:
        if key in {"train", "bare", "pass"}:
            for step in ("begin", "append", "commit"):
                patches.enter_context(patch.object(EpochSink, step, lambda *_: None))
        if key in {"train", "bare"}:
            measured_pass = {"train": {"loss": 0.0, "accuracy": 0.0}}

            def run(probing: Probing, *_: object) -> dict[str, dict[str, float]]:
                (probe,) = probing._passes.values()
                with evaluating(probe.model):
                    for rows in probe.batches() if key == "bare" else ():
                        probe.run(rows)
                return measured_pass

            patches.enter_context(patch.object(Probing, "run", run))
        if key == "unsafe":
            patches.enter_context(patch.object(os, "fsync", lambda _: None))
        train("mnist-cnn", store, settings=settings)


if __name__ == "__main__":
    if len(sys.argv) == 1:
        main()
    else:
        import ibstore.capture.train
        import ibstore.store.format.arrays

        assert all((ibstore.capture.train, ibstore.store.format.arrays))
        report(lambda: work(*sys.argv[1:]))
