"""Bad input gets one clear sentence with the next action, exit 2 for usage and 1 for the rest, and harms nothing."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from ibstore.store.places.lease import Holder
from tests.conftest import Command

USAGE, FAILURE = 2, 1


def copied(store: Path, folder: Path) -> Path:
    return Path(shutil.copytree(store, folder / "lab.zarr"))


@pytest.mark.parametrize("command", [("ls",), ("info",), ("analyze",), ("query",), ("plot",)])
def test_no_store(ibstore: Command, tmp_path: Path, command: tuple[str]) -> None:
    more = {"query": ["SELECT 1"], "plot": ["plane", "-o", tmp_path / "a.png"]}.get(command[0], [])
    done = ibstore(*command, tmp_path / "nothing.zarr", *more)
    assert done.code == FAILURE
    assert "there is no store at" in done.err
    assert "ibstore capture" in done.err
    folder = tmp_path / "folder"
    folder.mkdir()
    assert "is no ibstore store" in ibstore(*command, folder, *more).err


def test_newer_format(ibstore: Command, captured: Path, tmp_path: Path) -> None:
    store = copied(captured, tmp_path)
    record = store / "zarr.json"
    record.write_text(record.read_text().replace('"ibstore_format": 1', '"ibstore_format": 2'))
    done = ibstore("analyze", store)
    assert done.code == FAILURE
    assert "store format 2" in done.err
    assert "install a newer ibstore" in done.err


def test_empty_store(ibstore: Command, tmp_path: Path) -> None:
    from ibstore.store import create_store

    create_store(tmp_path / "lab.zarr")
    assert ibstore("ls", tmp_path / "lab.zarr").code == 0
    done = ibstore("analyze", tmp_path / "lab.zarr")
    assert done.code == USAGE
    assert "no committed epoch yet" in done.err


def test_torn_segment_leaves_the_rest_readable(ibstore: Command, captured: Path, tmp_path: Path) -> None:
    store = copied(captured, tmp_path)
    (chunk,) = (store / "runs/mnist-cnn-seed0/segments/0000000001/train/conv2").glob("c.*")
    chunk.unlink()
    done = ibstore("analyze", store, "-q", "-w", "thesis-6.2")
    assert done.code == FAILURE
    assert all(word in done.err for word in ("'conv2'", "epoch 1", str(chunk), "is missing", "--epoch"))
    assert ibstore("analyze", store, "-q", "-w", "thesis-6.2", "--epoch", 0).code == 0


def test_flipped_byte_is_found(ibstore: Command, captured: Path, tmp_path: Path) -> None:
    store = copied(captured, tmp_path)
    (chunk,) = (store / "runs/mnist-cnn-seed0/segments/0000000001/train/conv2").glob("c.*")
    content = bytearray(chunk.read_bytes())
    content[len(content) // 2] ^= 1
    chunk.write_bytes(content)
    done = ibstore("analyze", store, "-q", "-w", "thesis-6.2")
    assert done.code == FAILURE
    assert all(word in done.err for word in ("'conv2'", "epoch 1", "cannot be read"))


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--waist", "thesis-6.9"], "did you mean 'thesis-6."),
        (["--waist", "w: fc1=identity | exact"], "it has conv1, conv2, out"),
        (
            ["--waist", "w: conv1=maxpool(1, 20, 20) | quantile(bins=2)"],
            "larger than the layer's trailing axes (16, 14, 14)",
        ),
        (["--waist", "w: conv1=maxpol(2, 2) | exact"], "^^^^^^"),
        (["--waist", "w: conv1"], "names no layer"),
        (["--layer", "conv9"], "it has conv1, conv2, out"),
        (["--epoch", "7"], "has no epoch 7; it has 0–1"),
        (["--run", "nobody"], "it has mnist-cnn-seed0"),
        (["--unit", "hartleys"], "bits or nats"),
        (["--waists", "nothing.toml"], "No such file"),
        (["--format", "parquet"], "--out"),
        (["--format", "xml"], "xml"),
        (["--beta", "much"], "--beta"),
        (["--waist", "w: x=identity | threshold(0.3); *=identity | exact", "--device", "abacus"], "device 'abacus'"),
    ],
)
def test_analyze_usage(ibstore: Command, study: list[str], arguments: list[str], said: str) -> None:
    done = ibstore("analyze", *study, "-q", *arguments)
    assert done.code == USAGE, done
    assert said in done.err
    assert done.out == ""


def test_label_that_is_no_integer(ibstore: Command, study: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    import numpy as np

    from ibstore.store import ProbeReader

    monkeypatch.setattr(ProbeReader, "labels", lambda _: np.linspace(0, 1, 200))
    done = ibstore("analyze", *study, "-q")
    assert done.code == FAILURE
    assert "a label must be an integer" in done.err


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (["mnist-rnn"], USAGE, "mnist-cnn"),
        (["mnist-cnn", "--dataset", "cifar"], USAGE, "mnist-sample"),
        (["mnist-cnn", "--epochs", "-1"], USAGE, "--epochs an integer of 0 or more"),
        (["mnist-cnn", "--lr", "0"], USAGE, "--lr"),
        (["mnist-cnn", "--limit", "0"], USAGE, "--limit"),
        (["mnist-cnn", "--device", "abacus"], USAGE, "abacus"),
        (["mnist-cnn", "--dtype", "int3"], USAGE, "float32"),
        (["mnist-cnn", "--run", ""], USAGE, "empty"),
        (["mnist-cnn", "--data-dir", "data"], USAGE, "has no files to look for in data; leave --data-dir out"),
        (["szt", "--sweep", "lr=0.1,0.2", "--lr", "0.3"], USAGE, "lr is swept, and said by an option of its own"),
        (["szt", "--hidden-layers", "1:3", "--set", "hidden_layers=2"], USAGE, "hidden_layers is swept, and said"),
        (
            ["szt", "--set", "activation=tanh", "--set", "activation=relu"],
            USAGE,
            "an option of the recipe is said twice",
        ),
        (["szt", "--stop-information", "szt-30", "--stop-rule", "tol=1, tol=2"], USAGE, "says tol twice"),
        (["szt", "--model", "a:b"], USAGE, "give --from-checkpoints GLOB with it"),
        (["mine.py"], USAGE, "write mine.py:NAME"),
        (["info-dropout-mnist", "--replicas", "2", "--limit", "50"], USAGE, "draws random numbers in training"),
        (["szt", "--at-once", "2"], USAGE, "--at-once is about networks that are trained at once"),
        (["resnet18", "--parallel-minibatches", "--limit", "9"], USAGE, "leave parallel minibatches out"),
    ],
)
def test_capture_usage(ibstore: Command, tmp_path: Path, arguments: list[str], code: int, said: str) -> None:
    done = ibstore("capture", *arguments, "--store", tmp_path / "lab.zarr")
    assert done.code == code, done
    assert said in done.err
    assert not (tmp_path / "lab.zarr").exists()


def test_a_store_without_a_name(ibstore: Command) -> None:
    done = ibstore("capture", "szt", "--store", "")
    assert (done.code, done.err) == (USAGE, "Error: --store is empty; give a folder, such as lab.zarr, or a bucket\n")


def test_capture_into_something_else(ibstore: Command, tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("mine")
    done = ibstore("capture", "mnist-cnn", "--store", tmp_path, "--epochs", 0, "--limit", 10)
    assert done.code == FAILURE
    assert "is no ibstore store" in done.err
    assert [path.name for path in tmp_path.iterdir()] == ["notes.txt"]


def test_results_that_cannot_be_kept(ibstore: Command, captured: Path, tmp_path: Path) -> None:
    (tmp_path / "results").write_text("a file is in the way")
    done = ibstore("analyze", captured, "-q", "--results", tmp_path / "results")
    assert done.code == FAILURE
    assert "--results" in done.err


def test_output_that_cannot_be_written(ibstore: Command, study: list[str], tmp_path: Path) -> None:
    nowhere = tmp_path / "no" / "such" / "folder"
    done = ibstore("analyze", *study, "-q", "-o", nowhere / "a.csv")
    assert (done.code, "--out" in done.err) == (FAILURE, True)
    done = ibstore("plot", *study, "plane", "-o", nowhere / "a.png")
    assert (done.code, "cannot write" in done.err) == (FAILURE, True)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [(["pie", "-o", "a.png"], "plane, curves"), (["plane", "-o", "a.bmp"], ".png, .svg or .pdf"), (["plane"], "--out")],
)
def test_plot_usage(ibstore: Command, study: list[str], arguments: list[str], said: str) -> None:
    done = ibstore("plot", *study, *arguments)
    assert done.code == USAGE
    assert said in done.err


def test_sql_errors_are_duckdbs_own_words(ibstore: Command, study: list[str]) -> None:
    done = ibstore("query", *study, "-q", "SELECT nothing FROM runs")
    assert done.code == USAGE
    assert 'Referenced column "nothing" not found' in done.err
    assert "COPY" in ibstore("query", *study, "-q", "COPY runs TO 'x.csv'").err


def test_interrupt_is_no_traceback(ibstore: Command, captured: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from ibstore.store import Store

    def interrupt(path: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(Store, "open", interrupt)
    done = ibstore("ls", captured)
    assert "interrupted; what was committed is whole" in done.err
    assert done.code == 130
    assert done.out == ""


def test_a_preset_cannot_mean_something_else(ibstore: Command, study: list[str], tmp_path: Path) -> None:
    done = ibstore("analyze", *study, "-q", "-w", "thesis-6.2: out=argmax | exact")
    assert (done.code, "is a preset" in done.err) == (USAGE, True)
    (tmp_path / "mine.toml").write_text('["thesis-6.2"]\nout = "argmax | exact"\n')
    done = ibstore("analyze", *study, "-q", "--waists", tmp_path / "mine.toml")
    assert (done.code, "is a preset" in done.err) == (USAGE, True)


def test_a_waist_that_failed_is_not_remembered(ibstore: Command, study: list[str], tmp_path: Path) -> None:
    assert ibstore("analyze", *study, "-q", "-w", "m: conv1=identity | labels").code == FAILURE
    assert ibstore("plot", *study, "plane", "-o", tmp_path / "plane.png", "--epoch", 1).code == 0


def test_a_window_larger_than_the_input_is_refused_before_anything_is_computed(
    ibstore: Command, study: list[str]
) -> None:
    done = ibstore("analyze", *study, "-w", "m: x=maxpool(40, 40) | exact; out=argmax | exact")
    assert done.code == USAGE
    assert "input x" in done.err
    assert "analyze 0/" not in done.err


def test_a_damaged_probe_set_is_not_built_upon(ibstore: Command, captured: Path, tmp_path: Path) -> None:
    store = copied(captured, tmp_path)
    (chunk,) = store.glob("data/*/x/c.*")
    content = bytearray(chunk.read_bytes())
    content[len(content) // 2] ^= 1
    chunk.write_bytes(content)
    done = ibstore("capture", "mnist-cnn", "--store", store, "--run", "again", "--epochs", 0, "--limit", 200)
    assert done.code == FAILURE
    assert str(chunk) in done.err
    assert "again" not in ibstore("ls", store).out


def test_a_refused_writer_removes_nothing(ibstore: Command, captured: Path, tmp_path: Path) -> None:
    store = copied(captured, tmp_path)
    torn = store / "runs/mnist-cnn-seed0/segments/0000000002/train/conv1"
    torn.mkdir(parents=True)
    done = ibstore("capture", "mnist-cnn", "--store", store, "--epochs", 0, "--limit", 200)
    assert done.code == FAILURE
    assert "0–1" in done.err
    assert torn.exists()


@pytest.mark.parametrize("suffix", ["csv", "parquet", "png"])
def test_a_failed_write_leaves_the_old_file(
    ibstore: Command, study: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, suffix: str
) -> None:
    command = ("plot", *study, "plane") if suffix == "png" else ("analyze", *study)
    out = tmp_path / f"out.{suffix}"
    ask = (*command, "-q", "-w", "thesis-6.2", "-o", out)
    assert ibstore(*ask).code == 0
    before = out.read_bytes()
    monkeypatch.setattr("secrets.token_hex", lambda _: "x" * 300)  # a name that no file system takes
    done = ibstore(*ask)
    assert (done.code, "cannot write" in done.err) == (FAILURE, True)
    assert out.read_bytes() == before
    assert list(tmp_path.glob(".*partial")) == []


@pytest.mark.parametrize(("arguments", "said"), [(["--beta", "nan"], "finite"), (["--out", "a.xyz"], ".csv, .json")])
def test_more_analyze_usage(ibstore: Command, study: list[str], arguments: list[str], said: str) -> None:
    done = ibstore("analyze", *study, "-q", *arguments)
    assert (done.code, said in done.err) == (USAGE, True)


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (("--memory", "2GiX"), "'2GiX' is no size; write it like 2GiB, 500MB or 4096"),
        (("--memory", "-2GiB"), "is no size"),
        (("--memory", "95MiB"), "95 MiB of memory cannot be kept; give at least 768 MiB"),
        (("--threads", "0"), "threads is 0; give at least 1"),
        (("--threads", "100000"), "threads is 100000; give at least 1, and 1024 at most"),
        (("--threads", "many"), "valid integer"),
    ],
)
def test_what_cannot_be_granted(ibstore: Command, study: list[str], arguments: tuple[str, str], told: str) -> None:
    for more in ((), ("--explain",)):
        done = ibstore("analyze", *study, *arguments, *more)
        assert done.code == USAGE
        assert told in done.err


@pytest.fixture
def damaged(captured: Path, tmp_path: Path) -> Path:
    """A store whose run has a record of epoch 1 that cannot be read, and a whole run beside it."""
    store = copied(captured, tmp_path)
    shutil.copytree(store / "runs/mnist-cnn-seed0", store / "runs/whole")
    record = store / "runs/whole/zarr.json"
    from ibstore.store.format.schema import group, group_attributes

    record.write_bytes(group(group_attributes(record.read_bytes()) | {"run": "whole"}))
    (store / "runs/mnist-cnn-seed0/segments/0000000001/zarr.json").write_text("{")
    return store


def test_what_a_damaged_record_does_not_concern_is_analyzed(
    ibstore: Command, damaged: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    one = ibstore("analyze", damaged, "-q")
    assert one.code == FAILURE
    assert "run 'mnist-cnn-seed0', epoch 1: " in one.err
    assert ibstore("analyze", damaged, "-q", "--epoch", 1).code == FAILURE
    assert ibstore("analyze", damaged, "-q", "--epoch", 0).code == 0
    assert ibstore("analyze", damaged, "-q", "--run", "whole").code == 0
    over_run = ("-w", "r: *=identity | quantile(bins=2, per=run)")
    assert "epoch 1: " in ibstore("analyze", damaged, "-q", "--epoch", 0, *over_run).err
    (damaged / "runs/mnist-cnn-seed0/zarr.json").write_text("{")
    (damaged / "runs/whole/lease.json").write_bytes(Holder.here().dump())
    monkeypatch.setattr("ibstore.analyze.study.time.sleep", lambda _: (damaged / "runs/whole/lease.json").unlink())
    assert ibstore("analyze", damaged, "-q", "--run", "whole", "--follow").code == 0
    assert ibstore("analyze", damaged, "-q", "--run", "whole", *over_run).code == 0


def test_what_is_damaged_is_left_out_of_a_query_and_told(ibstore: Command, damaged: Path) -> None:
    done = ibstore("query", damaged, "-f", "csv", "SELECT DISTINCT run, epoch FROM epochs ORDER BY ALL")
    assert done.out.split() == ["run,epoch", "mnist-cnn-seed0,0", "whole,0", "whole,1"]
    assert "left out: run 'mnist-cnn-seed0', epoch 1: " in done.err
    (damaged / "runs/mnist-cnn-seed0/zarr.json").unlink()
    done = ibstore("query", damaged, "-f", "csv", "SELECT run FROM runs")
    assert done.out.split() == ["run", "whole"]
    assert "left out: run 'mnist-cnn-seed0': " in done.err


def test_info_tells_what_can_be_read_and_what_is_damaged(ibstore: Command, damaged: Path) -> None:
    done = ibstore("info", damaged)
    assert done.code == FAILURE
    assert all(line in done.out for line in ("run mnist-cnn-seed0", "run whole", "epochs     0–1"))
    assert "run 'mnist-cnn-seed0', epoch 1: " in done.err
    assert ibstore("info", damaged, "whole").code == 0


def test_a_report_that_cannot_be_written_is_told_by_its_own_name(ibstore: Command, captured: Path) -> None:
    done = ibstore("verify", captured, "-q", "-o", captured / "no" / "such" / "report.json")
    assert done.code == FAILURE
    assert "make it, or name another file with --out" in done.err


def test_a_training_goes_on_when_whoever_read_its_log_is_gone(tmp_path: Path) -> None:
    read, write = os.pipe()
    os.close(read)
    store = tmp_path / "lab.zarr"
    arguments = ("capture", "mnist-cnn", "--store", store, "--epochs", "2", "--limit", "100")
    try:
        done = subprocess.run(
            [sys.executable, "-c", "from ibstore.cli import main; main()", *arguments], stderr=write, check=False
        )
    finally:
        os.close(write)
    assert done.returncode == 0
    from ibstore.store import Store

    assert Store.open(store).run("mnist-cnn-seed0").epochs == [0, 1, 2]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--epochs", 2, "--lr", 0.1), "nothing is trained; leave --epochs, --lr out"),
        (("--replicas", 3), "are about a training; leave them out with --from-checkpoints"),
        (("--sweep", "lr=1,2"), "are about a training"),
        (("--stop-information", "szt-30"), "are about a training"),
        (("--stop-rule", "every=2"), "say by which waist with --stop-information"),
        (("--stop-estimator", "nsb"), "say by which waist with --stop-information"),
    ],
)
def test_what_checkpoints_have_no_use_for_is_refused(ibstore: Command, tmp_path: Path, options, message) -> None:
    done = ibstore("capture", "mnist-cnn", "--store", tmp_path / "a.zarr", "--from-checkpoints", "*.pt", *options)
    assert done.code == 2
    assert message in done.err
