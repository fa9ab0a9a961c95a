"""Information of activations in memory: to the bit what an analysis of a store says."""

import numpy as np
import pytest

import ibstore
from ibstore.analyze import Waist, informations, parse_waist
from ibstore.errors import IbstoreError, UsageError, ValuesError

RANDOM = np.random.default_rng(0)
T = np.tanh(RANDOM.normal(size=(300, 2, 4, 4))).astype(np.float32)
Y = RANDOM.integers(0, 4, 300)
RECIPES = [
    "identity | uniform(bins=4, lo=-1, hi=1)",
    "maxpool(1, 2, 2) | quantile(bins=2)",
    "channelmean | equalmass(bins=5)",
    "identity | exact",
    "identity | quantile(bins=30, scope=layer)",
    "argmax | labels",
    "identity | float_bits(2)",
]


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    import torch

    class Given(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.given = torch.nn.Identity()

        def forward(self, x):
            return self.given(x)

    store = tmp_path_factory.mktemp("immediate") / "lab.zarr"
    with ibstore.Recorder(store, Given(), layers=["given"], x=torch.from_numpy(T), y=Y) as recorder:
        recorder.record(0)
    return ibstore.open(store)


@pytest.mark.parametrize("recipe", RECIPES)
@pytest.mark.parametrize("estimator", ["plugin", "miller_madow", "grassberger"])
def test_it_is_what_the_plane_says_to_the_bit(study, recipe, estimator):
    row = study.analyze(waists=[f"own: given={recipe}"], estimators=[estimator]).row(0, named=True)
    found = informations(f"own: given={recipe}", "given", estimator)(T, Y)
    assert found == (row["h_t"], row["i_ty"])
    assert informations(recipe, estimator=estimator)(T, Y) == found


def test_nats_are_bits_times_ln_2():
    bits, nats = (informations(RECIPES[0], unit=unit)(T, Y) for unit in ("bits", "nats"))
    assert nats == pytest.approx([np.log(2) * each for each in bits])


def test_a_waist_is_taken_by_name_by_text_and_as_it_is():
    recipe, flat = "identity | uniform(bins=30, lo=-1, hi=1)", T.reshape(300, -1)
    expected = informations(recipe)(flat, Y)
    assert informations("szt-30", "hidden1")(flat, Y) == expected
    assert informations(f"own: *={recipe}", "anything")(flat, Y) == expected
    assert informations(Waist.of("own", {"hidden1": recipe}), "hidden1")(flat, Y) == expected
    assert parse_waist(f"own: hidden1={recipe}").recipe("hidden1") is not None


def test_labels_that_are_the_layer_are_told_whole():
    found = informations("identity | labels")(Y.reshape(-1, 1), Y)
    assert found.i_ty == found.i_xt == pytest.approx(-sum(p * np.log2(p) for p in np.bincount(Y) / 300))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("nothing",), "there is no waist 'nothing'"),
        (("own: conv1=identity | exact", "out"), "waist 'own' has no recipe for layer 'out'"),
        (("identity | quantile(bins=2, per=run)",), "fits its edges to a whole run"),
        (("identity | exact", "*", "kde"), "looks at values"),
        (("identity | exact", "*", "magic"), "unknown estimator 'magic'"),
        (("identity | exact", "*", "plugin", "dits"), "no unit 'dits'"),
    ],
)
def test_what_cannot_be_meant_is_refused(arguments, message):
    with pytest.raises(UsageError, match=message):
        informations(*arguments)


@pytest.mark.parametrize(
    ("t", "y", "message"),
    [
        (T[:0], Y[:0], r"float32 of shape \(0, 2, 4, 4\); give real numbers \(sample, …\), at least one"),
        (np.zeros((4, 0)), np.arange(4), "at least one"),
        (np.float64(3), np.arange(1), "at least one"),
        (np.array([["a"]]), np.arange(1), "give real numbers"),
        (T, Y[:-1], "codes of 300 and of 299 samples cannot be joined"),
        (T, None, "a label must be an integer"),
        (T, Y / 3, "a label must be an integer"),
        (np.full((4, 1), np.nan), np.arange(4), "NaN"),
    ],
)
def test_values_that_cannot_be_used_are_refused(t, y, message):
    with pytest.raises(IbstoreError, match=message):
        informations("identity | threshold(0)")(t, y)
    assert issubclass(ValuesError, IbstoreError)
