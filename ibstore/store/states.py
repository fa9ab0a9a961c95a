"""What a training needs to go on after an epoch, beside the store: never in it, and gone when the run is complete.

``<store>.resume/<run>/<epoch>.safetensors`` is put before the commit record of its epoch, and those before it are
dropped afterwards: at any instant there is one for the last committed epoch.
"""

from typing import Final

from ibstore.store.format.names import escape, segment_name
from ibstore.store.places import Storage

SUFFIX: Final = ".safetensors"


class States:
    """States of one run's training, as bytes."""

    def __init__(self, storage: Storage, run: str) -> None:
        self._storage = storage.beside(".resume")
        self._run = escape(run)

    def where(self) -> str:
        """Where they are, for messages."""
        return self._storage.where(self._run)

    def put(self, epoch: int, content: bytes) -> None:
        """Keep the state after an epoch, durably."""
        self._storage.make()
        self._storage.put(self._key(epoch), content)
        self._storage.sync(self._run)

    def get(self, epoch: int) -> bytes | None:
        """State after an epoch; None where none was kept."""
        (found,) = self._storage.read_all([self._key(epoch)])
        return found

    def drop(self, keep: int | None = None) -> None:
        """Remove all states, but that of the epoch ``keep``."""
        for path in self._storage.files(self._run):
            if keep is None or path != f"{segment_name(keep)}{SUFFIX}":
                self._storage.remove(f"{self._run}/{path}")
        if keep is None:
            self._storage.remove_below(self._run)
            self._storage.remove_empty()

    def _key(self, epoch: int) -> str:
        return f"{self._run}/{segment_name(epoch)}{SUFFIX}"
