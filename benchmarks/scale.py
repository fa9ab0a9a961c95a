"""10^10 samples × 100 layers × 100 epochs on 100 nodes: single-core rates measured here, the rest simulated.

The table is kept in docs/scale.md.
"""

import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.measure import keep, machine
from benchmarks.simulation import HOUR, Layer, Nodes, Rates, simulate, stages
from ibstore.analyze.cluster.divide import MOST_BLOCKS, MOST_ROWS
from ibstore.analyze.cluster.hands import AT_ONCE
from ibstore.analyze.fit import Population
from ibstore.analyze.plan import Budget

PAGE = Path(__file__).parent.parent / "docs" / "scale.md"
SAMPLES, UNITS, BLOCKS, CLASSES = 400_000, 100, 4, 10
WAIST = "wide: *=identity | quantile(bins=4)"
"""Nearly all patterns differ, so that a block's counts have as many rows as it has samples: the worst case."""
TASKS = 4000

WHOLE_SAMPLES, LAYERS, EPOCHS = 10**10, 100, 100
NODES = Nodes(count=100, cores=32, network=25e9 / 8)
MEMORY = 4 << 30
"""Of a core."""

SHARE = 20
"""A twentieth of the nodes does a twentieth of the layers, with a twentieth of the scheduler's time."""


@dataclass(frozen=True)
class Case:
    """A row of the table."""

    name: str
    nodes: Nodes
    blocks: int = MOST_BLOCKS


CASES = [
    Case("100 nodes of 32 cores, 25 Gbit/s each", NODES),
    Case("the same, each layer in 1,024 blocks", NODES, 1024),
    Case("100 Gbit/s each", replace(NODES, network=100e9 / 8)),
    Case("8 cores each", replace(NODES, cores=8)),
    Case("a node ends every 20 hours", replace(NODES, failures=1 / 20)),
]


def main() -> None:
    with tempfile.TemporaryDirectory(prefix="ibstore-bench-") as text:
        rates = measure(Path(text))
    lines = [
        f"{datetime.now(UTC):%Y-%m-%d}, {machine()}. Of one core, on {SAMPLES:,} samples of {UNITS} units in float32 "
        f"under `{WAIST}`, in its own seconds:",
        "",
        "| what | rate |",
        "| --- | ---: |",
        f"| read and decompressed | {rates.decode / 1e9:.2f} GB/s raw |",
        f"| looked through for quantiles, in each of two passes | {rates.fit / 1e9:.2f} GB/s raw |",
        f"| narrowed and counted | {rates.count / 1e9:.2f} GB/s raw |",
        f"| blocks' counts added up | {rates.merge / 1e6:.2f} million rows/s |",
        f"| a row of blocks' counts | {rates.row:.1f} bytes |",
        f"| stored bytes by raw ones | {rates.stored:.2f} |",
        f"| Dask's scheduler, and who hands out | {rates.scheduler * 1e3:.1f} ms a task |",
        "",
        f"10^10 samples × {LAYERS} layers × {EPOCHS} epochs of {UNITS} units, simulated:",
        "",
        "| cluster | network / decoding / rest of a core | of all: | workers busy | lost with nodes | scheduler busy |",
        "| --- | ---: | ---: | ---: | ---: | ---: |",
        *[row(case, rates) for case in CASES],
    ]
    keep("scale", "\n".join(lines), PAGE)


