"""Which loss stands for a run's training: one rule for the table `dynamics` and for the events of a training."""

from collections.abc import Sequence

from ibstore.store import Run
from ibstore.store.format.schema import Metrics


def training_losses(run: Run, metrics: Sequence[Metrics]) -> list[float | None]:
    """Loss at each of some epochs, from their metrics: the split ``train``'s where any of them has one.

    Else that of the first recorded split that has one at any of them; None at epochs without.
    """
    splits = ("train", *(split.name for split in run.manifest.splits))
    one = next((split for split in splits if any("loss" in epoch.get(split, {}) for epoch in metrics)), "train")
    return [epoch.get(one, {}).get("loss") for epoch in metrics]
