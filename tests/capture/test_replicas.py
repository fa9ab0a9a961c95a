"""Many networks at once, each recorded as its own run."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from ibstore.capture.recipes import recipe
from ibstore.capture.sweep import shared_out
from ibstore.capture.train import TrainSettings, train, train_replicas
from ibstore.errors import ResumeError, UsageError
from ibstore.store import Store

from .networks import contents, recorded
from .test_resume import Interrupted, stopping

NAMES = [f"szt-complicated-seed{seed}" for seed in (3, 4, 5)]
CLOSE = {"rtol": 1e-4, "atol": 1e-5}
"""Ten steps of float32: stacked products are summed in another order than single ones."""


def settings(name="szt-complicated", **given):
    return TrainSettings.of(recipe(name), **{"epochs": 10, "seed": 3, "device": "cpu", "threads": 1} | given)


@pytest.fixture(scope="module")
def together(tmp_path_factory):
    store = tmp_path_factory.mktemp("replicas") / "lab.zarr"
    return store, train_replicas("szt-complicated", store, 3, settings=settings())


def test_each_is_a_run_with_the_seed_of_its_own(together):
    store, trained = together
    assert [each.run for each in trained] == NAMES == Store.open(store).run_names()
    assert [Store.open(store).run(name).manifest.seed for name in NAMES] == [3, 4, 5]
    assert Store.open(store).run(NAMES[0]).manifest.settings["replicas"] == 3


@pytest.mark.parametrize("optimizer", ["SGD", "Adam"])
def test_they_equal_networks_that_are_trained_one_by_one(tmp_path, optimizer):
    chosen = settings(optimizer=optimizer, lr=0.01)
    train_replicas("szt-complicated", tmp_path / "at-once", 3, settings=chosen)
    for seed, name in zip((3, 4, 5), NAMES, strict=True):
        train("szt-complicated", tmp_path / "alone", settings=settings(optimizer=optimizer, lr=0.01, seed=seed))
        for layer in ("hidden1", "hidden5", "out"):
            for epoch in (0, 10):
                one, other = (recorded(tmp_path / store, layer, epoch, name) for store in ("at-once", "alone"))
                np.testing.assert_allclose(one, other, **CLOSE)
        one, other = (Store.open(tmp_path / store).run(name).segments[-1].record for store in ("at-once", "alone"))
        assert one.metrics[-1]["train"] == pytest.approx(other.metrics[-1]["train"], rel=1e-3)
        for own in ("gradient_mean", "gradient_std", "weight_norm", "predicted_change"):
            found, due = (each.dynamics[-1]["epoch"]["hidden3"][own] for each in (one, other))
            assert found == (None if due is None else pytest.approx(due, rel=1e-2, abs=1e-7))


def test_convolutions_too(tmp_path):
    chosen = settings("mnist14-conv", epochs=5)
    train_replicas("mnist14-conv", tmp_path / "at-once", 2, settings=chosen)
    train("mnist14-conv", tmp_path / "alone", settings=settings("mnist14-conv", epochs=5, seed=4))
    one, other = (recorded(tmp_path / store, "out", 5, "mnist14-conv-seed4") for store in ("at-once", "alone"))
    np.testing.assert_allclose(one, other, **CLOSE)


def test_what_is_recorded_is_a_plain_forward_pass(together):
    store, trained = together
    run = Store.open(store).run(NAMES[1])
    x = torch.from_numpy(np.concatenate(list(run.probe(run.manifest.splits[0]).x_blocks())))
    with torch.no_grad():
        np.testing.assert_array_equal(recorded(store, "out", 10, NAMES[1]), trained[1].model.eval()(x).numpy())


def test_with_the_same_first_weights_they_differ_in_order_alone(tmp_path):
    train_replicas("szt-complicated", tmp_path / "lab", 3, same_init=True, settings=settings())
    first = [recorded(tmp_path / "lab", "out", 0, name) for name in NAMES]
    last = [recorded(tmp_path / "lab", "out", 10, name) for name in NAMES]
    assert all(np.array_equal(first[0], other) for other in first)
    assert not np.array_equal(last[0], last[1])


def test_a_seed_gives_the_same_runs(together, tmp_path):
    train_replicas("szt-complicated", tmp_path / "again", 3, settings=settings())
    for name in NAMES:
        assert contents(tmp_path / "again", name) == contents(together[0], name)


def test_a_group_is_the_same_wherever_the_others_are_trained(together, tmp_path):
    whole, apart = tmp_path / "whole", tmp_path / "apart"
    in_twos = {"at_once": 2, "same_init": True, "settings": settings()}
    assert [each.run for each in train_replicas("szt-complicated", whole, 3, **in_twos)] == NAMES
    for group in (1, 0):
        train_replicas("szt-complicated", apart, 3, group=group, **in_twos)
    for name in NAMES:
        assert contents(apart, name) == contents(whole, name)
        assert Store.open(whole).run(name).manifest.settings["at_once"] == 2
    train_replicas("szt-complicated", tmp_path / "all", 3, same_init=True, settings=settings())
    for layer in ("hidden1", "out"):
        one, other = (recorded(tmp_path / store, layer, 10, NAMES[2]) for store in ("whole", "all"))
        np.testing.assert_allclose(one, other, **CLOSE)


@given(seed=st.integers(0, 9), replicas=st.integers(1, 60), at_once=st.integers(1, 70) | st.none())
def test_all_are_shared_out_evenly(seed, replicas, at_once):
    groups = shared_out(seed, replicas, at_once)
    sizes = [len(group) for group in groups]
    assert [each for group in groups for each in group] == list(range(seed, seed + replicas))
    assert max(sizes) - min(sizes) <= 1
    assert max(sizes) <= (at_once or replicas)
    assert (len(groups) - 1) * (at_once or replicas) < replicas  # as few as can be


@pytest.mark.parametrize("stop", [0, 4])
def test_an_interrupted_ensemble_ends_like_an_undisturbed_one(together, tmp_path, one_by_one, stop):
    store = tmp_path / "lab.zarr"
    with pytest.raises(Interrupted):
        train_replicas("szt-complicated", store, 3, settings=settings(), emit=stopping(stop))
    torch.rand(3)
    trained = train_replicas("szt-complicated", store, 3, settings=settings(), resume=True)
    for name in NAMES:
        assert contents(store, name) == contents(together[0], name)
    assert len(trained[2].history) == 11
    again = train_replicas("szt-complicated", store, 3, settings=settings(), resume=True)
    assert [each.model for each in again] == [None] * 3


def in_the_middle_of(epoch, nth):
    """A listener that ends the training while the ``nth`` run records an epoch."""
    seen = []

    def listen(event):
        if event.stage == "record" and event.detail.startswith(f"epoch {epoch}"):
            seen.append(event)
            if len(seen) == nth:
                raise Interrupted

    return listen


def test_replicas_that_stand_at_different_epochs_go_on_in_groups(together, tmp_path, one_by_one):
    """As a kill between two commits leaves them."""
    store = tmp_path / "lab.zarr"
    with pytest.raises(Interrupted):
        train_replicas("szt-complicated", store, 3, settings=settings(), emit=in_the_middle_of(7, 3))
    assert [Store.open(store).run(name).epochs[-1] for name in NAMES] == [7, 7, 6]
    trained = train_replicas("szt-complicated", store, 3, settings=settings(), resume=True)
    assert [each.run for each in trained] == NAMES
    for name in NAMES:
        assert Store.open(store).run(name).epochs == list(range(11))
        for layer in ("hidden1", "out"):
            one, other = (recorded(each, layer, 10, name) for each in (store, together[0]))
            np.testing.assert_allclose(one, other, **CLOSE)


def test_another_number_of_replicas_is_another_training(together):
    store, _ = together
    with pytest.raises(ResumeError, match=r"settings.replicas is 3 in the store and 2 here"):
        train_replicas("szt-complicated", store, 2, settings=settings(), resume=True)


@pytest.mark.parametrize("variant", ["fixed_minibatches", "parallel_minibatches"])
def test_variants_of_one_networks_minibatches_are_refused(tmp_path, variant):
    with pytest.raises(UsageError, match="are about the minibatches of one network; leave --replicas out"):
        train_replicas("szt-complicated", tmp_path / "lab", 2, settings=settings(**{variant: True}))


def test_networks_with_batch_norm_are_refused(tmp_path):
    with pytest.raises(UsageError, match="one after another"):
        train_replicas("resnet18", tmp_path / "lab", 2, settings=settings("resnet18", limit=4, probe=2))
    assert not (tmp_path / "lab").exists()


def test_none_is_refused(tmp_path):
    with pytest.raises(UsageError, match="replicas is 0; give --replicas 1 or more"):
        train_replicas("szt-complicated", tmp_path / "lab", 0, settings=settings())


@pytest.mark.parametrize(("replicas", "told"), [(2, True), (1, False)])
def test_networks_that_train_slower_at_once_are_told(tmp_path, replicas, told):
    notices = []
    settings = TrainSettings.of(recipe("mnist-cnn"), epochs=0, limit=10, device="cpu", threads=1)
    train_replicas("mnist-cnn", tmp_path / "lab.zarr", replicas, settings=settings, emit=notices.append)
    slow = "2 networks of 28,938 parameters are likely to train slower at once than one after another on a CPU"
    assert told == any(event.stage == "notice" and event.detail.startswith(slow) for event in notices)


def test_tiny_networks_are_trained_at_once_without_a_word(tmp_path):
    notices = []
    settings = TrainSettings.of(recipe("mnist14-conv"), epochs=0, device="cpu", threads=1)
    train_replicas("mnist14-conv", tmp_path / "lab.zarr", 2, settings=settings, emit=notices.append)
    assert not any("slower" in event.detail for event in notices)
