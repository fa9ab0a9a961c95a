"""What training does: the three events, and how long it takes to an information."""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import numpy as np
from numpy.typing import NDArray

from ibstore.analyze.estimate.entropy import NATS_PER_BIT
from ibstore.analyze.measures.tables import frame
from ibstore.analyze.plane import MEAN
from ibstore.analyze.tasks import WHOLE
from ibstore.errors import UsageError

if TYPE_CHECKING:
    import polars as pl

    from ibstore.analyze.selection import Selection
    from ibstore.store import Run
    from ibstore.store.format.schema import Dynamics

FEWEST: Final = 5
"""Points that a stick with a break is fitted to, at least: two beside the break on each side."""

LEAST_EXPLAINED: Final = 0.5
"""Part of a line's squared error that a break must explain, at least."""

LEAST_EVIDENCE: Final = 10.0
"""Difference of the Bayesian information criteria of line and broken stick, at least: very strong by Kass & Raftery."""

NEGLIGIBLE: Final = 1e-6
"""Root mean squared error of a line, in units of a logarithm, below which there is nothing left to explain."""

SERIES: Final = ("run", "split", "waist", "estimator")
EVENTS: Final = (
    *("run", "split", "layer", "channel", "waist", "edges", "estimator", "variant"),
    *("loss_kink", "loss_kink_step", "loss_explained", "snr_drop", "snr_drop_step", "snr_explained"),
    *("i_xt_turn", "i_xt_turn_step", "i_xt_fall"),
)
RELAXATION: Final = (
    *("run", "split", "layer", "channel", "waist", "edges", "estimator", "unit", "n"),
    *("hidden_layers", "level", "epoch", "step", "i_ty", "predicted"),
)
BY: Final = ("run", "layers")
"""A row a run, or a row a number of hidden layers."""

Numbers = NDArray[np.float64]

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
        """Of the epochs asked for; the loss is the split ``train``'s, else the first split's that has one."""
        records = [segment.record for segment in run.segments]
        found = [
            each
            for record in records
            for each in zip(record.epochs, record.steps, record.metrics, record.dynamics, strict=True)
            if asked is None or each[0] in asked
        ]
        splits = ("train", *(split.name for split in run.manifest.splits))
        one = next((split for split in splits if any("loss" in each[2].get(split, {}) for each in found)), "train")
        losses = [each[2].get(one, {}).get("loss") for each in found]
        return cls([each[0] for each in found], [each[1] for each in found], losses, [each[3] for each in found])

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

    def kink(self, values: Sequence[float | None], *, falls: bool = False) -> tuple[Place, float | None]:
        """Where log values break over log steps (log epochs where a step is unknown), and what the break explains."""
        times = self.epochs if None in self.steps else self.steps
        usable = [
            at
            for at, (time, value) in enumerate(zip(times, values, strict=True))
            if time and value is not None and 0 < value < math.inf
        ]
        x, y = (np.log([float(each[at]) for at in usable]) for each in (times, values))  # type: ignore[arg-type]  # no None is usable
        found = broken_stick(x, y, falls=falls)
        if found is None:
            return (None, None), None
        return self.place(usable[found.at] if found.clear else None), found.explained


@dataclass(frozen=True, slots=True)
class Stick:
    """A line with one break: at which point, the part of a straight line's squared error it explains, if clearly."""

    at: int
    explained: float
    clear: bool


def broken_stick(x: Numbers, y: Numbers, *, falls: bool = False) -> Stick | None:
    """Fit y ≈ a + b·x + c·max(0, x − x_k) by least squares, k among the points; None where nothing can be fitted.

    Each point weighs as much of the axis as is nearest to it, so that the answer does not hang on how densely which
    part of a training was captured; the number of points that count is (Σw)² / Σw².

    Parameters
    ----------
    x, y
        (point,) float64, x ascending.
    falls
        Whether only breaks count behind which y falls, and more steeply than before.

    Examples
    --------
    >>> x = np.arange(9.0)
    >>> broken_stick(x, np.minimum(x, 4)).at
    4
    >>> broken_stick(x, 2 * x) is None
    True
    """
    if len(x) < FEWEST or not x[0] < x[-1]:
        return None
    w = np.gradient(x)
    w[[0, -1]] /= 2
    x, y = x - np.average(x, weights=w), y - np.average(y, weights=w)
    slope = (w * x * y).sum() / (w * x * x).sum()
    residuals = y - slope * x
    left = float((w * residuals**2).sum())
    if left <= NEGLIGIBLE**2 * w.sum():
        return None
    gains, change, after = _breaks(w, x, residuals)
    after += slope
    if falls:
        gains[(change >= 0) | (after >= 0)] = 0
    at = int(np.argmax(gains))
    if gains[at] <= 0:
        return None
    explained, points = min(1.0, float(gains[at]) / left), float(w.sum() ** 2 / (w * w).sum())
    evident = -math.expm1(-(LEAST_EVIDENCE + 2 * math.log(points)) / points)
    return Stick(at, explained, explained >= max(LEAST_EXPLAINED, evident))


