"""Every recipe on a shortened run, and a recipe of one's own."""

import dataclasses

import numpy as np
import pytest
import torch
from torch import nn

from ibstore.capture.datasets import load_dataset
from ibstore.capture.recipes import RECIPES, recipe
from ibstore.capture.train import TrainSettings, train
from ibstore.errors import CaptureError, UnknownNameError, UsageError
from ibstore.store import Store

from .networks import recorded

SMALL = {"epochs": 2, "device": "cpu", "threads": 1}
SHORT = {
    "mnist-cnn": {"limit": 40},
    "szt": {"epochs": 3, "schedule": None},
    "szt-simple": {},
    "szt-complicated": {},
    "mnist14-conv": {},
    "mlp-mnist": {"limit": 40},
    "keras-cnn": {"limit": 40, "probe": 10},
    "resnet18": {"limit": 8, "probe": 5, "batch_size": 4, "epochs": 1},
    "info-dropout-mnist": {"limit": 40, "options": {"width": 0.25}},
    "info-dropout-cluttered": {"limit": 8, "probe": 5, "batch_size": 4, "epochs": 1, "options": {"width": 0.1}},
    "info-dropout-cifar": {"dataset": "mnist-sample-rgb32", "limit": 8, "probe": 5, "epochs": 1}
    | {"batch_size": 4, "options": {"width": 0.1}},
    "info-dropout-occluded": {"limit": 8, "probe": 5, "batch_size": 4, "epochs": 1, "options": {"width": 0.1}},
    "vae-mnist": {"limit": 40, "options": {"width": 0.1, "latent": 5}},
}


def stochastic(layer, *shape):
    return dict.fromkeys([f"{layer}.{what}" for what in ("f", "alpha", "kl", "z[0]", "z[1]")], shape)


PICTURES = {"drop1.kl": (10, 16, 16), **stochastic("drop2", 19, 8, 8), "features": (19, 8, 8), "out": (10,)}
SHAPES = {
    "mnist-cnn": {"conv1": (16, 14, 14), "conv2": (32, 7, 7), "out": (10,)},
    "szt": {"hidden1": (10,), "hidden2": (7,), "hidden3": (5,), "hidden4": (4,), "hidden5": (3,), "out": (2,)},
    "szt-simple": {"hidden1": (5,), "out": (1,)},
    "szt-complicated": {
        "hidden1": (10,),
        "hidden2": (7,),
        "hidden3": (5,),
        "hidden4": (4,),
        "hidden5": (3,),
        "out": (1,),
    },
    "mnist14-conv": {"conv": (1, 3, 3), "hidden": (10,), "out": (10,)},
    "mlp-mnist": {"hidden1": (1024,), "hidden2": (20,), "hidden3": (20,), "out": (10,)},
    "keras-cnn": {
        "conv0": (32, 26, 26),
        "conv1": (64, 24, 24),
        "pool2": (64, 12, 12),
        "flatten3": (9216,),
        "dense4": (128,),
        "dense5": (10,),
    },
    "resnet18": {
        "layer1": (64, 8, 8),
        "layer2": (128, 4, 4),
        "layer3": (256, 2, 2),
        "layer4": (512, 1, 1),
        "avgpool": (512, 1, 1),
        "fc": (10,),
    },
    "info-dropout-mnist": {
        "drop1.kl": (8, 14, 14),
        "drop2.kl": (16, 7, 7),
        **stochastic("drop3", 32),
        "out": (10,),
    },
    "info-dropout-cluttered": {
        "drop1.kl": (3, 48, 48),
        "drop2.kl": (6, 24, 24),
        "drop3.kl": (10, 12, 12),
        **stochastic("drop4", 19, 6, 6),
        "features": (19, 6, 6),
        "out": (10,),
    },
    "info-dropout-cifar": PICTURES,
    "info-dropout-occluded": PICTURES,
    "vae-mnist": stochastic("drop1", 5),
}


def short(name, **given):
    return TrainSettings.of(recipe(name), **SMALL | SHORT[name] | given)


@pytest.mark.parametrize("name", sorted(RECIPES))
def test_a_recipe_is_trained_and_recorded(name, store):
    settings = short(name)
    train(name, store, settings=settings)
    run = Store.open(store).run(f"{name}-seed0")
    assert {layer.name: layer.shape for layer in run.manifest.layers} == SHAPES[name]
    assert run.epochs == list(range(settings.epochs + 1))
    metrics = [metrics["train"] for segment in run.segments for metrics in segment.record.metrics]
    assert all(np.isfinite(each["loss"]) and 0 <= each.get("accuracy", 0) <= 1 for each in metrics)
    assert len({each["loss"] for each in metrics}) > 1
    dynamics = run.segments[-1].record.dynamics[-1]["epoch"]
    assert all(own["weight_norm"] > 0 and own["gradient_mean"] is not None for own in dynamics.values())
    without_weights = {"pool2", "flatten3", "avgpool"} | {layer for layer in SHAPES[name] if "." in layer}
    assert set(SHAPES[name]) - without_weights <= set(dynamics)


