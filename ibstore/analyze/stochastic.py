"""What a stochastic layer's network says itself of I(X;Z), to stand beside what is estimated from draws of z.

A capture of a network with stochastic layers (`ibstore.capture.dropout`) notes ``kl_<layer>`` at every epoch: the
divergence of p(z|x) from the layer's prior, in nats, summed over units and averaged over the samples.
"""

import re
from collections.abc import Sequence
from typing import TYPE_CHECKING, Final

from ibstore.analyze.estimate.entropy import NATS_PER_BIT
from ibstore.analyze.tasks import Task

if TYPE_CHECKING:
    import polars as pl

METRIC: Final = "kl_"
"""How the metric begins, before the layer's path."""

_DRAWS: Final = re.compile(r"(?P<layer>.+)\.z\[\d+\]")


def mean_kl(todo: Sequence[Task]) -> "pl.DataFrame":
    """Mean divergence in bits at each epoch of those layers that are draws of z: run, split, layer, epoch, mean_kl."""
    import polars as pl

    found = {}
    for task in todo:
        run, split, layer = task.run.name, task.split.name, task.layer.name
        drawn, record = _DRAWS.fullmatch(layer), task.segment.record
        if drawn is None:
            continue
        for epoch, metrics in zip(record.epochs, record.metrics, strict=True):
            nats = metrics.get(split, {}).get(METRIC + drawn["layer"])
            if nats is not None:
                found[run, split, layer, epoch] = nats / NATS_PER_BIT
    kinds = dict.fromkeys(("run", "split", "layer"), pl.String) | {"epoch": pl.Int64, "mean_kl": pl.Float64}
    rows = [(*names, bits) for names, bits in found.items()]
    return pl.DataFrame(rows, schema=kinds, orient="row")
