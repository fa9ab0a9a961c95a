"""Early stopping by information."""

import functools
import json

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from ibstore.analyze import informations
from ibstore.capture.forward import activations
from ibstore.capture.state import State, restore
from ibstore.capture.stopping import InformationStopping
from ibstore.errors import CaptureError, UsageError

from .networks import hook_count


def never(*_):
    raise AssertionError("not to be asked")


def reference(values, tol, patience):
    """When to stop by the rule as it is written, index of the look, or None."""
    counted, last = 0, None
    for place, m in enumerate(values):
        if last is not None:
            counted = counted + 1 if m - last < tol * abs(last) else 0
            if counted == patience:
                return place
        last = m
    return None


@given(
    st.lists(st.floats(-10, 10), max_size=30),
    st.sampled_from([0.0, 0.1, 1.0]),
    st.integers(1, 3),
)
def test_the_rule_is_the_written_one(values, tol, patience):
    stopping = InformationStopping(never, "out", tol=tol, patience=patience)
    found = [place for place, m in enumerate(values) if stopping.update(m)]
    assert (found[0] if found else None) == reference(values, tol, patience)


def test_it_looks_at_multiples_of_every_in_eval_mode_and_leaves_the_network_as_it_was():
    model = nn.Sequential(nn.Linear(3, 2), nn.Dropout(0.9)).train()
    x, y = torch.randn(6, 3), torch.arange(6) % 2
    seen = []

    def estimate(t, labels):
        seen.append((t, labels))
        return 1.0, 5.0

    stopping = InformationStopping(estimate, "1", beta=2.0, every=3)
    state = torch.get_rng_state()
    assert [stopping(epoch, model, x, y) for epoch in range(7)] == [False] * 3 + [True] + [False] * 2 + [True]
    assert stopping.history == [(0, 3.0, 1.0, 5.0), (3, 3.0, 1.0, 5.0), (6, 3.0, 1.0, 5.0)]
    assert model.training
    assert hook_count(model) == 0
    assert torch.equal(torch.get_rng_state(), state)
    for t, labels in seen:
        np.testing.assert_array_equal(t, model[0](x).detach().numpy())
        np.testing.assert_array_equal(labels, y.numpy())


def test_a_real_training_stops_when_its_information_is_there():
    torch.manual_seed(0)
    x = torch.randn(200, 4)
    y = (x[:, 0] > 0).long()
    model = nn.Sequential(nn.Linear(4, 3), nn.Tanh(), nn.Linear(3, 2))
    optimizer = torch.optim.Adam(model.parameters(), lr=0.02)
    stopping = InformationStopping(informations("softmax | threshold(0.5)"), "2", beta=0.0, tol=0.02, every=20)
    for epoch in range(2000):
        if stopping(epoch, model, x, y):
            break
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(x), y).backward()
        optimizer.step()
    assert 20 < epoch < 1000
    assert stopping.history[-1][3] > 0.8 > stopping.history[0][3]
    predicted = activations(model, x, ["2"])["2"].argmax(1)
    assert (predicted == y.numpy()).mean() > 0.95


def test_it_goes_on_from_its_state():
    one, other = (InformationStopping(never, "out", patience=2) for _ in range(2))
    one.update(1.0)
    one.update(1.0)
    one.history.append((10, 1.0, 0.0, 1.0))
    content = State({"stopping": one}, torch.device("cpu")).dump()
    restore(content, {"stopping": other}, torch.device("cpu"), "here")
    assert other.history == [(10, 1.0, 0.0, 1.0)]
    assert other.update(1.0)


def test_what_is_no_look_is_refused():
    stopping = InformationStopping(never, "out")
    for wrong in (lambda: stopping.update("a"), lambda: stopping("a", nn.Identity(), [0], [0])):
        with pytest.raises(UsageError, match=r"is 'a'; give"):
            wrong()
    with pytest.raises(UsageError, match="no state of an InformationStopping"):
        stopping.load_state_dict({})


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"estimator": "plugin"}, "estimator is of type str"),
        ({"layer": 3}, "layer is 3"),
        ({"tol": -0.1}, "tol is -0.1"),
        ({"tol": float("nan")}, "tol is nan"),
        ({"tol": "small"}, "tol is 'small'"),
        ({"beta": None}, "beta None"),
        ({"beta": float("nan")}, "beta nan"),
        ({"beta": float("inf")}, "beta inf"),
        ({"every": 0}, "every is 0; give an integer from 1"),
        ({"patience": 1.5}, "patience is 1.5"),
    ],
)
def test_what_cannot_be_meant_is_refused(given, message):
    with pytest.raises(UsageError, match=message):
        InformationStopping(**{"estimator": never, "layer": "out"} | given)


@pytest.mark.parametrize("found", [None, 1.0, (1.0,), ("much", "more")])
def test_an_estimator_gives_two_numbers(found):
    stopping = InformationStopping(lambda *_: found, "0")
    with pytest.raises(CaptureError, match=r"the estimator gave .*; let it give two numbers"):
        stopping(0, nn.Sequential(nn.Linear(2, 1)), torch.zeros(3, 2), torch.zeros(3, dtype=torch.long))
    assert stopping.history == []


def test_a_training_that_has_diverged_is_named():
    stopping = InformationStopping(informations("identity | threshold(0)"), "0", every=2)
    model = nn.Sequential(nn.Linear(2, 1))
    nn.init.constant_(model[0].bias, float("nan"))
    with pytest.raises(CaptureError, match=r"layer '0' has NaN in epoch 4.*has diverged; take a smaller learning rate"):
        stopping(4, model, torch.zeros(3, 2), torch.zeros(3, dtype=torch.long))


class Weighing:
    """An estimator that is no function, and has no text of its own."""

    def __call__(self, *_):
        return 0.0, 1.0


@pytest.mark.parametrize(
    ("estimator", "told"),
    [
        (never, "never"),
        (Weighing(), "Weighing"),
        (functools.partial(never, 1), "partial"),
        (informations("identity | threshold(0)", estimator="nsb"), "nsb of identity | threshold(t=0.0), in bits"),
    ],
)
def test_the_rule_is_told_the_same_in_every_process(estimator, told):
    stopping = InformationStopping(estimator, "out", beta=2, every=np.int64(3))
    assert json.loads(json.dumps(stopping.told)) == {
        "estimator": told,
        "layer": "out",
        "beta": 2.0,
        "tol": 0.1,
        "every": 3,
        "patience": 1,
    }


@pytest.mark.parametrize("m", [float("nan"), float("inf"), float("-inf")])
def test_what_is_not_finite_is_refused(m):
    stopping = InformationStopping(never, "out")
    with pytest.raises(CaptureError, match=f"information of layer 'out' makes {m}; look whether the training"):
        stopping.update(m)
    assert not stopping.update(1.0)  # nothing was taken
