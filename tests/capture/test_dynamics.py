"""Gradients over minibatches, and what is read beside them."""

from itertools import chain, pairwise

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from torch import nn
from torch.nn import functional

from ibstore.analyze import Study
from ibstore.capture.dynamics import Dynamics, Gradients, owners
from ibstore.capture.recorder import Recorder
from ibstore.errors import UsageError
from ibstore.store import Store


def network(seed=0, sizes=(4, 3, 2)):
    torch.manual_seed(seed)
    modules = [module for a, b in pairwise(sizes) for module in (nn.Linear(a, b), nn.Tanh())]
    return nn.Sequential(*modules[:-1])


def layers_of(model):
    return {name: list(child.parameters()) for name, child in model.named_children() if list(child.parameters())}


def data(count, batches=1, seed=1):
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(batches * count, 4, generator=generator)
    y = torch.randint(0, 2, (batches * count,), generator=generator)
    return list(zip(x.split(count), y.split(count), strict=True))


def backward(model, x, y):
    for parameter in model.parameters():
        parameter.grad = None
    functional.cross_entropy(model(x), y).backward()


def expected(gradients):
    """Of gradients (batch, …) of each parameter of a layer: both norms and their ratio, in float64 by definition."""
    rows = np.concatenate([np.reshape(each, (len(each), -1)) for each in gradients], 1).astype(np.float64)
    mean, std = np.linalg.norm(rows.mean(0)), np.linalg.norm(rows.std(0))
    return {"gradient_mean": mean, "gradient_std": std, "snr": mean / std}


def fed(gradients, replicas=None):
    """What `Gradients` says of arrays (batch, …), one a parameter, of a single layer."""
    parameters = [nn.Parameter(torch.zeros(each.shape[1:])) for each in gradients]
    gathered = Gradients({"layer": parameters}, replicas)
    for batch in zip(*gradients, strict=True):
        for parameter, gradient in zip(parameters, batch, strict=True):
            parameter.grad = torch.from_numpy(np.ascontiguousarray(gradient))
        gathered.add()
    return [found["layer"] for found in gathered.read()]


def like(**quantities):
    return pytest.approx(quantities, rel=1e-12)


# ── mean, deviation, ratio ──────────────────────────────────────────────────────────────────────────────────


def test_of_a_network_they_are_the_norms_of_mean_and_deviation_over_its_minibatches():
    model = network()
    gradients = Gradients(layers_of(model))
    kept = {name: [] for name in layers_of(model)}
    for x, y in data(8, batches=5):
        backward(model, x, y)
        gradients.add()
        for name, parameters in layers_of(model).items():
            kept[name].append([parameter.grad.numpy().copy() for parameter in parameters])
    (found,) = gradients.read()
    for name, batches in kept.items():
        by_parameter = [np.stack(each) for each in zip(*batches, strict=True)]
        assert found[name] == like(batches=5, **expected(by_parameter))


MATRICES = arrays.arrays(
    np.float32, st.tuples(st.integers(2, 6), st.integers(1, 5)), elements=st.floats(-8, 8, width=16)
)


@settings(max_examples=50, deadline=None)
@given(MATRICES)
def test_of_any_gradients_they_are_what_numpy_says(gradients):
    (found,) = fed([gradients])
    wide = gradients.astype(np.float64)
    assert found["gradient_mean"] == pytest.approx(np.linalg.norm(wide.mean(0)), rel=1e-12, abs=1e-14)
    assert found["gradient_std"] == pytest.approx(np.linalg.norm(wide.std(0)), rel=1e-12, abs=1e-14)


@pytest.mark.parametrize("snr", [1e4, 1e6])
def test_where_the_mean_is_very_large_the_deviation_keeps_its_digits(snr):
    noise = np.random.default_rng(0).normal(size=(200, 300))
    gradients = (snr * np.ones(300) + noise).astype(np.float32)
    (found,) = fed([gradients])
    assert found == like(batches=200, **expected([gradients]))
    float32 = gradients.astype(np.float32)
    naive = np.sqrt(np.abs((float32**2).mean(0) - float32.mean(0) ** 2).sum())
    assert abs(naive / found["gradient_std"] - 1) > 0.5  # what the difference of squares says here


