import hashlib
import itertools
import tempfile
from collections import Counter
from io import BytesIO
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from sklearn.metrics import mutual_info_score

from ibstore.analyze import Study
from ibstore.analyze.encode import DIGEST_BYTES, pack
from ibstore.analyze.sql.counts import KeyCounter
from ibstore.errors import IbstoreError, WriteError
from ibstore.store.format.layout import Layout

from . import reference
from .stores import make_store, numbered


def blocks(values, cuts):
    return np.split(values, [cut for cut in sorted(cuts) if cut < len(values)])


def histogram(sequence):
    """Counts of counts: how many values were seen how often."""
    return dict(Counter(Counter(sequence).values()))


def as_dict(found):
    return dict(zip(found.multiplicity.tolist(), found.keys.tolist(), strict=True))


patterns = st.integers(1, 40).flatmap(
    lambda units: arrays.arrays(np.uint8, st.tuples(st.integers(1, 30), st.just(units)), elements=st.integers(0, 1))
)
cuts = st.lists(st.integers(1, 29), max_size=4, unique=True)


@pytest.fixture(scope="module")
def counter():
    """One for all examples: what was loaded before must not show."""
    with KeyCounter() as shared:
        yield shared


@settings(max_examples=25)
@given(
    x=patterns,
    labelled=st.booleans(),
    epochs=st.integers(1, 3),
    data=st.data(),
    cuts=cuts,
    other_cuts=cuts,
    put_down=st.booleans(),
)
def test_counts_are_the_counter_s(counter, x, labelled, epochs, data, cuts, other_cuts, put_down):
    n = len(x)
    y = data.draw(arrays.arrays(np.int64, n, elements=st.integers(-1, 2))) if labelled else None
    t = [data.draw(arrays.arrays(np.uint8, (n, 3), elements=st.integers(0, 1))) for _ in range(epochs)]
    numbers = [7, 0, 3][:epochs]
    with pytest.MonkeyPatch.context() as patch:
        if put_down:
            patch.setattr(counter, "_room", 0)
        begin(counter, np.arange(n) + 100, y, {"x": pack(x, 1), "same": np.zeros((n, 1), np.uint8)}, cuts)
        for number, codes in zip(numbers, t, strict=True):
            take(counter, "t", number, pack(codes, 1), other_cuts)
        found = counter.counts("t", ["x", "same"])
        counter.drop("t")
    for name, xs in (("x", reference.keys(x)), ("same", [0] * n)):
        assert sorted(found[name]) == sorted(numbers)
        for number, codes in zip(numbers, t, strict=True):
            ts = reference.keys(codes)
            expected = {"x": xs, "t": ts, "xt": zip(xs, ts, strict=True)}
            if labelled:
                expected |= {"y": y.tolist(), "ty": zip(ts, y.tolist(), strict=True)}
            ours = found[name][number]
            assert {variable: as_dict(own) for variable, own in ours.items()} == {
                variable: histogram(sequence) for variable, sequence in expected.items()
            }
            assert all(np.diff(each.multiplicity).min(initial=1) > 0 for each in ours.values())


def begin(counter, sample, y, inputs, cuts=()):
    """Load a probe set whose input has these keys under each recipe."""
    counter.begin(sample, y)
    for name, keys in inputs.items():
        take(counter, name, None, keys, cuts)
        counter.name_inputs(name)


def take(counter, name, epoch, keys, cuts=()):
    start = 0
    for block in blocks(keys, cuts):
        counter.take(name, epoch, start, block)
        start += len(block)


def test_a_second_layer_and_a_second_probe_leave_nothing_of_the_first():
    def packed(*bits):
        return pack(np.array(bits, np.uint8)[:, None], 1)

    with KeyCounter() as counter:
        begin(counter, np.arange(3), np.array([0, 1, 2]), {"x": packed(0, 1, 1)})
        take(counter, "t", 0, packed(0, 0, 1))
        take(counter, "t", 1, packed(0, 0, 0))
        begin(counter, np.arange(4), None, {"x": packed(0, 0, 0, 0)})
        take(counter, "t", 5, packed(1, 0, 1, 1))
        found = counter.counts("t", ["x"])["x"]
    assert list(found) == [5]
    assert {name: as_dict(each) for name, each in found[5].items()} == {
        "x": {4: 1},
        "t": {1: 1, 3: 1},
        "xt": {1: 1, 3: 1},
    }


def test_patterns_are_kept_with_their_samples():
    codes = np.array([[1, 0, 1], [0, 0, 1], [1, 0, 1]], np.uint8)
    with KeyCounter() as counter:
        begin(counter, np.array([30, 10, 20]), None, {"x": pack(codes, 1)})
        take(counter, "t", 2, pack(codes, 8))
        take(counter, "t", 4, pack(codes[::-1], 8))
        parts = [counter.patterns(name, f"a'b {name}") for name in ("x", "t")]
    x, t = (pl.read_parquet(BytesIO(part)).sort("epoch", "sample") for part in parts)
    assert x.to_dict(as_series=False) == {
        "part": ["a'b x"] * 3,
        "epoch": [None] * 3,
        "sample": [10, 20, 30],
        "key": [b"\x20", b"\xa0", b"\xa0"],
    }
    assert t["key"].to_list() == [b"\0\0\1", b"\1\0\1", b"\1\0\1"] * 2
    assert t["epoch"].to_list() == [2] * 3 + [4] * 3
    assert t.schema["sample"] == pl.Int64


