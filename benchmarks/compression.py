"""Does a network forget its input? One of tanh and one of ReLU, by bins and by noise of a fixed variance.

The 4,096 patterns of Shwartz-Ziv & Tishby 2017 (arXiv:1703.00810) and the question of Saxe et al. 2018 (ICLR): does the
network compress, or what its layers are measured with? ``python -m benchmarks.compression`` trains, asks, and keeps a
table in docs/compression.md and the picture beside it.
"""

import sys
import tempfile
from collections.abc import Collection, Iterator
from datetime import UTC, datetime
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Final

import numpy as np
import polars as pl
from numpy.typing import NDArray

import ibstore
from benchmarks.measure import DOCUMENT, keep, machine
from benchmarks.plane import DATA
from ibstore.analyze.plots.style import COLOURS, STYLE

if TYPE_CHECKING:
    import torch
    from matplotlib.axes import Axes

PATTERNS: Final = DATA / "szt" / "var_u.mat"
PAGE, PICTURE = DOCUMENT.parent / "compression.md", DOCUMENT.parent / "compression.png"

SIZES: Final = (12, 10, 7, 5, 4, 3, 2)
LAYERS: Final = [f"hidden{number}" for number in range(1, len(SIZES) - 1)]
RATE, BATCH, TRAINED = 0.002, 512, 0.8

SEEDS: Final = range(5)
MARKS: Final = (0, 1, 2, 3, 4, 6, 8, 11, 15, 20, 30, 40, 60, 80, 110, 150, 200, 300, 400, 600, 800, 1000, 1200)
EPOCHS: Final = MARKS[-1]
TOLD: Final = (0, 11, 60, EPOCHS)
"""Epochs whose values are told."""

BINS: Final = "quantile(bins=30, lo=0, hi=1, scope=layer, per=run)"
"""Equal ones from a layer's least to its greatest value in all of the run."""

RANGE: Final = f"range: *=identity | {BINS}"
FIXED: Final = {"tanh": "uniform(bins=30, lo=-1, hi=1)", "relu": "uniform(bins=30, lo=0, hi=10)"}
"""The same bins in all layers; what a ReLU says beyond 10 is in the last one."""

NAMES: Final = {"tanh": "tanh", "relu": "ReLU"}
PANELS: Final = {
    "plugin": "30 bins over the run's range",
    "kde(variance=0.01)": "noise, σ² = 0.01",
    "kde(variance=0.1)": "noise, σ² = 0.1",
}
"""What is drawn and told, by estimator."""


def patterns() -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """Every input of 12 bits, (4096, 12), and its label, (4096,)."""
    from scipy.io import loadmat

    found = loadmat(PATTERNS)
    return found["F"].astype(np.float32), found["y"].ravel().astype(np.int64)


def network(kind: str, random: "torch.Generator") -> "torch.nn.Sequential":
    """12-10-7-5-4-3-2 with hidden layers of ``kind`` tanh or relu; weights of variance 1 / (units before)."""
    from torch import nn

    model = nn.Sequential()
    for number, (before, after) in enumerate(pairwise(SIZES), start=1):
        linear = nn.utils.skip_init(nn.Linear, before, after)  # type: ignore[no-untyped-call]
        nn.init.trunc_normal_(linear.weight, std=before**-0.5, generator=random)
        nn.init.zeros_(linear.bias)
        model.add_module(f"linear{number}", linear)
        if after != SIZES[-1]:
            model.add_module(f"hidden{number}", {"tanh": nn.Tanh, "relu": nn.ReLU}[kind]())
    return model


