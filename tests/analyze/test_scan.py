from collections import defaultdict

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from ibstore.analyze import fit as fitting
from ibstore.analyze import parse_recipe
from ibstore.analyze.reduce import REDUCTIONS, register_reduction
from ibstore.analyze.scan import Source, fit_together, scan
from ibstore.errors import ValuesError, WaistError

from . import reference

VALUES = np.maximum(np.random.default_rng(0).normal(size=(1, 300, 2, 4, 6)), 0).astype(np.float32)
WHOLE, GROUP_BY_GROUP = 1 << 40, 1


class Layer:
    """Stored values (epoch, sample, …), cut into blocks, that count how often they are read."""

    def __init__(self, values, cuts=()):
        self.values, self.cuts, self.reads = values, [0, *sorted(cuts)], 0
        names = tuple(f"layer, epoch {epoch}" for epoch in range(len(values)))
        self.source = Source(self.passes, names, values.shape[2:], values.dtype, values.shape[1])

    def passes(self, work):
        self.reads += 1
        for epoch, values in enumerate(self.values):
            for start, block in zip(self.cuts, np.split(values, self.cuts[1:]), strict=True):
                yield work(epoch, start, block[None])

    def keys(self, *texts, allowance=WHOLE, held=(), threads=1):
        """Keys (epoch, sample, byte) by recipe."""
        recipes = dict.fromkeys(map(parse_recipe, texts), allowance)
        held = frozenset(recipe.view for recipe in recipes if str(recipe.reduction) in held)
        found = defaultdict(list)
        scan(
            self.source,
            recipes,
            lambda recipe, epoch, start, keys: found[recipe].append((epoch, start, keys)),
            held=held,
            threads=threads,
        )
        return [self._in_order(found[recipe]) for recipe in recipes]

    def _in_order(self, found):
        """Keys as they came, which must be each sample's, once, in order."""
        places = [(epoch, start + row) for epoch, start, keys in found for row in range(len(keys))]
        assert places == [(e, s) for e in range(len(self.values)) for s in range(self.values.shape[1])]
        return np.concatenate([keys for *_, keys in found]).reshape(*self.values.shape[:2], -1)


POOLED = "maxpool(1, 2, 2) | quantile(bins=4)"
FITTED = [POOLED, "identity | equalmass(bins=3, scope=channel)", "channelmean | thesis_edges"]
CODED = ["softmax | width(0.01)", "argmax | exact", "identity | threshold(0.25)"]


@pytest.fixture
def sampled(monkeypatch):
    """So few values are sampled that every layer here is a large one."""
    monkeypatch.setattr(fitting, "SAMPLED", 8)


@pytest.mark.parametrize("recipe", CODED)
def test_what_needs_no_fit_is_read_once(recipe):
    layer = Layer(VALUES, [100, 200])
    layer.keys(recipe)
    assert layer.reads == 1


def test_many_recipes_cost_no_further_reading():
    layer = Layer(VALUES, [100, 200])
    layer.keys(*CODED)
    assert layer.reads == 1


@pytest.mark.usefixtures("sampled")
def test_what_is_fitted_is_read_to_sample_to_collect_and_to_encode():
    layer = Layer(VALUES, [100, 200])
    layer.keys(*FITTED, *CODED)
    assert layer.reads == 3


@pytest.mark.usefixtures("sampled")
def test_what_is_held_is_read_once():
    layer = Layer(VALUES, [100, 200])
    layer.keys(POOLED, *CODED, held=["maxpool(1, 2, 2)"])
    assert layer.reads == 1


@pytest.mark.usefixtures("sampled")
def test_what_is_held_is_what_the_reduction_leaves():
    """Some reductions are held, another is shown the stored values again."""
    layer = Layer(VALUES, [100, 200])
    expected = Layer(VALUES).keys(*FITTED)
    found = layer.keys(*FITTED, held=["maxpool(1, 2, 2)", "channelmean"])
    assert layer.reads == 3
    for ours, theirs in zip(found, expected, strict=True):
        np.testing.assert_array_equal(ours, theirs)


def test_a_reduction_is_computed_once_a_block_for_all_its_recipes():
    seen = []

    @register_reduction
    def noted(block):
        seen.append(len(block))
        return block

    try:
        Layer(VALUES, [100]).keys("noted | exact", "noted | threshold(0)", "noted | threshold(1)")
    finally:
        del REDUCTIONS["noted"]
    assert sum(size for size in seen if size > 1) == 300  # others only ask for the form, of one sample


