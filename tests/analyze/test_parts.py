import os
import shutil
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from ibstore.analyze import Study, Waist, estimates, packs, parts, plan, plane
from ibstore.analyze.parts import Parts, content_key
from ibstore.analyze.sql import counts
from ibstore.errors import StoreError, UsageError, WriteError
from ibstore.events import Event
from ibstore.store import Segment

from . import reference
from .stores import files_below, make_store, numbered, results

WAIST = "w: x=identity | threshold(9.5); *=identity | quantile(bins=4)"
Y = np.arange(20) % 3


def values(seed, epochs=2):
    return np.maximum(np.random.default_rng(seed).normal(size=(epochs, 20, 3)), 0).astype(np.float32)


LAYERS = {"a": values(0), "b": values(1)}


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    return make_store(tmp_path_factory.mktemp("written") / "lab.zarr", numbered(20, 2), Y, layers=LAYERS)


@pytest.fixture
def store(written, tmp_path):
    """A store of one's own."""
    return Path(shutil.copytree(written, tmp_path / "lab.zarr"))


@pytest.fixture
def computed(monkeypatch):
    """What is computed from now on, as (run, waist, layer, epochs)."""
    seen = []
    keep = estimates.keep

    def noting(task, counted, *rest):
        seen.append((task.run.name, task.waist.name, task.layer.name, *sorted(counted)))
        keep(task, counted, *rest)

    monkeypatch.setattr(estimates, "keep", noting)
    return seen


def planes(store, where="true"):
    return Study(store).query(f"SELECT run, waist, layer, epoch, h_t FROM information_plane WHERE {where} ORDER BY ALL")


def test_asking_again_computes_nothing(store, monkeypatch):
    first = Study(store).analyze([WAIST])
    monkeypatch.setattr(counts, "KeyCounter", None)
    before = {path: path.stat().st_mtime_ns for path in files_below(results(store))}
    assert Study(store).analyze([WAIST]).equals(first)
    assert Study(store).analyze([WAIST], epochs=[1], layers=["b"], unit="nats", beta=0.5)["h_t"].to_list() == [
        first.row(3, named=True)["h_t"] * np.log(2)
    ]
    assert {path: path.stat().st_mtime_ns for path in files_below(results(store))} == before


def test_what_is_asked_for_first_does_not_matter(store, tmp_path, computed):
    whole = Study(store, tmp_path / "whole").analyze([WAIST])
    piecewise = Study(store, tmp_path / "piecewise")
    piecewise.analyze([WAIST], epochs=[1])
    piecewise.analyze([WAIST], layers=["b"])
    computed.clear()
    assert piecewise.analyze([WAIST]).equals(whole)
    assert sorted(computed) == [("run0", "w", "a", 0)]


def test_a_new_epoch_computes_only_itself(store, tmp_path, computed):
    short = make_store(
        tmp_path / "growing.zarr", numbered(20, 2), Y, layers={name: v[:1] for name, v in LAYERS.items()}
    )
    results = tmp_path / "results"
    Study(short, results).analyze([WAIST])
    computed.clear()
    assert len(Study(store, results).analyze([WAIST])) == 4  # the same run, an epoch later
    assert sorted(computed) == [("run0", "w", "a", 1), ("run0", "w", "b", 1)]


def test_a_new_epoch_changes_edges_over_the_run(store, tmp_path, computed):
    waist = "w: *=identity | quantile(bins=4, per=run)"
    short = make_store(
        tmp_path / "growing.zarr", numbered(20, 2), Y, layers={name: v[:1] for name, v in LAYERS.items()}
    )
    results = tmp_path / "results"
    Study(short, results).analyze([waist])
    computed.clear()
    grown = Study(store, results).analyze([waist])
    assert sorted(key[2:] for key in computed) == [("a", 0), ("a", 1), ("b", 0), ("b", 1)]
    assert grown.equals(Study(store, tmp_path / "afresh").analyze([waist]))


