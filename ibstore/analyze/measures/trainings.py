"""What trainings came to, beside the settings in which they differ."""

from collections.abc import Iterable, Iterator, Sequence
from math import fsum
from typing import TYPE_CHECKING, Any, Final

from ibstore.analyze.losses import scores
from ibstore.analyze.measures.settings import Differing
from ibstore.analyze.measures.tables import KINDS, frame
from ibstore.analyze.stochastic import METRIC
from ibstore.errors import UsageError
from ibstore.store import Run

if TYPE_CHECKING:
    import polars as pl

FIRST: Final = ("run", "split", "epoch", "seed", "unit")
LAST: Final = ("loss", "accuracy", "error", "noisy_loss", "kl", "loss_and_kl")
"""Columns before and behind those of the settings."""


def outcomes(runs: Iterable[Run], epochs: Sequence[int] | None) -> "pl.DataFrame":
    """What each run came to, at its last epoch of those asked for: a row a measured split.

    Columns run, split, epoch, seed, unit (nats: losses and divergences stand as the training measured them); a column
    a setting or option in which the runs differ, under its name; loss, accuracy, error (1 − accuracy), noisy_loss (of
    a network with stochastic layers, with their noise), kl (the mean divergence of all of them together), and
    loss_and_kl, noisy_loss + kl: of an autoencoder the negative variational bound on log p(x). Null where it was not
    measured.

    Raises
    ------
    UsageError
        When a setting is called like another column, or no run has metrics.
    """
    chosen = list(runs)
    differing = Differing.of(chosen, (*FIRST, *LAST))
    rows = [{**differing.by_run[run.name], **row} for run in chosen for row in _measured(run, epochs)]
    if not rows:
        raise UsageError("no run has metrics at the epochs asked for; record loss and accuracy, or ask for others")
    return frame(rows, (*FIRST, *differing.kinds, *LAST), kinds={**KINDS, **differing.kinds})


def _measured(run: Run, epochs: Sequence[int] | None) -> Iterator[dict[str, Any]]:
    """What a run says of each split."""
    records = [segment.record for segment in run.segments]
    points = [point for record in records for point in zip(record.epochs, record.metrics, strict=True)]
    asked = [point for point in points if epochs is None or point[0] in epochs]
    for epoch, by_split in asked[-1:]:
        for split, metrics in by_split.items():
            found = scores(metrics)
            divergences = [value for name, value in metrics.items() if name.startswith(METRIC)]
            kl = fsum(divergences) if divergences else None
            noisy = metrics.get("noisy_loss")
            both = None if noisy is None or kl is None else noisy + kl
            about = {"run": run.name, "split": split, "epoch": epoch, "seed": run.manifest.seed, "unit": "nats"}
            yield {**about, **found, "noisy_loss": noisy, "kl": kl, "loss_and_kl": both}