EPOCHS = np.concatenate([VALUES, VALUES[:, ::-1] * 3, 1 - VALUES])


@pytest.mark.usefixtures("sampled")
@pytest.mark.parametrize("allowance", [WHOLE, GROUP_BY_GROUP])
@pytest.mark.parametrize("held", [(), ("maxpool(1, 2, 2)", "identity", "channelmean")], ids=["read again", "held"])
@pytest.mark.parametrize("threads", [1, 3])
def test_memory_threads_and_blocks_change_no_key(allowance, held, threads):
    expected = [Layer(epoch[None]).keys(*FITTED, *CODED) for epoch in EPOCHS]
    found = Layer(EPOCHS, [1, 100, 257]).keys(*FITTED, *CODED, allowance=allowance, held=held, threads=threads)
    for recipe, ours in enumerate(found):
        np.testing.assert_array_equal(ours, np.concatenate([epoch[recipe] for epoch in expected]))


@settings(max_examples=50)
@given(
    values=arrays.arrays(
        np.float32,
        st.tuples(st.integers(1, 2), st.integers(2, 25), st.just(2), st.integers(2, 3), st.integers(2, 4)),
        elements=st.sampled_from([0, 0, 0.25, 1, -3.5, 2]) | st.integers(-8, 8).map(lambda eighths: eighths / 8),
    ),
    recipes=st.lists(
        st.builds(
            reference.Recipe,
            st.sampled_from(list(reference.REDUCTIONS)),
            st.sampled_from([*reference.FITTED, *reference.FIXED]),
            st.sampled_from(["unit", "channel", "layer"]),
            st.just("epoch"),
        ),
        min_size=1,
        max_size=4,
        unique_by=str,
    ),
    cuts=st.lists(st.integers(1, 24), unique=True, max_size=4),
    sampled=st.sampled_from([3, fitting.SAMPLED]),
    allowance=st.sampled_from([WHOLE, GROUP_BY_GROUP]),
    held=st.sets(st.sampled_from(list(reference.REDUCTIONS))),
)
def test_patterns_are_the_reference_s(values, recipes, cuts, sampled, allowance, held):
    layer = Layer(values, [cut for cut in cuts if cut < values.shape[1]])
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(fitting, "SAMPLED", sampled)
        found = layer.keys(*map(str, recipes), allowance=allowance, held=held)
    for recipe, by_epoch in zip(recipes, found, strict=True):
        for ours, epoch in zip(by_epoch, values, strict=True):
            theirs = recipe.codes(epoch)
            np.testing.assert_array_equal(
                (ours[:, None] == ours[None]).all(axis=2), (theirs[:, None] == theirs[None]).all(axis=2)
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
    values = np.random.default_rng(0).normal(size=(1, 20, *shape)).astype(np.float32)
    [edges] = fit_together(Layer(values).source, [parse_recipe(recipe)], WHOLE).values()
    assert edges.shape == (1, groups)


@pytest.mark.usefixtures("sampled")
@pytest.mark.parametrize("allowance", [WHOLE, GROUP_BY_GROUP])
def test_edges_over_several_epochs_are_those_of_their_values_together(allowance):
    recipe = parse_recipe("identity | quantile(bins=3, scope=channel, per=run)")
    values = np.concatenate([VALUES, VALUES * 2, VALUES * 5])
    together = Layer(values.reshape(1, -1, *values.shape[2:]))
    found = fit_together(Layer(values, [7]).source, [recipe], allowance)
    np.testing.assert_array_equal(found[recipe], fit_together(together.source, [recipe], WHOLE)[recipe])


def test_a_recipe_that_does_not_fit_is_refused_before_anything_is_read():
    layer = Layer(VALUES)
    with pytest.raises(
        WaistError, match=r"layer, epoch 0: maxpool\(1, 5, 5\) \| exact: the window \(1, 5, 5\) is larger"
    ):
        layer.keys("identity | exact", "maxpool(1, 5, 5) | exact")
    assert layer.reads == 0


def test_nan_is_refused_where_one_recipe_has_no_bin_for_it():
    values = EPOCHS.copy()
    values[1, 123, 0, 0, 0] = np.nan
    assert Layer(values).keys("identity | exact")[0].shape == (3, 300, 192)
    with pytest.raises(ValuesError, match="layer, epoch 1 has NaN, which no bin holds: the network diverged"):
        Layer(values, [100]).keys("identity | exact", "identity | threshold(0)", threads=2)
