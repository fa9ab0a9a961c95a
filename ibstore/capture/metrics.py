"""Scalars of an epoch: what the caller gives, and means that are measured in the recorded pass."""

from collections.abc import Callable, Mapping
from numbers import Real
from typing import Any, Final

import torch

from ibstore.errors import CaptureError

Measure = Callable[[torch.Tensor, torch.Tensor], Mapping[str, torch.Tensor | float]]
"""Means over one batch, by name, from the network's output (sample, …) and the labels (sample,)."""

KEYS: Final = ("run", "epoch", "step", "split")
"""Columns that the table `epochs` has beside the metrics."""


def by_split(split: str, given: Mapping[str, Any]) -> dict[str, dict[str, float]]:
    """Scalars by split: a number belongs to ``split``, a mapping to the split of its name.

    Raises
    ------
    CaptureError
        When a value is no number, or stands twice.

    Examples
    --------
    >>> by_split("train", {"loss": 0.5, "test": {"loss": 0.75}})
    {'train': {'loss': 0.5}, 'test': {'loss': 0.75}}
    """
    found: dict[str, dict[str, float]] = {}
    for name, value in given.items():
        owner, scalars = (name, value) if isinstance(value, Mapping) else (split, {name: value})
        own = found.setdefault(owner, {})
        for scalar, number in scalars.items():
            if str(scalar).lower() in {"", *KEYS}:
                raise CaptureError(f"a metric cannot be called {scalar!r}, which the table `epochs` has; rename it")
            if str(scalar).lower() in {name.lower() for name in own}:
                raise CaptureError(
                    f"metric {scalar!r} of split {owner!r} is given twice (in SQL case does not count); give it once"
                )
            own[str(scalar)] = _number(scalar, number)
    return found


def _number(name: object, value: object) -> float:
    number = value.item() if isinstance(value, torch.Tensor) and value.ndim == 0 else value
    if isinstance(number, bool) or not isinstance(number, Real):
        raise CaptureError(
            f"metric {name!r} is {value!r}, which is no number; give a number, or a mapping of numbers for another "
            "split (test={'loss': 0.1})"
        )
    return float(number)


def as_dynamics(given: Any) -> dict[str, dict[str, dict[str, float | None]]]:
    """Dynamics by variant, layer and quantity, as plain numbers; a quantity that is not known is None.

    Raises
    ------
    CaptureError
        When they are nested otherwise, or a quantity is no number.

    Examples
    --------
    >>> as_dynamics({"epoch": {"out": {"snr": torch.tensor(2.0), "lr": None}}})
    {'epoch': {'out': {'snr': 2.0, 'lr': None}}}
    """
    found: dict[str, dict[str, dict[str, float | None]]] = {}
    for variant, layers in _nested("dynamics", given).items():
        own = found.setdefault(str(variant), {})
        for layer, quantities in _nested(f"dynamics {variant!r}", layers).items():
            own[str(layer)] = {
                str(name): None if number is None else _number(name, number)
                for name, number in _nested(f"dynamics {variant!r} of layer {layer!r}", quantities).items()
            }
    return found


def _nested(what: str, given: Any) -> Mapping[Any, Any]:
    if not isinstance(given, Mapping):
        raise CaptureError(f"{what} is {given!r}; give numbers by variant, layer and quantity, as Dynamics.read() does")
    return given


class Means:
    """Means over samples, gathered batch by batch in double precision."""

    def __init__(self) -> None:
        self._sums: dict[str, float] = {}
        self._samples = 0

    def add(self, means: Mapping[str, torch.Tensor | float], samples: int) -> None:
        """Take the means of a batch of ``samples`` samples; tensors are read, so they must be there."""
        for name, mean in means.items():
            self._sums[name] = self._sums.get(name, 0.0) + float(mean) * samples
        self._samples += samples

    def result(self) -> dict[str, float]:
        """Means over all samples so far."""
        return {name: total / self._samples for name, total in self._sums.items()}