def test_keys_that_were_kept_count_like_those_that_came():
    codes = np.random.default_rng(0).integers(0, 2, (2, 50, 9)).astype(np.uint8)
    ids, y = np.random.default_rng(1).permutation(50), np.arange(50) % 3
    x = pack(codes[0, :, :2], 1)
    with KeyCounter() as counter:
        begin(counter, ids, y, {"x": x})
        for epoch in (0, 1):
            take(counter, "t", epoch, pack(codes[epoch], 8))
        came = counter.counts("t", ["x"])["x"]
        kept = {name: pl.read_parquet(BytesIO(counter.patterns(name, name))) for name in ("x", "t")}
    with KeyCounter() as counter:
        counter.begin(ids[::-1], y[::-1])  # in another order of samples
        assert counter.recall("x", kept["x"].to_arrow())
        counter.name_inputs("x")
        assert counter.recall("t", kept["t"].to_arrow())
        recalled = counter.counts("t", ["x"])["x"]
        assert not counter.recall("u", kept["t"].head(99).to_arrow())
    assert {epoch: {name: as_dict(found) for name, found in own.items()} for epoch, own in recalled.items()} == {
        epoch: {name: as_dict(found) for name, found in own.items()} for epoch, own in came.items()
    }


@pytest.mark.parametrize("units", [DIGEST_BYTES, DIGEST_BYTES + 1])
def test_a_wide_pattern_is_named_by_its_digest(units):
    codes = np.random.default_rng(0).integers(0, 2, (50, units)).astype(np.uint8)
    codes[25:] = codes[:25]
    keys = pack(codes, 8)
    with KeyCounter() as counter:
        begin(counter, np.arange(50), None, {"x": keys})
        take(counter, "t", 0, keys, [20])
        kept = counter.patterns("t", "t")
        found = counter.counts("t", ["x"])["x"][0]
    assert as_dict(found["t"]) == as_dict(found["xt"]) == {2: 25}
    named = [key.tobytes() if units <= DIGEST_BYTES else hashlib.sha256(key.tobytes()).digest() for key in keys]
    assert pl.read_parquet(BytesIO(kept)).sort("sample")["key"].to_list() == named


def test_two_patterns_under_one_digest_would_be_refused():
    keys = pack(np.arange(20, dtype=np.uint8)[:, None] * np.ones(DIGEST_BYTES + 1, np.uint8), 8)
    with KeyCounter() as counter:
        begin(counter, np.arange(20), None, {"x": keys})
        counter._db.execute("CREATE MACRO sha256(key) AS CASE WHEN key < '\\x05' THEN 'same' ELSE hex(key) END")
        with pytest.raises(IbstoreError, match="two patterns have the same SHA-256"):
            counter.patterns("x", "x")


