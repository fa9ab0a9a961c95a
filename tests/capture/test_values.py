import math
from fractions import Fraction

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from ibstore.capture.values import as_array, as_tensor, encode, floating_dtype, numpy_name, stored_dtype
from ibstore.errors import CaptureError, UsageError

FORMS = {
    torch.float16: (11, -14, 65504.0),
    torch.bfloat16: (8, -126, 3.3895313892515355e38),
    torch.float32: (24, -126, 3.4028234663852886e38),
}
"""Significant bits, lowest exponent and largest number of what floats are rounded to."""

ROUNDINGS = [
    (torch.float32, torch.float16),
    (torch.float32, torch.bfloat16),
    (torch.float64, torch.float16),
    (torch.float64, torch.bfloat16),
    (torch.float64, torch.float32),
    (torch.bfloat16, torch.float16),
    (torch.float16, torch.bfloat16),
]
NUMBERS = st.one_of(
    st.floats(),
    st.floats(-1, 1),
    st.floats(-1e-4, 1e-4),  # about the smallest normal float16, 6.1e-5
    st.floats(-1e-6, 1e-6),
    st.floats(-2e-38, 2e-38),  # and bfloat16 and float32, 1.2e-38
    st.floats(65000, 66000),
    st.floats(3.3e38, 3.5e38),
)


def nearest(value, floating):
    """The nearest number of that form, ties to even: what rounding means, in exact arithmetic."""
    bits, lowest, _ = FORMS[floating]
    if not math.isfinite(value):
        return value
    quantum = 2.0 ** (max(math.frexp(value)[1] - 1, lowest) - bits + 1)
    return round(Fraction(value) / Fraction(quantum)) * quantum


@given(st.sampled_from(ROUNDINGS), st.lists(NUMBERS, min_size=1, max_size=8))
def test_no_value_moves_by_more_than_the_unit_roundoff_of_the_largest_or_all_are_refused(types, numbers):
    source, floating = types
    bits, _, limit = FORMS[floating]
    values = torch.tensor(numbers, dtype=torch.float64).to(source)
    exact = values.double().tolist()
    finite = [value for value in exact if math.isfinite(value)]
    promised = max((abs(value) for value in finite), default=0.0) * 2.0**-bits
    try:
        stored = encode(values, floating)
    except OverflowError:
        assert max(abs(nearest(value, floating)) for value in finite) * (1 + 2**-23) > limit
    except ArithmeticError:
        assert any(abs(nearest(value, floating) - value) > promised for value in finite)
    else:
        for value, found in zip(exact, stored.astype(np.float64).tolist(), strict=True):
            if math.isfinite(value):
                assert abs(found - value) <= promised
            else:
                assert found == value or (math.isnan(found) and math.isnan(value))


@given(st.lists(st.floats(width=32).filter(lambda value: not abs(value) < 2.0**-14), min_size=1, max_size=20))
def test_float16_overflows_exactly_where_a_finite_value_would_become_infinite(numbers):
    values = np.array(numbers, np.float32)
    beyond = [float(value) for value in values if np.isfinite(value) and abs(value) >= 65520]
    if beyond:
        with pytest.raises(OverflowError) as refusal:
            encode(torch.from_numpy(values), torch.float16)
        assert f"it has the value {beyond[0]:g}, beyond the largest float16 (65504)" in str(refusal.value)
    else:
        np.testing.assert_array_equal(encode(torch.from_numpy(values), torch.float16), values.astype(np.float16))


@pytest.mark.parametrize("tiny", [2.0**-24, -(2.0**-14) * 1.5, 0.0])
def test_tiny_values_that_float16_holds_exactly_are_stored(tiny):
    assert encode(torch.tensor([tiny, 2 * tiny]), torch.float16).tolist() == [tiny, 2 * tiny]


def test_tiny_values_of_which_float16_keeps_few_bits_are_refused():
    with pytest.raises(ArithmeticError) as refusal:
        encode(torch.tensor([3e-6, 1e-7]), torch.float16)
    assert str(refusal.value) == "its values are all below 6.10352e-05 (up to 3e-06), where float16 keeps few bits"


def test_no_values_are_rounded_to_none():
    assert encode(torch.zeros(0, 3), torch.float16).shape == (0, 3)


@given(arrays.arrays(np.float32, st.integers(1, 20), elements=st.floats(width=32)))
def test_float32_is_stored_bit_for_bit(values):
    stored = encode(torch.from_numpy(values), torch.float32)
    assert stored.dtype == np.float32
    np.testing.assert_array_equal(stored.view(np.uint32), values.view(np.uint32))


def test_float64_overflows_float32_too():
    with pytest.raises(OverflowError):
        encode(torch.tensor([1.0, 1e300], dtype=torch.float64), torch.float32)


@pytest.mark.parametrize(
    ("dtype", "name"),
    [
        (torch.bfloat16, "float16"),
        (torch.float64, "float16"),
        (torch.bool, "uint8"),
        (torch.uint8, "uint8"),
        (torch.int64, "int64"),
    ],
)
def test_only_floats_and_truth_values_change_their_type(dtype, name):
    assert numpy_name(stored_dtype(dtype, torch.float16)) == name


def test_bfloat16_becomes_float32_exactly():
    values = torch.tensor([1.0, 3.140625, -2e38], dtype=torch.bfloat16)
    assert encode(values, torch.float32).tolist() == values.tolist()
    assert as_array(values).tolist() == values.tolist()


@pytest.mark.parametrize("name", ["float8", "int8", ""])
def test_a_dtype_that_no_activation_has_is_refused(name):
    with pytest.raises(UsageError, match="choose one of float16, bfloat16, float32, float64"):
        floating_dtype(name)


def test_arrays_that_torch_does_not_take_become_tensors():
    array = np.arange(6, dtype=">f4").reshape(2, 3)[::-1]
    array.flags.writeable = False
    assert as_tensor(array).tolist() == [[3, 4, 5], [0, 1, 2]]


def test_an_array_that_is_read_only_is_copied_and_stays_as_it_is():
    array = np.zeros(3, np.float32)
    array.flags.writeable = False
    as_tensor(array)[0] = 1
    assert array[0] == 0


def test_an_array_that_can_be_written_is_not_copied():
    array = np.zeros(3, np.float32)
    as_tensor(array)[0] = 1
    assert array[0] == 1


def test_an_array_of_texts_is_refused():
    with pytest.raises(CaptureError, match="x has dtype <U1, which torch does not have"):
        as_tensor(np.array(["a"]))


def test_gradients_stay_behind():
    values = torch.ones(2, requires_grad=True)
    assert as_array(values).tolist() == [1, 1]
    assert not as_tensor(values).requires_grad
