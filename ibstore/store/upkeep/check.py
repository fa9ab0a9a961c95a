"""Checking a committed group's files against its record: sizes, sums, form, and that every chunk decodes.

One file at a time is in memory for each thread, never a whole segment.
"""

import json
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import lru_cache, partial
from typing import TYPE_CHECKING, Any

from ibstore.errors import StoreError
from ibstore.store.committed import THREADS
from ibstore.store.format.names import unescape
from ibstore.store.format.schema import Files, file_info
from ibstore.store.places import RECORD, Storage
from ibstore.store.upkeep.report import Finding, Kind
from ibstore.store.upkeep.survey import is_node, read_each

if TYPE_CHECKING:
    import zarr
    from numpy.typing import NDArray


@dataclass(frozen=True, slots=True)
class Form:
    """What an array must be: ``shape``, NumPy ``dtype`` name, names of its ``dimensions``."""

    shape: tuple[int, ...]
    dtype: str
    dimensions: tuple[str, ...]

    def __str__(self) -> str:
        return f"{self.dtype} {self.shape} of ({', '.join(self.dimensions)})"


@dataclass(frozen=True)
class GroupCheck:
    """A committed group that is being checked.

    Parameters
    ----------
    storage, key
        Where it is.
    files
        What its record names.
    what
        What it is, in words; ``remedy`` is what to do when it is damaged.
    run, epochs
        Of a segment.
    forms
        Arrays that it must have, by path.
    values
        What coordinates must hold, by path.
    """

    storage: Storage
    key: str
    files: Files
    what: str
    remedy: str
    run: str | None = None
    epochs: tuple[int, ...] = ()
    forms: Mapping[str, Form] = field(default_factory=dict)
    values: "Mapping[str, NDArray[Any]]" = field(default_factory=dict)

    def findings(self, found: Mapping[str, int], *, deep: bool) -> list[Finding]:
        """What is wrong with it, given the sizes of the store's files by key."""
        findings = list(self._sizes(found))
        bad = {finding.key for finding in findings}
        sound = [path for path in sorted(self.files) if f"{self.key}/{path}" not in bad]
        metadata: dict[str, bytes] = {}
        findings += self._metadata([path for path in sound if path.endswith(RECORD)], metadata)
        findings += self._forms(metadata)
        if deep:
            arrays = {path: content for path, content in metadata.items() if path in self._array_paths()}
            findings += self._contents([path for path in sound if not path.endswith(RECORD)], arrays)
        return findings

    def finding(self, kind: Kind, path: str, fact: str) -> Finding:
        """A finding about a file."""
        key = f"{self.key}/{path}"
        split, layer = self._place(path)
        named = [f"{word} {name!r}" for word, name in (("split", split), ("layer", layer)) if name is not None]
        message = f"{', '.join([self.what, *named])}: {self.storage.where(key)} {fact}; {self.remedy}"
        return Finding(kind, key, message, self.run, self.epochs, split, layer)

    def _place(self, path: str) -> tuple[str | None, str | None]:
        """Split and layer that a file of a segment belongs to."""
        if self.run is None:
            return None, None
        split, *rest = path.split("/")[:-1]
        layer = rest[0] if rest and is_node(rest[0]) else None
        return (unescape(split) if is_node(split) else None), layer and unescape(layer)

    def _array_paths(self) -> set[str]:
        return {path.rpartition("/")[0] for path in self.files if not path.endswith(RECORD)} | set(self.forms)

    def _sizes(self, found: Mapping[str, int]) -> Iterator[Finding]:
        for path, info in self.files.items():
            size = found.get(f"{self.key}/{path}")
            if size is None:
                yield self.finding(Kind.MISSING, path, "is missing")
            elif size != info.bytes:
                yield self.finding(Kind.SIZE, path, f"has {size} bytes instead of {info.bytes}")

    def _metadata(self, paths: list[str], sound: dict[str, bytes]) -> Iterator[Finding]:
        """Sums of the metadata, which are noted in ``sound`` by the path of their node."""
        keys = [f"{self.key}/{path}" for path in paths]
        for path, content in zip(paths, read_each(self.storage, keys), strict=True):
            fault = self._sum_fault(path, content)
            if fault is None:
                assert isinstance(content, bytes), "what cannot be read is no sound file"
                sound[path.rpartition("/")[0]] = content
            else:
                yield fault

    def _sum_fault(self, path: str, content: "bytes | StoreError | None") -> Finding | None:
        if content is None:  # it vanished since it was listed
            return self.finding(Kind.MISSING, path, "is missing")
        if isinstance(content, StoreError):
            return self.finding(Kind.DECODE, path, f"cannot be read ({content})")
        if file_info(content) != self.files[path]:
            return self.finding(Kind.CHECKSUM, path, "is not what was committed")
        return None

    def _forms(self, metadata: Mapping[str, bytes]) -> Iterator[Finding]:
        for path, due in self.forms.items():
            if path in metadata:
                form = _form(metadata[path])
                if form != due:
                    yield self.finding(Kind.FORM, f"{path}/{RECORD}", f"is {form or 'no array'} instead of {due}")
            elif f"{path}/{RECORD}" not in self.files:
                yield self.finding(Kind.FORM, f"{path}/{RECORD}", "is not in the commit record")

    def _contents(self, paths: list[str], metadata: Mapping[str, bytes]) -> Iterator[Finding]:
        arrays = {}
        for path, content in metadata.items():
            try:
                arrays[path] = _array(content)
            except (ValueError, KeyError, TypeError) as error:
                yield self.finding(Kind.FORM, f"{path}/{RECORD}", f"is no array's metadata ({_first_line(error)})")
        yield from self._absent(arrays)
        with ThreadPoolExecutor(THREADS) as pool:
            for finding in pool.map(partial(self._content, arrays, metadata), paths):
                if finding is not None:
                    yield finding

    def _absent(self, arrays: "Mapping[str, zarr.Array[Any]]") -> Iterator[Finding]:
        """Chunks that an array must have and the record does not name."""
        for path, array in arrays.items():
            for name in _chunk_names(array):
                if f"{path}/{name}" not in self.files:
                    yield self.finding(Kind.FORM, f"{path}/{name}", "is not in the commit record")

    def _content(
        self, arrays: "Mapping[str, zarr.Array[Any]]", metadata: Mapping[str, bytes], path: str
    ) -> Finding | None:
        """What is wrong with a chunk's file."""
        (content,) = read_each(self.storage, [f"{self.key}/{path}"])
        fault = self._sum_fault(path, content)
        node, _, name = path.rpartition("/")
        if fault is not None or node not in arrays:
            return fault
        assert isinstance(content, bytes), "what cannot be read is no sound file"
        try:
            if arrays[node].shards is not None:
                _decode_shard(arrays[node], name, content)
                return None
            return self._coordinate(path, metadata[node], content)
        except (ValueError, RuntimeError, KeyError, TypeError, IndexError) as error:
            return self.finding(Kind.DECODE, path, f"cannot be decoded ({_first_line(error)})")

    def _coordinate(self, path: str, metadata: bytes, content: bytes) -> Finding | None:
        """What is wrong with the one chunk of a coordinate."""
        import numpy as np

        node, _, name = path.rpartition("/")
        values = _coordinate_values(metadata, name, content)
        if node in self.values and not np.array_equal(values, self.values[node]):
            return self.finding(Kind.FORM, path, "does not hold what the record and the probe set say")
        return None


