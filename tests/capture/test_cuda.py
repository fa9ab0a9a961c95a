"""On a CUDA device, where there is one: the same seed gives the same store, bit for bit, after a kill too."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from ibstore.capture.recipes import RECIPES, recipe
from ibstore.capture.train import TrainSettings, train, train_replicas
from ibstore.errors import ResumeError
from ibstore.store import Store

from .networks import KINDS, contents, hook_count, recorded
from .test_any_network import by_hand, made, recorder_of, trained
from .test_recipes import SHORT, SMALL
from .test_resume import Interrupted, Own, stopping
from .test_train import RUN, settings

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="torch sees no CUDA device here")

CUDA = settings(epochs=3, device="cuda")


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    store = tmp_path_factory.mktemp("cuda") / "lab.zarr"
    train("mnist-cnn", store, settings=CUDA)
    return contents(store, RUN)


def test_auto_is_cuda(store):
    train("mnist-cnn", store, settings=settings(device="auto"))
    assert Store.open(store).run(RUN).manifest.device == "cuda"


def test_a_seed_gives_the_same_store(store, undisturbed):
    train("mnist-cnn", store, settings=CUDA)
    assert contents(store, RUN) == undisturbed


@pytest.mark.parametrize("stop", [0, 1])
def test_a_bundled_training_that_was_interrupted_ends_like_an_undisturbed_one(store, undisturbed, stop):
    with pytest.raises(Interrupted):
        train("mnist-cnn", store, settings=CUDA, emit=stopping(stop))
    with pytest.raises(ResumeError, match="device is 'cuda' in the store and 'cpu' here"):
        train("mnist-cnn", store, settings=settings(epochs=3), resume=True)
    train("mnist-cnn", store, settings=CUDA, resume=True)
    assert contents(store, RUN) == undisturbed


def test_dropout_draws_what_it_would_have_drawn(tmp_path):
    """The random numbers of the device come back with the rest."""
    whole, store = tmp_path / "whole.zarr", tmp_path / "resumed.zarr"
    Own("cuda").run(whole)
    with pytest.raises(Interrupted):
        Own("cuda").run(store, 2)
    torch.rand(3, device="cuda")
    Own("cuda").run(store, resume=True)
    assert contents(store) == contents(whole)


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_a_rounded_dtype(store, dtype):
    train("mnist-cnn", store, settings=settings(device="cuda", dtype=dtype))
    assert Store.open(store).run(RUN).epochs == [0, 1]


@pytest.mark.parametrize("name", sorted(RECIPES))
def test_a_seed_gives_the_same_store_of_every_recipe(name, tmp_path):
    chosen = TrainSettings.of(recipe(name), **SMALL | SHORT[name] | {"device": "cuda"})
    one, other = (train(name, tmp_path / store, settings=chosen) for store in ("one", "other"))
    assert contents(tmp_path / "one", one.run) == contents(tmp_path / "other", other.run)


@pytest.fixture(params=KINDS)
def kind(request):
    yield replace(KINDS[request.param], device="cuda")
    torch.compiler.reset()


def test_what_is_recorded_is_a_plain_forward_pass_bit_for_bit(kind, store):
    model = kind.wrapped(made(kind))
    expected = by_hand(kind, made(kind).eval())
    with recorder_of(kind, store, model, layers=list(expected)) as recorder:
        recorder.record(0)
    for layer, values in expected.items():
        np.testing.assert_array_equal(recorded(store, layer), values, layer)
    assert hook_count(model) == 0


def test_a_training_is_the_same_bit_for_bit_with_and_without_recording(kind, store):
    (plain, random), (watched, other) = trained(kind, None), trained(kind, store)
    for name, value in plain.items():
        assert torch.equal(value, watched[name]), name
    assert torch.equal(random, other)


def test_replicas_equal_networks_that_are_trained_one_by_one(tmp_path):
    name = "szt-complicated"
    chosen = {seed: TrainSettings.of(recipe(name), epochs=10, device="cuda", seed=seed) for seed in (0, 1)}
    train_replicas(name, tmp_path / "at-once", 2, settings=chosen[0])
    for each in chosen.values():
        run = train(name, tmp_path / "alone", settings=each).run
        one, other = (recorded(tmp_path / store, "hidden5", 10, run) for store in ("at-once", "alone"))
        np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-5)
