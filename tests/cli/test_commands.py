"""Each command as a user types it: what it prints where, and its exit code."""

import csv
import io
import json
import subprocess
import sys
from pathlib import Path

import polars as pl
import pytest
from PIL import Image

from ibstore import __version__
from tests.conftest import Command

COMMANDS = (
    *(
        "capture",
        "analyze",
        "measure",
        "sweep",
        "doctor",
        "query",
        "plot",
        "report",
        "probe",
        "watch",
        "reproduce",
        "ls",
        "info",
        "waists",
    ),
    *("verify", "repair", "cp", "merge", "rm", "import", "export"),
)


def test_help_shows_every_command(ibstore: Command) -> None:
    done = ibstore("--help")
    assert done.code == 0
    assert all(command in done.out for command in COMMANDS)


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_prose_and_an_example(ibstore: Command, command: str) -> None:
    done = ibstore(command, "--help")
    assert done.code == 0
    assert "Example:" in done.out
    assert f"ibstore {command}" in " ".join(done.out.split())


def test_version(ibstore: Command) -> None:
    assert ibstore("--version").out == f"ibstore {__version__}\n"


def test_capture_trains_and_tells_what_is_next(ibstore: Command, tmp_path: Path) -> None:
    store = tmp_path / "lab.zarr"
    arguments = ("capture", "mnist-cnn", "--store", store, "--epochs", 1, "--limit", 100)
    done = ibstore(*arguments)
    assert (done.code, done.out) == (0, "")
    assert "train 2/2" in done.err
    assert f"next: ibstore analyze {store}" in done.err
    again = ibstore(*arguments)
    assert again.code == 1
    assert "'mnist-cnn-seed0' is already in the store" in again.err
    assert "--force" in again.err
    forced = ibstore(*arguments, "--force")
    assert forced.code == 0
    assert "removing run 'mnist-cnn-seed0'" in forced.err
    assert ibstore(*arguments, "--run", "other", "--quiet") == type(done)(0, "", "")
    assert ibstore("ls", store, "--format", "json").out.count('"run"') == 2


def test_ls_and_info(ibstore: Command, captured: Path) -> None:
    listed = ibstore("ls", captured).out
    assert all(word in listed for word in ("mnist-cnn-seed0", "0–1", "conv1, conv2, out", "train (200)"))
    (row,) = json.loads(ibstore("ls", captured, "-f", "json").out)
    assert row["raw_bytes"] == 2 * 200 * (3136 + 1568 + 10) * 4
    told = ibstore("info", captured, "mnist-cnn-seed0").out
    assert all(word in told for word in ("16×14×14 float32", "Adam(lr=0.002)", "cross-entropy", "MaxPool2d", "raw"))
    (record,) = json.loads(ibstore("info", captured, "--json").out)
    assert record["manifest"]["seed"] == 0
    assert record["epochs"] == [0, 1]


def test_explain_tells_the_plan_and_does_nothing(ibstore: Command, study: list[str]) -> None:
    asked = ("analyze", *study, "--waist", "thesis-6.2", "--waist", "thesis-6.1", "--epoch", 1)
    told = ibstore(*asked, "--explain", "--memory", "2GiB", "--threads", 1)
    assert (told.code, told.err) == (0, "")
    assert all(word in told.out for word in ("conv1", "passes", "peak", "MiB", "key", "fit"))
    rows = json.loads(ibstore(*asked, "--explain", "-f", "json").out)
    assert [(row["layer"], row["epochs"], row["waists"]) for row in rows] == [
        (layer, "1", 2) for layer in ("conv1", "conv2", "out")
    ]
    assert rows[0]["raw_bytes"] == 200 * 3136 * 4
    assert not Path(study[-1]).exists()
    assert ibstore(*asked).code == 0
    nothing = ibstore(*asked, "--explain")
    assert "nothing to compute: all of it is kept" in nothing.err


def test_memory_and_threads_change_no_number(ibstore: Command, captured: Path, tmp_path: Path) -> None:
    asked = ("analyze", captured, "--epoch", 1, "-q", "-f", "csv", "--results")
    plain = ibstore(*asked, tmp_path / "plain")
    assert ibstore(*asked, tmp_path / "granted", "--memory", "0.8g", "--threads", 3) == plain


