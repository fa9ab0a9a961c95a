"""What is kept of a store's results, by what it means now, and forgetting some of it.

A part that no waist asks for any more, since its run is gone or its waist means something else, is *unused*.
"""

from collections.abc import Collection, Iterator, Sequence
from typing import TYPE_CHECKING, Final

from ibstore.analyze.packs import rewrite
from ibstore.analyze.parts import Parts
from ibstore.analyze.tasks import TEXT_COLUMNS, Task

if TYPE_CHECKING:
    import polars as pl

RESULTS: Final = ("counts", "information_plane", "patterns")
"""Tables that are kept."""

BLOCKS: Final = "blocks"
"""Besides, where edges and counts of a layer in blocks are kept until the workers of a cluster have finished it."""

KEPT: Final = (*RESULTS, BLOCKS)


def kept(parts: Parts, todo: Sequence[Task], estimators: Sequence[str]) -> "pl.DataFrame":
    """Parts that are there: (table, run, split, layer, waist, estimator, part, epochs, bytes), a row a meaning of each.

    ``todo`` are the tasks of all waists and runs as they are now. An unused part has no run, split, layer and waist;
    ``epochs`` is how many a part has, None for the input and what is unused; an estimator has the plane alone.
    """
    import polars as pl

    meanings = [meaning for task in todo for meaning in _meanings(task, estimators)]
    found = [
        (table, key, size)
        for table in KEPT
        for key, size in {key: size for file in parts.files(table) for key, size in file.parts.items()}.items()
    ]
    names = dict.fromkeys(("table", "part", *TEXT_COLUMNS, "estimator"), pl.String)
    named = pl.DataFrame(meanings, schema={**names, "epochs": pl.Int64}, orient="row").unique()
    there = pl.DataFrame(found, schema={"table": pl.String, "part": pl.String, "bytes": pl.Int64}, orient="row")
    return (
        there.join(named, on=["table", "part"], how="left")
        .select("table", *TEXT_COLUMNS, "estimator", "part", "epochs", "bytes")
        .sort("table", *TEXT_COLUMNS, "estimator", "part", nulls_last=True)
    )


def _meanings(task: Task, estimators: Sequence[str]) -> Iterator[tuple[str | int | None, ...]]:
    """What each part of a task is: (table, part, run, split, layer, waist, estimator, epochs)."""
    names, epochs = task.names.values(), len(task.segment.record.epochs)
    yield "counts", task.counts_key, *names, None, epochs
    for estimator in estimators:
        for key, own in task.estimate_keys(estimator).items():
            yield "information_plane", key, *names, estimator, len(own)
    yield "patterns", task.t_key, *names, None, epochs
    yield "patterns", task.x_key, *(task.names | {"layer": "x"}).values(), None, None


def forget(parts: Parts, keys: Collection[str]) -> None:
    """Remove the parts of these content keys, out of packs too; what is asked for again is computed again."""
    for table in KEPT:
        for file in parts.files(table):
            gone = file.parts.keys() & set(keys)
            if gone and gone == file.parts.keys():
                parts.remove(table, file)
            elif gone:
                rewrite(parts, table, [file], gone)
