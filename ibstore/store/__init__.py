"""The store: a Zarr v3 hierarchy that any Zarr reader opens, written with a commit protocol.

It imports neither `ibstore.capture` nor `ibstore.analyze`.
"""

from ibstore.store.probe import ProbeSet
from ibstore.store.reader import ProbeReader, Run, Segment, Store
from ibstore.store.schema import LayerInfo, Manifest, SegmentRecord, SplitInfo
from ibstore.store.writer import RunWriter, SegmentWriter, create_store, write_probe_set

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
