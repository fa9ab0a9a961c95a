"""Recipes: trainings as declared data, by name.

>>> recipe("mnist-cnn").layers
('conv1', 'conv2', 'out')
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final

from torch import nn

from ibstore.capture.models import mnist_cnn
from ibstore.errors import UnknownNameError


@dataclass(frozen=True, slots=True)
class Recipe:
    """A training: what is trained, on what, how, and which layers are recorded.

    Parameters
    ----------
    name
        What it is asked for as.
    description
        One sentence for a listing.
    model
        Makes the untrained network, from torch's random numbers.
    layers
        Layers to record.
    dataset, epochs, batch_size, lr
        Defaults of `ibstore.capture.train.TrainSettings`.
    optimizer, loss
        Names in `ibstore.capture.train.OPTIMIZERS` and `ibstore.capture.train.LOSSES`.
    """

    name: str
    description: str
    model: Callable[[], nn.Module]
    layers: tuple[str, ...]
    dataset: str
    epochs: int
    batch_size: int
    lr: float
    optimizer: str
    loss: str


RECIPES: Final[Mapping[str, Recipe]] = {
    entry.name: entry
    for entry in [
        Recipe(
            name="mnist-cnn",
            description="Two convolutions and a linear layer on handwritten digits, as in the thesis's tables",
            model=mnist_cnn,
            layers=("conv1", "conv2", "out"),
            dataset="mnist-sample",
            epochs=10,
            batch_size=100,
            lr=0.002,
            optimizer="Adam",
            loss="cross-entropy",
        )
    ]
}


def recipe_names() -> list[str]:
    """Names that `recipe` takes."""
    return sorted(RECIPES)


def recipe(name: str) -> Recipe:
    """Recipe of that name.

    Raises
    ------
    UnknownNameError
        When there is none; the message lists what there is.
    """
    try:
        return RECIPES[name]
    except KeyError:
        raise UnknownNameError(f"there is no recipe {name!r}; choose one of {', '.join(recipe_names())}") from None
