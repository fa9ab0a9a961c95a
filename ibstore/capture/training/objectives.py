"""What a bundled training minimizes, and how a network's output becomes a label.

>>> objective("mse-pm1").decide(torch.tensor([[0.3], [-2.0]]))
tensor([1, 0])
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final

import torch
from torch.nn import functional

from ibstore.errors import CaptureError, UnknownNameError

Tensor = torch.Tensor


@dataclass(frozen=True, slots=True)
class Objective:
    """A loss by sample, and the decision that accuracy counts.

    Parameters
    ----------
    name
        What it is asked for as, and what the manifest says.
    losses
        From the output (sample, …) and the labels (sample,) int64 to the loss of each sample, (sample,).
    decide
        From the output to labels, (sample,) int64; None where it is about something else, and there is no accuracy.
    """

    name: str
    losses: Callable[[Tensor, Tensor], Tensor]
    decide: Callable[[Tensor], Tensor] | None

    def measure(self, output: Tensor, labels: Tensor) -> dict[str, Tensor]:
        """Mean loss and accuracy of a batch."""
        loss = self.losses(output, labels).mean()  # first, since it refuses what does not fit
        if self.decide is None:
            return {"loss": loss}
        return {"loss": loss, "accuracy": (self.decide(output) == labels).double().mean()}


def _cross_entropy(output: Tensor, labels: Tensor) -> Tensor:
    return functional.cross_entropy(output, labels, reduction="none")


def _largest(output: Tensor) -> Tensor:
    return output.argmax(1)


def _own(output: Tensor, labels: Tensor) -> Tensor:
    """The output itself."""
    if output.shape != labels.shape:
        raise CaptureError(
            f"the network puts out {tuple(output.shape)} for {len(labels)} samples where the loss is its output; let "
            "it put out one number a sample, or take another loss"
        )
    return output


def _squared(output: Tensor, targets: Tensor) -> Tensor:
    """Mean squared error over the units of each sample."""
    if output.shape != targets.shape:  # broadcasting would pair every sample with every other
        raise CaptureError(
            f"the network puts out {tuple(output.shape)} where the loss has targets {tuple(targets.shape)}; let it put "
            "out as many units, or take another loss"
        )
    return functional.mse_loss(output, targets, reduction="none").flatten(1).mean(1)


def _squared_01(output: Tensor, labels: Tensor) -> Tensor:
    return _squared(output, labels.to(output.dtype).unsqueeze(1))


def _squared_pm1(output: Tensor, labels: Tensor) -> Tensor:
    return _squared(output, (2 * labels - 1).to(output.dtype).unsqueeze(1))


def _squared_one_hot(output: Tensor, labels: Tensor) -> Tensor:
    classes = torch.arange(output.shape[1], device=output.device)
    return _squared(output, (labels.unsqueeze(1) == classes).to(output.dtype))


OBJECTIVES: Final[Mapping[str, Objective]] = {
    each.name: each
    for each in [
        Objective("cross-entropy", _cross_entropy, _largest),
        Objective("mse-01", _squared_01, lambda output: (2 * output.squeeze(1) > 1).long()),
        Objective("mse-pm1", _squared_pm1, lambda output: (output.squeeze(1) > 0).long()),
        Objective("mse-one-hot", _squared_one_hot, _largest),
        Objective("own-output", _own, None),
    ]
}
"""By name: cross-entropy of logits; mean squared error against 0 and 1 or −1 and 1 of a single unit, or one-hot; what
the network puts out itself, such as the likelihood of its own input."""


def objective(name: str) -> Objective:
    """Objective of that name.

    Raises
    ------
    UnknownNameError
        When there is none.
    """
    try:
        return OBJECTIVES[name]
    except KeyError:
        raise UnknownNameError(f"there is no loss {name!r}; choose one of {', '.join(OBJECTIVES)}") from None
