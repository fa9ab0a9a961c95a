"""Networks trained at once are what each would be alone, and what cannot be is refused."""

from collections import OrderedDict
from copy import deepcopy

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn import functional

from ibstore.capture.state import State, restore
from ibstore.capture.training.ensemble import Replica, stack
from ibstore.capture.training.ensemble_layers import has_stacked_form
from ibstore.errors import CaptureError, ResumeError, UnknownNameError, UsageError

CPU = torch.device("cpu")
STEPS, BATCH, SAMPLES = 20, 16, 64

OPTIMIZERS = {
    "SGD": lambda parameters: torch.optim.SGD(parameters, lr=0.1),
    "momentum": lambda parameters: torch.optim.SGD(parameters, lr=0.1, momentum=0.9, weight_decay=1e-3, nesterov=True),
    "Adam": lambda parameters: torch.optim.Adam(parameters, lr=0.01),
    "Adadelta": lambda parameters: torch.optim.Adadelta(parameters, lr=1.0),
}


@pytest.fixture(autouse=True)
def one_thread():
    """Tiny matrices are not worth waiting for a second core that others work on."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def mlp():
    """A network of nested parts with names, as the recipes' are."""
    return nn.Sequential(
        OrderedDict(
            flatten=nn.Flatten(),
            hidden1=nn.Sequential(nn.Linear(12, 7), nn.Tanh()),
            hidden2=nn.Sequential(nn.Linear(7, 5, bias=False), nn.LeakyReLU(0.2)),
            out=nn.Sequential(nn.Linear(5, 3), nn.Softmax(dim=1)),
        )
    )


def cnn():
    return nn.Sequential(
        nn.Conv2d(1, 2, 2), nn.ReLU(inplace=True), nn.MaxPool2d(2, stride=1), nn.Flatten(), nn.Linear(4, 3)
    )


class Residual(nn.Module):
    """Two dense layers that share their weights, a sum, and a buffer that the output hangs on."""

    def __init__(self):
        super().__init__()
        self.first, self.out = nn.Linear(12, 12), nn.Linear(12, 3)
        self.second = nn.Linear(12, 12)
        self.second.weight = self.first.weight
        self.register_buffer("scale", torch.rand(()), persistent=False)

    def forward(self, x):
        flat = x.flatten(1)
        return self.out(flat + self.scale * torch.tanh(self.second(torch.tanh(self.first(flat)))))


NETWORKS = {"mlp": mlp, "cnn": cnn, "residual": Residual}


def made(make, replicas, dtype=torch.float32, seed=0):
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return [make().to(dtype) for _ in range(replicas)]


def data(dtype=torch.float32):
    generator = torch.Generator().manual_seed(1)
    x = torch.randn(SAMPLES, 1, 3, 4, generator=generator, dtype=dtype)
    return x, torch.randint(0, 3, (SAMPLES,), generator=generator)


def orders(replicas, steps=STEPS):
    """Rows of each network's batches, (step, R, batch): every network has its own."""
    generator = torch.Generator().manual_seed(2)
    return torch.randint(0, SAMPLES, (steps, replicas, BATCH), generator=generator)


def train_alone(model, optimizer, batches):
    x, y = data(next(model.parameters()).dtype)
    for rows in batches:
        optimizer.zero_grad()
        functional.cross_entropy(model(x[rows]), y[rows]).backward()
        optimizer.step()


def train_at_once(ensemble, optimizer, batches):
    x, y = data(next(ensemble.parameters()).dtype)
    for rows in batches:
        optimizer.zero_grad()
        losses = functional.cross_entropy(ensemble(x[rows]).flatten(0, 1), y[rows].flatten(), reduction="none")
        losses.reshape(rows.shape).mean(1).sum().backward()
        optimizer.step()


def values(ensemble):
    return {name: tensor.detach().clone() for name, tensor in ensemble.stacked.items()}


def assert_same(found, expected):
    assert found.keys() == expected.keys()
    for name in expected:
        assert torch.equal(found[name], expected[name]), name


