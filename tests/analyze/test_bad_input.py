import json
import re
import shutil
from pathlib import Path

import numpy as np
import pytest

from ibstore.analyze import Study
from ibstore.errors import (
    DamagedError,
    NewerFormatError,
    NotAStoreError,
    UnknownNameError,
    UsageError,
    ValuesError,
    WaistError,
)
from ibstore.store import create_store
from ibstore.store.format.arrays import coordinate
from ibstore.store.format.schema import dump_files, group
from ibstore.store.places.disk import Disk
from ibstore.store.segment import GroupFiles

from .stores import layer_file, make_run, make_store, numbered, results

WAIST = "w: *=identity | quantile(bins=2)"
LAYERS = {
    "conv1": np.random.default_rng(0).normal(size=(2, 8, 4, 3, 3)).astype(np.float32),
    "out": np.random.default_rng(1).normal(size=(2, 8, 3)).astype(np.float32),
}


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    return make_store(tmp_path_factory.mktemp("written") / "lab.zarr", numbered(8, 5), np.arange(8) % 2, layers=LAYERS)


@pytest.fixture
def store(written, tmp_path):
    """A store of one's own."""
    return Path(shutil.copytree(written, tmp_path / "lab.zarr"))


def refusal(error, store, *waists, **options):
    """What is said; nothing was computed for it, and the store is as it was."""
    with pytest.raises(error) as found:
        Study(store).analyze(waists or [WAIST], **options)
    assert type(found.value) is error
    assert not list(results(store).glob("information_plane/*.parquet"))
    return str(found.value)


# ── words ───────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_waist_for_a_layer_that_is_not_there(store):
    said = refusal(UnknownNameError, store, "w: conv9=identity | exact; out=identity | exact")
    assert said.startswith("waist 'w' narrows layer 'conv9', which run 'run0' does not have; it has conv1, out: choose")


def test_the_default_waist_on_another_network(tmp_path):
    store = make_store(tmp_path / "lab.zarr", numbered(8, 8, 8), layers={"fc": LAYERS["out"]})
    with pytest.raises(
        UnknownNameError, match=r"waist 'thesis-6\.2' narrows layer 'conv1'.*it has fc: .*another waist"
    ):
        Study(store).analyze()


def test_a_layer_that_is_asked_for_and_not_there(store):
    said = refusal(UnknownNameError, store, layers=["out", "conv9"])
    assert said.startswith("--layer asks for layer 'conv9', which run 'run0' does not have; it has conv1, out")


def test_a_layer_that_is_asked_for_and_not_narrowed(store):
    said = refusal(UnknownNameError, store, "w: out=identity | exact", layers=["conv1"])
    assert said == "waist 'w' has no recipe for layer 'conv1'; it narrows out"


def test_an_unknown_run(store):
    assert re.search(r"has no run 'run9'; it has run0$", refusal(UnknownNameError, store, runs=["run0", "run9"]))


@pytest.mark.parametrize("epoch", [-1, 2, 100])
def test_an_epoch_that_is_out_of_range(epoch, store):
    said = refusal(UnknownNameError, store, epochs=[0, epoch])
    assert said == f"run 'run0' has no epoch {epoch}; it has 0–1: choose among them, or other runs with --run"


def test_an_epoch_that_one_of_the_runs_lacks(store):
    make_store(store, numbered(8, 5), layers={"out": LAYERS["out"][:1]}, run="short")
    said = refusal(UnknownNameError, store, "w: out=identity | exact", epochs=[1])
    assert said.startswith("run 'short' has no epoch 1; it has 0: ")
    with pytest.raises(UnknownNameError, match="run 'short' has no epoch 1"):
        Study(store).analyze(["w: out=identity | exact"], epochs=[1], runs=["short", "run0"])
    assert len(Study(store).analyze(["w: out=identity | exact"], epochs=[1], runs=["run0"])) == 1


def test_an_unknown_unit(store):
    assert refusal(UsageError, store, unit="trits") == "unit 'trits' is unknown; it is bits or nats"


def test_an_unknown_waist(store):
    assert "there is no waist 'thesis6.2'; did you mean 'thesis-6.2'?" in refusal(UnknownNameError, store, "thesis6.2")


def test_a_waist_that_cannot_be_read(store):
    said = refusal(WaistError, store, "w: out=identity | quantil(2)")
    assert said.startswith("waist 'w', layer 'out': unknown discretization 'quantil'; did you mean 'quantile'?\n")
    assert said.endswith("  identity | quantil(2)\n             ^^^^^^^")


