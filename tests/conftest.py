"""What tests of several rooms share: the command line run in this process, and a small store."""

import itertools
import os
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from unittest.mock import patch

import pytest

from ibstore.cli import main


def pytest_configure(config: pytest.Config) -> None:
    """A process a core already: threads of torch and BLAS, there and in what tests start, would wait for each other.

    It is said before the processes start: other plugins have imported numpy when they read this file.
    """
    if getattr(config.option, "numprocesses", None):
        os.environ["OMP_NUM_THREADS"] = "1"


@dataclass(frozen=True)
class Done:
    """What a command left behind."""

    code: int
    out: str
    err: str


Command = Callable[..., Done]


FOLDERS = itertools.count()


@pytest.fixture
def tmp_path(tmp_path: Path) -> Path:
    """A folder whose path no other test of the process has had.

    pytest gives the path of a folder that was removed to another one; what is remembered of it, as the content of a
    file that was read there, would be the other's.
    """
    folder = tmp_path / f"{next(FOLDERS)}"
    folder.mkdir()
    return folder


@pytest.fixture
def ibstore(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Command:
    """Run ``ibstore ARGUMENTS`` and give its exit code, stdout and stderr."""

    def run(*arguments: object) -> Done:
        monkeypatch.setattr(sys, "argv", ["ibstore", *map(str, arguments)])
        capsys.readouterr()
        try:
            main()
            code = 0
        except SystemExit as leaving:
            code = int(leaving.code or 0)
        captured = capsys.readouterr()
        assert "Traceback" not in captured.err + captured.out
        return Done(code, captured.out, captured.err)

    return run


@pytest.fixture(scope="session")
def captured(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store with one run of two epochs, a segment each; tests must not change it (results go elsewhere)."""
    from ibstore.capture.recipes import recipe
    from ibstore.capture.train import TrainSettings, train

    store = tmp_path_factory.mktemp("captured") / "lab.zarr"
    with patch("ibstore.store.format.layout.SEGMENT_BYTES", 1):
        train("mnist-cnn", store, settings=TrainSettings.of(recipe("mnist-cnn"), epochs=1, limit=200))
    return store