# ---- as if each were alone


@pytest.mark.parametrize(
    # sums are taken in another order, so that what differs is rounding alone: at most 4e-16 and 2e-7 were measured, of
    # weights that move by 0.002 to 0.4; what is allowed leaves room for how other processors sum
    ("dtype", "tolerance"),
    [(torch.float64, 1e-12), (torch.float32, 1e-5)],
    ids=["float64", "float32"],
)
@pytest.mark.parametrize("optimizer", OPTIMIZERS)
@pytest.mark.parametrize("network", NETWORKS)
def test_each_is_what_it_would_be_alone(network, optimizer, dtype, tolerance):
    models, batches = made(NETWORKS[network], 4, dtype), orders(4)
    begun = deepcopy(models)
    ensemble = stack(models)
    train_at_once(ensemble, OPTIMIZERS[optimizer](ensemble.parameters()), batches)
    shown = deepcopy(models[0])
    for replica, model in enumerate(models):
        train_alone(model, OPTIMIZERS[optimizer](model.parameters()), batches[:, replica])
        ensemble.copy_to(replica, shown)
        moved = 0.0
        for name, parameter in model.named_parameters():
            torch.testing.assert_close(shown.get_parameter(name), parameter, rtol=tolerance, atol=tolerance)
            moved += (parameter - begun[replica].get_parameter(name)).detach().abs().max().item()
        assert moved > 0.01


def test_networks_are_written_in_stacked_layers_where_they_can_be():
    assert "stacked layers" in repr(stack(made(mlp, 2)))
    assert "vmap" in repr(stack(made(cnn, 2)))


SHAPES = st.sampled_from([(3, 4), (2, 3, 4)])  # samples are rows of units, or sequences of them
LAYERS = st.lists(
    st.sampled_from(
        [
            lambda: nn.Linear(4, 4),
            lambda: nn.Linear(4, 4, bias=False),
            nn.Tanh,
            nn.GELU,
            nn.Softplus,
            nn.Identity,
            lambda: nn.Threshold(0.1, -1.0),
            lambda: nn.Softmax(dim=1),
            lambda: nn.Softmax(dim=0),
            lambda: nn.LogSoftmax(dim=-1),
            lambda: nn.Softmin(dim=-2),
            lambda: nn.Flatten(0, 0),
            lambda: nn.Flatten(-1),
            lambda: nn.Sequential(nn.Linear(4, 4), nn.Sigmoid()),
        ]
    ),
    min_size=1,
    max_size=5,
)


