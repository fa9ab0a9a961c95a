"""The captured store, with a results folder of the test's own."""

from pathlib import Path

import pytest


@pytest.fixture
def study(captured: Path, tmp_path: Path) -> list[str]:
    """Arguments that name the captured store and a results folder of the test's own."""
    return [str(captured), "--results", str(tmp_path / "results")]
