"""What an analysis says it will read and take, before it starts."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ibstore.analyze import Study, parse_recipe
from ibstore.analyze.narrow import Form
from ibstore.analyze.plan import BASE, LEAST, LEAST_FREE, Budget, Scan, Sizes, key_bytes
from ibstore.errors import UsageError

from .stores import make_run, make_store, numbered

MIB, GIB = 1 << 20, 1 << 30


def scan_of(recipes, budget, epochs=1, samples=60_000, shape=(16, 14, 14), files=23):
    """A scan of a float32 layer under recipes that each see so many units of it."""
    raw = epochs * samples * int(np.prod(shape)) * 4
    sizes = Sizes(epochs, samples, raw, raw // 3, files)
    forms = {parse_recipe(text): Form((units,), np.dtype("f4"), samples) for text, units in recipes.items()}
    return Scan((), sizes, forms, {}, budget)


SIX = {
    "identity | quantile(2)": 3136,
    "identity | quantile(4)": 3136,
    "maxpool(1, 4, 4) | quantile(2)": 144,
    "maxpool(2, 4, 4) | quantile(2)": 72,
    "channelmean | thesis_edges": 16,
    "identity | exact": 3136,
}


@given(
    recipes=st.lists(st.sampled_from(list(SIX)), min_size=1, unique=True),
    memory=st.integers(LEAST, 64 * GIB),
    threads=st.integers(1, 64),
    epochs=st.integers(1, 20),
    samples=st.integers(1, 1_000_000),
    files=st.integers(1, 400),
)
def test_a_plan_keeps_within_the_memory_where_a_block_fits(recipes, memory, threads, epochs, samples, files):
    budget = Budget(memory, threads)
    scan = scan_of({text: SIX[text] for text in recipes}, budget, epochs, samples, files=files)
    assert 1 <= scan.threads <= threads
    assert all(size >= 0 for size in scan.fits.values())
    assert scan.passes >= 1
    room = memory - BASE - budget.counting
    if scan.bytes_in_flight <= room // 2 - LEAST_FREE:
        assert scan.peak_bytes <= memory


def test_what_has_room_is_read_once():
    scan = scan_of(SIX, Budget(16 * GIB, 2))
    assert scan.passes == 1
    assert {str(view.reduction) for view in scan.held} == {
        "identity",
        "maxpool(1, 4, 4)",
        "maxpool(2, 4, 4)",
        "channelmean",
    }
    assert scan.threads == 2


def test_what_has_less_is_read_again_and_the_smallest_is_held_first():
    scan = scan_of(SIX, Budget(3 * GIB // 2, 2))
    assert {str(view.reduction) for view in scan.held} == {"maxpool(1, 4, 4)", "maxpool(2, 4, 4)", "channelmean"}
    assert scan.passes == 3


def test_what_has_least_is_fitted_some_columns_at_a_time():
    small, large = (scan_of(SIX, Budget(memory, 2)) for memory in (LEAST, 2 * GIB))
    assert small.passes > large.passes
    assert sum(small.fits.values()) < sum(large.fits.values())
    assert small.peak_bytes <= LEAST


def test_recipes_share_reductions():
    scan = scan_of(SIX, Budget(2 * GIB, 2))
    assert (len(scan.recipes), len(scan.views)) == (6, 4)


@pytest.mark.parametrize(
    ("recipe", "units", "bytes_"),
    [
        ("identity | quantile(2)", 3136, 392),
        ("identity | quantile(4)", 10, 3),
        ("identity | exact", 10, 40),
        ("identity | exact", 3136, 32),  # by its SHA-256
    ],
)
def test_key_bytes(recipe, units, bytes_):
    assert key_bytes(parse_recipe(recipe), Form((units,), np.dtype("f4"), 1)) == bytes_


def test_memory_that_cannot_be_kept_is_refused():
    with pytest.raises(UsageError, match="512 MiB of memory cannot be kept; give at least"):
        Budget(512 * MIB, 2)
    with pytest.raises(UsageError, match="threads is 0; give at least 1"):
        Budget(GIB, 0)


def test_by_default_half_of_what_is_free_and_every_core():
    budget = Budget.of()
    assert LEAST <= budget.memory <= 8 * GIB
    assert budget.threads >= 1


@pytest.fixture
def study(tmp_path):
    layers = {"conv": np.ones((2, 20, 2, 4, 4), np.float32), "out": np.ones((2, 20, 3), np.float32)}
    return Study(make_store(tmp_path / "lab.zarr", numbered(20, 2), np.arange(20) % 2, layers=layers))


WAISTS = ["a: *=identity | quantile(2)", "b: *=identity | quantile(4)", "c: conv=maxpool(1, 2, 2) | quantile(2)"]


def test_explain_tells_a_row_a_reading(study):
    table = study.explain(WAISTS)
    assert table.select("layer", "epochs", "waists", "recipes", "reductions").rows() == [
        ("conv", "0", 3, 3, 2),
        ("conv", "1", 3, 3, 2),
        ("out", "0", 2, 2, 1),
        ("out", "1", 2, 2, 1),
    ]
    assert table["raw_bytes"].to_list() == [20 * 32 * 4] * 2 + [20 * 3 * 4] * 2
    assert table["key_bytes"].to_list() == [20 * (4 + 8 + 1)] * 2 + [20 * (1 + 1)] * 2
    assert table["passes"].unique().to_list() == [1]


def test_explain_reads_and_keeps_nothing_and_what_is_there_is_not_planned(study, monkeypatch):
    assert not study.parts.existing("information_plane", ["any"])
    before = study.explain(WAISTS)
    study.analyze(WAISTS[:1])
    after = study.explain(WAISTS)
    assert after["layer"].to_list() == before["layer"].to_list()
    assert after["waists"].to_list() == [2, 2, 1, 1]
    study.analyze(WAISTS)
    assert len(study.explain(WAISTS)) == 0
    assert study.explain(WAISTS).schema == before.schema


def test_a_scan_is_one_split_of_one_run(tmp_path):
    y = np.arange(8) % 2
    data = {"train": (numbered(8, 1), y), "test": (np.zeros((8, 1), np.float32), y)}
    layers = {"t": np.ones((1, 8, 2), np.float32)}
    for run in ("r0", "r1"):
        make_run(tmp_path / "lab.zarr", data, {"train": layers, "test": layers}, run=run)
    found = Study(tmp_path / "lab.zarr").explain(WAISTS[:2]).select("run", "split").rows()
    assert found == [("r0", "train"), ("r0", "test"), ("r1", "train"), ("r1", "test")]
