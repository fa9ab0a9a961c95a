import pickle
from dataclasses import dataclass, field

import cloudpickle
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from ibstore.analyze import fit
from ibstore.analyze.fit import Population

LEVELS = st.lists(st.floats(0, 1) | st.sampled_from([0.0, 0.01, 0.25, 0.5, 0.99, 1.0]), min_size=1, max_size=4)
WHOLE, GROUP_BY_GROUP = 1 << 40, 1


@dataclass
class Passes:
    """Values (sample, unit) cut into blocks, how often they were passed over, and what was found."""

    values: np.ndarray
    cuts: list[int] = field(default_factory=list)
    epochs: int = 1
    found: list = field(default_factory=list)

    @property
    def made(self):
        return len(self.found)

    def quantiles(self, levels, allowance=WHOLE, places=1, *, at_once=False):
        units = self.values.shape[1]
        population = Population(len(self.values) // self.epochs, units // places, places, self.epochs)
        finding = fit.quantiles(levels, population, self.values.dtype.itemsize, allowance, at_once=at_once)
        wanted = next(finding)
        while True:
            wanted = pickle.loads(cloudpickle.dumps(wanted))  # it may be looked for in another process
            self.found.append([wanted.look(block, start) for start, block in self.blocks()])
            try:
                wanted = finding.send(wanted.join(self.found[-1]))
            except StopIteration as done:
                return done.value

    def blocks(self):
        for epoch in np.split(self.values, self.epochs):
            start = 0
            for block in np.split(epoch, [cut for cut in self.cuts if cut < len(epoch)]):
                yield start, block
                start += len(block)


def numpy_s(values, levels, places=1):
    by_group = values.reshape(len(values), -1, places).swapaxes(1, 2).reshape(len(values) * places, -1)
    return np.quantile(by_group.astype(np.float64), levels, axis=0)


def tied(dtype):
    """Values with many ties, as after a ReLU, or none."""
    width = np.dtype(dtype).itemsize * 8
    few = st.sampled_from([0.0, -0.0, 0.5, -1.5, 2.0])
    any_float = st.floats(-1e4, 1e4, width=width)
    shape = st.tuples(st.integers(1, 60), st.integers(1, 3))
    return st.sampled_from([few, few | any_float, any_float]).flatmap(
        lambda elements: arrays.arrays(dtype, shape, elements=elements)
    )


@given(
    values=st.sampled_from([np.float32, np.float64]).flatmap(tied),
    levels=LEVELS,
    cuts=st.lists(st.integers(0, 60), max_size=4).map(sorted),
    sampled=st.integers(1, 8),
    allowance=st.sampled_from([WHOLE, GROUP_BY_GROUP]),
    at_once=st.booleans(),
)
def test_quantiles_are_numpy_s_to_the_last_bit(values, levels, cuts, sampled, allowance, at_once):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(fit, "SAMPLED", sampled)
        found = Passes(values, cuts).quantiles(levels, allowance, at_once=at_once)
    np.testing.assert_array_equal(found, numpy_s(values, levels), strict=True)


@given(
    shape=st.tuples(st.integers(1, 3), st.integers(1, 20), st.integers(1, 3), st.integers(1, 4)),
    cuts=st.lists(st.integers(1, 19), max_size=3).map(sorted),
    sampled=st.integers(1, 30),
    allowance=st.sampled_from([WHOLE, GROUP_BY_GROUP]),
    seed=st.integers(0, 99),
)
def test_places_and_epochs_are_fitted_together(shape, cuts, sampled, allowance, seed):
    epochs, samples, groups, places = shape
    values = np.random.default_rng(seed).integers(-3, 9, (epochs * samples, groups * places)).astype(np.float32)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(fit, "SAMPLED", sampled)
        found = Passes(values, cuts, epochs).quantiles([0.01, 0.4, 0.99], allowance, places)
    np.testing.assert_array_equal(found, numpy_s(values, [0.01, 0.4, 0.99], places))


def test_values_are_interpolated_from_the_nearer_end_as_numpy_does():
    """In float64, where each way to write the interpolation rounds differently."""
    values = np.random.default_rng(0).normal(size=(10, 3_000))
    levels = [0.05, 0.37, 0.5, 0.63, 0.95]
    np.testing.assert_array_equal(Passes(values).quantiles(levels), numpy_s(values, levels))


@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.int8, np.int32, np.int64, np.uint8])
def test_every_dtype_has_quantiles(dtype, monkeypatch):
    monkeypatch.setattr(fit, "SAMPLED", 16)
    values = np.random.default_rng(0).integers(0, 100, (300, 3)).astype(dtype)
    found = Passes(values, [100, 101]).quantiles([0.01, 0.5, 0.99])
    np.testing.assert_array_equal(found, numpy_s(values, [0.01, 0.5, 0.99]))


