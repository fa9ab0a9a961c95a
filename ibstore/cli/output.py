"""Tables to stdout or to a file, in one of five formats; one place for all commands."""

import io
import sys
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final

import typer

from ibstore.errors import UsageError, WriteError

if TYPE_CHECKING:
    import polars as pl


class Format(StrEnum):
    """How a table is written."""

    TABLE = "table"
    CSV = "csv"
    JSON = "json"
    MARKDOWN = "markdown"
    PARQUET = "parquet"


SUFFIXES: Final = {
    ".csv": Format.CSV,
    ".json": Format.JSON,
    ".md": Format.MARKDOWN,
    ".parquet": Format.PARQUET,
    ".txt": Format.TABLE,
}

FormatOption = Annotated[
    Format | None,
    typer.Option("--format", "-f", help="Form of the table; by default what --out's ending says, else `table`."),
]
OutOption = Annotated[Path | None, typer.Option("--out", "-o", help="Write to this file instead of stdout.")]
QuietOption = Annotated[bool, typer.Option("--quiet", "-q", help="No progress, no notices.")]
ResultsOption = Annotated[
    Path | None, typer.Option("--results", help="Folder for kept results; by default STORE.analysis.")
]


def write(
    frame: "pl.DataFrame",
    form: Format | None,
    out: Path | None,
    brief: tuple[str, ...] = (),
    context: tuple[str, ...] = (),
) -> None:
    """Write a table.

    ``brief`` names the columns that people look at: the only ones that ``table`` shows. Those of ``context``
    that have one value in all rows are said once above it.

    Raises
    ------
    UsageError
        When Parquet is asked for without a file.
    WriteError
        When the file cannot be written.
    """
    chosen = form or (SUFFIXES.get(out.suffix.lower(), Format.TABLE) if out else Format.TABLE)
    if out is None:
        if chosen is Format.PARQUET:
            raise UsageError("parquet is no text; name a file with --out")
        sys.stdout.write(_text(frame, chosen, brief, context))
        return
    try:
        if chosen is Format.PARQUET:
            frame.write_parquet(out)
        else:
            out.write_text(_text(frame, chosen, brief, context), encoding="utf-8")
    except OSError as error:
        raise WriteError(f"cannot write {out}: {error.strerror or error}; choose another path with --out") from error


def _text(frame: "pl.DataFrame", form: Format, brief: tuple[str, ...], context: tuple[str, ...]) -> str:
    if form is Format.TABLE:
        return _table(frame, brief, context)
    plain = _plain(frame)
    if form is Format.CSV:
        return plain.write_csv()
    if form is Format.JSON:
        return plain.write_json() + "\n"
    return _markdown(plain)


def _plain(frame: "pl.DataFrame") -> "pl.DataFrame":
    """Types that every text format holds: keys in hex, lists as text, 128-bit sums as integers."""
    import polars as pl

    casts = []
    for name, kind in frame.schema.items():
        column = pl.col(name)
        if kind == pl.Binary:
            casts.append(column.bin.encode("hex"))
        elif isinstance(kind, pl.Decimal):
            casts.append(column.cast(pl.Int64 if kind.scale == 0 else pl.Float64, strict=False))
        elif kind.is_nested():
            casts.append(column.map_elements(lambda value: str(list(value)), return_dtype=pl.String))
    return frame.with_columns(casts)


def _table(frame: "pl.DataFrame", brief: tuple[str, ...], context: tuple[str, ...]) -> str:
    """Table for the eye."""
    from rich import box
    from rich.console import Console
    from rich.table import Table

    constant = [name for name in context if frame[name].n_unique() == 1]
    shown = [name for name in (*context, *brief) if name not in constant]
    plain = _plain(frame.select(shown or frame.columns))
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for name, kind in plain.schema.items():
        table.add_column(name, justify="right" if kind.is_numeric() else "left", no_wrap=True)
    for row in plain.iter_rows():
        table.add_row(*[_cell(value) for value in row])
    buffer = io.StringIO()
    console = Console(file=buffer, width=100_000, no_color=True, highlight=False, markup=False, emoji=False)
    if constant:
        console.print(" · ".join(f"{name} {_cell(frame[name][0])}" for name in constant))
    console.print(table)
    return "\n".join(line.rstrip() for line in buffer.getvalue().splitlines()) + "\n"


def _markdown(frame: "pl.DataFrame") -> str:
    lines = [frame.columns, [("---:" if kind.is_numeric() else "---") for kind in frame.dtypes]]
    lines += [[_cell(value).replace("|", "\\|") for value in row] for row in frame.iter_rows()]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def _cell(value: object) -> str:
    if value is None:
        return "–"
    if isinstance(value, bool):
        return "yes" if value else "no"
    return f"{value:.4f}" if isinstance(value, float) else str(value)
