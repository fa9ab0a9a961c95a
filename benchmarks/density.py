"""Both pairwise bounds of a wide layer, and both within each label: against the machine's own sgemm, and scipy's cdist.

Rates count 2·N²·d, the products of all pairs of samples, whatever is computed of them. All is measured in one process,
best of several rounds taken in turn, without what an environment may tell OpenBLAS of the processor (it slows a
current numpy).
"""

import math
import os
import subprocess
import sys
import time
from collections.abc import Callable
from datetime import UTC, datetime
from functools import partial

import numpy as np
from numpy.typing import NDArray

from benchmarks.measure import keep, machine
from ibstore.analyze.estimate.kde import bounds

SAMPLES, UNITS, NARROW, SIDE, BLOCK = 10_000, 1568, 10, 6000, 1000
VARIANCE, ROUNDS = 0.1, 5
TOLD_TO_OPENBLAS = {"OPENBLAS_CORETYPE", "OPENBLAS_L2_SIZE"}

Values = NDArray[np.float32]


def far() -> Values:
    """Rectified normals: no two samples are near each other."""
    return np.maximum(np.random.default_rng(0).normal(size=(SAMPLES, UNITS)), 0).astype(np.float32)


def near(units: int = UNITS) -> Values:
    """Rectified mixtures of eight sources: samples have neighbours, which distances must be right for."""
    rng = np.random.default_rng(1)
    sources = rng.normal(size=(SAMPLES, 8)) @ rng.normal(size=(8, units))
    return np.maximum(0.03 * math.sqrt(UNITS / units) * sources, 0).astype(np.float32)


def with_cdist(values: Values) -> list[float]:
    """f(4) and f(1) in bits: distances in float64, exponentials and logarithms of a thousand rows at a time."""
    from scipy.spatial.distance import cdist

    totals = [0.0, 0.0]
    for start in range(0, len(values), BLOCK):
        distances = cdist(values[start : start + BLOCK], values, "sqeuclidean")
        for place, nu in enumerate((4, 1)):
            totals[place] -= float(np.log2(np.exp(distances / (-2 * nu * VARIANCE)).mean(axis=1)).sum())
    return [total / len(values) for total in totals]


def timed(work: Callable[[], object]) -> float:
    """Seconds."""
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def best(works: dict[str, Callable[[], object]]) -> dict[str, float]:
    """Seconds of each, the least of several rounds."""
    rounds = [{name: timed(work) for name, work in works.items()} for _ in range(ROUNDS)]
    return {name: min(each[name] for each in rounds) for name in works}


def sgemm() -> Callable[[], object]:
    """A large product, without the memory that it is put into."""
    left, right = (np.random.default_rng(seed).normal(size=(SIDE, UNITS)).astype(np.float32) for seed in (3, 4))
    return partial(np.matmul, left, right.T, out=np.empty((SIDE, SIDE), np.float32))


def measure() -> str:
    """The table."""
    labels = np.random.default_rng(2).integers(0, 10, SAMPLES)
    layers = {"far apart": far(), "near": near(), f"near, {NARROW} units": near(NARROW)}
    ours = {name: partial(bounds, values, VARIANCE, labels) for name, values in layers.items()}
    found = {name: work() for name, work in ours.items()}  # which compiles, too
    seconds = best({"sgemm": sgemm(), **ours})
    references: dict[str, float] = {}
    for name in list(layers)[1:]:
        expected: list[float] = []
        references[name] = timed(lambda: expected.extend(with_cdist(layers[name])))  # noqa: B023  (called at once)
        assert np.abs(np.array(found[name].i_xt) - expected).max() < found[name].error + 1e-9
    peak = rate(SIDE**2, UNITS) / seconds["sgemm"]
    rows = [f"| sgemm, {SIDE:,} × {UNITS} × {SIDE:,} | {seconds['sgemm']:.2f} s | {peak:.0f} GFLOP/s | 1.00 | |"]
    for name, values in layers.items():
        reached = rate(SAMPLES**2, values.shape[1]) / seconds[name]
        faster = references.get(name, references["near"]) / seconds[name]
        rows.append(
            f"| samples {name}: products in {found[name].arithmetic} | {seconds[name]:.2f} s | {reached:.0f} GFLOP/s | "
            f"{reached / peak:.2f} | {faster:.1f} |"
        )
    for name, lasted in references.items():
        reached = rate(SAMPLES**2, layers[name].shape[1]) / lasted
        rows.append(f"| `cdist`, {name} | {lasted:.1f} s | {reached:.1f} GFLOP/s | {reached / peak:.2f} | 1.0 |")
    head = f"{datetime.now(UTC):%Y-%m-%d}, {machine()}; {SAMPLES:,} samples, {UNITS} units, float32, ten labels.\n"
    return "\n".join(
        [head, "| what | time | 2·N²·d | × sgemm | × `cdist` |", "| --- | ---: | ---: | ---: | ---: |", *rows]
    )


def rate(pairs: int, units: int) -> float:
    """GFLOP of so many pairs' products."""
    return 2 * units * pairs / 1e9


def main() -> None:
    """Measure in a process whose OpenBLAS chooses for itself, and keep the table."""
    environment = {name: value for name, value in os.environ.items() if name not in TOLD_TO_OPENBLAS}
    command = [sys.executable, "-m", "benchmarks.density", "measure"]
    keep("density", subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True, env=environment).stdout)


if __name__ == "__main__":
    print(measure(), end="") if len(sys.argv) > 1 else main()
