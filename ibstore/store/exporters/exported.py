"""What stands beside exported epochs: ``manifest.json``, by which an import gives the same run again."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from ibstore.errors import SourceError
from ibstore.store.format.schema import Dynamics, Manifest, Metrics, SegmentRecord

MANIFEST: Final = "manifest.json"
VERSION: Final = 1
_MARK: Final = "ibstore_export"


@dataclass(frozen=True, slots=True)
class Exported:
    """A folder of exported epochs.

    Parameters
    ----------
    form
        Format of its files.
    split
        Which split of the run they hold.
    manifest
        Of the run; its layers are those that were exported.
    epochs
        Scalars of the exported epochs; its ``files`` are empty.
    files
        Name of each epoch's file.
    """

    form: str
    split: str
    manifest: Manifest
    epochs: SegmentRecord
    files: tuple[str, ...]

    def dump(self) -> bytes:
        """As JSON for people and programs."""
        scalars = self.epochs.dump()
        del scalars["files"]
        document = {
            _MARK: VERSION,
            "format": self.form,
            "split": self.split,
            "epochs": scalars,
            "files": list(self.files),
            "manifest": self.manifest.dump(),
        }
        return json.dumps(document, indent=1, allow_nan=False).encode()

    def scalars(self, epoch: int) -> tuple[int | None, Metrics, Dynamics]:
        """Step, metrics and dynamics of an epoch; KeyError where it was not exported."""
        record = self.epochs
        place = {number: place for place, number in enumerate(record.epochs)}[epoch]
        return record.steps[place], record.metrics[place], record.dynamics[place]


def exported_at(folder: Path) -> Exported | None:
    """What `ibstore export` noted of a folder; None where it did not write it.

    Raises
    ------
    SourceError
        When it was altered, or a later ibstore wrote it.
    """
    path = folder / MANIFEST
    if not path.is_file():
        return None
    try:
        document = json.loads(path.read_bytes())
    except (OSError, ValueError):
        return None  # another program's
    if not isinstance(document, dict) or _MARK not in document:
        return None
    if document[_MARK] != VERSION:
        raise SourceError(f"{path} is of version {document[_MARK]}, this ibstore reads {VERSION}; install a newer one")
    try:
        return _loaded(document)
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise SourceError(f"{path} is not what was exported ({error!r}); export again, or remove it") from None


def _loaded(document: dict[str, Any]) -> Exported:
    return Exported(
        document["format"],
        document["split"],
        Manifest.load(document["manifest"]),
        SegmentRecord.load({**document["epochs"], "files": {}}),
        tuple(document["files"]),
    )