@lru_cache(maxsize=128)
def _array(metadata: bytes) -> "zarr.Array[Any]":
    """Array of these metadata; a run's segments have few different ones."""
    from ibstore.store.format.arrays import open_array

    return open_array({RECORD: metadata})


@lru_cache(maxsize=8)
def _coordinate_values(metadata: bytes, name: str, content: bytes) -> "NDArray[Any]":
    """Values of a one-chunk array; a run's segments have the same sample ids."""
    import numpy as np

    from ibstore.store.format.arrays import open_array

    return np.asarray(open_array({RECORD: metadata, name: content})[...])


def _form(metadata: bytes) -> Form | None:
    """What an array's metadata say; None where they are no array's."""
    try:
        document = json.loads(metadata)
        return Form(tuple(document["shape"]), document["data_type"], tuple(document["dimension_names"]))
    except (ValueError, KeyError, TypeError):
        return None


def _sample_axis(array: "zarr.Array[Any]") -> int:
    return list(array.metadata.dimension_names or ()).index("sample")  # type: ignore[union-attr]


def _chunk_names(array: "zarr.Array[Any]") -> list[str]:
    """Names of the files of an array that is cut along ``sample`` alone, or not at all."""
    if array.shards is None:
        return [array.metadata.encode_chunk_key((0,) * array.ndim)]
    axis = _sample_axis(array)
    count, tail = -(-array.shape[axis] // array.shards[axis]), (0,) * (array.ndim - axis - 1)
    return [array.metadata.encode_chunk_key((*(0,) * axis, number, *tail)) for number in range(count)]


def _decode_shard(array: "zarr.Array[Any]", name: str, content: bytes) -> None:
    """Return when every chunk of a shard decodes."""
    from itertools import product

    from ibstore.store.format.shards import Shards

    shards, axis = Shards.of(array), _sample_axis(array)
    start = _chunk_names(array).index(name) * shards.shard[axis]
    for at in product(*map(range, array.shape[:axis])):
        shards.decode(content, [at], min(shards.shard[axis], array.shape[axis] - start))


def _first_line(error: Exception) -> str:
    return (str(error) or type(error).__name__).splitlines()[0]
