"""The information plane: what an estimator makes of counts, and the tables.

I(X;T) = H(X) + H(T) − H(X,T) and I(T;Y) = H(T) + H(Y) − H(T,Y), with X, T and Y under their waist, estimated
from counts over the probe set. For X as the sample's identity and a deterministic network, I(X;T) = ``h_t``.
"""

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final

from ibstore.analyze.estimate.density import is_density
from ibstore.analyze.estimate.entropy import NATS_PER_BIT, CountsOfCounts, saturated, within
from ibstore.analyze.narrow import DIVERGED, nan_refused
from ibstore.analyze.parts import Parts
from ibstore.analyze.stochastic import mean_kl
from ibstore.analyze.tasks import TEXT_COLUMNS, WHOLE, Task
from ibstore.errors import ValuesError
from ibstore.store.format.layout import listed

if TYPE_CHECKING:
    import polars as pl

UNITS: Final = {"bits": 1.0, "nats": NATS_PER_BIT}
VARIABLES: Final = ("x", "y", "t", "xt", "ty")
INFORMATION: Final = {"i_xt": ("x", "t", "xt"), "i_ty": ("t", "y", "ty")}
"""Each information, of which two variables, and which is both."""

ESTIMATED: Final = (
    *(f"h_{variable}" for variable in VARIABLES),
    *(f"{information}{which}" for information in INFORMATION for which in ("", "_raw", "_low", "_high")),
)
"""Columns that an estimator makes, in bits: an information within its bounds, as estimated, and its error bar."""

IN_UNITS: Final = (*ESTIMATED, "ceiling", "dpi_xt", "dpi_ty", "mean_kl")
"""Columns in bits or nats."""

COLUMNS: Final = (
    *("run", "split", "epoch", "layer", "channel", "waist", "edges", "estimator", "unit", "n"),
    *("h_x", "h_y", "h_t", "h_xt", "h_ty", "i_xt", "i_ty", "beta", "ib"),
    *("distinct_x", "distinct_t", "singletons_t", "coverage_t", "ceiling", "saturated"),
    *("i_xt_raw", "i_xt_low", "i_xt_high", "i_ty_raw", "i_ty_low", "i_ty_high", "dpi_xt", "dpi_ty", "variance"),
    "mean_kl",
)
LONG_COLUMNS: Final = (
    *("run", "split", "epoch", "layer", "channel", "waist", "estimator", "variable", "unit", "n"),
    *("entropy", "distinct", "singletons", "coverage", "ceiling", "saturated"),
)

MEAN: Final = "mean"
"""What the column ``channel`` says of the mean over a layer's channels."""


def rows(
    key: str, epochs: Sequence[int], counted: Mapping[int, Mapping[str, CountsOfCounts]], estimator: str
) -> "pl.DataFrame":
    """What an estimator makes of a task's counts, in bits: its part of content key ``key``.

    An epoch without counts, since it has NaN, has a row without numbers.
    """
    return part(key, epochs, {epoch: row(own, estimator) for epoch, own in counted.items()})


def part(key: str, epochs: Sequence[int], numbers: Mapping[int, Mapping[str, Any]]) -> "pl.DataFrame":
    """Rows of a part: columns of `schema` by epoch; an epoch that has none has a row without numbers."""
    import polars as pl

    nothing = dict.fromkeys(schema())
    found = [{**nothing, "part": key, "epoch": epoch, **numbers.get(epoch, {})} for epoch in epochs]
    return pl.DataFrame(found, schema=schema())


def row(counts: Mapping[str, CountsOfCounts], estimator: str = "plugin") -> dict[str, Any]:
    """Values in bits from the counts of x, t and xt, and where there are labels of y and ty."""
    samples = counts["t"].samples
    found: dict[str, Any] = {"n": samples}
    for variable, own in counts.items():
        found[f"h_{variable}"] = own.entropy(estimator)
        found[f"distinct_{variable}"] = own.distinct
        found[f"singletons_{variable}"] = own.singletons
        found[f"saturated_{variable}"] = saturated(own.entropy("plugin"), samples)
    for information, (first, second, both) in INFORMATION.items():
        if both in counts:
            h_first, h_second, h_both = (found[f"h_{variable}"] for variable in (first, second, both))
            raw = math.fsum((h_first, h_second, -h_both))  # exactly the one where the other is the joint one
            classes = [math.log2(counts["y"].distinct)] if second == "y" else []
            found |= {f"{information}_raw": raw, information: within(raw, min(h_first, h_second, *classes))}
    return found


def schema() -> "dict[str, Any]":
    """Columns of a stored part and their polars types."""
    import polars as pl

    def each(name: str, kind: Any) -> dict[str, Any]:
        return {f"{name}_{variable}": kind for variable in VARIABLES}

    return {
        "part": pl.String,
        "epoch": pl.Int64,
        "n": pl.Int64,
        **dict.fromkeys((*ESTIMATED, "variance"), pl.Float64),
        **each("distinct", pl.Int64),
        **each("singletons", pl.Int64),
        **each("saturated", pl.Boolean),
    }


