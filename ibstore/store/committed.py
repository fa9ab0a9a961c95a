"""Committed arrays, read a shard at a time and checked against the files that their commit record names.

Zarr takes a missing chunk for one full of fill values: so a file is looked at before and after it is read.
"""

from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Self

from ibstore.errors import DamagedError
from ibstore.store import files
from ibstore.store.schema import Files, file_info

if TYPE_CHECKING:
    import numpy as np
    import zarr
    from numpy.typing import NDArray

RECORD: Final = "zarr.json"


@dataclass(frozen=True)
class CommittedArray:
    """One array of a committed group.

    Parameters
    ----------
    folder
        Of the array.
    committed
        Its files by path relative to ``folder``.
    what
        What it is, in words, for messages.
    remedy
        What to do when it is damaged.
    """

    folder: Path
    committed: Files
    what: str
    remedy: str

    @classmethod
    def of(cls, group: Path, path: str, committed: Files, what: str, remedy: str) -> Self:
        """Array at ``path`` below the group whose commit record names the files ``committed``."""
        own = {file.removeprefix(f"{path}/"): info for file, info in committed.items() if file.startswith(f"{path}/")}
        return cls(group / path, own, what, remedy)

    def form(self) -> "tuple[tuple[int, ...], np.dtype[Any]]":
        """Shape and dtype."""
        array = self._open()
        return array.shape, array.dtype

    def whole(self) -> "NDArray[Any]":
        """All of it, for small ones."""
        import numpy as np

        return np.concatenate(list(self.blocks()))

    def blocks(self, *prefix: int) -> "Iterator[NDArray[Any]]":
        """Rows along the axis after ``prefix``, a shard at a time, the next read while the last is worked on.

        Raises
        ------
        DamagedError
            When a committed file is missing, truncated or altered; nothing is read if that shows beforehand.
        """
        from concurrent.futures import ThreadPoolExecutor

        import numpy as np

        array = self._open()
        for path in self.committed:
            self._check_size(path)
        axis = len(prefix)
        rows = (array.shards or array.chunks)[axis]
        starts = range(0, array.shape[axis], rows)

        def read(start: int) -> "NDArray[Any]":
            units = (0,) * (array.ndim - axis - 1)
            path = array.metadata.encode_chunk_key((*prefix, start // rows, *units))
            index: tuple[int | slice, ...] = (*prefix, slice(start, start + rows))
            with self._damage(path):
                block = np.asarray(array[index])
            self._check_size(path)
            return block

        with ThreadPoolExecutor(1) as ahead:
            pending = deque(ahead.submit(read, start) for start in starts[:1])
            for start in starts[1:]:
                pending.append(ahead.submit(read, start))
                yield pending.popleft().result()
            yield from (last.result() for last in pending)

    def _open(self) -> "zarr.Array[Any]":
        """Array as its metadata says, which have no checksum of their own."""
        from ibstore.store.arrays import open_array

        with self._damage(RECORD):
            content = (self.folder / RECORD).read_bytes()
            if file_info(content) != self.committed.get(RECORD):
                raise ValueError("it is not what was committed")
            return open_array(self.folder)

    def _check_size(self, path: str) -> None:
        with self._damage(path):
            size, due = (self.folder / path).stat().st_size, self.committed[path].bytes
            if size != due:
                raise ValueError(f"it has {size} bytes instead of {due}")

    @contextmanager
    def _damage(self, path: str) -> Iterator[None]:
        """The many ways to find that a file's bytes are not right, as one error that names the file."""
        try:
            with files.read_errors(self.folder / path):
                yield
        except (FileNotFoundError, NotADirectoryError) as error:
            raise DamagedError(f"{self.what}: {self.folder / path} is missing; {self.remedy}") from error
        except (ValueError, RuntimeError, KeyError, TypeError) as error:
            reason = str(error).splitlines()[0] if str(error) else type(error).__name__
            raise DamagedError(f"{self.what}: {self.folder / path} cannot be read ({reason}); {self.remedy}") from error
