from collections import OrderedDict

import pytest
import torch
from torch import nn

from ibstore.capture import hooks
from ibstore.capture.dynamics import owners
from ibstore.capture.specs import parse
from ibstore.errors import CaptureError, UnknownNameError, UsageError

from .networks import Apply, Nested, Reused, dropout_net, hook_count


def discover(model, layers, x):
    return hooks.discover(model, layers, lambda: model(x), len(x), unexpected)


def unexpected(fact):
    raise AssertionError(fact)


def names(model, layers, x):
    return [spec.name for spec, _ in discover(model, layers, x)]


def copying(model, layers):
    return hooks.copying(model, [parse(layer) for layer in layers], torch.clone)


def copied(model, layers, x):
    with copying(model, layers) as copies:
        model(x)
    return copies


def test_layers_stand_in_execution_order_whatever_their_order_in_network_and_list():
    layers = ["out", "parts[hidden][0]", "lstm[1][0]", "lstm[0]", "parts[logits]"]
    x = torch.ones(1, 8)
    assert names(Nested(), layers, x) == ["lstm[1][0]", "lstm[0]", "parts[hidden][0]", "parts[logits]", "out"]


class Answering(nn.Module):
    """Puts out what no module inside does."""

    def __init__(self):
        super().__init__()
        self.fc = nn.Linear(2, 3)

    def forward(self, x):
        t = self.fc(x)
        return {"logits": 2 * t, "pair": (t, -t)}


def test_parts_of_the_networks_own_output_are_layers():
    model, x = Answering(), torch.ones(4, 2)
    assert names(model, ["[logits]", "fc", "[pair][1]"], x) == ["fc", "[logits]", "[pair][1]"]
    copies = copied(model, ["[logits]", "[pair][1]"], x)
    assert torch.equal(copies["[logits]"], model(x)["logits"])
    assert torch.equal(copies["[pair][1]"], model(x)["pair"][1])
    assert hook_count(model) == 0
    owned = owners(model, ["[logits]"], lambda: model(x))
    assert list(owned) == ["[logits]"]
    assert owned["[logits]"] == list(model.parameters())
    with pytest.raises(CaptureError, match=r"no part \[probs\]; select one of its tensors: '\[logits\]' \(4, 3\)"):
        names(model, ["[probs]"], x)
    with pytest.raises(CaptureError, match="it is a tensor itself: name the last module"):
        names(nn.Sequential(nn.Linear(2, 2)), ["[0]"], x)


def test_a_container_fires_after_what_is_inside():
    model = nn.Sequential(OrderedDict(block=nn.Sequential(nn.Linear(2, 2), nn.ReLU()), out=nn.Linear(2, 2)))
    assert names(model, ["block", "block.0"], torch.ones(3, 2)) == ["block.0", "block"]


def test_no_list_means_every_leaf_with_parameters_or_an_activation():
    assert names(dropout_net().eval(), None, torch.ones(3, 4)) == ["0", "1", "2", "4"]


def test_no_list_numbers_the_calls_of_a_reused_module():
    assert names(Reused(), None, torch.ones(3, 4)) == ["relu:0", "fc1", "relu:1", "fc2", "relu:2"]


def test_no_list_leaves_out_what_never_fires():
    model = nn.Sequential(OrderedDict(lin=nn.Linear(2, 2)))
    model.lin.unused = nn.Linear(2, 2)  # type: ignore[union-attr, assignment]
    model.add_module("last", nn.Sigmoid())
    assert names(model, None, torch.ones(3, 2)) == ["last"]


def test_no_list_finds_a_parametrized_leaf_and_not_what_computes_its_weights():
    model = nn.Sequential(nn.utils.parametrizations.weight_norm(nn.Linear(2, 5)), nn.ReLU())
    assert names(model, None, torch.ones(3, 2)) == ["0", "1"]


def test_no_list_and_a_tuple_is_refused_with_parts_and_other_layers():
    model = nn.Sequential(nn.Linear(4, 4), nn.LSTM(4, 3))
    with pytest.raises(CaptureError, match=r"'1\[0\]' \(2, 3\).*, or name the layers that you want; these fire: 0, 1$"):
        discover(model, None, torch.ones(2, 4))


class Positioned(nn.Module):
    """Tokens with an embedding of positions, which puts out one row for all samples."""

    def __init__(self):
        super().__init__()
        self.token, self.place, self.out = nn.Embedding(9, 4), nn.Embedding(5, 4), nn.Linear(4, 2)

    def forward(self, x):
        return self.out(self.token(x) + self.place(torch.arange(x.shape[1])[None]))


def test_no_list_passes_over_what_has_no_row_a_sample():
    model, x, told = Positioned(), torch.zeros(3, 5, dtype=torch.long), []
    found = hooks.discover(model, None, lambda: model(x), len(x), told.append)
    assert [spec.name for spec, _ in found] == ["token", "out"]
    assert told == ["layer 'place' puts out shape (1, 5, 4) for a batch of 3 samples"]
    with pytest.raises(CaptureError, match="whose first dimension is the batch"):
        discover(model, ["token", "place"], x)


def test_no_list_and_nothing_with_a_row_a_sample_is_refused():
    with pytest.raises(CaptureError, match="whose first dimension is the batch, or name the layers that you want"):
        discover(nn.Sequential(nn.Flatten(0), nn.Linear(8, 3)), None, torch.ones(2, 4))


def test_a_network_without_leaves_that_fire_is_refused():
    with pytest.raises(CaptureError, match="name the layers to record"):
        discover(nn.Sequential(nn.Flatten()), None, torch.ones(2, 4))
    with pytest.raises(CaptureError, match="wrap a network that is a single module"):
        discover(nn.Linear(4, 2), None, torch.ones(2, 4))


