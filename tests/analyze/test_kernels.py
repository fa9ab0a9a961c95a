"""The compiled loops against their plain numpy versions, which are the ones to read first."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from ibstore.analyze import kernels
from ibstore.analyze.sql import arrow

DTYPES = [np.float32, np.float64, np.int64, np.uint8]


def tallied(values, low, high):
    """By unit: how many values are below, at ``low``, at ``high`` and between them."""
    kinds = values < low, values == low, values == high, (values > low) & (values < high)
    return [kind.sum(axis=0) for kind in kinds]


def gathered(values, low, high):
    """The values between, unit after unit."""
    return np.concatenate([unit[(unit > a) & (unit < b)] for unit, a, b in zip(values.T, low, high, strict=True)])


def counted(values, edges):
    """How many edges are ≤ each value."""
    return (values[:, None] >= edges[None]).sum(axis=1)


def stepped(values, step):
    """Twice the number of steps in each value, rounded down; −2k − 1 where it is below 0."""
    with np.errstate(over="ignore"):
        counts = np.floor(values.astype(np.float64) / step).clip(-(2.0**31), 2.0**31 - 1).astype(np.int64)
    return np.where(counts < 0, -2 * counts - 1, 2 * counts)


@st.composite
def blocks(draw, dtype):
    """Values (row, unit) with many ties, and two bounds a unit, in any order."""
    shape = draw(st.tuples(st.integers(0, 12), st.integers(1, 19)))
    few = st.sampled_from([0, 1, 2, 3, 5])
    values, bounds = (draw(arrays.arrays(dtype, size, elements=few)) for size in (shape, (2, shape[1])))
    low, high = bounds.astype(np.result_type(dtype, np.float32))
    if draw(st.booleans()):
        low = np.where(low == 0, -np.inf, low).astype(low.dtype)
        high = np.where(high == 5, np.inf, high).astype(high.dtype)
    return laid(draw, values), low, high


def laid(draw, values):
    """The same values, in memory as some of the columns of a wider block, or by themselves."""
    wide = np.concatenate([values, values], axis=1)
    return draw(st.sampled_from([values, wide[:, : values.shape[1]]]))


@pytest.mark.parametrize("dtype", DTYPES)
@given(data=st.data())
def test_tally_and_gather(dtype, data):
    values, low, high = data.draw(blocks(dtype))
    counts = np.zeros((4, values.shape[1]), np.int32)
    for half in (values[:5], values[5:]):
        kernels.tally(half, low, high, *counts)
    np.testing.assert_array_equal(counts, tallied(values, low, high))
    starts = np.cumsum(counts[3], dtype=np.int64)
    inside = np.empty(starts[-1], values.dtype)
    kernels.gather(values, low, high, starts - counts[3], inside)
    np.testing.assert_array_equal(inside, gathered(values, low, high))


@pytest.mark.parametrize("codes", [np.uint8, np.uint32])
@pytest.mark.parametrize("dtype", DTYPES)
@given(data=st.data())
def test_count_edges(dtype, codes, data):
    values, low, high = data.draw(blocks(dtype))
    edges = np.stack([low, high, np.zeros_like(low)])
    found = np.zeros(values.shape, codes)
    kernels.count_edges(values, edges, found)
    np.testing.assert_array_equal(found, counted(values, edges))


@given(data=st.data(), bits=st.integers(1, 31))
def test_pack_bits(bits, data):
    shape = data.draw(st.tuples(st.integers(0, 5), st.integers(1, 19)))
    codes = data.draw(arrays.arrays(np.uint32, shape, elements=st.integers(0, 2**bits - 1)))
    out = np.empty((shape[0], -(-shape[1] * bits // 8)), np.uint8)
    kernels.pack_bits(codes, bits, out)
    text = ["".join(f"{code:0{bits}b}" for code in row).ljust(8 * out.shape[1], "0") for row in codes.tolist()]
    assert ["".join(f"{byte:08b}" for byte in row) for row in out.tolist()] == text


def pooled(values, window, combine):
    """Windows of the trailing axes."""
    rows, *sizes = values.shape
    split = [size for length, wide in zip(sizes, window, strict=True) for size in (length // wide, wide)]
    return combine(values.reshape(rows, *split), axis=(2, 4, 6))


@pytest.mark.parametrize("dtype", [*DTYPES, np.int8])
@given(data=st.data(), window=st.tuples(*3 * [st.integers(1, 3)]), lengths=st.tuples(*3 * [st.integers(1, 3)]))
def test_pool(dtype, data, window, lengths):
    shape = (data.draw(st.integers(0, 3)), *(wide * length for wide, length in zip(window, lengths, strict=True)))
    few = st.sampled_from([0, 1, 2, 3, 5])
    values = data.draw(arrays.arrays(dtype, shape, elements=few))
    for adding, combine, total in ((False, np.max, dtype), (True, np.sum, np.float64)):
        out = np.empty((shape[0], *lengths), total)
        kernels.pool(values, window, adding, out)
        np.testing.assert_array_equal(out, pooled(values, window, combine))


@given(st.lists(st.sampled_from([0.0, 1.0, np.nan, np.inf, -np.inf]), min_size=8, max_size=8))
def test_pool_takes_nan_for_the_largest_as_numpy_does(values):
    block = np.array(values, np.float32).reshape(1, 2, 2, 2)
    out = np.empty((1, 1, 1, 1), np.float32)
    kernels.pool(block, (2, 2, 2), False, out)
    np.testing.assert_array_equal(out.item(), block.max())


@given(
    arrays.arrays(np.float64, (5, 3), elements=st.floats(allow_nan=False))
    | arrays.arrays(np.float32, (4, 2), elements=st.floats(-2, 2, width=32)),
    st.floats(1e-6, 1e6),
)
def test_count_steps(values, step):
    codes = np.empty(values.shape, np.uint32)
    kernels.count_steps(values, step, codes)
    np.testing.assert_array_equal(codes, stepped(values, step))


@given(arrays.arrays(np.uint8, st.tuples(st.integers(1, 9), st.integers(1, 20)), elements=st.sampled_from([0, 1, 255])))
def test_bits_that_differ_are_marked(keys):
    varying = np.zeros(keys.shape[1], np.uint8)
    kernels.mark_varying(keys, keys[0], varying)
    np.testing.assert_array_equal(varying, np.bitwise_or.reduce(keys ^ keys[:1], axis=0))


@given(
    arrays.arrays(np.uint8, st.tuples(st.integers(1, 9), st.integers(1, 20)), elements=st.sampled_from([0, 1, 9, 255]))
)
def test_keys_are_joined_to_words_without_the_bits_that_are_the_same(keys):
    found = arrow.words([keys[:4], keys[4:]])
    bits = np.unpackbits(keys, axis=1)
    varying = bits[:, (bits != bits[0]).any(axis=0)]
    if found is None:
        assert varying.shape[1] > 64
        return
    words = list(zip(*(column.to_pylist() for column in found.values()), strict=True))
    assert len(set(words)) == len(np.unique(keys, axis=0))
    if len(found) == 1 and keys.shape[1] not in arrow.WHOLE_WORDS:
        assert words == [(int("0" + "".join(map(str, row)), 2),) for row in varying.tolist()]


@given(st.lists(st.lists(st.integers(0, 3), min_size=4, max_size=4), max_size=5), st.integers(0, 99))
def test_regroup(counts, seed):
    """What blocks have of each group stands together afterwards, group by group, in the order of the blocks."""
    random = np.random.default_rng(seed)
    blocks = [[random.random(many).astype(np.float32) for many in own] for own in counts]
    expected = [np.concatenate([np.empty(0, np.float32), *(own[group] for own in blocks)]) for group in range(4)]
    ends = np.cumsum([0, *(len(own) for own in expected[:-1])])
    found = np.empty(sum(len(own) for own in expected), np.float32)
    for own in blocks:
        kernels.regroup(np.concatenate(own), np.array([len(values) for values in own]), ends, found)
    np.testing.assert_array_equal(found, np.concatenate(expected))
