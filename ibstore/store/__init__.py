"""The store: a Zarr v3 hierarchy that any Zarr reader opens, written with a commit protocol.

It imports neither `ibstore.capture` nor `ibstore.analyze`.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from ibstore.store.probe import ProbeSet
    from ibstore.store.reader import ProbeReader, Run, Segment, Store
    from ibstore.store.schema import LayerInfo, Manifest, SegmentRecord, SplitInfo
    from ibstore.store.writer import RunWriter, SegmentWriter, create_store, write_probe_set

_HOMES: Final = {
    "LayerInfo": "schema",
    "Manifest": "schema",
    "ProbeReader": "reader",
    "ProbeSet": "probe",
    "Run": "reader",
    "RunWriter": "writer",
    "Segment": "reader",
    "SegmentRecord": "schema",
    "SegmentWriter": "writer",
    "SplitInfo": "schema",
    "Store": "reader",
    "create_store": "writer",
    "write_probe_set": "writer",
}

__all__ = [
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
