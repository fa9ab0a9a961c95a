"""What stochastic layers transmit, beside what it costs: by their own account, run by run."""

from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, Final

import numpy as np
from numpy.typing import NDArray

from ibstore.analyze.estimate.entropy import NATS_PER_BIT
from ibstore.analyze.losses import scores
from ibstore.analyze.measures.tables import frame
from ibstore.analyze.reduce import FLOOR
from ibstore.analyze.stochastic import METRIC
from ibstore.errors import UsageError
from ibstore.store import Run
from ibstore.store.reader import Segment

if TYPE_CHECKING:
    import polars as pl

WEIGHTS: Final = ("beta_kl", "gamma_tc")
"""Options of a recipe that say what the loss pays for the layers."""

TRANSMITTED: Final = (
    *("run", "split", "epoch", "layer", "unit", "seed", *WEIGHTS),
    *("mean_kl", "tc", "tc_per_unit", "loss", "accuracy", "error"),
)


def transmitted(runs: Iterable[Run], epochs: Sequence[int] | None, unit: str = "bits") -> "pl.DataFrame":
    """What stochastic layers transmit of the input by their own account: a row a layer, epoch and measured split.

    Columns run, split, epoch, layer, unit; seed, beta_kl and gamma_tc of the training, null where it does not say;
    mean_kl; tc, the total correlation of the layer's units by the Gaussian formula, and tc_per_unit, null where ``f``
    and ``alpha`` of the layer were not recorded; loss, accuracy and error (1 − accuracy) of that split, null where they
    were not measured.

    Raises
    ------
    UsageError
        When no run has noted any.
    """
    rows = [row for run in runs for row in _transmitted(run, epochs)]
    if not rows:
        raise UsageError(
            "no run has noted what stochastic layers transmit; record networks that have some (ibstore.capture.dropout)"
        )
    return frame([{**row, "unit": unit} for row in rows], TRANSMITTED, ("mean_kl", "tc", "tc_per_unit"), unit)


def _transmitted(run: Run, epochs: Sequence[int] | None) -> Iterator[dict[str, Any]]:
    options = run.manifest.settings.get("options", {})
    about = {"run": run.name, "seed": run.manifest.seed, **{name: options.get(name) for name in WEIGHTS}}
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

    The variable is N(log f, α²), or N(f, α²) where f is negative somewhere, as a mean is and what a stochastic layer
    multiplies is not. Its covariance is that of the means, and on the diagonal the mean of α²; of a layer with places
    the channels are correlated, at all places alike.
    """
    manifest = run.manifest
    named = {each.name: each for each in manifest.layers}
    if split not in {each.name for each in manifest.splits} or not {f"{layer}.f", f"{layer}.alpha"} <= named.keys():
        return {}
    own = manifest.split(split)
    f, alpha = (
        _by_unit(np.concatenate(list(segment.blocks(own, named[f"{layer}.{what}"], epoch)))) for what in ("f", "alpha")
    )
    location = f if f.min() < 0 else np.log(np.maximum(f, FLOOR))
    covariance = np.atleast_2d(np.cov(location, rowvar=False, bias=True)) + np.diag((alpha**2).mean(0))
    nats = (np.log(np.diag(covariance)).sum() - np.linalg.slogdet(covariance)[1]) / 2
    return {"tc": nats / NATS_PER_BIT, "tc_per_unit": nats / NATS_PER_BIT / f.shape[1]}


def _by_unit(values: NDArray[Any]) -> NDArray[np.float64]:
    """(sample, unit); of (sample, channel, …) each place of each sample is a sample of its channels."""
    return np.moveaxis(values, 1, -1).reshape(-1, values.shape[1]).astype(np.float64)
