"""The table for the eye, against rich's own layout."""

import io

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich import box
from rich.console import Console
from rich.table import Table

from ibstore.cli.output import Format, write

WORDS = st.text(st.sampled_from("abc 日本–é"), max_size=8)


def laid_out(frame: pl.DataFrame) -> str:
    """What rich makes of the same cells."""
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for name, kind in frame.schema.items():
        table.add_column(name, justify="right" if kind.is_numeric() else "left", no_wrap=True)
    for row in frame.iter_rows():
        table.add_row(*map(str, row))
    console = Console(file=io.StringIO(), width=1000, markup=False, highlight=False, emoji=False)
    console.print(table)
    return "".join(f"{line.rstrip()}\n" for line in console.file.getvalue().splitlines())  # type: ignore[attr-defined]


@given(st.lists(st.tuples(WORDS, st.integers(0, 10**6), WORDS), max_size=5))
def test_cells_stand_where_rich_puts_them(rows: list[tuple[str, int, str]]) -> None:
    frame = pl.DataFrame(rows, {"run": pl.String, "n": pl.Int64, "日本": pl.String}, orient="row")
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr("sys.stdout", told := io.StringIO())
        write(frame, None, None)
    assert told.getvalue() == laid_out(frame)


def test_large_numbers_are_short(capsys: pytest.CaptureFixture[str]) -> None:
    write(pl.DataFrame({"value": [1e300, 0.25, -1e12, 999_999_999_999.5, float("inf")]}), Format.TABLE, None)
    assert capsys.readouterr().out.split()[2:] == ["1e+300", "0.2500", "-1e+12", "999999999999.5000", "inf"]


def test_a_cell_moves_no_cursor(capsys: pytest.CaptureFixture[str]) -> None:
    write(pl.DataFrame({"run": ["a\x1b[2Jb\nc\td"]}), None, None)
    assert capsys.readouterr().out.splitlines()[3] == " a [2Jb c d"