def test_another_waist_computes_only_itself(store, computed):
    Study(store).analyze([WAIST])
    computed.clear()
    Study(store).analyze([WAIST, "v: a=identity | exact"])
    assert sorted(computed) == [("run0", "v", "a", 0), ("run0", "v", "a", 1)]
    assert planes(store)["waist"].to_list() == ["v", "v", "w", "w", "w", "w"]


def test_a_name_that_means_something_else_now_shows_no_stale_row(store, computed):
    Study(store).analyze([WAIST])
    old = planes(store)
    computed.clear()
    Study(store).analyze(["w: x=identity | threshold(9.5); a=identity | quantile(bins=4); b=identity | exact"])
    assert sorted(computed) == [("run0", "w", "b", 0), ("run0", "w", "b", 1)]  # layer a means what it meant
    new = planes(store)
    assert new.filter(layer="a").equals(old.filter(layer="a"))
    assert not new.filter(layer="b").equals(old.filter(layer="b"))
    assert len(new) == 4
    computed.clear()
    Study(store).analyze([WAIST])
    assert computed == []
    assert planes(store).equals(old)


def test_another_input_recipe_computes_every_layer(store, computed):
    Study(store).analyze([WAIST])
    computed.clear()
    Study(store).analyze([WAIST.replace("9.5", "4.5")])
    assert len(computed) == 4
    sizes = "SELECT DISTINCT x, sum(n) AS n FROM joint_counts WHERE layer = 'a' AND epoch = 0 GROUP BY x ORDER BY n"
    assert Study(store).query(sizes)["n"].cast(int).to_list() == [5, 15]


def test_a_narrower_meaning_forgets_the_other_layers(store):
    Study(store).analyze([WAIST])
    Study(store).analyze(["w: a=identity | exact"])
    assert planes(store)["layer"].unique().to_list() == ["a"]
    assert Study(store).query("SELECT DISTINCT layer FROM patterns ORDER BY layer")["layer"].to_list() == ["a", "x"]


def test_a_replaced_run_computes_itself_and_shows_no_stale_row(store, computed):
    make_store(store, numbered(20, 2), Y, layers=LAYERS, run="other")
    Study(store).analyze([WAIST])
    computed.clear()
    changed = {"a": LAYERS["a"], "b": values(2)}
    make_store(store, numbered(20, 2), Y, layers=changed, run="other", replace=True)
    table = Study(store).analyze([WAIST])
    assert sorted(computed) == [("other", "w", "b", 0), ("other", "w", "b", 1)]  # layer a is the same to the bit
    assert planes(store, "run = 'other'")["h_t"].to_list() == table.filter(run="other")["h_t"].to_list()
    assert len(planes(store)) == len(table) == 8


def test_a_run_replaced_on_other_samples_computes_everything(store, computed):
    Study(store).analyze([WAIST])
    computed.clear()
    make_store(store, numbered(20, 2), (Y + 1) % 3 == 0, layers=LAYERS, replace=True)
    table = Study(store).analyze([WAIST])
    assert len(computed) == 4
    assert table["h_y"].unique().to_list() == [pytest.approx(reference.entropy([0] * 14 + [1] * 6))]
    assert len(planes(store)) == 4
    assert Study(store).query("SELECT DISTINCT y FROM joint_counts ORDER BY y")["y"].to_list() == [0, 1]


def test_a_removed_run_is_shown_no_more(store):
    make_store(store, numbered(20, 2), Y, layers=LAYERS, run="other")
    Study(store).analyze([WAIST])
    shutil.rmtree(store / "runs" / "other")
    assert planes(store)["run"].unique().to_list() == ["run0"]


