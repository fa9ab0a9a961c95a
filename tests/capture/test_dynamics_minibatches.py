"""All minibatches at the same weights, and one network a minibatch."""

from copy import deepcopy

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional

from ibstore.capture.dropout import InformationDropout, Lagrangian, LogNormal, transmitting
from ibstore.capture.dynamics import ParallelMinibatches, fixed_minibatches, minibatches
from ibstore.capture.models import szt
from ibstore.capture.state import State, restore
from ibstore.errors import UsageError

from . import networks

CPU = torch.device("cpu")


def losses(output, labels):
    return functional.cross_entropy(output, labels, reduction="none")


def network(seed=0):
    torch.manual_seed(seed)
    return szt(hidden_layers=2)


def owned(model):
    return {
        layer: [f"{layer}.{name}" for name, _ in child.named_parameters()] for layer, child in model.named_children()
    }


def owners(model):
    return {layer: list(child.parameters()) for layer, child in model.named_children()}


def data(*sizes, features=(12,)):
    generator = torch.Generator().manual_seed(1)
    return [
        (torch.randn(size, *features, generator=generator), torch.randint(0, 2, (size,), generator=generator))
        for size in sizes
    ]


def gradient(model, x, y):
    """Gradients by layer, one row of all its numbers, float64."""
    model.zero_grad()
    losses(model(x), y).mean().backward()
    return {
        layer: np.concatenate([each.grad.numpy().ravel() for each in child.parameters()]).astype(float)
        for layer, child in model.named_children()
    }


def expected(gradients):
    """Quantities of gradients by layer, one mapping a minibatch, by definition."""
    found = {}
    for layer in gradients[0]:
        rows = np.stack([each[layer] for each in gradients])
        mean, std = np.linalg.norm(rows.mean(0)), np.linalg.norm(rows.std(0))
        found[layer] = {"batches": len(rows), "gradient_mean": mean, "gradient_std": std, "snr": mean / std}
    return found


def assert_near(found, other):
    assert list(found) == list(other)
    for layer in other:
        assert found[layer] == pytest.approx(other[layer], rel=2e-6)  # float32 gradients, summed in another order


# ── fixed ───────────────────────────────────────────────────────────────────────────────────────────────────


def test_at_fixed_weights_they_are_those_of_a_plain_loop_without_a_step():
    model, batches = network(), data(8, 8, 5)
    assert_near(
        fixed_minibatches(model, owners(model), iter(batches), losses), expected([gradient(model, *b) for b in batches])
    )


def test_looking_at_fixed_weights_changes_nothing():
    model = networks.dropout_net().train()
    model(torch.randn(6, 4)).sum().backward()
    gradients = [parameter.grad.clone() for parameter in model.parameters()]
    before, random = deepcopy(model.state_dict()), torch.get_rng_state()
    fixed_minibatches(model, {"all": list(model.parameters())}, data(6, 6, features=(4,)), losses)
    assert model.training
    assert torch.equal(torch.get_rng_state(), random)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert all(torch.equal(p.grad, was) for p, was in zip(model.parameters(), gradients, strict=True))


def test_frozen_and_unused_parameters_have_no_gradient_there():
    model = network()
    for parameter in model.hidden1.parameters():
        parameter.requires_grad_(False)
    parts = {**owners(model), "unused": [nn.Parameter(torch.ones(3))]}
    found = fixed_minibatches(model, parts, data(4, 4), losses)
    nothing = {"batches": 2, "gradient_mean": 0.0, "gradient_std": 0.0, "snr": None}
    assert (found["hidden1"], found["unused"]) == (nothing, nothing)
    assert found["out"]["snr"] > 0


# ── parallel ────────────────────────────────────────────────────────────────────────────────────────────────

OPTIMIZERS = {
    "SGD": lambda parameters: torch.optim.SGD(parameters, lr=0.5),
    "momentum": lambda parameters: torch.optim.SGD(parameters, lr=0.1, momentum=0.9, weight_decay=0.01),
    "Adam": lambda parameters: torch.optim.Adam(parameters, lr=0.01),
}


def parallel(model, batches, optimizer="SGD"):
    return ParallelMinibatches(model, owned(model), batches, losses, OPTIMIZERS[optimizer])


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
@pytest.mark.parametrize("sizes", [(8, 8, 8, 8), (8, 8, 8, 3)])
@pytest.mark.parametrize("at_once", [3, 32])
def test_in_parallel_they_are_those_of_a_loop_over_copies_each_with_its_own_minibatch(
    optimizer, sizes, at_once, monkeypatch
):
    monkeypatch.setattr(minibatches, "AT_ONCE", at_once)
    model, batches = network(), data(*sizes)
    copies = [deepcopy(model) for _ in batches]
    optimizers = [OPTIMIZERS[optimizer](copy.parameters()) for copy in copies]
    trained = parallel(model, batches, optimizer)
    for _ in range(4):
        assert_near(
            trained.read(), expected([gradient(copy, *batch) for copy, batch in zip(copies, batches, strict=True)])
        )
        for copy, each, batch in zip(copies, optimizers, batches, strict=True):
            gradient(copy, *batch)
            each.step()
        trained.epoch()


