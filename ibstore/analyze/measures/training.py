"""What training does: the three events, and how long it takes to an information."""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from ibstore.analyze import losses
from ibstore.analyze.estimate.entropy import NATS_PER_BIT
from ibstore.analyze.measures.breaks import Break, Numbers, broken_stick, drop, turn
from ibstore.analyze.measures.tables import frame
from ibstore.analyze.plane import MEAN
from ibstore.analyze.tasks import WHOLE
from ibstore.errors import UsageError

if TYPE_CHECKING:
    import polars as pl

    from ibstore.analyze.selection import Selection
    from ibstore.store import Run
    from ibstore.store.format.schema import Dynamics

SERIES: Final = ("run", "split", "waist", "estimator")
EVENTS: Final = (
    *("run", "split", "layer", "channel", "waist", "edges", "estimator", "variant"),
    *("loss_kink", "loss_kink_step", "loss_explained", "snr_drop", "snr_drop_step", "snr_explained"),
    *("i_xt_turn", "i_xt_turn_step", "i_xt_fall"),
)
DYNAMICS: Final = (
    *("run", "epoch", "step", "variant", "layer", "unit", "batches", "gradient_mean", "gradient_std", "snr"),
    *("weight_norm", "learning_rate", "predicted_change", "loss_change", "loss_kink", "snr_drop"),
)
RELAXATION: Final = (
    *("run", "split", "layer", "channel", "waist", "edges", "estimator", "unit", "n"),
    *("hidden_layers", "level", "epoch", "step", "i_ty", "predicted"),
)
BY: Final = ("run", "layers")
"""A row a run, or a row a number of hidden layers."""

Rule = Callable[[Numbers, Numbers], Break | None]
"""What `broken_stick` and `drop` are."""

Place = tuple[int | None, int | None]
"""Epoch and step of a capture point; None where there is no event."""


@dataclass(frozen=True)
class History:
    """Epochs of a run, with the steps, losses and dynamics beside them."""

    epochs: list[int]
    steps: list[int | None]
    losses: list[float | None]
    dynamics: "list[Dynamics]"

    @classmethod
    def of(cls, run: "Run", asked: Sequence[int] | None) -> "History":
        """Of the epochs asked for; which loss it is says `training_losses`."""
        records = [segment.record for segment in run.segments]
        found = [
            each
            for record in records
            for each in zip(record.epochs, record.steps, record.metrics, record.dynamics, strict=True)
            if asked is None or each[0] in asked
        ]
        known = losses.training_losses(run, [each[2] for each in found])
        return cls([each[0] for each in found], [each[1] for each in found], known, [each[3] for each in found])

    def place(self, at: int | None) -> Place:
        """Epoch and step at a position."""
        return (None, None) if at is None else (self.epochs[at], self.steps[at])

    def variants(self, layer: str) -> list[str | None]:
        """Definitions of the gradients that a layer has an SNR by; a None where there is none."""
        found = [name for each in self.dynamics for name, layers in each.items() if "snr" in layers.get(layer, {})]
        return list(dict.fromkeys(found)) or [None]

    def snr(self, layer: str, variant: str | None) -> list[float | None]:
        """Signal-to-noise ratio of a layer's gradients at each epoch."""
        return [each.get(variant or "", {}).get(layer, {}).get("snr") for each in self.dynamics]

    def mark(self, rule: Rule, values: Sequence[float | None]) -> tuple[Place, float | None]:
        """Where a rule marks log values over log steps (log epochs where a step is unknown), and what that explains."""
        times = self.epochs if None in self.steps else self.steps
        known = {time: at for at, time in enumerate(times) if time and 0 < (values[at] or 0) < math.inf}
        x = np.log(np.array(list(known), np.float64))
        found = rule(x, np.log(np.array([values[at] for at in known.values()], np.float64)))
        if found is None:
            return (None, None), None
        return self.place(list(known.values())[found.at] if found.clear else None), found.explained


