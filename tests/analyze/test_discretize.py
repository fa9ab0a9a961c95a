import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from ibstore.analyze import parse_recipe
from ibstore.analyze.encode import bits_for
from ibstore.analyze.scan import Source, scan
from ibstore.errors import ValuesError, WaistError

from . import reference

INF, NAN = np.inf, np.nan


def unpacked(packed, bits, units):
    """Bin numbers (sample, unit) from keys, most significant bit first."""
    every = np.unpackbits(packed, axis=1)[:, : bits * units].reshape(len(packed), units, bits)
    return [[int("".join(map(str, unit)), 2) for unit in sample] for sample in every.tolist()]


def codes(values, discretization, reduction="identity"):
    """Bin numbers (sample, unit) by the code under test, fitted on the values themselves."""
    values, recipe = np.asarray(values), parse_recipe(f"{reduction} | {discretization}")
    source = Source(
        lambda work: [work(0, 0, values[None])],
        ("run 'seed0', layer 'conv1', epoch 3",),
        values.shape[1:],
        values.dtype,
        len(values),
    )
    packed = []
    scan(source, {recipe: 1 << 30}, lambda _, __, ___, keys: packed.append(keys))
    discretize, form = recipe.discretize, source.form(recipe)
    bits = bits_for(discretize.bins) if hasattr(discretize, "bins") else discretize.bits(form.dtype)
    return unpacked(np.concatenate(packed), bits, form.units)


def column(*values, dtype=np.float32):
    return np.array(values, dtype)[:, None]


def flat(found):
    return [code for [code] in found]


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_threshold_is_strict_to_the_last_bit(dtype):
    half = dtype(0.5)
    values = column(np.nextafter(half, dtype(0)), half, np.nextafter(half, dtype(1)), INF, -INF, dtype=dtype)
    assert flat(codes(values, "threshold(0.5)")) == [0, 0, 1, 1, 0]


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_threshold_at_zero_sees_the_smallest_number(dtype):
    tiny = np.nextafter(dtype(0), dtype(1))
    assert flat(codes(column(0.0, -0.0, tiny, -tiny, dtype=dtype), "threshold(0)")) == [0, 0, 1, 0]


def test_a_threshold_that_is_no_float32_is_compared_as_the_number_that_was_written():
    below, above = np.float32(0.1), np.nextafter(np.float32(0.1), np.float32(0))
    assert float(below) > 0.1 > float(above)  # the float32 nearest to 0.1 lies above 0.1
    assert flat(codes(column(above, below), "threshold(0.1)")) == [0, 1]
    assert flat(codes(column(0.1, dtype=np.float64), "threshold(0.1)")) == [0]


@pytest.mark.parametrize("threshold", ["3e38", "3.5e38", "-3.5e38", "1e300", "-1e300", "1e-300", "70000"])
@pytest.mark.parametrize("dtype", [np.float16, np.float32])
def test_thresholds_beyond_the_dtype_mean_what_they_mean_for_real_numbers(threshold, dtype):
    top = np.finfo(dtype).max
    values = column(-INF, -top, -1, 0, 1, top, INF, dtype=dtype)
    assert flat(codes(values, f"threshold({threshold})")) == [float(v) > float(threshold) for [v] in values.tolist()]


@given(
    st.sampled_from([np.float16, np.float32, np.float64]).flatmap(
        lambda dtype: arrays.arrays(dtype, st.integers(1, 30), elements=st.floats(width=np.dtype(dtype).itemsize * 8))
    ),
    st.lists(st.floats(-1e300, 1e300), min_size=1, max_size=5, unique=True),
)
def test_a_bin_is_the_number_of_edges_that_are_not_above_the_value(values, edges):
    values = values[~np.isnan(values)][:, None]
    values = np.concatenate([values, np.array(edges).clip(*2 * [values.dtype.type(0)])[:, None].astype(values.dtype)])
    with np.errstate(over="ignore"):
        near = np.array(edges).astype(values.dtype)[:, None]
        values = np.concatenate([values, near, np.nextafter(near, -INF), np.nextafter(near, INF)])
    expected = [sum(edge <= float(value) for edge in edges) for [value] in values.tolist()]
    assert flat(codes(values, f"edges({', '.join(map(str, sorted(edges)))})")) == expected


@pytest.mark.parametrize("dtype", [np.int8, np.int16, np.int32, np.int64, np.uint8])
def test_integers_are_binned_as_they_are(dtype):
    values = column(0, 1, 2, 3, 100, dtype=dtype)
    assert flat(codes(values, "threshold(1)")) == [0, 0, 1, 1, 1]
    assert flat(codes(values, "edges(0.5, 2, 2.5, 200)")) == [0, 1, 2, 3, 3]
    assert flat(codes(values, "equalmass(bins=2)")) == [0, 0, 1, 1, 1]
    assert flat(codes(values, "labels")) == [0, 1, 2, 3, 100]
    assert flat(codes(values, "width(2)")) == [0, 0, 2, 2, 100]


