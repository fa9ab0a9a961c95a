"""Counting keys with DuckDB group-bys: single and joint, exact for patterns of any width.

The group-by compares whole patterns, so that no collision can change a count. Where patterns are kept in a
table, one of up to 32 bytes is its own key; a wider one is named by its SHA-256, and a digest that stood for
two patterns would be seen and refused.
"""

import tempfile
from collections.abc import Iterable, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self

import duckdb
import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from ibstore.analyze.encode import Packed
from ibstore.analyze.entropy import CountsOfCounts
from ibstore.analyze.sql.sandbox import quoted
from ibstore.errors import IbstoreError, WriteError

KEY_BYTES: Final = 32
MEMORY: Final = "1GB"

_VARIABLES: Final = {"x": "x", "y": "y", "t": "t", "xt": "x, t", "ty": "t, y"}


class KeyCounter:
    """Counts the patterns of one layer at a time against those of the input and the labels.

    Spills to a temporary folder beyond 1 GB; nothing outlives `close`.
    """

    def __init__(self) -> None:
        self._spill = tempfile.TemporaryDirectory(prefix="ibstore-")
        self._db = duckdb.connect(
            config={"memory_limit": MEMORY, "temp_directory": self._spill.name, "preserve_insertion_order": "false"}
        )
        self._wide = {"x": False, "t": False}

    def load_probe(self, sample: NDArray[np.int64], y: NDArray[np.int64] | None, x: Iterable[Packed]) -> None:
        """Set the samples' ids, labels and input patterns, all in the same order.

        An input pattern is named by the first row that shows it: exact, and a small integer.
        """
        labels = pa.nulls(len(sample), pa.int64()) if y is None else pa.array(y)
        rows = pa.table({"row": np.arange(len(sample)), "sample": sample, "y": labels})
        self._fill("x", [(None, x)])
        self._db.register("samples_given", rows)
        self._run(
            """
            CREATE OR REPLACE TEMP TABLE probe AS
            WITH named AS (SELECT key, min(row) AS x FROM x_keys GROUP BY key)
            SELECT row, sample, y, x
            FROM x_keys JOIN named USING (key) JOIN samples_given USING (row)
            """
        )
        self._db.unregister("samples_given")

    def load_layer(self, epochs: Iterable[tuple[int, Iterable[Packed]]]) -> None:
        """Set a layer's patterns, epoch by epoch, in the order of the samples."""
        self._fill("t", epochs)

    def _fill(self, name: str, epochs: Iterable[tuple[int | None, Iterable[Packed]]]) -> None:
        self._run(f"CREATE OR REPLACE TEMP TABLE {name}_keys (epoch BIGINT, row BIGINT, key BLOB)")
        for epoch, blocks in epochs:
            start = 0
            for packed in blocks:
                self._wide[name] = packed.shape[1] > KEY_BYTES
                self._db.register("block", _table(packed, start))
                self._run(f"INSERT INTO {name}_keys SELECT ?, row, key FROM block", [epoch])
                self._db.unregister("block")
                start += len(packed)

    def counts(self) -> dict[int, dict[str, CountsOfCounts]]:
        """Counts of counts by epoch, of x, y, t, xt and ty: one group-by over (epoch, key) for all epochs."""
        marginals = " UNION ALL ".join(
            f"SELECT epoch, '{variable}' AS variable, sum(n)::BIGINT AS n FROM joint GROUP BY epoch, {columns}"
            for variable, columns in _VARIABLES.items()
        )
        found = self._run(
            f"""
            WITH named AS MATERIALIZED (  -- a pattern as a small integer: the first row that shows it
                SELECT epoch, key, min(row) AS t FROM t_keys GROUP BY ALL
            ), joint AS MATERIALIZED (
                SELECT epoch, x, y, t, count(*) AS n
                FROM t_keys JOIN named USING (epoch, key) JOIN probe USING (row) GROUP BY ALL
            ), marginals AS ({marginals})
            SELECT epoch, variable, n, count(*) AS keys FROM marginals GROUP BY ALL ORDER BY ALL
            """
        ).fetchnumpy()
        epochs, variables = found["epoch"], found["variable"]
        return {
            int(epoch): {
                variable: _histogram(found, (epochs == epoch) & (variables == variable)) for variable in _VARIABLES
            }
            for epoch in np.unique(epochs)
        }

    def patterns(self, name: str, columns: dict[str, str]) -> bytes:
        """Patterns ``name`` ("x" or "t") as Parquet: the constant text ``columns``, then epoch, sample and key."""
        key = "key"
        if self._wide[name]:
            key = "unhex(sha256(key))"
            self._check_digests(name)
        constants = ", ".join(f"? AS {column}" for column in columns)
        path = Path(self._spill.name, "patterns.parquet")
        self._run(
            f"""
            COPY (
                SELECT {constants}, epoch, sample, {key} AS key
                FROM {name}_keys JOIN probe USING (row) ORDER BY epoch, row
            ) TO {quoted(path)} (FORMAT parquet, COMPRESSION zstd)
            """,
            list(columns.values()),
        )
        try:
            return path.read_bytes()
        finally:
            path.unlink()

    def _check_digests(self, name: str) -> None:
        distinct = f"SELECT DISTINCT key FROM {name}_keys"
        row = self._run(f"SELECT count(*), count(DISTINCT sha256(key)) FROM ({distinct})").fetchone()
        if row is None or row[0] != row[1]:
            raise IbstoreError("two patterns have the same SHA-256; report this, it has never been seen")

    def _run(self, sql: str, values: Sequence[Any] = ()) -> duckdb.DuckDBPyConnection:
        try:
            return self._db.execute(sql, values)
        except duckdb.IOException as error:
            raise WriteError(
                f"DuckDB cannot write ({_first_line(error)}); free space, or name other folders: --results for "
                "results, TMPDIR for what does not fit into memory"
            ) from error
        except duckdb.OutOfMemoryException as error:
            raise IbstoreError(
                f"the patterns are too wide to be counted within {MEMORY} ({_first_line(error)}); narrow the layer "
                "more, by pooling or by fewer bins"
            ) from error

    def close(self) -> None:
        """Give memory and disk back."""
        self._db.close()
        self._spill.cleanup()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def _first_line(error: Exception) -> str:
    return str(error).partition("\n")[0]


def _table(packed: Packed, start: int) -> Any:
    """Keys as an Arrow table (row, key), without a copy."""
    rows, width = packed.shape
    buffer = pa.py_buffer(np.ascontiguousarray(packed))
    keys = pa.FixedSizeBinaryArray.from_buffers(pa.binary(width), rows, [None, buffer])
    return pa.table({"row": np.arange(start, start + rows), "key": keys})


def _histogram(found: dict[str, Any], chosen: NDArray[np.bool_]) -> CountsOfCounts:
    return CountsOfCounts(np.asarray(found["n"][chosen], np.int64), np.asarray(found["keys"][chosen], np.int64))
