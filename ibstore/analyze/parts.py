"""Results as immutable Parquet parts beside the store, named by what they were computed from.

``<store>.analysis/<table>/<content key>.parquet``, put in place by rename: a part is there whole or not at
all, two processes that compute the same write the same, and nothing ever goes stale, since other inputs have
another name.
"""

import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from ibstore.errors import StoreError, WriteError
from ibstore.store.format.names import escape
from ibstore.store.places import Storage

VERSION: Final = 2
"""Part of every content key: raised when the same inputs would give other numbers."""


def content_key(inputs: Mapping[str, Any]) -> str:
    """Name of what is computed from ``inputs`` (plain JSON): SHA-256, 32 hex digits.

    >>> content_key({"run": "seed0"}) == content_key({"run": "seed0"}) != content_key({"run": "seed1"})
    True
    """
    text = json.dumps({"version": VERSION, **inputs}, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:32]


def unreadable(where: str, reason: str) -> StoreError:
    """What to raise where a part is there and cannot be read; it can always be computed again."""
    first = reason.splitlines()[0] if reason else "no reason given"
    return StoreError(f"cannot read the results in {where} ({first}); remove it and analyze again")


@dataclass(frozen=True)
class Parts:
    """A store's results: immutable files, whose keys are ``<table>/<content key>.parquet``."""

    storage: Storage

    @classmethod
    def beside(cls, store: Storage) -> "Parts":
        """Where a store's results lie by default: ``lab.zarr.analysis`` for ``lab.zarr``."""
        return cls(store.beside(".analysis"))

    def existing(self, table: str, keys: Iterable[str]) -> list[str]:
        """Those of the content keys whose parts are there, in their order."""
        found = self.storage.files(table)
        return [key for key in keys if f"{key}.parquet" in found]

    def read(self, table: str, key: str) -> bytes:
        """Content of a part."""
        return self.storage.read(_path(table, key))

    def where(self, table: str, key: str) -> str:
        """Full name of a part, for messages."""
        return self.storage.where(_path(table, key))

    def local(self, table: str, keys: Iterable[str], scratch: Path) -> list[Path]:
        """Parts as files of this machine: themselves, or copies in ``scratch``."""
        return self.storage.local([_path(table, key) for key in keys], scratch)

    def put(self, table: str, key: str, content: bytes) -> None:
        """Keep a part."""
        self._put(_path(table, key), content)

    def _put(self, path: str, content: bytes) -> None:
        try:
            self.storage.put(path, content)
        except WriteError as error:
            reason = getattr(error.__cause__, "strerror", None) or error
            raise WriteError(
                f"cannot keep results in {self.storage.location}: {reason}; name another folder with --results, or "
                "mend that"
            ) from error

    def remember_waist(self, name: str, texts: Mapping[str, str]) -> None:
        """Note what a waist's name means now: queries see the results of this meaning."""
        path = f"waists/{escape(name)}.json"
        content = json.dumps({"name": name, "recipes": dict(texts)}, indent=1).encode()
        if self.storage.read_all([path]) != [content]:
            self._put(path, content)

    def remembered_waists(self) -> dict[str, dict[str, str]]:
        """Recipes' texts by layer, by waist, of every waist that was ever asked for."""
        paths = [f"waists/{name}" for name in self.storage.files("waists") if name.endswith(".json")]
        try:
            documents = [json.loads(content) for content in self.storage.read_all(paths) if content is not None]
            return {document["name"]: document["recipes"] for document in documents}
        except (ValueError, KeyError, TypeError) as error:
            where = self.storage.where("waists")
            raise StoreError(f"cannot read {where} ({error}); remove that folder and analyze again") from None


def _path(table: str, key: str) -> str:
    return f"{table}/{key}.parquet"