def test_analyze_prints_a_table_and_keeps_progress_on_stderr(ibstore: Command, study: list[str]) -> None:
    done = ibstore("analyze", *study, "--waist", "thesis-6.2", "--epoch", 1)
    assert done.code == 0
    assert "thesis-6.2   out" in done.out
    assert "analyze" in done.err
    again = ibstore("analyze", *study, "--waist", "thesis-6.2", "--epoch", 1)
    assert again.out == done.out
    assert again.err == ""  # found, not computed


def test_formats_hold_the_same_numbers(ibstore: Command, study: list[str], tmp_path: Path) -> None:
    ask = ("analyze", *study, "-q", "-w", "thesis-6.2")
    from_csv = list(csv.DictReader(io.StringIO(ibstore(*ask, "-f", "csv").out)))
    from_json = json.loads(ibstore(*ask, "-f", "json").out)
    markdown = ibstore(*ask, "-f", "markdown").out.splitlines()
    parquet = tmp_path / "plane.parquet"
    assert ibstore(*ask, "--out", parquet).out == ""
    frame = pl.read_parquet(parquet)
    assert frame.to_dicts() == from_json
    assert [float(row["i_ty"]) for row in from_csv] == frame["i_ty"].to_list()
    assert markdown[0].strip("| ").split(" | ") == frame.columns
    assert len(markdown) == len(frame) + 2
    assert len(frame) == 2 * 3


def test_nats_and_beta(ibstore: Command, study: list[str]) -> None:
    ask = ("analyze", *study, "-q", "-w", "thesis-6.2", "-f", "json", "--layer", "out")
    bits = json.loads(ibstore(*ask).out)
    nats = json.loads(ibstore(*ask, "--unit", "nats", "--beta", 2).out)
    for one, other in zip(bits, nats, strict=True):
        assert (one["unit"], other["unit"], other["beta"]) == ("bits", "nats", 2.0)
        assert other["h_t"] == pytest.approx(one["h_t"] * 0.6931471805599453)
        assert other["ib"] == pytest.approx(other["i_xt"] - 2 * other["i_ty"])


def test_estimators_and_the_long_table(ibstore: Command, study: list[str]) -> None:
    ask = ("analyze", *study, "-q", "-w", "thesis-6.2", "--layer", "conv2")
    both = json.loads(ibstore(*ask, "-e", "mm", "--estimator", "plugin", "-f", "json").out)
    assert [row["estimator"] for row in both] == ["miller_madow", "plugin"] * 2
    assert both[2]["h_t"] > both[3]["h_t"]
    assert both[:2][1] == json.loads(ibstore(*ask, "-f", "json").out)[0]
    long = ibstore(*ask, "--estimator", "nsb", "--long")
    assert "estimator nsb" in long.out
    assert " coverage" in long.out
    rows = json.loads(ibstore(*ask, "--estimator", "nsb", "--long", "-f", "json").out)
    assert [row["variable"] for row in rows] == ["x", "y", "t", "xt", "ty"] * 2
    unknown = ibstore(*ask, "--estimator", "nbs")
    assert (unknown.code, unknown.out) == (2, "")
    assert "unknown estimator 'nbs'; there are plugin, " in unknown.err


def test_waist_files(ibstore: Command, study: list[str], tmp_path: Path) -> None:
    path = tmp_path / "mine.toml"
    path.write_text('[coarse]\nout = "argmax | exact"\n[fine]\nout = "softmax | uniform(bins=8, lo=0, hi=1)"\n')
    done = ibstore("analyze", *study, "-q", "--waists", path, "-f", "csv")
    assert {row["waist"] for row in csv.DictReader(io.StringIO(done.out))} == {"coarse", "fine"}
    one = ibstore("analyze", *study, "-q", "--waists", path, "-w", "fine", "-f", "csv")
    assert {row["waist"] for row in csv.DictReader(io.StringIO(one.out))} == {"fine"}
    assert "coarse" in ibstore("waists", "--waists", path).out


def test_waists_lists_the_presets_and_their_file_can_be_used(
    ibstore: Command, study: list[str], tmp_path: Path
) -> None:
    assert "maxpool(1, 4, 4) | quantile(bins=2, lo=0.01, hi=0.99)" in ibstore("waists").out
    path = tmp_path / "presets.toml"
    path.write_text(ibstore("waists", "--toml").out)
    done = ibstore("analyze", *study, "-q", "--waists", path, "-w", "thesis-6.3-ex4-code", "-f", "csv")
    assert done.code == 0


