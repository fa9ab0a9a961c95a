import hashlib

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from ibstore.analyze import encode

WORDS = {8: np.uint8, 16: np.uint16, 32: np.uint32, 64: np.uint64}


def patterns(bits):
    dtype = next(word for size, word in WORDS.items() if bits <= size)
    shape = st.tuples(st.integers(1, 12), st.integers(1, 19))
    few = st.sampled_from([0, 1, 2**bits - 1])
    return shape.flatmap(
        lambda shape: arrays.arrays(dtype, shape, elements=few | st.integers(0, 2**bits - 1), fill=st.just(0))
    )


@given(
    st.sampled_from([*range(1, 9), 12, 16, 24, 32, 64]).flatmap(lambda bits: st.tuples(st.just(bits), patterns(bits)))
)
def test_keys_are_equal_if_and_only_if_patterns_are(case):
    bits, codes = case
    packed = encode.pack(codes, bits)
    assert packed.dtype == np.uint8
    assert packed.shape == (len(codes), -(-codes.shape[1] * bits // 8))
    np.testing.assert_array_equal(
        (packed[:, None] == packed[None]).all(axis=2), (codes[:, None] == codes[None]).all(axis=2)
    )
    np.testing.assert_array_equal(unpack(packed, bits, codes.shape[1]), codes)


def unpack(packed, bits, units):
    flat = np.unpackbits(packed, axis=1)[:, : bits * units].reshape(len(packed), units, bits)
    return [[int("".join(map(str, unit)), 2) for unit in sample] for sample in flat.tolist()]


def test_truth_values_and_numbers_make_the_same_keys():
    codes = np.array([[0, 1, 1], [1, 0, 0]])
    for bits in (1, 2):
        np.testing.assert_array_equal(encode.pack(codes.astype(bool), bits), encode.pack(codes.astype(np.uint8), bits))


def test_strided_codes_are_packed_as_they_read():
    codes = np.arange(24, dtype=np.uint32).reshape(4, 6)
    for bits in (5, 8, 16, 32):
        np.testing.assert_array_equal(encode.pack(codes.T, bits), encode.pack(codes.T.copy(), bits))
        np.testing.assert_array_equal(encode.pack(codes[::-1, ::2], bits), encode.pack(codes[::-1, ::2].copy(), bits))


@pytest.mark.parametrize(
    ("codes", "bits"),
    [
        (1, 1),
        (2, 1),
        (3, 2),
        (4, 2),
        (5, 3),
        (16, 4),
        (17, 5),
        (128, 7),
        (129, 8),
        (256, 8),
        (257, 16),
        (65_536, 16),
        (65_537, 32),
    ],
)
def test_bits_are_as_few_as_serve(codes, bits):
    assert encode.bits_for(codes) == bits


@pytest.mark.parametrize("bytes_", [1, encode.WIDEST])
def test_keys_are_counted_as_they_are(bytes_):
    keys = np.random.default_rng(0).integers(0, 256, (5, bytes_), np.uint8)
    assert encode.compact(keys) is keys


def test_the_widest_keys_are_counted_by_their_sha_256():
    keys = np.random.default_rng(0).integers(0, 256, (5, 2 * (encode.WIDEST + 1)), np.uint8)[:, ::2]
    found = encode.compact(keys)
    assert [key.tobytes() for key in found] == [hashlib.sha256(key.tobytes()).digest() for key in keys]