@pytest.mark.parametrize(
    ("waist", "said"),
    [
        (
            "w: conv1=maxpool(1, 4, 4) | exact",
            "run 'run0', layer 'conv1': maxpool(1, 4, 4) | exact: the window (1, 4, 4) is larger than the layer's "
            "trailing axes (4, 3, 3); the layer's shape is (4, 3, 3)",
        ),
        (
            "w: out=maxpool(2, 2) | exact",
            "run 'run0', layer 'out': maxpool(2, 2) | exact: a window of 2 sizes does not fit a layer of shape (3,); "
            "the layer's shape is (3,)",
        ),
        (
            "w: x=avgpool(9, 9) | exact; out=identity | exact",
            "input x of run 'run0': avgpool(9, 9) | exact: a window of 2 sizes does not fit a layer of shape (5,); "
            "the layer's shape is (5,)",
        ),
    ],
)
def test_pooling_that_is_larger_than_the_layer(waist, said, store):
    assert refusal(WaistError, store, waist) == said


def test_a_shape_is_checked_before_anything_is_computed_for_another_layer(store):
    refusal(WaistError, store, "v: conv1=identity | exact", "w: conv1=maxpool(9, 9) | exact")
    assert not results(store).exists()


def test_two_waists_of_one_name(store):
    assert "two waists are called 'w'" in refusal(UsageError, store, WAIST, "w: out=identity | exact")


# ── stores ──────────────────────────────────────────────────────────────────────────────────────────────────


def test_no_store(tmp_path):
    with pytest.raises(NotAStoreError, match="there is no store at"):
        Study(tmp_path / "none.zarr")
    with pytest.raises(NotAStoreError, match="is no ibstore store"):
        Study(tmp_path)


def test_a_newer_store(store):
    record = store / "zarr.json"
    record.write_text(record.read_text().replace('"ibstore_format": 1', '"ibstore_format": 2'))
    with pytest.raises(NewerFormatError, match="store format 2, this ibstore reads up to 1; install a newer ibstore"):
        Study(store)


def test_an_empty_store(tmp_path):
    create_store(tmp_path / "lab.zarr")
    said = refusal(UnknownNameError, tmp_path / "lab.zarr")
    assert said.endswith(
        "has no committed epoch yet; `ibstore capture mnist-cnn --store " + f"{tmp_path}/lab.zarr` records some"
    )
    assert Study(tmp_path / "lab.zarr").query("SELECT count(*) FROM runs").item() == 0


def test_a_run_without_epochs_is_passed_over(store):
    make_run(store, {"train": (numbered(8, 5), None)}, {"train": LAYERS}, run="begun", epochs=[])
    assert Study(store).analyze([WAIST])["run"].unique().to_list() == ["run0"]
    assert "has no committed epoch yet" in refusal_again(store, runs=["begun"])


def refusal_again(store, **options):
    with pytest.raises(UnknownNameError) as found:
        Study(store).analyze([WAIST], **options)
    return str(found.value)


def test_a_torn_segment_is_not_there(store):
    """What a killed writer left: arrays without a commit record."""
    (store / "runs" / "run0" / "segments" / "0000000001" / "zarr.json").unlink()
    assert Study(store).analyze([WAIST])["epoch"].unique().to_list() == [0]


def damaged(store, **options):
    said = refusal(DamagedError, store, **options)
    assert "\n" not in said
    assert "layer 'out', epoch 1" in said
    assert str(store / "runs" / "run0") in said
    assert "--epoch" in said
    return said


def test_a_missing_file(store):
    layer_file(store, "out", 1).unlink()
    assert "missing" in damaged(store, layers=["out"], epochs=[1])


def test_a_truncated_file(store):
    file = layer_file(store, "out", 1)
    content = file.read_bytes()
    file.write_bytes(content[:-7])
    assert f"{len(content) - 7} bytes instead of {len(content)}" in damaged(store, layers=["out"], epochs=[1])


@pytest.mark.parametrize("place", [3, -30, -5])
def test_a_flipped_byte(place, store):
    file = layer_file(store, "out", 1)
    content = bytearray(file.read_bytes())
    content[place] ^= 0x10
    file.write_bytes(content)
    damaged(store, layers=["out"], epochs=[1])


def test_what_is_whole_can_still_be_asked_for(store):
    layer_file(store, "out", 1).unlink()
    table = Study(store).analyze([WAIST], epochs=[0])
    assert len(table) == 2
    with pytest.raises(DamagedError):
        Study(store).analyze([WAIST])
    assert Study(store).analyze([WAIST], epochs=[0]).equals(table)
    assert len(Study(store).query("FROM information_plane")) == 3  # what was computed before the damage was met


def test_a_missing_probe_set(store):
    shutil.rmtree(next((store / "data").glob("*/")))
    said = refusal(DamagedError, store)
    assert "which split 'train' of run 'run0' needs" in said