def test_stacked_replicas_are_as_each_alone():
    generator = np.random.default_rng(0)
    weights, biases = (generator.normal(size=(6, 3, *shape)).astype(np.float32) for shape in ((4, 2), (4,)))
    stacked = fed([weights, biases], replicas=3)
    assert stacked == [fed([weights[:, replica], biases[:, replica]])[0] for replica in range(3)]
    assert len({found["snr"] for found in stacked}) == 3


def test_one_batch_has_no_noise_and_none_has_nothing():
    assert fed([np.array([[3.0, 4.0]], np.float32)]) == [
        {"batches": 1, "gradient_mean": 5.0, "gradient_std": 0.0, "snr": None}
    ]
    assert Gradients({"layer": [nn.Parameter(torch.ones(2))]}).read() == [
        {"layer": {"batches": 0, "gradient_mean": None, "gradient_std": None, "snr": None}}
    ]


def test_batches_that_say_the_same_have_no_ratio():
    (found,) = fed([np.full((3, 2), 0.1, np.float32)])
    assert (found["gradient_std"], found["snr"]) == (0.0, None)


def test_reading_starts_anew_and_looking_does_not():
    parameter = nn.Parameter(torch.zeros(1))
    gradients = Gradients({"layer": [parameter]})
    for gradient in (5.0, 1.0, 3.0):
        parameter.grad = torch.tensor([gradient])
        gradients.add()
        if gradient == 5.0:
            assert gradients.now()[0]["layer"]["gradient_mean"] == 5.0
            assert gradients.batches == 1
            gradients.read()
    assert gradients.read() == [{"layer": {"batches": 2, "gradient_mean": 2.0, "gradient_std": 1.0, "snr": 2.0}}]


def test_a_parameter_without_gradient_counts_as_zero():
    one, other = nn.Parameter(torch.zeros(1)), nn.Parameter(torch.zeros(2))
    gradients = Gradients({"layer": [one, other]})
    one.grad = torch.tensor([1.0])
    gradients.add()
    one.grad = torch.tensor([3.0])
    other.grad = torch.tensor([0.0, 4.0])
    gradients.add()
    (found,) = gradients.read()
    assert found["layer"] == like(batches=2, gradient_mean=8**0.5, gradient_std=5**0.5, snr=1.6**0.5)


def test_a_step_without_any_gradient_is_refused():
    """As behind ``zero_grad``: zeros would be taken for gradients."""
    gradients = Gradients({"layer": [nn.Parameter(torch.zeros(1))]})
    with pytest.raises(UsageError, match=r"call add\(\) behind backward\(\) and before zero_grad\(\)"):
        gradients.add()
    assert gradients.batches == 0


def test_sparse_gradients_are_taken():
    embedding = nn.Embedding(5, 2, sparse=True)
    gradients = Gradients({"embedding": list(embedding.parameters())})
    embedding(torch.tensor([1, 1, 3])).sum().backward()
    assert embedding.weight.grad.is_sparse
    gradients.add()
    assert gradients.read()[0]["embedding"]["gradient_mean"] == pytest.approx((4 + 4 + 1 + 1) ** 0.5)


def test_a_gradient_that_is_no_number_is_seen():
    (found,) = fed([np.array([[1.0], [np.inf]], np.float32)])
    assert not any(np.isfinite(found[name]) for name in ("gradient_mean", "gradient_std", "snr"))


TWO = nn.Parameter(torch.zeros(2))


@pytest.mark.parametrize(
    ("owners", "replicas", "message"),
    [
        ({}, None, "no layer has a parameter; give the"),
        ({"a": []}, None, "no layer has a parameter"),
        ({"a": [TWO], "b": [TWO]}, None, "a parameter stands in two layers, or twice in one; give it to one"),
        ({"a": [TWO]}, 3, r"a parameter of shape \(2,\) is no stack of 3; give stacked"),
        ({"a": [TWO, torch.zeros(1, device="meta")]}, None, "parameters lie on cpu, meta; give those of one device"),
        ({"a": [torch.zeros(2, dtype=torch.complex64)]}, None, "a parameter holds no real numbers; leave it out"),
    ],
)
def test_parameters_that_cannot_be_taken_together_are_refused(owners, replicas, message):
    with pytest.raises(UsageError, match=message):
        Gradients(owners, replicas)


# ── beside them ─────────────────────────────────────────────────────────────────────────────────────────────


