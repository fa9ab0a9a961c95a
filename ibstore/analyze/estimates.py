"""Counts of counts as they are kept, and what estimators make of them: for another one nothing is counted again."""

from collections.abc import Iterable, Mapping, Sequence
from io import BytesIO
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from ibstore.analyze.estimate.entropy import CountsOfCounts
from ibstore.analyze.parts import Parts
from ibstore.analyze.plane import rows
from ibstore.analyze.tasks import Task
from ibstore.events import Emit, Event

if TYPE_CHECKING:
    import polars as pl

Counted = Mapping[int, Mapping[str, CountsOfCounts]]
"""Counts of counts by epoch and variable (x, y, t, xt and ty); without labels there is no y and no ty."""

AT_ONCE: Final = 64
"""Tasks whose counts are read together."""


def keep(task: Task, counted: Counted, estimators: Sequence[str], parts: Parts) -> None:
    """Keep a task's counts of counts, and what the estimators make of them.

    The counts come first, so that they are there whenever an estimate is.
    """
    put(parts, "counts", task.counts_key, _frame(task.counts_key, counted))
    for estimator in estimators:
        _keep_estimate(task, counted, estimator, parts)


def _keep_estimate(task: Task, counted: Counted, estimator: str, parts: Parts) -> None:
    key = task.plane_key(estimator)
    put(parts, "information_plane", key, rows(key, task.segment.record.epochs, counted, estimator))


def put(parts: Parts, table: str, key: str, frame: "pl.DataFrame") -> None:
    """Keep a frame as a part."""
    content = BytesIO()
    frame.write_parquet(content)
    parts.put(table, key, content.getvalue())


def lacking(todo: Iterable[Task], estimators: Sequence[str], parts: Parts) -> list[tuple[Task, list[str]]]:
    """Tasks that lack an estimate, each with the estimators it lacks; of tasks with the same content one."""
    wanted = {task.counts_key: task for task in todo}
    keys = {(key, name): task.plane_key(name) for key, task in wanted.items() for name in estimators}
    there = parts.existing("information_plane", set(keys.values()))
    lacks = {key: [name for name in estimators if keys[key, name] not in there] for key in wanted}
    return [(task, lacks[key]) for key, task in wanted.items() if lacks[key]]


def fill(todo: Iterable[Task], estimators: Sequence[str], parts: Parts, emit: Emit) -> None:
    """Make the estimates that tasks lack and whose counts are kept."""
    missing = lacking(todo, estimators, parts)
    known: dict[bytes, CountsOfCounts] = {}
    for start in range(0, len(missing), AT_ONCE):
        emit(Event("estimate", start, len(missing), ", ".join(estimators)))
        some = missing[start : start + AT_ONCE]
        counted = _read(parts, [task.counts_key for task, _ in some], known)
        for task, names in some:
            for name in names:
                _keep_estimate(task, counted.get(task.counts_key, {}), name, parts)
    if missing:
        emit(Event("estimate", len(missing), len(missing)))


def _frame(key: str, counted: Counted) -> "pl.DataFrame":
    """Counts as rows (part, epoch, variable, n, keys)."""
    import polars as pl

    each = [(epoch, variable, counts) for epoch, own in counted.items() for variable, counts in own.items()]
    lengths = [len(counts.keys) for *_, counts in each]
    places = np.repeat(np.arange(len(each)), lengths)
    nothing = [np.empty(0, np.int64)]
    found = {
        "epoch": np.array([epoch for epoch, *_ in each], np.int64)[places],
        "variable": pl.Series([variable for _, variable, _ in each], dtype=pl.String)[places],
        "n": np.concatenate([*nothing, *(counts.multiplicity for *_, counts in each)]),
        "keys": np.concatenate([*nothing, *(counts.keys for *_, counts in each)]),
    }
    return pl.DataFrame(found).select(pl.lit(key).alias("part"), pl.all())


def _read(parts: Parts, keys: Sequence[str], known: dict[bytes, CountsOfCounts]) -> dict[str, Any]:
    """Kept counts by content key, epoch and variable; those that are equal are one, whose entropies are known."""
    import polars as pl

    found: dict[str, dict[int, dict[str, CountsOfCounts]]] = {}
    for frame in parts.rows("counts", keys):
        grouped = frame.group_by("part", "epoch", "variable", maintain_order=True).agg(pl.col("n"), pl.col("keys"))
        for part, epoch, variable, n, many in grouped.iter_rows():
            counts = np.array([n, many], np.int64)
            same = known.setdefault(counts.tobytes(), CountsOfCounts(counts[0], counts[1]))
            found.setdefault(part, {}).setdefault(epoch, {})[variable] = same
    return found
