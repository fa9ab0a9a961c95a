"""What is kept of a store's results, by what it means now, and forgetting some of it.

A part that no waist asks for any more, since its run is gone or its waist means something else, is *unused*.
"""

from collections.abc import Collection, Sequence
from typing import TYPE_CHECKING, Final

from ibstore.analyze.packs import rewrite
from ibstore.analyze.parts import Parts
from ibstore.analyze.plane import TEXT_COLUMNS, Task

if TYPE_CHECKING:
    import polars as pl

RESULTS: Final = ("information_plane", "patterns")
"""Tables that are kept."""


def kept(parts: Parts, todo: Sequence[Task]) -> "pl.DataFrame":
    """Parts that are there: (table, run, split, layer, waist, part, epochs, bytes), a row for each meaning of each.

    ``todo`` are the tasks of all waists and runs as they are now. An unused part has no run, split, layer and waist;
    ``epochs`` is how many a part has, None for the input and what is unused.
    """
    import polars as pl

    meanings = [("information_plane", task.key, len(task.segment.record.epochs), *task.names.values()) for task in todo]
    meanings += [("patterns", task.t_key, len(task.segment.record.epochs), *task.names.values()) for task in todo]
    meanings += [("patterns", task.x_key, None, *(task.names | {"layer": "x"}).values()) for task in todo]
    found = [
        (table, key, size)
        for table in RESULTS
        for key, size in {key: size for file in parts.files(table) for key, size in file.parts.items()}.items()
    ]
    named = pl.DataFrame(
        meanings,
        schema={"table": pl.String, "part": pl.String, "epochs": pl.Int64, **dict.fromkeys(TEXT_COLUMNS, pl.String)},
        orient="row",
    ).unique()
    there = pl.DataFrame(found, schema={"table": pl.String, "part": pl.String, "bytes": pl.Int64}, orient="row")
    return (
        there.join(named, on=["table", "part"], how="left")
        .select("table", *TEXT_COLUMNS, "part", "epochs", "bytes")
        .sort("table", *TEXT_COLUMNS, "part", nulls_last=True)
    )


def forget(parts: Parts, keys: Collection[str]) -> None:
    """Remove the parts of these content keys, out of packs too; what is asked for again is computed again."""
    for table in RESULTS:
        for file in parts.files(table):
            gone = file.parts.keys() & set(keys)
            if gone and gone == file.parts.keys():
                parts.remove(table, file)
            elif gone:
                rewrite(parts, table, [file], gone)
