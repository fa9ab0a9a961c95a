"""`ibstore ls`: the runs of a store. Plain JSON is read, so that it starts at once."""

import sys
from typing import TYPE_CHECKING, Any

from ibstore.cli.arguments import StoreArgument
from ibstore.cli.output import Format, FormatOption, OutOption, write
from ibstore.store.format.layout import size

if TYPE_CHECKING:
    from ibstore.store.reader import Listed

NAME = "ls"
DAMAGED = "damaged: see `ibstore verify`"


def command(store: StoreArgument, form: FormatOption = None, out: OutOption = None) -> None:
    """List the runs of a store: epochs, layers, samples, size.

    A damaged run is listed with what of it can be read, and a note.

    Example: `ibstore ls lab.zarr`
    """
    from ibstore.store.reader import Store

    runs = Store.open(store).listing()
    if form in {None, Format.TABLE} and out is None:
        sys.stdout.write(_columns([["run", "epochs", "layers", "splits", "size", ""], *map(_row, runs)]))
        return
    import polars as pl

    texts, whole = pl.List(pl.String()), pl.Int64()
    kinds = [("run", pl.String()), ("epochs", pl.List(whole)), ("layers", texts), ("splits", texts)]
    schema = pl.Schema([*kinds, ("raw_bytes", whole), ("stored_bytes", whole), ("damaged", pl.Boolean())])
    write(pl.DataFrame([_record(found) for found in runs], schema=schema), form, out)


def _row(found: "Listed") -> list[str]:
    from ibstore.store.format.layout import listed

    note = DAMAGED if found.damage else ""
    if found.run is None:
        return [found.name, "–", "–", "–", "–", note]
    run = found.run
    layers = ", ".join(layer.name for layer in run.manifest.layers)
    splits = ", ".join(f"{split.name} ({split.samples})" for split in run.manifest.splits)
    return [run.name, listed(run.epochs), layers, splits, size(run.stored_bytes), note]


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


def _columns(rows: list[list[str]]) -> str:
    """Rows of text side by side, every column as wide as its widest cell."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) for row in rows]
    return "".join(f"{line.rstrip()}\n" for line in lines)
