"""The MNIST CNN under the thesis's waists, from store to table, against the field's way and against reading.

The field's way: pool, discretize, make a tuple of each pattern, count tuples in `collections.Counter`.
"""

import math
import sys
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from benchmarks.measure import Cost, keep, machine, measured, report

DATA = Path(__file__).parent.parent.parent / "shared" / "data"
EPOCH, REPEATS = 1, 3
POOLED = ["thesis-6.2", *(f"thesis-6.3-ex{number}" for number in range(1, 5))]
EIGHT = [*POOLED, "thesis-6.2-code", "thesis-6.3-ex1-code", "thesis-6.3-ex2-code"]
READ = {"read": [EPOCH], "read-all": [0, EPOCH]}
"""Epochs that are only read."""

ASKED: dict[str, tuple[list[str], list[int]]] = {
    "one": (["thesis-6.2"], [EPOCH]),
    "eight": (EIGHT, [EPOCH]),
    "unpooled": (["thesis-6.1"], [EPOCH]),
    "six-all": (["thesis-6.1", *POOLED], [0, EPOCH]),
}
"""Waists and epochs."""

TITLES = {
    "read": "only reading the chunks of one epoch",
    "read-all": "only reading those of two epochs",
    "one": "`thesis-6.2`, one epoch, from store to table",
    "eight": "eight waists with pooling, together",
    "unpooled": "`thesis-6.1`: no pooling, 3136 units a sample",
    "six-all": "the six presets together, two epochs",
    "careful": "`thesis-6.2` in numpy, vectorized, and tuples in a Counter",
    "field": "`thesis-6.2` in nested lists, sample by sample, and tuples in a Counter",
    "field-unpooled": "without pooling likewise, of a tenth of the samples",
}
Windows = dict[str, tuple[int, int] | None]
WINDOWS: Windows = {"x": (4, 4), "conv1": (4, 4), "conv2": (3, 3), "out": None}
UNPOOLED: Windows = {"x": (1, 1), "conv1": (1, 1), "conv2": (1, 1), "out": None}
TENTH = 10


def main() -> None:
    with tempfile.TemporaryDirectory(prefix="ibstore-bench-") as folder:
        store = Path(folder, "lab.zarr")
        dataset = capture(store)
        costs = {work: measured("benchmarks.plane", work, str(store), repeats=REPEATS) for work in [*READ, *ASKED]}
        costs |= {work: measured("benchmarks.plane", work, str(store)) for work in REFERENCES}
    lines = [
        f"{datetime.now(UTC):%Y-%m-%d}, {machine()}; {dataset}; x, conv1, conv2 and out.",
        "",
        "| what | time | peak memory | × reading | × `thesis-6.2` |",
        "| --- | ---: | ---: | ---: | ---: |",
        *[
            line(TITLES[work], costs[work], costs["read-all" if "all" in work else "read"], costs["one"])
            for work in costs
        ],
        "",
        f"`thesis-6.1` takes 1/{TENTH * costs['field-unpooled'].seconds / costs['unpooled'].seconds:.0f} of the time "
        f"of {TENTH} times the last row.",
    ]
    keep("plane", "\n".join(lines))


def line(name: str, cost: Cost, read: Cost, one: Cost) -> str:
    """A row of the table."""
    figures = f"{cost.seconds:.2f} s | {cost.peak_bytes / 2**30:.2f} GiB | {cost.seconds / read.seconds:.2f}"
    return f"| {name} | {figures} | {cost.seconds / one.seconds:.1f} |"


def capture(store: str | Path, schedule: str = "every:1") -> str:
    """Make the store of one epoch's training; full MNIST where its files are, the embedded digits elsewhere."""
    from ibstore.capture.recipes import recipe
    from ibstore.capture.schedule import Schedule
    from ibstore.capture.train import TrainSettings, train

    dataset, folder = ("mnist", DATA) if (DATA / "MNIST").exists() else ("mnist-sample", None)
    about = {"dataset": dataset, "data_dir": folder, "epochs": 1, "schedule": Schedule.parse(schedule)}
    train("mnist-cnn", store, settings=TrainSettings.of(recipe("mnist-cnn"), **about))
    return dataset


def only_read(store: Path, epochs: list[int]) -> None:
    """Every chunk of x and of the epochs' layers, through the store's reader, nothing done with them."""
    from ibstore.store import Store

    run = Store.open(store).runs()[0]
    split = run.manifest.splits[0]
    for _ in run.probe(split).x_blocks():
        pass
    for layer in run.manifest.layers:
        for epoch in epochs:
            for _ in run.segment(epoch).blocks(split, layer, epoch):
                pass


