"""`ibstore query`: one SELECT over a store and its results."""

import sys
from typing import TYPE_CHECKING, Annotated

import typer

from ibstore.cli.arguments import StoreArgument
from ibstore.cli.output import FormatOption, OutOption, QuietOption, ResultsOption, write
from ibstore.cli.progress import listening, tell
from ibstore.errors import UsageError
from ibstore.events import Event

if TYPE_CHECKING:
    from collections.abc import Callable

    from ibstore.analyze import Study

NAME = "query"


def command(
    store: StoreArgument,
    sql: Annotated[
        str | None,
        typer.Argument(
            metavar="[SQL]", help="One SELECT, or - to read it from stdin; without it a prompt.", show_default=False
        ),
    ] = None,
    form: FormatOption = None,
    out: OutOption = None,
    results: ResultsOption = None,
    quiet: QuietOption = False,
) -> None:
    """Ask one SELECT over a store and its results.

    In DuckDB's SQL. Without one, on a terminal, a prompt with history and completion: one SELECT after another.
    Tables: `runs`, `layers`, `epochs`, `samples`, `entropies`, `information_plane`, `patterns`, `joint_counts`;
    `activations`, a row for each stored value, and `wide.LAYER`, a row for each sample, are read from the store as the
    query needs them. The query can read these and nothing else, and can write nothing. `DESCRIBE activations` lists a
    table's columns.

    Example: `ibstore query lab.zarr "SELECT epoch, layer, i_xt, i_ty FROM information_plane WHERE
    waist = 'thesis-6.2' ORDER BY layer, epoch"`
    """
    from ibstore.analyze import Study

    study = Study(store, results)

    def answer(text: str) -> None:
        with listening(quiet) as emit:  # bars are drawn while an answer is made, and never over a prompt
            table = study.query(text, emit, damaged=lambda error: emit(Event("notice", detail=f"left out: {error}")))
        write(table, form, out)

    if sql is None:
        _converse(study, answer)
    else:
        answer(sys.stdin.read() if sql == "-" else sql)


def _converse(study: "Study", answer: "Callable[[str], None]") -> None:
    """Ask on a terminal what is to be answered."""
    from ibstore.analyze.sql.tables import TABLES
    from ibstore.cli.prompt import HINT, KEYWORDS, converse, remembering

    if not sys.stdin.isatty():
        raise UsageError("there is no SQL; give one SELECT, or - to read it from stdin")
    tell(HINT)
    columns = study.query("SELECT DISTINCT column_name FROM information_schema.columns ORDER BY 1")["column_name"]
    with remembering([*KEYWORDS, *TABLES, *columns]):
        converse(answer)
