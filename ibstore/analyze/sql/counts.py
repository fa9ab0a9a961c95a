"""Counting keys with DuckDB group-bys: single and joint, exact for patterns of any width.

The group-by compares whole patterns, so that no collision can change a count; only one of more than 1,024 bytes is
counted by its SHA-256. Where patterns are kept in a table, one of up to 32 bytes is its own key, a wider one is named
by its SHA-256, and a digest that stood for two patterns would be seen and refused.
"""

import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import wraps
from itertools import pairwise
from pathlib import Path
from threading import RLock
from types import TracebackType
from typing import Any, Concatenate, Final, ParamSpec, Self, TypeVar

import duckdb
import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from ibstore.analyze.encode import DIGEST_BYTES, Packed
from ibstore.analyze.estimate.entropy import CountsOfCounts
from ibstore.analyze.parts import SAME_DIGEST
from ibstore.analyze.sql import arrow
from ibstore.analyze.sql.sandbox import identifier, quoted
from ibstore.errors import IbstoreError, WriteError

LITTLE: Final = 1 << 20
"""As many keys that are integers one thread counts."""

P = ParamSpec("P")
R = TypeVar("R")

Counts = dict[str, CountsOfCounts]
Block = tuple[int | None, int, Packed]
"""Epoch, first row, and the keys of some samples from there on."""


def _one_at_a_time(method: "Callable[Concatenate[KeyCounter, P], R]") -> "Callable[Concatenate[KeyCounter, P], R]":
    """Let one thread after another ask DuckDB: it has one connection, and names are registered there."""

    @wraps(method)
    def alone(self: "KeyCounter", /, *arguments: P.args, **options: P.kwargs) -> R:
        with self._asking:
            return method(self, *arguments, **options)

    return alone


@dataclass
class _Keys:
    """Keys of one variable, as they come: blocks in memory, and a table of those that had no room there."""

    blocks: list[Block] = field(default_factory=list)
    bytes: int = 0
    spilled: bool = False
    wide: bool = False


def connected(memory: int, threads: int, folder: str) -> duckdb.DuckDBPyConnection:
    """DuckDB with so many bytes, which spills into a folder beyond them."""
    return duckdb.connect(
        config={
            "memory_limit": f"{max(1, memory >> 20)}MiB",
            "threads": threads,
            "temp_directory": folder,
            "preserve_insertion_order": "false",
        }
    )


