"""Arrays of rows written into one file, a block at a time: ``.npz``, ``.safetensors`` and ``.parquet``.

The first two are written by hand, since NumPy's and safetensors' own writers want every array in memory: both formats
are headers and plain bytes. Equal arrays give equal files.
"""

import json
import zipfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from math import prod
from typing import Any, BinaryIO, Final

import numpy as np
from numpy.lib import format as npy
from numpy.typing import NDArray

ROW_GROUP_BYTES: Final = 32 << 20
_SAFETENSORS: Final = {"f": "F", "i": "I", "u": "U"}
_EARLIEST: Final = (1980, 1, 1, 0, 0, 0)


@dataclass(frozen=True, slots=True)
class Column:
    """An array of rows.

    Parameters
    ----------
    name
        What it is called in the file.
    shape
        (sample, …).
    dtype
        Of its numbers.
    blocks
        Gives its rows in order, (sample, …).
    """

    name: str
    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    blocks: Callable[[], Iterator[NDArray[Any]]]

    @property
    def little(self) -> "np.dtype[Any]":
        """Its dtype in files."""
        return self.dtype.newbyteorder("<")

    def contents(self) -> Iterator[bytes]:
        """Its rows as little-endian bytes in C order."""
        for block in self.blocks():
            yield np.ascontiguousarray(block, self.little).tobytes()


def column(name: str, values: NDArray[Any]) -> Column:
    """Column of an array in memory."""
    return Column(name, values.shape, values.dtype, lambda: iter([values]))


def write_npz(file: BinaryIO, columns: Sequence[Column]) -> None:
    """Write columns as `numpy.savez` does, uncompressed."""
    with zipfile.ZipFile(file, "w") as archive:
        for each in columns:
            member = zipfile.ZipInfo(f"{each.name}.npy", _EARLIEST)
            with archive.open(member, "w", force_zip64=True) as target:
                header = {"descr": each.little.str, "fortran_order": False, "shape": each.shape}
                npy.write_array_header_2_0(target, header)
                for content in each.contents():
                    target.write(content)


def write_safetensors(file: BinaryIO, columns: Sequence[Column]) -> None:
    """Write columns as safetensors does: wider numbers first, so that each tensor is aligned."""
    ordered = sorted(columns, key=lambda each: -each.dtype.itemsize)
    header: dict[str, Any] = {}
    end = 0
    for each in ordered:
        start, end = end, end + prod(each.shape) * each.dtype.itemsize
        kind = f"{_SAFETENSORS[each.dtype.kind]}{8 * each.dtype.itemsize}"
        header[each.name] = {"dtype": kind, "shape": each.shape, "data_offsets": [start, end]}
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    file.write(len(text).to_bytes(8, "little") + text)
    for each in ordered:
        for content in each.contents():
            file.write(content)


def write_parquet(file: BinaryIO, columns: Sequence[Column]) -> None:
    """Write columns side by side, a row a sample, those of many units as lists of a fixed size in C order.

    The field's metadata has the units' ``shape`` as JSON.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    schema = pa.schema([_field(each) for each in columns])
    row = sum(prod(each.shape[1:]) * each.dtype.itemsize for each in columns)
    rows = max(1, ROW_GROUP_BYTES // max(1, row))
    cut = [_recut(each.blocks(), rows) for each in columns]
    with pq.ParquetWriter(file, schema, compression="zstd", use_dictionary=False) as writer:
        for parts in zip(*cut, strict=True):
            arrays = [_arrow(field.type, part) for field, part in zip(schema, parts, strict=True)]
            writer.write_batch(pa.record_batch(arrays, schema=schema))


def _field(each: Column) -> Any:
    import pyarrow as pa

    kind, units = pa.from_numpy_dtype(each.dtype), each.shape[1:]
    if not units:
        return pa.field(each.name, kind, nullable=False)
    items = pa.list_(pa.field("item", kind, nullable=False), prod(units))
    return pa.field(each.name, items, nullable=False, metadata={"shape": json.dumps(units)})


def _arrow(kind: Any, rows: NDArray[Any]) -> Any:
    import pyarrow as pa

    flat = pa.array(np.ascontiguousarray(rows).reshape(-1))
    return pa.FixedSizeListArray.from_arrays(flat, type=kind) if pa.types.is_fixed_size_list(kind) else flat


def _recut(blocks: Iterator[NDArray[Any]], rows: int) -> Iterator[NDArray[Any]]:
    """The same rows in blocks of ``rows``, the last one shorter.

    >>> [block.tolist() for block in _recut(iter([np.arange(3), np.arange(3, 5)]), 2)]
    [[0, 1], [2, 3], [4]]
    """
    parts: list[NDArray[Any]] = []
    lack = rows
    for block in blocks:
        rest = block
        while len(rest):
            parts.append(rest[:lack])
            lack -= len(parts[-1])
            rest = rest[len(parts[-1]) :]
            if not lack:
                yield np.concatenate(parts)
                parts, lack = [], rows
    if parts:
        yield np.concatenate(parts)


WRITERS: Final[Mapping[str, Callable[[BinaryIO, Sequence[Column]], None]]] = {
    "npz": write_npz,
    "safetensors": write_safetensors,
    "parquet": write_parquet,
}