def test_what_does_not_fit_is_spilled_and_nothing_is_left(tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    keys = np.random.default_rng(0).integers(0, 256, (100_000, 1000), np.uint8)
    keys[50_000:] = keys[:50_000]
    with KeyCounter(memory=80 << 20, threads=1) as counter:
        begin(counter, np.arange(len(keys)), np.arange(len(keys)) % 2, {"x": keys[:, :1]})
        take(counter, "t", 0, keys, range(0, len(keys), 5_000))
        assert sum(path.stat().st_size for path in tmp_path.rglob("*") if path.is_file()) > 20 << 20
        found = counter.counts("t", ["x"])["x"][0]
    assert as_dict(found["t"]) == {2: 50_000}
    assert not list(tmp_path.iterdir())


def test_too_little_memory_is_told():
    with (
        KeyCounter(memory=4 << 20, threads=1) as counter,
        pytest.raises(IbstoreError, match=r"cannot be counted in so little memory \(.*\); give more with --memory"),
    ):
        counter.begin(np.arange(50_000), np.arange(50_000))


def test_no_room_is_told(tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    with KeyCounter() as counter:
        begin(counter, np.arange(2), None, {"x": pack(np.eye(2), 1)})
        [folder] = tmp_path.iterdir()
        folder.rename(tmp_path / "elsewhere")
        folder.touch()  # a file where the folder was
        with pytest.raises(
            WriteError, match=r"DuckDB cannot write \(.*\); free space, or name other folders: --results"
        ):
            counter.patterns("x", "x")
        folder.unlink()


VALUES = st.sampled_from([0, 0, 0.25, 1, -3.5, 2]) | st.integers(-8, 8).map(lambda eighths: eighths / 8)
SHAPES = st.tuples(*3 * [st.integers(2, 3)])
RECIPES = st.builds(
    reference.Recipe,
    st.sampled_from(list(reference.REDUCTIONS)),
    st.sampled_from([*reference.FITTED, *reference.FIXED]),
    st.sampled_from(["unit", "channel", "layer"]),
    st.sampled_from(["epoch", "run"]),
)


def floats(*lead):
    """Arrays (lead, …) of a layer's shape."""
    return SHAPES.flatmap(lambda shape: arrays.arrays(np.float32, (*lead, *shape), elements=VALUES))


@st.composite
def experiments(draw):
    """A probe set with its recipe, three layers over two epochs with theirs, and how arrays are cut."""
    n = draw(st.integers(2, 24))
    ids = np.array(draw(st.permutations(range(n))))
    y = draw(arrays.arrays(np.int64, n, elements=st.integers(0, 3)))
    x_recipe = draw(RECIPES.map(lambda recipe: recipe._replace(per="epoch")))
    layers = {name: (draw(floats(2, n)), draw(RECIPES)) for name in ("conv1", "conv2", "out")}
    chunk = draw(st.integers(1, 9))
    return draw(floats(n)), y, ids, x_recipe, layers, Layout(chunk, chunk * draw(st.integers(1, 3)))


@settings(max_examples=5)
@given(experiments())
def test_tables_are_the_reference_s(experiment):
    x, y, ids, x_recipe, layers, rows = experiment
    waist = "; ".join([f"w: x={x_recipe}", *(f"{name}={recipe}" for name, (_, recipe) in layers.items())])
    with tempfile.TemporaryDirectory() as folder:
        activations = {name: values for name, (values, _) in layers.items()}
        path = make_store(Path(folder, "lab.zarr"), x, y, layers=activations, sample=ids, rows=rows)
        table = Study(path).analyze([waist])
        kept = Study(path).query("SELECT layer, epoch, sample, key FROM patterns")
        joint = Study(path).query("SELECT layer, epoch, x, t, y, n FROM joint_counts")
    x_keys = reference.keys(x_recipe.codes(x))
    ours_x = in_order(kept.filter(layer="x"), ids)
    same_partition(ours_x, x_keys)
    for (name, (values, recipe)), epoch in itertools.product(layers.items(), range(2)):
        t_keys = reference.keys(recipe.codes(values[epoch], run=values.reshape(-1, *values.shape[2:])))
        [row] = table.filter(layer=name, epoch=epoch).rows(named=True)
        expected = reference.plane(x_keys, y.tolist(), t_keys)
        assert {column: row[column] for column in expected} == pytest.approx(expected, abs=1e-12)
        in_nats = mutual_info_score(numbers(x_keys), numbers(t_keys)), mutual_info_score(numbers(t_keys), y)
        assert (row["i_xt"], row["i_ty"]) == pytest.approx(tuple(np.array(in_nats) / np.log(2)), abs=1e-12)
        ours_t = in_order(kept.filter(layer=name, epoch=epoch), ids)
        same_partition(ours_t, t_keys)
        counted = joint.filter(layer=name, epoch=epoch).drop("layer", "epoch").rows()
        assert {row[:3]: row[3] for row in counted} == Counter(zip(ours_x, ours_t, y.tolist(), strict=True))
        assert len(counted) == len(set(zip(x_keys, t_keys, y.tolist(), strict=True)))
    assert len(table) == 6


def numbers(keys):
    return [sorted(set(keys)).index(key) for key in keys]


def in_order(kept, ids):
    """Keys in the order in which the samples were given."""
    assert len(kept) == len(ids)
    by_sample = dict(kept.select("sample", "key").iter_rows())
    return [by_sample[number] for number in ids.tolist()]


def same_partition(ours, theirs):
    assert len(set(zip(ours, theirs, strict=True))) == len(set(ours)) == len(set(theirs))


def test_wide_patterns_count_like_narrow_ones(tmp_path):
    rng = np.random.default_rng(0)
    t = rng.integers(0, 2, (1, 60, 3)).astype(np.float32)
    wide = np.repeat(t, 100, axis=2)
    y = rng.integers(0, 3, 60)
    path = make_store(tmp_path / "lab.zarr", numbered(60, 4), y, layers={"narrow": t, "wide": wide})
    study = Study(path)
    table = study.analyze(["w: *=identity | exact"])
    narrow, wide_row = table.drop("layer", "waist").rows()
    assert narrow == wide_row
    sizes = study.query("SELECT layer, max(octet_length(key)) AS size FROM patterns GROUP BY layer ORDER BY layer")
    assert sizes.rows() == [("narrow", 12), ("wide", 32), ("x", 16)]
    counted = {
        layer: sorted(study.query(f"SELECT y, n FROM joint_counts WHERE layer = '{layer}'").rows())
        for layer in ("narrow", "wide")
    }
    assert counted["narrow"] == counted["wide"]
