"""What a device of torch makes of blocks, held bit for bit against the CPU's compiled loops."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from ibstore.analyze import Study, device, parse_recipe
from ibstore.analyze.device import DTYPES, Device
from ibstore.analyze.encode import bits_for, pack
from ibstore.analyze.narrow import _bins
from ibstore.analyze.plan import Budget
from ibstore.errors import IbstoreError, UsageError

from .stores import make_store, numbered, results

DEVICES = ["cpu", *["cuda"] * torch.cuda.is_available()]
FLOATS = st.sampled_from([0.0, 0.1, -3.5, 1e-40, 3e38, np.inf, -np.inf, np.nan]) | st.floats(-10, 10, width=32)
WHOLE = st.integers(0, 120)


def same(found, expected):
    assert (found.dtype, found.shape) == (expected.dtype, expected.shape)
    np.testing.assert_array_equal(found, expected)


@st.composite
def blocks(draw, dimensions, floats=FLOATS):
    dtype = draw(st.sampled_from(sorted(DTYPES, key=str)))
    shape = draw(st.tuples(*[st.integers(1, 9)] * dimensions))
    return draw(arrays.arrays(dtype, shape, elements=(floats if dtype.kind == "f" else WHOLE).map(dtype.type)))


@settings(deadline=None)
@pytest.mark.filterwarnings("ignore:overflow encountered in cast:RuntimeWarning")  # a mean that float32 does not have
@pytest.mark.parametrize("name", DEVICES)
@given(blocks(4), st.lists(st.integers(1, 3), min_size=2, max_size=3), st.sampled_from(["maxpool", "avgpool"]))
def test_pooling(name, block, window, kind):
    sizes = [min(size, length) for size, length in zip(window, block.shape[-len(window) :], strict=True)]
    recipe = parse_recipe(f"{kind}({', '.join(map(str, sizes))}) | exact")
    with np.errstate(over="ignore", invalid="ignore"):
        same(Device(name).reduced(recipe, block), recipe.reduce(block))


@settings(deadline=None)
@pytest.mark.parametrize("name", DEVICES)
@given(blocks(2, FLOATS.filter(lambda value: not np.isnan(value))), st.data())
def test_keys(name, block, data):
    count = data.draw(st.sampled_from([1, 2, 3, 6, 40, 255, 300]))
    kind = block.dtype if block.dtype.kind == "f" else np.dtype(np.float64)
    edges = data.draw(arrays.arrays(kind, (count, block.shape[1]), elements=st.floats(-20, 130, width=32)))
    edges.sort(axis=0)
    bits = bits_for(count + 1)
    same(Device(name).keys(block, edges, bits), pack(_bins(block, edges, bits), bits))


def test_many_codes_are_packed_piece_by_piece(monkeypatch):
    values = np.random.default_rng(0).normal(size=(50, 13)).astype(np.float32)
    edges = np.linspace(-1, 1, 6, dtype=np.float32)[:, None].repeat(13, axis=1)
    whole = Device("cpu").keys(values, edges, 3)
    monkeypatch.setattr(device, "BITS_AT_ONCE", 100)
    same(Device("cpu").keys(values, edges, 3), whole)


def test_what_it_has_not_is_left_to_the_cpu():
    mine = Device("cpu")
    images = np.ones((2, 3, 4, 4), np.float16)
    assert mine.reduced(parse_recipe("maxpool(2, 2) | exact"), images) is None
    assert mine.reduced(parse_recipe("softmax | exact"), images.astype(np.float32)) is None
    assert mine.keys(np.ones((2, 3), np.uint16), np.ones((1, 3)), 1) is None


@pytest.mark.parametrize("name", DEVICES)
def test_an_analysis_is_the_same(tmp_path, monkeypatch, name):
    rng = np.random.default_rng(0)
    images = np.maximum(rng.normal(size=(3, 60, 2, 4, 4)), 0).astype(np.float32)
    store = make_store(tmp_path / "lab.zarr", numbered(60, 3), rng.integers(0, 3, 60), layers={"conv": images})
    waists = [
        "a: x=identity | threshold(0.5); conv=maxpool(1, 2, 2) | quantile(bins=4)",
        "b: conv=avgpool(2, 2) | equalmass(bins=3)",
        "c: conv=channelmax | exact",
    ]
    table = Study(store).analyze(waists)
    patterns = Study(store).query("SELECT * FROM patterns ORDER BY ALL")
    made = []
    monkeypatch.setattr(Budget, "find_device", lambda _: made.append(Device(name)) or made[0])
    there = Study(store, tmp_path / "there")
    assert there.analyze(waists, device=name).equals(table)
    assert there.query("SELECT * FROM patterns ORDER BY ALL").equals(patterns)
    assert made
    assert not results(store).samefile(tmp_path / "there")


def test_auto_is_the_cpu_where_there_is_no_other(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert Budget(4 << 30, 1, device="auto").find_device() is None


@pytest.mark.parametrize("name", DEVICES)
def test_noise_bounds_are_the_same_but_for_rounding(tmp_path, monkeypatch, name):
    values = np.random.default_rng(0).normal(size=(2, 90, 2, 3, 3)).astype(np.float32)
    store = make_store(tmp_path / "lab.zarr", numbered(90, 3), np.arange(90) % 3, layers={"conv": values})
    asked = {"waists": "w: *=identity | exact", "estimators": "kde(variance=0.5)", "channels": "mean"}
    table = Study(store).analyze(**asked)
    used = []
    monkeypatch.setattr(Budget, "find_device", lambda _: used.append(Device(name)) or used[-1])
    there = Study(store, tmp_path / "there").analyze(**asked)
    assert used
    for column in ("h_t", "i_xt", "i_xt_low", "i_ty_low", "i_ty_high"):
        np.testing.assert_allclose(there[column], table[column], atol=1e-4)


def test_no_memory_on_the_device_is_told(monkeypatch):
    def full(*_, **__):
        raise torch.OutOfMemoryError("CUDA out of memory.\nmore")

    monkeypatch.setattr(torch, "zeros", full)
    mine = Device.__new__(Device)
    mine._device = torch.device("cpu")
    with pytest.raises(IbstoreError, match=r"too little free memory \(CUDA out of memory\.\); give fewer --threads"):
        mine.keys(np.ones((2, 3)), np.ones((1, 3)), 1)


@pytest.mark.parametrize("name", ["nonsense", "cuda:99"])
def test_a_device_that_is_not_there_is_refused(tmp_path, name):
    store = make_store(tmp_path / "lab.zarr", numbered(20, 2), layers={"t": np.ones((1, 20, 3), np.float32)})
    with pytest.raises(UsageError, match=rf"device '{name}' cannot be used here \(.*\); give --device cpu"):
        Study(store).analyze("w: t=identity | threshold(1)", device=name)
