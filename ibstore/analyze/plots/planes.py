"""The information plane, and curves over the epochs."""

import math
from collections.abc import Iterator
from functools import partial
from typing import TYPE_CHECKING, Any, Final, Literal

from ibstore.analyze.plane import MEAN
from ibstore.analyze.plots.page import Page, Panel
from ibstore.analyze.plots.style import GREY, colour_of
from ibstore.analyze.tasks import WHOLE
from ibstore.errors import UsageError

if TYPE_CHECKING:
    import polars as pl
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

QUANTITIES: Final[dict[str, tuple[str, Any]]] = {
    "h_t": ("H(T)", "-"),
    "i_xt": ("I(X;T)", "--"),
    "i_ty": ("I(T;Y)", "-."),
    "ib": ("I(X;T) − β·I(T;Y)", ":"),
}
NORMALIZED: Final = "part of the whole"
"""What the column ``unit`` says of informations that are parts of an entropy."""

LIGHTEST: Final = 0.35
COLUMNS: Final = 3


def plane(table: "pl.DataFrame", *, mean: bool = False, normalized: bool = False) -> Page:
    """Information plane of such a table: a panel a waist and estimator, layers by colour, epochs by shade.

    Dashed lines are the limits: H(X) (and log N, its ceiling) on the horizontal axis, H(Y) on the vertical one. Thin
    lines are error bars, where an estimator has some. Of a layer that is looked at channel by channel it is the mean.

    With ``mean`` the mean path over the runs (and splits), and as thin lines one deviation of them, both ways; without
    it each run has a path. With ``normalized`` I(X;T)/H(X) and I(T;Y)/H(Y), so that other data and units compare.

    Raises
    ------
    UsageError
        When the samples have no labels, or an estimator has no H(X) to normalize by.
    """
    if table["i_ty"].null_count() == len(table):
        raise UsageError("the information plane needs labels, and the samples have none; draw the curves instead")
    layers = table["layer"].unique(maintain_order=True).to_list()
    table = _normalized(table) if normalized else table
    table = mean_path(table) if mean else table
    panels = [Panel(title, partial(_plane_panel, table=shown, layers=layers)) for title, shown in _panels(table)]

    def finish(figure: "Figure", axes: "list[Axes]") -> None:  # noqa: ARG001
        from matplotlib.lines import Line2D

        marks = [
            Line2D([], [], color=colour_of(layers, layer), marker="o", linewidth=1.5, label=layer) for layer in layers
        ]
        side_by_side = min(3 * min(COLUMNS, len(panels)), len(marks))
        figure.suptitle(_caption(table), fontsize=11, color=GREY)
        figure.legend(handles=marks, loc="outside lower center", ncols=side_by_side, title=_epochs_title(table))

    return Page(panels, COLUMNS, finish=finish, margin=(1.2, 1.2))


def extended(table: "pl.DataFrame") -> Page:
    """The plane of several networks as one, as the measure `extended` gives it."""
    import polars as pl

    runs = pl.format("{} networks, {}", "runs", "form").alias("run")
    ceiling = pl.col("n").log(2.0 if table["unit"][0] == "bits" else math.e).alias("ceiling")
    bars = [pl.lit(None, pl.Float64).alias(f"{name}_{end}") for name in ("i_xt", "i_ty") for end in ("low", "high")]
    return plane(table.with_columns(runs, ceiling, *bars))


def curves(table: "pl.DataFrame") -> Page:
    """Each quantity against the epoch: a row a waist and estimator, a column a layer, runs over each other."""
    layers = table["layer"].unique(maintain_order=True).to_list()
    panels = [
        Panel(
            f"{layer} · {title}",
            partial(_curves_panel, table=shown.filter(shown["layer"] == layer), colour=colour_of(layers, layer)),
        )
        for title, shown in _panels(table)
        for layer in layers
    ]

    def finish(figure: "Figure", axes: "list[Axes]") -> None:
        from matplotlib.lines import Line2D

        for number, axis in enumerate(axes):
            axis.set_title(axis.get_title(), fontsize=11)
            axis.set_ylabel(axis.get_ylabel() if number % len(layers) == 0 else "")
            axis.set_xlabel(axis.get_xlabel() if number >= len(axes) - len(layers) else "")
        marks = [Line2D([], [], color="#333333", linestyle=line, label=name) for name, line in QUANTITIES.values()]
        figure.suptitle(_caption(table), fontsize=11, color=GREY)
        figure.legend(handles=marks, loc="outside lower center", ncols=len(marks), title=_beta_title(table))

    return Page(panels, len(layers), (3.6, 2.7), finish, (1.0, 1.2))


