"""The documentation's code runs: every `ibstore` line and every Python block, in a folder with a small store.

Trainings are replaced by a store that was captured before, and the reader's own model by a tiny one.
"""

import re
import shlex
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

from ibstore.capture.models import mnist_cnn
from tests.conftest import Command

ROOT = Path(__file__).parent.parent
PAGES = (
    "README.md",
    "docs/waists.md",
    "docs/tables.md",
    "docs/verify.md",
    "docs/results.md",
    "docs/estimators.md",
    "docs/measures.md",
    "docs/capture.md",
    "docs/recipes.md",
    "docs/pictures.md",
    "docs/report.md",
)

SHORT = {"mnist-cnn": ["--limit", 10, "--dataset", "mnist-sample"], "resnet18": ["--dataset", "mnist-sample-rgb32"]}
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
    return re.findall(rf"```{language}\n(.*?)```", (ROOT / page).read_text(encoding="utf-8"), re.DOTALL)


def commands(page: str) -> list[list[str]]:
    lines = [shlex.split(block, comments=True) for block in re.split(r"\n(?=\S)", "\n".join(blocks(page, "sh")))]
    return [line for line in lines if line[:1] == ["ibstore"]]


@pytest.fixture
def here(captured: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working folder with the stores and files that the pages speak of."""
    for name in ("lab.zarr", "other.zarr"):
        shutil.copytree(captured, tmp_path / name)
    (tmp_path / "saved_activity").mkdir()
    np.savez(tmp_path / "saved_activity" / "epoch_0.npz", fc=np.arange(60.0).reshape(20, 3))
    (tmp_path / "mine.toml").write_text(blocks("docs/waists.md", "toml")[0].replace('"encoder.0"', '"conv2"'))
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize("page", PAGES)
def test_commands_run(here: Path, page: str, ibstore: Command) -> None:
    for command in commands(page):
        if command[1] != "capture":
            done = ibstore(*(word.replace("s3://", "memory://") for word in command[1:]))
            assert done.code == 0, (command, done)


@pytest.mark.parametrize("page", PAGES)
def test_captures_are_understood(page: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, ibstore: Command) -> None:
    """Their arguments are accepted; the training itself is cut short."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "my_recipe.py").write_text(blocks("docs/recipes.md", "python")[0])
    (tmp_path / "my_network.py").write_text("from ibstore.capture.models import mnist_cnn as make\n")
    (tmp_path / "ckpt").mkdir()
    torch.save(mnist_cnn().state_dict(), tmp_path / "ckpt" / "epoch_3.pt")
    for command in commands(page):
        if command[1] == "capture":
            short = SHORT.get(command[2], ["--limit", 10] if "--from-checkpoints" in command else [])
            few = ["--replicas", 2] if "--replicas" in command else []
            none = [] if "--from-checkpoints" in command else ["--epochs", 0]
            done = ibstore(*_without_folder(command[1:]), *none, *short, *few)
            assert done.code == 0, (command, done)


def _without_folder(command: list[str]) -> list[str]:
    """Data sets that come with the installation have no files to look for."""
    if "--data-dir" not in command:
        return command
    place = command.index("--data-dir")
    return [*command[:place], *command[place + 2 :]]


@pytest.mark.parametrize("page", PAGES)
def test_python_runs(here: Path, page: str, captured: Path) -> None:
    from ibstore.analyze.discretize import DISCRETIZATIONS
    from ibstore.analyze.reduce import REDUCTIONS

    known = dict(REDUCTIONS), dict(DISCRETIZATIONS)
    names: dict[str, object] = {}
    with torch.random.fork_rng():
        for block in blocks(page, "python"):
            records = "Recorder(" in block
            code = (PRELUDE if records else "") + block.replace('"lab.zarr"', '"own.zarr"' if records else '"lab.zarr"')
            exec(compile(code, page, "exec"), names)
    REDUCTIONS.clear()
    REDUCTIONS.update(known[0])
    DISCRETIZATIONS.clear()
    DISCRETIZATIONS.update(known[1])


def test_the_page_of_stochastic_layers_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, ibstore: Command) -> None:
    """Its stores are those that its own captures make, cut short."""
    page = "docs/information-dropout.md"
    monkeypatch.chdir(tmp_path)
    for command in commands(page):
        short = ["--epochs", 0, "--limit", 20, "--probe", 10] if command[1] == "capture" else []
        one_seed = [word.replace("seed=0:2", "seed=0") for word in command[1:]]
        done = ibstore(*_without_folder(one_seed), *short)
        assert done.code == 0, (command, done)
    assert {"transmitted.png", "maps.png"} <= {path.name for path in tmp_path.iterdir()}
    (block,) = blocks(page, "python")
    with torch.random.fork_rng():
        exec(compile(block, page, "exec"), {})


def test_pages_have_commands_and_code() -> None:
    """The patterns above find something: a changed layout of the pages must not empty these tests."""
    assert len(commands("README.md")) >= 10
    assert [len(blocks(page, "python")) for page in PAGES] == [4, 1, 0, 0, 1, 0, 1, 4, 1, 1, 1]


def test_every_link_of_the_readme_leads_somewhere() -> None:
    links = re.findall(r"\]\(((?!http)[^)#]+)\)", (ROOT / "README.md").read_text(encoding="utf-8"))
    assert links
    assert [link for link in links if not (ROOT / link).exists()] == []
