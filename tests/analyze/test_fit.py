from dataclasses import dataclass, field

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from ibstore.analyze import fit

LEVELS = st.lists(st.floats(0, 1) | st.sampled_from([0.0, 0.01, 0.25, 0.5, 0.99, 1.0]), min_size=1, max_size=4)


@dataclass
class Passes:
    """Values cut into blocks, and how often they were passed over."""

    values: np.ndarray
    cuts: list[int] = field(default_factory=list)
    made: int = 0

    def __call__(self):
        self.made += 1
        return iter(np.split(self.values, self.cuts))


def quantiles(passes, levels, monkeypatch, held, sampled=fit.SAMPLED):
    with monkeypatch.context() as patch:
        patch.setattr(fit, "HELD_BYTES", 2**60 if held else 0)
        patch.setattr(fit, "SAMPLED", sampled)
        return fit.quantiles(passes, levels, *passes.values.shape)


def numpy_s(values, levels):
    return np.quantile(values.astype(np.float64), levels, axis=0)


def tied(dtype):
    """Values with many ties, as after a ReLU, or none."""
    width = np.dtype(dtype).itemsize * 8
    few = st.sampled_from([0.0, -0.0, 0.5, -1.5, 2.0])
    any_float = st.floats(-1e4, 1e4, width=width)
    shape = st.tuples(st.integers(1, 60), st.integers(1, 3))
    return st.sampled_from([few, few | any_float, any_float]).flatmap(
        lambda elements: arrays.arrays(dtype, shape, elements=elements)
    )


@pytest.mark.parametrize("held", [True, False], ids=["held", "streamed"])
@given(
    values=st.sampled_from([np.float16, np.float32, np.float64]).flatmap(tied),
    levels=LEVELS,
    cuts=st.lists(st.integers(0, 60), max_size=4).map(sorted),
    sampled=st.integers(1, 8),
)
def test_quantiles_are_numpy_s_to_the_last_bit(held, values, levels, cuts, sampled):
    with pytest.MonkeyPatch.context() as monkeypatch:
        found = quantiles(Passes(values, cuts), levels, monkeypatch, held, sampled)
    np.testing.assert_array_equal(found, numpy_s(values, levels), strict=True)


@pytest.mark.parametrize("held", [True, False], ids=["held", "streamed"])
def test_values_are_interpolated_from_the_nearer_end_as_numpy_does(held, monkeypatch):
    """In float64, where each way to write the interpolation rounds differently."""
    values = np.random.default_rng(0).normal(size=(10, 3_000))
    levels = [0.05, 0.37, 0.5, 0.63, 0.95]
    found = quantiles(Passes(values), levels, monkeypatch, held, sampled=4)
    np.testing.assert_array_equal(found, numpy_s(values, levels))


@pytest.mark.parametrize("held", [True, False], ids=["held", "streamed"])
@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64, np.int8, np.int32, np.int64, np.uint8, bool])
def test_every_dtype_has_quantiles(dtype, held, monkeypatch):
    values = np.random.default_rng(0).integers(0, 100, (300, 3)).astype(dtype)
    found = quantiles(Passes(values, [100, 101]), [0.01, 0.5, 0.99], monkeypatch, held, sampled=16)
    np.testing.assert_array_equal(found, numpy_s(values, [0.01, 0.5, 0.99]))


@pytest.mark.parametrize("held", [True, False], ids=["held", "streamed"])
def test_infinities_count_as_1e300(held, monkeypatch):
    inf = np.inf
    values = np.array([[-inf, 0, inf], [-inf, 1, inf], [0, 2, inf], [5, inf, inf]], np.float32)
    found = quantiles(Passes(values, [1]), [0, 0.5, 1], monkeypatch, held, sampled=1)
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
def test_a_large_layer_takes_one_pass_to_sample_and_one_a_level(kind, monkeypatch):
    passes = Passes(LARGE[kind].astype(np.float32), [1, 4_999, 5_000, 17_003])
    levels = [0, 0.01, 0.5, 0.99, 1]
    found = quantiles(passes, levels, monkeypatch, held=False)
    np.testing.assert_array_equal(found, numpy_s(passes.values, levels))
    assert passes.made == 1 + len(levels)


MISLEADING = {
    "too high": lambda sample: sample + 10,
    "too low": lambda sample: sample - 10,
    "too narrow": lambda sample: sample / 100,
    "one value": lambda sample: sample * 0 + 0.5,
    "one group too high": lambda sample: sample + np.array([0, 10], np.float32),
    "one group of one value": lambda sample: sample * np.array([1, 0], np.float32),
}


@pytest.mark.parametrize("kind", MISLEADING)
def test_a_bracket_that_misses_is_opened(kind, monkeypatch):
    sample = fit._sample
    monkeypatch.setattr(fit, "_sample", lambda *arguments: MISLEADING[kind](sample(*arguments)))
    values = np.random.default_rng(0).normal(size=(20_000, 2)).astype(np.float32)
    passes = Passes(values, [7_000])
    found = quantiles(passes, [0.01, 0.5, 0.99], monkeypatch, held=False)
    np.testing.assert_array_equal(found, numpy_s(values, [0.01, 0.5, 0.99]))
    assert 1 + 3 < passes.made <= 1 + 3 * 3


def test_ties_at_a_bracket_of_one_value_are_counted_once(monkeypatch):
    values = np.repeat([0.0, 0.5, 1.0, 2.0], [6_000, 6_000, 4_000, 4_000])[:, None].astype(np.float32)
    monkeypatch.setattr(fit, "_sample", lambda *_: np.full((5_000, 1), 0.5, np.float32))
    found = quantiles(Passes(values), [0.1, 0.45, 0.7, 0.85], monkeypatch, held=False)
    assert found.tolist() == [[0], [0.5], [1], [2]]


def test_the_second_of_two_ranks_may_lie_beyond_the_bracket(monkeypatch):
    values = np.arange(20_000, dtype=np.float32)[:, None]
    level = 0.37
    first = int(level * 19_999)
    monkeypatch.setattr(fit, "_sample", lambda *_: np.full((5_000, 1), first, np.float32))
    found = quantiles(Passes(values), [level], monkeypatch, held=False)
    np.testing.assert_array_equal(found, numpy_s(values, [level]))
    assert first < found.item() < first + 1


def test_the_sample_of_a_large_layer_is_as_large_as_promised():
    values = np.arange(30_000, dtype=np.float32)[:, None]
    for cuts in ([], [1, 2, 3], [29_999], list(range(7, 30_000, 7))):
        sample = fit._sample(Passes(values, cuts), *values.shape)
        assert fit.SAMPLED <= len(sample) < 2 * fit.SAMPLED
        assert len(np.unique(sample)) == len(sample)
        assert np.diff(sample[:, 0]).max() < 2 * 30_000 // fit.SAMPLED + 1


def test_a_large_layer_is_never_collected_whole(monkeypatch):
    collected = []
    original = fit._Inside.of.__func__

    def counted(cls, groups, values, count):
        collected.append(len(values))
        return original(cls, groups, values, count)

    monkeypatch.setattr(fit._Inside, "of", classmethod(counted))
    values = np.maximum(np.random.default_rng(0).normal(size=(200_000, 2)), 0).astype(np.float32)
    quantiles(Passes(values), [0.01, 0.25, 0.99], monkeypatch, held=False)
    assert collected[:2] == [0, 0]  # ties at 0 are counted
    assert 0 < collected[2] < 0.05 * values.size
