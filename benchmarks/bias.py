"""How far estimators of entropy are off: known distributions, 10² to 10⁵ samples; and what an estimate costs.

``python -m benchmarks.bias`` writes the tables into docs/estimators.md and the picture beside it.
"""

import math
import time
from collections.abc import Iterator

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray

from benchmarks.measure import DOCUMENT, keep, machine
from ibstore.analyze.estimate.entropy import CountsOfCounts, find_estimator
from ibstore.analyze.plots.style import COLOURS, STYLE

PAGE = DOCUMENT.parent / "estimators.md"
PICTURE = DOCUMENT.parent / "bias.png"
ESTIMATORS = (
    *("plugin", "miller_madow", "jackknife", "grassberger", "zhang", "chao_shen", "chao_wang_jost", "good_turing"),
    *("shrink", "jeffreys", "laplace", "perks", "minimax", "nsb", "ansb", "bonachela"),
)
DRAWN = ("plugin", "miller_madow", "jackknife", "grassberger", "chao_shen", "chao_wang_jost", "good_turing", "nsb")
SIZES = [round(10 ** (exponent / 2)) for exponent in range(4, 11)]
TOLD = (100, 1_000, 10_000)
DRAWS = 20
TIMES = 10

Probabilities = NDArray[np.float64]


def distributions() -> dict[str, Probabilities]:
    """What is drawn from: probabilities of the keys."""
    zipf = 1 / np.arange(1, 100_001)
    geometric = 0.99 ** np.arange(3_000)
    ones = np.array([bin(pattern).count("1") for pattern in range(1 << 16)])
    return {
        "uniform, 1,000 keys": np.full(1_000, 1e-3),
        "geometric, p = 0.01": geometric / geometric.sum(),
        "Zipf, 100,000 keys": zipf / zipf.sum(),
        "16 units, on with p = 0.1": 0.1**ones * 0.9 ** (16 - ones),
    }


def entropy(p: Probabilities) -> float:
    """In bits."""
    return float(-(p * np.log2(p)).sum())


def draws(p: Probabilities, samples: int) -> Iterator[CountsOfCounts]:
    """Counts of counts of a few samples of that size."""
    random = np.random.default_rng(samples)
    for _ in range(DRAWS):
        counts = random.multinomial(samples, p)
        yield counts_of_counts(counts[counts > 0])


def counts_of_counts(counts: NDArray[np.int64]) -> CountsOfCounts:
    """Of the keys' counts."""
    return CountsOfCounts(*np.unique(counts, return_counts=True))


def errors() -> dict[str, dict[int, dict[str, NDArray[np.float64]]]]:
    """Estimate − truth in bits, of each draw, by distribution, sample size and estimator."""
    found: dict[str, dict[int, dict[str, NDArray[np.float64]]]] = {}
    for name, p in distributions().items():
        for samples in SIZES:
            drawn = list(draws(p, samples))
            found.setdefault(name, {})[samples] = {
                each: np.array([counts.entropy(each) for counts in drawn]) - entropy(p) for each in ESTIMATORS
            }
    return found


def table(found: dict[str, dict[int, dict[str, NDArray[np.float64]]]]) -> str:
    """Mean error ± standard deviation over the draws, in bits."""
    heads = [f"{name}: {samples:,}" for name in found for samples in TOLD]
    lines = ["| N = | " + " | ".join(heads) + " |", "| --- |" + " ---: |" * len(heads)]
    for each in ESTIMATORS:
        cells = [found[name][samples][each] for name in found for samples in TOLD]
        lines.append(f"| `{each}` | " + " | ".join(map(_cell, cells)) + " |")
    return "\n".join(lines)


def _cell(errors: NDArray[np.float64]) -> str:
    """Mean and deviation; a dash where there are none, as of `ansb` without coincidences."""
    return f"{errors.mean():+.2f} ± {errors.std():.2f}" if np.isfinite(errors).all() else "–"


def draw(found: dict[str, dict[int, dict[str, NDArray[np.float64]]]]) -> None:
    """A panel a distribution: mean error against N, a line an estimator."""
    import matplotlib as mpl

    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(11, 7.6), layout="constrained")
        for axis, (name, by_size) in zip(figure.subplots(2, 2).ravel(), found.items(), strict=True):
            axis.axhline(0, color="#444444", linewidth=1)
            for colour, each in zip(COLOURS, DRAWN, strict=True):
                means = [by_size[samples][each].mean() for samples in SIZES]
                axis.plot(SIZES, means, color=colour, marker="o", markersize=3.5, label=each.replace("_", " "))
            axis.set_xscale("log")
            axis.set_ylim(-4, 1.5)
            axis.set_title(f"{name}: H = {entropy(distributions()[name]):.2f} bits")
            axis.set_xlabel("samples")
            axis.set_ylabel("mean error, bits")
        figure.legend(*axis.get_legend_handles_labels(), loc="outside lower center", ncols=4)
        figure.savefig(PICTURE)


def costs() -> str:
    """Time of one estimate from 60,000 samples with about 50,000 keys, against the plug-in's."""
    random = np.random.default_rng(0)
    counts = counts_of_counts(np.unique(random.integers(170_000, size=60_000), return_counts=True)[1])
    seconds = {each: min(_timed(each, counts) for _ in range(5)) for each in ESTIMATORS}
    rows = [f"| `{each}` | {1e6 * s:,.1f} µs | {s / seconds['plugin']:.1f} |" for each, s in seconds.items()]
    head = f"{counts.samples:,} samples, {counts.distinct:,} keys; {machine()}\n"
    return "\n".join([head, "| estimator | time | × plugin |", "| --- | ---: | ---: |", *rows])


def _timed(estimator: str, counts: CountsOfCounts) -> float:
    function = find_estimator(estimator)
    start = time.perf_counter()
    for _ in range(TIMES):
        value = function(counts.multiplicity, counts.keys, counts.samples)
    seconds = (time.perf_counter() - start) / TIMES
    assert math.isfinite(value)
    return seconds


def main() -> None:
    """Measure, and keep tables and picture."""
    found = errors()
    keep("bias", table(found), PAGE)
    keep("costs", costs(), PAGE)
    draw(found)


if __name__ == "__main__":
    main()
