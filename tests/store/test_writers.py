"""Several writers: of one run, of one store, at once and one after another."""

import signal
import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path
from threading import Barrier, Thread

import pytest

from ibstore.errors import (
    DamagedError,
    NotAStoreError,
    ResumeError,
    RunBusyError,
    RunExistsError,
    StoreError,
    UsageError,
)
from ibstore.events import Event
from ibstore.store import ProbeSet, RunWriter, Store, create_store, write_probe_set

from . import stores

ROOT = Path(__file__).parents[2]
PATIENCE = 60  # seconds until a deadlock is called one; never waited for when all is well

OTHER_WRITER = """
import sys
from pathlib import Path
from tests.store import stores
with stores.open_writer(Path(sys.argv[1]), stores.layers(), run=sys.argv[2]) as writer:
    stores.write_epoch(writer, stores.layers(), 0)
    print("writing", flush=True)
    sys.stdin.readline()
    stores.write_epoch(writer, stores.layers(), 1)
"""


@pytest.fixture
def store(tmp_path):
    return tmp_path / "lab.zarr"


@contextmanager
def another_process(store, run):
    """A process that has written epoch 0 of the run, holds it, and writes epoch 1 once a line comes."""
    command = [sys.executable, "-c", OTHER_WRITER, store, run]
    with subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout.readline() == "writing\n"
        yield process
        process.kill()


def at_once(*functions):
    """Run every function in a thread of its own, from the same moment on; raise what one of them raised."""
    start, errors = Barrier(len(functions)), []

    def work(function):
        start.wait(PATIENCE)
        try:
            function()
        except BaseException as error:
            errors.append(error)

    threads = [Thread(target=work, args=[function], daemon=True) for function in functions]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(PATIENCE)
        assert not thread.is_alive()
    if errors:
        raise errors[0]


def test_a_run_with_epochs_is_refused(store):
    stores.write_run(store, stores.layers(epochs=3))
    before = stores.tree(store)
    with pytest.raises(
        RunExistsError,
        match=r"run 'run0' is already in the store with 3 epochs \(0–2\); choose another run name, go on with it with",
    ):
        stores.open_writer(store, stores.layers())
    assert stores.tree(store) == before


def test_a_run_is_replaced_on_request_after_a_notice(store):
    stores.write_run(store, stores.layers(epochs=3))
    heard = []

    def hear(event):
        heard.append((event, Store.open(store).run("run0").epochs))

    new = {"other": stores.layers(seed=1)["conv"]}
    stores.write_run(store, new, replace=True, emit=hear)
    assert heard == [(Event("notice", detail="removing run 'run0' (3 epochs)"), [0, 1, 2])]
    assert heard[0][0].is_notice
    assert stores.tree(store) == stores.tree(stores.write_run(store.with_name("fresh.zarr"), new))


def test_nothing_is_said_where_nothing_is_removed(store):
    heard = []
    stores.write_run(store, stores.layers(), replace=True, emit=heard.append)
    assert heard == []


def test_a_run_without_epochs_is_taken_over_in_silence(store):
    heard = []
    abandoned = stores.open_writer(store, {"old": stores.layers()["conv"]})
    abandoned.segment(0)
    abandoned.close()
    stores.write_run(store, stores.layers(), emit=heard.append)
    assert heard == []
    assert stores.tree(store) == stores.tree(stores.write_run(store.with_name("fresh.zarr"), stores.layers()))


def test_a_damaged_run_is_refused_and_replaced_on_request(store):
    stores.write_run(store, stores.layers())
    (stores.segment_folder(store) / "zarr.json").write_text("{")
    with pytest.raises(DamagedError, match=r"zarr.json is no readable group record"):
        stores.open_writer(store, stores.layers())
    heard = []
    stores.write_run(store, stores.layers(), replace=True, emit=heard.append)
    assert [event.detail for event in heard] == ["removing run 'run0' (damaged)"]
    stores.assert_run(store, stores.layers(), [0, 1])


