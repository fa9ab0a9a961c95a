import dataclasses
import re
from collections import OrderedDict

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional

import ibstore.capture
from ibstore.capture import recipes
from ibstore.capture.datasets import load_dataset
from ibstore.capture.models import mnist_cnn
from ibstore.capture.recipes import RECIPES, recipe, recipe_names
from ibstore.capture.train import TrainSettings, train
from ibstore.capture.training.objectives import OBJECTIVES
from ibstore.capture.training.settings import OPTIMIZERS
from ibstore.errors import RunExistsError, UnknownNameError, UsageError
from ibstore.store import Store

from .networks import recorded

RUN = "mnist-cnn-seed0"


def settings(**given):
    """A training of a few seconds' fraction."""
    small = {"epochs": 1, "limit": 60, "batch_size": 20, "probe_batch": 25, "device": "cpu"}
    return TrainSettings.of(recipe("mnist-cnn"), **small | given)


def files_below(folder):
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    store, events = tmp_path_factory.mktemp("trained") / "lab.zarr", []
    return store, train("mnist-cnn", store, settings=settings(epochs=2), emit=events.append), events


def test_the_network_is_the_thesiss_cnn():
    model = mnist_cnn()
    assert sum(parameter.numel() for parameter in model.parameters()) == 28_938
    x = torch.zeros(2, 1, 28, 28)
    assert model.conv1(x).shape == (2, 16, 14, 14)
    assert model.conv2(model.conv1(x)).shape == (2, 32, 7, 7)
    assert torch.equal(model.out(model.conv2(model.conv1(x)).flatten(1)), model(x))
    assert (model.conv1(torch.randn(2, 1, 28, 28)) >= 0).all()


def test_a_run_holds_the_untrained_network_and_every_epoch_after(trained):
    store, result, _ = trained
    run = Store.open(store).run(result.run)
    assert result.run == RUN
    assert run.epochs == [0, 1, 2]
    assert [segment.record.steps for segment in run.segments] == [(0, 3, 6)]
    assert [(layer.name, layer.shape) for layer in run.manifest.layers] == [
        ("conv1", (16, 14, 14)),
        ("conv2", (32, 7, 7)),
        ("out", (10,)),
    ]


def test_what_is_recorded_is_what_the_network_says(trained):
    store, result, _ = trained
    x = torch.from_numpy(load_dataset("mnist-sample", limit=60).train.x)
    with torch.no_grad():
        expected = torch.cat([result.model(rows) for rows in x.split(25)])
    np.testing.assert_array_equal(recorded(store, "out", 2, RUN), expected.numpy())


def test_metrics_are_means_over_both_splits_in_eval_mode(trained):
    store, result, _ = trained
    data = load_dataset("mnist-sample", limit=60)
    found = Store.open(store).run(RUN).segments[0].record.metrics[2]
    assert found == result.history[2]
    for split, x, y in (("train", data.train.x, data.train.y), ("test", data.test.x, data.test.y)):
        with torch.no_grad():
            output, labels = result.model(torch.from_numpy(x)), torch.from_numpy(y)
        loss = functional.cross_entropy(output, labels).item()
        assert found[split]["loss"] == pytest.approx(loss, rel=1e-5)
        assert found[split]["accuracy"] == pytest.approx((output.argmax(1) == labels).double().mean().item())


def noisy_net():
    return nn.Sequential(OrderedDict(flatten=nn.Flatten(), drop=nn.Dropout(0.2), out=nn.Linear(784, 10)))


def test_a_training_is_the_plain_loop_bit_for_bit(store, monkeypatch):
    """Written out by hand: seed, network, an order an epoch from a generator of its own; nothing is recorded."""
    noisy = dataclasses.replace(recipe("mnist-cnn"), name="noisy", model=noisy_net, layers=("out",))
    monkeypatch.setattr(recipes, "RECIPES", {**RECIPES, "noisy": noisy})
    result = train("noisy", store, settings=settings(epochs=3, seed=4))

    data = load_dataset("mnist-sample", limit=60)
    x, y = torch.from_numpy(data.train.x), torch.from_numpy(data.train.y)
    torch.manual_seed(4)
    model, order = noisy_net(), torch.Generator().manual_seed(4)
    optimizer = torch.optim.Adam(model.parameters(), lr=0.002)
    for _ in range(3):
        for rows in torch.randperm(60, generator=order).split(20):
            optimizer.zero_grad()
            functional.cross_entropy(model(x[rows]), y[rows]).backward()
            optimizer.step()
    assert torch.equal(result.model.out.weight, model.out.weight)