def events(selection: "Selection", plane: "pl.DataFrame", margin: float) -> "pl.DataFrame":
    """Where the loss kinks, the SNR of the gradients drops and I(X;T) turns: a row a layer of the plane and a variant.

    Columns run, split, layer, channel, waist, edges, estimator, variant (of the gradients; null where a layer has no
    SNR); each event's epoch and step: loss_kink, the break of log loss over log step; snr_drop, where a fall of log SNR
    over log step begins; i_xt_turn, the largest I(X;T). Beside them loss_explained and snr_explained, the part of a
    straight line's squared error that the breaks explain, and i_xt_fall, the part of the largest I(X;T) that is lost
    afterwards.

    An event is null where it is not clear. Of breaks `ibstore.analyze.measures.breaks` says when that is; I(X;T) does
    not turn where it is largest at the first capture point, or falls by less than ``margin``. Points at step 0, and
    losses and SNRs that have no finite logarithm, are left out. Around a straight line of independent noise 3 in 100
    have a break from 5 points, and about 1 in 200 from 12; but what bends smoothly or wanders is marked too, where
    the stick fits best: an event says where, and ``explained`` how well.

    Raises
    ------
    UsageError
        When ``margin`` is no part of 1.
    """
    if not 0 < margin <= 1:
        raise UsageError(f"margin is {margin}; give the part of I(X;T) that is lost where it turns, above 0 to 1")
    histories = _histories(selection)
    kinks = {run: history.mark(broken_stick, history.losses) for run, history in histories.items()}
    keys = ("run", "split", "layer", "channel", "waist", "edges", "estimator")
    rows = []
    for names, own in plane.group_by(keys, maintain_order=True):
        known = dict(zip(keys, names, strict=True))
        history, layer = histories[known["run"]], known["layer"]
        at, lost = turn(own["i_xt"].to_list(), margin)
        turned = (None, None) if at is None else history.place(history.epochs.index(own["epoch"][at]))
        for variant in history.variants(layer):
            dropped, snr_explained = history.mark(drop, history.snr(layer, variant))
            rows.append(
                {**known, "variant": variant, "i_xt_fall": lost}
                | {"loss_explained": kinks[known["run"]][1], "snr_explained": snr_explained}
                | _placed(loss_kink=kinks[known["run"]][0], snr_drop=dropped, i_xt_turn=turned)
            )
    return frame(rows, EVENTS)


def dynamics(selection: "Selection") -> "pl.DataFrame":
    """What the training says of its gradients, layer by layer, and where the loss kinks and the SNR drops.

    Rows and columns of the table `dynamics`, of the layers and epochs that are asked for, and the columns loss_kink and
    snr_drop: the epoch of each event in that run, of that layer and variant, as `events` finds it; null where none is
    clear.

    Raises
    ------
    UsageError
        When no run has recorded any.
    """
    import polars as pl

    table = losses.dynamics(list(selection.runs.values()))
    if selection.layers is not None:
        table = table.filter(pl.col("layer").is_in(list(selection.layers)))
    if selection.epochs is not None:
        table = table.filter(pl.col("epoch").is_in(list(selection.epochs)))
    if table.is_empty():
        raise UsageError("no run has dynamics of these layers; record some (ibstore.Dynamics), or ask for others")
    histories = _histories(selection)
    kinks = {run: history.mark(broken_stick, history.losses)[0] for run, history in histories.items()}
    drops = {
        (run, layer, variant): histories[run].mark(drop, histories[run].snr(layer, variant))[0]
        for run, layer, variant in table.select("run", "layer", "variant").unique(maintain_order=True).rows()
    }
    rows = (
        {**row, "loss_kink": kinks[row["run"]][0], "snr_drop": drops[row["run"], row["layer"], row["variant"]][0]}
        for row in table.iter_rows(named=True)
    )
    return frame([{**row, "unit": "nats"} for row in rows], DYNAMICS)


def _placed(**places: Place) -> dict[str, int | None]:
    """Columns of each event: its epoch under its name, and its step."""
    return {
        f"{name}{which}": each
        for name, place in places.items()
        for which, each in zip(("", "_step"), place, strict=True)
    }


def _histories(selection: "Selection") -> dict[str, History]:
    return {name: History.of(run, selection.epochs) for name, run in selection.runs.items()}


