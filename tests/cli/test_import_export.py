"""`ibstore import` and `ibstore export` as a user types them."""

import json
import os
import pickle
import re
import shlex
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from tests.conftest import Command

USAGE, FAILURE = 2, 1


class Bomb:
    """Pickled as a call of os.system."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> object:
        return os.system, (f"touch {self.mark}",)


@pytest.fixture
def acts(tmp_path: Path) -> Path:
    """Three epochs of two layers, and inputs and labels beside the folder."""
    folder = tmp_path / "acts"
    folder.mkdir()
    for epoch in range(3):
        values = np.random.default_rng(epoch).normal(size=(20, 4)).astype(np.float32)
        np.savez(folder / f"epoch_{epoch}.npz", out=values[:, :2], hidden=values)
    np.save(tmp_path / "x.npy", np.eye(20, dtype=np.float32))
    np.save(tmp_path / "y.npy", np.arange(20) % 2)
    return folder


def test_import_then_analyze(ibstore: Command, acts: Path, tmp_path: Path) -> None:
    store = tmp_path / "lab.zarr"
    done = ibstore(
        "import", acts, store, "--x", tmp_path / "x.npy", "--y", tmp_path / "y.npy", "--layers", "hidden,out"
    )
    assert (done.code, done.out) == (0, "")
    assert "import 3/3 epoch 2" in done.err
    assert "run acts: 3 epochs, " in done.err
    assert f"next: ibstore analyze {store}" in done.err
    listed = ibstore("ls", store).out
    assert all(word in listed for word in ("acts", "0–2", "hidden, out", "train (20)"))
    table = ibstore("analyze", store, "-q", "-w", "w: *=identity | quantile(bins=2)", "-f", "json")
    assert table.code == 0
    rows = json.loads(table.out)
    places = {(row["epoch"], row["layer"]) for row in rows}
    assert places == {(epoch, layer) for epoch in range(3) for layer in ("hidden", "out")}
    assert all(abs(row["h_y"] - 1) < 1e-12 for row in rows)  # two labels of ten samples each


def test_import_without_inputs_says_so_and_quietly_says_nothing(ibstore: Command, acts: Path, tmp_path: Path) -> None:
    assert "no inputs were given: X is the sample's number" in ibstore("import", acts, tmp_path / "a.zarr").err
    assert ibstore("import", acts, tmp_path / "b.zarr", "-q") == type(ibstore("--version"))(0, "", "")


def test_import_again(ibstore: Command, acts: Path, tmp_path: Path) -> None:
    store = tmp_path / "lab.zarr"
    assert ibstore("import", acts, store).code == 0
    again = ibstore("import", acts, store)
    assert again.code == FAILURE
    assert "run 'acts' is already in the store with 3 epochs (0–2)" in again.err
    assert ibstore("import", acts, store, "--resume", "-q").code == 0
    forced = ibstore("import", acts, store, "--force")
    assert forced.code == 0
    assert "removing run 'acts'" in forced.err
    assert ibstore("import", acts, store, "--force", "--resume").code == USAGE


def test_a_run_goes_out_and_comes_back(ibstore: Command, captured: Path, tmp_path: Path) -> None:
    out, store = tmp_path / "out", tmp_path / "again.zarr"
    done = ibstore("export", captured, "--run", "mnist-cnn-seed0", "--format", "safetensors", "--out", out)
    assert (done.code, done.out) == (0, "")
    assert "export 2/2 epoch 1" in done.err
    assert f"4 files in {out}" in done.err
    assert ibstore("import", out, store).code == 0
    one, other = (json.loads(ibstore("info", place, "--json").out)[0]["manifest"] for place in (captured, store))
    assert one == other
    for sql in ("FROM epochs ORDER BY ALL", "FROM samples ORDER BY ALL", "FROM layers ORDER BY ALL"):
        ask = [(place, f"SELECT * {sql}", "-q", "--results", tmp_path / "results") for place in (captured, store)]
        first, second = (ibstore("query", *each) for each in ask)
        assert first == second
        assert first.code == 0


def test_export_chooses(ibstore: Command, captured: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    ask = ("export", captured, "--run", "mnist-cnn-seed0", "-f", "parquet", "-o", out, "-q")
    assert ibstore(*ask, "--epoch", 1, "--layer", "out", "--layer", "conv2").code == 0
    assert sorted(path.name for path in out.iterdir()) == [
        "epoch_0000000001.parquet",
        "inputs.parquet",
        "manifest.json",
    ]
    assert pl.read_parquet(out / "epoch_0000000001.parquet").columns == ["sample", "label", "out", "conv2"]
    again = ibstore(*ask, "--epoch", 1)
    assert again.code == FAILURE
    assert "epoch_0000000001.parquet is there already; choose another folder, or replace it with --force" in again.err
    assert ibstore(*ask, "--force").code == 0
    assert len(list(out.iterdir())) == 4


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (["export", "{captured}", "--run", "no", "-o", "{here}/out"], USAGE, "has no run 'no'; it has mnist-cnn-seed0"),
        (["export", "{captured}", "-o", "{here}/out"], USAGE, "Missing option '--run'"),
        (
            ["export", "{captured}", "--run", "mnist-cnn-seed0", "-f", "mat", "-o", "{here}/out"],
            USAGE,
            "'mat' is not one of",
        ),
        (["export", "{here}/no.zarr", "--run", "a", "-o", "{here}/out"], FAILURE, "there is no store at"),
        (["import", "{here}/no", "{here}/lab.zarr"], USAGE, "there is nothing at"),
        (["import", "{here}", "{here}/lab.zarr"], FAILURE, "has no activations that are known"),
        (
            ["import", "{here}/acts", "{here}/lab.zarr", "--layers", "a,b"],
            USAGE,
            "has no layer 'a'; it has out, hidden",
        ),
        (["import", "{here}/acts", "{here}/lab.zarr", "--format", "hdf5"], FAILURE, "acts cannot be read ("),
        (["import", "{here}/acts", "{here}/lab.zarr", "--y", "{here}/x.npy"], FAILURE, "x.npy: y has shape (20, 20)"),
        (["import", "{here}/acts", "{here}/x.npy"], FAILURE, "exists and is no ibstore store"),
        (["import", "{here}/acts", "{captured}/data/in.zarr"], FAILURE, "lies inside the store"),
        (["import", "s3://lab/acts", "{here}/lab.zarr"], USAGE, "s3://lab/acts is no folder of this machine"),
    ],
)
def test_bad_input_gets_one_sentence(
    ibstore: Command, acts: Path, captured: Path, tmp_path: Path, arguments: list[str], code: int, said: str
) -> None:
    done = ibstore(*[each.format(captured=captured, here=tmp_path) for each in arguments])
    assert done.code == code
    assert said in " ".join(done.err.replace("│", " ").split())
    assert not (tmp_path / "lab.zarr").exists()


def test_a_pickle_that_would_run_code_is_refused(ibstore: Command, tmp_path: Path) -> None:
    (tmp_path / "acts").mkdir()
    (tmp_path / "acts" / "epoch00000000").write_bytes(pickle.dumps({"data": Bomb(tmp_path / "mark")}, 2))
    done = ibstore("import", tmp_path / "acts", tmp_path / "lab.zarr")
    assert done.code == FAILURE
    assert "epoch00000000 asks for posix.system;" in done.err
    assert "nothing of it was run" in done.err
    assert not (tmp_path / "mark").exists()


def test_a_store_in_a_bucket(ibstore: Command, acts: Path, tmp_path: Path) -> None:
    assert ibstore("import", acts, "memory://imported/lab.zarr").code == 0
    done = ibstore("export", "memory://imported/lab.zarr", "--run", "acts", "-o", tmp_path / "out")
    assert done.code == 0
    with np.load(tmp_path / "out" / "epoch_0000000002.npz") as found, np.load(acts / "epoch_2.npz") as due:
        np.testing.assert_array_equal(found["hidden"], due["hidden"])


def page(language: str) -> str:
    text = (Path(__file__).parents[2] / "docs" / "moving.md").read_text(encoding="utf-8")
    (block,) = re.findall(rf"```{language}\n(.*?)```", text, re.DOTALL)
    return str(block)


def test_the_documentation_runs(ibstore: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("activations").mkdir()
    Path("saxe").mkdir()
    for epoch in (0, 10):
        layers = {name: np.full((6, 2), epoch, np.float32) for name in ("conv1", "conv2", "out")}
        np.savez(f"activations/epoch_{epoch}.npz", **layers)
        content = {"epoch": epoch, "data": {"activity_tst": list(layers.values())}, "loss": {}}
        Path(f"saxe/epoch{epoch:08d}").write_bytes(pickle.dumps(content))
    np.save("x.npy", np.eye(6))
    np.save("y.npy", np.arange(6) % 2)
    lines = list(filter(None, (shlex.split(line, comments=True) for line in page("sh").splitlines())))
    assert len(lines) == 5
    for _, *arguments in lines:
        assert ibstore(*arguments).code == 0
    code = page("python").replace("\nduckdb", "\nfound = duckdb")
    names: dict[str, object] = {}
    exec(compile(code, "docs/moving.md", "exec"), names)
    assert names["found"].fetchall() == [(0, 10.0), (1, 10.0)]  # type: ignore[attr-defined]