def test_a_run_whose_manifest_is_lost_is_not_taken_for_an_empty_one(store):
    stores.write_run(store, stores.layers())
    (store / "runs" / "run0" / "zarr.json").unlink()
    with pytest.raises(RunExistsError, match=r"with 2 epochs \(0–1\)"):
        stores.open_writer(store, stores.layers())


def test_a_run_is_gone_on_with(store):
    values = stores.layers(epochs=3)
    with stores.open_writer(store, values, resume=True) as writer:  # there is none: it begins
        stores.write_epoch(writer, values, 0)
    heard = []
    stores.write_run(store, values, resume=True, emit=heard.append)
    assert heard == []
    assert stores.tree(store) == stores.tree(stores.write_run(store.with_name("at-once.zarr"), values))


def test_a_run_is_gone_on_with_by_who_describes_it_alike_alone(store):
    stores.write_run(store, stores.layers(), seed=0, threads=2, settings={"lr": 0.1, "batch": 10})
    before = stores.tree(store)
    with pytest.raises(ResumeError) as caught:
        stores.open_writer(
            store, stores.layers(), resume=True, seed=1, threads=4, settings={"lr": 0.2, "batch": 10}, codec="lz4"
        )
    assert str(caught.value) == (
        "run 'run0' cannot be resumed with other settings: seed is 0 in the store and 1 here; threads is 2 in the "
        "store and 4 here; codec is 'zstd:-1' in the store and 'lz4' here; settings.lr is 0.1 in the store and 0.2 "
        "here; give the same, or begin another run"
    )
    assert stores.tree(store) == before
    same = {"seed": 0, "threads": 2, "settings": {"batch": 10, "lr": 0.1}}
    with stores.open_writer(store, stores.layers(), resume=True, **same) as writer:
        assert writer.epochs == [0, 1]


def test_settings_that_json_keeps_in_another_form_are_the_same(store):
    settings = {"sizes": (10, 7), "nested": {"betas": (0.9, 0.999)}}
    for _ in range(2):
        stores.open_writer(store, stores.layers(), resume=True, settings=settings).close()


def test_a_run_whose_manifest_is_lost_is_not_gone_on_with(store):
    stores.write_run(store, stores.layers())
    (store / "runs" / "run0" / "zarr.json").unlink()
    before = stores.tree(store)
    with pytest.raises(ResumeError, match=r"committed epochs but no manifest, as an interrupted --force .*anew with"):
        stores.open_writer(store, stores.layers(), resume=True)
    assert stores.tree(store) == before


def test_a_run_whose_layers_came_in_another_order_is_not_gone_on_with(store):
    stores.write_run(store, stores.layers())
    with pytest.raises(ResumeError, match="layers are conv, out:1 in the store and out:1, conv here"):
        stores.open_writer(store, dict(reversed(stores.layers().items())), resume=True)


def test_a_damaged_run_is_not_gone_on_with(store):
    stores.write_run(store, stores.layers())
    (stores.segment_folder(store) / "zarr.json").write_text("{")
    before = stores.tree(store)
    with pytest.raises(DamagedError, match=r"0000000000/zarr.json is no readable group record"):
        stores.open_writer(store, stores.layers(), resume=True)
    assert stores.tree(store) == before


def test_what_a_killed_writer_left_is_swept_when_the_run_is_gone_on_with(store):
    values = stores.layers(epochs=3)
    with stores.open_writer(store, values) as writer:
        stores.write_epoch(writer, values, 0)
        writer.segment(1)
        stores.fill(writer.segment(2), values, 2)
    run = store / "runs" / "run0"
    for folder in (run, run / "segments", run / "segments" / "0000000000"):
        (folder / ".zarr.json.0123.partial").touch()
    stores.write_run(store, values, resume=True)
    assert stores.tree(store) == stores.tree(stores.write_run(store.with_name("at-once.zarr"), values))