def test_truth_values_are_binned_too():
    values = column(True, False, dtype=bool)
    assert flat(codes(values, "threshold(0.5)")) == [1, 0]
    assert flat(codes(values, "exact")) == [1, 0]
    assert flat(codes(values, "labels")) == [1, 0]
    assert flat(codes(values, "quantile(bins=2)")) == [1, 0]


def test_uniform_splits_evenly_and_clips():
    values = column(-INF, -5, -1, -0.51, -0.5, 0, 0.49, 0.5, 1, 5, INF)
    assert flat(codes(values, "uniform(bins=4, lo=-1, hi=1)")) == [0, 0, 0, 0, 1, 2, 2, 3, 3, 3, 3]
    assert flat(codes(values, "uniform(bins=1, lo=-1, hi=1)")) == [0] * 11


def test_edges_are_open_at_both_ends():
    values = column(-INF, -1e30, -1, 0, 0.25, 0.5, 1e30, INF)
    assert flat(codes(values, "edges(0, 0.5)")) == [0, 0, 0, 1, 1, 2, 2, 2]


def test_more_bins_than_a_byte_tells():
    values = np.arange(1000, dtype=np.float32)[:, None]
    edges = ", ".join(map(str, range(1, 1000)))
    assert flat(codes(values, f"edges({edges})")) == list(range(1000))


def test_width_floors_to_both_sides_and_clips_at_32_bits():
    values = column(-INF, -1e300, -0.5, -0.49, -0.0, 0.0, 0.49, 0.5, 1e300, INF, dtype=np.float64)
    lowest, highest = 2**32 - 1, 2**32 - 2
    assert flat(codes(values, "width(0.5)")) == [lowest, lowest, 1, 1, 0, 0, 0, 2, highest, highest]
    assert flat(codes(values, "width(1e-300)"))[1] == lowest
    assert flat(codes(column(-1, 2**31), "width(1)")) == [1, highest]
    assert flat(codes(column(-1, -0.5, 0.5, 2, dtype=np.float16), "width(0.5)")) == [3, 1, 2, 8]


def test_width_divides_in_float64():
    value = np.float32(0.3)  # 0.30000001192…: three widths of 0.1 in float64, and in float32 too few
    assert flat(codes(column(value), "width(0.1)")) == [2 * int(np.floor(float(value) / 0.1))]


RELU = np.maximum(np.random.default_rng(0).normal(size=(500, 3, 2)).astype(np.float32), 0)
SIGNED = np.random.default_rng(1).normal(size=(400, 2, 3)).astype(np.float32)
CONSTANT = np.full((50, 2, 2), -1.25, np.float32)


@pytest.mark.parametrize("values", [RELU, SIGNED, CONSTANT, RELU.astype(np.float16), SIGNED.astype(np.float64)])
@pytest.mark.parametrize("scope", ["unit", "channel", "layer"])
@pytest.mark.parametrize("discretization", reference.FITTED)
def test_fitted_bins_are_numpy_s_quantiles(discretization, scope, values):
    recipe = reference.Recipe("identity", discretization, scope)
    assert codes(values, str(recipe).partition(" | ")[2]) == recipe.codes(values).tolist()


def test_quantile_clips_to_its_two_quantiles():
    values = np.arange(101, dtype=np.float32)[:, None]
    values[0], values[100] = -1e6, 1e6  # beyond the 1 % and 99 % quantiles, 1 and 99
    found = flat(codes(values, "quantile(bins=2)"))
    assert found == [int(value >= 50) for [value] in values.tolist()]
    assert flat(codes(values, "quantile(bins=7)"))[-1] == 6


def test_a_value_at_an_edge_belongs_above_it():
    values = column(0, 1, 2, 3, 4, 5, 6, 7, 8)
    assert flat(codes(values, "quantile(bins=2, lo=0, hi=1)")) == [0, 0, 0, 0, 1, 1, 1, 1, 1]
    assert flat(codes(values, "quantile(bins=4, lo=0, hi=1)")) == [0, 0, 1, 1, 2, 2, 3, 3, 3]
    assert flat(codes(values, "equalmass(bins=2)")) == [0, 0, 0, 0, 1, 1, 1, 1, 1]


