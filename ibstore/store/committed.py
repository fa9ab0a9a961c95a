"""Committed arrays, read a shard at a time and checked against what their commit record says of each file."""

import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property, lru_cache
from itertools import islice
from math import prod
from typing import TYPE_CHECKING, Any, Final, Self, TypeVar

from ibstore.errors import DamagedError
from ibstore.store.format.schema import Files, file_info
from ibstore.store.places import RECORD, Storage

if TYPE_CHECKING:
    import numpy as np
    import zarr
    from numpy.typing import NDArray

    from ibstore.store.format.shards import Shards

Result = TypeVar("Result")
Item = TypeVar("Item")

THREADS: Final = min(4, len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1)
"""Shards that are decoded side by side: as many are in memory, and one more."""


TURN_BYTES: Final = 1 << 22
"""Blocks are worked on together up to so many bytes: one by one they would take longer to pass on than to work on."""


@dataclass(frozen=True)
class CommittedArray:
    """One array of a committed group.

    Parameters
    ----------
    storage, key
        Where it is.
    committed
        Its files by path relative to ``key``.
    what
        What it is, in words, for messages.
    remedy
        What to do when it is damaged.
    """

    storage: Storage
    key: str
    committed: Files
    what: str
    remedy: str

    @classmethod
    def of(cls, storage: Storage, group: str, path: str, committed: Files, what: str, remedy: str) -> Self:
        """Array at ``path`` below the group whose commit record names the files ``committed``."""
        own = {file.removeprefix(f"{path}/"): info for file, info in committed.items() if file.startswith(f"{path}/")}
        return cls(storage, f"{group}/{path}", own, what, remedy)

    def form(self) -> "tuple[tuple[int, ...], np.dtype[Any]]":
        """Shape and dtype."""
        array = self._open()
        return array.shape, array.dtype

    def whole(self) -> "NDArray[Any]":
        """All of it, for one-chunk arrays: coordinates."""
        import numpy as np

        from ibstore.store.format.arrays import open_array

        contents = {path: self._read(path) for path in self.committed}
        for path, content in contents.items():
            self._check_sum(path, content)
        with self._damage(RECORD):
            return np.asarray(open_array(contents)[...])

    def blocks(self, *prefix: int) -> "Iterator[NDArray[Any]]":
        """Rows along the axis after ``prefix``, a shard at a time, the next ones decoded while one is worked on."""
        return self.map(lambda _, __, blocks: blocks[0], [prefix])

    def map(
        self,
        work: "Callable[[tuple[int, ...], int, NDArray[Any]], Result]",
        prefixes: Sequence[tuple[int, ...]],
        threads: int = THREADS,
        within: range | None = None,
    ) -> "Iterator[Result]":
        """Results of ``work(first prefix, first row, blocks)`` for all blocks, in order, or for one of `spans`.

        A block is what a shard has of the axis after a prefix. Those of some successive prefixes, (prefix, row, …), are
        decoded and worked on in one of several threads, while the results before them are used: of one, unless each
        is small.

        Raises
        ------
        DamagedError
            When a committed file is missing, truncated or altered; nothing is read if that shows beforehand.
        """
        from concurrent.futures import ThreadPoolExecutor

        array, shards = self._coded
        axis = len(prefixes[0])
        rows, samples = shards.shard[axis], array.shape[axis]
        again = axis > 0 and array.shape[0] > 1

        def result(group: tuple[tuple[int, ...], ...], start: int) -> "Result":
            path = self._shard(axis, start // rows)
            content = self._read(path, again=again)
            with self._damage(path):
                blocks = shards.decode(content, group, min(rows, samples - start))
            return work(group[0], start, blocks)

        size = samples * prod(array.shape[axis + 1 :]) * array.dtype.itemsize
        groups = batched(prefixes, max(1, TURN_BYTES // max(1, size)) if samples <= rows else 1)
        starts = (within or range(samples))[::rows]
        turns = ((group, start) for group in groups for start in starts)
        with ThreadPoolExecutor(threads) as pool:
            pending = deque(pool.submit(result, *turn) for turn in islice(turns, threads))
            for turn in turns:
                yield pending.popleft().result()
                pending.append(pool.submit(result, *turn))
            while pending:
                yield pending.popleft().result()

    def spans(self, axis: int, rows: int) -> list[range]:
        """The rows along ``axis`` in pieces of whole shards: of about so many rows each, of at least one shard."""
        array, shards = self._coded
        samples, shard = array.shape[axis], shards.shard[axis]
        step = max(1, rows // shard) * shard
        return [range(start, min(start + step, samples)) for start in range(0, samples, step)]

    def chunk_rows(self, axis: int = 1) -> int:
        """Rows of the smallest piece that can be read by itself, along ``axis``."""
        return self._coded[1].chunk[axis]

    def chunk(self, prefix: tuple[int, ...], number: int) -> "NDArray[Any]":
        """Rows of one chunk along the axis after ``prefix``, of whose file only its bytes are read.

        Raises
        ------
        DamagedError
            When its file is missing, truncated or altered there.
        """
        (array, shards), axis = self._coded, len(prefix)
        shard, within = divmod(number, shards.grid[axis])
        path = self._shard(axis, shard)
        with self._damage(path):
            span = shards.span(self._index(path), self.committed[path].bytes, prefix, within)
            block = shards.decode_chunk(self.storage.read_range(f"{self.key}/{path}", *span), axis, within)
        return block[: array.shape[axis] - number * len(block)]

    @cached_property
    def _coded(self) -> "tuple[zarr.Array[Any], Shards]":
        """The array as its metadata says, and its coder; every file has been seen to have the size that it should."""
        from ibstore.store.format.shards import Shards

        array = self._open()
        with self._damage(RECORD):
            shards = Shards.of(array)
        self._check_sizes()
        return array, shards

    def _shard(self, axis: int, number: int) -> str:
        """Path of a shard along an axis; along those before it there is one."""
        array, _ = self._coded
        return array.metadata.encode_chunk_key((*(0,) * axis, number, *(0,) * (array.ndim - axis - 1)))

    def _index(self, path: str) -> "NDArray[np.uint64]":
        """Where a shard's chunks are, read once."""
        if path not in self._indexes:
            size, tail = self.committed[path].bytes, self._coded[1].index_bytes
            self._indexes[path] = self._coded[1].index(self.storage.read_range(f"{self.key}/{path}", size - tail, size))
        return self._indexes[path]

    @cached_property
    def _indexes(self) -> "dict[str, NDArray[np.uint64]]":
        return {}

    def _open(self) -> "zarr.Array[Any]":
        """Array as its metadata says, which have no checksum of their own."""
        from ibstore.store.format.arrays import open_array

        content = self._read(RECORD)
        self._check_sum(RECORD, content)
        with self._damage(RECORD):
            return open_array({RECORD: content})

    def _read(self, path: str, *, again: bool = False) -> bytes:
        """Content of a file, of the size that was committed; ``again`` when it will be asked for soon."""
        with self._damage(path):
            key = f"{self.key}/{path}"
            content = _read_once(self.storage, key, self.committed[path].sha256) if again else self.storage.read(key)
            self._check_size(path, len(content))
            return content

    def _check_size(self, path: str, size: int) -> None:
        due = self.committed[path].bytes
        if size != due:
            raise ValueError(f"it has {size} bytes instead of {due}")

    def _check_sizes(self) -> None:
        found = self.storage.files(self.key)
        for path in self.committed:
            with self._damage(path):
                if path not in found:
                    raise FileNotFoundError(path)
                self._check_size(path, found[path])

    def _check_sum(self, path: str, content: bytes) -> None:
        with self._damage(path):
            if file_info(content) != self.committed[path]:
                raise ValueError("it is not what was committed")

    @contextmanager
    def _damage(self, path: str) -> Iterator[None]:
        """The many ways to find that a file's bytes are not right, as one error that names the file."""
        where = self.storage.where(f"{self.key}/{path}")
        try:
            yield
        except (FileNotFoundError, NotADirectoryError) as error:
            raise DamagedError(f"{self.what}: {where} is missing; {self.remedy}") from error
        except (ValueError, RuntimeError, KeyError, TypeError) as error:
            reason = str(error).splitlines()[0] if str(error) else type(error).__name__
            raise DamagedError(f"{self.what}: {where} cannot be read ({reason}); {self.remedy}") from error


def batched(items: "Iterable[Item]", size: int) -> "Iterator[tuple[Item, ...]]":
    """Items in groups of ``size``, the last one shorter (`itertools.batched`, from Python 3.12)."""
    rest = iter(items)
    while group := tuple(islice(rest, size)):
        yield group


@lru_cache(maxsize=2)
def _read_once(storage: Storage, key: str, checksum: str) -> bytes:  # noqa: ARG001  (other content, other call)
    """Content of a file that will be asked for again: one shard holds every epoch of a segment with many."""
    return storage.read(key)
