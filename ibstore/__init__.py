"""ibstore: capture once, ask for ever.

Training writes what every layer said, epoch by epoch, into a Zarr store; every question about information
in the network is asked afterwards.

>>> import ibstore
>>> study = ibstore.open("lab.zarr")  # doctest: +SKIP
>>> study.analyze(waists=["thesis-6.2"], unit="bits")  # doctest: +SKIP
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any, Final

__version__ = "0.1.0"

if TYPE_CHECKING:
    from ibstore.analyze import Study, Waist, informations, register_discretizer, register_estimator, register_reduction
    from ibstore.analyze import open_store as open  # noqa: A004  (ibstore.open is the name that users type)
    from ibstore.analyze import plots as plots
    from ibstore.capture import (
        Dynamics,
        InformationStopping,
        Probe,
        Recipe,
        Recorder,
        Schedule,
        activations,
        owners,
        record_checkpoints,
        tap,
    )
    from ibstore.capture.callbacks.lightning import LightningRecorder as LightningRecorder
    from ibstore.capture.callbacks.transformers import TransformersRecorder as TransformersRecorder
    from ibstore.store import Encoding, Store

_HOMES: Final = {
    "Dynamics": ("ibstore.capture", "Dynamics"),
    "Encoding": ("ibstore.store", "Encoding"),
    "InformationStopping": ("ibstore.capture", "InformationStopping"),
    "LightningRecorder": ("ibstore.capture.callbacks.lightning", "LightningRecorder"),
    "Probe": ("ibstore.capture", "Probe"),
    "Recipe": ("ibstore.capture", "Recipe"),
    "Recorder": ("ibstore.capture", "Recorder"),
    "Schedule": ("ibstore.capture", "Schedule"),
    "Store": ("ibstore.store", "Store"),
    "Study": ("ibstore.analyze", "Study"),
    "TransformersRecorder": ("ibstore.capture.callbacks.transformers", "TransformersRecorder"),
    "Waist": ("ibstore.analyze", "Waist"),
    "activations": ("ibstore.capture", "activations"),
    "informations": ("ibstore.analyze", "informations"),
    "open": ("ibstore.analyze", "open_store"),
    "owners": ("ibstore.capture", "owners"),
    "plots": ("ibstore.analyze.plots", ""),
    "record_checkpoints": ("ibstore.capture", "record_checkpoints"),
    "register_discretizer": ("ibstore.analyze", "register_discretizer"),
    "register_estimator": ("ibstore.analyze", "register_estimator"),
    "register_reduction": ("ibstore.analyze", "register_reduction"),
    "tap": ("ibstore.capture", "tap"),
}

# without LightningRecorder and TransformersRecorder, which need packages of their own
__all__ = [
    "Dynamics",
    "Encoding",
    "InformationStopping",
    "Probe",
    "Recipe",
    "Recorder",
    "Schedule",
    "Store",
    "Study",
    "Waist",
    "__version__",
    "activations",
    "informations",
    "open",
    "owners",
    "plots",
    "record_checkpoints",
    "register_discretizer",
    "register_estimator",
    "register_reduction",
    "tap",
]


def __getattr__(name: str) -> Any:
    """Public names, imported when first used: torch, zarr and duckdb load only where they are needed."""
    if name not in _HOMES:
        raise AttributeError(f"module 'ibstore' has no attribute {name!r}")
    module, attribute = _HOMES[name]
    found = import_module(module)
    return getattr(found, attribute) if attribute else found


def __dir__() -> list[str]:
    """Every public name."""
    return sorted(__all__)