@pytest.mark.parametrize("step", [-1, 0, 1])
def test_an_edge_between_two_float32_is_compared_in_float64(step):
    low, high = np.float32(0), np.float32(0.1)
    edge = (float(low) + float(high)) / 2
    value = np.float32(edge)
    for _ in range(abs(step)):
        value = np.nextafter(value, np.float32(step * INF))
    values = column(low, value, high)
    assert flat(codes(values, "quantile(bins=2, lo=0, hi=1)")) == [0, int(float(value) >= edge), 1]


def test_a_constant_unit_has_one_bin_under_quantiles():
    values = np.stack([np.zeros(200), np.arange(200), np.r_[np.zeros(199), 5]], axis=1).astype(np.float32)
    found = np.array(codes(values, "quantile(bins=2)"))
    assert found[:, 0].tolist() == [0] * 200
    assert found[:, 1].sum() == 100
    assert found[:, 2].tolist() == [0] * 200  # its two quantiles are both 0


def test_ties_stay_together_under_equal_mass():
    values = column(*[0] * 70, *range(1, 31))
    found = flat(codes(values, "equalmass(bins=4)"))
    assert len(set(found[:70])) == 1
    assert len(set(found[70:])) > 1
    assert set(flat(codes(column(*[3] * 20), "equalmass(bins=4)"))) == {3}


def test_the_thesis_s_edges():
    values = np.arange(101, dtype=np.float32)[:, None] + 100  # quantiles 101 and 199
    two = [int(v >= 100.9) + int(v >= 199.1 / 2) for [v] in values.tolist()]
    assert flat(codes(values, "thesis_edges(num=2)")) == two
    five = np.linspace(100.9, 199.1, 5)
    assert flat(codes(values, "thesis_edges(num=5)")) == [sum(v >= five) for [v] in values.tolist()]
    assert flat(codes(values, "thesis_edges(num=1)")) == [int(v >= 100.9) for [v] in values.tolist()]


def test_the_thesis_s_halved_end_may_lie_below_the_other():
    values = np.arange(-200, -99, dtype=np.float32)[:, None]  # quantiles -199 and -101: edges -199.1 and -50.45
    assert set(flat(codes(values, "thesis_edges(num=2)"))) == {0, 1}
    far = column(*[-1000.0] * 50)  # edges -1000.1 and -499.95
    assert set(flat(codes(far, "thesis_edges(num=2)"))) == {1}


@pytest.mark.parametrize(
    "discretization", ["quantile(bins=3)", "equalmass(bins=3)", "thesis_edges", "thesis_edges(num=4)"]
)
@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_infinities_have_bins_and_order_is_kept(discretization, dtype):
    values = column(*[-INF] * 4, *range(20), *[INF] * 4, dtype=dtype)
    found = flat(codes(values, discretization))
    assert found == sorted(found)
    assert len(set(found)) > 1
    for constant in (-INF, INF):
        assert len(set(flat(codes(column(*[constant] * 9, dtype=dtype), discretization)))) == 1


def test_infinite_quantiles_still_part_the_infinities_from_the_rest():
    values = column(*[-INF] * 10, *range(10), *[INF] * 10)
    assert flat(codes(values, "quantile(bins=2)")) == [*[0] * 10, *[1] * 20]  # between ±1e300 the middle is 0
    assert flat(codes(values, "equalmass(bins=3)")) == [*[0] * 10, *[1] * 10, *[2] * 10]


def test_exact_tells_every_value_from_every_other():
    tiny = np.float32(1e-45)
    values = column(0.0, -0.0, tiny, -tiny, 1, np.nextafter(np.float32(1), np.float32(2)), INF, -INF)
    found = flat(codes(values, "exact"))
    assert found[0] == found[1]
    assert len(set(found)) == len(found) - 1


@pytest.mark.parametrize(
    ("dtype", "whole"), [(np.float16, np.uint16), (np.float32, np.uint32), (np.float64, np.uint64)]
)
def test_exact_counts_every_nan_as_one_value(dtype, whole):
    quiet = np.array([NAN, -NAN], dtype)
    payload = quiet.view(whole) + np.array([1, 3], whole)
    signalling = np.array([np.array(INF, dtype).view(whole) + 1], whole)
    values = np.concatenate([quiet, payload.view(dtype), signalling.view(dtype), np.array([1, INF], dtype)])
    assert np.isnan(values[:-2]).all()
    found = flat(codes(values[:, None], "exact"))
    assert len(set(found[:-2])) == 1
    assert len(set(found)) == 3