def train(kind: str, store: str | Path, epochs: int, seed: int, marks: Collection[int]) -> None:
    """Train with Adam on 80 % of the patterns; record all of them, as run ``kind-seed``, at the epochs ``marks``."""
    import torch

    x, y = map(torch.from_numpy, patterns())
    random = torch.Generator().manual_seed(seed)
    model = network(kind, random)
    optimizer = torch.optim.Adam(model.parameters(), lr=RATE)
    own = torch.randperm(len(x), generator=random)[: int(TRAINED * len(x))]
    with ibstore.Recorder(store, model, layers=LAYERS, x=x, y=y, run=f"{kind}-{seed}", measure=right) as recorder:
        for epoch in range(epochs + 1):
            if epoch:
                order = own[torch.randperm(len(own), generator=random)]
                one_epoch(model, optimizer, x[order], y[order])
            if epoch in marks:
                recorder.record(epoch)


def one_epoch(
    model: "torch.nn.Module", optimizer: "torch.optim.Optimizer", x: "torch.Tensor", y: "torch.Tensor"
) -> None:
    """A step a batch, samples in the order given."""
    from torch.nn.functional import cross_entropy

    for start in range(0, len(x), BATCH):
        rows = slice(start, start + BATCH)
        optimizer.zero_grad()
        cross_entropy(model(x[rows]), y[rows]).backward()  # type: ignore[no-untyped-call]
        optimizer.step()


def right(output: "torch.Tensor", labels: "torch.Tensor") -> dict[str, float]:
    """What is measured at every mark."""
    return {"accuracy": (output.argmax(1) == labels).double().mean().item()}


def runs(kind: str) -> list[str]:
    """Runs of the networks of a kind."""
    return [f"{kind}-{seed}" for seed in SEEDS]


def record(store: Path) -> ibstore.Study:
    """Train all networks into one store."""
    for kind in NAMES:
        for seed in SEEDS:
            train(kind, store, EPOCHS, seed, MARKS)
            print(f"trained {kind}-{seed}", file=sys.stderr)
    return ibstore.open(store)


def draw(study: ibstore.Study) -> None:
    """A row a network, a column an estimator: I(X;T) of each hidden layer against the epoch."""
    import matplotlib as mpl
    from matplotlib.figure import Figure

    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(12.5, 7.8), layout="constrained")
        rows = figure.subplots(len(NAMES), len(PANELS), sharex=True, sharey=True)
        for row, (kind, name) in zip(rows, NAMES.items(), strict=True):
            found = study.ask(RANGE, runs=runs(kind)).measure("runs", list(PANELS)).filter(quantity="i_xt")
            for axis, (estimator, title) in zip(row, PANELS.items(), strict=True):
                _panel(axis, found.filter(estimator=estimator))
                axis.set_title(f"{name} · {title}")
            row[0].set_ylabel("I(X;T) [bits]")
        for axis in rows[-1]:
            axis.set_xlabel("epoch")
        handles, _ = axis.get_legend_handles_labels()
        title = f"hidden layers · mean of {len(SEEDS)} networks, band from the least to the greatest of them"
        figure.legend(handles=handles, loc="outside lower center", ncols=len(LAYERS), title=title)
        figure.savefig(PICTURE)


def _panel(axis: "Axes", found: pl.DataFrame) -> None:
    """A line and a band a layer, and the most that can be."""
    most = np.log2(2 ** SIZES[0])
    axis.axhline(most, color="#8A8A8A", linewidth=1.0, linestyle=(0, (4, 3)))
    axis.text(EPOCHS, most + 0.1, "log N", ha="right", va="bottom", fontsize=10, color="#5B5B5B")
    for number, (layer, colour) in enumerate(zip(LAYERS, COLOURS, strict=False), start=1):
        own, width = found.filter(layer=layer).sort("epoch"), 4 - 0.4 * number  # of lines in one place all are seen
        axis.fill_between(own["epoch"], own["minimum"], own["maximum"], color=colour, alpha=0.12, linewidth=0)
        axis.plot(own["epoch"], own["mean"], color=colour, linewidth=width, label=f"{number} ({SIZES[number]} units)")
    axis.set_xscale("symlog", linthresh=1)
    axis.set_xlim(-0.05, 1.4 * EPOCHS)
    axis.set_xticks([0, 1, 10, 100, 1000], ["0", "1", "10", "100", "1000"])
    axis.set_ylim(-0.3, 13)
    axis.set_yticks(range(0, 13, 2))


