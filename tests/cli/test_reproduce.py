"""The literature, redone: quickly, and what the page says."""

import re
import shlex
from dataclasses import replace
from pathlib import Path
from unittest.mock import patch

import pytest

from ibstore.cli.reproduce import Finding, Picture, Reproduction, Size, Step, _found, names, summary
from tests.conftest import Command


@pytest.mark.parametrize("name", names())
def test_a_quick_one_is_whole(ibstore: Command, tmp_path: Path, name: str) -> None:
    """Every command runs, every finding is answered, every picture is there."""
    asked = Reproduction.read(name)
    done = ibstore("reproduce", name, "--quick", "--out", tmp_path / name)
    assert done.code == 0, done.err
    text = (tmp_path / name / "summary.md").read_text()
    assert done.out == text
    assert all(f"| {finding.says} | " in text for finding in asked.findings)
    assert len(re.findall(r"\| (yes|\*\*no\*\*|not to be told) \|\n", text)) == len(asked.findings)
    pictures = re.findall(r"!\[[^\]]+\]\(([^)]+)\)", text)
    assert len(pictures) == len(asked.pictures) > 0
    assert all((tmp_path / name / picture).stat().st_size > 5_000 for picture in pictures)
    commands = re.findall(r"^(ibstore [a-z].*)  # \d+ s$", text, re.MULTILINE)
    assert len(commands) == len(asked.sizes["quick"].captures) + len(asked.steps) + len(asked.pictures)
    assert all(command in done.err for command in commands)


@pytest.mark.parametrize("name", names())
def test_the_whole_thing_says_what_the_quick_one_says(name: str) -> None:
    """Its captures are of the same recipes and runs, so that the findings fit."""
    sizes = Reproduction.read(name).sizes

    def of(size: Size) -> list[tuple[str, str | None]]:
        words = [shlex.split(text) for text in size.captures]
        return [(own[1], own[own.index("--run") + 1] if "--run" in own else None) for own in words]

    assert of(sizes["full"]) == of(sizes["quick"])
    assert not sizes["quick"].needs_data


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> Reproduction:
    """A reproduction of a second."""
    captures = (
        "capture szt --store {store} --epochs 1 --threads 1",
        "capture szt-simple --store {store} --epochs 1 --threads 1",
    )
    step = Step("analyze {store} --run szt-seed0 --waist szt-30 --out {out}/plane.csv")
    finding = Finding(
        "two epochs", "SELECT format('{}', count(*)) AS found, count(*) = 12 AS agrees FROM information_plane"
    )
    made = Reproduction("small", "Small", "nobody", {"quick": Size(captures)}, (step,), (), (finding,))
    monkeypatch.setattr(Reproduction, "read", lambda _: made)
    return made


def test_ctrl_c_ends_it_and_it_goes_on(
    ibstore: Command, tmp_path: Path, small: Reproduction, monkeypatch: pytest.MonkeyPatch
) -> None:
    import ibstore.capture.train as training

    real = training.train

    def interrupted(*arguments: object, **options: object) -> object:
        monkeypatch.setattr(training, "train", real)
        raise KeyboardInterrupt

    monkeypatch.setattr(training, "train", interrupted)
    out = ("small", "--quick", "--out", tmp_path / "out")
    done = ibstore("reproduce", *out)
    assert (done.code, done.out) == (130, "")
    assert not (tmp_path / "out" / "summary.md").exists()
    done = ibstore("reproduce", *out)  # nothing was written yet: the folder is as good as new
    assert (done.code, "| two epochs | 12 | yes |" in done.out) == (0, True), done.err
    again = ibstore("reproduce", *out)
    assert (again.code, again.out) == (2, "")
    assert "out is there already; go on with --resume, give another folder" in again.err
    assert ibstore("reproduce", *out, "--resume").code == 0


def test_a_step_that_fails_ends_it(ibstore: Command, tmp_path: Path, small: Reproduction) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "lab.zarr").write_text("no store")
    done = ibstore("reproduce", "small", "--quick", "--out", tmp_path / "out", "--resume")
    assert (done.code, done.out) == (1, "")


def test_of_a_quick_one_what_a_whole_training_tells_is_open(tmp_path: Path, small: Reproduction) -> None:
    finding = Finding("it ends", "SELECT 'so' AS found, true AS agrees", whole=True)
    asked = replace(small, steps=(), findings=(finding,))
    (tmp_path / "lab.zarr").mkdir()
    with patch("ibstore.analyze.Study") as study:
        study.return_value.query.return_value.row.return_value = ("so", True)
        assert _found(asked, tmp_path, quick=True) == [("so", None)]
        assert _found(asked, tmp_path, quick=False) == [("so", True)]


def test_what_a_step_gives_is_a_table() -> None:
    assert Step("measure s limit", table="limit").whole == "measure s limit --out {out}/limit.parquet"
    assert Step("analyze s --out {out}/plane.csv").whole == "analyze s --out {out}/plane.csv"


def test_what_does_not_come_back_is_said() -> None:
    findings = (Finding("it falls", ""), Finding("it rises", ""), Finding("it stays", ""))
    asked = Reproduction("some", "Title", "a source", {}, (), (Picture("plot x -o out/a.png", "A picture"),), findings)
    text = summary(asked, {"ibstore ls": 2.0}, [("it fell", True), ("it fell", False), ("?", None)], quick=False)
    assert "| it falls | it fell | yes |\n| it rises | it fell | **no** |\n| it stays | ? | not to be told |\n" in text
    assert "\nNot to be told: " in text
    assert "![A picture](a.png)" in text
    assert "A quick one" not in text


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            ("nothing", "--quick"),
            "there is no reproduction 'nothing'; choose one of blackbox, cnn-kde, info-dropout, szt, thesis",
        ),
        (("thesis",), "thesis is redone on files; give --data-dir DIR, or --quick"),
        (("thesis", "--quick", "--data-dir", "."), "--quick takes data that come with ibstore; leave --data-dir out"),
        (("thesis", "--quick", "--out", "."), ". is there already; go on with --resume, give another"),
    ],
)
def test_what_cannot_be_meant_is_refused(ibstore: Command, arguments: tuple[str, ...], message: str) -> None:
    done = ibstore("reproduce", *arguments)
    assert (done.code, done.out) == (2, "")
    assert message in done.err
