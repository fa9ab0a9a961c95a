"""The documentation's code runs: each `ibstore` line, Python block and SELECT, in a folder with a small store.

Trainings are replaced by a store that was captured before, and the reader's own model by a tiny one. Pages that need
other files are run by a test of their own, `ELSEWHERE`; the examples by `make docs`.
"""

import re
import runpy
import shlex
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
import torch
import typer

import ibstore as package
from ibstore.analyze.discretize import DISCRETIZATIONS
from ibstore.analyze.estimate.entropy import ESTIMATORS, find_estimator
from ibstore.analyze.plots import KINDS
from ibstore.analyze.reduce import REDUCTIONS
from ibstore.capture.models import mnist_cnn
from ibstore.cli import app
from tests.conftest import Command

ROOT = Path(__file__).parent.parent

ELSEWHERE = {
    "docs/compression.md": "tests/test_compression.py",
    "docs/information-dropout.md": "tests/test_docs.py",  # below, in stores that its own captures make
    "docs/moving.md": "tests/cli/test_import_export.py",
    "docs/reproduce.md": "tests/cli/test_reproduce.py",
}
"""Pages whose code needs other files, and what runs it there."""

ALL = ["README.md", *sorted(str(path.relative_to(ROOT)) for path in (ROOT / "docs").rglob("*.md"))]

SHORT = {
    "mnist-cnn": ["--limit", 10, "--dataset", "mnist-sample"],
    "resnet18": ["--limit", 10, "--dataset", "mnist-sample-rgb32"],
}
"""How captures are cut short beside their epochs, by recipe."""


PRELUDE = """
import torch
from torch import nn
model = nn.Sequential()
model.add_module("conv1", nn.Sequential(nn.Conv2d(1, 2, 3), nn.ReLU()))
model.add_module("conv2", nn.Sequential(nn.Conv2d(2, 2, 3), nn.ReLU()))
model.add_module("out", nn.Sequential(nn.Flatten(), nn.Linear(2 * 24 * 24, 10)))
x, y = torch.rand(20, 1, 28, 28), torch.arange(20) % 10
optimizer, generator = torch.optim.Adam(model.parameters()), torch.Generator()
def train_one_epoch(model):
    return 0.5, 0.9
"""


