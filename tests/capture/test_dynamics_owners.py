"""Which parameters belong to which layer."""

import pytest
import torch
from torch import nn

from ibstore.capture.dynamics import owned_names, owners
from ibstore.capture.models import mnist_cnn
from ibstore.capture.taps import tap
from ibstore.errors import CaptureError, UnknownNameError

from . import networks


def names(model, layers, shape=(2, 4)):
    return owned_names(model, layers, lambda: model(torch.zeros(shape)))


def both(path):
    return [f"{path}.weight", f"{path}.bias"]


class Stages(nn.Module):
    """Activation modules beside linear maps; one map is declared last and called second, and one is never called."""

    def __init__(self) -> None:
        super().__init__()
        self.fc1, self.act1, self.act2, self.out = nn.Linear(4, 3), nn.Tanh(), nn.Tanh(), nn.Linear(3, 2)
        self.fc2, self.idle = nn.Linear(3, 3), nn.Linear(1, 1)
        self.scale = nn.Parameter(torch.ones(1))

    def forward(self, x):
        return self.out(self.act2(self.fc2(self.act1(self.fc1(x))))) * self.scale


REST = {"idle": both("idle"), "scale": ["scale"]}


@pytest.mark.parametrize(
    ("layers", "expected"),
    [
        (["fc1", "fc2", "out"], {"fc1": both("fc1"), "fc2": both("fc2"), "out": both("out")}),
        (["act1", "act2", "out"], {"act1": both("fc1"), "act2": both("fc2"), "out": both("out")}),
        (["fc1", "act1", "fc2", "act2"], {"fc1": both("fc1"), "fc2": both("fc2"), "out": both("out")}),
        (["out", "act2"], {"act2": [*both("fc1"), *both("fc2")], "out": both("out")}),
        (["out"], {"out": both("out"), "fc1": both("fc1"), "fc2": both("fc2")}),
        ([], {"fc1": both("fc1"), "fc2": both("fc2"), "out": both("out")}),
    ],
)
def test_a_recorded_layer_has_its_own_parameters_or_those_that_fired_since_the_one_before(layers, expected):
    assert names(Stages(), layers) == {**expected, **REST}


def test_a_layer_of_modules_inside_has_theirs():
    assert names(mnist_cnn(), ["conv1", "conv2", "out"], (2, 1, 28, 28)) == {
        "conv1": both("conv1.0"),
        "conv2": both("conv2.0"),
        "out": both("out"),
    }


def test_a_layer_inside_another_is_the_first_and_has_them():
    model = nn.Sequential(nn.Sequential(nn.Linear(4, 3), nn.Tanh()), nn.Linear(3, 2))
    assert names(model, ["0", "0.0", "1"]) == {"0.0": both("0.0"), "1": both("1")}


def test_calls_of_a_reused_module_have_what_fired_between_them():
    found = names(networks.Reused(), ["relu:0", "relu:1", "relu:2"])
    assert found == {"relu:1": both("fc1"), "relu:2": both("fc2")}


def test_tied_weights_are_the_first_layers():
    model = nn.Sequential(nn.Linear(4, 4), nn.Tanh(), nn.Linear(4, 4))
    model[2].weight = model[0].weight
    assert names(model, ["0", "2"]) == {"0": both("0"), "2": ["2.bias"]}
    same = nn.Linear(4, 4)
    assert names(nn.Sequential(same, nn.Tanh(), same), ["1", "2:1"]) == {"2:1": both("0")}


def test_parts_of_an_output_share_their_modules_parameters():
    model = networks.Nested()
    found = names(model, ["lstm[0]", "lstm[1][0]", "parts[logits]", "out"], (2, 8))
    lstm = [name for name, _ in model.named_parameters() if name.startswith("lstm")]
    assert found == {"lstm[0]": lstm, "out": both("out"), "unused": both("unused")}


def test_modules_inside_that_never_fire_belong_to_the_one_that_calls_their_weights():
    class Attention(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.attention, self.act = nn.MultiheadAttention(4, 1), nn.Identity()

        def forward(self, x):
            return self.act(self.attention(x, x, x)[0])

    model = Attention()
    assert names(model, ["act"], (3, 2, 4)) == {"act": [name for name, _ in model.named_parameters()]}


class Residual(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.fc1, self.fc2, self.out = nn.Linear(4, 4), nn.Linear(4, 4), nn.Linear(4, 2)

    def forward(self, x):
        x = tap("sum", x + self.fc1(x))
        return self.out(tap("sum", x + self.fc2(x)))


@pytest.mark.parametrize(
    ("layers", "expected"),
    [
        (["sum:0", "sum:1", "out"], {"sum:0": both("fc1"), "sum:1": both("fc2"), "out": both("out")}),
        (["fc1", "sum:1"], {"fc1": both("fc1"), "sum:1": both("fc2"), "out": both("out")}),
    ],
)
def test_a_tap_has_what_fired_since_the_layer_before(layers, expected):
    assert names(Residual(), layers) == expected


def test_layers_of_wrapped_networks_are_those_of_what_is_inside():
    inside = Stages()
    inside.fc2 = nn.DataParallel(inside.fc2)
    model = nn.DataParallel(inside)
    found = owners(model, ["act1", "fc2"], lambda: model(torch.zeros(2, 4)))
    plain = {"act1": inside.fc1, "fc2": inside.fc2.module, "out": inside.out, "idle": inside.idle}
    assert {layer: list(map(id, own)) for layer, own in found.items()} == {
        **{layer: list(map(id, module.parameters())) for layer, module in plain.items()},
        "scale": [id(inside.scale)],
    }


def test_they_are_the_networks_own_parameters_each_once():
    model = Stages()
    found = owners(model, ["act1", "out"], lambda: model(torch.zeros(2, 4)))
    assert found["act1"][0] is model.fc1.weight
    assert sorted(id(each) for own in found.values() for each in own) == sorted(map(id, model.parameters()))


def test_looking_leaves_the_network_as_it_was():
    model = networks.dropout_net().train()
    before, random = {name: value.clone() for name, value in model.state_dict().items()}, torch.get_rng_state()
    names(model, ["1", "4"])
    assert model.training
    assert networks.hook_count(model) == 0
    assert torch.equal(torch.get_rng_state(), random)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


@pytest.mark.parametrize("layer", ["idle", "fc1:1"])
def test_a_layer_that_never_fires_is_refused(layer):
    with pytest.raises(CaptureError, match=f"layer '{layer}' never fires in the pass that looks whose"):
        names(Stages(), ["fc1", layer])


def test_a_layer_that_is_none_is_named_with_those_that_are():
    with pytest.raises(UnknownNameError, match="the network has no module and no tap 'fc3'; did you mean fc2, fc1"):
        names(Stages(), ["fc1", "fc3"])
