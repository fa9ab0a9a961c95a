import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from ibstore.analyze import fit as fitting
from ibstore.analyze import parse_recipe, scan
from ibstore.errors import WaistError

from . import reference

VALUES = np.maximum(np.random.default_rng(0).normal(size=(300, 2, 4, 6)), 0).astype(np.float32)


class Layer:
    """Stored values, cut into blocks, that count how often they are read."""

    def __init__(self, values, cuts=()):
        self.values, self.cuts, self.reads = values, sorted(cuts), 0

    def blocks(self):
        self.reads += 1
        return (block for block in np.split(self.values, self.cuts))

    def reduced(self, recipe, **options):
        return scan.Reduced(
            self.blocks,
            "layer",
            self.values.shape[1:],
            self.values.dtype,
            len(self.values),
            parse_recipe(recipe),
            **options,
        )


def keys(reduced):
    return np.concatenate(list(scan.encode(reduced, scan.fit(reduced.recipe, [reduced]))))


RECIPES = [
    "maxpool(1, 2, 2) | quantile(bins=4)",
    "identity | equalmass(bins=3, scope=channel)",
    "softmax | width(0.01)",
]


@pytest.mark.parametrize("recipe", RECIPES)
def test_a_small_layer_is_read_once(recipe):
    layer = Layer(VALUES, [100, 200])
    reduced = layer.reduced(recipe)
    expected = keys(reduced)
    np.testing.assert_array_equal(keys(reduced), expected)
    assert layer.reads == 1


@pytest.mark.parametrize("recipe", RECIPES)
def test_a_large_layer_is_read_again_and_never_held(recipe, monkeypatch):
    expected = keys(Layer(VALUES).reduced(recipe))
    monkeypatch.setattr(scan, "HELD_BYTES", 0)
    monkeypatch.setattr(fitting, "HELD_BYTES", 0)
    layer = Layer(VALUES, [100, 200])
    reduced = layer.reduced(recipe)
    np.testing.assert_array_equal(keys(reduced), expected)
    assert reduced._kept == []
    levels = len(getattr(reduced.recipe.discretize, "levels", ()))
    assert layer.reads == (1 + levels if levels else 0) + 1  # sample, a pass a level, encode


def test_what_is_held_is_what_the_recipe_leaves(monkeypatch):
    monkeypatch.setattr(scan, "HELD_BYTES", 300 * 2 * 4)
    small, large = Layer(VALUES), Layer(VALUES)
    for layer, recipe in ((small, "channelmax | threshold(1)"), (large, "maxpool(2, 3) | threshold(1)")):
        reduced = layer.reduced(recipe)
        assert sum(len(block) for block in reduced) == sum(len(block) for block in reduced) == 300
    assert (small.reads, large.reads) == (1, 2)


def test_nothing_is_held_where_it_is_not_asked_for():
    layer = Layer(VALUES)
    reduced = layer.reduced("channelmax | threshold(1)", keep=False)
    assert len(list(reduced)) == len(list(reduced)) == 1
    assert layer.reads == 2
    assert reduced._kept == []


def test_a_pass_that_was_broken_off_keeps_nothing():
    layer = Layer(VALUES, [100])
    reduced = layer.reduced("identity | exact")
    next(iter(reduced))
    assert sum(len(block) for block in reduced) == 300
    assert layer.reads == 2


@settings(max_examples=50)
@given(
    values=arrays.arrays(
        np.float32,
        st.tuples(st.integers(2, 25), st.just(2), st.integers(2, 3), st.integers(2, 4)),
        elements=st.sampled_from([0, 0, 0.25, 1, -3.5, 2]) | st.integers(-8, 8).map(lambda eighths: eighths / 8),
    ),
    recipe=st.builds(
        reference.Recipe,
        st.sampled_from(list(reference.REDUCTIONS)),
        st.sampled_from([*reference.FITTED, *reference.FIXED]),
        st.sampled_from(["unit", "channel", "layer"]),
        st.just("epoch"),
    ),
    cuts=st.lists(st.integers(1, 24), unique=True, max_size=4),
    held=st.booleans(),
)
def test_patterns_are_the_reference_s(values, recipe, cuts, held):
    with pytest.MonkeyPatch.context() as patch:
        if not held:
            patch.setattr(scan, "HELD_BYTES", 0)
            patch.setattr(fitting, "HELD_BYTES", 0)
        layer = Layer(values, [cut for cut in cuts if cut < len(values)])
        found = keys(layer.reduced(str(recipe)))
    expected = recipe.codes(values)
    np.testing.assert_array_equal(
        (found[:, None] == found[None]).all(axis=2), (expected[:, None] == expected[None]).all(axis=2)
    )


@pytest.mark.parametrize(
    ("recipe", "shape", "groups"),
    [
        ("identity | quantile(2)", (4, 3, 3), 36),
        ("identity | quantile(2, scope=channel)", (4, 3, 3), 4),
        ("identity | quantile(2, scope=layer)", (4, 3, 3), 1),
        ("maxpool(1, 3, 3) | quantile(2)", (4, 3, 3), 4),
        ("channelmean | quantile(2, scope=channel)", (4, 3, 3), 4),
        ("identity | quantile(2, scope=channel)", (10,), 10),
        ("identity | quantile(2, scope=channel)", (), 1),
        ("identity | quantile(2)", (), 1),
    ],
)
def test_groups_have_edges_of_their_own(recipe, shape, groups):
    values = np.random.default_rng(0).normal(size=(20, *shape)).astype(np.float32)
    reduced = Layer(values).reduced(recipe)
    assert reduced.groups == groups
    assert scan.fit(reduced.recipe, [reduced]).shape == (1, groups)


def test_edges_over_several_epochs_are_those_of_their_values_together():
    recipe = parse_recipe("identity | quantile(bins=3, scope=channel, per=run)")
    epochs = [Layer(VALUES * scale, [7]).reduced(str(recipe)) for scale in (1, 2, 5)]
    together = Layer(np.concatenate([VALUES, VALUES * 2, VALUES * 5])).reduced(str(recipe))
    np.testing.assert_array_equal(scan.fit(recipe, epochs), scan.fit(recipe, [together]))


def test_a_recipe_that_does_not_fit_is_refused_before_anything_is_read():
    layer = Layer(VALUES)
    with pytest.raises(WaistError, match=r"layer: maxpool\(1, 5, 5\) \| exact: the window \(1, 5, 5\) is larger"):
        layer.reduced("maxpool(1, 5, 5) | exact")
    assert layer.reads == 0
