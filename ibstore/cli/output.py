"""Tables to stdout or to a file, in one of five formats; one place for all commands."""

import io
import json
import math
import sys
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final

import typer

from ibstore.errors import UsageError, WriteError
from ibstore.store.format.layout import size
from ibstore.store.places.disk import save

if TYPE_CHECKING:
    import polars as pl


class Format(StrEnum):
    """How a table is written."""

    TABLE = "table"
    CSV = "csv"
    JSON = "json"
    MARKDOWN = "markdown"
    PARQUET = "parquet"


BYTES: Final = "_bytes"
"""How columns of sizes end; for the eye they have a unit."""

LONGEST: Final = 1e12
"""From where on a number for the eye has an exponent."""

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


def placed(out: Path | None) -> Path | None:
    """A file to write, where its folder is there: hours of work should not end at a folder that is not.

    Raises
    ------
    WriteError
        When it is not.
    """
    if out is not None and not out.parent.is_dir():
        raise WriteError(
            f"cannot write {out}: there is no folder {out.parent}; make it, or name another file with --out"
        )
    return out


OutOption = Annotated[
    Path | None, typer.Option("--out", "-o", help="Write to this file instead of stdout.", callback=placed)
]
QuietOption = Annotated[bool, typer.Option("--quiet", "-q", help="No progress, no notices.")]
ResultsOption = Annotated[
    str | None, typer.Option("--results", help="Path or URL for kept results; by default STORE.analysis.")
]


def write(
    frame: "pl.DataFrame",
    form: Format | None,
    out: Path | None,
    brief: tuple[str, ...] = (),
    context: tuple[str, ...] = (),
    *,
    header: bool = True,
) -> None:
    """Write a table.

    ``brief`` names the columns that people look at: the only ones that ``table`` shows. Those of ``context``
    that have one value in all rows are said once above it. Without ``header`` CSV on stdout goes on where the last
    table ended.

    Raises
    ------
    UsageError
        When Parquet is asked for without a file.
    WriteError
        When the file cannot be written.
    """
    chosen = form or _format_of(out)
    if out is None:
        if chosen is Format.PARQUET:
            raise UsageError("parquet is no text; name a file with --out")
        text = _text(frame, chosen, brief, context)
        sys.stdout.write(text if header or chosen is not Format.CSV else text.partition("\n")[2])
        return
    save(out, _content(frame, chosen, brief, context), "--out")


def _format_of(out: Path | None) -> Format:
    """Format that a file's ending says; a table on stdout."""
    if out is None:
        return Format.TABLE
    if out.suffix.lower() not in SUFFIXES:
        raise UsageError(f"{out} has no known ending; end it in {', '.join(SUFFIXES)}, or give --format")
    return SUFFIXES[out.suffix.lower()]


def _content(frame: "pl.DataFrame", form: Format, brief: tuple[str, ...], context: tuple[str, ...]) -> bytes:
    if form is not Format.PARQUET:
        return _text(frame, form, brief, context).encode()
    content = io.BytesIO()
    frame.write_parquet(content)
    return content.getvalue()


def _text(frame: "pl.DataFrame", form: Format, brief: tuple[str, ...], context: tuple[str, ...]) -> str:
    if form is Format.TABLE:
        return _table(frame, brief, context)
    if form is Format.JSON:
        return _json(frame)
    plain = _plain(frame)
    return plain.write_csv() if form is Format.CSV else _markdown(plain)


def _json(frame: "pl.DataFrame") -> str:
    """A list of objects; what JSON has no number or word for becomes text."""
    rows = [{name: _jsonable(value) for name, value in row.items()} for row in frame.iter_rows(named=True)]
    return json.dumps(rows, ensure_ascii=False, default=str) + "\n"


def _jsonable(value: object) -> object:
    """The value in JSON's types: keys in hex, decimals as numbers where that is exact, NaN and infinities as null."""
    if isinstance(value, bytes):
        return value.hex()
    from decimal import Decimal

    if isinstance(value, Decimal):
        exact = int(value) if value == int(value) else float(value)
        return exact if Decimal(str(exact)) == value else str(value)
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if isinstance(value, dict):
        return {str(name): _jsonable(item) for name, item in value.items()}
    if isinstance(value, list):
        return [_jsonable(item) for item in value]
    return value


def _plain(frame: "pl.DataFrame") -> "pl.DataFrame":
    """Columns that a line of text holds: keys in hex, exact decimals and nested values as text."""
    import polars as pl

    kinds = frame.schema.items()
    return frame.with_columns(
        *(pl.col(name).bin.encode("hex") for name, kind in kinds if kind == pl.Binary),
        *(pl.col(name).cast(pl.String) for name, kind in kinds if isinstance(kind, pl.Decimal)),
        *(
            pl.Series(name, [json.dumps(_jsonable(value), default=str) for value in frame[name].to_list()], pl.String)
            for name, kind in kinds
            if kind.is_nested()
        ),
    )


def _table(frame: "pl.DataFrame", brief: tuple[str, ...], context: tuple[str, ...]) -> str:
    """Table for the eye: 330,000 cells in less than a second, where rich's own layout took 18."""
    from rich.cells import cell_len

    constant = [name for name in context if frame[name].n_unique() == 1]
    shown = [name for name in (*context, *brief) if name not in constant]
    plain = _plain(frame.select(shown or frame.columns))
    told = " · ".join(f"{name} {_cell(frame[name][0])}" for name in constant)
    head, *rows = map("   ".join, zip(*map(_column, plain), strict=True))
    lines = (*filter(None, [told]), "", f" {head}", f" {'─' * cell_len(head)}", *(f" {row}" for row in rows), "")
    return "".join(f"{line.rstrip()}\n" for line in lines)


def _column(values: "pl.Series") -> list[str]:
    """Name and cells of a column, each as wide as the widest: text begins, and numbers end, below each other."""
    from rich.cells import cell_len

    bytes_ = values.dtype.is_integer() and values.name.endswith(BYTES)
    told = size if bytes_ else _cell
    lines = [values.name.removesuffix(BYTES) if bytes_ else values.name, *map(told, values.to_list())]
    lines = [_printable(line) for line in lines]
    widths = [cell_len(line) for line in lines]  # a Chinese character takes two places
    widest = max(widths)
    blanks = [" " * (widest - width) for width in widths]
    right = values.dtype.is_numeric()
    return [blank + line if right else line + blank for line, blank in zip(lines, blanks, strict=True)]


def _printable(cell: str) -> str:
    """One line without what moves a terminal's cursor."""
    return cell if cell.isprintable() else "".join(sign if sign.isprintable() else " " for sign in cell)


def _markdown(frame: "pl.DataFrame") -> str:
    lines = [frame.columns, [("---:" if kind.is_numeric() else "---") for kind in frame.dtypes]]
    lines += [[_cell(value) for value in row] for row in frame.iter_rows()]
    escaped = [[" ".join(cell.replace("|", "\\|").split()) for cell in line] for line in lines]
    return "".join(f"| {' | '.join(line)} |\n" for line in escaped)


def _cell(value: object) -> str:
    if value is None:
        return "–"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:.4f}" if abs(value) < LONGEST else f"{value:.4g}"  # not 300 digits
    return str(value)
