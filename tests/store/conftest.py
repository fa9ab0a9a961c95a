import os

import pytest

from . import s3


@pytest.fixture(autouse=True)
def unsynced():
    """No waiting for the disk, since no test cuts the power; the processes that tests start do wait for it.

    A patch of its own, so that what a test patches is undone before its folder is removed.
    """
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "fsync", lambda _: None)
        yield


@pytest.fixture(scope="session")
def s3_address():
    """Address of an S3-speaking server on loopback."""
    with s3.serving() as address:
        yield address


@pytest.fixture
def s3_environment(s3_address, monkeypatch):
    """What a user says of an S3-speaking server, in the environment."""
    for name, value in {
        "AWS_ENDPOINT_URL": s3_address,
        "AWS_ALLOW_HTTP": "true",  # for obstore without ibstore
        "AWS_ACCESS_KEY_ID": "key",
        "AWS_SECRET_ACCESS_KEY": "secret",
        "AWS_REGION": "us-east-1",
    }.items():
        monkeypatch.setenv(name, value)


@pytest.fixture
def in_s3(s3_environment, tmp_path):
    """URL of a prefix that no other test has."""
    return f"s3://{s3.BUCKET}/{tmp_path.parent.name}/{tmp_path.name}/lab.zarr"


@pytest.fixture
def in_memory(tmp_path):
    """URL of a memory that no other test has."""
    return f"memory://{tmp_path.parent.name}/{tmp_path.name}/lab.zarr"


@pytest.fixture(params=["memory", "s3"])
def in_bucket(request):
    """URL of either."""
    return request.getfixturevalue(f"in_{request.param}")


@pytest.fixture(params=["disk", "memory", "s3"])
def location(request, tmp_path):
    """Path or URL of a place that no other test has, once on each kind of place."""
    if request.param == "disk":
        return str(tmp_path / "lab.zarr")
    return request.getfixturevalue(f"in_{request.param}")
