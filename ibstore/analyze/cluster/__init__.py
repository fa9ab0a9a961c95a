"""An analysis spread over the workers of a Dask cluster: the same table, whatever their number."""

from ibstore.analyze.cluster.connection import connected
from ibstore.analyze.cluster.spread import Cluster

__all__ = ["Cluster", "connected"]