def table(study: ibstore.Study) -> str:
    """What the last hidden layer has at the beginning, at its highest and at the end: means, and the falls' range."""
    end = f"epoch {EPOCHS:,}"
    accuracy = "SELECT avg(accuracy) FROM epochs WHERE epoch = {} AND run LIKE '{}-%'"
    told = [f"{name} {study.query(accuracy.format(EPOCHS, kind)).item():.3f}" for kind, name in NAMES.items()]
    lines = [
        f"{datetime.now(UTC):%Y-%m-%d}, {machine()}; means of {len(SEEDS)} networks each, in bits. Accuracy on all "
        f"patterns at {end}: {', '.join(told)}.",
        "",
        f"| network | by | I(X;T), epoch 0 | highest | {end} | fall (least – most) | I(T;Y), {end} |",
        "| --- | --- | ---: | ---: | ---: | ---: | ---: |",
    ]
    for kind, name in NAMES.items():
        for text, plane in planes(study, kind):
            i_xt, i_ty = (plane[column].to_numpy().reshape(len(SEEDS), len(MARKS)) for column in ("i_xt", "i_ty"))
            highest = i_xt.max(axis=1)
            falls = highest - i_xt[:, -1]
            cells = [f"{each.mean():.2f}" for each in (i_xt[:, 0], highest, i_xt[:, -1], falls, i_ty[:, -1])]
            cells[3] += f" ({falls.min():.2f} – {falls.max():.2f})"
            lines.append(f"| {name} | `{text}` | {' | '.join(cells)} |")
    return "\n".join(lines)


def planes(study: ibstore.Study, kind: str) -> Iterator[tuple[str, pl.DataFrame]]:
    """How the last hidden layer is looked at, and what it has, runs and epochs in order."""
    ways = [(bins, "plugin") for bins in (BINS, FIXED[kind], BINS.replace("per=run", "per=epoch"), "exact")]
    for bins, estimator in [*ways, *((BINS, noise) for noise in PANELS if noise != "plugin")]:
        waist = f"last: {LAYERS[-1]}=identity | {bins}"
        plane = study.analyze(waist, estimators=estimator, runs=runs(kind)).sort("run", "epoch")
        yield bins if estimator == "plugin" else estimator, plane


def values(study: ibstore.Study) -> str:
    """What the last hidden layer says: how much of it where tanh and ReLU are flat, and how far it is spread."""
    tanh, relu = "FILTER (run LIKE 'tanh-%')", "FILTER (run LIKE 'relu-%')"
    found = study.query(
        f"""SELECT epoch, avg((abs(value) > 14 / 15)::INT) {tanh}, stddev(value) {tanh},
                   avg((value = 0)::INT) {relu}, stddev(value) {relu}
            FROM activations WHERE layer = '{LAYERS[-1]}' AND epoch IN {TOLD} GROUP BY epoch ORDER BY epoch"""
    )
    lines = [
        "| epoch | tanh: beyond ±14/15 | standard deviation | ReLU: 0 | standard deviation |",
        "| ---: | ---: | ---: | ---: | ---: |",
    ]
    for epoch, ends, spread, zeros, wide in found.iter_rows():
        lines.append(f"| {epoch:,} | {ends:.0%} | {spread:.2f} | {zeros:.0%} | {wide:.2f} |")
    return "\n".join(lines)


def main() -> None:
    """Train, ask, keep the table and the picture."""
    import torch

    if not PATTERNS.exists():
        print(f"left out: {PATTERNS} is not there; put the 4,096 patterns in place", file=sys.stderr)
        return
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory(prefix="ibstore-bench-") as folder:
        study = record(Path(folder, "compression.zarr"))
        keep("compression", table(study), PAGE)
        keep("values", values(study), PAGE)
        draw(study)


if __name__ == "__main__":
    main()