def test_training_learns(trained):
    _, result, _ = trained
    losses = [metrics["train"]["loss"] for metrics in result.history]
    assert losses[0] == pytest.approx(np.log(10), abs=0.1)
    assert losses[0] > losses[1] > losses[2]


def test_the_manifest_says_how_it_was_trained(trained):
    store, _, _ = trained
    manifest = Store.open(store).run(RUN).manifest
    assert (manifest.recipe, manifest.seed, manifest.device, manifest.probe_batch) == ("mnist-cnn", 0, "cpu", 25)
    assert (manifest.loss, manifest.optimizer) == ("cross-entropy", "Adam(lr=0.002)")
    assert manifest.settings == {"dataset": "mnist-sample", "epochs": 2, "batch_size": 20, "lr": 0.002, "limit": 60}


def test_progress_tells_epochs_batches_and_samples(trained):
    _, result, events = trained
    epochs = [event for event in events if event.stage == "train"]
    assert [(event.done, event.total) for event in epochs] == [(1, 3), (2, 3), (3, 3)]
    own = result.history[2]["train"]
    assert epochs[2].detail == f"epoch 2: loss {own['loss']:.3f} accuracy {own['accuracy']:.3f}"
    batches = [(event.done, event.total, event.detail) for event in events if event.stage == "batches"]
    assert batches == [(done, 3, f"epoch {epoch}") for epoch in (1, 2) for done in (1, 2, 3)]
    assert {event.stage for event in events if not event.is_notice} == {"train", "batches", "record"}


def test_the_same_settings_write_the_same_bytes(tmp_path):
    for name in ("a", "b"):
        torch.rand(1)  # whatever happened before
        train("mnist-cnn", tmp_path / name, settings=settings())
    first, second = files_below(tmp_path / "a" / "runs"), files_below(tmp_path / "b" / "runs")
    assert first == second
    assert any(name.startswith(f"{RUN}/segments/0000000000/train/conv1/") for name in first)


def test_another_seed_is_another_training(tmp_path):
    for seed in (0, 1):
        train("mnist-cnn", tmp_path / "lab", settings=settings(seed=seed, epochs=0))
    assert Store.open(tmp_path / "lab").run_names() == ["mnist-cnn-seed0", "mnist-cnn-seed1"]
    outputs = [recorded(tmp_path / "lab", "out", 0, f"mnist-cnn-seed{seed}") for seed in (0, 1)]
    assert not np.array_equal(*outputs)


def test_torch_is_left_as_it_was(store):
    threads = torch.get_num_threads()
    torch.manual_seed(7)
    expected = torch.rand(3)
    torch.manual_seed(7)
    train("mnist-cnn", store, settings=settings(epochs=0, threads=threads + 1))
    assert torch.equal(torch.rand(3), expected)
    assert torch.get_num_threads() == threads
    assert not torch.are_deterministic_algorithms_enabled()
    assert Store.open(store).run(RUN).manifest.threads == threads + 1