def blocks(page: str, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)```", read(page), re.DOTALL | re.MULTILINE)


def read(page: str) -> str:
    return (ROOT / page).read_text(encoding="utf-8")


def commands(page: str) -> list[list[str]]:
    lines = [shlex.split(block, comments=True) for block in re.split(r"\n(?=\S)", "\n".join(blocks(page, "sh")))]
    return [line for line in lines if line[:1] == ["ibstore"]]


def having(of: Callable[[str], list[Any]]) -> list[str]:
    """Pages that have something of a sort, and are run here."""
    return [page for page in ALL if page not in ELSEWHERE and of(page)]


def asking(page: str) -> list[list[str]]:
    return [command for command in commands(page) if command[1] != "capture"]


def capturing(page: str) -> list[list[str]]:
    return [command for command in commands(page) if command[1] == "capture"]


def python(page: str) -> list[str]:
    return blocks(page, "python")


@pytest.fixture
def here(captured: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working folder with the stores and files that the pages speak of. The stores end at epoch 1, not 10."""
    for name in ("lab.zarr", "other.zarr"):
        shutil.copytree(captured, tmp_path / name)
    (tmp_path / "saved_activity").mkdir()
    np.savez(tmp_path / "saved_activity" / "epoch_0.npz", fc=np.arange(60.0).reshape(20, 3))
    (tmp_path / "mine.toml").write_text(blocks("docs/waists.md", "toml")[0].replace('"encoder.0"', '"conv2"'))
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def nothing_registered() -> Iterator[None]:
    """What a page registers is gone after it."""
    find_estimator("nsb")  # declares those that ship, which must stay
    before = [(registry, dict(registry)) for registry in (REDUCTIONS, DISCRETIZATIONS, ESTIMATORS)]
    yield
    for registry, known in before:
        registry.clear()
        registry.update(known)


@pytest.mark.parametrize("page", having(asking))
def test_commands_run(here: Path, page: str, ibstore: Command) -> None:
    for command in asking(page):
        words = " ".join(map(shlex.quote, command[1:])).replace("s3://", "memory://").replace("--epoch 10", "--epoch 1")
        done = ibstore(*shlex.split(words))
        assert done.code == 0, (command, done)


@pytest.mark.parametrize("page", having(capturing))
def test_captures_are_understood(page: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, ibstore: Command) -> None:
    """Their arguments are accepted; the training itself is cut short."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "my_recipe.py").write_text(blocks("docs/recipes.md", "python")[0])
    (tmp_path / "my_network.py").write_text("from ibstore.capture.models import mnist_cnn as make\n")
    (tmp_path / "ckpt").mkdir()
    torch.save(mnist_cnn().state_dict(), tmp_path / "ckpt" / "epoch_3.pt")
    for command in capturing(page):
        words = [word.removeprefix("s3://bucket/") for word in _without_folder(command[1:])]
        done = ibstore(*words, *_cut(command))
        assert done.code == 0, (command, done)


def _cut(command: list[str]) -> list[object]:
    """What cuts a capture short."""
    if "--from-checkpoints" in command:
        return ["--limit", 10]
    few = ["--replicas", 2] if "--replicas" in command else []
    return ["--epochs", 0, *SHORT.get(command[2], []), *few]


def _without_folder(command: list[str]) -> list[str]:
    """Data sets that come with the installation have no files to look for."""
    if "--data-dir" not in command:
        return command
    place = command.index("--data-dir")
    return [*command[:place], *command[place + 2 :]]


def _fewer(word: str) -> str:
    """Of the many numbers of a sweep the first and the middle one, which the page goes on with; kinds all stay."""
    name, _, values = word.partition("=")
    each = values.split(",")
    return f"{name}={each[0]},{each[len(each) // 2]}" if len(each) > 2 and each[0][0].isdigit() else word


@pytest.mark.parametrize("page", having(python))
def test_python_runs(here: Path, page: str, nothing_registered: None) -> None:
    names: dict[str, object] = {}
    with torch.random.fork_rng():
        for block in python(page):
            records = "Recorder(" in block
            code = (PRELUDE if records else "") + block.replace('"lab.zarr"', '"own.zarr"' if records else '"lab.zarr"')
            exec(compile(code, page, "exec"), names)


def test_the_cookbook_s_questions_are_answered(here: Path, ibstore: Command) -> None:
    """Each of the twenty runs on two seeds, and its columns are those of the answer that the page shows."""
    page = "docs/cookbook.md"
    (analyze,) = asking(page)
    for command in (["merge", "lab.zarr", "other.zarr", "--rename", "mnist-cnn-seed0=mnist-cnn-seed1"], analyze[1:]):
        done = ibstore(*command)
        assert done.code == 0, done
    questions = re.findall(r"^### (.+?)\n.*?```sql\n(.*?)```\n\n(\|.*?\|)\n", read(page), re.DOTALL | re.MULTILINE)
    assert len(questions) == len(blocks(page, "sql")) == 20
    study, empty = package.open("lab.zarr"), []
    for title, sql, head in questions:
        answer = study.query(re.sub(r"\b10\b", "1", sql))
        assert answer.columns == head.strip("| ").split(" | "), title
        empty += [title] if answer.is_empty() else []
    assert empty == []


def test_the_page_of_stochastic_layers_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, ibstore: Command) -> None:
    """Its stores are those that its own captures make, cut short."""
    page = "docs/information-dropout.md"
    monkeypatch.chdir(tmp_path)
    for command in commands(page):
        short = ["--epochs", 0, "--limit", 20, "--probe", 10] if command[1] == "capture" else []
        fewer = [_fewer(word.replace("seed=0:2", "seed=0")) for word in command[1:]]
        done = ibstore(*_without_folder(fewer), *short)
        assert done.code == 0, (command, done)
    assert {"transmitted.png", "maps.png"} <= {path.name for path in tmp_path.iterdir()}
    (block,) = blocks(page, "python")
    with torch.random.fork_rng():
        exec(compile(block, page, "exec"), {})


def test_pages_have_commands_and_code() -> None:
    """The patterns above find something: a changed layout of the pages must not empty these tests."""
    assert {"README.md", "docs/tutorial.md", "docs/cookbook.md", "docs/tables.md"} < set(having(asking))
    assert {"README.md", "docs/tutorial.md", "docs/own-estimator.md", "docs/store-format.md"} < set(having(python))
    assert len(asking("README.md")) >= 10
    assert len(python("README.md")) == 4


def test_no_code_is_left_out() -> None:
    languages = {language for page in ALL for language in re.findall(r"^```(\w+)", read(page), re.MULTILINE)}
    assert languages <= {"sh", "python", "sql", "toml", "json", "text"}  # a language that nothing here runs is seen
    assert [page for page in ALL if blocks(page, "sql")] == ["docs/cookbook.md"]
    for page, test in ELSEWHERE.items():
        assert Path(page).stem in read(test), page


