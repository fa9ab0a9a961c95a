"""The store: a Zarr v3 hierarchy that any Zarr reader opens, written with a commit protocol.

It imports neither `ibstore.capture` nor `ibstore.analyze`.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from ibstore.store.create import create_store, write_probe_set
    from ibstore.store.format.encoding import Encoding
    from ibstore.store.format.probe import ProbeSet
    from ibstore.store.format.schema import LayerInfo, Manifest, SegmentRecord, SplitInfo
    from ibstore.store.probes import ProbeReader
    from ibstore.store.reader import Run, Segment, Store
    from ibstore.store.segment import SegmentWriter
    from ibstore.store.writer import RunWriter

_HOMES: Final = {
    "Encoding": "format.encoding",
    "LayerInfo": "format.schema",
    "Manifest": "format.schema",
    "ProbeReader": "probes",
    "ProbeSet": "format.probe",
    "Run": "reader",
    "RunWriter": "writer",
    "Segment": "reader",
    "SegmentRecord": "format.schema",
    "SegmentWriter": "segment",
    "SplitInfo": "format.schema",
    "Store": "reader",
    "create_store": "create",
    "write_probe_set": "create",
}

__all__ = [
    "Encoding",
    "LayerInfo",
    "Manifest",
    "ProbeReader",
    "ProbeSet",
    "Run",
    "RunWriter",
    "Segment",
    "SegmentRecord",
    "SegmentWriter",
    "SplitInfo",
    "Store",
    "create_store",
    "write_probe_set",
]


def __getattr__(name: str) -> Any:
    """Names, imported when first used: a listing needs no NumPy, which takes longer to import than to list."""
    if name not in _HOMES:
        raise AttributeError(f"module 'ibstore.store' has no attribute {name!r}")
    return getattr(import_module(f"ibstore.store.{_HOMES[name]}"), name)
