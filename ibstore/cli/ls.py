"""`ibstore ls`: the runs of a store. Plain JSON is read, so that it starts at once."""

import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from ibstore.cli.arguments import StoreArgument
from ibstore.cli.output import Format, FormatOption, OutOption, write
from ibstore.store.shown import HEAD, cells

if TYPE_CHECKING:
    from ibstore.store.reader import Listed

NAME = "ls"


def command(store: StoreArgument, form: FormatOption = None, out: OutOption = None) -> None:
    """List the runs of a store: epochs, layers, samples, size.

    A damaged run is listed with what of it can be read, and a note.

    Example: `ibstore ls lab.zarr`
    """
    from ibstore.store.reader import Store

    runs = Store.open(store).listing()
    if form in {None, Format.TABLE} and out is None:
        sys.stdout.write(_columns([HEAD, *map(cells, runs)]))
        return
    import polars as pl

    texts, whole = pl.List(pl.String()), pl.Int64()
    kinds = [("run", pl.String()), ("epochs", pl.List(whole)), ("layers", texts), ("splits", texts)]
    schema = pl.Schema([*kinds, ("raw_bytes", whole), ("stored_bytes", whole), ("damaged", pl.Boolean())])
    write(pl.DataFrame([_record(found) for found in runs], schema=schema), form, out)


def _record(found: "Listed") -> dict[str, Any]:
    record: dict[str, Any] = {"run": found.name, "damaged": bool(found.damage)}
    if found.run is None:
        return record
    run = found.run
    return record | {
        "epochs": run.epochs,
        "layers": [layer.name for layer in run.manifest.layers],
        "splits": [split.name for split in run.manifest.splits],
        "raw_bytes": run.raw_bytes,
        "stored_bytes": run.stored_bytes,
    }


def _columns(rows: Sequence[Sequence[str]]) -> str:
    """Rows of text side by side, every column as wide as its widest cell."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) for row in rows]
    return "".join(f"{line.rstrip()}\n" for line in lines)
