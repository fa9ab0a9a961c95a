import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from scipy import special

from ibstore.analyze import parse_recipe
from ibstore.analyze.reduce import REDUCTIONS
from ibstore.errors import WaistError


def reduce(text, values):
    return parse_recipe(f"{text} | exact").reduce(values)


images = arrays.arrays(
    np.float32,
    st.tuples(st.integers(1, 3), st.integers(1, 6), st.integers(1, 9), st.integers(1, 9)),
    elements=st.floats(-1e3, 1e3, width=32),
)
windows = st.tuples(st.integers(1, 4), st.integers(1, 4))


@settings(max_examples=50)
@given(images, windows, st.integers(1, 3))
def test_pooling_is_torch_s(values, window, depth):
    import torch
    from torch.nn import functional

    height, width = (min(size, length) for size, length in zip(window, values.shape[2:], strict=True))
    depth = min(depth, values.shape[1])
    given = torch.from_numpy(values)
    deep = given[:, None]  # to torch the channels are the depth of one channel
    np.testing.assert_array_equal(
        reduce(f"maxpool({height}, {width})", values), functional.max_pool2d(given, (height, width))
    )
    np.testing.assert_array_equal(
        reduce(f"maxpool({depth}, {height}, {width})", values),
        functional.max_pool3d(deep, (depth, height, width))[:, 0],
    )
    np.testing.assert_allclose(
        reduce(f"avgpool({height}, {width})", values),
        functional.avg_pool2d(given.double(), (height, width)),
        rtol=1e-6,
        atol=1e-30,
    )
    np.testing.assert_allclose(
        reduce(f"avgpool({depth}, {height}, {width})", values),
        functional.avg_pool3d(deep.double(), (depth, height, width))[:, 0],
        rtol=1e-6,
        atol=1e-30,
    )


def test_pooling_drops_what_a_window_does_not_cover():
    values = np.arange(2 * 5 * 7, dtype=np.float32).reshape(1, 2, 5, 7)
    assert reduce("maxpool(2, 3)", values).tolist() == [[[[9, 12], [23, 26]], [[44, 47], [58, 61]]]]
    assert reduce("maxpool(2, 2, 3)", values).tolist() == [[[[44, 47], [58, 61]]]]
    assert reduce("avgpool(5, 7)", values).tolist() == [[[[17]], [[52]]]]


def test_pooling_takes_any_trailing_axes():
    values = np.arange(24, dtype=np.float32).reshape(2, 3, 4)
    assert reduce("maxpool(3, 2)", values).tolist() == [[[9, 11]], [[21, 23]]]
    deep = np.arange(2 * 3 * 4 * 5 * 6).reshape(2, 3, 4, 5, 6)
    np.testing.assert_array_equal(
        reduce("maxpool(2, 2, 2)", deep), deep.reshape(2, 3, 4, 5, 6)[:, :, 1::2, 1:4:2, 1::2]
    )


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64, np.int8, np.uint8, np.int64, bool])
def test_pooling_keeps_extremes_of_every_dtype(dtype):
    values = np.array([0, 1, 1, 0, 0, 0, 0, 0], dtype).reshape(1, 1, 2, 4)
    pooled = reduce("maxpool(2, 2)", values)
    assert pooled.dtype == dtype
    assert pooled.tolist() == [[[[1, 1]]]]
    assert reduce("avgpool(2, 2)", values).tolist() == [[[[0.25, 0.25]]]]
    assert reduce("avgpool(2, 2)", values).dtype == np.result_type(dtype, np.float32)


def test_averages_of_float16_are_summed_in_float64():
    values = np.full((1, 1, 64, 64), 60_000, np.float16)
    values[0, 0, 0, 0] = 0
    mean = 60_000 - 60_000 / 4096
    assert reduce("avgpool(64, 64)", np.asarray(values)).item() == np.float32(np.float16(60_000)) * 4095 / 4096
    assert reduce("channelmean", values).item() == pytest.approx(mean, rel=1e-3)
    assert reduce("channelmean", values).dtype == np.float32


