"""Entropies of 10^5 to 10^8 samples by counting their keys: how time and memory grow.

Generated keys of eight bytes, half as many patterns as samples, an input of a tenth as many, ten labels; given to the
counter block by block, as a scan does.
"""

import math
import sys
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

import numpy as np

from benchmarks.measure import keep, machine, measured, report

SIZES = [10**5, 10**6, 10**7, 10**8]
BLOCK, MEMORY, LABELS = 1 << 20, 2 << 30, 10


def main() -> None:
    costs = {size: measured("benchmarks.counting", str(size), repeats=3 if size < 10**7 else 1) for size in SIZES}
    lines = [
        f"{datetime.now(UTC):%Y-%m-%d}, {machine()}; the counter may use {MEMORY >> 30} GiB.",
        "",
        "| samples | H(X), H(Y), H(T), H(X,T), H(T,Y) | a sample | peak memory | exponent |",
        "| ---: | ---: | ---: | ---: | ---: |",
    ]
    before = None
    for size, cost in costs.items():
        exponent = "" if before is None else f"{math.log(cost.seconds / before) / math.log(10):.2f}"
        nanoseconds = cost.seconds / size * 1e9
        memory = f"{cost.peak_bytes / 2**30:.2f} GiB"
        lines.append(f"| {size:,} | {cost.seconds:.2f} s | {nanoseconds:.0f} ns | {memory} | {exponent} |")
        before = cost.seconds
    logs = np.log10([[size, cost.seconds] for size, cost in costs.items()])
    slope = float(np.polyfit(logs[:, 0], logs[:, 1], 1)[0])
    keep("counting", "\n".join([*lines, "", f"Fitted to all: time ∝ N^{slope:.2f}."]))


def blocks(size: int, patterns: int, seed: int) -> Iterator[tuple[int, Any]]:
    """First row and keys, (sample, byte), of samples with so many patterns."""
    rng = np.random.default_rng(seed)
    for start in range(0, size, BLOCK):
        numbers = rng.integers(0, patterns, min(BLOCK, size - start), dtype=np.uint64)
        yield start, (numbers * np.uint64(0x9E3779B97F4A7C15)).view(np.uint8).reshape(-1, 8)


def count(size: int) -> dict[str, float]:
    """Entropies in bits."""
    from ibstore.analyze.sql.counts import KeyCounter

    with KeyCounter(MEMORY) as counter:
        counter.begin(np.arange(size), np.random.default_rng(0).integers(0, LABELS, size))
        for start, keys in blocks(size, size // 10, 1):
            counter.take("x", None, start, keys)
        counter.name_inputs("x")
        counter.drop("x")
        for start, keys in blocks(size, size // 2, 2):
            counter.take("t", 0, start, keys)
        found = counter.counts("t", ["x"])["x"][0]
    return {name: counts.entropy() for name, counts in found.items()}


def load_modules() -> None:
    """Import, and start, what the work uses first, so that it is not counted."""
    count(1000)


if __name__ == "__main__":
    if len(sys.argv) > 1:
        load_modules()
        report(lambda: count(int(sys.argv[1])))
    else:
        main()
