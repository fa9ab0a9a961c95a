"""SIGKILL at every instant: what is left is whole, whatever is not is invisible, and the next writer sweeps it."""

import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from ibstore.errors import ResumeError
from ibstore.store import Store

from . import stores
from .killed import NEW, NEW_ALONE, OLD

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="looks at /proc")

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    """What the next writer makes of an empty place, file by file."""
    store = stores.write_run(tmp_path_factory.mktemp("undisturbed") / "lab.zarr", NEW)
    return stores.tree(store)


@pytest.fixture(scope="module")
def undisturbed_alone(tmp_path_factory):
    """The same of the run that was killed."""
    store = stores.write_run(tmp_path_factory.mktemp("undisturbed") / "lab.zarr", NEW_ALONE)
    return stores.tree(store)


def killed_stores(folder, *old):
    """Stores as every instant of the writing leaves them, in order; the last was finished."""
    subprocess.run([sys.executable, "-m", "tests.store.killed", folder, *old], cwd=ROOT, check=True)
    return [folder / str(change) / "lab.zarr" for change in range(len(list(folder.iterdir())))]


def epochs_of(store):
    """Epochs of the run as a reader sees them; None before there is a run."""
    if not (store / "zarr.json").exists():
        return None
    runs = Store.open(store).runs()
    return runs[0].epochs if runs else None


def assert_whole(store, layers):
    """Assert that everything that is visible can be read and is what was written."""
    run = Store.open(store).run("run0")
    stores.assert_run(store, layers, run.epochs)
    probe = run.probe(run.manifest.split("train"))
    np.testing.assert_array_equal(np.concatenate(list(probe.x_blocks())), stores.PROBE.x)
    assert probe.samples().tolist() == stores.PROBE.sample.tolist()
    assert probe.labels().tolist() == stores.PROBE.y.tolist()
    assert stores.zarr_segments(store) == [f"{epoch:010d}" for epoch in run.epochs]


def assert_replaced(store, epochs, undisturbed):
    """Assert that a writer who begins anew leaves nothing of the killed one."""
    notices = []
    stores.write_run(store, NEW, replace=bool(epochs), emit=notices.append)
    assert len(notices) == bool(epochs)  # what has no epoch is taken over in silence
    assert stores.tree(store) == undisturbed


def test_a_kill_loses_at_most_the_epoch_that_is_being_written(tmp_path, undisturbed, undisturbed_alone):
    seen = []
    (tmp_path / "killed").mkdir()
    for change, store in enumerate(killed_stores(tmp_path / "killed")):
        epochs = epochs_of(store)
        seen.append(-1 if epochs is None else len(epochs))
        if epochs is not None:
            assert epochs == list(range(len(epochs)))
            assert_whole(store, NEW_ALONE)
        if change % 3 == 0:  # after a third of the kills, for time's sake, the other way too
            assert_replaced(shutil.copytree(store.parent, tmp_path / "other") / "lab.zarr", epochs, undisturbed)
            shutil.rmtree(tmp_path / "other")
        stores.write_run(store, NEW_ALONE, resume=True)
        assert stores.tree(store) == undisturbed_alone  # as if nobody had been killed
    assert seen == sorted(seen)
    assert set(seen) == {-1, 0, 1, 2}
    assert len(seen) > 50


def test_a_kill_while_a_run_is_replaced_leaves_no_mixture(tmp_path, undisturbed):
    old = stores.write_run(tmp_path / "old.zarr", OLD)
    (tmp_path / "killed").mkdir()
    seen = []
    for store in killed_stores(tmp_path / "killed", old):
        epochs = epochs_of(store)
        is_old = epochs is not None and Store.open(store).run("run0").manifest.layers[0].name == "old"
        seen.append((epochs is None, is_old))
        if epochs is not None:
            assert epochs == [0] or not is_old
            assert_whole(store, OLD if is_old else NEW)
        if is_old:
            with pytest.raises(ResumeError, match=r"run 'run0' cannot be resumed with other settings: layers"):
                stores.open_writer(store, NEW, resume=True)
        stores.write_run(store, NEW, replace=True)
        assert stores.tree(store) == undisturbed
    assert list(dict.fromkeys(seen)) == [(False, True), (True, False), (False, False)]
