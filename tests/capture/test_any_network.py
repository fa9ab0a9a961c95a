"""One contract for every kind of network: what is recorded, and that nothing else happens."""

from collections.abc import Mapping
from contextlib import nullcontext

import numpy as np
import pytest
import torch

from ibstore.capture.forward import activations
from ibstore.capture.recorder import Recorder
from ibstore.store import Store

from .networks import KINDS, Kind, hook_count, recorded

SIZE = 4  # of ten samples, so that the last batch is smaller


@pytest.fixture
def kind(request):
    yield KINDS[request.param]
    torch.compiler.reset()


def kinds(chosen=bool):
    return pytest.mark.parametrize("kind", [name for name, kind in KINDS.items() if chosen(kind)], indirect=True)


def layers_of(kind: Kind):
    ordered, named = kind.batch(slice(0, SIZE))
    return list(kind.said(made(kind).eval(), *ordered, **named))


def made(kind: Kind):
    return kind.make().to(kind.device)


def precision(kind: Kind):
    return nullcontext() if kind.autocast is None else torch.autocast(kind.device, kind.autocast)


def by_hand(kind: Kind, network):
    """What a plain forward pass in batches gives, without any of the code under test."""
    parts = []
    with torch.no_grad(), precision(kind):
        for start in range(0, 10, SIZE):
            ordered, named = kind.batch(slice(start, start + SIZE))
            parts.append(kind.said(network, *ordered, **named))
    return {name: torch.cat([part[name].float() for part in parts]).cpu().numpy() for name in parts[0]}


def recorder_of(kind: Kind, store, model, **options):
    return Recorder(store, model, x=kind.x, batch_size=SIZE, autocast=kind.autocast, **options)


@kinds()
def test_what_is_recorded_is_a_plain_forward_pass_bit_for_bit(kind, store):
    network = made(kind)
    model = kind.wrapped(network)
    expected = by_hand(kind, made(kind).eval())
    with recorder_of(kind, store, model, layers=list(reversed(expected))) as recorder:
        recorder.record(0)
    assert {layer.name for layer in recorder.layers} == set(expected)
    for layer, values in expected.items():
        np.testing.assert_array_equal(recorded(store, layer), values, layer)
    assert hook_count(model) == 0


@kinds(lambda kind: not any("[" in layer for layer in layers_of(kind)))
def test_without_a_list_every_layer_is_among_what_is_recorded(kind, store):
    expected = by_hand(kind, made(kind).eval())
    with recorder_of(kind, store, kind.wrapped(made(kind))) as recorder:
        recorder.record(0)
    assert set(expected) <= {layer.name for layer in recorder.layers}
    for layer, values in expected.items():
        np.testing.assert_array_equal(recorded(store, layer), values, layer)


@kinds(lambda kind: kind.autocast is None)
def test_what_layers_say_is_to_be_had_without_a_store(kind):
    expected = by_hand(kind, made(kind).eval())
    found = activations(kind.wrapped(made(kind)), kind.x, list(expected), batch_size=SIZE)
    assert set(found) == set(expected)
    for layer, values in expected.items():
        np.testing.assert_array_equal(found[layer], values, layer)


class InterruptionError(Exception):
    """Something goes wrong in the midst of a pass."""


def interrupt(*_):
    raise InterruptionError


@kinds()
def test_nothing_is_left_behind_after_an_exception(kind, store):
    network = made(kind).train()
    model = kind.wrapped(network)
    with recorder_of(kind, store, model, layers=layers_of(kind)) as recorder:
        handle = network.register_forward_hook(interrupt)  # when every layer has spoken
        with pytest.raises(InterruptionError):
            recorder.record(0)
        handle.remove()
        assert hook_count(model) == 0
        assert all(module.training for module in model.modules())
        assert torch.is_grad_enabled()
        assert not torch.is_autocast_enabled("cpu")
        recorder.record(0)
    assert Store.open(store).run("run0").epochs == [0]


def trained(kind: Kind, store):
    """Weights after a few steps, recorded in the midst of them where a store is given."""
    torch.compiler.reset()
    network = made(kind).train()
    model = kind.wrapped(network)
    optimizer = torch.optim.Adam(model.parameters(), lr=0.1)
    recorder = None if store is None else recorder_of(kind, store, model, layers=layers_of(kind))
    torch.manual_seed(5)
    for step in range(3):
        with precision(kind):
            ordered, named = kind.batch(slice(step, step + 5))
            if recorder is not None:
                recorder.record(2 * step)
            output = model(*ordered, **named)
            if recorder is not None:
                recorder.record(2 * step + 1)  # after the casts were made, before they are used backwards
        loss = (output["logits"] if isinstance(output, Mapping) else output).float().square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    if recorder is not None:
        recorder.close()
    return network.state_dict(), torch.rand(1, device=kind.device)


@kinds()
def test_a_training_is_the_same_bit_for_bit_with_and_without_recording(kind, store):
    (plain, random), (watched, other) = trained(kind, None), trained(kind, store)
    assert plain.keys() == watched.keys()
    for name, value in plain.items():
        assert torch.equal(value, watched[name]), name
    assert torch.equal(random, other)
    before = made(kind).state_dict()
    assert any(not torch.equal(value, before[name]) for name, value in zip(before, plain.values(), strict=True))
