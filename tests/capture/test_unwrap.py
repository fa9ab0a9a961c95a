"""What is around a network, and what cannot be recorded; the kinds that can are in test_any_network."""

import pytest
import torch
from torch import distributed, nn
from torch.nn.parallel import DistributedDataParallel

from ibstore.capture.forward import activations
from ibstore.capture.taps import tap
from ibstore.capture.unwrap import as_written, named_modules, unwrapped
from ibstore.errors import CaptureError, UnknownNameError

from .networks import X4, Apply, Reused


def test_wrappers_are_taken_off_however_many_there_are():
    network = Reused()
    compiled = torch.compile(network, backend="eager")
    assert unwrapped(network) is network
    assert unwrapped(nn.DataParallel(compiled)) is network
    assert unwrapped(torch.compile(nn.DataParallel(network), backend="eager")) is network


def test_paths_are_those_of_the_network_as_written():
    network = Reused()
    plain = [path for path, _ in network.named_modules() if path]
    network.fc1 = torch.compile(network.fc1, backend="eager")
    network.fc2 = nn.DataParallel(network.fc2)
    assert list(named_modules(nn.DataParallel(network))) == plain
    assert named_modules(network)["fc2"] is network.fc2.module


def test_parallel_modules_inside_have_their_devices_back_after_a_failure():
    network = nn.Sequential(nn.DataParallel(nn.Linear(4, 4)))
    network[0].device_ids = [0, 1]

    def fail():
        assert network[0].device_ids == []
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError), as_written(network):
        fail()
    assert network[0].device_ids == [0, 1]


scripts = pytest.mark.filterwarnings("ignore:.*torch.jit:DeprecationWarning")  # made here on purpose


@scripts
@pytest.mark.parametrize("made", [torch.jit.script, lambda network: torch.jit.trace(network, X4)])
def test_a_scripted_network_is_refused(made):
    with pytest.raises(CaptureError, match=r"the network is a \w+Module, inside of which TorchScript calls no hooks"):
        activations(made(Reused().eval()), X4)


@scripts
def test_a_scripted_module_inside_is_refused_unless_other_layers_are_named():
    network = nn.Sequential(nn.Linear(4, 4), torch.jit.script(Reused()), Apply(lambda x: tap("scripted", x)))
    for layers in (None, ["0", "1"]):
        with pytest.raises(CaptureError, match=r"module '1' is a RecursiveScriptModule.*; tap what it puts out"):
            activations(network, X4, layers)
    with pytest.raises(UnknownNameError, match=r"no tap '1\.fc1'"):
        activations(network, X4, ["1.fc1"])
    found = activations(network, X4, ["scripted", "0"])
    assert list(found) == ["0", "scripted"]
    with torch.no_grad():
        assert found["scripted"].tolist() == network(X4).tolist()


@pytest.fixture
def alone():
    """A group of processes that has one."""
    distributed.init_process_group("gloo", store=distributed.HashStore(), rank=0, world_size=1)
    yield
    distributed.destroy_process_group()


def test_a_distributed_network_is_recorded_as_it_is_inside(alone):
    network = Reused()
    found = activations(DistributedDataParallel(network), X4)
    assert {name: rows.tolist() for name, rows in found.items()} == {
        name: rows.tolist() for name, rows in activations(network, X4).items()
    }


def test_a_network_that_is_distributed_in_part_is_refused(alone):
    with pytest.raises(CaptureError, match="module '0' is a DistributedDataParallel inside another module"):
        activations(nn.Sequential(DistributedDataParallel(nn.Linear(4, 4))), X4)


def test_a_sharded_network_is_refused(alone):
    from torch.distributed.fsdp import fully_shard

    network = nn.Sequential(nn.Linear(4, 4), nn.Tanh())
    fully_shard(network)
    with pytest.raises(CaptureError, match=r"the network is sharded \(FSDP\).*loads its full state dict"):
        activations(network, X4)