@settings(max_examples=60, deadline=None)
@given(LAYERS, SHAPES, st.integers(1, 4))
def test_stacked_layers_say_what_plain_ones_say(layers, shape, replicas):
    models = made(lambda: nn.Sequential(*(layer() for layer in layers)), replicas, torch.float64)
    assert has_stacked_form(models[0])
    x = torch.randn(replicas, *shape, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    found = stack(models)(x)
    torch.testing.assert_close(found, torch.stack([model(own) for model, own in zip(models, x, strict=True)]))


def test_flattening_stops_before_the_replicas():
    models = made(lambda: nn.Sequential(nn.Flatten(0), nn.Unflatten(0, (6, 2)), nn.Linear(2, 1)), 3)
    flattened = made(lambda: nn.Sequential(nn.Flatten(0), nn.ReLU()), 3)
    x = torch.randn(3, 2, 6)
    assert stack(flattened)(x).shape == (3, 12)
    assert stack(models)(x).shape == (3, 6, 1)


def test_a_layer_at_two_places_is_one():
    def twice():
        shared = nn.Linear(4, 4)
        return nn.Sequential(shared, nn.Tanh(), shared, nn.Flatten(1), nn.Softmax(dim=1))

    models = made(twice, 3)
    ensemble, x = stack(models), torch.randn(3, 5, 4)
    assert list(ensemble.stacked) == ["0.weight", "0.bias"]
    torch.testing.assert_close(ensemble(x), torch.stack([model(own) for model, own in zip(models, x, strict=True)]))


def test_a_hook_is_obeyed():
    def hooked():
        model = nn.Sequential(nn.Linear(4, 3), nn.Tanh())
        model[0].register_forward_hook(lambda _module, _inputs, output: 2 * output)
        return model

    models, x = made(hooked, 2), torch.randn(2, 5, 4)
    torch.testing.assert_close(
        stack(models)(x), torch.stack([model(own) for model, own in zip(models, x, strict=True)])
    )


def test_frozen_weights_stay():
    def frozen():
        model = mlp()
        model.hidden1.requires_grad_(False)
        return model

    ensemble = stack(made(frozen, 3))
    before = values(ensemble)
    train_at_once(ensemble, OPTIMIZERS["momentum"](ensemble.parameters()), orders(3, 2))
    after = values(ensemble)
    still = {name for name in before if torch.equal(before[name], after[name])}
    assert still == {"hidden1.0.weight", "hidden1.0.bias"}


@pytest.mark.parametrize("network", NETWORKS)
def test_with_the_same_first_weights_data_alone_part_them(network):
    models = [made(NETWORKS[network], 1)[0] for _ in range(3)]
    ensemble, batches = stack(models), orders(3)
    batches[:, 2] = batches[:, 0]
    x = data()[0][:5].expand(3, -1, -1, -1, -1)
    first = ensemble(x)
    torch.testing.assert_close(first[0], first[1])
    train_at_once(ensemble, OPTIMIZERS["momentum"](ensemble.parameters()), batches)
    out = ensemble(x)
    torch.testing.assert_close(out[0], out[2])
    assert (out[0] - out[1]).abs().max() > 1e-3


def test_the_networks_that_were_stacked_stay_as_they_are():
    models = made(mlp, 2)
    before = deepcopy(models)
    ensemble = stack(models)
    train_at_once(ensemble, OPTIMIZERS["SGD"](ensemble.parameters()), orders(2, 2))
    for model, was in zip(models, before, strict=True):
        assert_same(model.state_dict(), was.state_dict())
        assert all(parameter.grad is None for parameter in model.parameters())


@pytest.mark.parametrize("network", NETWORKS)
def test_the_same_training_gives_the_same_bits(network):
    found = []
    for _ in range(2):
        ensemble = stack(made(NETWORKS[network], 5))
        train_at_once(ensemble, OPTIMIZERS["Adam"](ensemble.parameters()), orders(5))
        found.append(values(ensemble))
    assert_same(*found)


# ---- plain networks out of it


@pytest.mark.parametrize("network", NETWORKS)
def test_weights_are_copied_bit_for_bit(network):
    models = made(NETWORKS[network], 3)
    with torch.no_grad():
        next(models[1].parameters()).view(-1)[:3] = torch.tensor([float("nan"), -0.0, float("inf")])
    ensemble, shown = stack(models), made(NETWORKS[network], 1, seed=9)[0]
    kept = [id(parameter) for parameter in shown.parameters()]
    for replica in (2, 1, 0):
        ensemble.copy_to(replica, shown)
        for name, tensor in [*models[replica].named_parameters(), *models[replica].named_buffers()]:
            found = dict([*shown.named_parameters(), *shown.named_buffers()])[name]
            assert found.detach().numpy().tobytes() == tensor.detach().numpy().tobytes()
    assert [id(parameter) for parameter in shown.parameters()] == kept


@pytest.mark.parametrize("network", NETWORKS)
def test_parameters_are_found_as_in_a_plain_network(network):
    models = made(NETWORKS[network], 3)
    ensemble = stack(models)
    assert list(ensemble.stacked) == [name for name, _ in models[0].named_parameters()]
    for path, module in models[0].named_modules():
        own = [(3, *parameter.shape) for parameter in module.parameters()]
        assert [parameter.shape for parameter in ensemble.parameters_of(path)] == own
    train_at_once(ensemble, OPTIMIZERS["SGD"](ensemble.parameters()), orders(3, 1))
    assert all(parameter.grad.shape == parameter.shape for parameter in ensemble.parameters_of(""))


def test_a_path_that_is_not_there():
    with pytest.raises(UnknownNameError, match=r"no module 'hidden3'; they have flatten, hidden1, hidden1\.0"):
        stack(made(mlp, 2)).parameters_of("hidden3")


def test_copying_to_another_network_is_refused():
    ensemble = stack(made(mlp, 2))
    with pytest.raises(
        UsageError, match=r"with hidden1.0.weight \(7, 12\) .*; give one that is built as those in the ensemble"
    ):
        ensemble.copy_to(0, cnn())
    with pytest.raises(UsageError, match="cannot take the weights"):
        ensemble.copy_to(0, mlp().double())
    for index in (2, -1):
        with pytest.raises(UsageError, match=f"no replica {index} among 2; give 0 to 1"):
            ensemble.copy_to(index, mlp())


# ---- going on


def trained(network="mlp", optimizer="Adam", replicas=4, steps=7):
    ensemble = stack(made(NETWORKS[network], replicas))
    optimizing = OPTIMIZERS[optimizer](ensemble.parameters())
    train_at_once(ensemble, optimizing, orders(replicas)[:steps])
    return ensemble, optimizing


def gone_on(states, network="mlp", optimizer="Adam"):
    """A new ensemble with a new optimizer, from the states of some replicas."""
    ensemble = stack(made(NETWORKS[network], len(states), seed=8))
    optimizing = OPTIMIZERS[optimizer](ensemble.parameters())
    for index, state in enumerate(states):
        Replica(ensemble, optimizing, index).load_state_dict(state)
    return ensemble, optimizing


def states_of(ensemble, optimizer):
    return [Replica(ensemble, optimizer, index).state_dict() for index in range(ensemble.replicas)]


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
@pytest.mark.parametrize("network", NETWORKS)
def test_all_go_on_bit_for_bit(network, optimizer):
    ensemble, optimizing = trained(network, optimizer)
    again, optimizing_again = gone_on(states_of(ensemble, optimizing), network, optimizer)
    assert_same(values(again), values(ensemble))
    for each in ((ensemble, optimizing), (again, optimizing_again)):
        train_at_once(*each, orders(4)[7:])
    assert_same(values(again), values(ensemble))


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
@pytest.mark.parametrize("network", NETWORKS)
def test_some_go_on_without_the_others(network, optimizer):
    ensemble, optimizing = trained(network, optimizer)
    chosen = [3, 1]
    some = gone_on([states_of(ensemble, optimizing)[index] for index in chosen], network, optimizer)
    train_at_once(ensemble, optimizing, orders(4)[7:])
    train_at_once(*some, orders(4)[7:, chosen])
    whole = values(ensemble)
    for name, found in values(some[0]).items():
        torch.testing.assert_close(found, whole[name][chosen], rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_one_goes_on_alone(optimizer):
    ensemble, optimizing = trained(optimizer=optimizer)
    state = Replica(ensemble, optimizing, 2).state_dict()
    model = made(mlp, 1, seed=8)[0]
    alone = OPTIMIZERS[optimizer](model.parameters())
    model.load_state_dict(state["model"])
    alone.load_state_dict(state["optimizer"])
    train_at_once(ensemble, optimizing, orders(4)[7:])
    train_alone(model, alone, orders(4)[7:, 2])
    for name, tensor in ensemble.of(2).items():
        torch.testing.assert_close(tensor, model.get_parameter(name).detach(), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_a_replica_is_kept_in_a_file_without_pickle(optimizer):
    ensemble, optimizing = trained(optimizer=optimizer)
    files = [State({"own": Replica(ensemble, optimizing, index)}, CPU).dump() for index in range(4)]
    again = stack(made(mlp, 4, seed=8))
    optimizing_again = OPTIMIZERS[optimizer](again.parameters())
    for index, content in enumerate(files):
        restore(content, {"own": Replica(again, optimizing_again, index)}, CPU, "here")
    for each in ((ensemble, optimizing), (again, optimizing_again)):
        train_at_once(*each, orders(4)[7:])
    assert_same(values(again), values(ensemble))


def test_a_state_is_a_copy():
    ensemble, optimizing = trained()
    state = Replica(ensemble, optimizing, 0).state_dict()
    before = deepcopy(state)
    train_at_once(ensemble, optimizing, orders(4)[7:])
    assert_same(state["model"], before["model"])
    for position, slot in before["optimizer"]["state"].items():
        assert_same(state["optimizer"]["state"][position], slot)


def test_settings_of_the_optimizer_go_on():
    ensemble, optimizing = trained()
    optimizing.param_groups[0]["lr"] = 0.125
    _, again = gone_on(states_of(ensemble, optimizing))
    assert again.param_groups[0]["lr"] == 0.125
    assert len(again.param_groups[0]["params"]) == len(list(ensemble.parameters()))


def test_a_network_of_single_numbers_goes_on():
    """A parameter without a dimension has the shape of what is counted for all networks."""

    class Scaled(nn.Module):
        def __init__(self):
            super().__init__()
            self.scale = nn.Parameter(torch.rand(()))

        def forward(self, x):
            return self.scale * x

    ensemble = stack(made(Scaled, 3))
    optimizing = OPTIMIZERS["Adam"](ensemble.parameters())
    ensemble(torch.arange(6.0).reshape(3, 2)).square().sum().backward()
    optimizing.step()
    again = stack(made(Scaled, 3, seed=8))
    optimizing_again = OPTIMIZERS["Adam"](again.parameters())
    for index, state in enumerate(states_of(ensemble, optimizing)):
        assert state["shared"] == ["step"]
        Replica(again, optimizing_again, index).load_state_dict(state)
    assert_same(values(again), values(ensemble))
    for name, tensor in optimizing.state[ensemble.module.scale].items():
        assert torch.equal(optimizing_again.state[again.module.scale][name], tensor)


def test_replicas_at_different_steps_do_not_go_on_together():
    ahead, behind = states_of(*trained(steps=7)), states_of(*trained(steps=6))
    ensemble, optimizing = gone_on([ahead[0], ahead[1]])
    before = values(ensemble)
    with pytest.raises(ResumeError, match="at another step for the other replicas; let those go on together"):
        Replica(ensemble, optimizing, 1).load_state_dict(behind[1])
    with pytest.raises(ResumeError, match="at another step"):
        Replica(ensemble, optimizing, 1).load_state_dict(states_of(*trained(steps=0))[1])
    assert_same(values(ensemble), before)


def test_the_state_of_another_network_is_refused():
    state = states_of(*trained("cnn"))[0]
    ensemble, optimizing = trained("mlp")
    with pytest.raises(ResumeError, match=r"a network with 0.weight \(2, 1, 2, 2\) .* into one with hidden1.0.weight"):
        Replica(ensemble, optimizing, 0).load_state_dict(state)


def test_a_replica_has_to_be_there_and_be_trained():
    ensemble, optimizing = trained()
    with pytest.raises(UsageError, match="no replica 4 among 4; give 0 to 3"):
        Replica(ensemble, optimizing, 4)
    with pytest.raises(UsageError, match="trains something else than the ensemble"):
        Replica(ensemble, OPTIMIZERS["SGD"](mlp().parameters()), 0)


def test_an_optimizer_that_mixes_networks_is_refused():
    ensemble = stack(made(mlp, 3))
    optimizing = torch.optim.Adafactor(ensemble.parameters())
    train_at_once(ensemble, optimizing, orders(3, 1))
    with pytest.raises(UsageError, match=r"Adafactor keeps 'row_var' of all networks together .* such as SGD or Adam"):
        Replica(ensemble, optimizing, 0).state_dict()


# ---- what is refused

LATER = r"train them one after another \(--sweep seed=0:5\)"


class Scaled(nn.Module):
    def __init__(self, factor):
        super().__init__()
        self.factor, self.fc = factor, nn.Linear(2, 2)

    def forward(self, x):
        return self.factor * self.fc(x)


def tied(share):
    model = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2))
    if share:
        model[1].weight = model[0].weight
    return model


@pytest.mark.parametrize(
    ("first", "other", "where"),
    [
        (nn.Sequential(nn.Linear(3, 2)), nn.Sequential(nn.Linear(3, 4)), r"module '0': its bias, \(2,\) .* and \(4,\)"),
        (nn.Linear(3, 2), nn.Linear(3, 2, bias=False), r"its bias, \(2,\) torch.float32 on cpu and None"),
        (
            nn.Linear(3, 2),
            nn.Linear(3, 2).double(),
            r"its bias, \(2,\) torch.float32 on cpu and \(2,\) torch.float64 on cpu",
        ),
        (
            nn.Linear(3, 2),
            nn.Linear(3, 2).requires_grad_(False),
            r"its bias, .* and \(2,\) torch.float32 on cpu \(frozen\)",
        ),
        (nn.Sequential(nn.Tanh()), nn.Sequential(nn.ReLU()), "module '0': Tanh and ReLU"),
        (nn.Sequential(nn.Tanh()), nn.Sequential(nn.Tanh(), nn.Tanh()), "module '1', which one of them lacks"),
        (nn.LeakyReLU(0.1), nn.LeakyReLU(0.2), "its attribute negative_slope"),
        (Scaled(2.0), Scaled(3.0), "its attribute factor"),
        (Scaled(torch.ones(2)), Scaled(torch.tensor([1.0, 1.5])), "its attribute factor"),
        (tied(True), tied(False), "which modules share their weights"),
        (nn.Linear(3, 2), nn.Linear(3, 2).eval(), "its attribute training"),
    ],
)
def test_networks_that_are_not_alike_are_refused(first, other, where):
    with pytest.raises(UsageError, match=f"networks 0 and 2 are not built alike: they differ in {where}.*; {LATER}"):
        stack([first, deepcopy(first), other])


def test_modules_in_another_order_are_another_network():
    def ordered(*names):
        return nn.Sequential(OrderedDict((name, nn.Tanh()) for name in names))

    with pytest.raises(UsageError, match="the order of their modules"):
        stack([ordered("a", "b"), ordered("b", "a")])


def test_what_is_no_network_is_refused():
    with pytest.raises(UsageError, match="no networks to train at once; give one or more"):
        stack([])
    with pytest.raises(UsageError, match=r"network 1 is of type int; give torch.nn.Module"):
        stack([nn.Linear(1, 1), 3])
    with pytest.raises(UsageError, match="network 0 has no weights yet"):
        stack([nn.Sequential(nn.LazyLinear(2))])


@pytest.mark.parametrize(
    ("layer", "why"),
    [
        (nn.BatchNorm2d(2), r"1 \(BatchNorm2d\) keeps running statistics"),
        (nn.InstanceNorm2d(2, track_running_stats=True), r"1 \(InstanceNorm2d\) keeps running statistics"),
        (nn.Dropout(0.1), r"1 \(Dropout\) draws random numbers"),
        (nn.AlphaDropout(0.1), r"1 \(AlphaDropout\) draws random numbers"),
    ],
)
def test_layers_that_training_changes_or_that_are_random_are_refused(layer, why):
    with pytest.raises(UsageError, match=f"{why}.*{LATER}"):
        stack([nn.Sequential(nn.Conv2d(1, 2, 2), layer) for _ in range(2)])


@pytest.mark.parametrize(
    "layer", [nn.BatchNorm2d(2, track_running_stats=False), nn.InstanceNorm2d(2), nn.GroupNorm(1, 2), nn.Dropout(0.0)]
)
def test_layers_that_are_like_them_but_keep_nothing_are_not(layer):
    models = made(lambda: nn.Sequential(nn.Conv2d(1, 2, 2), deepcopy(layer)), 2, torch.float64)
    x = torch.randn(2, 5, 1, 3, 3, dtype=torch.float64)
    torch.testing.assert_close(
        stack(models)(x), torch.stack([model(own) for model, own in zip(models, x, strict=True)])
    )


class Noisy(nn.Module):
    def __init__(self):
        super().__init__()
        self.fc = nn.Linear(2, 2)

    def forward(self, x):
        return functional.dropout(self.fc(x), 0.5, self.training)


class Counting(nn.Module):
    """Counts in place, or in a new buffer each time."""

    def __init__(self, in_place):
        super().__init__()
        self.fc, self.in_place = nn.Linear(2, 2), in_place
        self.register_buffer("calls", torch.zeros(()))

    def forward(self, x):
        if self.training:
            self.calls = self.calls.add_(1) if self.in_place else self.calls + 1
        return self.fc(x)


@pytest.mark.parametrize(
    ("make", "why"),
    [
        (Noisy, "draws random numbers in training"),
        (lambda: nn.Sequential(nn.Linear(2, 2), nn.RReLU()), "draws random numbers in training"),
        (lambda: Counting(True), "buffer 'calls' changes in training"),
        (lambda: Counting(False), "buffer 'calls' changes in training"),
    ],
)
def test_what_only_a_forward_pass_tells_is_refused_at_the_first(make, why):
    ensemble, x = stack(made(make, 2)), torch.ones(2, 3, 2)
    state = torch.get_rng_state()
    for _ in range(2):
        with pytest.raises(UsageError, match=f"{why}.*{LATER}"):
            ensemble(x)
    assert torch.equal(torch.get_rng_state(), state)
    assert all(not buffer.any() for buffer in ensemble.buffers())


def test_what_training_alone_forbids_is_run_in_eval_mode():
    models, x = made(Noisy, 2), torch.ones(2, 3, 2)
    for model in models:
        model.eval()
    torch.testing.assert_close(stack(models)(x), torch.stack([model(x[0]) for model in models]))


@pytest.mark.parametrize("make", [mlp, cnn])
def test_input_of_another_shape_is_refused(make):
    ensemble = stack(made(make, 3))
    with pytest.raises(UsageError, match=r"x is \(2, 5, 1, 3, 4\); give \(3, batch, …\): a batch for each network"):
        ensemble(torch.ones(2, 5, 1, 3, 4))
    for shape in ((3, 5, 1, 7), (3,), (3, 2)):
        with pytest.raises(UsageError, match=r"give x as \(replica, batch, …\)"):
            ensemble(torch.ones(shape))


def test_a_network_that_cannot_be_mapped_over_is_refused():
    class Asking(nn.Module):
        def __init__(self):
            super().__init__()
            self.fc = nn.Linear(2, 2)

        def forward(self, x):
            return self.fc(x) if x.sum() > 0 else x

    with pytest.raises(UsageError, match=f"2 networks cannot be run at once on x of .*{LATER}"):
        stack(made(Asking, 2))(torch.ones(2, 3, 2))


def test_refusals_are_no_errors_of_capture():
    """The command line ends with 2 for them: the user's words were wrong."""
    assert UsageError.exit_code == 2
    assert not issubclass(UsageError, CaptureError)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("network", NETWORKS)
def test_an_ensemble_moves_to_a_gpu(network):
    on_cpu, models = stack(made(NETWORKS[network], 3, torch.float64)), made(NETWORKS[network], 3, torch.float64)
    ensemble = stack(models).to("cuda")
    x = data(torch.float64)[0][orders(3, 1)[0]]
    torch.testing.assert_close(ensemble(x.cuda()).cpu(), on_cpu(x))
    ensemble.copy_to(1, models[0])
    assert_same(models[0].state_dict(), models[1].state_dict())


def test_an_ensemble_moves_to_another_dtype_in_place():
    """As `nn.Module.to` does: the optimizer goes on with the same parameters."""
    ensemble = stack(made(mlp, 2))
    before = list(ensemble.parameters())
    ensemble.to(torch.float64)
    assert all(one is other for one, other in zip(before, ensemble.parameters(), strict=True))
    assert ensemble(data(torch.float64)[0][:2].unsqueeze(0).expand(2, -1, -1, -1, -1)).dtype == torch.float64