@given(arrays.arrays(np.float32, (6, 2), elements=st.floats(width=32, allow_nan=False) | st.sampled_from([0.0, -0.0])))
def test_exact_codes_are_equal_where_values_are(values):
    found = np.array(codes(values, "exact"))
    np.testing.assert_array_equal(found[:, None] == found[None], values[:, None] == values[None])


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
@pytest.mark.parametrize("mantissa", [1, 3, 7, 10, 23, 52])
def test_float_bits_are_those_of_a_shorter_mantissa(dtype, mantissa):
    random = np.random.default_rng(mantissa)
    powers = np.exp2(random.integers(-12, 12, 300)) * random.choice([-1, 1], 300)
    values = (random.uniform(1, 2, 300) * powers).astype(dtype)
    found = np.array(flat(codes(values[:, None], f"float_bits({mantissa})")))
    fractions, exponents = np.frexp(
        values.astype(np.float64)
    )  # |fraction| is ½ … 1: a mantissa's first bit is not stored
    steps = np.trunc(np.ldexp(fractions, min(mantissa, np.finfo(dtype).nmant) + 1))
    same = (steps[:, None] == steps[None]) & (exponents[:, None] == exponents[None])
    np.testing.assert_array_equal(found[:, None] == found[None], same)


@given(arrays.arrays(np.float32, (6, 2), elements=st.floats(width=32) | st.sampled_from([0.0, -0.0, NAN, INF, -INF])))
def test_all_bits_of_a_float_are_its_value(values):
    short, whole = (np.array(codes(values, recipe)) for recipe in ("float_bits(23)", "exact"))
    np.testing.assert_array_equal(short[:, None] == short[None], whole[:, None] == whole[None])


def test_float_bits_tell_zero_infinities_and_nan_apart():
    found = flat(codes(column(0.0, -0.0, INF, -INF, NAN, 3e38, 1e-45), "float_bits(1)"))
    assert found[0] == found[1] == found[-1]
    assert len(set(found)) == 5


def test_float_bits_are_of_floats():
    with pytest.raises(
        ValuesError, match="float_bits takes floats, these are int64, which exact counts; choose another"
    ):
        codes(column(1, 2, dtype=np.int64), "float_bits(7)")
    for mantissa in (0, 53):
        with pytest.raises(WaistError, match=f"1 to 52, not {mantissa}"):
            parse_recipe(f"identity | float_bits({mantissa})")


def test_labels_are_integers_of_any_type():
    assert flat(codes(column(3, 0, 7), "labels")) == [3, 0, 7]
    assert flat(codes(column(-1, 2**62, dtype=np.int64), "labels")) == [2**64 - 1, 2**62]
    assert flat(codes(column(-0.0, 0.0), "labels")) == [0, 0]
    assert codes(np.array([[0.1, 0.9], [0.8, 0.2]]), "labels", "argmax") == [[1], [0]]


@pytest.mark.parametrize(
    ("values", "said"),
    [
        (column(1, 2.5), r"labels takes integers, found 2\.5"),
        (column(1, INF), "labels takes integers, found inf"),
        (column(1e30), "labels takes integers, found 1"),
        (column(2**64 - 1, dtype=np.uint64), "labels takes integers, found 18446744073709551615"),
    ],
)
def test_other_labels_are_refused_with_run_layer_and_epoch(values, said):
    with pytest.raises(ValuesError, match=f"run 'seed0', layer 'conv1', epoch 3: {said}.*; choose another"):
        codes(values, "labels")


@pytest.mark.parametrize(
    "discretization",
    [
        "threshold(0)",
        "quantile(bins=2)",
        "equalmass(bins=2)",
        "thesis_edges",
        "edges(0)",
        "uniform(2, 0, 1)",
        "width(1)",
        "labels",
    ],
)
@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_nan_is_refused_with_run_layer_and_epoch(discretization, dtype):
    values = np.zeros((5, 2), dtype)
    values[3, 1] = NAN
    with pytest.raises(ValuesError) as found:
        codes(values, discretization)
    said = str(found.value)
    assert said.startswith("run 'seed0', layer 'conv1', epoch 3 has NaN")
    assert "leave the epoch out with --epoch" in said


def test_infinities_that_a_reduction_turns_into_nan_are_refused_alike():
    values = np.array([[INF, 0]], np.float32)
    with pytest.raises(ValuesError, match="has NaN"):
        codes(values, "threshold(0.5)", "softmax")
    with pytest.raises(ValuesError, match="has NaN"):
        codes(np.array([[[[INF, -INF]]]], np.float32), "threshold(0.5)", "avgpool(1, 2)")


def test_a_discretizer_that_miscounts_its_bins_is_refused():
    from ibstore.analyze.discretize import DISCRETIZATIONS, Binning, register_discretizer

    @register_discretizer
    def miscounted():
        return Binning(2, (0.25, 0.75), lambda quantiles: quantiles)

    try:
        with pytest.raises(WaistError, match="declares 2 bins but makes 2 edges"):
            codes(column(0, 1, 2, 3), "miscounted")
    finally:
        del DISCRETIZATIONS["miscounted"]