def relaxation(
    selection: "Selection", plane: "pl.DataFrame", level: float, layer: str = "", by: str = "run"
) -> "pl.DataFrame":
    """How long a training takes until I(T;Y) of a layer reaches a level, beside the prediction Σ exp ΔS_k.

    ΔS_k = I(X;T_{k−1}) − I(X;T_k), in nats, with T_0 = X and I(X;X) = H(X): what the k-th layer forgets of the input, k
    from the first layer of the selection to ``layer``, at the epoch reached. Diffusion to an entropy that is larger by
    ΔS takes a time ∼ exp ΔS, so that many layers with small steps are faster than one with their sum (Shwartz-Ziv &
    Tishby 2017, whose printed ΔS_k = I(X;T_k) − I(X;T_{k−1}) has the other sign, and would be below 0 by the
    data-processing inequality). The prediction stands without its factor and its unit of time.

    Columns by run: run, split, layer, channel, waist, edges, estimator, unit (bits), n; hidden_layers, the selection's
    layers before this one; level; epoch and step of the first capture point with that I(T;Y), null where none has it;
    i_ty and predicted there. By layers, over the runs of as many hidden layers: split, waist, estimator, hidden_layers,
    level, runs, reached (how many did); epoch_mean, epoch_std (with K − 1), predicted_mean, predicted_std.

    Parameters
    ----------
    selection, plane
        What is asked about, and its plane in bits.
    level
        I(T;Y) to be reached, in bits.
    layer
        Whose; each run's last one of the selection by default.
    by
        One of `BY`.

    Raises
    ------
    UsageError
        When there are no labels, a run has no such layer, or ``level`` or ``by`` cannot be meant.
    """
    if not 0 < level < math.inf or by not in BY:
        raise UsageError(f"level is {level} and by {by!r}; give a level above 0, in bits, and by {' or '.join(BY)}")
    if plane["i_ty"].is_null().all():
        raise UsageError("I(T;Y) needs labels, and the samples have none; leave it")
    found = frame(_relaxations(_histories(selection), plane, level, layer), RELAXATION)
    return found if by == "run" else _by_layers(found)


def _relaxations(
    histories: Mapping[str, History], plane: "pl.DataFrame", level: float, layer: str
) -> Iterator[dict[str, Any]]:
    """Rows by run of `relaxation`."""
    import polars as pl

    whole = plane.filter(pl.col("channel").is_in([WHOLE, MEAN]))
    for (run, *_), own in whole.group_by(SERIES, maintain_order=True):
        names = own["layer"].unique(maintain_order=True).to_list()
        last = layer or names[-1]
        if last not in names:
            raise UsageError(f"run {run!r} has no layer {last!r} in the selection; it has {', '.join(names)}")
        before = names.index(last)
        row = own.filter(pl.col("layer") == last).row(0, named=True)
        row |= dict.fromkeys(("epoch", "step", "i_ty", "predicted")) | {"hidden_layers": before, "level": level}
        reached = own.filter((pl.col("layer") == last) & (pl.col("i_ty") >= level))
        if not reached.is_empty():
            epoch = reached["epoch"][0]
            told = own.filter(pl.col("epoch") == epoch, pl.col("layer").is_in(names[: before + 1]))
            history = histories[run]
            row |= {"epoch": epoch, "step": history.steps[history.epochs.index(epoch)]}
            row |= {"i_ty": reached["i_ty"][0], "predicted": predicted([told["h_x"][0], *told["i_xt"]])}
        yield row


def predicted(information: Sequence[float | None]) -> float | None:
    """Σ exp ΔS_k of H(X), I(X;T_1), I(X;T_2), … in bits; None where one is unknown.

    >>> predicted([3.0, 2.0, 2.0])  # exp(ln 2) + exp(0)
    3.0
    """
    known = [each for each in information if each is not None]
    if len(known) < len(information):
        return None
    return math.fsum(np.exp(-np.diff(known) * NATS_PER_BIT).tolist())


def _by_layers(found: "pl.DataFrame") -> "pl.DataFrame":
    import polars as pl

    keys = ("split", "waist", "estimator", "hidden_layers", "level")
    return (
        found.group_by(keys, maintain_order=True)
        .agg(
            pl.len().cast(pl.Int64).alias("runs"),
            pl.col("epoch").count().cast(pl.Int64).alias("reached"),
            *(pl.col(name).mean().alias(f"{name}_mean") for name in ("epoch", "predicted")),
            *(pl.col(name).std().alias(f"{name}_std") for name in ("epoch", "predicted")),
        )
        .select(*keys, "runs", "reached", "epoch_mean", "epoch_std", "predicted_mean", "predicted_std")
        .sort("hidden_layers", maintain_order=True)
    )