def _breaks(w: Numbers, x: Numbers, residuals: Numbers) -> tuple[Numbers, Numbers, Numbers]:
    """By how much a break at each point lessens a line's squared error, the change of slope, and that of the end's.

    The line leaves h of max(0, x − x_k), and the error falls by (h·r)² / ‖h‖²; as x and the residuals r have mean 0
    and no slope, sums over the points behind k are all it takes. The two points at each end have no break.
    """

    def behind(values: Numbers) -> Numbers:
        return np.cumsum((w * values)[::-1])[::-1]

    squares = (w * x * x).sum()
    ones, first, second = behind(np.ones_like(x)), behind(x), behind(x * x)
    own = (second - x * first) / squares  # slope of max(0, x − x_k) itself
    norm = second - 2 * x * first + x * x * ones - (first - x * ones) ** 2 / w.sum() - own**2 * squares
    along = behind(x * residuals) - x * behind(residuals)
    inner = (np.arange(len(x)) >= 2) & (np.arange(len(x)) < len(x) - 2) & (norm > 0)  # noqa: PLR2004
    change = np.divide(along, norm, out=np.zeros_like(x), where=inner)
    return change * along, change, change * (1 - own)


def turn(values: Sequence[float | None], margin: float) -> tuple[int | None, float | None]:
    """Position of the largest value, and what part of it is lost afterwards at most.

    The position is None where it is the first value, which nothing rose to, or where less than ``margin`` is lost.

    Examples
    --------
    >>> turn([1.0, 4.0, 3.0], 0.05)
    (1, 0.25)
    >>> turn([1.0, 3.0, 4.0], 0.05), turn([4.0, 3.0, 2.0], 0.05)
    ((None, 0.0), (None, 0.5))
    """
    known = [at for at, value in enumerate(values) if value is not None and math.isfinite(value)]
    numbers = np.array([values[at] for at in known], np.float64)
    if not known or numbers.max() <= 0:
        return None, None
    best = int(numbers.argmax())
    lost = 1 - float(numbers[best:].min() / numbers[best])
    return (known[best] if best and lost >= margin else None), lost


def events(selection: "Selection", plane: "pl.DataFrame", margin: float) -> "pl.DataFrame":
    """Where the loss kinks, the SNR of the gradients drops and I(X;T) turns: a row a layer of the plane and a variant.

    Columns run, split, layer, channel, waist, edges, estimator, variant (of the gradients; null where a layer has no
    SNR); each event's epoch and step: loss_kink, where a broken stick fits log loss over log step best; snr_drop, the
    same for log SNR, among breaks behind which it falls and more steeply than before; i_xt_turn, the largest I(X;T).
    Beside them loss_explained and snr_explained, the part of the straight line's squared error that the break explains,
    and i_xt_fall, the part of the largest I(X;T) that is lost afterwards.

    An event is null where it is not clear: the break explains less than half, or the Bayesian information criterion of
    the broken stick is not 10 below the line's (two parameters more); I(X;T) is largest at the first capture point, or
    falls by less than ``margin``. Points at step 0, and losses and SNRs that have no finite logarithm, are left out.
    Around a straight line of independent noise 3 in 100 are marked from 5 points, 1 in 1000 from 20; but what bends
    smoothly or wanders is marked too, where a stick fits it best: an event says where, and ``explained`` how well.

    Raises
    ------
    UsageError
        When ``margin`` is no part of 1.
    """
    if not 0 < margin <= 1:
        raise UsageError(f"margin is {margin}; give the part of I(X;T) that is lost where it turns, above 0 to 1")
    histories = _histories(selection)
    kinks = {run: history.kink(history.losses) for run, history in histories.items()}
    keys = ("run", "split", "layer", "channel", "waist", "edges", "estimator")
    rows = []
    for names, own in plane.group_by(keys, maintain_order=True):
        known = dict(zip(keys, names, strict=True))
        history, layer = histories[known["run"]], known["layer"]
        at, lost = turn(own["i_xt"].to_list(), margin)
        turned = (None, None) if at is None else history.place(history.epochs.index(own["epoch"][at]))
        for variant in history.variants(layer):
            dropped, snr_explained = history.kink(history.snr(layer, variant), falls=True)
            rows.append(
                {**known, "variant": variant, "i_xt_fall": lost}
                | {"loss_explained": kinks[known["run"]][1], "snr_explained": snr_explained}
                | _placed(loss_kink=kinks[known["run"]][0], snr_drop=dropped, i_xt_turn=turned)
            )
    return frame(rows, EVENTS)


def _placed(**places: Place) -> dict[str, int | None]:
    """Columns of each event: its epoch under its name, and its step."""
    return {
        f"{name}{which}": each
        for name, place in places.items()
        for which, each in zip(("", "_step"), place, strict=True)
    }


def _histories(selection: "Selection") -> dict[str, History]:
    runs = {task.run.name: task.run for task in selection.todo}
    return {name: History.of(run, selection.epochs) for name, run in runs.items()}


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
