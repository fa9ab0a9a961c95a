"""`ibstore ls`: the runs of a store. Plain JSON is read, so that it starts at once."""

import sys

from ibstore.cli.arguments import StoreArgument
from ibstore.cli.output import Format, FormatOption, OutOption, write
from ibstore.cli.progress import size

NAME = "ls"


def command(store: StoreArgument, form: FormatOption = None, out: OutOption = None) -> None:
    """List the runs of a store: epochs, layers, samples, size.

    **Example:** `ibstore ls lab.zarr`
    """
    from ibstore.store.reader import Store, listed

    runs = Store.open(store).runs()
    if form in {None, Format.TABLE} and out is None:
        rows = [
            [
                run.name,
                listed(run.epochs),
                ", ".join(layer.name for layer in run.manifest.layers),
                ", ".join(f"{split.name} ({split.samples})" for split in run.manifest.splits),
                size(run.stored_bytes),
            ]
            for run in runs
        ]
        sys.stdout.write(_columns([["run", "epochs", "layers", "splits", "size"], *rows]))
        return
    import polars as pl

    records = [
        {
            "run": run.name,
            "epochs": run.epochs,
            "layers": [layer.name for layer in run.manifest.layers],
            "splits": [split.name for split in run.manifest.splits],
            "raw_bytes": run.raw_bytes,
            "stored_bytes": run.stored_bytes,
        }
        for run in runs
    ]
    texts, whole = pl.List(pl.String()), pl.Int64()
    kinds = [("run", pl.String()), ("epochs", pl.List(whole)), ("layers", texts), ("splits", texts)]
    schema = pl.Schema([*kinds, ("raw_bytes", whole), ("stored_bytes", whole)])
    write(pl.DataFrame(records, schema=schema), form, out)


def _columns(rows: list[list[str]]) -> str:
    """Rows of text side by side, every column as wide as its widest cell."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) for row in rows]
    return "".join(f"{line.rstrip()}\n" for line in lines)
