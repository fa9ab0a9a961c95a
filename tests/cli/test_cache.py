"""`ibstore cache ls` and `ibstore cache rm` as a user types them."""

import json
from pathlib import Path

import pytest

from tests.conftest import Command

WAISTS = ("--waist", "a: *=argmax | exact", "--waist", "b: x=maxpool(7, 7) | threshold(0.5); *=argmax | exact")


@pytest.fixture
def analyzed(ibstore: Command, study: list[str]) -> list[str]:
    assert ibstore("analyze", *study, *WAISTS, "--quiet").code == 0
    return study


def listed(ibstore: Command, study: list[str]) -> list[dict[str, object]]:
    done = ibstore("cache", "ls", *study, "--format", "json")
    assert done.code == 0, done.err
    rows: list[dict[str, object]] = json.loads(done.out)
    return rows


@pytest.mark.parametrize("command", ["ls", "rm"])
def test_every_command_has_prose_and_an_example(ibstore: Command, command: str) -> None:
    done = ibstore("cache", command, "--help")
    assert done.code == 0
    assert f"ibstore cache {command}" in " ".join(done.out.split())
    assert "Example:" in done.out


def test_what_is_kept_is_listed(ibstore: Command, analyzed: list[str]) -> None:
    rows = listed(ibstore, analyzed)
    assert [(row["table"], row["layer"], row["waist"], row["parts"], row["epochs"]) for row in rows] == [
        *(("counts", layer, waist, 2, 2) for layer in ("conv1", "conv2", "out") for waist in "ab"),
        *(("information_plane", layer, waist, 2, 2) for layer in ("conv1", "conv2", "out") for waist in "ab"),
        *(("patterns", layer, waist, 2, 2) for layer in ("conv1", "conv2", "out") for waist in "ab"),
        *(("patterns", "x", waist, 1, None) for waist in "ab"),
    ]
    table = ibstore("cache", "ls", *analyzed).out
    assert " KiB" in table
    assert "kept" in table


def test_what_is_removed_is_computed_again(ibstore: Command, analyzed: list[str], tmp_path: Path) -> None:
    first = ibstore("analyze", *analyzed, *WAISTS, "--format", "csv").out
    files = sorted((tmp_path / "results").rglob("*.parquet"))
    done = ibstore("cache", "rm", *analyzed, "--waist", "a", "--table", "information_plane", "--yes")
    assert (done.code, done.out) == (0, "")
    assert "removed 6 parts, " in done.err
    assert {row["waist"] for row in listed(ibstore, analyzed) if row["table"] == "information_plane"} == {"b"}
    assert ibstore("analyze", *analyzed, *WAISTS, "--format", "csv").out == first
    assert sorted((tmp_path / "results").rglob("*.parquet")) == files


def test_what_nobody_asks_for_is_removed(ibstore: Command, analyzed: list[str]) -> None:
    nothing = ibstore("cache", "rm", *analyzed, "--unused", "--yes")
    assert (nothing.code, nothing.err) == (0, "nothing is kept of that\n")
    assert ibstore("analyze", *analyzed, "--waist", "a: out=softmax | threshold(0.5)", "--quiet").code == 0
    unused = [row for row in listed(ibstore, analyzed) if row["run"] is None]
    found = [(row["table"], row["parts"]) for row in unused]
    assert found == [("counts", 6), ("information_plane", 6)]  # b has the same keys
    assert ibstore("cache", "rm", *analyzed, "--unused", "--yes").code == 0
    assert not [row for row in listed(ibstore, analyzed) if row["run"] is None]


def test_all_of_it_is_removed(ibstore: Command, analyzed: list[str], tmp_path: Path) -> None:
    assert ibstore("cache", "rm", *analyzed, "--all", "--yes").code == 0
    assert listed(ibstore, analyzed) == []
    assert not list((tmp_path / "results").rglob("*.parquet"))


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ([], "say what: --unused, --all, or of which --run, --layer, --waist, --table"),
        (["--all"], "parts, "),
        (["--waist", "c"], "nothing is kept of waist 'c'; there is a, b"),
        (["--table", "runs", "--yes"], "nothing is kept of table 'runs'; there is counts, information_plane, patterns"),
    ],
)
def test_bad_input_removes_nothing(ibstore: Command, analyzed: list[str], arguments: list[str], said: str) -> None:
    before = listed(ibstore, analyzed)
    done = ibstore("cache", "rm", *analyzed, *arguments)
    assert (done.code, done.out) == (2, "")
    assert said in done.err
    assert listed(ibstore, analyzed) == before


def test_no_store(ibstore: Command, tmp_path: Path) -> None:
    for command in (["ls"], ["rm", "--all", "--yes"]):
        done = ibstore("cache", command[0], tmp_path / "nothing.zarr", *command[1:])
        assert (done.code, done.out) == (1, "")
        assert "there is no store at" in done.err
    assert list(tmp_path.iterdir()) == []