def test_a_run_that_another_process_writes_is_busy_though_it_were_to_be_replaced(store):
    with another_process(store, "run0") as process:
        before = stores.tree(store)
        for replace in (False, True):
            with pytest.raises(
                RunBusyError,
                match=rf"run 'run0' is being written by process {process.pid} on .* \(another process, or a recorder ",
            ):
                stores.open_writer(store, stores.layers(), replace=replace)
        assert stores.tree(store) == before
        stores.assert_run(store, stores.layers(), [0])  # reading is free
        process.communicate("go on\n", timeout=PATIENCE)
        assert process.returncode == 0
    stores.assert_run(store, stores.layers(), [0, 1])


def test_a_killed_writer_keeps_nobody_out(store):
    with another_process(store, "run0") as process:
        process.send_signal(signal.SIGKILL)
        assert process.wait(PATIENCE) == -signal.SIGKILL
    stores.assert_run(store, stores.layers(), [0])
    with pytest.raises(RunExistsError):
        stores.open_writer(store, stores.layers())
    stores.write_run(store, stores.layers(seed=1), replace=True)
    stores.assert_run(store, stores.layers(seed=1), [0, 1])


def test_a_recorder_of_this_process_that_is_not_closed_is_busy_too(store):
    writer = stores.open_writer(store, stores.layers())
    with pytest.raises(RunBusyError):
        stores.open_writer(store, stores.layers(), replace=True)
    writer.close()
    stores.write_run(store, stores.layers())


def test_a_writer_that_fails_to_open_lets_the_run_go(store):
    stores.write_run(store, stores.layers())
    for _ in range(2):
        with pytest.raises(RunExistsError):
            stores.open_writer(store, stores.layers())
    stores.write_run(store, stores.layers(), replace=True)


def test_a_writer_that_is_refused_leaves_no_probe_set(store):
    """Nobody would use it."""
    stores.write_run(store, stores.layers())
    before = stores.tree(store)
    other = ProbeSet.of(stores.PROBE.x + 1, stores.PROBE.y)
    described = stores.manifest(stores.layers(), other.digest())
    with pytest.raises(RunExistsError):
        RunWriter(store, described, {"train": other.sample}, probes=[other])
    assert stores.tree(store) == before
    RunWriter(store, described, {"train": other.sample}, probes=[other], replace=True).close()
    assert Store.open(store).run("run0").probe(described.splits[0]).digest == other.digest()


def test_a_writer_that_fails_in_its_manifest_lets_the_run_go(store):
    create_store(store)
    described = stores.manifest(stores.layers(), write_probe_set(store, stores.PROBE))
    broken = type(described)("run0", described.layers, described.splits, settings={"lr": float("nan")})
    samples = {"train": stores.PROBE.sample}
    with pytest.raises(ValueError, match="not JSON compliant"):
        RunWriter(store, broken, samples)
    RunWriter(store, described, samples).close()


def test_a_name_that_cannot_be_one_makes_no_store(store):
    with pytest.raises(UsageError, match="a name is empty"):
        RunWriter(store, stores.manifest(stores.layers(), "", run=""), {"train": stores.PROBE.sample})
    assert not store.exists()


def test_writers_of_two_runs_at_once_do_not_disturb_each_other(store):
    values = {run: stores.layers(epochs=4, seed=seed) for seed, run in enumerate("ab")}
    at_once(*(lambda run=run: stores.write_run(store, values[run], run=run) for run in values))
    alone = store.with_name("alone.zarr")
    for run, arrays in values.items():
        stores.write_run(alone, arrays, run=run)
    assert stores.tree(store) == stores.tree(alone)


