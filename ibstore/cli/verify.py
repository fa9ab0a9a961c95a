"""`ibstore verify`: whether a store is whole."""

import json
import sys
from typing import TYPE_CHECKING, Annotated

import typer

from ibstore.cli.arguments import StoreArgument
from ibstore.cli.output import SUFFIXES, Format, FormatOption, OutOption, QuietOption, write
from ibstore.cli.progress import listening
from ibstore.store.places.disk import save

if TYPE_CHECKING:
    import polars as pl

    from ibstore.store.upkeep.report import Report, RunReport

NAME = "verify"


def command(
    store: StoreArgument,
    deep: Annotated[bool, typer.Option("--deep", help="Read every file: checksums, chunks, digests.")] = False,
    form: FormatOption = None,
    out: OutOption = None,
    quiet: QuietOption = False,
) -> None:
    """Check that a store is whole, and tell what of it is good.

    Checks the records, that every committed file is there with its size, shapes against the manifests, and that
    nothing lies there that no record names. Exit 1 when anything is wrong. `json` has the whole report.

    Example: `ibstore verify lab.zarr --deep`
    """
    from ibstore.store.upkeep.verify import verify

    with listening(quiet) as emit:
        report = verify(store, deep=deep, emit=emit)
    chosen = form or (Format.TABLE if out is None else SUFFIXES.get(out.suffix.lower()))
    if chosen not in {Format.TABLE, Format.JSON}:
        write(_frame(report), form, out)
    else:
        text = _text(report) if chosen is Format.TABLE else json.dumps(report.dump(), ensure_ascii=False) + "\n"
        sys.stdout.write(text) if out is None else save(out, text.encode(), "--out")
    if not report.ok:
        raise typer.Exit(1)


def _text(report: "Report") -> str:
    lines = [f"{found.kind}: {found.message}" for found in report.findings]
    lines += [_summary(run) for run in report.runs]
    lines += [f"probe set {probe.digest}: {'whole' if probe.whole else 'damaged'}" for probe in report.probe_sets]
    damage, leftovers = len(report.damage), len(report.leftovers)
    verdict = "nothing is wrong" if report.ok else f"{damage} damaged, {leftovers} left over"
    how = "every file was read" if report.deep else "sizes and records were checked; --deep reads every file"
    return "\n".join([*lines, f"{report.store}: {verdict} ({how})"]) + "\n"


def _summary(run: "RunReport") -> str:
    notes = ["" if run.described else ", its manifest is damaged", ", being written" if run.writing else ""]
    return f"run {run.run}: {len(run.whole)} of {len(run.epochs)} epochs whole{''.join(notes)}"


def _frame(report: "Report") -> "pl.DataFrame":
    """A row for each finding."""
    import polars as pl

    text = pl.String()
    names = ("kind", "run", "epochs", "split", "layer", "key", "message")
    schema = pl.Schema({name: pl.List(pl.Int64()) if name == "epochs" else text for name in names})
    rows = [[str(found.kind), *(getattr(found, name) for name in names[1:])] for found in report.findings]
    return pl.DataFrame([dict(zip(names, row, strict=True)) for row in rows], schema=schema)
