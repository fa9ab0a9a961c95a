"""The optimal curve of data, gaps to it, β and bounds: closed forms, and what stands in which row."""

import math

import numpy as np
import pytest

from ibstore.analyze import Study
from ibstore.errors import UsageError
from tests.analyze.stores import make_store, numbered

from .stores import WAIST, N, Y, write


def noisy(count, flipped):
    """Inputs 0 and 1, each with the other's label in a share of the samples; T is the input."""
    x = np.arange(count) % 2
    y = np.where(np.arange(count) // 2 % round(1 / flipped) == 0, 1 - x, x)
    return x[:, None].astype(np.float32), y, {"t": x[None, :, None].astype(np.float32)}


@pytest.fixture
def channel(tmp_path):
    x, y, layers = noisy(400, 0.1)
    return Study(make_store(tmp_path / "lab.zarr", x, y, layers=layers)).ask("w: *=identity | exact")


def h(p):
    return -(p * math.log2(p) + (1 - p) * math.log2(1 - p))


def test_the_curve_of_a_binary_symmetric_channel_is_known(channel):
    found = channel.measure("limit")
    assert found.row(0, named=True)["i_xt"] == 0
    last = found.row(-1, named=True)
    assert (last["i_xt"], last["i_ty"]) == (pytest.approx(1), pytest.approx(1 - h(0.1), abs=1e-6))
    for q in (0.05, 0.2, 0.4):  # T is the input, flipped with probability q (Mrs Gerber's lemma)
        mixed = q * 0.9 + (1 - q) * 0.1
        at = float(np.interp(1 - h(q), found["i_xt"], found["i_ty"]))
        assert at == pytest.approx(1 - h(mixed), abs=2e-3)
    assert (found["finite_i_ty"] <= found["i_ty"]).all()


def test_a_layer_on_the_curve_has_nothing_missed(channel):
    [row] = channel.measure("gaps").rows(named=True)
    assert row["missed"] == pytest.approx(0, abs=1e-6)
    assert row["excess"] == pytest.approx(0, abs=1e-5)
    nats = channel.measure("gaps", unit="nats").row(0, named=True)
    for name in ("i_xt", "i_ty", "complexity", "generalization"):
        assert nats[name] == pytest.approx(math.log(2) * row[name])


def test_where_labels_are_sure_the_curve_is_a_line(tmp_path):
    layers = {"t": np.random.default_rng(0).normal(size=(2, N, 2)).astype(np.float32)}
    asked = Study(make_store(tmp_path / "lab.zarr", numbered(N, 2), Y, layers=layers)).ask(
        "w: t=identity | threshold(0)"
    )
    found = asked.measure("limit")
    np.testing.assert_allclose(found["i_ty"], found["i_xt"], atol=1e-9)
    assert found["i_ty"].max() == pytest.approx(2)
    for row in asked.measure("gaps").iter_rows(named=True):
        assert row["missed"] == pytest.approx(min(row["i_xt"], 2) - row["i_ty"], abs=1e-9)
        assert row["excess"] == pytest.approx(row["i_xt"] - row["i_ty"], abs=1e-9)


def test_every_run_split_and_waist_has_its_curve(asked):
    found = asked.measure("limit")
    assert found.select("run", "split", "waist").unique().height == 3
    assert len(asked.measure("gaps")) == len(asked.plane())


def test_the_least_functional_at_each_beta(asked):
    plane = asked.plane()
    found = asked.measure("betas(lowest=0.1, highest=100, count=7)")
    assert len(found) == 3 * 7
    np.testing.assert_allclose(found["beta"][:7], np.geomspace(0.1, 100, 7))
    for row in found.iter_rows(named=True):
        own = plane.filter(run=row["run"])
        least = (own["i_xt"] - row["beta"] * own["i_ty"]).min()
        assert row["functional"] == pytest.approx(least)
        assert row["functional"] == pytest.approx(row["i_xt"] - row["beta"] * row["i_ty"])
        [best] = own.filter(layer=row["layer"], epoch=row["epoch"]).rows(named=True)
        assert (best["i_xt"], best["i_ty"]) == (row["i_xt"], row["i_ty"])


def test_bounds_take_bits_whatever_the_unit(asked):
    bits, nats = asked.measure("bounds(delta=0.1)"), asked.measure("bounds(delta=0.1)", unit="nats")
    assert bits.equals(nats)
    for row in bits.iter_rows(named=True):
        assert row["input_compression"] == pytest.approx(math.sqrt((2 ** row["i_xt"] + math.log(10)) / (2 * N)))
        assert row["classic"] is None
    for row in asked.measure("bounds(delta=0.1, dimension=5)").iter_rows(named=True):
        e = row["classic"]
        assert e**2 == pytest.approx((5 * math.log(1 / e) + math.log(10)) / (2 * N))


def test_without_labels_there_is_no_curve(tmp_path):
    asked = Study(write(tmp_path / "lab.zarr", ["a"], None)).ask(WAIST)
    for what in ("limit", "gaps"):
        with pytest.raises(UsageError, match="needs labels, and the samples have none"):
            asked.measure(what)
    assert asked.measure("betas").is_empty()
    assert len(asked.measure("bounds")) == 4


@pytest.mark.parametrize(
    "what",
    ["betas(lowest=0)", "betas(lowest=2, highest=1)", "betas(count=0)", "bounds(delta=1)", "bounds(dimension=-1)"],
)
def test_bad_numbers_are_refused(asked, what):
    with pytest.raises(UsageError):
        asked.measure(what)