def test_processes_that_make_one_store_at_once_do_not_disturb_each_other(store):
    with another_process(store, "a") as one, another_process(store, "b") as other:
        for process in (one, other):
            process.communicate("go on\n", timeout=PATIENCE)
            assert process.returncode == 0
    alone = store.with_name("alone.zarr")
    for run in "ab":
        stores.write_run(alone, stores.layers(), run=run)
    assert stores.tree(store) == stores.tree(alone)


def test_a_store_that_many_make_at_once_is_made_once(tmp_path):
    create_store(tmp_path / "alone.zarr")
    for attempt in range(10):
        at_once(*[lambda attempt=attempt: create_store(tmp_path / f"{attempt}.zarr")] * 6)
        assert stores.tree(tmp_path / f"{attempt}.zarr") == stores.tree(tmp_path / "alone.zarr")


def test_a_probe_set_that_many_write_at_once_is_written_once(store):
    create_store(store)
    at_once(*[lambda: write_probe_set(store, stores.PROBE)] * 4)
    alone = store.with_name("alone.zarr")
    create_store(alone)
    write_probe_set(alone, stores.PROBE)
    assert stores.tree(store) == stores.tree(alone)


def test_a_reader_beside_a_writer_sees_whole_epochs_only(store):
    values = stores.layers(epochs=8)
    seen, written = set(), []

    def write():
        try:
            stores.write_run(store, values)
        finally:
            written.append(True)

    def read():
        last = 0
        while last < 8:
            done = bool(written)  # before the look: what it shows then is all there will be
            try:
                runs = Store.open(store).runs()
            except NotAStoreError:
                runs = []
            for run in runs:
                assert run.epochs == list(range(len(run.epochs)))
                assert len(run.epochs) >= last
                last = len(run.epochs)
                seen.add(last)
                stores.assert_run(store, values, run.epochs) if last == 8 else read_last(run)
            assert last == 8 or not done

    def read_last(run):
        if run.epochs:
            for layer in run.manifest.layers:
                (block,) = run.segment(run.epochs[-1]).blocks(run.manifest.splits[0], layer, run.epochs[-1])
                assert (block == values[layer.name][run.epochs[-1]]).all()

    at_once(write, read)
    assert 8 in seen


def test_a_run_that_vanishes_while_it_is_listed_is_left_out(store, monkeypatch):
    stores.write_run(store, stores.layers())
    monkeypatch.setattr(Store, "run_names", lambda _: ["gone", "run0"])
    assert [run.name for run in Store.open(store).runs()] == ["run0"]


def test_an_empty_folder_becomes_a_store_and_a_store_is_left_as_it_is(store):
    (store / "data").mkdir(parents=True)  # where a creation was cut short
    (store / "data" / ".zarr.json.0123.partial").touch()
    create_store(store)
    assert sorted(stores.tree(store)) == ["data", "data/zarr.json", "runs", "runs/zarr.json", "zarr.json"]
    before = stores.tree(store)
    create_store(store)
    assert stores.tree(store) == before


@pytest.mark.parametrize("foreign", ["notes.txt", "data/mnist.gz", "runs/events.out", "runs/seed0/weights.pt", "runs"])
def test_what_is_no_store_is_not_made_one(store, foreign):
    (store / foreign).parent.mkdir(parents=True)
    (store / foreign).write_text("mine")
    before = stores.tree(store)
    with pytest.raises(StoreError, match=r"lab.zarr exists and is no ibstore store; choose another path, or move it"):
        create_store(store)
    assert stores.tree(store) == before


def test_a_file_or_a_dangling_link_is_not_made_a_store(store):
    store.write_text("mine")
    with pytest.raises(StoreError, match="exists and is no ibstore store"):
        create_store(store)
    link = store.with_name("link.zarr")
    link.symlink_to(store.with_name("nowhere"))
    with pytest.raises(StoreError, match="exists and is no ibstore store"):
        create_store(link)


def test_a_store_is_made_with_the_folders_above_it(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    create_store(Path("a/b/lab.zarr"))
    assert Store.open("a/b/lab.zarr").runs() == []
