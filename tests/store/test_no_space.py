"""No space left, at every place where a writer can notice it: the committed epochs stay, and the next write works."""

import errno
import os
import resource
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from ibstore.errors import WriteError
from ibstore.store import Store, create_store, files, write_probe_set
from ibstore.store.arrays import RecordingStore

from . import stores

ROOT = Path(__file__).parents[2]
VALUES = stores.layers()
FULL = OSError(errno.ENOSPC, "No space left on device")
MESSAGE = (
    "cannot write to {place}: No space left on device; whatever was committed before is whole: free space or mend the "
    "permissions, then capture again"
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
        segment.commit()
    except WriteError:
        segment.discard()
        raise


@pytest.mark.parametrize(
    ("owner", "call", "allowed"),
    [
        (os, "mkdir", 0),
        (os, "mkdir", 3),
        (RecordingStore, "set", 0),
        (RecordingStore, "set", 4),
        (RecordingStore, "set", 8),
        (files, "sync_tree", 0),
        (os, "fsync", 0),
        (os, "fsync", 12),
        (os, "link", 0),
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
        assert str(caught.value) == MESSAGE.format(place=place)
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
        patch.setattr(RecordingStore, "set", stores.calls_before(RecordingStore.set, allowed, FULL))
        with pytest.raises(WriteError, match=f"cannot write to .*{stores.PROBE.digest()}: No space left on device"):
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
    assert message == MESSAGE.format(place=stores.segment_folder(store, 1)).replace(
        "No space left on device", "File too large"
    )
    assert epochs == "[0]"
    assert Store.open(store).run("run0").epochs == [0, 1]
    assert not list(store.rglob("*.partial"))
