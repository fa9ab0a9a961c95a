"""Where a store lies: a folder or a bucket, seen as bytes by key, and a writer's lease there."""

from pathlib import Path

from ibstore.errors import UsageError
from ibstore.store.places.storage import RECORD, Storage

__all__ = ["RECORD", "Storage", "local_path", "open_storage"]


def open_storage(location: "str | Path | Storage") -> Storage:
    """Storage at a path or a URL (``s3://bucket/prefix``, ``gs://…``, ``memory://name``, ``file:///…``).

    One that is open already is given back.

    Raises
    ------
    UsageError
        When the URL cannot be understood, or what its kind needs is not installed.

    Examples
    --------
    >>> open_storage("lab.zarr").location, open_storage("memory://lab.zarr").location
    ('lab.zarr', 'memory://lab.zarr')
    """
    if isinstance(location, Storage):
        return location
    text = str(location)
    if text.startswith("file://"):
        text = text.removeprefix("file://")
    if "://" in text:
        from ibstore.store.places.bucket import Bucket

        return Bucket.at(text)
    from ibstore.store.places.disk import Disk

    return Disk(Path(text))


def local_path(location: "str | Path", what: str) -> Path:
    """Path of a folder or a file on this machine.

    Raises
    ------
    UsageError
        When ``location`` is a URL; it says that ``what`` cannot be there.

    Examples
    --------
    >>> local_path("file:///lab/export", "an export").as_posix()
    '/lab/export'
    """
    text = str(location).removeprefix("file://")
    if "://" in text:
        raise UsageError(
            f"{text} is no folder of this machine, where {what} lies; give a path, and copy to or from there"
        )
    return Path(text)
