import hashlib
import json
import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ibstore.store.format.schema import (
    CHECKSUM,
    FileInfo,
    LayerInfo,
    Manifest,
    SegmentRecord,
    SplitInfo,
    dump_files,
    group,
    group_attributes,
    load_files,
)

TEXTS = st.text(max_size=12)
SIZES = st.integers(0, 2**53)
LAYERS = st.builds(LayerInfo, TEXTS, TEXTS, st.lists(SIZES, max_size=4).map(tuple), st.sampled_from(["float32", "u1"]))
SPLITS = st.builds(SplitInfo, TEXTS, TEXTS, TEXTS, SIZES)
OPTIONAL = st.none() | TEXTS
SETTINGS = st.dictionaries(TEXTS, st.none() | st.booleans() | SIZES | TEXTS | st.lists(SIZES))
MANIFESTS = st.builds(
    Manifest,
    run=TEXTS,
    layers=st.lists(LAYERS, max_size=3).map(tuple),
    splits=st.lists(SPLITS, max_size=3).map(tuple),
    module=TEXTS,
    recipe=OPTIONAL,
    seed=st.none() | st.integers(-(2**63), 2**63),
    loss=OPTIONAL,
    optimizer=OPTIONAL,
    threads=SIZES,
    probe_batch=SIZES,
    rounding=OPTIONAL,
    codec=st.sampled_from(["zstd:1", "zstd:-7", "lz4", "none"]),
    chunk_bytes=st.integers(1 << 10, 1 << 30),
    settings=SETTINGS,
    versions=st.dictionaries(TEXTS, TEXTS),
)
METRICS = st.dictionaries(TEXTS, st.dictionaries(TEXTS, st.floats()))
FILES = st.dictionaries(TEXTS, st.builds(FileInfo, SIZES, TEXTS))
QUANTITIES = st.dictionaries(TEXTS, st.none() | st.floats(), max_size=2)
DYNAMICS = st.dictionaries(TEXTS, st.dictionaries(TEXTS, QUANTITIES, max_size=2), max_size=2)
EPOCHS = st.tuples(st.integers(0, 10**10), st.none() | SIZES, METRICS, DYNAMICS)


@st.composite
def records(draw):
    epochs, steps, metrics, dynamics = zip(*draw(st.lists(EPOCHS, min_size=1, max_size=3)), strict=True)
    return SegmentRecord(epochs, steps, metrics, draw(FILES), dynamics)


def strict(text):
    """JSON as every other reader takes it: no bare NaN, no Infinity."""

    def refuse(word):
        raise AssertionError(f"{word} is no JSON")

    return json.loads(text, parse_constant=refuse)


def through_json(document):
    return strict(json.dumps(document))


def same(one, other):
    """Equality for which NaN is NaN and -0.0 is not 0.0."""
    return repr(one) == repr(other)


@settings(max_examples=30)
@given(MANIFESTS)
def test_a_manifest_comes_back(manifest):
    assert Manifest.load(through_json(manifest.dump())) == manifest


@settings(max_examples=50)
@given(records())
def test_a_record_comes_back_with_nan_and_the_infinities(record):
    found = SegmentRecord.load(through_json(record.dump()))
    assert same((found.metrics, found.dynamics), (record.metrics, record.dynamics))
    assert (found.epochs, found.steps, found.files) == (record.epochs, record.steps, record.files)


@given(FILES)
def test_files_come_back_in_the_order_of_their_paths(files):
    document = through_json(dump_files(files))
    assert load_files(document) == files
    assert list(document) == sorted(files)


def test_numbers_that_json_lacks_are_words():
    metrics = {"train": {"a": math.nan, "b": math.inf, "c": -math.inf, "d": 1}}
    document = SegmentRecord((0,), (None,), (metrics,), {}).dump()
    assert document["metrics"] == [{"train": {"a": "NaN", "b": "Infinity", "c": "-Infinity", "d": 1.0}}]