def test_the_page_of_the_command_line_has_every_command() -> None:
    written = runpy.run_path(str(ROOT / "docs/site/commands.py"))["commands"]()
    group = typer.main.get_command(app)
    names = [*group.commands, *(f"cache {name}" for name in group.commands["cache"].commands)]
    assert re.findall(r"^##+ `ibstore (.+)`$", written, re.MULTILINE) == names
    links = re.findall(r"\]\(\.\./(.+?)\)", written)
    assert links
    assert [link for link in links if not (ROOT / "docs" / link).exists()] == []


def test_tables_of_examples_show_names_and_values_alone() -> None:
    themed = runpy.run_path(str(ROOT / "docs/site/notebooks.py"))["_themed"]
    settings = {
        setting
        for page in ("plane", "trust")
        for setting in re.findall(r"pl\.Config\((.*?)\)", read(f"docs/examples/{page}.py"), re.DOTALL)
    }
    assert len(settings) == 1  # the same on both pages
    with eval(f"pl.Config({settings.pop()})", {"pl": pl}):
        table = themed(pl.DataFrame({"layer": ["out", 'a "b"'], "bits": [1.5, 2.0]})._repr_html_())
    assert re.findall(r"<t[hd]>(.*?)</t[hd]>", table) == ["layer", "bits", "out", "1.500", "a &quot;b&quot;", "2.000"]
    assert "dataframe" not in table


def test_the_page_of_python_has_every_name() -> None:
    page = read("docs/reference/python.md")
    entries = set(re.findall(r"^::: (\S+)$", page, re.MULTILINE))
    names = set(package.__all__) - {"__version__"}
    assert {f"ibstore.{name}" for name in names} - entries == set()
    kinds = {f"{kind.__module__}.{kind.__name__}": f"ibstore.plots.{name}" for name, kind in KINDS.items()}
    assert set(kinds) - entries == set()
    headings = dict(re.findall(r"^::: (\S+)\n    options:\n      heading: (\S+)$", page, re.MULTILINE))
    assert headings == kinds


def test_lists_stand_below_a_blank_line() -> None:
    """The site would show them as text; what a repository shows as a list is none there."""
    pages = [page for page in ALL if page != "README.md"]
    assert [page for page in pages if re.search(r"^(```|\w.*|\*\*.*|#.*)\n- ", read(page), re.MULTILINE)] == []


def test_every_link_of_the_readme_leads_somewhere() -> None:
    links = re.findall(r"\]\(((?!http)[^)#]+)\)", read("README.md"))
    assert links
    assert [link for link in links if not (ROOT / link).exists()] == []
