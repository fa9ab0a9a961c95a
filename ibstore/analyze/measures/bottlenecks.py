"""What stochastic layers transmit, beside what it costs: by their own account, run by run."""

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any, Final

import numpy as np
from numpy.typing import NDArray

from ibstore.analyze.estimate.entropy import NATS_PER_BIT
from ibstore.analyze.losses import scores
from ibstore.analyze.measures.settings import Differing
from ibstore.analyze.measures.tables import KINDS, frame
from ibstore.analyze.reduce import FLOOR
from ibstore.analyze.stochastic import METRIC, WEIGHTS, part_of, trained_with
from ibstore.errors import UsageError
from ibstore.store import LayerInfo, Run
from ibstore.store.reader import Segment

if TYPE_CHECKING:
    import polars as pl

    from ibstore.analyze.selection import Selection

FIRST: Final = ("run", "split", "epoch", "layer", "unit", "seed", *WEIGHTS)
LAST: Final = ("mean_kl", "tc", "tc_per_unit", "loss", "accuracy", "error")
"""Columns before and behind those of the settings."""


def transmitted(selection: "Selection", unit: str = "bits") -> "pl.DataFrame":
    """What stochastic layers transmit of the input by their own account: a row a layer, epoch and measured split.

    Columns run, split, epoch, layer, unit; seed, beta_kl and gamma_tc of the training, null where it does not say; a
    column a setting or option in which the runs differ beside these, under its name; mean_kl; tc, the total correlation
    of the layer's units by the Gaussian formula, and tc_per_unit, null where ``f`` and ``alpha`` of the layer were not
    recorded; loss, accuracy and error (1 − accuracy) of that split, null where they were not measured.

    Where layers are asked for by name, of those that a part was named of.

    Raises
    ------
    UsageError
        When no run has noted any.
    """
    runs = selection.runs.values()
    named = None if selection.layers is None else {part_of(layer)[0] for layer in selection.layers}
    every = (row for run in runs for row in _transmitted(run, selection.epochs))
    rows = [row for row in every if named is None or row["layer"] in named]
    if not rows:
        raise UsageError(
            "no run has noted what stochastic layers transmit; record networks that have some (ibstore.capture.dropout)"
            + ("" if named is None else f", or ask of others than {', '.join(sorted(named))}")
        )
    differing = Differing.of(runs, (*FIRST, *LAST), WEIGHTS)
    full = [{**differing.by_run[row["run"]], **row, "unit": unit} for row in rows]
    columns = (*FIRST, *differing.kinds, *LAST)
    return frame(full, columns, ("mean_kl", "tc", "tc_per_unit"), unit, {**KINDS, **differing.kinds})


def _transmitted(run: Run, epochs: Sequence[int] | None) -> Iterator[dict[str, Any]]:
    about = {"run": run.name, **trained_with(run)}
    for segment in run.segments:
        for epoch, by_split in zip(segment.record.epochs, segment.record.metrics, strict=True):
            for split, metrics in by_split.items() if epochs is None or epoch in epochs else ():
                for name, nats in metrics.items():
                    if name.startswith(METRIC):
                        layer = name.removeprefix(METRIC)
                        row = {**about, "split": split, "epoch": epoch, "layer": layer, "mean_kl": nats / NATS_PER_BIT}
                        yield row | scores(metrics) | _correlated(run, segment, split, layer, epoch)


def _correlated(run: Run, segment: Segment, split: str, layer: str, epoch: int) -> dict[str, float]:
    """Total correlation of a layer whose f and α were recorded, in bits, and that a unit.

    The variable is N(log f, α²), or N(f, α²) where the run says so. Its covariance is that of the means, and on the
    diagonal the mean of α²; of a layer with places the channels are correlated, at all places alike. Nothing of what is
    not finite.
    """
    parts = {part_of(each.name): each for each in run.manifest.layers}
    known = {name: parts[layer, name] for name in ("f", "alpha") if (layer, name) in parts}
    if split not in {each.name for each in run.manifest.splits} or len(known) < 2:  # noqa: PLR2004  (f and α)
        return {}
    f, alpha = (_values(run, segment, split, known[name], epoch) for name in ("f", "alpha"))
    if not (np.isfinite(f).all() and np.isfinite(alpha).all()):
        return {}
    normal = layer.partition(":")[0] in run.manifest.settings.get("normal_codes", ())
    location = f if normal else np.log(np.maximum(f, FLOOR))
    covariance = np.atleast_2d(np.cov(location, rowvar=False, bias=True)) + np.diag((alpha**2).mean(0))
    nats = (np.log(np.diag(covariance)).sum() - np.linalg.slogdet(covariance)[1]) / 2
    return {"tc": nats / NATS_PER_BIT, "tc_per_unit": nats / NATS_PER_BIT / f.shape[1]}


def _values(run: Run, segment: Segment, split: str, layer: LayerInfo, epoch: int) -> NDArray[np.float64]:
    """(sample, unit); of (sample, channel, …) each place of each sample is a sample of its channels."""
    values: NDArray[Any] = np.concatenate(list(segment.blocks(run.manifest.split(split), layer, epoch)))
    return np.moveaxis(values, 1, -1).reshape(-1, values.shape[1]).astype(np.float64)
