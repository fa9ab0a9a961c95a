"""Other people's SQL: exactly one SELECT, or a plain EXPLAIN of one, in a DuckDB that can touch nothing else.

The connection is in memory; it may read the given Parquet parts and no other file, and its configuration is
locked before the user's text is run.
"""

import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import duckdb
import polars

from ibstore.errors import QueryError

_EXPLAIN: Final = re.compile(r"explain\s++(?!analy[sz]e\b)(?P<inner>.*)", re.IGNORECASE | re.DOTALL)


@contextmanager
def memory(spill: Path) -> Iterator[duckdb.DuckDBPyConnection]:
    """Connection to fill with tables first; `lock` it before it sees anything that a user wrote."""
    db = duckdb.connect(
        config={
            "temp_directory": str(spill),
            "max_temp_directory_size": "20GB",
            "autoinstall_known_extensions": "false",
            "autoload_known_extensions": "false",
        }
    )
    try:
        yield db
    finally:
        db.close()


def lock(db: duckdb.DuckDBPyConnection, paths: Sequence[Path]) -> None:
    """From now on ``db`` can read the files at ``paths`` and reach nothing else; this cannot be undone."""
    listed = ", ".join(quoted(form) for path in paths for form in dict.fromkeys((path, pattern(path))))
    db.execute(f"SET allowed_paths = [{listed}]")
    db.execute("SET python_enable_replacements = false")
    db.execute("SET enable_external_access = false")
    db.execute("SET lock_configuration = true")


def pattern(path: Path) -> Path:
    """What DuckDB's ``read_parquet`` takes for this path and no other: a name may hold ``[``, ``*`` or ``?``."""
    return Path(re.sub(r"([][*?])", r"[\1]", str(path)))


def quoted(path: Path) -> str:
    """The path as an SQL string."""
    return "'" + str(path).replace("'", "''") + "'"


def identifier(name: str) -> str:
    """A name as SQL writes it, whatever is in it."""
    return '"' + name.replace('"', '""') + '"'


def select(db: duckdb.DuckDBPyConnection, sql: str) -> polars.DataFrame:
    """Answer of one SELECT.

    Raises
    ------
    QueryError
        When ``sql`` is anything else, or DuckDB refuses it (in DuckDB's words).
    """
    check(sql)
    try:
        answer = db.sql(sql)
        frame: polars.DataFrame = answer.pl()
    except duckdb.Error as error:
        raise QueryError(str(error)) from None
    except polars.exceptions.PolarsError:  # INTERVAL, UNION
        types = ", ".join(f"{name} {kind}" for name, kind in zip(answer.columns, answer.types, strict=True))
        raise QueryError(
            f"the answer's types ({types}) do not fit into a table; write the column as CAST(… AS VARCHAR)"
        ) from None
    return frame


def check(sql: str) -> None:
    """Return when ``sql`` is exactly one SELECT, or a plain EXPLAIN of one; raises `QueryError`."""
    try:
        statements = duckdb.extract_statements(sql)
    except duckdb.Error as error:
        raise QueryError(str(error)) from None
    if len(statements) != 1:
        raise QueryError(
            f"a query is exactly one SELECT, this text has {len(statements)} statements; ask one at a time"
        )
    statement, kind = statements[0], _kind(statements[0])
    if kind == "EXPLAIN":
        match = _EXPLAIN.fullmatch(statement.query.strip())
        if match is None:
            raise QueryError("of EXPLAIN only the plain form is taken; write EXPLAIN SELECT …")
        check(match["inner"])
    elif kind != "SELECT":
        raise QueryError(f"a query can only SELECT, this is {kind}; results can be saved with --format and --out")


def _kind(statement: duckdb.Statement) -> str:
    """Name of a statement's type."""
    try:
        return str(statement.type.name)
    except ValueError:  # DuckDB's Python side does not know every type that its parser does
        return "something else"