def descend(model, optimizer, batches, dynamics=None):
    for x, y in batches:
        backward(model, x, y)
        if dynamics is not None:
            dynamics.add()
        optimizer.step()


def test_weights_and_learning_rate_are_those_of_the_capture_point():
    model = network()
    rates = [{"params": model[0].parameters(), "lr": 0.5}, {"params": [model[2].weight], "lr": 0.25}]
    optimizer = torch.optim.SGD(rates)
    dynamics = Dynamics(layers_of(model), optimizer)
    descend(model, optimizer, data(8, batches=3), dynamics)
    optimizer.param_groups[0]["lr"] = 0.125
    found = dynamics.read()["epoch"]
    for name, parameters in layers_of(model).items():
        together = np.concatenate([parameter.detach().numpy().ravel() for parameter in parameters]).astype(float)
        assert found[name]["weight_norm"] == pytest.approx(np.linalg.norm(together), rel=1e-12)
    assert (found["0"]["learning_rate"], found["2"]["learning_rate"]) == (0.125, 0.25)
    assert found["0"]["batches"] == 3


def test_a_layer_of_several_learning_rates_has_none_and_one_that_is_not_trained_too():
    model = network()
    groups = [{"params": [model[0].weight], "lr": 0.5}, {"params": [model[0].bias], "lr": 0.25}]
    found = Dynamics(layers_of(model), torch.optim.SGD(groups)).read()["epoch"]
    assert (found["0"]["learning_rate"], found["2"]["learning_rate"]) == (None, None)


def test_before_training_there_are_weights_and_no_gradients():
    model = network()
    found = Dynamics(layers_of(model), torch.optim.SGD(model.parameters(), lr=0.1)).read()["epoch"]["0"]
    assert found["weight_norm"] > 0
    assert (found["batches"], found["learning_rate"]) == (0, 0.1)
    assert {found[name] for name in ("gradient_mean", "gradient_std", "snr", "predicted_change")} == {None}


def test_the_predicted_change_is_the_observed_one_to_first_order():
    (batch,) = data(64)
    ratios = []
    for lr in (0.1, 0.01, 0.001):
        model = network(sizes=(4, 6, 5, 2)).double()
        x, y = batch[0].double(), batch[1]
        optimizer = torch.optim.SGD(model.parameters(), lr=lr)
        dynamics = Dynamics(layers_of(model), optimizer)
        before = functional.cross_entropy(model(x), y).item()
        descend(model, optimizer, [(x, y)] * 4, dynamics)
        predicted = sum(layer["predicted_change"] for layer in dynamics.read()["epoch"].values())
        ratios.append((functional.cross_entropy(model(x), y).item() - before) / predicted)
    errors = [abs(ratio - 1) for ratio in ratios]
    assert errors[0] > 5 * errors[1] > 25 * errors[2]  # an error of the order of the learning rate
    assert errors[2] < 1e-3


def test_the_predicted_change_takes_each_steps_learning_rate():
    parameter = nn.Parameter(torch.zeros(1))
    optimizer = torch.optim.SGD([parameter], lr=1.0)
    dynamics = Dynamics({"layer": [parameter]}, optimizer)
    for gradient, lr in ((1.0, 1.0), (3.0, 0.5)):
        parameter.grad, optimizer.param_groups[0]["lr"] = torch.tensor([gradient]), lr
        dynamics.add()
    assert dynamics.read()["epoch"]["layer"]["predicted_change"] == -(1.0 + 0.5) * 2.0**2
    parameter.grad = torch.tensor([1.0])
    dynamics.add()
    assert dynamics.read()["epoch"]["layer"]["predicted_change"] == -0.5


@pytest.mark.parametrize(
    "make",
    [
        lambda parameters: torch.optim.Adam(parameters, lr=0.1),
        lambda parameters: torch.optim.SGD(parameters, lr=0.1, momentum=0.9),
        lambda parameters: torch.optim.SGD(parameters, lr=0.1, weight_decay=0.1),
        lambda parameters: torch.optim.SGD(parameters, lr=0.1, maximize=True),
    ],
)
def test_other_optimizers_take_other_steps_and_have_no_predicted_change(make):
    model = network()
    optimizer = make(model.parameters())
    dynamics = Dynamics(layers_of(model), optimizer)
    descend(model, optimizer, data(8, batches=2), dynamics)
    found = dynamics.read()["epoch"]["0"]
    assert found["predicted_change"] is None
    assert found["snr"] > 0