@pytest.mark.parametrize("sampled", [1, 100])
def test_infinities_count_as_1e300(sampled, monkeypatch):
    monkeypatch.setattr(fit, "SAMPLED", sampled)
    inf = np.inf
    values = np.array([[-inf, 0, inf], [-inf, 1, inf], [0, 2, inf], [5, inf, inf]], np.float32)
    found = Passes(values, [1]).quantiles([0, 0.5, 1])
    np.testing.assert_array_equal(found, [[-1e300, 0, 1e300], [-5e299, 1.5, 1e300], [5, 1e300, 1e300]])


LARGE = {
    "normal": np.random.default_rng(0).normal(size=(20_000, 3)),
    "relu": np.maximum(np.random.default_rng(1).normal(size=(20_000, 3)), 0),
    "mostly zero": np.random.default_rng(2).random((20_000, 3)) * (np.random.default_rng(3).random((20_000, 3)) > 0.98),
    "sorted": np.sort(np.random.default_rng(4).normal(size=(20_000, 3)), axis=0),
    "sorted down": -np.sort(np.random.default_rng(5).normal(size=(20_000, 3)), axis=0),
    "constant": np.ones((20_000, 3)),
    "two values": np.tile([[0.0, 1, 0], [1, 1, 0]], (10_000, 1)),
    "period 4": np.tile(np.arange(4.0)[:, None], (5_000, 3)) * np.arange(1, 20_001)[:, None],
    "one outlier": np.r_[np.zeros((19_999, 3)), np.full((1, 3), 1e30)],
}


@pytest.mark.parametrize("kind", LARGE)
def test_a_large_layer_takes_a_pass_to_sample_and_one_to_collect(kind):
    passes = Passes(LARGE[kind].astype(np.float32), [1, 4_999, 5_000, 17_003])
    levels = [0, 0.01, 0.5, 0.99, 1]
    np.testing.assert_array_equal(passes.quantiles(levels), numpy_s(passes.values, levels))
    assert passes.made == 2


def test_groups_that_have_no_room_together_are_fitted_one_after_another():
    passes = Passes(LARGE["normal"].astype(np.float32), [7_000])
    found = passes.quantiles([0.01, 0.99], GROUP_BY_GROUP)
    np.testing.assert_array_equal(found, numpy_s(passes.values, [0.01, 0.99]))
    assert passes.made == 2 * 3


def test_or_all_groups_at_once_and_then_joined_one_by_one():
    passes = Passes(LARGE["normal"].astype(np.float32), [7_000])
    found = passes.quantiles([0.01, 0.99], GROUP_BY_GROUP, at_once=True)
    np.testing.assert_array_equal(found, numpy_s(passes.values, [0.01, 0.99]))
    assert [len(block) for block in passes.found[0]] == [3, 3]
    assert passes.made == 2


def test_of_many_values_more_are_sampled_so_that_fewer_lie_inside():
    values = np.random.default_rng(0).normal(size=(1_000_000, 1)).astype(np.float32)
    passes = Passes(values)
    np.testing.assert_array_equal(passes.quantiles([0.01, 0.5]), numpy_s(values, [0.01, 0.5]))
    [sample], [inside] = passes.found
    assert sample.size == 10_000
    assert sum(each.values.size for each in inside.values()) < 100_000


