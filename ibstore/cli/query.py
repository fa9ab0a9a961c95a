"""`ibstore query`: one SELECT over a store and its results."""

import sys
from typing import Annotated

import typer

from ibstore.cli.arguments import StoreArgument
from ibstore.cli.output import FormatOption, OutOption, QuietOption, ResultsOption, write
from ibstore.cli.progress import listening
from ibstore.events import Event

NAME = "query"


def command(
    store: StoreArgument,
    sql: Annotated[str, typer.Argument(metavar="SQL", help="One SELECT, or - to read it from stdin.")],
    form: FormatOption = None,
    out: OutOption = None,
    results: ResultsOption = None,
    quiet: QuietOption = False,
) -> None:
    """Ask one SELECT over a store and its results.

    In DuckDB's SQL.
    Tables: `runs`, `layers`, `epochs`, `samples`, `entropies`, `information_plane`, `patterns`, `joint_counts`;
    `activations`, a row for each stored value, and `wide.LAYER`, a row for each sample, are read from the store as the
    query needs them. The query can read these and nothing else, and can write nothing. `DESCRIBE activations` lists a
    table's columns.

    Example: `ibstore query lab.zarr "SELECT epoch, layer, i_xt, i_ty FROM information_plane WHERE
    waist = 'thesis-6.2' ORDER BY layer, epoch"`
    """
    from ibstore.analyze import Study

    text = sys.stdin.read() if sql == "-" else sql
    with listening(quiet) as emit:
        table = Study(store, results).query(
            text, emit, damaged=lambda error: emit(Event("notice", detail=f"left out: {error}"))
        )
    write(table, form, out)