def ask(store: Path, waists: list[str], epochs: list[int]) -> None:
    from ibstore.analyze import Study

    with tempfile.TemporaryDirectory(dir=store.parent) as results:
        Study(store, results).analyze(waists, epochs=epochs)


def careful(store: Path) -> list[tuple[str, float, float]]:
    """Whole layers in numpy, vectorized, then tuples in a Counter."""
    x, labels, layers = load(store)
    x_keys = keys(pooled(x, (4, 4)) > 0.5)
    rows = []
    for name, values in layers:
        window = WINDOWS[name]
        codes = binned(pooled(values, window)) if window else softmax(values) > 0.5
        rows.append((name, *informations(x_keys, keys(codes), labels)))
    return rows


def field(store: Path, windows: Windows = WINDOWS, every: int = 1) -> list[tuple[str, float, float]]:
    """The field's scripts: activations as nested lists (what their pickles hold), narrowed sample by sample."""
    x, labels, layers = load(store)
    labels = labels[::every]
    x_window = windows["x"] or (1, 1)
    x_keys = [tuple((pooled(np.array(one), x_window) > 0.5).astype(int).ravel()) for one in x[::every].tolist()]
    rows = []
    for name, values in layers:
        window, nested = windows[name], values[::every].tolist()
        if window:
            narrowed = [pooled(np.array(sample), window) for sample in nested]
            low, high = np.quantile(narrowed, [0.01, 0.99], axis=0)
            codes = [(np.clip(sample, low, high) >= (low + high) / 2).astype(int) for sample in narrowed]
        else:
            codes = [(softmax(np.array([sample]))[0] > 0.5).astype(int) for sample in nested]
        rows.append((name, *informations(x_keys, [tuple(code.ravel()) for code in codes], labels)))
    return rows


def load(store: Path) -> tuple[Any, list[int], "Iterator[tuple[str, Any]]"]:
    """Inputs, labels, and one layer after the other, each whole; from the same store."""
    from ibstore.store import Store

    run = Store.open(store).runs()[0]
    split = run.manifest.splits[0]
    probe = run.probe(split)
    labels = probe.labels()
    assert labels is not None
    names = [layer.name for layer in run.manifest.layers]
    blocks = ((name, run.segment(EPOCH).blocks(split, run.layer(name), EPOCH)) for name in names)
    layers = ((name, np.concatenate(list(block))) for name, block in blocks)
    return np.concatenate(list(probe.x_blocks())), labels.tolist(), layers


def keys(codes: Any) -> list[tuple[int, ...]]:
    return [tuple(row) for row in codes.reshape(len(codes), -1).astype(int)]


def informations(x_keys: list[Any], t_keys: list[Any], labels: list[int]) -> tuple[float, float]:
    """I(X;T) and I(T;Y) from Counters of single and joint keys."""
    h_x, h_t, h_y = entropy(Counter(x_keys)), entropy(Counter(t_keys)), entropy(Counter(labels))
    h_xt = entropy(Counter(zip(x_keys, t_keys, strict=True)))
    h_ty = entropy(Counter(zip(t_keys, labels, strict=True)))
    return h_x + h_t - h_xt, h_t + h_y - h_ty


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


def load_modules() -> None:
    """Import what the works import when first used, so that it is not counted; numba imports most at its first call."""
    import ibstore.analyze.kernels
    import ibstore.analyze.sql.counts
    import ibstore.analyze.study
    import ibstore.store.format.arrays

    assert all(
        (ibstore.analyze.kernels, ibstore.analyze.sql.counts, ibstore.analyze.study, ibstore.store.format.arrays)
    )
    np.asarray(pl.DataFrame({"a": [1]}).to_numpy())
    ibstore.analyze.kernels.count_steps(np.zeros((1, 1), np.float32), 1.0, np.zeros((1, 1), np.uint32))


REFERENCES: dict[str, Callable[[Path], object]] = {
    "careful": careful,
    "field": field,
    "field-unpooled": lambda store: field(store, UNPOOLED, TENTH),
}


def do(work: str, store: Path) -> None:
    """One of the works, by its name."""
    if work in READ:
        only_read(store, READ[work])
    elif work in ASKED:
        ask(store, *ASKED[work])
    else:
        REFERENCES[work](store)


if __name__ == "__main__":
    if len(sys.argv) > 1:
        load_modules()
        report(lambda: do(sys.argv[1], Path(sys.argv[2])))
    else:
        main()
