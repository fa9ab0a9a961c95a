"""`verify`, `repair`, `cp`, `merge` and `rm` as a user types them."""

import csv
import io
import json
import shutil
import sys
from pathlib import Path

import pytest

from ibstore.store.places.lease import Holder
from tests.conftest import Command
from tests.store import stores

VALUES = stores.layers()
CONV = "runs/run0/segments/0000000001/train/conv"


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    store = tmp_path_factory.mktemp("whole") / "lab.zarr"
    stores.write_run(store, VALUES)
    return stores.write_run(store, stores.layers(seed=1), run="run1")


@pytest.fixture
def store(tmp_path: Path, whole: Path) -> Path:
    return Path(shutil.copytree(whole, tmp_path / "lab.zarr"))


@pytest.mark.parametrize("command", ["verify", "repair", "cp", "merge", "rm"])
def test_every_command_has_prose_and_an_example(ibstore: Command, command: str) -> None:
    done = ibstore(command, "--help")
    assert done.code == 0
    assert "Example:" in done.out
    assert f"ibstore {command}" in " ".join(done.out.split())


@pytest.mark.parametrize("command", ["verify", "repair", "cp", "merge", "rm"])
def test_no_store(ibstore: Command, tmp_path: Path, command: str) -> None:
    more = {"cp": [tmp_path / "copy.zarr"], "merge": [tmp_path / "other.zarr"], "rm": ["run0"]}.get(command, [])
    done = ibstore(command, tmp_path / "nothing.zarr", *more)
    assert (done.code, done.out) == (1, "")
    assert "there is no store at" in done.err
    assert list(tmp_path.iterdir()) == []


# ---- verify


def test_verify_a_whole_store(ibstore: Command, store: Path) -> None:
    done = ibstore("verify", store)
    assert done.code == 0
    assert done.out.splitlines() == [
        "run run0: 2 of 2 epochs whole",
        "run run1: 2 of 2 epochs whole",
        f"probe set {stores.PROBE.digest()}: whole",
        f"{store}: nothing is wrong (sizes and records were checked; --deep reads every file)",
    ]
    assert "verify 5/5" in done.err
    deep = ibstore("verify", store, "--deep", "--quiet")
    assert (deep.code, deep.err) == (0, "")
    assert deep.out.endswith("nothing is wrong (every file was read)\n")


def test_verify_tells_what_is_wrong_and_what_is_good(ibstore: Command, store: Path) -> None:
    (store / CONV / "c.0.0.0.0").unlink()
    (store / "notes.txt").touch()
    done = ibstore("verify", store, "-q")
    assert done.code == 1
    first, second, *rest = done.out.splitlines()
    assert first.startswith("missing: run 'run0', epoch 1, split 'train', layer 'conv': ")
    assert second.startswith(f"foreign: {store}/notes.txt ")
    assert rest[0] == "run run0: 1 of 2 epochs whole"
    assert rest[-1].startswith(f"{store}: 1 damaged, 1 left over (")
    as_json = ibstore("verify", store, "-q", "--format", "json")
    assert as_json.code == 1
    document = json.loads(as_json.out)
    assert (document["ok"], document["damage"], document["leftovers"]) == (False, 1, 1)
    assert document["findings"][0]["key"] == f"{CONV}/c.0.0.0.0"
    as_csv = ibstore("verify", store, "-q", "--format", "csv")
    assert as_csv.code == 1
    assert [row["kind"] for row in csv.DictReader(io.StringIO(as_csv.out))] == ["missing", "foreign"]


def test_verify_writes_files(ibstore: Command, store: Path, tmp_path: Path) -> None:
    (store / "notes.txt").touch()
    for name in ("report.json", "report.txt", "report.csv", "report.parquet"):
        done = ibstore("verify", store, "-q", "--out", tmp_path / name)
        assert (done.code, done.out) == (1, "")
        assert (tmp_path / name).stat().st_size
    assert json.loads((tmp_path / "report.json").read_text())["leftovers"] == 1
    assert ibstore("verify", store, "-q", "--out", tmp_path / "report.xyz").code == 2


def test_verify_a_store_whose_mark_is_lost(ibstore: Command, store: Path) -> None:
    (store / "zarr.json").unlink()
    done = ibstore("verify", store, "-q")
    assert done.code == 1
    assert f"missing: {store}/zarr.json is missing; copy it from another store" in done.out


# ---- repair


def test_repair_lists_and_removes_only_when_told(ibstore: Command, store: Path, whole: Path) -> None:
    assert "nothing is left over" in ibstore("repair", store).err
    (store / "notes.txt").touch()
    (store / "runs/run0/segments/0000000002").mkdir()
    done = ibstore("repair", store)
    assert done.code == 0
    assert done.out.splitlines() == [
        f"torn: {store}/runs/run0/segments/0000000002 (0 files, 0 B) is a segment that was never committed",
        f"foreign: {store}/notes.txt (1 file, 0 B) is nothing that ibstore writes",
    ]
    assert f"nothing was removed; `ibstore repair {store} --yes` removes what is listed" in done.err
    assert (store / "notes.txt").exists()
    again = ibstore("repair", store, "--yes")
    assert (again.code, again.out) == (0, done.out)
    assert "removed 2 of 2 leftovers" in again.err
    assert stores.tree(store) == stores.tree(whole)