def test_what_is_recorded_of_a_resnet_is_its_forward_pass(store):
    result = train("resnet18", store, settings=short("resnet18", probe=None))
    x = torch.from_numpy(load_dataset("mnist-sample-rgb32", limit=8).train.x)
    result.model.eval()
    with torch.no_grad():
        np.testing.assert_array_equal(recorded(store, "fc", 1, "resnet18-seed0"), result.model(x).numpy())


def test_szt_trains_on_a_part_and_records_every_pattern(store):
    train("szt", store, settings=short("szt"))
    run = Store.open(store).run("szt-seed0")
    (split,) = run.manifest.splits
    assert (split.name, split.samples) == ("all", 4096)
    assert run.segments[0].record.steps[1] == -(-3482 // 256)
    p = run.probe(split).targets()["p_y1"]
    np.testing.assert_array_equal(p, load_dataset("szt").train.targets["p_y1"])
    assert set(run.segments[0].record.metrics[0]) == {"train", "test", "all"}


def test_szt_learns_its_rule(store):
    result = train("szt", store, settings=short("szt", epochs=120, schedule=None, probe=50))
    assert result.history[-1]["test"]["accuracy"] > 0.8 > result.history[0]["test"]["accuracy"]


def test_random_batches_are_steps(store):
    train("szt-simple", store, settings=short("szt-simple", epochs=3))
    assert Store.open(store).run("szt-simple-seed0").segments[0].record.steps == (0, 1, 2, 3)


def test_the_simple_rule_is_learnt_by_steps(store):
    result = train("szt-simple", store, settings=short("szt-simple", epochs=200, probe=20))
    losses = [metrics["train"]["loss"] for metrics in result.history]
    assert losses[-1] < 0.6 * losses[0]


@pytest.mark.parametrize("layers", [1, 3, 6])
def test_hidden_layers_are_an_option(store, layers):
    train("szt", store, settings=short("szt", epochs=0, options={"hidden_layers": str(layers)}))
    manifest = Store.open(store).run("szt-seed0").manifest
    assert [layer.name for layer in manifest.layers] == [*(f"hidden{n + 1}" for n in range(layers)), "out"]
    assert manifest.settings["options"] == {"activation": "tanh", "hidden_layers": layers}


def test_other_units_and_activations(store):
    options = {"hidden": "30-20-20-20", "activation": "relu"}
    train("mlp-mnist", store, settings=short("mlp-mnist", options=options))
    manifest = Store.open(store).run("mlp-mnist-seed0").manifest
    assert [layer.shape for layer in manifest.layers] == [(30,), (20,), (20,), (20,), (10,)]
    assert (recorded(store, "hidden4", 1, "mlp-mnist-seed0") >= 0).all()


def test_a_layer_before_its_activation_is_recorded_by_its_name(store):
    train("szt-simple", store, settings=short("szt-simple", layers=("hidden1.0", "hidden1")))
    before, after = (recorded(store, layer, 1, "szt-simple-seed0") for layer in ("hidden1.0", "hidden1"))
    np.testing.assert_array_equal(torch.tanh(torch.from_numpy(before)).numpy(), after)


OWN = """
from torch import nn
import ibstore

def make(width: int = 8):
    return nn.Sequential(nn.Flatten(), nn.Linear(784, width), nn.Tanh(), nn.Linear(width, 10))

narrow = ibstore.Recipe(
    name="narrow", description="", source="ours", model=make, options={"width": 8}, layers=("2", "3"),
    dataset="mnist-sample", epochs=1, batch_size=20, lr=0.1, optimizer="SGD", loss="cross-entropy",
)
nothing = 3
"""


def test_a_recipe_of_ones_own_is_a_file(store, tmp_path):
    (tmp_path / "mine.py").write_text(OWN)
    own = recipe(f"{tmp_path}/mine.py:narrow")
    train(own, store, settings=TrainSettings.of(own, limit=40, options={"width": "3"}, device="cpu"))
    assert Store.open(store).run("narrow-seed0").layer("2").shape == (3,)
    with pytest.raises(UsageError, match=r"is of type int; let it be an ibstore\.Recipe"):
        recipe(f"{tmp_path}/mine.py:nothing")
    with pytest.raises(UnknownNameError, match="has no 'nope'; it has make, narrow"):
        recipe(f"{tmp_path}/mine.py:nope")
    with pytest.raises(UsageError, match="a recipe is called ''; give it a name"):
        dataclasses.replace(own, name="")


@pytest.mark.parametrize(
    ("name", "given", "message"),
    [
        (
            "szt",
            {"options": {"width": 3}},
            "recipe 'szt' has no option 'width'; it has activation=tanh, hidden_layers=5",
        ),
        ("mnist-cnn", {"options": {"width": 3}}, "recipe 'mnist-cnn' has no option 'width'; it has none"),
        ("szt", {"options": {"hidden_layers": "many"}}, "option hidden_layers is 'many', which is no int"),
        ("szt", {"optimizer": "Adagrad"}, "optimizer is 'Adagrad'; give --optimizer Adam, SGD, SGD-momentum, "),
        ("szt", {"splits": ("validation",)}, "splits to record are validation; give --split train, test, all"),
        ("szt", {"splits": ("all", "all")}, "splits to record are all, all; .* each at most once"),
        ("szt", {"probe": 0}, "probe is 0; give --probe an integer of 1 or more"),
    ],
)
def test_what_a_recipe_cannot_be_told_is_refused(name, given, message):
    with pytest.raises(UsageError, match=message):
        TrainSettings.of(recipe(name), **given)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"hidden_layers": 7}, "hidden_layers is 7; give 1 to 6"),
        ({"activation": "sine"}, "activation is 'sine'; give one of tanh, relu"),
    ],
)
def test_a_network_that_cannot_be_made_is_refused(store, options, message):
    with pytest.raises(UsageError, match=message):
        train("szt", store, settings=short("szt", options=options))
    assert not store.exists()


