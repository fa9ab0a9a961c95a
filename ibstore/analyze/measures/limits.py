"""What is possible: the optimal curve of the data, how far layers lie from it, bounds of the generalization error."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from ibstore.analyze.estimate import bottleneck
from ibstore.analyze.estimate.bottleneck import Curve, FiniteSample, curve, finite_sample, functional
from ibstore.analyze.estimate.bounds import classic, input_compression
from ibstore.analyze.measures.tables import frame
from ibstore.errors import UsageError
from ibstore.events import Event

if TYPE_CHECKING:
    import polars as pl

    from ibstore.analyze.selection import Selection

DATA: Final = ("run", "split", "waist")
ROW: Final = ("run", "split", "epoch", "layer", "channel", "waist", "edges", "estimator", "unit", "n")


@dataclass(frozen=True)
class Limit:
    """The optimal curve, in bits, of a split's inputs under a waist, and what its N samples can tell of it."""

    names: dict[str, str]
    samples: int
    curve: Curve
    finite: FiniteSample


def limit(selection: "Selection", unit: str = "bits") -> "pl.DataFrame":
    """The optimal curve of each run's inputs, as the waist sees them, and labels: a row a vertex.

    Columns run, split, waist, unit, n; beta, where the vertex is optimal; i_xt, i_ty; finite_i_ty, what N samples
    promise of I(T;Y) at that I(X;T), an order of magnitude that may be negative. p(x, y) is that of the samples: where
    every input is its own and has one label, the curve is the line from (0, 0) to (H(Y), H(Y)).
    """
    rows: list[dict[str, Any]] = []
    for found in _limits(selection):
        promised = np.interp(found.curve.i_xt, found.finite.i_xt, found.finite.i_ty)
        columns = (found.curve.beta, found.curve.i_xt, found.curve.i_ty, promised)
        for values in zip(*(column.tolist() for column in columns), strict=True):
            point = dict(zip(("beta", "i_xt", "i_ty", "finite_i_ty"), values, strict=True))
            rows.append({**found.names, "unit": unit, "n": found.samples, **point})
    numbers = ("i_xt", "i_ty", "finite_i_ty")
    return frame(rows, (*DATA, "unit", "n", "beta", *numbers), numbers, unit)


def gaps(selection: "Selection", plane: "pl.DataFrame", unit: str = "bits") -> "pl.DataFrame":
    """How far the rows of a plane, in bits, lie from the optimal curve of their data: a row each that has both numbers.

    Columns run, split, epoch, layer, channel, waist, estimator, unit, n; i_xt, i_ty; complexity ΔC = I(X;T) − R*(N) and
    generalization ΔG = what N samples promise at best − I(T;Y), R*(N) being where that is (Tishby & Zaslavsky 2015);
    excess, the I(X;T) beyond what I(T;Y) needs, and missed, the I(T;Y) that I(X;T) could have, on the curve itself. A
    layer may see more of X than the waist of X leaves; where it tells more of Y than that could, excess is null.
    """
    limits = {tuple(found.names.values()): found for found in _limits(selection)}
    rows = []
    for row in plane.drop_nulls(["i_xt", "i_ty"]).iter_rows(named=True):
        own = limits[tuple(row[name] for name in DATA)]
        found = bottleneck.gaps(own.curve, own.finite, row["i_xt"], row["i_ty"])
        values = {name: float(value) if np.isfinite(value) else None for name, value in vars(found).items()}
        rows.append({**row, "unit": unit, **values})
    numbers = ("i_xt", "i_ty", "complexity", "generalization", "excess", "missed")
    return frame(rows, (*ROW, *numbers), numbers, unit)


def _limits(selection: "Selection") -> "Iterator[Limit]":
    """One for each run, split and waist; runs of the same data share one curve."""
    known: dict[str, tuple[Curve, FiniteSample]] = {}
    every = list(selection.one_task_of(*DATA))
    for done, own in enumerate(every):
        selection.emit(Event("optimal curve", done, len(every), own.todo[0].run.name))
        keys = next(own.keys())
        if keys.y is None:
            raise UsageError("the optimal curve needs labels, and the samples have none; leave it")
        if own.todo[0].x_key not in known:
            joint = keys.joint
            p_xy = np.zeros((joint.counted["x"].distinct, joint.counted["y"].distinct), np.int64)
            np.add.at(p_xy, (joint.codes["x"], joint.codes["y"]), joint.counts)
            found = curve(p_xy)
            known[own.todo[0].x_key] = found, finite_sample(found, len(keys.t), p_xy.shape[1])
        names = {name: str(keys.names[name]) for name in DATA}
        yield Limit(names, len(keys.t), *known[own.todo[0].x_key])
    selection.emit(Event("optimal curve", len(every), len(every)))


def betas(plane: "pl.DataFrame", lowest: float, highest: float, count: int) -> "pl.DataFrame":
    """Which row of a plane has the least I(X;T) − β·I(T;Y): a row a run, split, waist, estimator and β.

    Columns run, split, waist, estimator, unit, n; beta (from lowest to highest, in equal factors), layer, channel and
    epoch of the best row, its i_xt, i_ty and the functional.
    """
    if not (0 < lowest <= highest and count >= 1):
        raise UsageError(
            f"β from {lowest} to {highest} in {count} steps; give 0 < lowest ≤ highest, and 1 step or more"
        )
    asked = np.geomspace(lowest, highest, count)
    rows: list[dict[str, Any]] = []
    for _, own in (
        plane.drop_nulls(["i_xt", "i_ty"]).drop_nans(["i_xt", "i_ty"]).group_by(*DATA, "estimator", maintain_order=True)
    ):
        found = functional(own["i_xt"].to_numpy(), own["i_ty"].to_numpy(), asked)
        for at, best in enumerate(found.best.tolist()):
            rows.append({**own.row(best, named=True), "beta": asked[at], "functional": found.value[at, best]})
    order = (*DATA, "estimator", "unit", "n", "beta", "layer", "channel", "epoch", "i_xt", "i_ty", "functional")
    return frame(rows, order)


def bounds(plane: "pl.DataFrame", delta: float, dimension: int) -> "pl.DataFrame":
    """Bounds of the generalization error ε, with probability 1 − δ, of the rows of a plane in bits.

    Columns run, split, epoch, layer, channel, waist, estimator, unit (bits), n; i_xt; input_compression,
    √((2^I(X;T) + ln 1/δ) / 2N), and classic, ε² = (d·ln 1/ε + ln 1/δ) / 2N with d = ``dimension`` parameters (null
    without). Above 1 they say nothing.
    """
    rows = [
        {
            **row,
            "input_compression": input_compression(row["i_xt"], row["n"], delta),
            "classic": classic(row["n"], delta, dimension) if dimension else None,
        }
        for row in plane.drop_nulls("i_xt").iter_rows(named=True)
    ]
    return frame(rows, (*ROW, "i_xt", "input_compression", "classic"))
