"""One epoch of the MNIST CNN under `thesis-6.2`, from store to table, against the field's way and against reading.

The field's way: pool, discretize, make a tuple of each pattern, count tuples in `collections.Counter`.
"""

import math
import sys
import tempfile
from collections import Counter
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.measure import keep, machine, measured, report

DATA = Path(__file__).parent.parent.parent / "shared" / "data"
EPOCH, WAIST, REPEATS = 1, "thesis-6.2", 3
LAYERS = {"conv1": (4, 4), "conv2": (3, 3), "out": None}


def main() -> None:
    with tempfile.TemporaryDirectory(prefix="ibstore-bench-") as folder:
        store = Path(folder, "lab.zarr")
        dataset = capture(store)
        read = measured("benchmarks.plane", "read", str(store), repeats=REPEATS)
        ours = measured("benchmarks.plane", "ours", str(store), repeats=REPEATS)
        field = measured("benchmarks.plane", "field", str(store))
    gib = 2**30
    lines = [
        f"{datetime.now(UTC):%Y-%m-%d}, {machine()}; {dataset}; x, conv1, conv2 and out of one epoch, `{WAIST}`.",
        "",
        "| what | time | peak memory | × reading | speed-up |",
        "| --- | ---: | ---: | ---: | ---: |",
        f"| only reading the chunks | {read.seconds:.2f} s | {read.peak_bytes / gib:.2f} GiB | 1.00 | – |",
        f"| ibstore, store to table | {ours.seconds:.2f} s | {ours.peak_bytes / gib:.2f} GiB "
        f"| {ours.seconds / read.seconds:.2f} | {field.seconds / ours.seconds:.1f} |",
        f"| tuples in a Counter | {field.seconds:.2f} s | {field.peak_bytes / gib:.2f} GiB "
        f"| {field.seconds / read.seconds:.1f} | 1.0 |",
    ]
    keep("plane", "\n".join(lines))


def capture(store: Path) -> str:
    """Make the store of two epochs; full MNIST where its files are, the embedded digits elsewhere."""
    from ibstore.capture.recipes import recipe
    from ibstore.capture.train import TrainSettings, train

    dataset = "mnist" if (DATA / "MNIST").exists() else "mnist-sample"
    train("mnist-cnn", store, settings=TrainSettings.of(recipe("mnist-cnn"), dataset=dataset, data_dir=DATA, epochs=1))
    return dataset


def only_read(store: Path) -> None:
    """Every chunk of x and of the epoch's layers, through the store's reader, nothing done with them."""
    from ibstore.store import Store

    run = Store.open(store).runs()[0]
    split = run.manifest.splits[0]
    for _ in run.probe(split).x_blocks():
        pass
    for layer in run.manifest.layers:
        for _ in run.segment(EPOCH).blocks(split, layer, EPOCH):
            pass


def ours(store: Path) -> None:
    from ibstore.analyze import Study

    with tempfile.TemporaryDirectory(dir=store.parent) as results:
        Study(store, results).analyze([WAIST], epochs=[EPOCH])


def field_way(store: Path) -> list[tuple[str, float, float]]:
    """What research scripts do, in numpy and Counter; the arrays come from the same store."""
    from ibstore.store import Store

    run = Store.open(store).runs()[0]
    split = run.manifest.splits[0]
    probe = run.probe(split)
    labels = probe.labels()
    assert labels is not None
    x = pooled(np.concatenate(list(probe.x_blocks())), (4, 4)) > 0.5
    x_keys = [tuple(row) for row in x.reshape(len(x), -1).astype(int)]
    rows = []
    for name, window in LAYERS.items():
        values = np.concatenate(list(run.segment(EPOCH).blocks(split, run.layer(name), EPOCH)))
        codes = binned(pooled(values, window)) if window else softmax(values) > 0.5
        t_keys = [tuple(row) for row in codes.reshape(len(codes), -1).astype(int)]
        h_t = entropy(Counter(t_keys))
        i_xt = entropy(Counter(x_keys)) + h_t - entropy(Counter(zip(x_keys, t_keys, strict=True)))
        i_ty = entropy(Counter(labels.tolist())) + h_t - entropy(Counter(zip(t_keys, labels.tolist(), strict=True)))
        rows.append((name, i_xt, i_ty))
    return rows


def pooled(values: Any, window: tuple[int, int]) -> Any:
    high, wide = (size // part for size, part in zip(values.shape[-2:], window, strict=True))
    trimmed = values[..., : high * window[0], : wide * window[1]]
    return trimmed.reshape(*values.shape[:-2], high, window[0], wide, window[1]).max(axis=(-3, -1))


def binned(values: Any) -> Any:
    low, high = np.quantile(values, [0.01, 0.99], axis=0)
    return np.clip(values, low, high) >= (low + high) / 2


def softmax(values: Any) -> Any:
    powers = np.exp(values - values.max(axis=1, keepdims=True))
    return powers / powers.sum(axis=1, keepdims=True)


def entropy(counts: "Counter[Any]") -> float:
    total = sum(counts.values())
    return -sum(count / total * math.log2(count / total) for count in counts.values())


WORKS = {"read": only_read, "ours": ours, "field": field_way}

if __name__ == "__main__":
    if len(sys.argv) > 1:
        report(lambda: WORKS[sys.argv[1]](Path(sys.argv[2])))
    else:
        main()