def row(case: Case, rates: Rates) -> str:
    """What the simulation says of a case."""
    layer, nodes = divided(case.blocks), case.nodes
    some = replace(nodes, count=nodes.count // SHARE)
    layers, at_once = LAYERS * EPOCHS // SHARE, -(-AT_ONCE // case.blocks // SHARE)
    seen = simulate(layer, layers, at_once, replace(rates, scheduler=rates.scheduler * SHARE), some)
    reads = layer.fits + 1
    network = reads * layer.bytes * rates.stored / (nodes.network * nodes.count)
    decoding = reads * layer.bytes / rates.decode / nodes.workers
    whole = sum(stage.tasks * stage.seconds for stage in stages(layer, rates, nodes)) / nodes.workers
    shares = " / ".join(f"{part / whole:.0%}" for part in (network, decoding, whole - network - decoding))
    busy = (seen.worked + seen.lost) / seen.seconds / some.workers
    return (
        f"| {case.name} | {shares} | {seen.seconds / HOUR:,.0f} h | {busy:.0%} | "
        f"{seen.lost / (seen.worked + seen.lost):.1%} | {seen.scheduler / seen.seconds:.0%} |"
    )


def divided(blocks: int) -> Layer:
    """A layer as ibstore would divide it among workers of so much memory."""
    allowance = Budget(int(MEMORY * 0.7), 1).counting
    groups = allowance // Population(WHOLE_SAMPLES, UNITS).bytes_a_group((0.01, 0.99), 4)
    pieces, parts = -(-UNITS // max(1, groups)), -(-WHOLE_SAMPLES // MOST_ROWS)
    return Layer(WHOLE_SAMPLES, WHOLE_SAMPLES * UNITS * 4, blocks, pieces=pieces, parts=parts)


def measure(folder: Path) -> Rates:
    """Rates of one thread."""
    from ibstore.analyze.scan import fit_together
    from ibstore.analyze.sources import layer_source

    store = make(folder / "lab.zarr")
    task, budget = asked(store), Budget(2 << 30, 1)
    source = layer_source(task, [task.segment], 1)
    decoding = timed(lambda: list(source.passes(lambda *_: None)))
    fitting = timed(lambda: fit_together(source, [task.recipe], budget.counting))
    edges = fit_together(source, [task.recipe], budget.counting)
    counts: list[Path] = []
    counting = timed(lambda: counts.extend(count(task, edges[task.recipe], folder)))
    merging = timed(lambda: merge(counts))
    files = task.segment.files(task.split, task.layer)
    return Rates(
        decode=source.bytes / decoding,
        fit=2 * source.bytes / max(1e-9, fitting - 2 * decoding),
        count=source.bytes / max(1e-9, counting - decoding),
        merge=SAMPLES / merging,
        stored=sum(file.bytes for file in files.values()) / source.bytes,
        row=sum(path.stat().st_size for path in counts) / SAMPLES,
        scheduler=of_a_task(),
    )


def make(path: Path) -> Path:
    """Activations of ten classes after ReLU."""
    from ibstore.store import LayerInfo, Manifest, ProbeSet, RunWriter, SplitInfo, create_store, write_probe_set

    random = np.random.default_rng(0)
    y = np.arange(SAMPLES) % CLASSES
    create_store(path)
    probe = ProbeSet.of(np.arange(SAMPLES, dtype=np.float32)[:, None], y)
    split = SplitInfo("train", "train", write_probe_set(path, probe), SAMPLES)
    layer = LayerInfo("layer", "layer", (UNITS,), "float32")
    means = random.normal(size=(CLASSES, UNITS)).astype(np.float32)
    with RunWriter(path, Manifest("scale", (layer,), (split,)), {"train": probe.sample}) as writer:
        segment = writer.segment(0)
        for start in range(0, SAMPLES, SAMPLES // BLOCKS):
            labels = y[start : start + SAMPLES // BLOCKS]
            values = means[labels] + random.normal(size=(len(labels), UNITS)).astype(np.float32)
            segment.append("train", "layer", np.maximum(values, 0))
        segment.commit()
    return path


def asked(store: Path) -> Any:
    """The one task of the waist."""
    from ibstore import Study

    (task,) = Study(store).ask(WAIST).todo
    return task


def timed(work: Callable[[], object]) -> float:
    """Seconds of the processor in the second of two runs: the first one compiles."""
    for _ in range(2):
        start = time.process_time()
        work()
    return time.process_time() - start


def count(task: Any, edges: Any, folder: Path) -> Iterator[Path]:
    """Counts of each block, as a worker keeps them."""
    from ibstore.analyze.scan import scan
    from ibstore.analyze.sources import layer_source
    from ibstore.analyze.sql.counts import KeyCounter

    probe = task.run.probe(task.split)
    for span in task.segment.array(task.split, task.layer).spans(1, SAMPLES // BLOCKS):
        path = folder / f"counts{span.start}.parquet"
        with KeyCounter(512 << 20, 1) as counter:
            rows = slice(span.start, span.stop)
            counter.begin(probe.samples()[rows], probe.classes()[rows])
            take = partial(taken, counter, span.start)
            scan(layer_source(task, [task.segment], 1, within=span), {task.recipe: edges}, take)
            path.write_bytes(counter.partial("t")[0])
        yield path


def taken(counter: Any, first: int, _: Any, epoch: int, start: int, keys: Any) -> None:
    counter.take("t", epoch, start - first, keys)


def merge(counts: list[Path]) -> None:
    """The sum of the blocks' counts."""
    from ibstore.analyze.sql.partial import summed

    summed(list(dict.fromkeys(counts)), [], 512 << 20, 1)


def of_a_task() -> float:
    """Seconds of a scheduler, and of who hands out, for each of many small tasks of one worker."""
    from distributed import Client, LocalCluster

    options = {"threads_per_worker": 1, "dashboard_address": "127.0.0.1:0"}
    with LocalCluster(n_workers=1, **options) as cluster, Client(cluster, set_as_default=False) as client:
        before = time.process_time()  # the scheduler is in this process
        client.gather([client.submit(abs, number, key=f"{number}") for number in range(TASKS)])
        return (time.process_time() - before) / TASKS


if __name__ == "__main__":
    main()