def _panels(table: "pl.DataFrame") -> "Iterator[tuple[str, pl.DataFrame]]":
    """Rows of each waist and estimator, of whole layers and of means over channels, with a title."""
    whole = table.filter(table["channel"].is_in([WHOLE, MEAN]))
    several = table["estimator"].n_unique() > 1
    for (waist, estimator), shown in whole.group_by("waist", "estimator", maintain_order=True):
        yield f"{waist} · {estimator}" if several else str(waist), shown


def _normalized(table: "pl.DataFrame") -> "pl.DataFrame":
    """Informations as parts of H(X) and H(Y), which are 1 then; log N is in units of H(X)."""
    import polars as pl

    if table["h_x"].is_null().any():
        lacking = table.filter(pl.col("h_x").is_null())["estimator"][0]
        raise UsageError(f"estimator {lacking!r} knows no H(X), of which I(X;T) would be a part; take another one")
    scale = [
        (pl.col(name) / pl.col(whole)).alias(name)
        for which, whole in (("i_xt", "h_x"), ("i_ty", "h_y"))
        for name in (which, f"{which}_low", f"{which}_high")
    ]
    ceiling = pl.col("ceiling") / pl.col("h_x")
    ends = [pl.col(name) / pl.col(name) for name in ("h_x", "h_y")]
    return table.with_columns(*scale, ceiling, *ends, pl.lit(NORMALIZED).alias("unit"))


def mean_path(table: "pl.DataFrame") -> "pl.DataFrame":
    """A row a waist, estimator, layer, channel and epoch: means over all runs and splits, and one deviation of them."""
    import polars as pl

    keys = ["waist", "estimator", "unit", "layer", "channel", "epoch"]
    named = ("n", "ceiling", "h_x", "h_y", "h_t", "i_xt", "i_ty", "ib", "distinct_t")
    middle = [pl.col(name).mean() for name in named]
    ends = [
        (pl.col(name).mean() + sign * pl.col(name).std()).alias(f"{name}_{end}")
        for name in ("i_xt", "i_ty")
        for sign, end in ((-1, "low"), (1, "high"))
    ]
    runs = pl.format("mean of {} runs", pl.col("run").n_unique()).alias("run")
    split = pl.col("split").unique(maintain_order=True).implode().list.join(", ").alias("split")
    found = table.group_by(keys, maintain_order=True).agg(runs, split, pl.col("saturated").any(), *middle, *ends)
    return found.with_columns(pl.col("n").cast(pl.Int64))


def _plane_panel(axis: "Axes", table: "pl.DataFrame", layers: list[str]) -> None:
    unit = table["unit"][0]
    _limits(axis, table)
    for _, path in _paths(table.drop_nulls("i_ty")):  # a split may have no labels
        colour = colour_of(layers, path["layer"][0])
        shades = _shades(colour, len(path))
        later = layers.index(path["layer"][0]) / max(1, len(layers) - 1)
        size = 240 * 0.15**later  # the later the smaller: of dots in one place all are seen
        axis.plot(path["i_xt"], path["i_ty"], color=colour, linewidth=0.8, alpha=0.5, zorder=2)
        _bars(axis, path, shades)
        axis.scatter(path["i_xt"], path["i_ty"], color=shades, s=size, edgecolor="white", linewidth=0.5, zorder=3)
    axis.set_xlabel("I(X;T) / H(X)" if unit == NORMALIZED else f"I(X;T) [{unit}]")
    axis.set_ylabel("I(T;Y) / H(Y)" if unit == NORMALIZED else f"I(T;Y) [{unit}]")


