"""Results as immutable Parquet parts beside the store, named by what they were computed from.

``<store>.analysis/<table>/<content key>.parquet``, put in place by rename: a part is there whole or not at
all, two processes that compute the same write the same, and nothing ever goes stale, since other inputs have
another name. Many small parts are packed into one file, ``<name>.parquet`` beside ``<name>.json``, which says whose
rows it has; in every file the column ``part`` says whose a row is.
"""

import hashlib
import json
import re
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, TypeVar

from ibstore.errors import StoreError, WriteError
from ibstore.store.format.names import escape
from ibstore.store.places import Storage

if TYPE_CHECKING:
    import polars as pl

VERSION: Final = 6
"""Part of every content key: raised when the same inputs would give other numbers."""

SAME_DIGEST: Final = "two patterns have the same SHA-256; report this, it has never been seen"

_OURS: Final = re.compile(r"[0-9a-f]{32}\.(parquet|json)")

LOOKS: Final = 5
"""How often to look again for a part that another process has packed since."""

Result = TypeVar("Result")


def content_key(inputs: Mapping[str, Any]) -> str:
    """Name of what is computed from ``inputs`` (plain JSON): SHA-256, 32 hex digits.

    >>> content_key({"data": "ab"}) == content_key({"data": "ab"}) != content_key({"data": "cd"})
    True
    """
    text = json.dumps({"version": VERSION, **inputs}, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:32]


def unreadable(where: str, reason: str) -> StoreError:
    """What to raise where a part is there and cannot be read; it can always be computed again."""
    first = reason.splitlines()[0] if reason else "no reason given"
    return StoreError(f"cannot read the results in {where} ({first}); remove it and analyze again")


@dataclass(frozen=True)
class File:
    """A file of a table: its name, its bytes, and the bytes that each part had before it was packed."""

    name: str
    bytes: int
    parts: Mapping[str, int]

    @property
    def is_pack(self) -> bool:
        """Whether it stands beside a list of its parts."""
        return self.name.removesuffix(".parquet") not in self.parts


