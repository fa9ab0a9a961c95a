"""A store under a bucket's prefix (S3, Google, Azure) or in this process's memory, through obstore.

Such a place has no folders, no locks and no end; a put is atomic and durable when it returns, and a put of
mode ``create`` tells who lost a race.
"""

import os
import re
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from ibstore.errors import StoreError, UsageError, WriteError
from ibstore.store.places.storage import Storage

if TYPE_CHECKING:
    from obstore.store import ClientConfig, ObjectStore, RetryConfig

SCHEMES: Final = ("s3", "gs", "az", "memory")
CONNECTIONS: Final = 16
RETRIES: "Final[RetryConfig]" = {"max_retries": 5, "retry_timeout": timedelta(seconds=30)}
"""A request is tried again for half a minute: longer than a hiccup, shorter than anybody's patience."""

_memories: "dict[str, ObjectStore]" = {}
"""``memory://`` by name: they live as long as the process."""


class Bucket(Storage):
    """An object store's prefix.

    Parameters
    ----------
    location
        Its URL.
    objects
        The object store, whose paths begin at the prefix.
    """

    def __init__(self, location: str, objects: "ObjectStore") -> None:
        super().__init__(location.rstrip("/"))
        self._objects = objects

    @classmethod
    def at(cls, url: str) -> "Bucket":
        """Bucket prefix at a URL; keys, endpoint and region come from the environment (``AWS_…``, ``GOOGLE_…``).

        Raises
        ------
        UsageError
            When the scheme is unknown, obstore refuses the URL, or it is not installed.
        """
        scheme, _, rest = url.partition("://")
        if scheme not in SCHEMES or not rest.strip("/"):
            known = ", ".join(f"{scheme}://" for scheme in SCHEMES)
            raise UsageError(f"{url!r} is no place for a store; give a folder's path, or a URL of {known} with a name")
        try:
            from obstore import exceptions, store
        except ImportError:
            raise UsageError(f"{url} needs obstore; pip install 'ibstore[cloud]'") from None
        if scheme == "memory":
            return cls(url, _memories.setdefault(url.rstrip("/"), store.MemoryStore()))
        try:
            plain = os.environ.get("AWS_ENDPOINT_URL", "").startswith("http://")  # else obstore would refuse it
            options: ClientConfig = {"allow_http": True} if plain else {}
            return cls(url, store.from_url(url.rstrip("/"), client_options=options, retry_config=RETRIES))
        except (exceptions.BaseError, ValueError) as error:
            raise UsageError(f"{url} cannot be opened ({_reason(error)}); mend the URL, or the settings") from None

    def exists(self) -> bool:
        """Whether any object is there."""
        import obstore

        with self._reading(""):
            listed = obstore.list_with_delimiter(self._objects)
            return bool(listed["objects"] or listed["common_prefixes"])

    def read(self, key: str) -> bytes:
        """Content of an object."""
        import obstore

        with self._reading(key):
            return obstore.get(self._objects, key).bytes().to_bytes()

    def read_range(self, key: str, start: int, stop: int) -> bytes:
        """Some bytes of an object."""
        import obstore

        with self._reading(key):
            return obstore.get_range(self._objects, key, start=start, end=stop).to_bytes()

    def read_all(self, keys: Iterable[str]) -> list[bytes | None]:
        """Content of each object, asked for side by side."""
        with ThreadPoolExecutor(CONNECTIONS) as pool:
            return list(pool.map(self._read_or_none, keys))

    def size(self, key: str) -> int:
        """Bytes of an object."""
        import obstore

        with self._reading(key):
            return int(obstore.head(self._objects, key)["size"])

    def folders(self, key: str) -> list[str]:
        """Names between a key and the next slash."""
        import obstore

        with self._reading(key):
            listed = obstore.list_with_delimiter(self._objects, key or None)
            return sorted(prefix.rstrip("/").rsplit("/", 1)[-1] for prefix in listed["common_prefixes"])

    def files(self, key: str) -> dict[str, int]:
        """Every object below a key."""
        import obstore

        head = f"{key}/" if key else ""
        with self._reading(key):
            found = {
                entry["path"].removeprefix(head): int(entry["size"])
                for batch in obstore.list(self._objects, key or None)
                for entry in batch
            }
        return dict(sorted(found.items()))

    def make(self) -> None:
        """Do nothing: a prefix is there when an object is."""

    def put(self, key: str, content: bytes) -> None:
        """Write an object."""
        self._put(key, content, "overwrite")

    def put_new(self, key: str, content: bytes, *, durable: bool = True) -> None:  # noqa: ARG002  (always durable)
        """Write an object if none is there: the service decides (``If-None-Match: *``)."""
        self._put(key, content, "create")

    def swap(self, key: str, old: bytes, new: bytes) -> None:
        """Write an object if it is still the version that was read (``If-Match``)."""
        import obstore

        try:
            with self._reading(key):
                found = obstore.get(self._objects, key)
                content, meta = found.bytes().to_bytes(), found.meta
        except FileNotFoundError:
            raise FileExistsError(self.where(key)) from None
        if content != old:
            raise FileExistsError(self.where(key))
        self._put(key, new, {name: meta[name] for name in ("e_tag", "version") if meta[name] is not None})

    def _put(self, key: str, content: bytes, mode: Any) -> None:
        import obstore
        from obstore import exceptions

        with self._writing(key):
            try:
                obstore.put(self._objects, key, content, mode=mode)
            except (exceptions.AlreadyExistsError, exceptions.PreconditionError):
                raise FileExistsError(self.where(key)) from None
            except FileNotFoundError:  # the version to replace is gone, or the bucket itself
                if isinstance(mode, str):
                    raise
                raise FileExistsError(self.where(key)) from None

    def remove(self, key: str) -> None:
        """Remove an object."""
        import obstore

        with self._writing(key), suppress(FileNotFoundError):
            obstore.delete(self._objects, key)

    def remove_below(self, key: str) -> None:
        """Remove every object below a key, side by side."""
        with ThreadPoolExecutor(CONNECTIONS) as pool:
            list(pool.map(self.remove, [f"{key}/{path}" for path in self.files(key)]))

    def remove_empty(self) -> None:
        """Do nothing: a prefix without objects is none."""

    def sync(self, key: str) -> None:
        """Do nothing: a put that returned is durable."""

    @contextmanager
    def locked(self, key: str) -> Iterator[bool]:  # noqa: ARG002
        """Lock nothing: what is put under a content's name, or only if absent, needs no lock."""
        yield False

    def strays(self, key: str) -> list[str]:  # noqa: ARG002
        """Nothing: an object is there whole or not at all."""
        return []

    def free_bytes(self) -> None:
        """A bucket has no end."""

    def local(self, keys: Iterable[str], scratch: Path) -> list[Path]:
        """Copies, under their keys."""

        def fetch(key: str) -> Path:
            path = scratch / key
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(self.read(key))
            return path

        with ThreadPoolExecutor(CONNECTIONS) as pool:
            return list(pool.map(fetch, keys))

    def around(self) -> "Iterator[Bucket]":
        """The prefixes above, down to the bucket; memory has none."""
        scheme, _, rest = self.location.partition("://")
        parts = rest.split("/") if scheme != "memory" else []
        return (Bucket.at(f"{scheme}://{'/'.join(parts[:length])}") for length in range(len(parts) - 1, 0, -1))

    def beside(self, suffix: str) -> "Bucket":
        """The prefix of that name beside this one."""
        return Bucket.at(f"{self.location}{suffix}")

    @contextmanager
    def _reading(self, key: str) -> Iterator[None]:
        from obstore import exceptions

        try:
            yield
        except FileNotFoundError:
            raise FileNotFoundError(self.where(key)) from None
        except exceptions.BaseError as error:
            raise StoreError(
                f"cannot read {self.where(key)}: {_reason(error)}; check the name, the endpoint and the access "
                "keys, then ask again"
            ) from error

    @contextmanager
    def _writing(self, key: str) -> Iterator[None]:
        from obstore import exceptions

        try:
            yield
        except (exceptions.BaseError, FileNotFoundError) as error:  # a bucket that is not there
            raise WriteError(
                f"cannot write to {self.where(key)}: {_reason(error)}; whatever was committed before is whole: "
                "check the name, the endpoint and the access keys, then do it again, a capture with --resume"
            ) from error


def _reason(error: Exception) -> str:
    r"""What the service says in its answer, or else the error's first line.

    >>> _reason(ValueError("404 Not Found: <?xml?>\n<Error><Message>No such bucket</Message></Error>"))
    'No such bucket'
    """
    said = re.search(r"<Message>(.+?)</Message>", str(error))
    return said[1] if said else str(error).strip().partition("\n")[0]