def _bars(axis: "Axes", path: "pl.DataFrame", shades: list[tuple[float, ...]]) -> None:
    """Thin lines from low to high, both ways."""
    line: dict[str, Any] = {"linewidth": 0.7, "alpha": 0.6, "zorder": 2}
    ends = path.select("i_xt", "i_ty", "i_xt_low", "i_xt_high", "i_ty_low", "i_ty_high").rows()
    for (i_xt, i_ty, x_low, x_high, y_low, y_high), shade in zip(ends, shades, strict=True):
        if x_low is not None:
            axis.plot([x_low, x_high], [i_ty, i_ty], color=shade, **line)
        if y_low is not None:
            axis.plot([i_xt, i_xt], [y_low, y_high], color=shade, **line)


def _limits(axis: "Axes", table: "pl.DataFrame") -> None:
    """Lines at H(X), log N and H(Y), with room for what they say."""
    ceiling = max(table["ceiling"])
    h_x = max(table["h_x"].drop_nulls(), default=ceiling)  # estimators that have none
    h_y = max(table["h_y"].drop_nulls(), default=None)
    right = max(ceiling, h_x)
    line: dict[str, Any] = {"color": "#8A8A8A", "linewidth": 1.0, "linestyle": (0, (4, 3)), "zorder": 1}
    top = 1.0 if h_y is None else h_y
    axis.set_xlim(-0.04 * right, 1.2 * right)
    axis.set_ylim(-0.06 * top, 1.2 * top)
    labels: list[tuple[float, str, Literal["left", "right"]]] = [(h_x, "H(X)", "right"), (ceiling, "log N", "left")]
    for place, name, side in labels:
        axis.axvline(place, **line)
        _label(axis, place, 1.15 * top, name, side)
    if h_y is not None:
        axis.axhline(top, **line)
        _label(axis, 0.0, 1.06 * top, "H(Y)", "left")


def _label(axis: "Axes", x: float, y: float, text: str, side: Literal["left", "right"]) -> None:
    axis.text(x, y, f" {text} ", ha=side, va="center", fontsize=10, color=GREY)


def _curves_panel(axis: "Axes", table: "pl.DataFrame", colour: str) -> None:
    from matplotlib.ticker import MaxNLocator

    for _, path in _paths(table):
        for quantity, (_, line) in QUANTITIES.items():
            known = path.drop_nulls([quantity])  # without labels there is no I(T;Y)
            dot = "o" if len(known) == 1 else ""  # no line has one end
            axis.plot(known["epoch"], known[quantity], color=colour, linestyle=line, linewidth=1.8, marker=dot)
    axis.set_xlabel("epoch")
    axis.set_ylabel(table["unit"][0])
    axis.set_ylim(bottom=min(0.0, axis.get_ylim()[0]))
    axis.xaxis.set_major_locator(MaxNLocator(integer=True, nbins=6))


def _paths(table: "pl.DataFrame") -> "Iterator[tuple[object, pl.DataFrame]]":
    """One table for each run, split and layer, epochs in order."""
    groups = table.group_by(["run", "split", "layer"], maintain_order=True)
    for name, path in groups:
        yield name, path.sort("epoch")


def _shades(colour: str, count: int) -> list[tuple[float, ...]]:
    """From light to full colour, one for each epoch."""
    import numpy as np
    from matplotlib.colors import to_rgb

    full = np.array(to_rgb(colour))
    strengths = np.linspace(LIGHTEST, 1, count) if count > 1 else np.ones(1)
    return [tuple(1 - (1 - full) * strength) for strength in strengths]


def _caption(table: "pl.DataFrame") -> str:
    """What is drawn: the runs (their number, where they are many), splits and samples."""
    runs = table["run"].unique(maintain_order=True).to_list()
    named = ", ".join(runs) if len(runs) <= COLUMNS else f"{len(runs)} runs"
    splits = ", ".join(table["split"].unique(maintain_order=True))
    samples = ", ".join(f"{count:,}" for count in table["n"].unique(maintain_order=True))
    return f"{named} · {splits} · N = {samples}"


def _epochs_title(table: "pl.DataFrame") -> str:
    epochs = sorted(set(table["epoch"].to_list()))
    if len(epochs) == 1:
        return f"layers · epoch {epochs[0]}"
    return f"layers · epochs {epochs[0]} (light) to {epochs[-1]} (dark)"


def _beta_title(table: "pl.DataFrame") -> str:
    return f"β = {table['beta'][0]:g}"
