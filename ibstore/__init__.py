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
    from ibstore.analyze import Study, Waist, register_discretizer, register_reduction
    from ibstore.analyze import open_store as open  # noqa: A004  (ibstore.open is the name that users type)
    from ibstore.capture import Recorder
    from ibstore.store import Encoding, Store

_HOMES: Final = {
    "Encoding": ("ibstore.store", "Encoding"),
    "Recorder": ("ibstore.capture", "Recorder"),
    "Store": ("ibstore.store", "Store"),
    "Study": ("ibstore.analyze", "Study"),
    "Waist": ("ibstore.analyze", "Waist"),
    "open": ("ibstore.analyze", "open_store"),
    "register_discretizer": ("ibstore.analyze", "register_discretizer"),
    "register_reduction": ("ibstore.analyze", "register_reduction"),
}

__all__ = [
    "Encoding",
    "Recorder",
    "Store",
    "Study",
    "Waist",
    "__version__",
    "open",
    "register_discretizer",
    "register_reduction",
]


def __getattr__(name: str) -> Any:
    """Public names, imported when first used: torch, zarr and duckdb load only where they are needed."""
    if name not in _HOMES:
        raise AttributeError(f"module 'ibstore' has no attribute {name!r}")
    module, attribute = _HOMES[name]
    return getattr(import_module(module), attribute)


def __dir__() -> list[str]:
    """Every public name."""
    return sorted(__all__)
