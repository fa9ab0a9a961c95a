"""Several networks: what their planes have in common, and one plane of all of them together."""

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from ibstore.analyze.estimate.extended import pooled, sampled, spread
from ibstore.analyze.estimate.joint import joint
from ibstore.analyze.keys import Keyed, codes
from ibstore.analyze.measures.tables import frame
from ibstore.analyze.plane import INFORMATION, VARIABLES, row
from ibstore.errors import UsageError

if TYPE_CHECKING:
    import polars as pl

QUANTITIES: Final = ("h_t", "i_xt", "i_ty", "ib")

FORMS: Final = ("sampled", "pooled")
"""Each sample's T from one network drawn at random, or from all of them."""

PLACE: Final = ("split", "epoch", "layer", "channel", "waist", "edges")


def over_runs(plane: "pl.DataFrame", level: float = 0.95) -> "pl.DataFrame":
    """Mean and spread over the runs of an information plane: a row a place in the network, estimator and quantity.

    Columns split, epoch, layer, channel, waist, estimator, quantity, unit, runs (how many); mean, std (with K − 1),
    error (of the mean), low and high (Student's interval of the mean), minimum, maximum; level. Of one run std, error
    and interval are null.
    """
    keys = (*PLACE, "estimator", "unit")
    rows: list[dict[str, Any]] = []
    for place, own in plane.group_by(keys, maintain_order=True):
        for quantity in QUANTITIES:
            values = own[quantity].drop_nulls().drop_nans()
            if len(values):
                found = vars(spread(values.to_list(), level))
                rows.append({**dict(zip(keys, place, strict=True)), "quantity": quantity, **found})
    numbers = ("mean", "std", "error", "low", "high", "minimum", "maximum", "level")
    return frame(rows, (*PLACE, "estimator", "quantity", "unit", "runs", *numbers))


def extended(
    layers: Iterable[Iterable[Keyed]], form: str, estimators: Sequence[str], seed: int = 0, unit: str = "bits"
) -> "pl.DataFrame":
    """The plane of K networks as one, whose T given X is random: a row a place in the network and an estimator.

    ``layers`` are the keys of one layer each, in all runs.

    Columns form, runs (K), split, epoch, layer, channel, waist, estimator, unit, n (rows: N, or K·N pooled), h_x, h_y,
    h_t, h_xt, h_ty, i_xt, i_ty, i_xt_raw, i_ty_raw. Keys mean the same in all networks only where their bins do: edges
    must be fixed (uniform, threshold, exact, …).

    Raises
    ------
    UsageError
        When there is no such form, bins are fitted to each network, or runs do not share their samples.
    """
    if form not in FORMS:
        raise UsageError(f"there is no form {form!r}; there are {', '.join(FORMS)}")
    rows = [
        {"form": form, "runs": len(own), **dict(zip(PLACE, place, strict=True)), "estimator": estimator, **found}
        for keys in layers
        for place, own in _by_place(keys).items()
        for estimator, found in _together(own, form, estimators, seed).items()
    ]
    numbers = (*(f"h_{name}" for name in VARIABLES), *INFORMATION, *(f"{name}_raw" for name in INFORMATION))
    columns = ("form", "runs", *PLACE, "estimator", "unit", "n", *numbers)
    return frame(({**row, "unit": unit} for row in rows), columns, numbers, unit)


def _by_place(keys: Iterable[Keyed]) -> dict[tuple[str | int, ...], list[Keyed]]:
    groups: dict[tuple[str | int, ...], list[Keyed]] = {}
    for each in keys:
        names = each.names
        groups.setdefault(tuple(names[name] for name in PLACE), []).append(each)
    return groups


def _together(own: Sequence[Keyed], form: str, estimators: Sequence[str], seed: int) -> dict[str, dict[str, Any]]:
    """Rows of the plane by estimator, of one layer's keys in several runs."""
    import polars as pl

    if len(own) > 1 and own[0].task.edges != "fixed":
        raise UsageError(
            f"waist {own[0].task.waist.name!r} fits bins of layer {own[0].task.layer.name!r} to each network, so that "
            "a key does not mean the same in two of them; take fixed bins, such as "
            "'w: *=identity | uniform(bins=30, lo=-1, hi=1)'"
        )
    data = {each.task.split.data for each in own}
    if len(data) > 1:
        told = ", ".join(str(each.names["run"]) for each in own)
        raise UsageError(f"runs {told} were recorded on other samples each; choose runs of the same data with --run")
    ts = codes(pl.concat(each.t for each in own)).reshape(len(own), -1)
    x, y = own[0].x, own[0].y
    t = sampled(ts, seed)
    if form == "pooled":
        x, t, y = pooled(ts, x, y)
    counted = joint(np.asarray(x), t, y).counted
    return {estimator: row(counted, estimator) for estimator in estimators}
