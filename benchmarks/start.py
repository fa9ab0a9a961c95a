"""Whole commands in a cold process, against the imports that they cannot do without."""

import os
import statistics
import subprocess
import sys
import tempfile
import time
from datetime import UTC, datetime
from pathlib import Path

from benchmarks.measure import keep, machine

REPEATS = 9
ENVIRONMENT = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
"""Python's compiled files are kept, as they are for users."""

IBSTORE = [sys.executable, "-c", "from ibstore.cli import main; main()"]


def main() -> None:
    with tempfile.TemporaryDirectory(prefix="ibstore-bench-") as folder:
        store = str(Path(folder, "lab.zarr"))
        again = [*IBSTORE, "analyze", store]
        for command in ([*IBSTORE, "capture", "mnist-cnn", "--store", store, "--epochs", "1", "-q"], again):
            subprocess.run(command, check=True, capture_output=True)
        measured = {
            "import typer, rich": seconds([sys.executable, "-c", "import typer, rich"]),
            "`ibstore --help`": seconds([*IBSTORE, "--help"]),
            "`ibstore ls`": seconds([*IBSTORE, "ls", store]),
            "import duckdb, polars": seconds([sys.executable, "-c", "import duckdb, polars"]),
            "`ibstore analyze` again": seconds(again),
        }
    references = {"`ibstore analyze` again": "import duckdb, polars"}
    lines = [
        f"{datetime.now(UTC):%Y-%m-%d}, {machine()}; median of {REPEATS} cold processes.",
        "",
        "| what | time | × its imports |",
        "| --- | ---: | ---: |",
    ]
    for name, time_ in measured.items():
        reference = measured[references.get(name, "import typer, rich")]
        ratio = f"{time_ / reference:.2f}" if name.startswith("`") else ""
        lines.append(f"| {name} | {time_:.2f} s | {ratio} |")
    keep("start", "\n".join(lines))


def seconds(command: list[str]) -> float:
    """Median wall time of a command."""
    found = []
    for _ in range(REPEATS + 1):
        begun = time.perf_counter()
        subprocess.run(command, check=True, capture_output=True, env=ENVIRONMENT)
        found.append(time.perf_counter() - begun)
    return statistics.median(found[1:])  # the first one compiled what was not compiled yet


if __name__ == "__main__":
    main()
