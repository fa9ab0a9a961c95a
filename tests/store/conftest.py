import os

import pytest


@pytest.fixture(autouse=True)
def unsynced(monkeypatch):
    """No waiting for the disk, since no test cuts the power; the processes that tests start do wait for it."""
    monkeypatch.setattr(os, "fsync", lambda _: None)
