import pytest
import torch
from torch import nn

from ibstore.capture.recorder import Recorder
from ibstore.capture.taps import tap, watched
from ibstore.errors import CaptureError, UnknownNameError, UsageError

from .networks import X4, Apply, Residual


def heard(function):
    names = []
    with watched(lambda name, _: names.append(name)):
        function()
    return names


def test_a_tap_gives_back_what_it_is_given():
    x = torch.ones(2, requires_grad=True)
    assert tap("x", x) is x
    assert heard(lambda: tap("x", x)) == ["x"]


def test_who_watches_hears_nothing_after_the_end_and_after_a_failure():
    names = []

    def fail():
        tap("a", torch.ones(1))
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError), watched(lambda name, _: names.append(name)):
        fail()
    tap("b", torch.ones(1))
    assert names == ["a"]


def test_the_innermost_watcher_hears_alone():
    outer = []
    with watched(lambda name, _: outer.append(name)):
        assert heard(lambda: tap("in", torch.ones(1))) == ["in"]
        tap("out", torch.ones(1))
    assert outer == ["out"]


@pytest.mark.parametrize("value", [None, 3.0, (torch.ones(2),), {"a": torch.ones(2)}])
def test_what_is_no_tensor_is_refused(value):
    with pytest.raises(UsageError, match=r"tap 'sum' is given a .*, no tensor; tap each tensor in it"):
        tap("sum", value)


@pytest.mark.parametrize("name", ["", "a:1", "a[0]", None, 3])
def test_a_name_that_no_layer_can_have_is_refused(name):
    with pytest.raises(UsageError, match=r"a tap is called .*; give a text without ':'"):
        tap(name, torch.ones(1))


def test_compiled_code_has_no_taps_and_no_breaks():
    seen = []
    network = Residual()
    compiled = torch.compile(network, backend="eager", fullgraph=True)
    try:
        with watched(lambda name, _: seen.append(name)):
            assert torch.equal(compiled(X4), network(X4))
        assert seen == ["sum", "squashed", "squashed"]  # of the eager call
    finally:
        torch.compiler.reset()


def test_recording_makes_nothing_compile_again(store):
    compiled_graphs = []

    def count(graph, _inputs):
        compiled_graphs.append(graph)
        return graph.forward

    network = Residual().train()
    compiled = torch.compile(network, backend=count)
    try:
        compiled(X4).sum().backward()
        with Recorder(store, compiled, x=X4) as recorder:
            recorder.record(0)
            compiled(X4).sum().backward()
            recorder.record(1)
        compiled(X4).sum().backward()
        assert len(compiled_graphs) == 1
    finally:
        torch.compiler.reset()


def test_taps_inside_vmap_and_grad_say_nothing():
    network = Residual()
    assert heard(lambda: torch.vmap(network)(X4[None])) == []
    assert heard(lambda: torch.func.grad(lambda x: tap("y", x * 2).sum())(torch.ones(3))) == []


@pytest.mark.filterwarnings("ignore:.*torch.jit:DeprecationWarning")  # scripts are made here on purpose
def test_traced_and_scripted_code_has_no_taps():
    network = Residual()
    names = []
    with watched(lambda name, _: names.append(name)):
        traced = torch.jit.trace(network, X4, check_trace=False)
        assert torch.equal(traced(X4), traced(X4))
    assert names == []
    scripted = torch.jit.script(network)
    assert heard(lambda: scripted(X4)) == []
    assert torch.equal(scripted(X4), network(X4))


def test_taps_of_another_thread_are_not_heard():
    from threading import Thread

    def elsewhere():
        thread = Thread(target=lambda: tap("other", torch.ones(1)))
        thread.start()
        thread.join()

    assert heard(elsewhere) == []


# As layers


def refusal(store, model, layers=None):
    with pytest.raises((CaptureError, UsageError)) as caught:
        Recorder(store, model, layers=layers, x=X4)
    assert not store.exists()
    return str(caught.value)


def test_a_tap_that_is_called_like_a_module_is_refused(store):
    model = nn.Sequential(nn.Linear(4, 4), Apply(lambda x: tap("0", x)))
    assert refusal(store, model) == ("a tap is called '0', as a module of the network is; give the tap another name")


def test_an_unknown_name_is_refused_with_taps_among_what_may_be_meant(store):
    with pytest.raises(UnknownNameError, match=r"no module and no tap 'summ'; did you mean sum\?"):
        Recorder(store, Residual(), layers=["summ"], x=X4)


def test_a_tap_that_fires_twice_is_named_by_its_call(store):
    assert "layer 'squashed' fires 2 times in a forward pass; name one call, 'squashed:0' … 'squashed:1'" in refusal(
        store, Residual(), ["squashed"]
    )


def test_a_tap_without_one_row_a_sample_is_refused(store):
    model = nn.Sequential(nn.Linear(4, 4), Apply(lambda x: tap("mean", x.mean()) + x))
    assert "layer 'mean' puts out shape () for a batch of 10 samples" in refusal(store, model)


def test_a_tap_that_stops_firing_is_refused(store):
    layer = Apply(lambda x: tap("y", x + 1))
    with Recorder(store, nn.Sequential(layer), x=X4) as recorder:
        layer.function = lambda x: x + 1
        with pytest.raises(CaptureError, match="layer 'y' did not fire now"):
            recorder.record(0)


def test_what_no_module_calls_is_refused_with_the_way_out(store):
    model = Residual()
    model.unused = nn.Linear(4, 4)
    assert "or tap what it computes: ibstore.tap('name', tensor)" in refusal(store, model, ["unused"])