def relabel(store, labels):
    """Labels as another writer would have written them, with a record that fits."""
    [folder] = [path for path in (store / "data").iterdir() if path.is_dir()]
    shutil.rmtree(folder / "y")
    record = json.loads((folder / "zarr.json").read_text())
    written = GroupFiles(Disk(folder.parent), folder.name)
    written.put_all("y", coordinate("sample", labels))
    files = {path: info for path, info in record["attributes"]["files"].items() if not path.startswith("y/")}
    (folder / "zarr.json").write_bytes(group({"files": {**files, **dump_files(written.written)}}))


@pytest.mark.parametrize(
    ("labels", "said"),
    [
        (np.array([0, 1, 2, 0.5, 1, 1, 0, 0]), r"a label must be an integer, found 0\.5 at sample 3"),
        (np.array([0, 1, 2, np.nan, 1, 1, 0, 0]), "a label must be an integer, found nan at sample 3"),
    ],
)
def test_labels_that_are_no_integers(labels, said, store):
    relabel(store, labels)
    assert re.match(said, refusal(ValuesError, store))


def test_whole_numbers_as_floats_are_labels(store):
    expected = Study(store).analyze([WAIST])
    relabel(store, (np.arange(8) % 2).astype(np.float64))
    assert Study(store, store.parent / "results").analyze([WAIST]).equals(expected)


def test_nan_names_run_layer_and_epoch_and_what_to_do(tmp_path):
    diverged = LAYERS["out"].copy()
    diverged[1, 5, 2] = np.nan
    store = make_store(tmp_path / "lab.zarr", numbered(8, 2), layers={"conv1": LAYERS["conv1"], "out": diverged})
    said = refusal(ValuesError, store, layers=["out"], epochs=[1])
    assert said == (
        "run 'run0', layer 'out', epoch 1 has NaN, which no bin holds: the network diverged; leave the epoch out with "
        "--epoch, or the run with --run, or count exact values (| exact)"
    )
    assert len(Study(store).analyze([WAIST], epochs=[0])) == 2
    assert Study(store).analyze(["e: out=identity | exact"])["distinct_t"].to_list() == [8, 8]


WAISTS_OF_NAN = [
    "own: conv1=identity | quantile(bins=2); out=identity | threshold(0.1)",
    "other: *=identity | width(0.5)",
    "e: *=identity | exact",
]


@pytest.mark.parametrize("keep", ["always", "never"])
def test_nan_costs_no_other_epoch_of_its_segment(tmp_path, keep):
    diverged = {name: np.concatenate([values, values]) for name, values in LAYERS.items()}
    diverged["out"][1, 5, 2] = diverged["out"][3, 0, 0] = diverged["conv1"][3, 1] = np.nan
    apart, together = (
        make_store(tmp_path / name, numbered(8, 2), layers=diverged, together=name == "together.zarr")
        for name in ("apart.zarr", "together.zarr")
    )
    expected = Study(apart).analyze(WAISTS_OF_NAN, epochs=[0, 2], keep_keys=keep)
    with pytest.raises(ValuesError, match=r"run 'run0', layer 'conv1', epoch 3 has NaN, which no bin holds"):
        Study(together).analyze(WAISTS_OF_NAN, keep_keys=keep)
    assert Study(together).analyze(WAISTS_OF_NAN, epochs=[0, 2], keep_keys=keep).equals(expected)
    with pytest.raises(ValuesError, match=r"run 'run0', layer 'out', epoch 1, 3 has NaN"):
        Study(together).analyze(WAISTS_OF_NAN[0], layers="out")
    assert len(Study(together).analyze(WAISTS_OF_NAN[2])) == 8
    assert Study(together).query("SELECT DISTINCT epoch FROM information_plane WHERE waist = 'own' AND layer = 'out'")[
        "epoch"
    ].sort().to_list() == [0, 2]
    again = Study(together).analyze("new: x=identity | threshold(3); out=identity | threshold(0.1)", epochs=[0, 2])
    assert again["h_t"].to_list() == expected.filter(waist="own", layer="out")["h_t"].to_list()


def test_a_segment_of_nan_alone(tmp_path):
    store = make_store(
        tmp_path / "lab.zarr", numbered(8, 2), layers={"t": np.full((2, 8, 3), np.nan, np.float32)}, together=True
    )
    with pytest.raises(ValuesError, match=r"layer 't', epoch 0–1 has NaN"):
        Study(store).analyze("w: t=identity | threshold(0)")
    assert len(Study(store).analyze("e: t=identity | exact")) == 2


def test_nan_in_the_input(tmp_path):
    x = numbered(8, 2)
    x[3] = np.nan
    store = make_store(tmp_path / "lab.zarr", x, layers={"out": LAYERS["out"]})
    assert refusal(ValuesError, store, "w: x=identity | threshold(0); *=identity | exact") == (
        "input x of run 'run0' has NaN, which no bin holds: mend the data, or count exact values (| exact)"
    )
    assert Study(store).analyze(["e: *=identity | exact"])["distinct_x"].to_list() == [8, 8]