def test_an_unknown_module_is_refused_with_the_near_names():
    model = nn.Sequential(OrderedDict(conv1=nn.ReLU(), conv2=nn.ReLU(), out=nn.Sequential(OrderedDict(fc=nn.ReLU()))))
    with pytest.raises(UnknownNameError, match=r"no module and no tap 'conv3'; did you mean conv2, conv1\?"):
        discover(model, ["conv3"], torch.ones(1))
    with pytest.raises(UnknownNameError, match=r"no module and no tap 'fc'; did you mean out.fc\?"):
        discover(model, ["fc"], torch.ones(1))
    with pytest.raises(UnknownNameError, match=r"no module and no tap 'zzz'; it has conv1, conv2, out, out.fc$"):
        discover(model, ["zzz"], torch.ones(1))
    with pytest.raises(UnknownNameError, match="it has no modules inside: wrap it"):
        discover(nn.ReLU(), ["relu"], torch.ones(1))


def test_a_module_that_never_fires_is_refused():
    with pytest.raises(CaptureError, match="layer 'unused' never fires"):
        discover(Nested(), ["unused"], torch.ones(1, 8))


def test_a_reused_module_without_its_call_is_refused():
    with pytest.raises(CaptureError, match=r"layer 'relu' fires 3 times .*; name one call, 'relu:0' … 'relu:2'"):
        discover(Reused(), ["relu"], torch.ones(1, 4))


def test_a_call_beyond_the_last_is_refused():
    with pytest.raises(CaptureError, match=r"'relu:3': the module fires 3 times .*; name 'relu:0' … 'relu:2'"):
        discover(Reused(), ["relu:3"], torch.ones(1, 4))
    with pytest.raises(CaptureError, match=r"'fc1:1': the module fires once .*; name 'fc1' alone"):
        discover(Reused(), ["fc1:1"], torch.ones(1, 4))


def test_a_first_dimension_that_is_no_batch_is_refused():
    model = nn.Sequential(Apply(torch.t), Apply(torch.sum))
    with pytest.raises(CaptureError, match=r"layer '0' puts out shape \(4, 2\) for a batch of 2 samples"):
        discover(model, ["0"], torch.ones(2, 4))
    with pytest.raises(CaptureError, match=r"layer '1' puts out shape \(\)"):
        discover(model, ["1"], torch.ones(2, 4))


@pytest.mark.parametrize("function", [torch.fft.fft, torch.Tensor.to_sparse])
def test_numbers_that_no_array_can_hold_are_refused(function):
    with pytest.raises(CaptureError, match="record a layer of dense real numbers"):
        discover(nn.Sequential(Apply(function)), ["0"], torch.ones(2, 4))


@pytest.mark.parametrize("layers", [[], "conv1"])
def test_layers_must_be_a_list_of_names(layers):
    with pytest.raises(UsageError, match="give a list of at least one layer"):
        discover(Reused(), layers, torch.ones(1, 4))


def test_a_layer_named_twice_is_refused():
    with pytest.raises(UsageError, match="layer 'fc1' is named twice"):
        discover(Reused(), ["fc1", "fc2", "fc1"], torch.ones(1, 4))


def test_a_module_with_two_paths_is_found_under_both():
    model = Reused()
    model.tied = model.fc2
    assert names(model, ["tied"], torch.ones(1, 4)) == ["tied"]


def test_copies_are_of_the_instant_when_a_module_spoke():
    model = nn.Sequential(nn.Identity(), nn.ReLU(inplace=True))
    copies = copied(model, ["0", "1"], torch.tensor([[-1.0, 2.0]]))
    assert copies["0"].tolist() == [[-1.0, 2.0]]
    assert copies["1"].tolist() == [[0.0, 2.0]]


def test_copies_of_each_call():
    model, x = Reused(), torch.randn(3, 4)
    copies = copied(model, ["relu:0", "relu:1", "relu:2"], x)
    first = x.relu()
    second = model.fc1(first).relu()
    assert torch.equal(copies["relu:0"], first)
    assert torch.equal(copies["relu:1"], second)
    assert torch.equal(copies["relu:2"], model.fc2(second).relu())


@pytest.mark.parametrize("context", [hooks.tracing, copying])
def test_hooks_go_with_the_pass(context):
    model = Reused()
    with context(model, ["fc1"]):
        assert hook_count(model) == 1
        model(torch.ones(1, 4))
    assert hook_count(model) == 0


@pytest.mark.parametrize("context", [hooks.tracing, copying])
def test_hooks_go_when_the_pass_fails(context):
    model = Reused()
    with pytest.raises(RuntimeError), context(model, ["fc1"]):
        model(torch.ones(1, 5))
    assert hook_count(model) == 0


def test_the_users_own_hooks_stay_and_are_heard():
    model = nn.Sequential(nn.Identity())
    model[0].register_forward_hook(lambda _module, _inputs, output: output + 1)
    assert copied(model, ["0"], torch.zeros(1, 1))["0"].tolist() == [[1.0]]
    assert hook_count(model) == 1


def test_a_layer_that_stops_firing_is_refused():
    with pytest.raises(CaptureError, match="layer 'unused' did not fire now"):
        copied(Nested(), ["unused"], torch.ones(1, 8))


def test_a_layer_that_begins_to_fire_twice_is_refused():
    model = Reused()
    with pytest.raises(CaptureError, match="layer 'relu' fires more than once now"):
        copied(model, ["relu"], torch.ones(1, 4))
    assert hook_count(model) == 0
