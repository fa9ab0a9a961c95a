"""What a bundled training minimizes."""

import pytest
import torch
from torch import nn
from torch.nn import functional

from ibstore.capture.training.objectives import OBJECTIVES, objective
from ibstore.errors import CaptureError, UnknownNameError

LABELS = torch.tensor([1, 0, 1, 1])


@pytest.mark.parametrize(
    ("name", "units", "targets"),
    [
        ("mse-01", 1, LABELS.float().unsqueeze(1)),
        ("mse-pm1", 1, torch.tensor([[1.0], [-1.0], [1.0], [1.0]])),
        ("mse-one-hot", 3, functional.one_hot(LABELS, 3).float()),
    ],
)
def test_squared_errors_are_torchs_with_targets_written_out(name, units, targets):
    output = torch.randn(4, units, generator=torch.Generator().manual_seed(0))
    losses = objective(name).losses(output, LABELS)
    assert losses.shape == (4,)
    assert losses.mean().item() == pytest.approx(nn.MSELoss()(output, targets).item())


def test_cross_entropy_is_torchs_by_sample():
    output = torch.randn(4, 3, generator=torch.Generator().manual_seed(0))
    losses = objective("cross-entropy").losses(output, LABELS)
    assert losses.mean().item() == pytest.approx(functional.cross_entropy(output, LABELS).item())
    assert losses[1].item() == pytest.approx(functional.cross_entropy(output[1:2], LABELS[1:2]).item())


@pytest.mark.parametrize(
    ("name", "output", "labels"),
    [
        ("cross-entropy", [[0.1, 0.2], [3.0, -1.0]], [1, 0]),
        ("mse-one-hot", [[0.1, 0.2], [3.0, -1.0]], [1, 0]),
        ("mse-01", [[0.51], [0.49]], [1, 0]),
        ("mse-pm1", [[0.01], [-0.01]], [1, 0]),
    ],
)
def test_a_decision_is_the_nearer_target(name, output, labels):
    measured = objective(name).measure(torch.tensor(output), torch.tensor(labels))
    assert objective(name).decide(torch.tensor(output)).tolist() == labels
    assert measured["accuracy"] == 1.0
    assert measured["loss"] == objective(name).losses(torch.tensor(output), torch.tensor(labels)).mean()


@pytest.mark.parametrize("name", ["mse-01", "mse-pm1"])
def test_targets_are_never_broadcast(name):
    """As the printed code of that literature does: every output would be held against every sample's target."""
    with pytest.raises(CaptureError, match=r"puts out \(4, 2\) where the loss has targets \(4, 1\)"):
        objective(name).losses(torch.zeros(4, 2), LABELS)


def test_an_unknown_loss_is_refused():
    with pytest.raises(UnknownNameError, match=f"no loss 'mse'; choose one of {', '.join(OBJECTIVES)}"):
        objective("mse")