def test_before_training_parallel_and_fixed_are_the_same():
    model, batches = network(), data(8, 8, 5)
    assert_near(parallel(model, batches).read(), fixed_minibatches(model, owners(model), batches, losses))


def test_one_minibatch_has_no_noise():
    (found,) = {layer["snr"] for layer in parallel(network(), data(8)).read().values()}
    assert found is None


def test_reading_takes_no_step_and_the_model_stays_as_it_was():
    model = network().eval()
    before, random = deepcopy(model.state_dict()), torch.get_rng_state()
    trained = parallel(model, data(8, 8))
    first = trained.read()
    assert trained.read() == first
    trained.epoch()
    assert trained.read() != first
    assert not model.training
    assert torch.equal(torch.get_rng_state(), random)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


def test_convolutions_and_frozen_parameters_are_taken():
    torch.manual_seed(0)
    model = networks.inplace_cnn()
    model[0].bias.requires_grad_(False)
    names = {"conv": ["0.weight", "0.bias"], "out": ["3.weight", "3.bias"]}
    batches = data(4, 4, features=(1, 6, 6))
    trained = ParallelMinibatches(model, names, batches, losses, OPTIMIZERS["SGD"])
    frozen = {"conv": [model[0].weight, model[0].bias], "out": list(model[3].parameters())}
    assert_near(trained.read(), fixed_minibatches(model, frozen, batches, losses))


def test_resumed_networks_go_on_bit_for_bit():
    model, batches = network(), data(8, 8, 5)
    whole, begun, resumed = (parallel(model, batches, "Adam") for _ in range(3))
    for _ in range(2):
        whole.epoch()
        begun.epoch()
    restore(State({"parallel": begun}, CPU).dump(), {"parallel": resumed}, CPU, "here")
    for trained in (whole, resumed):
        trained.epoch()
    assert resumed.read() == whole.read()


def test_a_state_of_other_minibatches_does_not_fit(monkeypatch):
    with pytest.raises(ValueError, match=r"parameter 'hidden1.0.weight' has shape \(3, 10, 12\)"):
        parallel(network(), data(8, 8)).load_state_dict(parallel(network(), data(8, 8, 8)).state_dict())
    monkeypatch.setattr(minibatches, "AT_ONCE", 2)
    with pytest.raises(ValueError, match="is longer than"):
        parallel(network(), data(8, 8)).load_state_dict(parallel(network(), data(8, 8, 8, 8)).state_dict())


def test_no_minibatches_are_refused():
    with pytest.raises(UsageError, match="there are no minibatches; give one a network"):
        parallel(network(), [])


@pytest.mark.parametrize("module", [nn.Dropout(0.5), nn.BatchNorm1d(4)])
def test_what_cannot_be_stacked_is_refused_before_the_first_step(module):
    model = nn.Sequential(nn.Linear(4, 4), module, nn.Linear(4, 2))
    names = {"all": [name for name, _ in model.named_parameters()]}
    with pytest.raises(UsageError, match=r"cannot be trained on all minibatches in parallel.* leave parallel"):
        ParallelMinibatches(model, names, data(4, 4, features=(4,)), losses, OPTIMIZERS["SGD"])


def test_fixed_minibatches_have_the_gradients_of_what_is_paid_too():
    torch.manual_seed(0)
    f, head = nn.Sequential(nn.Linear(4, 3), nn.Softplus()), nn.Linear(4, 3)
    model = nn.Sequential(InformationDropout(f, head, LogNormal(), 1), nn.Linear(3, 2))
    x, y = torch.randn(20, 4), torch.arange(20) % 2
    lagrangian = Lagrangian(beta_kl=2.0, samples=20)
    owners = {"head": list(head.parameters())}
    found = fixed_minibatches(model, owners, [(x, y)], losses, lagrangian)["head"]
    with transmitting(model.eval()) as heard:
        model(x)
    gradients = torch.autograd.grad(lagrangian(heard), owners["head"])  # α is without effect where there is no noise
    expected = torch.cat([gradient.flatten() for gradient in gradients]).norm().item()
    assert found["gradient_mean"] == pytest.approx(expected, rel=1e-5)
    assert expected > 0
