"""Other numbers of bins: read once, ordered, and seen by nobody else."""

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ibstore.analyze import parse_waist
from ibstore.analyze.measures.sweep import parse_bins, with_bins
from ibstore.errors import UsageError, WaistError

WAIST = (
    "s: x=identity | quantile(bins=5); conv=maxpool(1, 2) | uniform(bins=3, lo=0, hi=3); "
    "out=identity | thesis_edges(num=3)"
)


@given(low=st.integers(1, 100), high=st.integers(1, 100))
def test_a_range_goes_from_one_to_the_other_by_doubling(low, high):
    if low > high:
        with pytest.raises(UsageError, match="is no numbers of bins"):
            parse_bins(f"{low}:{high}")
        return
    found = parse_bins(f"{low}:{high}")
    assert (found[0], found[-1]) == (low, high)
    assert all(later == 2 * earlier for earlier, later in pairwise(found[:-1]))
    assert len(found) == 1 or found[-2] < high <= 2 * found[-2]


@pytest.mark.parametrize(
    ("text", "numbers"), [("4", [4]), ("9,2,9", [9, 2]), ("2:10:4", [2, 6, 10]), (" 2 : 4 ", [2, 4]), ("7:7", [7])]
)
def test_other_ways_to_say_numbers(text, numbers):
    assert parse_bins(text) == numbers


@pytest.mark.parametrize("text", ["", "two", "0:4", "10:1000000000000:1", "2:8:0", "2:8:1:1", "-3", "2,,3", "1.5"])
def test_what_is_no_numbers_is_refused(text):
    with pytest.raises(UsageError, match="is no numbers of bins; write 2,3,5 or 2:64"):
        parse_bins(text)


def test_bins_are_changed_wherever_there_are_some_but_not_of_the_input():
    found = with_bins(parse_waist(WAIST), 7)
    assert found.name == "s@bins=7"
    assert {layer: str(recipe) for layer, recipe in found.recipes} == {
        "x": "identity | quantile(bins=5, lo=0.01, hi=0.99)",
        "conv": "maxpool(1, 2) | uniform(bins=7, lo=0.0, hi=3.0)",
        "out": "identity | thesis_edges(num=7)",
    }


def test_what_has_no_bins_cannot_be_swept():
    with pytest.raises(UsageError, match="waist 'w' says nowhere how many bins there are"):
        with_bins(parse_waist("w: x=identity | quantile(bins=3); *=identity | threshold(0)"), 2)
    with pytest.raises(WaistError, match="100000 bins: bins must be between 1 and 65,536"):
        with_bins(parse_waist(WAIST), 100_000)


def test_a_sweep_is_the_waists_one_by_one(study):
    found = study.sweep(WAIST, [9, 2], runs=["a", "b"])
    assert found.columns[found.columns.index("waist") + 1] == "bins"
    for bins in (2, 9):
        alone = study.analyze(with_bins(parse_waist(WAIST), bins), runs=["a", "b"])
        assert found.filter(bins=bins).drop("bins", "waist").equals(alone.drop("waist"))
    keys = found.select("run", "layer", "epoch", "bins").rows()
    assert keys[:4] == [("a", "conv", 0, 2), ("a", "conv", 0, 9), ("a", "conv", 1, 2), ("a", "conv", 1, 9)]
    assert found["waist"].unique().to_list() == ["s"]


def test_queries_do_not_see_it(study):
    study.sweep("t: *=identity | uniform(bins=2, lo=0, hi=9)", "2:4", runs="a")
    assert not any("t@bins" in name for name in study.meanings())


def test_other_estimators_and_units(study):
    bits, nats = (study.sweep(WAIST, "2,3", runs="a", estimators="mm", unit=unit) for unit in ("bits", "nats"))
    assert bits["estimator"].unique().to_list() == ["miller_madow"]
    assert (nats["h_t"] <= bits["h_t"]).all()
