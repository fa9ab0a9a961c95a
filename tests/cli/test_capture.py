"""`ibstore capture`: resumed, terminated, sized."""

import os
import shlex
import signal
import subprocess
import sys

import torch

from ibstore.capture.models import mnist_cnn

from ..capture.networks import contents
from ..conftest import Command

RUN = "mnist-cnn-seed0"
SMALL = ["mnist-cnn", "--epochs", "3", "--limit", "40", "--threads", "1", "--device", "cpu", "--store"]

TERMINATED = """
import os, signal
from ibstore.capture.training.trainer import Trainer
from ibstore.cli import main

train_step = Trainer.train_step

def asked_to_leave(self):
    if self.step == 1:
        os.kill(os.getpid(), signal.SIGTERM)
    train_step(self)

Trainer.train_step = asked_to_leave
main()
"""


def test_a_capture_that_gets_sigterm_says_so_and_is_resumed_to_the_same(ibstore: Command, tmp_path):
    whole, store = tmp_path / "whole.zarr", tmp_path / "lab.zarr"
    assert ibstore("capture", *SMALL, whole).code == 0
    ended = subprocess.run(
        [sys.executable, "-c", TERMINATED, "capture", *SMALL, store, "--quiet"],
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (ended.returncode, ended.stdout) == (128 + signal.SIGTERM, "")
    assert ended.stderr == "Error: terminated; what was committed is whole, go on with --resume\n"
    assert len(contents(store, RUN)["scalars"]) == 2
    resumed = ibstore("capture", *SMALL, store, "--resume")
    assert resumed.code == 0
    assert ": 2 epochs of " in resumed.err.splitlines()[0]
    assert contents(store, RUN) == contents(whole, RUN)
    again = ibstore("capture", *SMALL, store, "--resume")
    assert (again.code, again.out) == (0, "")
    assert again.err.splitlines()[0] == f"run '{RUN}' is complete already; there is nothing to do"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["lab.zarr", "whole.zarr"]


def test_other_settings_are_refused_with_code_2(ibstore: Command, tmp_path):
    store = tmp_path / "lab.zarr"
    assert ibstore("capture", *SMALL, store).code == 0
    other = ibstore("capture", *SMALL, store, "--resume", "--probe-batch", 7, "--codec", "lz4")
    assert other.code == 2
    assert "probe_batch is 1000 in the store and 7 here; codec is 'zstd:-1' in the store and 'lz4' here" in other.err


def test_a_store_that_would_be_gone_is_refused(ibstore: Command):
    done = ibstore("capture", *SMALL, "memory://lab.zarr")
    assert (done.code, done.err) == (
        2,
        "Error: memory://lab.zarr would be gone when the command ends; give a folder or a bucket\n",
    )


def test_what_is_next_can_be_done(ibstore, tmp_path):
    done = ibstore("capture", "szt-simple", "--store", tmp_path / "a.zarr", "--epochs", 1)
    command = shlex.split(done.err.splitlines()[-1].removeprefix("next: ibstore "))
    assert ibstore(*command).code == 0


def test_a_waist_that_cannot_be_read_is_told_by_its_option(ibstore, tmp_path):
    head = ("capture", "szt-simple", "--store", tmp_path / "a.zarr", "--epochs", 1)
    for text in ("no-such-waist", "identity | nonsense(3)"):
        refused = ibstore(*head, "--stop-information", text)
        assert refused.code == 2
        assert f"\nError: --stop-information '{text}': " in f"\n{refused.err}"


def test_what_was_not_measured_is_not_told(ibstore, tmp_path):
    weights = tmp_path / "epoch_1.pt"
    torch.save(mnist_cnn().state_dict(), weights)
    source = ("--from-checkpoints", weights, "--model", "ibstore.capture.models:mnist_cnn", "--dataset", "mnist-sample")
    done = ibstore("capture", *source, "--store", tmp_path / "a.zarr", "--probe", 10, "--run", "old")
    summary = done.err.splitlines()[-2]
    assert summary.startswith("run old: 1 epoch, ")
    assert summary.endswith("/a.zarr")


def test_a_rule_that_cannot_act_and_a_probe_that_is_too_large_are_told(ibstore, tmp_path):
    asked = ("capture", "szt", "--store", tmp_path / "a.zarr", "--epochs", 0, "--probe", 5000)
    done = ibstore(*asked, "--stop-information", "szt-30")
    assert done.code == 0
    assert "cannot stop a training of 0 epochs before its end: it looks by every=10, patience=1" in done.err
    assert "split 'all' has 4,096 samples, fewer than --probe 5,000: all are recorded" in done.err


def test_a_run_that_is_stopped_says_by_what(ibstore, tmp_path):
    asked = (
        "capture",
        "szt-simple",
        "--store",
        tmp_path / "a.zarr",
        "--epochs",
        20,
        "--stop-information",
        "blackbox-50",
    )
    done = ibstore(*asked, "--stop-rule", "every=5, tol=1000, patience=2")
    assert done.code == 0
    assert (
        "run 'szt-simple-seed0' is stopped: I(T;Y) − 1·I(X;T) of layer 'out' grew by less than 1000 of itself"
        in done.err
    )
    assert "at 2 looks in a row, every 5 epochs" in done.err
    assert ibstore("query", tmp_path / "a.zarr", "SELECT max(epoch) AS n FROM epochs", "-f", "csv").out == "n\n10\n"


def test_what_may_stop_a_run_is_a_setting_of_it(ibstore, tmp_path):
    head = ("capture", "szt-simple", "--store", tmp_path / "a.zarr", "--epochs", 20)
    looking = (*head, "--stop-information", "identity | uniform(bins=30, lo=-1, hi=1)")
    assert ibstore(*looking, "--stop-rule", "every=5, tol=0").code == 0
    told = ibstore("info", tmp_path / "a.zarr", "szt-simple-seed0").out
    rule = "stopping=(estimator=plugin of identity | uniform(bins=30, lo=-1.0, hi=1.0), in bits, layer="
    assert rule in told
    assert "beta=1.0, tol=0.0, every=5, patience=1)" in told
    for again, differing in [
        (head, "settings.stopping is in the store alone"),
        (looking, "settings.stopping.tol is 0.0 in the store and 0.1 here"),
    ]:
        refused = ibstore(*again, "--resume")
        assert refused.code == 2
        assert differing in refused.err
