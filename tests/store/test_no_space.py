"""No space left, at every place where a writer can notice it: the committed epochs stay, and the next write works."""

import errno
import os
import re
import resource
import signal
import stat
import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path

import pytest

from ibstore.errors import WriteError
from ibstore.store import Store, create_store, write_probe_set

from . import stores

ROOT = Path(__file__).parents[2]
VALUES = stores.layers()
FULL = OSError(errno.ENOSPC, "No space left on device")
MESSAGE = (
    "cannot write to {place}: No space left on device; whatever was committed before is whole: free space or mend the "
    "permissions, then do it again, a capture with --resume"
)


@pytest.fixture
def store(tmp_path):
    return tmp_path / "lab.zarr"


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    """What the store is, file by file, where there is space."""
    return stores.tree(stores.write_run(tmp_path_factory.mktemp("undisturbed") / "lab.zarr", VALUES))


def write_or_discard(writer, epoch):
    """Write an epoch, or leave nothing of it."""
    segment = writer.segment(epoch)
    try:
        for name, values in VALUES.items():
            segment.append("train", name, values[epoch])
        segment.commit([100 * epoch], [stores.METRICS])
    except WriteError:
        segment.discard()
        raise


@pytest.mark.parametrize(
    ("owner", "call", "allowed"),
    [
        (os, "mkdir", 0),
        (os, "mkdir", 3),
        (Path, "write_bytes", 0),
        (Path, "write_bytes", 4),
        (Path, "write_bytes", 8),
        (os, "fsync", 0),
        (os, "fsync", 12),
        (os, "link", 0),
        (os, "link", 8),
    ],
)
def test_a_full_disk_loses_the_epoch_that_is_being_written_and_no_other(
    store, monkeypatch, undisturbed, owner, call, allowed
):
    with stores.open_writer(store, VALUES) as writer:
        stores.write_epoch(writer, VALUES, 0)
        before = stores.tree(store)
        place = stores.segment_folder(store, 1)
        with monkeypatch.context() as patch:
            patch.setattr(owner, call, stores.calls_before(getattr(owner, call), allowed, FULL))
            with pytest.raises(WriteError) as caught:
                write_or_discard(writer, 1)
        (named,) = re.fullmatch(MESSAGE.format(place="(.*)"), str(caught.value)).groups()
        assert Path(named).is_relative_to(place)
        assert caught.value.__cause__ is FULL
        stores.assert_run(store, VALUES, [0])
        assert stores.tree(store) == before  # nothing is left of it
        stores.write_epoch(writer, VALUES, 1)
    stores.assert_run(store, VALUES, [0, 1])
    assert stores.tree(store) == undisturbed


@pytest.mark.parametrize("allowed", [0, 2, 5])
def test_a_full_disk_while_a_probe_set_is_written(store, monkeypatch, undisturbed, allowed):
    create_store(store)
    with monkeypatch.context() as patch:
        patch.setattr(Path, "write_bytes", stores.calls_before(Path.write_bytes, allowed, FULL))
        with pytest.raises(WriteError, match=f"cannot write to .*{stores.PROBE.digest()}/.*: No space left on device"):
            write_probe_set(store, stores.PROBE)
    stores.write_run(store, VALUES)
    assert stores.tree(store) == undisturbed


@pytest.mark.parametrize("allowed", range(5))
def test_a_full_disk_while_a_store_or_a_run_is_begun(store, monkeypatch, undisturbed, allowed):
    with monkeypatch.context() as patch:
        patch.setattr(os, "link", stores.calls_before(os.link, allowed, FULL))
        with pytest.raises(WriteError, match="No space left on device"):
            stores.open_writer(store, VALUES)
    stores.write_run(store, VALUES)
    assert stores.tree(store) == undisturbed


def test_a_place_where_nothing_may_be_written(store, monkeypatch):
    def refuse(*arguments, **options):
        raise PermissionError(errno.EACCES, "Permission denied")

    with monkeypatch.context() as patch:
        patch.setattr(os, "mkdir", refuse)
        with pytest.raises(WriteError, match=r"cannot write to .*lab.zarr: Permission denied; .* mend the permissions"):
            create_store(store)
    (store.parent / "file").touch()
    with pytest.raises(WriteError, match=r"cannot write to .*file/lab.zarr: Not a directory"):
        create_store(store.parent / "file" / "lab.zarr")


@contextmanager
def read_only(store):
    """A store that this process can read and not write, the superuser's rights laid down."""
    closed = [path for path in store.parents if not path.stat().st_mode & stat.S_IXOTH]
    folders = [*closed, store, *(path for path in store.rglob("*") if path.is_dir())]
    modes = [(folder, folder.stat().st_mode) for folder in folders]
    user = os.geteuid()
    for folder in folders:
        folder.chmod(0o555)
    if user == 0:
        os.seteuid(65534)
    try:
        yield
    finally:
        os.seteuid(user)
        for folder, mode in modes:
            folder.chmod(mode)


def test_a_folder_that_must_not_be_written_for_real(store):
    stores.write_run(store, VALUES)
    with read_only(store):
        stores.assert_run(store, VALUES, [0, 1])
        with pytest.raises(
            WriteError,
            match=r"cannot write to .*lab.zarr/.*: Permission denied; whatever was committed before is whole: free "
            "space or mend the permissions, then do it again, a capture with --resume",
        ):
            stores.open_writer(store, VALUES, run="other")


LIMITED = """
import resource, signal, sys
from pathlib import Path
import numpy as np
from ibstore.errors import WriteError
from tests.store import stores
values = {"noise": np.random.default_rng(0).normal(size=(2, stores.SAMPLES, 2000)).astype("f4")}
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
with stores.open_writer(Path(sys.argv[1]), values) as writer:
    stores.write_epoch(writer, values, 0)
    _, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, hard))
    try:
        stores.write_epoch(writer, values, 1)
    except WriteError as error:
        print(error)
    resource.setrlimit(resource.RLIMIT_FSIZE, (hard, hard))
    print(stores.Store.open(sys.argv[1]).run("run0").epochs)
    stores.write_epoch(writer, values, 1)
stores.assert_run(Path(sys.argv[1]), values, [0, 1])
"""


@pytest.mark.skipif(not hasattr(resource, "RLIMIT_FSIZE") or not hasattr(signal, "SIGXFSZ"), reason="POSIX")
def test_a_file_that_the_system_really_refuses_in_its_middle(store):
    done = subprocess.run([sys.executable, "-c", LIMITED, store], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    message, epochs = done.stdout.splitlines()
    shard = stores.segment_folder(store, 1) / "train" / "noise" / "c.0.0.0"
    assert message == MESSAGE.format(place=shard).replace("No space left on device", "File too large")
    assert epochs == "[0]"
    assert Store.open(store).run("run0").epochs == [0, 1]
    assert not list(store.rglob("*.partial"))
