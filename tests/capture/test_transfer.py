"""When the host reads: behind the forward pass of the next batch, on every device."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from ibstore.capture import forward
from ibstore.capture.inputs import Inputs
from ibstore.capture.specs import parse
from ibstore.capture.transfer import Transfer, one_behind

from .networks import X4, Apply


@given(st.lists(st.integers()))
def test_one_behind_hands_out_everything_in_order(items):
    assert list(one_behind(items)) == items


def test_a_batch_is_read_when_the_next_one_was_begun(monkeypatch):
    """Copies that arrive late would be read too early, and a device that is waited for would stand still."""
    log = []

    class Logged(Transfer):
        def sent(self):
            number = sum(entry.startswith("sent") for entry in log)
            log.append(f"sent {number}")
            return lambda: log.append(f"arrived {number}")

    monkeypatch.setattr(forward, "Transfer", Logged)
    network = nn.Sequential(Apply(lambda x: x + 1))
    probe = forward.ProbePass(network, Inputs.of(X4), 4, torch.device("cpu"))
    for number, _ in enumerate(probe.spoken([parse("0")], probe.batches())):
        log.append(f"read {number}")
    assert log == [
        "sent 0",
        "sent 1",
        "arrived 0",
        "read 0",
        "sent 2",
        "arrived 1",
        "read 1",
        "arrived 2",
        "read 2",
    ]


def test_a_copy_is_of_the_instant_and_has_no_gradient():
    x = torch.ones(2, requires_grad=True)
    y = x * 2
    transfer = Transfer()
    copy = transfer.copy(y)
    y.detach().add_(1)
    transfer.sent()()
    assert copy.tolist() == [2, 2]
    assert not copy.requires_grad
    assert transfer.copied(0.5) == 0.5


@pytest.mark.skipif(not torch.cuda.is_available(), reason="torch sees no CUDA device here")
def test_on_cuda_every_batch_is_what_a_plain_forward_pass_gives():
    """Enough batches that pinned memory is used again, and work in place behind every copy."""
    torch.manual_seed(0)
    network = nn.Sequential(nn.Linear(64, 512), nn.ReLU(inplace=True), nn.Linear(512, 512)).cuda()
    x = torch.randn(5000, 64)
    found = forward.activations(network, x, ["0", "2"], batch_size=64)
    with torch.no_grad():
        plain = [network[0](x[start : start + 64].cuda()) for start in range(0, len(x), 64)]
        last = torch.cat([network[2](each.relu()) for each in plain])
    assert torch.equal(torch.from_numpy(found["0"]), torch.cat(plain).cpu())
    assert torch.equal(torch.from_numpy(found["2"]), last.cpu())
    assert Transfer().copy(plain[0]).is_pinned()