def _stored(
    todo: Sequence[Task], estimators: Sequence[str], parts: Parts, epochs: Sequence[int] | None
) -> "pl.DataFrame":
    """Rows of the tasks' parts that are there, with what they are, in the tasks' and the estimators' order."""
    import polars as pl

    places: dict[tuple[str, ...], float] = {}
    named = [
        {"part": key, **task.names, "estimator": estimator, "place": place}
        | {"edges": None if is_density(estimator) else task.edges}
        for task in todo
        for place in [places.setdefault(tuple(task.names.values()), float(len(places)))]
        for estimator in estimators
        for key in task.estimate_keys(estimator)
    ]
    keys = {str(each["part"]) for each in named}
    found = pl.concat([pl.DataFrame(schema=schema()), *parts.rows("information_plane", keys)])
    if epochs is not None:
        found = found.filter(pl.col("epoch").is_in(list(epochs)))
    names = dict.fromkeys(("part", *TEXT_COLUMNS, "estimator", "edges"), pl.String) | {"place": pl.Float64}
    return (
        pl.DataFrame(named, schema=names)
        .join(found, on="part", maintain_order="left")
        .pipe(_with_means)
        .sort("place", "epoch", maintain_order=True)
    )


def _with_means(found: "pl.DataFrame") -> "pl.DataFrame":
    """The rows, and after those of a layer's channels their mean; it is saturated where any of them is."""
    import polars as pl

    keys = ("run", "split", "layer", "waist", "estimator", "epoch")
    means = (
        found.filter(pl.col("channel") != WHOLE)
        .group_by(keys, maintain_order=True)
        .agg(
            *(pl.col(name).last() for name in ("part", "edges", "n", "variance", "distinct_x", "singletons_x")),
            *(pl.col(name).mean() for name in ESTIMATED),
            *(pl.col(name).any() for name in found.columns if name.startswith("saturated_")),
            channel=pl.lit(MEAN),
            place=pl.col("place").last() + 0.5,
        )
    )
    return pl.concat([found, means], how="diagonal")


def table(
    todo: Sequence[Task],
    estimators: Sequence[str],
    parts: Parts,
    epochs: Sequence[int] | None = None,
    beta: float = 1.0,
    unit: str = "bits",
) -> "pl.DataFrame":
    """The information plane of those tasks whose parts are there, in the tasks' order, then epoch and estimator.

    Epochs with NaN have rows without numbers.
    """
    import polars as pl

    return (
        _stored(todo, estimators, parts, epochs)
        .join(mean_kl(todo), on=("run", "split", "layer", "epoch"), how="left", maintain_order="left")
        .with_columns(_broken(information) for information in INFORMATION)
        .with_columns(ceiling=pl.col("n").log(2), coverage_t=_coverage("t"), saturated="saturated_t")
        .with_columns(pl.col(IN_UNITS) * UNITS[unit])
        .with_columns(
            unit=pl.lit(unit),
            beta=pl.lit(float(beta)),
            ib=pl.col("i_xt") - float(beta) * pl.col("i_ty"),
        )
        .select(COLUMNS)
    )


def _broken(information: str) -> "pl.Expr":
    """By how much a layer has more information than one before it: the data-processing inequality allows 0.

    Of channels and their mean it says nothing.
    """
    import polars as pl

    one = ("run", "split", "waist", "epoch", "estimator", "channel")
    least = pl.col(information).cum_min().shift(1).over(one)
    excess = (pl.col(information) - least.fill_null(pl.col(information))).clip(lower_bound=0)
    return pl.when(pl.col("channel") == WHOLE).then(excess).alias(f"dpi_{information.removeprefix('i_')}")


def _coverage(variable: str) -> "pl.Expr":
    """Probability of all keys that were seen, 1 − f₁/N, at least 1/N (Good–Turing)."""
    import polars as pl

    samples, once = pl.col("n"), pl.col(f"singletons_{variable}")
    return pl.when(once.is_not_null()).then(1 - pl.min_horizontal(once, samples - 1) / samples)


def entropies(
    todo: Sequence[Task],
    estimators: Sequence[str],
    parts: Parts,
    epochs: Sequence[int] | None = None,
    unit: str = "bits",
) -> "pl.DataFrame":
    """The same estimates long: a row for each entropy, with the diagnostics of its own counts."""
    import polars as pl

    found = _stored(todo, estimators, parts, epochs).with_row_index()
    each = [
        found.select(
            *("index", "run", "split", "epoch", "layer", "channel", "waist", "estimator", "n"),
            variable=pl.lit(variable),
            entropy=pl.col(f"h_{variable}") * UNITS[unit],
            distinct=f"distinct_{variable}",
            singletons=f"singletons_{variable}",
            coverage=_coverage(variable),
            saturated=f"saturated_{variable}",
        )
        for variable in VARIABLES
    ]
    return (
        pl.concat(each)
        .sort("index", maintain_order=True)
        .with_columns(unit=pl.lit(unit), ceiling=pl.col("n").log(2) * UNITS[unit])
        .select(LONG_COLUMNS)
    )


def refuse_nan(table: "pl.DataFrame") -> None:
    """Return when every row has numbers; ValuesError where an epoch has NaN, which the first such layer names."""
    import polars as pl

    found = table.filter(pl.col("n").is_null())
    if not found.is_empty():
        run, layer, estimator = found.select("run", "layer", "estimator").row(0)
        epochs = found.filter(run=run, layer=layer)["epoch"].unique().sort().to_list()
        what = f"run {run!r}, layer {layer!r}, epoch {listed(epochs)}"
        if is_density(estimator):
            raise ValuesError(f"{what} has NaN or an infinity, which {estimator} cannot look at: {DIVERGED}")
        raise nan_refused(what)
