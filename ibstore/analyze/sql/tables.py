"""The tables that queries see, built over a store's JSON and its parts. Names and columns are public API."""

import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Final

import duckdb
import polars as pl

from ibstore.analyze.losses import dynamics
from ibstore.analyze.parts import unreadable
from ibstore.analyze.recorded import epochs_table, layers_table, runs_table, samples_table
from ibstore.analyze.sql.sandbox import identifier, pattern, quoted
from ibstore.errors import UsageError
from ibstore.store import Run

if TYPE_CHECKING:
    from ibstore.analyze.sql.activations import Lazy

TABLES: Final = (
    *("runs", "layers", "epochs", "samples", "dynamics"),
    *("entropies", "information_plane", "patterns", "joint_counts", "activations"),
)

_OF_ALL: Final = "query|show|describe|summarize|information_schema|duckdb_|pragma"
"""What a text has in it that speaks of all tables."""

_KEPT_PATTERNS: Final = "part VARCHAR, filename VARCHAR, epoch BIGINT, sample BIGINT, key BLOB"

_VIEWS: Final = """
    CREATE VIEW patterns AS
    SELECT run, split, epoch, layer, waist, sample, key FROM kept.patterns JOIN kept.meanings USING (part, filename);

    CREATE VIEW kept.keys AS
    SELECT t.run, t.split, t.epoch, t.layer, t.waist, t.sample, x.key AS x, t.key AS t, samples.label AS y
    FROM (SELECT * FROM kept.patterns JOIN kept.meanings USING (part, filename) WHERE NOT is_input) t
    JOIN (SELECT * FROM kept.patterns JOIN kept.meanings USING (part, filename) WHERE is_input) x
      ON x.run = t.run AND x.split = t.split AND x.waist = t.waist AND x.sample = t.sample
    JOIN samples ON samples.run = t.run AND samples.split = t.split AND samples.sample = t.sample;

    CREATE VIEW joint_counts AS
    SELECT run, split, epoch, layer, waist, x, t, y, count(*) AS n FROM kept.keys GROUP BY ALL;
"""

_MACROS: Final = """
    CREATE MACRO entropy_bits(n) AS log2(sum(n)) - sum(n * log2(n)) / sum(n);

    CREATE MACRO mutual_information(a, b) AS greatest(0, entropy(a) + entropy(b) - entropy({'a': a, 'b': b}));

    CREATE MACRO waist_keys(of_run, of_layer, of_waist) AS TABLE
    SELECT split, epoch, sample, x, t, y FROM kept.keys
    WHERE run = of_run AND layer = of_layer AND waist = of_waist;
"""
"""What makes the field's words speakable; `docs/tables.md` has an example of each."""


def speaks_of(name: str, sql: str) -> bool:
    """Whether a text can speak of a table, which need not be made otherwise.

    >>> speaks_of("entropies", "SELECT entropy(key) FROM patterns"), speaks_of("entropies", "SHOW TABLES")
    (False, True)
    """
    return re.search(f"{name}|{_OF_ALL}", sql, re.IGNORECASE) is not None


def further(given: Mapping[str, pl.DataFrame]) -> dict[str, pl.DataFrame]:
    """Tables that somebody brings, by their names as SQL writes them; raises `UsageError` where one is taken."""
    taken = [name for name in given if name.lower() in TABLES]
    if taken:
        raise UsageError(f"{taken[0]!r} is a table of the store's; give yours another name")
    return {identifier(name): frame for name, frame in given.items()}


def lay(
    db: duckdb.DuckDBPyConnection,
    runs: Sequence[Run],
    computed: Mapping[str, pl.DataFrame],
    patterns: pl.DataFrame,
    sql: str,
) -> "list[Lazy]":
    """Make the tables of `TABLES` that ``sql`` can speak of, and those of the schema ``wide``.

    They are made from runs, the tables that were ``computed``, and where the patterns' files are; the lazy ones are
    returned.
    """
    _create(db, "runs", runs_table(runs))
    _create(db, "layers", layers_table(runs))
    _create(db, "epochs", epochs_table(runs))
    _create(db, "samples", samples_table(runs))
    _create(db, "dynamics", dynamics(runs))
    for name, frame in computed.items():
        _create(db, name, frame)
    db.execute("CREATE SCHEMA kept")
    _create(db, "kept.meanings", patterns.rename({"path": "filename"}))
    _over_files(db, patterns["path"].unique(maintain_order=True))
    db.execute(_VIEWS + _MACROS)
    if not speaks_of("activations|wide", sql):  # they take a quarter of a second to load
        return []
    from ibstore.analyze.sql import activations

    return activations.lay(db, runs, sql)


def _create(db: duckdb.DuckDBPyConnection, name: str, frame: pl.DataFrame) -> None:
    db.register("given", frame.to_arrow())
    db.execute(f"CREATE TABLE {name} AS SELECT * FROM given")
    db.unregister("given")


def _over_files(db: duckdb.DuckDBPyConnection, paths: Iterable[str]) -> None:
    """Lay a view over the patterns' files, or an empty table where there are none.

    Joined with what the parts mean, only those row groups are read whose part is asked for.
    """
    listed = ", ".join(quoted(pattern(Path(path))) for path in paths)
    if not listed:
        db.execute(f"CREATE TABLE kept.patterns ({_KEPT_PATTERNS})")
        return
    try:
        db.execute(f"CREATE VIEW kept.patterns AS SELECT * FROM read_parquet([{listed}], filename = true)")
    except duckdb.Error as error:
        raise unreadable("patterns", str(error)) from None
