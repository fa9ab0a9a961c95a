"""Data sets to train on, with labels and sample ids that stay the same for ever.

`catalogue` names them, `samples` says what they are, and a module a family loads or makes them.

>>> dataset_names()[:3]
['blackbox-complicated', 'blackbox-printed', 'blackbox-simple']
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from ibstore.capture.datasets.catalogue import LOADERS, dataset_names, load_dataset

if TYPE_CHECKING:
    from ibstore.capture.datasets.samples import SPLITS, Dataset, Samples

__all__ = ["LOADERS", "SPLITS", "Dataset", "Samples", "dataset_names", "load_dataset"]


def __getattr__(name: str) -> Any:  # what a list of names does not need, numpy with it
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.samples"), name)
