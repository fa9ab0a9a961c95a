"""Where files of data sets lie, and what is said when they do not."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from ibstore.errors import DatasetError


def cache() -> Path:
    """Where downloads go when no folder is given."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "ibstore"


@contextmanager
def readable(name: str, place: Path, remedy: str) -> Iterator[None]:
    """Read a data set by torchvision; what that raises where files are missing or broken becomes a `DatasetError`."""
    try:
        yield
    except (OSError, RuntimeError, ValueError, LookupError, AssertionError, EOFError) as error:
        reason = str(error).strip().splitlines()[-1] if str(error).strip() else type(error).__name__
        raise DatasetError(
            f"{name} is neither readable in {place} nor to be downloaded ({reason}); {remedy}"
        ) from error
