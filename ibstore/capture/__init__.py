"""Capture: networks are trained and recorded here, and torch lives here alone.

It imports `ibstore.store` and never `ibstore.analyze`. The names below load their module, and torch with it,
only when they are asked for, so that whoever lists data sets or prints help does not wait for torch. The
function `ibstore.capture.train.train` has its module's name and is imported from there.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from ibstore.capture.arguments import Probe
    from ibstore.capture.checkpoints import record_checkpoints
    from ibstore.capture.datasets import Dataset, dataset_names, load_dataset
    from ibstore.capture.dynamics import Dynamics, owners
    from ibstore.capture.forward import activations
    from ibstore.capture.models import mnist_cnn
    from ibstore.capture.provenance import Provenance
    from ibstore.capture.recipes import Recipe, recipe, recipe_names
    from ibstore.capture.recorder import Recorder
    from ibstore.capture.schedule import Schedule
    from ibstore.capture.stopping import InformationStopping
    from ibstore.capture.taps import tap
    from ibstore.capture.train import Trained, TrainSettings, train_replicas

__all__ = [
    "Dataset",
    "Dynamics",
    "InformationStopping",
    "Probe",
    "Provenance",
    "Recipe",
    "Recorder",
    "Schedule",
    "TrainSettings",
    "Trained",
    "activations",
    "dataset_names",
    "load_dataset",
    "mnist_cnn",
    "owners",
    "recipe",
    "recipe_names",
    "record_checkpoints",
    "tap",
    "train_replicas",
]

_HOMES: Final = {
    "Dataset": "datasets",
    "Dynamics": "dynamics",
    "InformationStopping": "stopping",
    "Probe": "arguments",
    "Provenance": "provenance",
    "Recipe": "recipes",
    "Recorder": "recorder",
    "Schedule": "schedule",
    "TrainSettings": "train",
    "Trained": "train",
    "activations": "forward",
    "dataset_names": "datasets",
    "load_dataset": "datasets",
    "mnist_cnn": "models",
    "owners": "dynamics",
    "recipe": "recipes",
    "recipe_names": "recipes",
    "record_checkpoints": "checkpoints",
    "tap": "taps",
    "train_replicas": "train",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
