"""Tiny networks: thousands of epochs become few files, committed by bytes, by seconds and at the end."""

import os
import signal
import subprocess
import sys
import threading
from itertools import chain, pairwise, repeat
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from ibstore.capture import sink
from ibstore.capture.recorder import Recorder
from ibstore.capture.sink import EpochSink
from ibstore.errors import WriteError
from ibstore.store import Store
from ibstore.store.format import layout
from ibstore.store.segment import SegmentWriter

from ..store.stores import METRICS, SAMPLES, assert_run, layers, open_writer
from .networks import epochs, recorded

EPOCHS = 40
X = torch.randn(64, 12, generator=torch.Generator().manual_seed(1))


def tiny():
    """The network of the information bottleneck's first plots."""
    torch.manual_seed(0)
    sizes = [12, 10, 7, 5, 4, 3, 2]
    return nn.Sequential(*[part for a, b in pairwise(sizes) for part in (nn.Linear(a, b), nn.Tanh())])


def segments(store):
    return [segment.record.epochs for segment in Store.open(store).run("run0").segments]


def test_thousands_of_epochs_are_few_files(store, monkeypatch):
    monkeypatch.setattr(EpochSink.__init__, "__defaults__", (sink.SECONDS, lambda: 0.0))
    model = tiny()
    with Recorder(store, model, x=X) as recorder:
        for epoch in range(1000):
            recorder.record(epoch)
    assert segments(store) == [tuple(range(1000))]
    files = [path for path in store.rglob("*") if path.is_file()]
    assert len(files) < 50
    with torch.no_grad():
        np.testing.assert_array_equal(recorded(store, "11", 999), model(X).numpy())


def test_many_runs_at_once_share_what_is_gathered(tmp_path, monkeypatch):
    monkeypatch.setattr(EpochSink.__init__, "__defaults__", (sink.SECONDS, lambda: 0.0))
    monkeypatch.setattr(sink, "GATHERED", 4 * 3 * 64 * 2 * (10 + 7 + 5 + 4 + 3 + 2) * 4)
    stores = [tmp_path / f"{number}.zarr" for number in range(4)]
    recorders = [Recorder(store, tiny(), x=X) for store in stores]
    for recorder in recorders:
        for epoch in range(7):
            recorder.record(epoch)
    for recorder in recorders:
        recorder.close()
    assert [segments(store) for store in stores] == [[(0, 1, 2), (3, 4, 5), (6,)]] * 4


def test_a_segment_is_full_at_so_many_bytes(store, monkeypatch):
    rows = 64 * 2 * (10 + 7 + 5 + 4 + 3 + 2) * 4
    monkeypatch.setattr(layout, "SEGMENT_BYTES", 3 * rows + 1)
    with Recorder(store, tiny(), x=X) as recorder:
        for epoch in range(8):
            recorder.record(epoch)
    assert segments(store) == [(0, 1, 2), (3, 4, 5), (6, 7)]


class Clock:
    """Tells what it is told."""

    def __init__(self):
        self.seconds = 0.0

    def __call__(self):
        return self.seconds


@pytest.fixture
def arrays():
    return layers(EPOCHS)


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def begun(store, arrays, clock):
    """A sink of tiny epochs that are committed after 30 seconds."""
    writer = open_writer(store, arrays)
    yield EpochSink(writer, SAMPLES * 7 * 4, 30.0, clock)
    writer.close()


def put(begun, arrays, epoch, commit=True):
    begun.begin(epoch)
    for start in range(0, SAMPLES, 4):
        begun.append("train", {name: values[epoch, start : start + 4] for name, values in arrays.items()})
    if commit:
        begun.commit(epoch, METRICS, {})


def test_gathered_epochs_are_committed_after_so_many_seconds(store, arrays, begun, clock):
    for epoch in range(10):
        put(begun, arrays, epoch)
        clock.seconds += 5
    assert segments(store) == [(0, 1, 2, 3, 4, 5)]
    begun.close()
    assert segments(store) == [(0, 1, 2, 3, 4, 5), (6, 7, 8, 9)]
    assert_run(store, arrays, range(10))


def test_seconds_count_from_the_first_gathered_epoch(store, arrays, begun, clock):
    clock.seconds = 1000
    put(begun, arrays, 0)
    assert segments(store) == []
    clock.seconds = 1029.9
    begun.flush_when_due()
    assert segments(store) == []
    clock.seconds = 1030
    begun.flush_when_due()
    assert segments(store) == [(0,)]


def test_seconds_count_while_the_next_epoch_arrives_and_it_is_not_mixed_in(store, arrays, begun, clock):
    """A large probe set can take longer than that."""
    put(begun, arrays, 0)
    clock.seconds = 30
    put(begun, arrays, 1, commit=False)
    assert segments(store) == [(0,)]
    begun.commit(1, METRICS, {})
    begun.close()
    assert_run(store, arrays, [0, 1])


