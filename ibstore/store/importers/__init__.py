"""Taking in what other code wrote: activations in files become a run. Which files, and how named: docs/moving.md.

Every format is read into a `Source`: epochs in order, each a mapping from layer names to arrays that have not been
read yet. What follows is the same for all: the epochs are held against the first, then committed one by one.
"""

from ibstore.store.importers.run import import_run

__all__ = ["import_run"]