def test_runs_with_equal_arrays_are_not_mixed_up(store):
    make_store(store, numbered(20, 2), Y, layers={"b": LAYERS["a"], "a": LAYERS["b"]}, run="swapped")
    table = Study(store).analyze([WAIST])
    assert table.filter(run="run0", layer="a")["h_t"].equals(table.filter(run="swapped", layer="b")["h_t"])
    assert planes(store).select("run", "layer", "epoch").rows() == [
        (run, layer, epoch) for run in ("run0", "swapped") for layer in "ab" for epoch in (0, 1)
    ]


def test_what_a_killed_write_left_is_harmless(store):
    first = Study(store).analyze([WAIST])
    folder = results(store)
    for table in ("information_plane", "patterns", "waists"):
        part = next((folder / table).iterdir())
        (folder / table / f".{part.name}.123.partial").write_bytes(part.read_bytes()[:100])
        (folder / table / ".other.parquet.124.partial").touch()
    assert Study(store).analyze([WAIST]).equals(first)
    assert len(planes(store)) == 4


def test_a_kill_between_the_parts_is_mended(store, computed):
    first = Study(store).analyze([WAIST])
    computed.clear()
    files = [path for path in files_below(results(store)) if path.parent.name != "patterns"]
    task = Study(store).ask([WAIST]).todo[0]
    for tables, recounted in (["information_plane"], 0), (["information_plane", "counts"], 1), (["counts"], 0):
        for table in tables:
            key = task.counts_key if table == "counts" else task.plane_key("plugin")
            (results(store) / table / f"{key}.parquet").unlink()
        assert Study(store).analyze([WAIST]).equals(first)
        assert len(computed) == recounted
        computed.clear()
    there = {path for path in files_below(results(store)) if path.parent.name != "patterns"}
    assert set(files) - there == {results(store) / "counts" / f"{task.counts_key}.parquet"}  # nobody asks for them


def test_nothing_temporary_is_left(store):
    Study(store).analyze([WAIST, "v: *=identity | exact"])
    left = {path for path in files_below(results(store)) if path.name.startswith(".")}
    assert left == set()


