"""What a training measured of itself: which loss stands for it, and the scores of a split.

Which loss it is, is one rule for the table `dynamics` and for the events of a training.
"""

from collections.abc import Mapping, Sequence

from ibstore.store import Run
from ibstore.store.format.schema import Metrics


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
