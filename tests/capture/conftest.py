from pathlib import Path

import pytest

from ibstore.store.format import layout


@pytest.fixture
def store(tmp_path: Path) -> Path:
    """Path of a store that does not exist yet."""
    return tmp_path / "lab.zarr"


@pytest.fixture
def one_by_one(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let every epoch be a segment of its own, however small it is."""
    monkeypatch.setattr(layout, "SEGMENT_BYTES", 1)
