"""A small store for questions beyond the plane: three runs of two layers, and the arrays that it was made of."""

from pathlib import Path

import numpy as np

from tests.analyze.stores import make_store, numbered

N, CLASSES, RUNS, EPOCHS = 240, 4, ("a", "b", "c"), 2
X = numbered(N, 2) % 60  # four samples with each input
Y = (np.arange(N) % 60) % CLASSES
WAIST = "w: x=identity | exact; *=identity | uniform(bins=3, lo=0, hi=3)"


def conv(run: str) -> np.ndarray:
    """(epoch, sample, channel, row, column): 0, 1 or 2 each."""
    noise = np.random.default_rng(ord(run)).integers(0, 3, (EPOCHS, N, 2, 1, 2))
    return noise.astype(np.float32)


def out(run: str) -> np.ndarray:
    """(epoch, sample, unit): tells something of the label in the last epoch."""
    noise = np.random.default_rng(1000 + ord(run)).integers(0, 3, (EPOCHS, N, 2))
    noise[1, :, 0] = np.where(np.arange(N) % 5 == 0, noise[1, :, 0], Y % 3)
    return noise.astype(np.float32)


def write(path: Path, runs=RUNS, y=Y) -> Path:
    for run in runs:
        make_store(path, X, y, layers={"conv": conv(run), "out": out(run)}, run=run)
    return path


def patterns(run: str, layer: str, epoch: int) -> list[bytes]:
    """Patterns of a layer by sample; equal where those under `WAIST` are."""
    values = (conv if layer == "conv" else out)(run)[epoch].reshape(N, -1)
    return [row.tobytes() for row in values.astype(np.uint8)]