def test_an_epoch_that_was_not_committed_is_forgotten(store, arrays, begun):
    put(begun, arrays, 0)
    put(begun, arrays, 1, commit=False)
    put(begun, arrays, 2)
    put(begun, arrays, 3, commit=False)
    begun.close()
    assert segments(store) == [(0, 2)]


def test_a_recorder_that_waits_commits_in_the_meantime(store, monkeypatch):
    """An hour of training between two small epochs must not be at risk."""
    times, flushed = chain([0.0, 0.0], repeat(30.0)), threading.Event()  # the first two when the epoch is committed
    monkeypatch.setattr(EpochSink.__init__, "__defaults__", (30.0, lambda: next(times)))
    commit = SegmentWriter.commit
    monkeypatch.setattr(SegmentWriter, "commit", lambda *arguments: (commit(*arguments), flushed.set()))
    with Recorder(store, tiny(), x=X) as recorder:
        recorder.record(0)
        assert flushed.wait(60)
        assert segments(store) == [(0,)]


def test_a_flush_that_fails_is_told_and_what_was_committed_stays(store, monkeypatch):
    commit = SegmentWriter.commit

    def fail_later(self, *arguments):
        if self.epochs[0]:
            raise WriteError("no space left")
        return commit(self, *arguments)

    rows = 64 * 2 * (10 + 7 + 5 + 4 + 3 + 2) * 4
    monkeypatch.setattr(layout, "SEGMENT_BYTES", 3 * rows)
    monkeypatch.setattr(SegmentWriter, "commit", fail_later)
    recorder = Recorder(store, tiny(), x=X)
    for epoch in range(5):
        recorder.record(epoch)
    with pytest.raises(WriteError, match="no space left"):
        recorder.close()
    recorder.close()  # told once
    assert segments(store) == [(0, 1, 2)]
    assert [path.name for path in (store / "runs" / "run0" / "segments").iterdir() if path.is_dir()] == ["0000000000"]
    monkeypatch.undo()
    with Recorder(store, tiny(), x=X, resume=True) as recorder:
        recorder.record(3)
    assert epochs(store) == [0, 1, 2, 3]


# The ends of a process


def child(script: str, store: Path) -> "subprocess.Popen[str]":
    """A process that runs a script which has a recorder of a tiny network."""
    head = """
import os, signal, sys, torch
from ibstore.capture import Recorder
model = torch.nn.Sequential(torch.nn.Linear(4, 3))
recorder = Recorder(sys.argv[1], model, x=torch.ones(10, 4))
"""
    return subprocess.Popen(
        [sys.executable, "-c", head + script, str(store)],
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


UNTIL_ASKED = """
epoch = -1
try:
    while True:
        recorder.record(epoch + 1)
        epoch += 1
        if epoch == 5:
            print("ready", flush=True)
finally:
    print(epoch, flush=True)
"""


def test_a_process_that_gets_sigterm_commits_what_it_recorded_and_leaves(store):
    with child(UNTIL_ASKED, store) as process:
        assert process.stdout.readline() == "ready\n"
        process.send_signal(signal.SIGTERM)
        out, err = process.communicate()
    assert (process.returncode, err) == (143, "")
    last = int(out)
    # asked between the hand-over of an epoch and the counting, the script is one behind
    assert epochs(store) in (list(range(last + 1)), list(range(last + 2)))
    assert not (store / "runs" / "run0" / "lease.json").exists()


def test_sigterm_during_the_close_waits_for_it(store):
    script = """
recorder.record(0)
recorder._outbox._background.put(lambda: os.kill(os.getpid(), signal.SIGTERM))
recorder.close()
print("not reached")
"""
    with child(script, store) as process:
        out, err = process.communicate()
    assert (process.returncode, out, err) == (143, "", "")
    assert epochs(store) == [0]


def test_a_recorder_that_nobody_closes_is_closed_at_the_end(store):
    with child("for epoch in range(3): recorder.record(epoch)", store) as process:
        out, err = process.communicate()
    assert (process.returncode, out, err) == (0, "", "")
    assert segments(store) == [(0, 1, 2)]
    assert not (store / "runs" / "run0" / "lease.json").exists()


def test_a_forked_child_that_ends_leaves_the_recorder_to_its_parent(store):
    script = """
recorder.record(0)
child = os.fork()
if not child:
    recorder.close()
    sys.exit(7)
assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 7
recorder.record(1)
recorder.close()
"""
    with child(script, store) as process:
        out, err = process.communicate()
    assert (process.returncode, out, err) == (0, "", "")
    assert epochs(store) == [0, 1]
