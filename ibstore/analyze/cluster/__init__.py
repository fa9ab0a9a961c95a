"""An analysis spread over the workers of a Dask cluster: the same table, whatever their number."""

from ibstore.analyze.cluster.connection import connected
from ibstore.analyze.cluster.hands import handed_out
from ibstore.analyze.cluster.spread import Cluster, shared_place

__all__ = ["Cluster", "connected", "handed_out", "shared_place"]