MISLEADING = {
    "too high": lambda sample: sample + 10,
    "too low": lambda sample: sample - 10,
    "too narrow": lambda sample: sample / 100,
    "one value": lambda sample: sample * 0 + 0.5,
    "one group too high": lambda sample: sample + np.array([[0], [10]], np.float32),
    "one group of one value": lambda sample: sample * np.array([[1], [0]], np.float32),
}


def mislead(monkeypatch, mislead):
    """Change what is sampled, (group, value)."""
    sampled = fit._sampled
    monkeypatch.setattr(fit, "_sampled", lambda *given: mislead(sampled(*given)))


@pytest.mark.parametrize("kind", MISLEADING)
def test_a_bracket_that_misses_is_opened(kind, monkeypatch):
    mislead(monkeypatch, MISLEADING[kind])
    values = np.random.default_rng(0).normal(size=(20_000, 2)).astype(np.float32)
    passes = Passes(values, [7_000])
    np.testing.assert_array_equal(passes.quantiles([0.01, 0.5, 0.99]), numpy_s(values, [0.01, 0.5, 0.99]))
    assert 2 < passes.made <= 1 + 3


def test_ties_at_a_bracket_of_one_value_are_counted_once(monkeypatch):
    values = np.repeat([0.0, 0.5, 1.0, 2.0], [6_000, 6_000, 4_000, 4_000])[:, None].astype(np.float32)
    mislead(monkeypatch, lambda _: np.full((1, 5_000), 0.5, np.float32))
    assert Passes(values).quantiles([0.1, 0.45, 0.7, 0.85]).tolist() == [[0], [0.5], [1], [2]]


def test_the_second_of_two_ranks_may_lie_beyond_the_bracket(monkeypatch):
    values = np.arange(20_000, dtype=np.float32)[:, None]
    level = 0.37
    first = int(level * 19_999)
    mislead(monkeypatch, lambda _: np.full((1, 5_000), first, np.float32))
    found = Passes(values).quantiles([level])
    np.testing.assert_array_equal(found, numpy_s(values, [level]))
    assert first < found.item() < first + 1


@pytest.mark.parametrize("places", [1, 3])
@pytest.mark.parametrize("cuts", [[], [1, 2, 3], [29_999], list(range(7, 30_000, 7))], ids=len)
def test_the_sample_of_a_large_layer_is_as_large_as_promised(cuts, places):
    values = np.arange(30_000 * places, dtype=np.float32).reshape(30_000, places)
    passes = Passes(values, cuts)
    passes.quantiles([0.5], places=places)
    [sample] = np.concatenate(passes.found[0], axis=1)
    assert fit.SAMPLED <= len(sample) < 2 * fit.SAMPLED
    assert len(np.unique(sample)) == len(sample)
    assert np.diff(sample).max() < 2 * values.size // fit.SAMPLED + 1


def test_a_large_layer_is_never_collected_whole():
    values = np.maximum(np.random.default_rng(0).normal(size=(200_000, 2)), 0).astype(np.float32)
    passes = Passes(values)
    passes.quantiles([0.01, 0.25, 0.99])
    [collected] = passes.found[1]
    sizes = [len(collected[level].values) for level in range(3)]
    assert sizes[:2] == [0, 0]  # ties at 0 are counted
    assert 0 < sizes[2] < 0.05 * values.size


@pytest.mark.parametrize("levels", [[0.01, 0.99], [0.25, 0.5, 0.75]])
def test_what_fitting_takes_is_what_was_planned(levels):
    values = np.random.default_rng(0).normal(size=(50_000, 2)).astype(np.float32)
    passes = Passes(values, [10_000, 20_000, 30_000])
    passes.quantiles(levels)
    taken = [sum(sample.nbytes for sample in passes.found[0])]
    taken.append(sum(inside.values.nbytes for block in passes.found[1] for inside in block.values()))
    assert max(taken) <= 2 * Population(50_000, 2).bytes_a_group(levels, 4)
