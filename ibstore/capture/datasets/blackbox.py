"""Twelve small integers and a noisy rule, as a report on the code of Shwartz-Ziv & Tishby 2017 has them.

x is 0 … 4 less 1, (1000, 12), every value as likely; with the noise of the rule it is drawn from one seed, the same x
for every rule. Of 12 columns the sum of products has k = 0 … 4: x[2]·x[3] + … + x[10]·x[11]; x[1] stands in no product.
"""

from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

from ibstore.capture.datasets.draws import generator
from ibstore.capture.datasets.samples import Dataset, Samples, untested

SAMPLES: Final = 1000
COLUMNS: Final = 12

Floats = NDArray[np.float64]


def simple(data_dir: Path | None, seed: int) -> Dataset:  # noqa: ARG001  (no file is read)
    """Labels y = [mean of the row + N(0, 0.1) > 0.7]."""
    x, random = _drawn(seed)
    return _dataset("blackbox-simple", x, x.mean(1) + random.normal(0, 0.1, SAMPLES) > 0.7)  # noqa: PLR2004


def complicated(data_dir: Path | None, seed: int) -> Dataset:  # noqa: ARG001
    """Labels y = [s + N(0, 0.2) > mean of s], s = Σ_k x[2k + 2] · x[2k + 3] − x[0]² of each row."""
    x, random = _drawn(seed)
    return _ruled("blackbox-complicated", x, (x[:, 2::2] * x[:, 3::2]).sum(1), random)


def printed(data_dir: Path | None, seed: int) -> Dataset:  # noqa: ARG001
    """`complicated` as it is printed: its sum of products runs over all rows too, and y depends on x[0] alone."""
    x, random = _drawn(seed)
    return _ruled("blackbox-printed", x, np.full(SAMPLES, (x[:, 2::2] * x[:, 3::2]).sum()), random)


def _drawn(seed: int) -> tuple[Floats, np.random.Generator]:
    random = generator(seed, "blackbox")
    return random.integers(0, 5, (SAMPLES, COLUMNS)).astype(np.float64) - 1, random


def _ruled(name: str, x: Floats, products: Floats, random: np.random.Generator) -> Dataset:
    score = products - x[:, 0] ** 2
    return _dataset(name, x, score + random.normal(0, 0.2, SAMPLES) > score.mean())


def _dataset(name: str, x: Floats, y: NDArray[np.bool_]) -> Dataset:
    return untested(name, Samples(x.astype(np.float32), y.astype(np.int64), np.arange(SAMPLES, dtype=np.int64)))
