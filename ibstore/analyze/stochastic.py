"""What a stochastic layer's network says itself of I(X;Z), to stand beside what is estimated from draws of z.

A capture of a network with stochastic layers (`ibstore.capture.dropout`) notes ``kl_<layer>`` at every epoch: the
divergence of p(z|x) from the layer's prior, in nats, summed over units and averaged over the samples.
"""

import re
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Final

from ibstore.analyze.estimate.entropy import NATS_PER_BIT
from ibstore.analyze.tasks import Task
from ibstore.store import Run

if TYPE_CHECKING:
    import polars as pl

METRIC: Final = "kl_"
"""How the metric begins, before the layer's path."""

WEIGHTS: Final = ("beta_kl", "gamma_tc")
"""Options of a recipe that say what the loss pays for the layers."""

_PART: Final = re.compile(r"(?P<layer>.+)\.(?P<part>f|alpha|kl|z)(?P<call>:\d+)?(?:\[-?\d+\])?")
"""Layers as they are recorded: ``drop3.f``, ``drop3.z[0]``, or of one that is called twice ``drop3.z:1[0]``."""


def part_of(layer: str) -> tuple[str, str]:
    """Stochastic layer and part that a recorded layer is, as metrics call it; the part is "" where it is none.

    >>> part_of("drop3.z[0]"), part_of("drop3.kl:1"), part_of("out")
    (('drop3', 'z'), ('drop3:1', 'kl'), ('out', ''))
    """
    found = _PART.fullmatch(layer)
    return (layer, "") if found is None else (found["layer"] + (found["call"] or ""), found["part"])


def trained_with(run: Run) -> dict[str, Any]:
    """Seed of a run, and the weights of its loss, None where it does not say."""
    options = run.manifest.settings.get("options", {})
    return {"seed": run.manifest.seed, **{name: options.get(name) for name in WEIGHTS}}


def mean_kl(todo: Sequence[Task]) -> "pl.DataFrame":
    """Mean divergence in bits at each epoch of those layers that are draws of z: run, split, layer, epoch, mean_kl."""
    import polars as pl

    found = {}
    for task in todo:
        run, split, layer = task.run.name, task.split.name, task.layer.name
        (code, part), record = part_of(layer), task.segment.record
        if part != "z":
            continue
        for epoch, metrics in zip(record.epochs, record.metrics, strict=True):
            nats = metrics.get(split, {}).get(METRIC + code)
            if nats is not None:
                found[run, split, layer, epoch] = nats / NATS_PER_BIT
    kinds = dict.fromkeys(("run", "split", "layer"), pl.String) | {"epoch": pl.Int64, "mean_kl": pl.Float64}
    rows = [(*names, bits) for names, bits in found.items()]
    return pl.DataFrame(rows, schema=kinds, orient="row")
