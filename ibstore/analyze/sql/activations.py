"""Stored activations as tables that are read when they are asked: `activations`, and ``wide.<layer>``.

A table is a lazy Arrow dataset. DuckDB tells it the columns and the filter; what the filter cannot want is never read
(`pruning`), what it wants in part is filtered exactly, since DuckDB does not look at those conditions again, and when
nobody takes rows any more, as after LIMIT, nothing more is read. The smallest piece that is read is a stored chunk.
"""

import re
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property, lru_cache, partial
from typing import Any, Final

import duckdb
import numpy as np
import pyarrow as pa
import pyarrow.dataset as ds
from numpy.typing import NDArray

from ibstore.analyze.sql.pieces import Block, Layer, Part, Piece, layers_of
from ibstore.analyze.sql.pruning import Pruner, Range, merged
from ibstore.analyze.sql.sandbox import identifier
from ibstore.errors import DamagedError
from ibstore.store import Run
from ibstore.store.committed import THREADS

BATCH_VALUES: Final = 1 << 20
"""A batch has about so many values, or a sample's if it has more."""

TEXT: Final = pa.dictionary(pa.int32(), pa.string())
_UNIT: Final = re.compile(r"u\d+")


class Lazy(ds.Dataset):  # type: ignore[misc]  # pyarrow has no types
    """A table over layers, of which only what a query wants is read.

    Attributes
    ----------
    chunks_read
        How many stored chunks were read so far.
    damage
        What could not be read, which DuckDB tells in its own words only.
    """

    def __init__(self, layers: Sequence[Layer], threads: int = THREADS) -> None:
        self.layers, self.threads = layers, threads  # a Dataset of one's own has nothing to initialize
        self.chunks_read = 0
        self.damage: DamagedError | None = None

    def scanner(self, columns: Sequence[str] | None = None, filter: Any = None, **_: Any) -> "Scanner":  # noqa: A002
        """What DuckDB asks: some columns (all for None) of the rows in which the filter holds."""
        return Scanner(self, list(self.schema.names if columns is None else columns), filter)

    def units(self, layer: Layer, columns: Sequence[str], pruner: Pruner, known: ds.Expression) -> list[Range] | None:
        """Units of a layer that the columns are made from; None where the filter holds in no row of any."""
        raise NotImplementedError

    def batches(self, piece: Piece, part: Part, values: Block, columns: Sequence[str]) -> Iterator[pa.RecordBatch]:
        """Rows of these columns from the values of a part, (sample, unit)."""
        raise NotImplementedError

    def text(self, name: str, layer: Layer, rows: int) -> pa.Array:
        """A text column, the same in so many rows."""
        words = self._words[name]
        return pa.DictionaryArray.from_arrays(_constant(words.index(layer.names[name]), rows, "int32"), words)

    @cached_property
    def _words(self) -> dict[str, list[str]]:
        return {name: sorted({layer.names[name] for layer in self.layers}) for name in ("run", "split", "layer")}