def test_a_run_that_exists_is_refused_before_training_and_replaced_by_force(store):
    train("mnist-cnn", store, settings=settings(epochs=0), run="mine")
    events = []
    with pytest.raises(RunExistsError, match="run 'mine' is already in the store"):
        train("mnist-cnn", store, settings=settings(), run="mine", emit=events.append)
    assert all(event.is_notice for event in events)
    train("mnist-cnn", store, settings=settings(), run="mine", force=True, emit=events.append)
    assert "removing run 'mine' (1 epoch)" in [event.detail for event in events if event.is_notice]
    assert Store.open(store).run("mine").epochs == [0, 1]


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"epochs": -1}, "epochs is -1; give --epochs an integer of 0 or more"),
        ({"batch_size": 0}, "give --batch-size an integer of 1 or more"),
        ({"probe_batch": 0}, "give --probe-batch an integer of 1 or more"),
        ({"limit": 0}, "give --limit an integer of 1 or more"),
        ({"threads": 0}, "give --threads an integer of 1 or more"),
        ({"threads": 100_000}, "give --threads 1024 at most"),
        ({"seed": -1}, "give --seed an integer of 0 or more"),
        ({"seed": 2**63}, "give --seed a number up to"),
        ({"epochs": "3"}, "epochs is '3'; give --epochs an integer of 0 or more"),
        ({"limit": 2.5}, "limit is 2.5; give --limit an integer"),
        ({"lr": "x"}, "lr is 'x'; give --lr a number above 0"),
        ({"lr": 0.0}, "give --lr a number above 0"),
        ({"lr": float("nan")}, "give --lr a number above 0"),
        ({"lr": float("inf")}, "give --lr a number above 0"),
        ({"dtype": "int8"}, "choose one of float16, bfloat16, float32, float64"),
    ],
)
def test_settings_out_of_range_are_refused_by_option(given, message):
    with pytest.raises(UsageError, match=message):
        settings(**given)


def told(name, store, **given):
    notices = []
    train(name, store, settings=TrainSettings.of(recipe(name), device="cpu", threads=1, **given), emit=notices.append)
    return [event.detail for event in notices if event.is_notice]


def test_a_training_that_diverges_is_told_once(store):
    found = told("mnist-cnn", store, epochs=3, limit=40, batch_size=20, lr=1e30, optimizer="SGD")
    (one,) = [detail for detail in found if "has diverged" in detail]
    assert re.fullmatch(r"run 'mnist-cnn-seed0' has diverged: its loss is (nan|inf); a --lr below 1e\+30 .*", one)


@pytest.mark.parametrize(("dropout", "idle"), [("information", False), ("binary", True)])
def test_weights_of_what_no_layer_tells_are_told(store, dropout, idle):
    options = {"dropout": dropout, "width": 0.1, "beta_kl": 0.5}
    found = told("info-dropout-mnist", store, epochs=0, limit=10, probe=5, options=options)
    assert ("beta_kl=0.5 weighs nothing: no layer of this network tells a divergence" in found) == idle


def test_a_stand_in_for_pictures_is_told(store):
    found = told("info-dropout-occluded", store, epochs=0, limit=4, probe=2, options={"width": 0.05})
    assert any("digits in colour stand in for the pictures" in detail for detail in found)


@pytest.mark.parametrize(("limit", "batch"), [(11, 10), (1, 10)])
def test_a_last_batch_of_one_that_cannot_be_normalized_is_refused_before_anything_is_written(store, limit, batch):
    options = {"activation": "softplus", "width": 0.1}
    message = rf"{limit} samples in batches of {batch} leave a last one of one sample, on which the network cannot be"
    with pytest.raises(UsageError, match=message):
        told("info-dropout-mnist", store, epochs=1, limit=limit, batch_size=batch, options=options)
    assert not store.exists()


@pytest.mark.parametrize("device", ["nonsense", "cuda:99", "meta"])
def test_a_device_that_cannot_be_used_is_refused(store, device):
    with pytest.raises(UsageError, match=f"device '{device}' cannot be used here .*; give --device cpu, or auto"):
        train("mnist-cnn", store, settings=settings(device=device))
    assert not store.exists()


def test_unknown_names_are_refused(store):
    with pytest.raises(
        UnknownNameError, match=r"no recipe 'mnist'; choose one of .*mnist-cnn, .*, or give your own as FILE.py:NAME"
    ):
        train("mnist", store)
    with pytest.raises(UnknownNameError, match="no data set 'mist'"):
        train("mnist-cnn", store, settings=settings(dataset="mist"))
    assert not store.exists()


def test_every_recipe_can_be_carried_out():
    assert recipe_names() == sorted(RECIPES)
    for name, entry in RECIPES.items():
        assert entry.name == name
        assert entry.optimizer in OPTIMIZERS
        assert entry.loss in OBJECTIVES
        assert TrainSettings.of(entry).lr == entry.lr


def test_the_public_names_are_there():
    for name in ibstore.capture.__all__:
        assert getattr(ibstore.capture, name).__name__ == name
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = ibstore.capture.nothing
