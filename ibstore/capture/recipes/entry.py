"""A recipe: a training as declared data."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from torch import nn

from ibstore.errors import IbstoreError, UsageError


@dataclass(frozen=True, slots=True)
class Recipe:
    """A training: what is trained, on what, how, and which layers are recorded.

    Parameters
    ----------
    name
        What it is asked for as.
    description
        One sentence for a listing.
    source
        Where the setup is from.
    model
        Makes the untrained network, from torch's random numbers; takes ``options``.
    dataset, epochs, batch_size, lr, optimizer
        Defaults of `ibstore.capture.training.settings.TrainSettings`.
    loss
        Name in `ibstore.capture.training.objectives.OBJECTIVES`.
    layers
        Layers to record, or what tells them of a network; None: every child of the network that has parameters.
    options
        What ``model`` takes, with its defaults: numbers and texts.
    weights
        Weights of what the loss adds for stochastic layers, with their defaults: ``beta_kl`` and ``gamma_tc`` of
        `ibstore.capture.dropout.Lagrangian`. They are options too.
    divided
        Whether that is divided by the number of training samples, as the authors of Information Dropout do it.
    random_batches
        Whether a step draws a random batch of its own, and is an epoch.
    splits, schedule, train_fraction
        Defaults of what is recorded, when, and of the part that is trained on.
    threads
        Default of torch's threads: one for tiny networks, in which two wait for each other longer than they work.

    Raises
    ------
    UsageError
        When it has no name.
    """

    name: str
    description: str
    source: str
    model: Callable[..., nn.Module]
    dataset: str
    epochs: int
    batch_size: int
    lr: float
    optimizer: str
    loss: str
    layers: tuple[str, ...] | Callable[[nn.Module], tuple[str, ...]] | None = None
    options: Mapping[str, Any] = field(default_factory=dict)
    weights: Mapping[str, float] = field(default_factory=dict)
    divided: bool = True
    random_batches: bool = False
    splits: tuple[str, ...] = ("train",)
    schedule: str = "every:1"
    train_fraction: float | None = None
    threads: int | None = None

    def __post_init__(self) -> None:
        if not (isinstance(self.name, str) and self.name):
            raise UsageError(f"a recipe is called {self.name!r}; give it a name")

    def with_options(self, given: Mapping[str, Any]) -> dict[str, Any]:
        """The options with what is given in their place, as the defaults' types.

        Raises
        ------
        UsageError
            When the recipe has no such option, or the value cannot be read.
        """
        own = {**self.options, **self.weights}
        unknown = [name for name in given if name not in own]
        if unknown:
            known = ", ".join(f"{name}={value}" for name, value in own.items()) or "none"
            raise UsageError(f"recipe {self.name!r} has no option {unknown[0]!r}; it has {known}")
        return {name: _read(name, given[name], value) if name in given else value for name, value in own.items()}

    def make(self, options: Mapping[str, Any]) -> nn.Module:
        """An untrained network, from what `with_options` gives.

        Raises
        ------
        UsageError
            When ``model`` fails, or returns something else.
        """
        own = {name: options[name] for name in self.options}
        told = ", ".join(f"{name}={value}" for name, value in own.items()) or "no options"
        try:
            made = self.model(**own)
        except IbstoreError:
            raise
        except Exception as error:  # whatever a recipe of the user's own raises
            raise UsageError(
                f"recipe {self.name!r} makes no network of {told} ({type(error).__name__}: {error}); give other "
                "options with --set, or mend its model"
            ) from error
        if not isinstance(made, nn.Module):
            raise UsageError(
                f"recipe {self.name!r} makes a {type(made).__name__} of {told}; let its model return a torch.nn.Module"
            )
        return made

    def recorded_layers(self, model: nn.Module) -> tuple[str, ...]:
        """Layers to record of a network that was made."""
        if self.layers is not None:
            return self.layers(model) if callable(self.layers) else self.layers
        return tuple(name for name, child in model.named_children() if any(True for _ in child.parameters()))


def _read(name: str, value: Any, default: Any) -> Any:
    try:
        return type(default)(value)
    except (TypeError, ValueError):
        kind = type(default).__name__
        raise UsageError(f"option {name} is {value!r}, which is no {kind}; give one, such as {default}") from None