def test_repair_leaves_damage(ibstore: Command, store: Path) -> None:
    (store / CONV / "c.0.0.0.0").unlink()
    before = stores.tree(store)
    done = ibstore("repair", store, "--yes")
    assert (done.code, done.out) == (0, "")
    assert f"what is damaged stays as it is (1 findings); `ibstore verify {store}` says what to do" in done.err
    assert stores.tree(store) == before


# ---- cp and merge


def test_cp(ibstore: Command, store: Path, tmp_path: Path) -> None:
    in_memory = f"memory://{tmp_path}/copy.zarr"
    done = ibstore("cp", store, in_memory, "--run", "run0")
    assert (done.code, done.out) == (0, "")
    assert "copy 3/3 run run0, epoch 1" in done.err
    assert f"copied 1 run to {in_memory}; next: ibstore ls {in_memory}" in done.err
    assert ibstore("cp", in_memory, tmp_path / "back.zarr", "-q") == type(done)(0, "", "")
    stores.assert_run(tmp_path / "back.zarr", VALUES, [0, 1])
    unknown = ibstore("cp", store, in_memory, "--run", "nobody")
    assert unknown.code == 2
    assert "has no run 'nobody'; it has run0, run1" in unknown.err


def test_cp_of_a_damaged_run_names_the_file(ibstore: Command, store: Path, tmp_path: Path) -> None:
    (store / CONV / "c.0.0.0.0").unlink()
    done = ibstore("cp", store, tmp_path / "copy.zarr", "-q")
    assert done.code == 1
    assert f"{store}/{CONV}/c.0.0.0.0 is missing; see what is whole with `ibstore verify {store} --deep`" in done.err


def test_merge(ibstore: Command, store: Path, tmp_path: Path) -> None:
    target = stores.write_run(tmp_path / "target.zarr", stores.layers(seed=2))
    refused = ibstore("merge", target, store)
    assert refused.code == 1
    assert "another run of the name 'run0'" in refused.err
    assert "--rename" in refused.err
    done = ibstore("merge", target, store, "--rename", "run0=run2")
    assert (done.code, done.out) == (0, "")
    assert [row["run"] for row in json.loads(ibstore("ls", target, "-f", "json").out)] == ["run0", "run1", "run2"]
    for text in ("run0", "=run3", "run0="):
        wrong = ibstore("merge", target, store, "--rename", text)
        assert wrong.code == 2
        assert "write OLD=NEW" in wrong.err


# ---- rm


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_rm_asks(ibstore: Command, store: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = stores.tree(store)
    monkeypatch.setattr(sys, "stdin", io.StringIO())
    refused = ibstore("rm", store, "run0")
    assert refused.code == 2
    assert "this would remove run 'run0' (2 epochs): " in refused.err
    assert "nothing was removed: give --yes" in refused.err
    monkeypatch.setattr(sys, "stdin", Terminal("n\n"))
    assert ibstore("rm", store, "run0").code == 1
    assert stores.tree(store) == before
    monkeypatch.setattr(sys, "stdin", Terminal("y\n"))
    assert ibstore("rm", store, "run0").code == 0
    assert [row["run"] for row in json.loads(ibstore("ls", store, "-f", "json").out)] == ["run1"]


def test_rm_with_yes(ibstore: Command, store: Path) -> None:
    unknown = ibstore("rm", store, "nobody", "--yes")
    assert unknown.code == 2
    assert "has no run 'nobody'; it has run0, run1" in unknown.err
    lease = store / "runs/run0/lease.json"
    lease.write_bytes(Holder.here().dump())
    busy = ibstore("rm", store, "run0", "--yes")
    assert busy.code == 1
    assert "run 'run0' is being written by" in busy.err
    lease.unlink()
    done = ibstore("rm", store, "run0", "run1", "--yes")
    assert (done.code, done.out) == (0, "")
    assert f"removed run 'run0' (2 epochs), run 'run1' (2 epochs), probe set {stores.PROBE.digest()}: " in done.err
    assert ibstore("verify", store, "--deep").code == 0


# ---- ls


def test_ls_lists_damaged_runs_too(ibstore: Command, store: Path) -> None:
    assert ibstore("ls", store).out.splitlines()[0] == "run   epochs  layers       splits     size"
    (store / "runs/run0/zarr.json").write_bytes(b"{}")
    (store / "runs/run1/segments/0000000000/zarr.json").write_bytes(b"{}")
    done = ibstore("ls", store)
    assert (done.code, done.err) == (0, "")
    _, first, second = done.out.splitlines()
    assert first.split() == ["run0", "–", "–", "–", "–", "damaged:", "see", "`ibstore", "verify`"]
    assert second.startswith("run1  1       conv, out:1  train (6)")
    assert second.endswith("damaged: see `ibstore verify`")
    rows = json.loads(ibstore("ls", store, "-f", "json").out)
    assert [(row["run"], row["epochs"], row["damaged"]) for row in rows] == [("run0", None, True), ("run1", [1], True)]