def test_units_that_cannot_be_read_are_refused(store):
    with pytest.raises(UsageError, match="units of layers are '10-x'; write them as 1024-20-20"):
        train("mlp-mnist", store, settings=short("mlp-mnist", options={"hidden": "10-x"}))


def test_a_split_without_samples_cannot_be_recorded(store):
    with pytest.raises(UsageError, match="split 'test' of data set 'blackbox-simple' has no samples; record another"):
        train("szt-simple", store, settings=short("szt-simple", splits=("test",)))


def test_a_loss_that_does_not_fit_the_network_is_refused(store):
    wrong = dataclasses.replace(recipe("szt-simple"), options={})
    wrong = dataclasses.replace(wrong, model=lambda: nn.Sequential(nn.Linear(12, 2)))
    with pytest.raises(CaptureError, match=r"puts out .* where the loss has targets"):
        train(wrong, store, settings=TrainSettings.of(wrong, epochs=1, device="cpu"))


def test_fixed_minibatches_are_a_random_part_each_whatever_the_order_of_the_samples(store):
    """With weights that hardly move, the gradients of an epoch are those of any random minibatches."""
    settings = short("szt", epochs=1, lr=1e-9, schedule=None, fixed_minibatches=True, probe=50)
    train("szt", store, settings=settings)
    found = Store.open(store).run("szt-seed0").segments[0].record.dynamics[1]
    for layer in ("hidden1", "out"):
        one, other = (found[variant][layer]["gradient_std"] for variant in ("epoch", "fixed"))
        assert one / 3 < other < 3 * one  # in the order of the patterns it is 13 times as much


def test_a_layer_that_is_none_is_named_with_those_that_are(store):
    with pytest.raises(UnknownNameError, match="the network has no module and no tap 'hidden9'; did you mean hidden"):
        train("szt", store, settings=short("szt", layers=("hidden9",)))


@pytest.mark.parametrize(
    ("model", "message"),
    [
        (lambda width: nn.Linear(784, width), r"makes no network of width=-1 \(RuntimeError: .*negative dimension"),
        (
            lambda **_: 1 / 0,
            r"makes no network of width=-1 \(ZeroDivisionError: division by zero\); give other options",
        ),
        (lambda: nn.Linear(1, 1), r"makes no network of width=-1 \(TypeError: .*unexpected keyword argument 'width'"),
        (lambda **_: 3, r"makes a int of width=-1; let its model return a torch.nn.Module"),
    ],
)
def test_a_model_that_is_none_is_refused(model, message, store):
    own = dataclasses.replace(recipe("mlp-mnist"), name="own", model=model, options={"width": -1})
    settings = TrainSettings.of(own, epochs=1, limit=10, device="cpu")
    with pytest.raises(UsageError, match=message):
        train(own, store, settings=settings)
