"""Measuring a piece of work as a process of its own: wall time and peak memory."""

import json
import os
import platform
import re
import resource
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

DOCUMENT = Path(__file__).parent.parent / "docs" / "benchmarks.md"


@dataclass(frozen=True)
class Cost:
    """Seconds of the work itself (imports not counted) and the process's peak resident memory in bytes."""

    seconds: float
    peak_bytes: int


def measured(module: str, *arguments: str, repeats: int = 1) -> Cost:
    """Median run of ``python -m module arguments`` that ends in `report`, by time."""
    costs = []
    for _ in range(repeats):
        done = subprocess.run([sys.executable, "-m", module, *arguments], check=True, stdout=subprocess.PIPE, text=True)
        costs.append(Cost(**json.loads(done.stdout.splitlines()[-1])))
    return sorted(costs, key=lambda cost: cost.seconds)[len(costs) // 2]


def report(work: Callable[[], object]) -> None:
    """Do the work and print its cost as the last line, for `measured` to read."""
    start = time.perf_counter()
    work()
    seconds = time.perf_counter() - start
    print(json.dumps({"seconds": seconds, "peak_bytes": _peak_bytes()}))


def _peak_bytes() -> int:
    """Peak of this process; getrusage's, where the system has no better, is also that of who started it."""
    status = Path("/proc/self/status")
    if status.exists():
        return int(re.findall(r"VmHWM:\s+(\d+) kB", status.read_text())[0]) * 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def machine() -> str:
    """What the figures were measured on."""
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    return f"{os.cpu_count()} cores ({platform.machine()}), {memory:.0f} GiB, Python {platform.python_version()}"


def keep(name: str, text: str, path: Path = DOCUMENT) -> None:
    """Put ``text`` between the marks of ``name`` in a page of docs, and print it."""
    print(text)
    document = path.read_text(encoding="utf-8")
    block = re.compile(rf"(<!-- {name} -->\n).*?(<!-- /{name} -->)", re.DOTALL)
    path.write_text(block.sub(lambda marks: f"{marks[1]}{text}\n{marks[2]}", document), encoding="utf-8")