class Activations(Lazy):
    """`activations`: a row a value."""

    @cached_property
    def schema(self) -> pa.Schema:
        """Columns; ``value`` is DOUBLE where a layer has numbers that no float32 is."""
        value = np.result_type(np.float32, *(_floating(each.info.dtype) for each in self.layers))
        columns = {"run": TEXT, "split": TEXT, "epoch": pa.int64(), "layer": TEXT, "sample": pa.int64()}
        return pa.schema({**columns, "unit": pa.int64(), "value": pa.from_numpy_dtype(value)})

    def units(self, layer: Layer, columns: Sequence[str], pruner: Pruner, known: ds.Expression) -> list[Range] | None:  # noqa: ARG002
        """Each unit is a row."""
        found = pruner.ranges(layer.units, lambda start, stop: known & _between("unit", start, stop - 1))
        return found or None

    def batches(self, piece: Piece, part: Part, values: Block, columns: Sequence[str]) -> Iterator[pa.RecordBatch]:
        """Sample after sample, unit after unit."""
        schema, samples = _chosen(self.schema, columns), piece.samples(part)
        kind, units = self.schema.field("value").type.to_pandas_dtype(), values.shape[1]
        step = max(1, BATCH_VALUES // max(1, units))
        for start in range(0, len(values), step):
            some = values[start : start + step]
            make: dict[str, Callable[[], Any]] = {
                "epoch": partial(_constant, piece.epoch, some.size, "int64"),
                "sample": partial(_repeated, samples[start : start + step], units),
                "unit": partial(_tiled, part.units, len(some)),
                "value": partial(_flat, some, kind),
            } | {name: partial(self.text, name, piece.layer, some.size) for name in piece.layer.names}
            yield pa.record_batch([make[name]() for name in columns], schema=schema)


class Wide(Lazy):
    """``wide.<layer>``: a row a sample, a column a unit."""

    @cached_property
    def schema(self) -> pa.Schema:
        """Columns; where runs differ the widest, NULL where a run has no such unit."""
        kind = pa.from_numpy_dtype(np.result_type(*(_floating(layer.info.dtype) for layer in self.layers)))
        units = range(max(layer.units for layer in self.layers))
        columns = {"run": TEXT, "split": TEXT, "epoch": pa.int64(), "sample": pa.int64()}
        return pa.schema({**columns, **{f"u{unit}": kind for unit in units}})

    def units(self, layer: Layer, columns: Sequence[str], pruner: Pruner, known: ds.Expression) -> list[Range]:  # noqa: ARG002
        """Those that are columns."""
        asked = [int(name[1:]) for name in columns if _UNIT.fullmatch(name)]
        return merged(Range(unit, unit + 1, whole=False) for unit in asked if unit < layer.units)

    def batches(self, piece: Piece, part: Part, values: Block, columns: Sequence[str]) -> Iterator[pa.RecordBatch]:
        """Sample after sample."""
        schema, rows = _chosen(self.schema, columns), len(values)
        has = dict(zip(_numbers(part.units), np.ascontiguousarray(values.T), strict=True))
        made: dict[str, Any] = {"epoch": _constant(piece.epoch, rows, "int64"), "sample": pa.array(piece.samples(part))}
        for name, kind in zip(schema.names, schema.types, strict=True):
            if _UNIT.fullmatch(name):
                unit = has.get(int(name[1:]))
                made[name] = pa.nulls(rows, kind) if unit is None else _flat(unit, kind.to_pandas_dtype())
            elif name not in made:
                made[name] = self.text(name, piece.layer, rows)
        yield pa.record_batch([made[name] for name in columns], schema=schema)


@dataclass(frozen=True)
class Scanner:
    """One reading of a lazy table, as pyarrow's: what DuckDB takes rows from."""

    table: Lazy
    columns: list[str]
    filter: ds.Expression | None

    @property
    def projected_schema(self) -> pa.Schema:
        """Columns that are asked for."""
        return _chosen(self.table.schema, self.columns)

    def to_reader(self) -> pa.RecordBatchReader:
        """Rows, read while they are taken."""
        return pa.RecordBatchReader.from_batches(self.projected_schema, self._batches())

    def _batches(self) -> Iterator[pa.RecordBatch]:
        """Rows of all pieces, in order."""
        needed = self._needed()
        pieces = self._pieces(needed)
        of_values = any(name == "value" or _UNIT.fullmatch(name) for name in needed)
        for piece, block in self._read(pieces) if of_values else ((each, each.unread()) for each in pieces):
            for part in piece.parts:
                columns = self.columns if part.whole else needed
                for batch in self.table.batches(piece, part, piece.values(part, block), columns):
                    yield batch if part.whole else batch.filter(self.filter).select(self.columns)

    def _read(self, pieces: Iterator[Piece]) -> Iterator[tuple[Piece, Block]]:
        """Pieces with their values; the next ones are read ahead, few at first: LIMIT shall read little."""
        pool = ThreadPoolExecutor(self.table.threads)
        pending: deque[tuple[Piece, Future[Block]]] = deque()
        ahead = self.table.threads
        try:
            while True:
                while len(pending) < ahead and (piece := next(pieces, None)) is not None:
                    pending.append((piece, pool.submit(piece.read)))
                if not pending:
                    return
                first, reading = pending.popleft()
                block = reading.result()
                self.table.chunks_read += 1
                yield first, block
                ahead = 2 * self.table.threads
        except DamagedError as damage:
            self.table.damage = damage
            raise
        finally:
            self.table.chunks_read += sum(not reading.cancel() for _, reading in pending)
            pool.shutdown()

    def _needed(self) -> list[str]:
        """Columns that are asked for, and those that the filter may speak of: it names them in its text."""
        spoken = set(re.findall(r"\w+", "" if self.filter is None else str(self.filter)))
        return [name for name in self.table.schema.names if name in self.columns or name in spoken]

    def _pieces(self, columns: Sequence[str]) -> Iterator[Piece]:
        """What has to be read, in order."""
        pruner, layers = Pruner(self.table.schema, self.filter), self.table.layers
        known = [_named(layer, self.table.schema.names) for layer in layers]
        for layer, names, verdict in zip(layers, known, pruner.judge(known), strict=True):
            during = partial(_during, names, layer.epochs)
            for epochs in pruner.ranges(len(layer.epochs), during) if verdict is not False else ():
                chosen: dict[int, list[tuple[int, list[Part]]]] = {}  # by the size of a chunk
                for position in range(epochs.start, epochs.stop):
                    size = layer.array(position)[0].chunk_rows()
                    if size not in chosen:
                        at = during(epochs.start, epochs.stop)
                        chosen[size] = list(self._chunks(layer, size, at, columns, whole=epochs.whole))
                    yield from (Piece(layer, position, chunk, size, parts) for chunk, parts in chosen[size])

    def _chunks(
        self, layer: Layer, size: int, known: ds.Expression, columns: Sequence[str], *, whole: bool
    ) -> Iterator[tuple[int, list[Part]]]:
        """Chunks of ``size`` samples in which the filter may hold, and the parts of each."""
        pruner = Pruner(self.table.schema, None if whole else self.filter)
        during = partial(_of_samples, known, layer.samples)
        parts = []
        for rows in pruner.ranges(len(layer.samples), during, size):
            inner = Pruner(pruner.schema, None if rows.whole else pruner.filter)
            units = self.table.units(layer, columns, inner, during(rows.start, rows.stop))
            if units is not None:
                parts.append(Part(rows, tuple(units)))
        for chunk in range(-(-len(layer.samples) // size)):
            mine = [part for part in parts if part.touches(chunk * size, (chunk + 1) * size - 1)]
            if mine:
                yield chunk, mine


def lay(db: duckdb.DuckDBPyConnection, runs: Sequence[Run], sql: str) -> list[Lazy]:
    """Make `activations` in ``db``, and ``wide.<layer>`` for the layers that ``sql`` names; what was made.

    A layer of thousands of units has as many columns, which take a moment to bind.
    """
    layers, text = layers_of(runs), sql.lower()
    activations = Activations(layers)
    db.register("activations", activations)
    db.execute("CREATE SCHEMA wide")
    tables: list[Lazy] = [activations]
    for name in dict.fromkeys(layer.info.name for layer in layers):
        if name.lower() in text or identifier(name).lower() in text:
            tables.append(Wide([layer for layer in layers if layer.info.name == name]))
            db.register(f"wide {name}", tables[-1])
            db.execute(f"CREATE VIEW wide.{identifier(name)} AS SELECT * FROM {identifier(f'wide {name}')}")
    return tables


def _chosen(schema: pa.Schema, columns: Sequence[str]) -> pa.Schema:
    return pa.schema([schema.field(name) for name in columns])


def _named(layer: Layer, columns: Sequence[str]) -> ds.Expression:
    """What the text columns are in all rows of a layer."""
    known = ds.scalar(True)
    for name, value in layer.names.items():
        known = known & (ds.field(name) == value) if name in columns else known
    return known


def _during(known: ds.Expression, epochs: Sequence[int], start: int, stop: int) -> ds.Expression:
    return known & _between("epoch", epochs[start], epochs[stop - 1])


def _of_samples(known: ds.Expression, samples: NDArray[np.int64], start: int, stop: int) -> ds.Expression:
    some = samples[start:stop]
    return known & _between("sample", int(some.min()), int(some.max()))


def _between(name: str, low: int, high: int) -> ds.Expression:
    field = ds.field(name)
    return (field == low) if low == high else (field >= low) & (field <= high)


def _floating(dtype: str) -> np.dtype[Any]:
    """The floating type that has a layer's numbers: float32 where it has them all."""
    return np.dtype(np.float32 if np.can_cast(dtype, np.float32) else np.float64)


@lru_cache(maxsize=32)
def _constant(value: int, rows: int, dtype: str) -> Any:
    """A column of one number."""
    return pa.array(np.full(rows, value, dtype))


def _repeated(samples: NDArray[np.int64], units: int) -> Any:
    """Each sample as often as it has units."""
    return pa.array(np.repeat(samples, units))


@lru_cache(maxsize=8)
def _tiled(units: tuple[Range, ...], rows: int) -> Any:
    """Units in so many rows, over and over."""
    return pa.array(np.tile(np.array(_numbers(units), np.int64), rows))


def _numbers(units: tuple[Range, ...]) -> list[int]:
    return [unit for each in units for unit in range(each.start, each.stop)]


def _flat(values: Block, kind: Any) -> Any:
    """Values as a column, without a copy where they are as they should be."""
    return pa.array(np.ascontiguousarray(values, kind).reshape(-1))