def test_query_reads_text_and_stdin(ibstore: Command, study: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    sql = "SELECT count(*) AS samples, count(DISTINCT label) AS labels FROM samples"
    assert json.loads(ibstore("query", *study, sql, "-q", "-f", "json").out) == [{"samples": 200, "labels": 10}]
    monkeypatch.setattr(sys, "stdin", io.StringIO(sql))
    assert json.loads(ibstore("query", *study, "-", "-q", "-f", "json").out) == [{"samples": 200, "labels": 10}]


def test_query_prints_every_type(ibstore: Command, study: list[str]) -> None:
    ibstore("analyze", *study, "-q", "-w", "thesis-6.2")
    sql = "SELECT key, [1, 2] AS list, 1.5::DECIMAL(4, 2) AS d, NULL AS nothing, true AS yes FROM patterns LIMIT 1"
    for form in ("table", "csv", "json", "markdown"):
        done = ibstore("query", *study, sql, "-f", form)
        assert done.code == 0, done.err
        assert "[1, 2]" in done.out
    assert ibstore("query", *study, "SELECT 1 WHERE false").code == 0


def test_query_before_analyze_says_what_fills_the_table(ibstore: Command, study: list[str]) -> None:
    done = ibstore("query", *study, "SELECT count(*) AS rows FROM information_plane", "-f", "csv")
    assert done.out == "rows\n0\n"
    assert "ibstore analyze" in done.err


@pytest.mark.parametrize(("kind", "suffix"), [("plane", "png"), ("curves", "svg")])
def test_plot(ibstore: Command, study: list[str], tmp_path: Path, kind: str, suffix: str) -> None:
    out = tmp_path / f"picture.{suffix}"
    done = ibstore("plot", *study, kind, "-o", out, "-w", "thesis-6.2")
    assert done.code == 0, done.err
    if suffix == "png":
        with Image.open(out) as picture:
            assert min(picture.size) > 500
    else:
        assert out.read_text().rstrip().endswith("</svg>")


def test_plot_draws_what_was_analyzed(ibstore: Command, study: list[str], tmp_path: Path) -> None:
    ibstore("analyze", *study, "-q", "-w", "mine: out=argmax | exact", "-w", "thesis-6.2")
    done = ibstore("plot", *study, "plane", "-o", tmp_path / "plane.png")
    assert "plane of mine, thesis-6.2" in done.err


def test_the_installed_command_and_a_closed_pipe(captured: Path) -> None:
    command = [Path(sys.executable).with_name("ibstore"), "ls", captured]
    assert b"mnist-cnn-seed0" in subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout
    with subprocess.Popen(
        [command[0], "waists", "-f", "csv"], stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as process:
        assert process.stdout is not None
        process.stdout.close()
        assert process.stderr is not None
        assert b"Traceback" not in process.stderr.read()


def test_no_value_is_lost_in_text(ibstore: Command, study: list[str]) -> None:
    sql = """
        SELECT {'a': 1, 'b': 2} AS s, [1, 2] AS list, 12345678901234567.89::DECIMAL(38, 2) AS d, 1.5 AS short,
               123456789012345678901234567890::HUGEINT AS huge, 'nan'::DOUBLE AS nan, 'a|b\nc' AS "x|y"
    """
    (row,) = json.loads(ibstore("query", *study, sql, "-q", "-f", "json").out)
    assert row["s"] == {"a": 1, "b": 2}
    assert row["list"] == [1, 2]
    assert (row["d"], row["short"], row["nan"]) == ("12345678901234567.89", 1.5, None)
    assert row["huge"] == 123456789012345678901234567890
    (line,) = csv.DictReader(io.StringIO(ibstore("query", *study, sql, "-q", "-f", "csv").out))
    assert json.loads(line["s"]) == {"a": 1, "b": 2}
    assert (line["d"], line["huge"]) == ("12345678901234567.89", "123456789012345678901234567890")
    head, _, body = ibstore("query", *study, sql, "-q", "-f", "markdown").out.splitlines()
    assert head.replace("\\|", "").count("|") == body.replace("\\|", "").count("|")


def test_info_has_each_layers_size(ibstore: Command, captured: Path) -> None:
    assert "conv1: 16×14×14 float32, 4.8 MiB raw," in ibstore("info", captured).out