def test_dynamics_have_the_same_words_and_null_where_there_is_no_number():
    dynamics = {"epoch": {"fc1": {"snr": None, "gradient_mean": math.nan, "batches": 1}}}
    document = SegmentRecord((0, 1), (None, None), ({}, {}), {}, ({}, dynamics)).dump()
    assert document["dynamics"] == [{}, {"epoch": {"fc1": {"snr": None, "gradient_mean": "NaN", "batches": 1.0}}}]


def test_a_record_without_dynamics_is_what_it_was_before_there_were_any():
    record = SegmentRecord((0, 1), (None, None), ({}, {}), {})
    assert list(record.dump()) == ["epochs", "steps", "metrics", "files"]
    assert SegmentRecord.load(record.dump()) == record
    assert record.dynamics == ({}, {})


def test_a_manifest_finds_layers_and_splits_by_name():
    one, other = LayerInfo("a", "a", (1,), "float32"), LayerInfo("b", "b", (), "uint8")
    split = SplitInfo("test", "test", "0", 1)
    manifest = Manifest("r", (one, other), (split,))
    assert manifest.layer("b") is other
    assert manifest.split("test") is split
    with pytest.raises(KeyError):
        manifest.layer("c")
    with pytest.raises(KeyError):
        manifest.split("train")


def test_what_a_later_ibstore_adds_within_the_format_is_passed_over():
    manifest = Manifest("r", (LayerInfo("a", "a", (1,), "float32"),), (SplitInfo("test", "test", "0", 1),), seed=3)
    document = manifest.dump() | {"compiled": True}
    document["layers"][0]["random"] = True
    document["splits"][0]["targets"] = []
    assert Manifest.load(document) == manifest


def test_what_an_earlier_ibstore_did_not_say_is_as_by_default():
    manifest = Manifest("r", (LayerInfo("a", "a", (1,), "float32"),), ())
    said = {name: value for name, value in manifest.dump().items() if name in {"run", "layers", "splits"}}
    assert Manifest.load(through_json(said)) == manifest


@pytest.mark.parametrize(
    ("epochs", "steps", "metrics"),
    [((), (), ()), ((0, 1), (None,), ({}, {})), ((0,), (None,), ()), ((-1,), (None,), ({},)), (("0",), (None,), ({},))],
)
def test_a_record_whose_parts_do_not_go_together_is_none(epochs, steps, metrics):
    with pytest.raises(ValueError, match="epoch"):
        SegmentRecord(epochs, steps, metrics, {})


def test_dynamics_of_fewer_epochs_than_there_are_are_refused():
    with pytest.raises(ValueError, match="a step, metrics and dynamics for each"):
        SegmentRecord((0, 1), (None, None), ({}, {}), {}, ({},))


def test_a_group_is_what_zarr_takes_for_one():
    document = strict(group({"a": 1}))
    assert (document["zarr_format"], document["node_type"], set(document)) == (
        3,
        "group",
        {"zarr_format", "node_type", "attributes"},
    )
    assert document["attributes"] == {"a": 1, "checksum": hashlib.sha256(b'{"a":1}').hexdigest()[:32]}


@settings(max_examples=30)
@given(SETTINGS.filter(lambda attributes: CHECKSUM not in attributes))
def test_a_group_comes_back_without_its_checksum(attributes):
    assert group_attributes(group(attributes)) == attributes


def test_attributes_that_were_altered_are_found_and_those_without_a_checksum_taken():
    written = group({"epochs": [1], "loss": "NaN"})
    with pytest.raises(ValueError, match="its attributes do not fit their checksum"):
        group_attributes(written.replace(b"NaN", b"Inf"))
    assert group_attributes(b'{"attributes": {"epochs": [1]}}') == {"epochs": [1]}
    assert group_attributes(b"{}") == {}


def test_no_bare_nan_is_written():
    with pytest.raises(ValueError, match="not JSON compliant"):
        group({"loss": math.nan})


@pytest.mark.parametrize("content", [b"[1]", b'{"attributes": []}', b'{"a": ', b"\xff"])
def test_what_is_no_group_is_refused(content):
    with pytest.raises(ValueError):  # noqa: PT011  (JSON's and UTF-8's own words)
        group_attributes(content)