class KeyCounter:
    """Counts patterns of layers against those of the input and the labels.

    A thread may give keys while another has those of other variables counted.

    Parameters
    ----------
    memory
        Bytes: half of them for keys as they come, half for DuckDB, which spills to a temporary folder beyond them.
        Nothing outlives `close`.
    threads
        Of DuckDB.
    """

    def __init__(self, memory: int = 1 << 30, threads: int = 2) -> None:
        self._spill = tempfile.TemporaryDirectory(prefix="ibstore-")
        self._room = memory // 2
        self._threads = threads
        self._db = connected(memory // 2, threads, self._spill.name)
        self._asking = RLock()  # held by the thread that asks DuckDB
        self._keys: dict[str, _Keys] = {}
        self._columns: dict[str, Any] = {}
        self._marginals: dict[str, CountsOfCounts] = {}

    def begin(self, sample: NDArray[np.int64], y: NDArray[np.int64] | None) -> None:
        """Forget everything; from now on rows are these samples, with these labels."""
        for name in list(self._keys):
            self.drop(name)
        rows = np.arange(len(sample), dtype=np.min_scalar_type(len(sample)))
        row = arrow.column(rows)
        ids = row if np.array_equal(rows, sample) else arrow.column(arrow.narrowest(sample))
        labels = pa.nulls(len(rows), pa.int64()) if y is None else arrow.column(arrow.narrowest(y))
        self._columns = {"row": row, "sample": ids, "y": labels}
        self._marginals = {} if y is None else {"y": self._marginal(arrow.table({"y": labels}), "y")}

    @_one_at_a_time
    def _marginal(self, table: Any, column: str) -> CountsOfCounts:
        """Counts of counts of a column."""
        self._db.register("alone", table)
        found = self._run(
            f"SELECT n, count(*) AS keys FROM (SELECT count(*) AS n FROM alone GROUP BY {column}) GROUP BY n ORDER BY n"
        ).fetchnumpy()
        self._db.unregister("alone")
        return _counts_of_counts(found)

    @property
    def marginals(self) -> dict[str, CountsOfCounts]:
        """Of the labels, as ``y``, and of the named inputs."""
        return dict(self._marginals)

    def __contains__(self, name: object) -> bool:
        """Whether a variable has keys."""
        return name in self._keys

    def take(self, name: str, epoch: int | None, start: int, keys: Packed) -> None:
        """Add keys, (sample, byte), of the samples from row ``start`` on, to a variable."""
        mine = self._keys.setdefault(name, _Keys())
        mine.wide = keys.shape[1] > DIGEST_BYTES
        mine.blocks.append((epoch, start, keys))
        mine.bytes += keys.nbytes
        if sum(each.bytes for each in list(self._keys.values())) > self._room:
            self._make_room()

    @_one_at_a_time
    def _make_room(self) -> None:
        """Put the largest variable's keys down."""
        self._put_down(max(self._keys, key=lambda name: self._keys[name].bytes))

    @_one_at_a_time
    def name_inputs(self, name: str) -> None:
        """Make the keys of ``name`` a column that others are counted with: the first row that shows a pattern names it.

        Exact, and a small integer.
        """
        source, key = self._source(name, self._held(name))
        self._run(
            f"CREATE TEMP TABLE named AS SELECT {key}, min(row) AS first, count(*) AS n FROM {source} GROUP BY {key}"
        )
        counts = self._run("SELECT n, count(*) AS keys FROM named GROUP BY n ORDER BY n").fetchnumpy()
        self._marginals[name] = _counts_of_counts(counts)
        rows = self._columns["row"]
        first = np.empty(len(rows), rows.type.to_pandas_dtype())
        with refusals():
            for batch in self._db.sql(f"SELECT row, first FROM {source} JOIN named USING ({key})").to_arrow_reader():
                first[arrow.numbers(batch.column(0))] = arrow.numbers(batch.column(1))
        self._columns[name] = arrow.column(first)
        self._run("DROP TABLE named")

    def give(self, name: str, keys: Any) -> None:
        """Take an Arrow column of the rows' patterns as those of an input, for `partial`."""
        self._columns[name] = keys

    @_one_at_a_time
    def partial(self, name: str, parts: int = 1) -> list[bytes]:
        """Counts of a variable's keys with all that is known of the rows, as Parquet, for `partial.summed`.

        A row has epoch, key, y, the patterns of the inputs that were given, and ``n``, how often that was seen. Rows
        are cut into parts by the hash of the key.
        """
        source, key = self._source(name, self._held(name, whole=True))
        seen = ", ".join(["epoch", key, *(identifier(each) for each in self._columns if each not in ("row", "sample"))])
        self._run(f"CREATE TEMP TABLE seen AS SELECT {seen}, count(*) AS n FROM {source} GROUP BY ALL")
        cut = f"WHERE hash({key}) % {parts} = " if parts > 1 else ""
        try:
            return [self._parquet(f"FROM seen {cut and cut + str(part)}") for part in range(parts)]
        finally:
            self._run("DROP TABLE seen")

    def counts(self, name: str, inputs: Sequence[str]) -> dict[str, dict[int, Counts]]:
        """Counts of counts of x, t, xt, and with labels y and ty, by input and epoch: a few group-bys for all epochs.

        An input that tells every sample apart tells every pair apart: X,T is counted as X is.
        """
        return self._counts(name, self._held(name), inputs)

    @_one_at_a_time
    def _counts(self, name: str, held: Any, inputs: Sequence[str]) -> dict[str, dict[int, Counts]]:
        source, key = self._source(name, held)
        self._take_threads(sum(len(keys) for *_, keys in self._keys[name].blocks), whole=key == "key")
        rows = len(self._columns["row"])
        alike = [x for x in inputs if self._marginals[x].distinct < rows]
        joint = "".join(
            f"""
            UNION ALL SELECT epoch, '{x}' AS variable, n, count(*) AS keys
            FROM (SELECT epoch, count(*) AS n FROM {source} GROUP BY epoch, {key}, {x}) GROUP BY ALL"""
            for x in alike
        )
        found = self._run(
            f"""
            WITH ty AS MATERIALIZED (SELECT epoch, {key}, y, count(*) AS n FROM {source} GROUP BY ALL)
            SELECT epoch, 'ty' AS variable, n, count(*) AS keys FROM ty GROUP BY ALL
            UNION ALL SELECT epoch, 't' AS variable, n, count(*) AS keys
            FROM (SELECT epoch, sum(n)::BIGINT AS n FROM ty GROUP BY epoch, {key}) GROUP BY ALL
            {joint} ORDER BY ALL
            """
        ).fetchnumpy()
        counted = by_epoch(found)
        return {x: {epoch: with_marginals(x, own, self._marginals) for epoch, own in counted.items()} for x in inputs}

    def _take_threads(self, rows: int, *, whole: bool) -> None:
        """One thread for little, which several would divide among them and join again while others read."""
        self._run(f"SET threads = {self._threads if whole or rows > LITTLE else 1}")

    @_one_at_a_time
    def patterns(self, name: str, part: str) -> bytes:
        """Keys of a variable as Parquet: whose they are in the column ``part``, then epoch, sample and key."""
        source, key = self._source(name, self._held(name, whole=True))
        if self._keys[name].wide:
            key = "unhex(sha256(key))"
            self._check_digests(source)
        return self._parquet(
            f"""
            SELECT ? AS part, epoch::BIGINT AS epoch, sample::BIGINT AS sample, {key} AS key
            FROM {source} ORDER BY {source}.epoch, row
            """,
            [part],
        )

    def _parquet(self, sql: str, values: Sequence[Any] = ()) -> bytes:
        """Rows of a SELECT as a Parquet file's content."""
        path = Path(self._spill.name, "rows.parquet")
        self._run(f"COPY ({sql}) TO {quoted(path)} (FORMAT parquet, COMPRESSION zstd)", values)
        try:
            return path.read_bytes()
        finally:
            path.unlink()

    @_one_at_a_time
    def recall(self, name: str, rows: Any) -> bool:
        """Take the keys that `patterns` gave, an Arrow table of epoch, sample and key, as those of a variable.

        Returns whether every epoch has a key for every sample.
        """
        self._keys[name] = _Keys(spilled=True)
        self._db.register("kept", rows)
        self._db.register("now", arrow.table(self._columns))
        columns = ", ".join(f"now.{column}" for column in self._columns)
        self._run(
            f"CREATE TEMP TABLE put_{name} AS SELECT kept.epoch, {columns}, kept.key FROM kept JOIN now USING (sample)"
        )
        self._db.unregister("kept")
        self._db.unregister("now")
        found = self._run(f"SELECT DISTINCT count(DISTINCT sample) FROM put_{name} GROUP BY epoch").fetchall()
        return found == [(len(self._columns["row"]),)]

    @_one_at_a_time
    def drop(self, name: str) -> None:
        """Forget a variable's keys, if there are any; as a column of others an input stays."""
        mine = self._keys.pop(name, None)
        if mine is not None and mine.spilled:
            self._run(f"DROP TABLE put_{name}")
        self._db.unregister(f"held_{name}")

    def _held(self, name: str, *, whole: bool = False) -> Any:
        """Table of a variable's keys as they came (epoch, row, sample, y, named inputs …, key), in any thread.

        Unless they are wanted ``whole``, short keys are one or two integers, which are counted in half of the time.
        None for keys that have been put down.
        """
        blocks = self._keys[name].blocks
        if not blocks or self._keys[name].spilled:
            return None
        keys = [keys for *_, keys in blocks]
        shown = {} if whole else arrow.words(keys)
        return self._table(blocks, shown or {"key": arrow.binary(keys)})

    def _source(self, name: str, held: Any) -> tuple[str, str]:
        """What the variable's keys are called in SQL, and the key there, which may be several columns."""
        if self._keys[name].spilled:
            self._put_down(name)
            return f"put_{name}", "key"
        self._db.register(f"held_{name}", held)
        return f"held_{name}", ", ".join(column for column in held.column_names if column.startswith(("key", "word")))

    def _put_down(self, name: str) -> None:
        """Give a variable's blocks to DuckDB, which writes to disk what has no room in memory."""
        mine = self._keys[name]
        if mine.blocks:
            keys = {"key": arrow.binary([keys for _, _, keys in mine.blocks])}
            self._db.register("block", self._table(mine.blocks, keys))
            verb = f"INSERT INTO put_{name}" if mine.spilled else f"CREATE TEMP TABLE put_{name} AS"
            self._run(f"{verb} SELECT * REPLACE (epoch::BIGINT AS epoch) FROM block")
            self._db.unregister("block")
        mine.blocks, mine.bytes, mine.spilled = [], 0, True

    def _table(self, blocks: "Sequence[Block]", keys: dict[str, Any]) -> Any:
        """Columns of the keys of some blocks, beside those of their rows."""
        places = [(epoch, start, len(keys)) for epoch, start, keys in blocks]
        columns = {
            name: pa.chunked_array(
                [column if rows == len(column) else column.slice(start, rows) for _, start, rows in places], column.type
            )
            for name, column in self._columns.items()
        }
        return arrow.table({"epoch": arrow.epochs(places), **columns, **keys})

    def _check_digests(self, source: str) -> None:
        row = self._run(f"SELECT count(DISTINCT key), count(DISTINCT sha256(key)) FROM {source}").fetchone()
        if row is None or row[0] != row[1]:
            raise IbstoreError(SAME_DIGEST)

    def _run(self, sql: str, values: Sequence[Any] = ()) -> duckdb.DuckDBPyConnection:
        with refusals():
            return self._db.execute(sql, values)

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


@contextmanager
def refusals() -> Iterator[None]:
    """What DuckDB cannot do, as errors that say what to do about it."""
    try:
        yield
    except duckdb.IOException as error:
        raise WriteError(
            f"DuckDB cannot write ({_first_line(error)}); free space, or name other folders: --results for "
            "results, TMPDIR for what does not fit into memory"
        ) from error
    except duckdb.OutOfMemoryException as error:
        raise IbstoreError(
            f"the keys cannot be counted in so little memory ({_first_line(error)}); give more with --memory"
        ) from error


def _first_line(error: Exception) -> str:
    return str(error).partition("\n")[0]


def with_marginals(x: str, own: Counts, marginals: Mapping[str, CountsOfCounts]) -> Counts:
    """Counts of all variables with the input ``x``, from those that hang on the layer."""
    alone = marginals[x]
    labelled = {"y": marginals["y"], "ty": own["ty"]} if "y" in marginals else {}
    return {"x": alone, "t": own["t"], "xt": own.get(x, alone), **labelled}


def by_epoch(found: dict[str, Any]) -> dict[int, Counts]:
    """Rows (epoch, variable, n, keys), in the order of epochs and variables, as counts of counts by both."""
    epochs, variables = np.asarray(found["epoch"]), np.asarray(found["variable"])
    counted: dict[int, Counts] = {}
    starts = np.flatnonzero(np.r_[True, (epochs[1:] != epochs[:-1]) | (variables[1:] != variables[:-1])])
    for start, end in pairwise([*starts.tolist(), len(epochs)]):
        own = _counts_of_counts({name: found[name][start:end] for name in ("n", "keys")})
        counted.setdefault(int(epochs[start]), {})[str(variables[start])] = own
    return counted


def _counts_of_counts(found: dict[str, Any]) -> CountsOfCounts:
    """Rows (n, keys) as counts of counts."""
    return CountsOfCounts(np.asarray(found["n"], np.int64), np.asarray(found["keys"], np.int64))
