"""Stored values as sources for scans: a layer over some epochs, and the input."""

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from ibstore.analyze.scan import Source, Work
from ibstore.analyze.tasks import Task
from ibstore.store import Segment


def layer_source(
    task: Task,
    segments: Sequence[Segment],
    threads: int,
    positions: Sequence[int] | None = None,
    within: range | None = None,
) -> Source:
    """The stored values of a task's layer in some segments of its run as one, or in some epochs of a single one.

    Of all samples, or of a span of them that can be read by itself.
    """
    epochs = [epoch for segment in segments for epoch in segment.record.epochs]
    names = [f"{task.what}, epoch {epochs[at]}" for at in (range(len(epochs)) if positions is None else positions)]

    def passes(work: Work) -> Iterator[Any]:
        before = 0
        for segment in segments:
            yield from segment.map(task.split, task.layer, _from(before, work), threads, positions, within)
            before += len(segment.record.epochs)

    return Source(passes, tuple(names), task.layer.shape, np.dtype(task.layer.dtype), task.split.samples)


def _from(before: int, work: Work) -> Work:
    return lambda epoch, start, values: work(before + epoch, start, values)


def input_source(task: Task, threads: int) -> Source:
    """The input of a task's split, as one epoch."""
    probe = task.run.probe(task.split)
    shape, dtype = probe.x_form()
    name = f"input x of run {task.run.name!r}"

    def passes(work: Work) -> Iterator[Any]:
        return probe.map_x(lambda start, block: work(0, start, block[None]), threads)

    return Source(passes, (name,), shape, dtype, task.split.samples, remedy="mend the data")