def no_space_for(monkeypatch, table):
    """A disk that is full when half of a file of this table is written."""
    write = Path.write_bytes

    def full(path, content):
        if path.parent.name != table:
            return write(path, content)
        write(path, content[: len(content) // 2])
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", full)


@pytest.mark.parametrize("table", ["waists", "patterns", "information_plane"])
def test_a_full_disk_is_told_and_leaves_nothing_torn(table, store, monkeypatch, tmp_path):
    first = Study(store).analyze([WAIST])
    full = tmp_path / "full"
    with monkeypatch.context() as patches:
        no_space_for(patches, table)
        with pytest.raises(WriteError) as told:
            Study(store, full).analyze([WAIST])
    assert str(told.value) == (
        f"cannot keep results in {full}: No space left on device; name another folder with --results, or mend that"
    )
    assert not [path for path in files_below(full) if path.is_file() and path.parent.name == table]
    assert Study(store, full).analyze([WAIST]).equals(first)


@pytest.mark.parametrize("table", ["patterns", "information_plane", "waists", ""])
def test_results_that_cannot_be_kept_are_told(table, store):
    folder = results(store)
    (folder / table).parent.mkdir(exist_ok=True)
    (folder / table).touch()  # a file where a folder belongs
    with pytest.raises(
        WriteError, match=r"cannot keep results in .*lab.zarr.analysis: (File exists|Not a directory); "
    ):
        Study(store).analyze([WAIST])
    with pytest.raises(WriteError, match="name another folder with --results"):
        Study(store).analyze([WAIST])
    assert (folder / table).is_file()


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_folder_without_permission_is_told(store):
    store.parent.chmod(0o555)
    try:
        with pytest.raises(WriteError, match="Permission denied; name another folder with --results"):
            Study(store).analyze([WAIST])
    finally:
        store.parent.chmod(0o755)


@pytest.mark.parametrize("content", [b"", b"PAR1", b"not a parquet file at all"])
def test_a_part_that_cannot_be_read_is_named(content, store):
    Study(store).analyze([WAIST])
    for part in (results(store) / "information_plane").iterdir():
        part.write_bytes(content)
    with pytest.raises(
        StoreError, match=r"cannot read the results in .*information_plane.*\.parquet .*; remove it and"
    ) as told:
        Study(store).analyze([WAIST])
    with pytest.raises(StoreError, match=r"cannot read the results in .*information_plane.*\.parquet .*; remove it"):
        planes(store)
    assert "\n" not in str(told.value)


@pytest.mark.parametrize("content", ["", "{", "[]", '{"name": "w"}', '"text"'])
def test_a_waist_file_that_cannot_be_read_is_named(content, store):
    Study(store).analyze([WAIST])
    (results(store) / "waists" / "w.json").write_text(content)
    with pytest.raises(StoreError, match=r"cannot read .*waists \(.*\); remove that folder and analyze again"):
        planes(store)
    assert len(Study(store).analyze([WAIST])) == 4  # says anew what the name means
    assert len(planes(store)) == 4


def test_waists_of_any_name_are_remembered(store):
    names = sorted(["ü/ö", "a b", "..", "epoch", "C:", ".hidden"])
    waists = {name: Waist.of(name, {"a": "identity | exact"}) for name in names}
    Study(store).analyze(list(waists.values()))
    assert sorted(Study(store).analyzed()) == names
    assert {name: Study(store).meanings()[name] for name in names} == waists
    assert planes(store)["waist"].unique().sort().to_list() == names


def test_a_waist_of_functions_that_are_not_here_is_left_out_with_a_notice(store):
    from ibstore.analyze import register_reduction
    from ibstore.analyze.reduce import REDUCTIONS

    @register_reduction
    def halves(block):
        return block / 2

    try:
        Study(store).analyze([WAIST, "h: *=halves | exact"])
        assert planes(store)["waist"].unique().sort().to_list() == ["h", "w"]
    finally:
        del REDUCTIONS["halves"]
    events: list[Event] = []
    study = Study(store)
    assert study.query("SELECT DISTINCT waist FROM patterns", events.append)["waist"].to_list() == ["w"]
    assert [event.detail for event in events] == ["waist 'h' needs a function that is not registered here; left out"]
    assert study.analyzed() == ["w"]
    assert "h" not in study.meanings()


def test_results_lie_beside_the_store_however_it_is_named(store, monkeypatch):
    beside = store.with_name("lab.zarr.analysis")
    link = store.with_name("link.zarr")
    link.symlink_to(store)
    monkeypatch.chdir(store)
    for path in (store, f"{store}/", Path(), ".", "../lab.zarr", link, store / "runs" / ".."):
        assert Study(path).parts.storage.root == beside
    Study(".").analyze([WAIST])
    assert {path.name for path in store.parent.iterdir()} == {"lab.zarr", "lab.zarr.analysis", "link.zarr"}
    assert {path.name for path in store.iterdir()} == {"zarr.json", "data", "runs"}


def test_results_go_where_they_are_asked_for(store, tmp_path):
    Study(store, tmp_path / "some" / "where").analyze([WAIST])
    assert not results(store).exists()
    assert len(list((tmp_path / "some" / "where" / "information_plane").iterdir())) == 4


def test_other_software_reads_the_parts(store):
    table = Study(store).analyze([WAIST])
    folder = results(store)
    read = pl.read_parquet(folder / "information_plane" / "*.parquet")
    assert read["part"].n_unique() == 4
    assert sorted(read["h_t"]) == sorted(table["h_t"])
    keys = pl.read_parquet(folder / "patterns" / "*.parquet")
    assert len(keys) == 20 + 4 * 20


def meanings(study, table="patterns"):
    """Parts of a table by layer and waist."""
    rows = study.kept().filter(table=table).select("layer", "waist", "part").rows()
    return {(layer, waist): part for layer, waist, part in rows}


def test_waists_and_runs_of_the_same_content_share_parts(store, computed, monkeypatch):
    make_store(store, numbered(20, 2), Y, layers=LAYERS, run="copy")
    Study(store).analyze([WAIST], runs="run0")
    monkeypatch.setattr(counts, "KeyCounter", None)
    computed.clear()
    renamed = WAIST.replace("w:", "v:")
    table = Study(store).analyze([WAIST, renamed])
    assert computed == []
    numbers = table.drop("run", "waist").rows()
    assert [numbers[:4]] * 4 == [numbers[at : at + 4] for at in (0, 4, 8, 12)]
    assert len(planes(store)) == 16
    assert len(Study(store).parts.storage.files("patterns")) == 5


def test_another_input_recipe_reads_no_layer_again(store, monkeypatch):
    first = Study(store).analyze([WAIST])
    with monkeypatch.context() as patch:
        patch.setattr(Segment, "map", None)
        second = Study(store).analyze([WAIST.replace("9.5", "4.5")])
    assert not second["h_x"].equals(first["h_x"])
    assert second.equals(Study(store, store.with_name("afresh")).analyze([WAIST.replace("9.5", "4.5")]))
    told = Study(store).explain([WAIST.replace("9.5", "3.5"), "v: a=identity | exact"])
    assert told.select("layer", "recipes", "recalled", "passes").rows() == [
        ("a", 1, 1, 1),
        ("a", 1, 1, 1),
        ("b", 0, 1, 0),
        ("b", 0, 1, 0),
    ]
    sizes = told.filter(layer="b").select("raw_bytes", "stored_bytes", "key_bytes", "kept_bytes")
    assert sizes.rows() == [(0, 0, 0, 0)] * 2


@pytest.mark.parametrize("keep", ["never", "auto", "always"])
def test_keys_are_kept_as_they_are_asked_for_and_change_no_number(keep, store, tmp_path, monkeypatch):
    monkeypatch.setattr(plan, "NO_MATTER", 0)
    study = Study(store, tmp_path / keep)
    fine = "f: *=identity | exact"  # as large as the activations
    told = study.explain([WAIST, fine], keep_keys=keep)["kept_bytes"].unique().to_list()
    assert told == {"never": [0], "auto": [20], "always": [20 + 20 * 12]}[keep]
    for _ in range(2):
        assert study.analyze([WAIST, fine], keep_keys=keep).equals(Study(store).analyze([WAIST, fine]))
    layers = study.query("SELECT DISTINCT layer, waist FROM patterns ORDER BY ALL").rows()
    kept = {"never": [], "auto": [("a", "w"), ("b", "w"), ("x", "w")]}
    assert layers == kept.get(keep, sorted([*kept["auto"], ("a", "f"), ("b", "f"), ("x", "f")]))
    assert bool(study.query("SELECT * FROM joint_counts").rows()) == (keep != "never")
    again = study.analyze([WAIST.replace("9.5", "4.5")], keep_keys=keep)
    assert again.equals(Study(store, tmp_path / "afresh").analyze([WAIST.replace("9.5", "4.5")]))


def test_keeping_keys_otherwise_is_refused(store):
    with pytest.raises(UsageError, match="keys are kept auto, always, never, not 'some'; give one of these"):
        Study(store).analyze([WAIST], keep_keys="some")


def test_kept_keys_that_lack_a_sample_are_not_counted(store):
    study = Study(store)
    study.analyze([WAIST])
    part = results(store) / "patterns" / f"{meanings(study)['b', 'w']}.parquet"
    pl.read_parquet(part).head(19).write_parquet(part)
    with pytest.raises(StoreError, match=r"cannot read the results in .*patterns/.* \(it has not all samples\); "):
        study.analyze([WAIST.replace("9.5", "4.5")])


# ── packs ───────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.fixture
def soon(monkeypatch):
    """Pack as soon as there are four small files."""
    monkeypatch.setattr(packs, "MANY", 4)


def test_many_small_parts_become_one_file_and_nothing_else_changes(store, tmp_path, soon, computed):
    loose = Study(store, tmp_path / "loose")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(packs, "MANY", 1000)
        table = loose.analyze([WAIST])
        patterns = loose.query("SELECT * FROM patterns ORDER BY ALL")
    study = Study(store)
    assert study.analyze([WAIST]).equals(table)
    for name in ("information_plane", "patterns"):
        assert sorted(Path(file).suffix for file in study.parts.storage.files(name)) == [".json", ".parquet"]
    computed.clear()
    assert study.analyze([WAIST]).equals(table)
    assert computed == []
    assert study.query("SELECT * FROM patterns ORDER BY ALL").equals(patterns)
    other = WAIST.replace("9.5", "4.5")
    assert study.analyze([other]).equals(loose.analyze([other]))  # keys recalled from a pack


def test_packs_are_packed_again_and_a_large_file_is_left(store, soon, monkeypatch):
    study = Study(store)
    for edge in range(12):
        study.analyze([f"w{edge}: x=identity | threshold({edge}); *=identity | quantile(bins=2)"])
    names = study.parts.storage.files("information_plane")
    assert len([name for name in names if name.endswith(".json")]) < 4
    assert len(study.query("SELECT * FROM information_plane")) == 48
    before = dict(names)
    monkeypatch.setattr(packs, "SMALL_BYTES", 0)
    study.analyze(["v: *=identity | quantile(bins=3)"])
    assert before.items() <= study.parts.storage.files("information_plane").items()


def test_a_pack_is_cut_where_it_would_be_too_large(store, soon, monkeypatch):
    monkeypatch.setattr(packs, "PACK_BYTES", 2500)
    study = Study(store)
    study.analyze([WAIST])
    files = study.parts.files("patterns")
    assert len(files) > 1
    assert all(file.is_pack for file in files)
    assert len(planes(store)) == 4


@pytest.mark.parametrize("stopped", [1, 2, 3, 4])
def test_a_kill_while_packing_costs_nothing(stopped, store, soon, monkeypatch):
    study = Study(store)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(packs, "MANY", 1000)
        table = study.analyze([WAIST])
    steps = []

    def step(original):
        def stopping(self, *arguments):
            steps.append(arguments)
            if len(steps) > stopped:
                raise KeyboardInterrupt
            return original(self, *arguments)

        return stopping

    with monkeypatch.context() as patch:
        for name in ("put_file", "remove"):
            patch.setattr(Parts, name, step(getattr(Parts, name)))
        with pytest.raises(KeyboardInterrupt):
            packs.pack_small(study.parts, "information_plane")
    assert planes(store).height == 4
    assert study.analyze([WAIST]).equals(table)
    packs.pack_small(study.parts, "information_plane")
    assert study.analyze([WAIST]).equals(table)


def test_a_reader_who_listed_the_files_before_looks_again(store, soon, monkeypatch):
    study = Study(store)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(packs, "MANY", 1000)
        table = study.analyze([WAIST])
    patterns = study.query("SELECT * FROM patterns ORDER BY ALL")
    packed = []
    original = Parts.homes

    def overtaken(self, name, keys):
        found = original(self, name, keys)
        if name not in packed:
            packed.append(name)
            packs.pack_small(self, name)
        return found

    monkeypatch.setattr(Parts, "homes", overtaken)
    assert study.query("SELECT * FROM patterns ORDER BY ALL").equals(patterns)
    packed.clear()
    assert plane.table(study.ask([WAIST]).todo, ["plugin"], study.parts).equals(table)
    assert packed == ["information_plane"]


def test_two_processes_that_pack_at_once_lose_nothing(store, soon, monkeypatch):
    study = Study(store)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(packs, "MANY", 1000)
        table = study.analyze([WAIST])
    original, begun = Parts.put_file, []

    def overtaken(self, path, content):
        if not begun:
            begun.append(path)
            packs.pack_small(self, "information_plane")
        original(self, path, content)

    monkeypatch.setattr(Parts, "put_file", overtaken)
    packs.pack_small(study.parts, "information_plane")
    assert study.analyze([WAIST]).equals(table)
    assert [len(file.parts) for file in study.parts.files("information_plane")] == [4]


@pytest.mark.parametrize("content", [b"", b"[]", b"{}", b'{"parts": {"a": "b"}}'])
def test_a_pack_s_list_that_cannot_be_read_is_named(content, store, soon):
    Study(store).analyze([WAIST])
    [path] = (results(store) / "information_plane").glob("*.json")
    path.write_bytes(content)
    with pytest.raises(StoreError, match=r"cannot read the results in .*information_plane/.*\.json .*; remove it and"):
        planes(store)


def test_a_file_of_another_kind_is_not_packed(store, soon):
    folder = results(store) / "information_plane"
    folder.mkdir(parents=True)
    pl.DataFrame({"a": [1]}).write_parquet(folder / "mine.parquet")
    pl.DataFrame({"a": [1]}).write_parquet(folder / f"{0:032x}.parquet")
    (folder / f"{1:032x}.parquet").write_bytes(b"PAR1")
    Study(store).analyze([WAIST])
    assert {"mine.parquet", f"{0:032x}.parquet", f"{1:032x}.parquet"} < {path.name for path in folder.iterdir()}
    assert len(planes(store)) == 4


# ── what is kept, and forgetting it ─────────────────────────────────────────────────────────────────────────


def test_what_is_kept_is_told_by_what_it_means(store):
    study = Study(store)
    study.analyze([WAIST])
    kept = study.kept()
    assert kept.select("table", "run", "split", "layer", "waist", "epochs").rows() == [
        *(("counts", "run0", "train", layer, "w", 1) for layer in "aabb"),
        *(("information_plane", "run0", "train", layer, "w", 1) for layer in "aabb"),
        *(("patterns", "run0", "train", layer, "w", 1) for layer in "aabb"),
        ("patterns", "run0", "train", "x", "w", None),
    ]
    sizes = {path.stem: path.stat().st_size for path in results(store).glob("*/*.parquet")}
    assert dict(kept.select("part", "bytes").rows()) == sizes
    study.analyze(["w: a=identity | exact"])
    unused = study.kept().filter(pl.col("run").is_null())
    assert sorted(unused["part"]) == sorted(kept["part"])


def test_what_is_forgotten_is_computed_again(store, soon, computed):
    study = Study(store)
    table = study.analyze([WAIST])
    gone = study.kept().filter(pl.col("table") != "patterns", layer="a")["part"]
    study.forget(gone)  # out of a pack
    assert planes(store)["layer"].to_list() == ["b", "b"]
    computed.clear()
    assert study.analyze([WAIST]).equals(table)
    assert [key[2] for key in computed] == ["a", "a"]
    study.forget(study.kept()["part"])
    assert study.kept().is_empty()
    assert not list(results(store).glob("*/*.parquet")) + list((results(store) / "patterns").glob("*.json"))
    computed.clear()
    assert study.analyze([WAIST]).equals(table)
    assert len(computed) == 4


def test_a_key_hangs_on_every_input_and_on_the_version(monkeypatch):
    inputs = {"data": "a", "files": ["x 1 ff"], "epochs": [0]}
    key = content_key(inputs)
    assert key == content_key(dict(reversed(inputs.items())))
    assert len({key, *(content_key({**inputs, name: "other"}) for name in inputs)}) == 4
    monkeypatch.setattr(parts, "VERSION", parts.VERSION + 1)
    assert content_key(inputs) != key
