"""Packing: many small files of a table become one, a row group for each part, and nobody has to wait for it.

The new file and its list are there before an old file goes, and both hold the same rows: a reader who listed the old
ones before looks again. Two processes that pack at once write what the other wrote, or what it holds too.
"""

import json
from collections.abc import Collection, Sequence
from io import BytesIO
from typing import Final

from ibstore.analyze.parts import File, Parts, content_key

MANY: Final = 64
"""As many small files of a table are packed."""

SMALL_BYTES: Final = 4 << 20
PACK_BYTES: Final = 64 << 20


def pack_small(parts: Parts, table: str) -> None:
    """Pack the small files of a table, if there are many."""
    small = [file for file in parts.files(table) if file.bytes < SMALL_BYTES]
    if len(small) >= MANY:
        for group in _groups(small):
            rewrite(parts, table, group)


def _groups(files: Sequence[File]) -> list[list[File]]:
    """Files in groups of at most 64 MiB."""
    groups: list[list[File]] = [[]]
    filled = 0
    for file in files:
        if filled + file.bytes > PACK_BYTES:
            groups.append([])
            filled = 0
        groups[-1].append(file)
        filled += file.bytes
    return groups


def rewrite(parts: Parts, table: str, files: Sequence[File], without: Collection[str] = ()) -> None:
    """Put the parts of some files into one, ``without`` some of them, and remove the files.

    A file that another process removes meanwhile is in that one's pack; one that cannot be read stays, for whoever
    asks for it to be told.
    """
    content, kept, done = _joined(parts, table, files, set(without))
    name = content_key({"pack": sorted(kept)})
    if kept:
        parts.put_file(f"{table}/{name}.parquet", content)
        parts.put_file(f"{table}/{name}.json", json.dumps({"parts": kept}).encode())
    for file in done:
        if file.name != f"{name}.parquet":
            parts.remove(table, file)


def _joined(
    parts: Parts, table: str, files: Sequence[File], without: set[str]
) -> tuple[bytes, dict[str, int], list[File]]:
    """One file's content from those that can be read, the bytes that each of its parts had alone, and those files."""
    import pyarrow as pa
    import pyarrow.compute as pc
    import pyarrow.parquet as pq

    content, kept, done = BytesIO(), dict[str, int](), list[File]()
    writer = None
    for file in files:
        try:
            source = pq.ParquetFile(BytesIO(parts.storage.read(f"{table}/{file.name}")))
            groups = [source.read_row_group(number) for number in range(source.num_row_groups)]
        except (FileNotFoundError, pa.ArrowException, OSError):
            continue
        schema = pa.schema([field.with_nullable(True) for field in source.schema_arrow])
        if "part" not in schema.names or (writer is not None and schema != writer.schema):
            continue  # another version's
        writer = writer or pq.ParquetWriter(content, schema, compression="zstd")
        wanted = {key: size for key, size in file.parts.items() if key not in kept.keys() | without}
        for group in groups:
            mine = pc.is_in(group["part"].cast(pa.string()), pa.array(list(wanted), pa.string()))
            writer.write_table(group.cast(schema).filter(mine))
        kept |= wanted
        done.append(file)
    if writer is not None:
        writer.close()
    return content.getvalue(), kept, done
