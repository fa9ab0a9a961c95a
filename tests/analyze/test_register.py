import math

import numpy as np
import pytest

import ibstore
from ibstore.analyze import Binning, Coding, parse_recipe
from ibstore.analyze.discretize import DISCRETIZATIONS
from ibstore.analyze.estimate.entropy import ESTIMATORS
from ibstore.analyze.reduce import CHECKS, REDUCTIONS
from ibstore.analyze.sql import counts
from ibstore.errors import ValuesError, WaistError

from .stores import make_store, numbered

T = np.arange(2 * 8 * 6, dtype=np.float32).reshape(2, 8, 6)


@pytest.fixture(autouse=True)
def only_here():
    """What a test registers is gone after it."""
    before = [(registry, dict(registry)) for registry in (REDUCTIONS, CHECKS, DISCRETIZATIONS)]
    yield
    for registry, known in before:
        registry.clear()
        registry.update(known)


@pytest.fixture
def store(tmp_path):
    return make_store(tmp_path / "lab.zarr", numbered(8, 2), np.arange(8) % 2, layers={"t": T})


def test_a_reduction_and_a_discretizer_of_one_s_own(store):
    @ibstore.register_reduction
    def every(block, step: int, start: int = 0):
        return block[:, start::step]

    @ibstore.register_discretizer
    def median():
        return Binning(2, levels=(0.5,), edges=lambda quantiles: quantiles)

    recipe = parse_recipe("every(3) | median(scope=layer)")
    assert str(recipe) == "every(step=3, start=0) | median(scope=layer)"
    np.testing.assert_array_equal(recipe.reduce(T[0]), T[0][:, [0, 3]])
    table = ibstore.open(store).analyze(["mine: x=identity | exact; t=every(3) | median(scope=layer)"])
    assert table["h_t"].to_list() == [1, 1]  # half of the samples lie above the median of all values
    assert table["i_xt"].to_list() == [1, 1]


def test_a_coding_of_one_s_own(store):
    @ibstore.register_discretizer
    def sign(level: float = 20):
        return Coding(lambda _: 12, lambda values: (values > level).astype(np.uint16) * 4095)

    table = ibstore.open(store).analyze(["mine: t=identity | sign"])
    above = [len({tuple(row) for row in (epoch > 20).tolist()}) for epoch in T]
    assert table["distinct_t"].to_list() == above == [3, 1]


def test_words_are_arguments_too(store):
    @ibstore.register_reduction
    def side(block, which: str):
        return block[:, :1] if which == "left" else block[:, -1:]

    assert str(parse_recipe("side(left) | exact")) == "side(which=left) | exact"
    assert parse_recipe("side(which=right) | exact").reduce(T[0]).tolist() == T[0][:, -1:].tolist()
    with pytest.raises(WaistError, match="which must be of type str, not 3"):
        parse_recipe("side(3) | exact")


def test_complaints_become_messages(store):
    def check(count: int) -> None:
        if count < 1:
            raise ValueError(f"count must be at least 1, not {count}")

    @ibstore.register_discretizer
    def picky(level: int):
        if level > 3:
            raise ValueError(f"level {level} is beyond 3")
        return Coding(lambda _: 8, fail)

    def fail(values):
        raise ValueError("these values are not to my taste")

    def first(block, count: int):
        if count > block.shape[1]:
            raise ValueError(f"there are no {count} units")
        return block[:, :count]

    ibstore.register_reduction(first, check)
    with pytest.raises(WaistError, match=r"count must be at least 1, not 0\n  first\(0\) \| exact\n  \^{8}$"):
        parse_recipe("first(0) | exact")
    with pytest.raises(WaistError, match=r"level 4 is beyond 3\n  identity \| picky\(4\)\n {13}\^{8}$"):
        parse_recipe("identity | picky(4)")
    with pytest.raises(WaistError, match=r"layer 't': first\(count=7\) \| exact: there are no 7 units; .* is \(6,\)"):
        ibstore.open(store).analyze("w: t=first(7) | exact")
    with pytest.raises(ValuesError, match="run 'run0', layer 't', epoch 0: these values are not to my taste"):
        ibstore.open(store).analyze("w: t=identity | picky(1)")


@pytest.mark.parametrize(
    "reduce", [lambda block: block.mean(), lambda block: block.sum(axis=0), lambda block: block[:0]]
)
def test_a_reduction_that_loses_the_samples_is_refused(reduce, store):
    reduce.__name__ = "lossy"
    ibstore.register_reduction(reduce)
    with pytest.raises(WaistError, match=r"layer 't': lossy \| exact: lossy does not keep the sample axis: from shape"):
        ibstore.open(store).analyze("w: t=lossy | exact")


def test_a_function_that_changed_is_asked_anew(store, monkeypatch):
    def register(function):
        function.__name__ = "shift"
        ibstore.register_reduction(function)
        return ibstore.open(store).analyze("w: t=shift | threshold(40)")["distinct_t"].to_list()

    def one(block):
        return block + 1

    def none(block):
        return block * 0

    assert register(one) == [3, 1]
    assert register(none) == [1, 1]
    assert ibstore.open(store).query("SELECT distinct_t FROM information_plane").rows() == [(1,), (1,)]
    monkeypatch.setattr(counts, "KeyCounter", None)
    assert register(one) == [3, 1]  # as it was kept


def test_a_function_typed_at_a_prompt_has_no_source(store):
    typed: dict = {"ibstore": ibstore}
    exec("@ibstore.register_reduction\ndef twice(block):\n    return block * 2\n", typed)
    assert ibstore.open(store).analyze("w: t=twice | exact")["distinct_t"].to_list() == [8, 8]


def test_an_estimator_of_one_s_own(store):
    @ibstore.register_estimator
    def Keys_seen(multiplicity, keys, samples):  # noqa: N802  (however it is written, it is found)
        return math.log2(keys.sum())

    study = ibstore.open(store)
    plane = study.analyze("w: *=identity | edges(10)", estimators=["plugin", "Keys_seen"])
    own = plane.filter(estimator="keys_seen")
    assert own["h_t"].to_list() == np.log2(own["distinct_t"]).to_list()
    assert own["h_t"].to_list() != plane.filter(estimator="plugin")["h_t"].to_list()
    assert ESTIMATORS.pop("keys_seen")
    kept = ibstore.open(store).query("SELECT h_t FROM information_plane WHERE estimator = 'keys_seen' ORDER BY epoch")
    assert kept["h_t"].to_list() == own["h_t"].to_list()  # also where nobody knows the function