@dataclass(frozen=True)
class Parts:
    """A store's results: immutable files."""

    storage: Storage

    @classmethod
    def beside(cls, store: Storage) -> "Parts":
        """Where a store's results lie by default: ``lab.zarr.analysis`` for ``lab.zarr``."""
        return cls(store.beside(".analysis"))

    def files(self, table: str) -> list[File]:
        """All files of a table as they are now, packs first."""
        found = self.storage.files(table)
        ours = [name for name in found if _OURS.fullmatch(name)]
        lists = [name for name in ours if name.endswith(".json") and f"{name[:-5]}.parquet" in found]
        contents = self.storage.read_all(f"{table}/{name}" for name in lists)
        packs = [
            File(f"{name[:-5]}.parquet", found[f"{name[:-5]}.parquet"], self._listed(f"{table}/{name}", content))
            for name, content in zip(lists, contents, strict=True)
            if content is not None
        ]
        packed = {pack.name for pack in packs}
        alone = [name for name in ours if name.endswith(".parquet") and name not in packed]
        return packs + [File(name, found[name], {name.removesuffix(".parquet"): found[name]}) for name in alone]

    def _listed(self, path: str, content: bytes) -> dict[str, int]:
        try:
            return {str(key): int(size) for key, size in json.loads(content)["parts"].items()}
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise unreadable(self.storage.where(path), str(error)) from None

    def homes(self, table: str, keys: Collection[str]) -> dict[str, list[str]]:
        """Files that hold the parts of these content keys, each part in one of them; what is not there has none."""
        wanted = set(keys)
        homes: dict[str, list[str]] = {}
        for file in self.files(table) if wanted else ():
            mine = [key for key in file.parts if key in wanted]
            if mine:
                homes[file.name] = mine
                wanted.difference_update(mine)
        return homes

    def existing(self, table: str, keys: Collection[str]) -> set[str]:
        """Those of the content keys whose parts are there."""
        return {key for mine in self.homes(table, keys).values() for key in mine}

    def rows(self, table: str, keys: Collection[str]) -> "list[pl.DataFrame]":
        """Rows of the parts of these content keys, file by file; what is not there has none.

        Raises
        ------
        StoreError
            When a file cannot be read.
        """
        return self.steadily(lambda: [self._rows(table, name, mine) for name, mine in self.homes(table, keys).items()])

    def steadily(self, look: Callable[[], Result]) -> Result:
        """What ``look`` finds, which looks again where another process has packed a file since it was listed."""
        for _ in range(LOOKS):
            try:
                return look()
            except FileNotFoundError:
                continue
        return look()

    def _rows(self, table: str, name: str, keys: Collection[str]) -> "pl.DataFrame":
        import polars as pl

        content = self.storage.read(f"{table}/{name}")
        try:
            return pl.scan_parquet(BytesIO(content)).filter(pl.col("part").is_in(list(keys))).collect()
        except (OSError, pl.exceptions.PolarsError) as error:
            raise unreadable(self.storage.where(f"{table}/{name}"), str(error)) from None

    def local(self, table: str, names: Iterable[str], scratch: Path) -> list[Path]:
        """Files as files of this machine: themselves, or copies in ``scratch``."""
        return self.storage.local([f"{table}/{name}" for name in names], scratch)

    def put(self, table: str, key: str, content: bytes) -> None:
        """Keep a part."""
        self.put_file(f"{table}/{key}.parquet", content)

    def put_file(self, path: str, content: bytes) -> None:
        """Write a file of the results; WriteError where that cannot be."""
        try:
            self.storage.put(path, content)
        except WriteError as error:
            reason = getattr(error.__cause__, "strerror", None) or error
            raise WriteError(
                f"cannot keep results in {self.storage.location}: {reason}; name another folder with --results, or "
                "mend that"
            ) from error

    def remove(self, table: str, file: File) -> None:
        """Remove a file; of a pack its list goes first, so that nobody finds it any more."""
        if file.is_pack:
            self.storage.remove(f"{table}/{file.name.removesuffix('.parquet')}.json")
        self.storage.remove(f"{table}/{file.name}")

    def remember_waist(self, name: str, texts: Mapping[str, str]) -> None:
        """Note what a waist's name means now: queries see the results of this meaning."""
        self._remember("waists", name, {"recipes": dict(texts)})

    def remembered_waists(self) -> dict[str, dict[str, str]]:
        """Recipes' texts by layer, by waist, of every waist that was ever asked for."""
        return self._remembered("waists", lambda document: dict(document["recipes"]))

    def remember(self, folder: str, name: str) -> None:
        """Note that a name was asked for: an estimator, a way to take channels."""
        self._remember(folder, name, {})

    def remembered(self, folder: str) -> list[str]:
        """Names that were ever asked for."""
        return sorted(self._remembered(folder, lambda _: None))

    def remembered_estimators(self) -> list[str]:
        """Estimators that were ever asked for, the plug-in first."""
        return ["plugin", *self.remembered("estimators")]

    def _remember(self, folder: str, name: str, document: Mapping[str, Any]) -> None:
        path = f"{folder}/{escape(name)}.json"
        content = json.dumps({"name": name, **document}, indent=1).encode()
        if self.storage.read_all([path]) != [content]:
            self.put_file(path, content)

    def _remembered(self, folder: str, value: Callable[[Mapping[str, Any]], Result]) -> dict[str, Result]:
        """What is noted in a folder, by name."""
        paths = [f"{folder}/{name}" for name in self.storage.files(folder) if name.endswith(".json")]
        try:
            documents = [json.loads(content) for content in self.storage.read_all(paths) if content is not None]
            return {str(document["name"]): value(document) for document in documents}
        except (ValueError, KeyError, TypeError) as error:
            where = self.storage.where(folder)
            raise StoreError(f"cannot read {where} ({error}); remove that folder and analyze again") from None
