"""What a training measured of itself: which loss stands for it, the scores of a split, and its dynamics.

Which loss it is, is one rule for the table `dynamics` and for the events of a training.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from ibstore.store import Run
from ibstore.store.format.schema import Dynamics, Metrics

if TYPE_CHECKING:
    import polars as pl


def training_losses(run: Run, metrics: Sequence[Metrics]) -> list[float | None]:
    """Loss at each of some epochs, from their metrics: the split ``train``'s where any of them has one.

    Else that of the first recorded split that has one at any of them; None at epochs without.
    """
    splits = ("train", *(split.name for split in run.manifest.splits))
    one = next((split for split in splits if any("loss" in epoch.get(split, {}) for epoch in metrics)), "train")
    return [epoch.get(one, {}).get("loss") for epoch in metrics]


def scores(metrics: Mapping[str, float]) -> dict[str, float | None]:
    """Loss, accuracy and error (1 − accuracy) among the metrics of a split; None where they were not measured.

    >>> scores({"accuracy": 0.75})
    {'loss': None, 'accuracy': 0.75, 'error': 0.25}
    """
    accuracy = metrics.get("accuracy")
    return {"loss": metrics.get("loss"), "accuracy": accuracy, "error": None if accuracy is None else 1 - accuracy}


def dynamics(runs: Sequence[Run]) -> "pl.DataFrame":
    """One row a run, epoch, variant and layer with dynamics; ``loss_change`` is the same in all rows of an epoch."""
    import polars as pl

    keys = {"run": pl.String(), "epoch": pl.Int64(), "step": pl.Int64(), "variant": pl.String(), "layer": pl.String()}
    names = ("gradient_mean", "gradient_std", "snr", "weight_norm", "learning_rate", "predicted_change", "loss_change")
    schema = pl.Schema({**keys, "batches": pl.Int64(), **dict.fromkeys(names, pl.Float64())})
    rows = (
        {**quantities, **at, "variant": variant, "layer": layer, "batches": _whole(quantities.get("batches"))}
        for run in runs
        for at, variants in _changes(run)
        for variant, layers in variants.items()
        for layer, quantities in layers.items()
    )
    return pl.DataFrame([{name: row.get(name) for name in schema} for row in rows], schema=schema)


def _changes(run: Run) -> Iterator[tuple[dict[str, Any], Dynamics]]:
    """Run, epoch, step and change of the loss since the epoch before, beside the dynamics, of each epoch in order."""
    records = [segment.record for segment in run.segments]
    losses = iter(training_losses(run, [metrics for record in records for metrics in record.metrics]))
    before = None
    for record in records:
        for epoch, step, variants in zip(record.epochs, record.steps, record.dynamics, strict=True):
            loss = next(losses)
            change = None if loss is None or before is None else loss - before
            yield {"run": run.name, "epoch": epoch, "step": step, "loss_change": change}, variants
            before = loss


def _whole(number: float | None) -> int | None:
    """A count that JSON keeps as a float; None where it is none."""
    return None if number is None or not float(number).is_integer() else int(number)
