"""Results as immutable Parquet parts beside the store, named by what they were computed from.

``<store>.analysis/<table>/<content key>.parquet``, put in place by rename: a part is there whole or not at
all, two processes that compute the same write the same, and nothing ever goes stale, since other inputs have
another name.
"""

import hashlib
import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from threading import get_ident
from typing import Any, Final

from ibstore.errors import StoreError, WriteError
from ibstore.store.names import escape

VERSION: Final = 1
"""Part of every content key: raised when the same inputs would give other numbers."""


def content_key(inputs: Mapping[str, Any]) -> str:
    """Name of what is computed from ``inputs`` (plain JSON): SHA-256, 32 hex digits.

    >>> content_key({"run": "seed0"}) == content_key({"run": "seed0"}) != content_key({"run": "seed1"})
    True
    """
    text = json.dumps({"version": VERSION, **inputs}, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:32]


def unreadable(path: Path, reason: str) -> StoreError:
    """What to raise where a part is there and cannot be read; it can always be computed again."""
    first = reason.splitlines()[0] if reason else "no reason given"
    return StoreError(f"cannot read the results in {path} ({first}); remove it and analyze again")


@dataclass(frozen=True)
class Parts:
    """The folder of a store's results."""

    folder: Path

    @classmethod
    def beside(cls, store: Path) -> "Parts":
        """Where a store's results lie by default: ``lab.zarr.analysis`` for ``lab.zarr``."""
        whole = store.resolve()
        return cls(whole.with_name(f"{whole.name}.analysis"))

    def path(self, table: str, key: str) -> Path:
        """Absolute path of a part."""
        return self.folder.resolve() / table / f"{key}.parquet"

    def existing(self, table: str, keys: list[str]) -> list[Path]:
        """Paths of those parts that are there, in the order of the keys."""
        return [path for key in keys if (path := self.path(table, key)).exists()]

    @contextmanager
    def writing(self, path: Path) -> Iterator[Path]:
        """Give a temporary path to write; afterwards it stands at ``path``."""
        temporary = path.with_name(f".{path.name}.{os.getpid()}-{get_ident()}.partial")
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            yield temporary
            temporary.replace(path)
        except OSError as error:
            raise WriteError(
                f"cannot keep results in {self.folder}: {error.strerror or error}; name another folder with "
                "--results, or mend that"
            ) from error
        finally:
            with suppress(OSError):
                temporary.unlink()

    def remember_waist(self, name: str, texts: Mapping[str, str]) -> None:
        """Note what a waist's name means now: queries see the results of this meaning."""
        path = self.folder / "waists" / f"{escape(name)}.json"
        content = json.dumps({"name": name, "recipes": dict(texts)}, indent=1)
        try:
            known = path.read_bytes() == content.encode()
        except OSError:
            known = False
        if not known:
            with self.writing(path) as temporary:
                temporary.write_text(content, encoding="utf-8")

    def remembered_waists(self) -> dict[str, dict[str, str]]:
        """Recipes' texts by layer, by waist, of every waist that was ever asked for."""
        folder = self.folder / "waists"
        if not folder.exists():
            return {}
        try:
            documents = [json.loads(path.read_text(encoding="utf-8")) for path in sorted(folder.glob("*.json"))]
            return {document["name"]: document["recipes"] for document in documents}
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise StoreError(f"cannot read {folder} ({error}); remove that folder and analyze again") from None
