"""Training dynamics: what gradients, weights and the loss do to each layer between capture points.

- `owners`: which parameters belong to which recorded layer.
- `Dynamics`: over the minibatches since the capture point before, for any training loop: variant ``epoch``.
- `fixed_minibatches`, `ParallelMinibatches`: gradients by other definitions, variants ``fixed`` and ``parallel``.
- `Gradients`: the statistics alone.

What they read is handed to `ibstore.Recorder.record` as ``dynamics`` and stands in the table ``dynamics``.
"""

from ibstore.capture.dynamics.dynamics import EPOCH, Dynamics
from ibstore.capture.dynamics.gradients import Gradients
from ibstore.capture.dynamics.minibatches import FIXED, PARALLEL, ParallelMinibatches, fixed_minibatches
from ibstore.capture.dynamics.ownership import owned_names, owners

__all__ = [
    "EPOCH",
    "FIXED",
    "PARALLEL",
    "Dynamics",
    "Gradients",
    "ParallelMinibatches",
    "fixed_minibatches",
    "owned_names",
    "owners",
]
