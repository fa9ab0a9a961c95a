"""Many epochs of a tiny network, 12-10-7-5-4-3-2, against the field's ``np.unique`` for each epoch and layer.

H(T) and I(T;Y) under ``width(0.07)``, of 4,096 inputs of 12 bits at each of 1,000 epochs.
"""

import math
import sys
import tempfile
from collections.abc import Iterator
from datetime import UTC, datetime
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.measure import keep, machine, measured, report
from benchmarks.plane import load_modules

EPOCHS, SIZES, WIDTH, REPEATS = 1000, (12, 10, 7, 5, 4, 3, 2), 0.07, 3
WAIST = f"tiny: *=identity | width({WIDTH})"

TITLES = {
    "read": "only reading the layers",
    "ask": f"`width({WIDTH})`: from store to table",
    "field": "`np.unique` for each epoch and layer",
}


def main() -> None:
    with tempfile.TemporaryDirectory(prefix="ibstore-bench-") as folder:
        store = Path(folder, "lab.zarr")
        capture(store)
        costs = {work: measured("benchmarks.tiny", work, str(store), repeats=REPEATS) for work in TITLES}
    lines = [
        f"{datetime.now(UTC):%Y-%m-%d}, {machine()}; {EPOCHS} epochs × {len(SIZES) - 1} layers × 4096 samples.",
        "",
        "| what | time | peak memory | `np.unique` takes |",
        "| --- | ---: | ---: | ---: |",
    ]
    for work, cost in costs.items():
        ratio = costs["field"].seconds / cost.seconds
        lines.append(f"| {TITLES[work]} | {cost.seconds:.2f} s | {cost.peak_bytes / 2**30:.2f} GiB | {ratio:.1f} × |")
    keep("tiny", "\n".join(lines))


def capture(store: Path) -> None:
    """Train the network on a rule of 12 bits, full batch, and record every epoch."""
    import torch
    from torch import nn

    import ibstore

    torch.manual_seed(0)
    torch.set_num_threads(1)
    x = torch.tensor([[number >> bit & 1 for bit in range(12)] for number in range(4096)], dtype=torch.float32)
    y = (x @ torch.randn(12, 1)).squeeze().gt(0).long()
    model = nn.Sequential()
    for number, (before, after) in enumerate(pairwise(SIZES)):
        model.add_module(f"fc{number}", nn.Sequential(nn.Linear(before, after), nn.Tanh()))
    optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
    layers = [name for name, _ in model.named_children()]
    with ibstore.Recorder(store, model, layers=layers, x=x, y=y, run="seed0") as recorder:
        for epoch in range(EPOCHS):
            recorder.record(epoch)
            optimizer.zero_grad()
            nn.functional.cross_entropy(model(x), y).backward()  # type: ignore[no-untyped-call]
            optimizer.step()


def layers(store: Path) -> Iterator[Iterator[tuple[Any, Any]]]:
    """Layer by layer, what every epoch has: (labels, values)."""
    from ibstore.store import Store

    run = Store.open(store).runs()[0]
    split = run.manifest.splits[0]
    labels = run.probe(split).labels()
    for layer in run.manifest.layers:
        yield (
            (labels, values)
            for segment in run.segments
            for epochs in segment.map(split, layer, lambda _, __, values: values, 2)
            for values in epochs
        )


def field(store: Path) -> list[tuple[float, float]]:
    """H(T) and I(T;Y) as the field's scripts compute them: bins, rows seen as bytes, ``np.unique``."""
    found = []
    for layer in layers(store):
        for labels, values in layer:
            codes = np.floor(values / WIDTH).astype(np.int32)
            h_t = entropy(codes)
            h_t_given_y = sum(np.mean(labels == y) * entropy(codes[labels == y]) for y in np.unique(labels))
            found.append((h_t, h_t - h_t_given_y))
    return found


def entropy(codes: Any) -> float:
    rows = np.ascontiguousarray(codes).view(np.dtype((np.void, codes.dtype.itemsize * codes.shape[1])))
    _, counts = np.unique(rows, return_counts=True)
    return float(-sum(p * math.log2(p) for p in (counts / counts.sum()).tolist()))


def ask(store: Path) -> None:
    from ibstore.analyze import Study

    with tempfile.TemporaryDirectory(dir=store.parent) as results:
        Study(store, results).analyze(WAIST)


WORKS = {"read": lambda store: [None for layer in layers(store) for _ in layer], "ask": ask, "field": field}


if __name__ == "__main__":
    if len(sys.argv) > 1:
        load_modules()
        report(lambda: WORKS[sys.argv[1]](Path(sys.argv[2])))
    else:
        main()
