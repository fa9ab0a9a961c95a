import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from ibstore.capture.values import as_array, as_tensor, encode, floating_dtype, numpy_name, stored_dtype
from ibstore.errors import CaptureError, UsageError

FLOAT16_LIMIT = 65520.0  # from here on the nearest float16 is infinity


@given(arrays.arrays(np.float32, st.integers(1, 20), elements=st.floats(width=32)))
def test_float16_overflows_exactly_where_a_finite_value_would_become_infinite(values):
    beyond = [float(value) for value in values if np.isfinite(value) and abs(value) >= FLOAT16_LIMIT]
    if beyond:
        with pytest.raises(OverflowError) as refusal:
            encode(torch.from_numpy(values), torch.float16)
        assert refusal.value.args == (beyond[0],)
    else:
        with np.errstate(all="ignore"):
            expected = values.astype(np.float16)
        np.testing.assert_array_equal(encode(torch.from_numpy(values), torch.float16), expected)


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


@pytest.mark.parametrize("name", ["float8", "bfloat16", "int8", ""])
def test_a_dtype_that_no_activation_has_is_refused(name):
    with pytest.raises(UsageError, match="choose one of float16, float32, float64"):
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