@pytest.mark.parametrize(
    ("recipe", "shape", "said"),
    [
        ("maxpool(4, 4)", (16, 3, 4), r"the window \(4, 4\) is larger than the layer's trailing axes \(3, 4\)"),
        ("avgpool(2, 1, 1)", (1, 3, 4), r"the window \(2, 1, 1\) is larger than the layer's trailing axes \(1, 3, 4\)"),
        ("maxpool(1, 1)", (10,), r"a window of 2 sizes does not fit a layer of shape \(10,\)"),
        ("maxpool(1, 1, 1)", (5, 5), r"a window of 3 sizes does not fit a layer of shape \(5, 5\)"),
        ("softmax", (), "one number a sample and no channel axis"),
        ("argmax", (), "one number a sample and no channel axis"),
        ("channelmean", (), "one number a sample and no channel axis"),
        ("channelmax", (), "one number a sample and no channel axis"),
    ],
)
def test_what_does_not_fit_the_layer_is_refused_with_its_shape(recipe, shape, said):
    with pytest.raises(WaistError, match=said) as found:
        reduce(recipe, np.zeros((2, *shape), np.float32))
    assert str(found.value).startswith(f"{parse_recipe(recipe + ' | exact')}: ")
    assert str(found.value).endswith(f"the layer's shape is {shape}")


@given(
    arrays.arrays(
        np.float32,
        st.tuples(st.integers(1, 4), st.integers(1, 7)) | st.tuples(*4 * [st.integers(1, 4)]),
        elements=st.floats(-80, 80, width=32),
    )
)
def test_softmax_is_scipy_s_over_the_channels(values):
    ours = reduce("softmax", values)
    assert ours.dtype == np.float32
    np.testing.assert_allclose(ours, special.softmax(values.astype(np.float64), axis=1), rtol=1e-5, atol=1e-30)


@pytest.mark.parametrize(
    ("dtype", "result"), [(np.float16, np.float32), (np.int64, np.float64), (np.uint8, np.float32)]
)
def test_softmax_of_narrow_numbers_is_computed_in_floats(dtype, result):
    values = np.array([[0, 100, 0]], dtype)
    assert reduce("softmax", values).dtype == result
    assert reduce("softmax", values).tolist() == pytest.approx(np.array([[0, 1, 0]]))


def test_softmax_of_infinities():
    inf = np.inf
    values = np.array([[0, -inf, 0], [inf, 0, 0], [-inf, -inf, -inf]], np.float32)
    np.testing.assert_array_equal(reduce("softmax", values)[0], [0.5, 0, 0.5])
    assert np.isnan(reduce("softmax", values)[1:]).any(axis=1).all()  # said by nobody but the result


@pytest.mark.parametrize(
    ("recipe", "expected"),
    [
        ("argmax", [[1, 0, 0, 1]]),
        ("channelmax", [[3, 7]]),
        ("channelmean", [[0.75, 2.75]]),
        ("identity", [[[[0, 3], [1, -1]], [[7, 2], [1, 1]]]]),
    ],
)
def test_channels(recipe, expected):
    values = np.array([[[[0, 3], [1, -1]], [[7, 2], [1, 1]]]], np.float32)
    assert reduce(recipe, values).tolist() == expected


def test_argmax_takes_the_first_of_equals_and_nan_for_the_largest():
    values = np.array([[1, 2, 2], [np.nan, 9, np.nan], [0, -np.inf, np.inf]], np.float32)
    assert reduce("argmax", values).tolist() == [[1], [0], [2]]
    assert reduce("argmax", np.zeros((4, 3))).tolist() == [[0], [0], [0], [0]]


@pytest.mark.parametrize("recipe", ["channelmean", "channelmax"])
def test_a_layer_without_places_is_its_own_channels(recipe):
    values = np.array([[1.5, -2], [0, 3]], np.float32)
    np.testing.assert_array_equal(reduce(recipe, values), values)


@pytest.mark.parametrize("recipe", ["maxpool(2, 2)", "avgpool(2, 2)", "softmax", "channelmean", "channelmax"])
def test_nan_stays_nan(recipe):
    values = np.zeros((2, 2, 2, 2), np.float32)
    values[1, 0, 0, 1] = np.nan
    nan = np.isnan(reduce(recipe, values)).reshape(2, -1)
    assert not nan[0].any()
    assert nan[1].any()


@given(
    st.sampled_from([name for name in REDUCTIONS if "pool" not in name] + ["maxpool(2, 2)", "avgpool(2, 1, 2)"]),
    arrays.arrays(np.float32, (7, 3, 4, 4), elements=st.floats(-100, 100, width=32)),
    st.lists(st.integers(1, 6), unique=True),
)
def test_no_value_depends_on_how_samples_are_blocked(recipe, values, cuts):
    parts = [reduce(recipe, part) for part in np.split(values, sorted(cuts))]
    np.testing.assert_array_equal(np.concatenate(parts), reduce(recipe, values))