@pytest.mark.parametrize("make", [torch.optim.SGD, torch.optim.Adam])
def test_gathering_changes_nothing_of_the_training(make):
    models = [network(), network()]
    optimizers = [make(model.parameters(), lr=0.1) for model in models]
    dynamics = Dynamics(layers_of(models[0]), optimizers[0])
    random = torch.get_rng_state()
    for _ in range(3):
        descend(models[0], optimizers[0], data(8, batches=4), dynamics)
        dynamics.read()
    assert torch.equal(torch.get_rng_state(), random)
    for _ in range(3):
        descend(models[1], optimizers[1], data(8, batches=4))
    for one, other in zip(*(model.parameters() for model in models), strict=True):
        assert torch.equal(one, other)
        assert torch.equal(one.grad, other.grad)


def test_stacked_networks_have_what_each_has_alone():
    models = [network(seed) for seed in (0, 1)]
    stacked = {
        name: [
            nn.Parameter(torch.stack(each)) for each in zip(*(layers_of(model)[name] for model in models), strict=True)
        ]
        for name in layers_of(models[0])
    }
    every = Dynamics(stacked, torch.optim.SGD(chain(*stacked.values()), lr=0.1), replicas=2)
    apart = [Dynamics(layers_of(model), torch.optim.SGD(model.parameters(), lr=0.1)) for model in models]
    for batches in zip(*(data(8, batches=3, seed=seed) for seed in (0, 1)), strict=True):
        for model, batch in zip(models, batches, strict=True):
            backward(model, *batch)
        for name, parameters in stacked.items():
            for index, parameter in enumerate(parameters):
                parameter.grad = torch.stack([layers_of(model)[name][index].grad for model in models])
        for dynamics in (every, *apart):
            dynamics.add()
    with pytest.raises(UsageError, match=r"several replicas, each with dynamics of its own; take now\(\) and restart"):
        every.read()
    found = every.now()
    every.restart()
    assert found == [dynamics.read() for dynamics in apart]
    assert [each["epoch"]["0"]["batches"] for each in every.now()] == [0, 0]


def test_what_takes_the_steps_is_an_optimizer():
    with pytest.raises(UsageError, match=r"optimizer is of type NoneType; give the torch\.optim\.Optimizer"):
        Dynamics(layers_of(network()), None)


def test_a_learning_rate_may_be_a_tensor():
    model = network()
    optimizer = torch.optim.SGD(model.parameters(), lr=torch.tensor(0.5))
    dynamics = Dynamics(layers_of(model), optimizer)
    descend(model, optimizer, data(8), dynamics)
    found = dynamics.read()["epoch"]["2"]
    assert isinstance(found["learning_rate"], float)
    assert found["predicted_change"] == pytest.approx(-0.5 * found["gradient_mean"] ** 2, rel=1e-12)


def test_what_a_plain_loop_reads_stands_in_the_store_and_in_sql(tmp_path):
    model, batches = network(), data(8, batches=3)
    x, y = (torch.cat(each) for each in zip(*batches, strict=True))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    dynamics = Dynamics(owners(model, ["1", "2"], lambda: model(x)), optimizer)
    read = []
    with Recorder(tmp_path / "lab.zarr", model, layers=["1", "2"], x=x, y=y) as recorder:
        for epoch in range(3):
            if epoch:
                descend(model, optimizer, batches, dynamics)
            read.append(dynamics.read())
            recorder.record(epoch, dynamics=read[-1], loss=functional.cross_entropy(model(x), y).item())
    records = [segment.record for segment in Store.open(tmp_path / "lab.zarr").run("run0").segments]
    assert [each for record in records for each in record.dynamics] == read
    found = Study(tmp_path / "lab.zarr").query("SELECT * FROM dynamics ORDER BY epoch, layer")
    assert found.select("epoch", "layer", "batches").rows() == [
        (epoch, layer, 3 if epoch else 0) for epoch in range(3) for layer in ("1", "2")
    ]
    assert found["snr"].to_list() == [layer["snr"] for each in read for layer in each["epoch"].values()]
    observed, predicted = (found.filter(epoch=1)[name] for name in ("loss_change", "predicted_change"))
    assert observed[0] == pytest.approx(predicted.sum(), rel=0.5)  # to first order
