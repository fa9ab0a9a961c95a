"""The information plane, and curves over the epochs."""

import math
from collections.abc import Iterator
from functools import partial
from typing import TYPE_CHECKING, Any, Final, Literal

from ibstore.analyze.plane import MEAN
from ibstore.analyze.plots.page import Page, Panel, caption, draws, head
from ibstore.analyze.plots.style import GREY, colour_of, dots_of, epoch_ticks, legend_of
from ibstore.analyze.tasks import WHOLE
from ibstore.errors import UsageError

if TYPE_CHECKING:
    import polars as pl
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from matplotlib.lines import Line2D

QUANTITIES: Final[dict[str, tuple[str, Any]]] = {
    "h_t": ("H(T)", "-"),
    "i_xt": ("I(X;T)", "--"),
    "i_ty": ("I(T;Y)", "-."),
    "ib": ("I(X;T) − β·I(T;Y)", ":"),
}
NORMALIZED: Final = "part of the whole"
"""What the column ``unit`` says of informations that are parts of an entropy."""

WIDTHS: Final[dict[str, dict[str, Any]]] = {"h_t": {"linewidth": 4.5, "alpha": 0.35}}
"""H(T) is broad and pale: what has as much information as entropy is seen on it."""

LIGHTEST: Final = 0.35
COLUMNS: Final = 3
CURVES: Final = 4
"""Panels of curves side by side: a page of them is 13 inches wide."""

SPLITS: Final = ("-", "--", ":", "-.")
"""Lines of the splits in a plane; the dots of all but the first are hollow."""

SPLIT_MARKERS: Final = ("", "s", "^", "D")
"""Dots on the curves of the splits."""


@draws("the information plane, the table of .plane()", "run", "waist", "i_xt", "i_ty", "h_x", "ceiling")
def plane(table: "pl.DataFrame", *, mean: bool = False, normalized: bool = False) -> Page:
    """Information plane of such a table: a panel a waist and estimator, layers by colour, epochs by shade.

    Dashed lines are the limits: H(X) (and log N, its ceiling) on the horizontal axis, H(Y) on the vertical one. Thin
    lines are error bars, where an estimator has some. Of a layer that is looked at channel by channel it is the mean.

    With ``mean`` each split's mean path over the runs, and as thin lines one deviation of them, both ways; without it
    each run has a path. The dots of splits after the first are hollow. With ``normalized`` I(X;T)/H(X) and
    I(T;Y)/H(Y), so that other data and units compare.

    Raises
    ------
    UsageError
        When the samples have no labels, or an estimator has no H(X) to normalize by.
    """
    if table["i_ty"].null_count() == len(table):
        raise UsageError("the information plane needs labels, and the samples have none; draw the curves instead")
    looks = dots_of(table["layer"].unique(maintain_order=True).to_list())
    splits = table["split"].unique(maintain_order=True).to_list()
    table = _normalized(table) if normalized else table
    table = mean_path(table) if mean else table
    panels = [
        Panel(title, partial(_plane_panel, table=shown, looks=looks, splits=splits)) for title, shown in _panels(table)
    ]

    def finish(figure: "Figure", axes: "list[Axes]") -> None:  # noqa: ARG001
        from matplotlib.lines import Line2D

        marks = [Line2D([], [], linewidth=1.5, label=layer, **look) for layer, look in looks.items()]
        if len(splits) > 1:
            of_splits = [_split_look(splits, split, GREY) for split in splits]
            marks += [
                Line2D([], [], marker="o", label=name, **look) for name, look in zip(splits, of_splits, strict=True)
            ]
        head(figure, _caption(table))
        legend_of(figure, marks, [str(mark.get_label()) for mark in marks], _epochs_title(table))

    return Page(panels, COLUMNS, finish=finish, margin=(1.2, 1.2))


def _split_look(splits: list[str], split: str, colour: str) -> dict[str, Any]:
    """How lines and dots of a split look, among those of others."""
    number = splits.index(split)
    return {
        "color": colour,
        "linestyle": SPLITS[number % len(SPLITS)],
        "markerfacecolor": "white" if number else colour,
    }


@draws("the plane of several networks as one, the table of the measure 'extended'", "runs", "form", "i_xt", "i_ty")
def extended(table: "pl.DataFrame") -> Page:
    """The plane of several networks as one, as the measure `extended` gives it."""
    import polars as pl

    runs = pl.format("{} networks, {}", "runs", "form").alias("run")
    ceiling = pl.col("n").log(2.0 if table["unit"][0] == "bits" else math.e).alias("ceiling")
    bars = [pl.lit(None, pl.Float64).alias(f"{name}_{end}") for name in ("i_xt", "i_ty") for end in ("low", "high")]
    return plane(table.with_columns(runs, ceiling, *bars))


@draws("curves of the informations, the table of .plane()", "run", "waist", "i_xt", "i_ty", "h_t", "ib", "beta")
def curves(table: "pl.DataFrame") -> Page:
    """Each quantity against the epoch: waist by waist and estimator by estimator, a panel a layer.

    Runs are over each other; splits after the first have dots on their lines.
    """
    layers = table["layer"].unique(maintain_order=True).to_list()
    splits = table["split"].unique(maintain_order=True).to_list()
    columns = min(len(layers), CURVES)
    panels = [
        Panel(
            f"{layer} · {title}",
            partial(_curves_panel, table=own, colour=colour_of(layers, layer), splits=splits),
        )
        for title, shown in _panels(table)
        for layer in layers
        if len(own := shown.filter(shown["layer"] == layer))
    ]

    def finish(figure: "Figure", axes: "list[Axes]") -> None:
        for number, axis in enumerate(axes):
            axis.set_title(axis.get_title(), fontsize=11)
            axis.set_ylabel(axis.get_ylabel() if number % columns == 0 else "")
            axis.set_xlabel(axis.get_xlabel() if number + columns >= len(axes) else "")
        marks = _curves_marks(splits)
        head(figure, _caption(table))
        legend_of(figure, marks, [str(mark.get_label()) for mark in marks], _beta_title(table))

    return Page(panels, columns, (3.6 if columns < CURVES else 3.0, 2.7), finish, (1.0, 1.2))


def _curves_marks(splits: list[str]) -> "list[Line2D]":
    from matplotlib.lines import Line2D

    marks = [
        Line2D([], [], color="#333333", linestyle=line, label=name, **WIDTHS.get(quantity, {}))
        for quantity, (name, line) in QUANTITIES.items()
    ]
    of_splits = [
        Line2D([], [], color=GREY, marker=SPLIT_MARKERS[number % len(SPLIT_MARKERS)], markersize=4, label=split)
        for number, split in enumerate(splits)
    ]
    return marks + of_splits if len(splits) > 1 else marks


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
    """A row a split, waist, estimator, layer, channel and epoch: means over all runs, and one deviation of them."""
    import polars as pl

    keys = ["split", "waist", "estimator", "unit", "layer", "channel", "epoch"]
    named = ("n", "ceiling", "h_x", "h_y", "h_t", "i_xt", "i_ty", "ib", "distinct_t")
    middle = [pl.col(name).mean() for name in named]
    ends = [
        (pl.col(name).mean() + sign * pl.col(name).std()).alias(f"{name}_{end}")
        for name in ("i_xt", "i_ty")
        for sign, end in ((-1, "low"), (1, "high"))
    ]
    runs = pl.format("mean of {} runs", pl.col("run").n_unique()).alias("run")
    found = table.group_by(keys, maintain_order=True).agg(runs, pl.col("saturated").any(), *middle, *ends)
    return found.with_columns(pl.col("n").cast(pl.Int64))


def _plane_panel(axis: "Axes", table: "pl.DataFrame", looks: dict[str, dict[str, Any]], splits: list[str]) -> None:
    unit, layers = table["unit"][0], list(looks)
    _limits(axis, table)
    for _, path in _paths(table.drop_nulls("i_ty")):  # a split may have no labels
        layer, split = path["layer"][0], path["split"][0]
        colour, marker = looks[layer]["color"], looks[layer]["marker"]
        look = _split_look(splits, split, colour)
        shades = _shades(colour, len(path))
        later = layers.index(layer) / max(1, len(layers) - 1)
        size = 240 * 0.15**later  # the later the smaller: of dots in one place all are seen
        line = {"color": colour, "linestyle": look["linestyle"], "zorder": 2}
        axis.plot(path["i_xt"], path["i_ty"], linewidth=0.8, alpha=0.5, **line)
        _bars(axis, path, shades)
        hollow = splits.index(split) > 0
        dots: dict[str, Any] = (
            {"facecolor": "none", "edgecolor": shades, "linewidth": 1.2}
            if hollow
            else {"color": shades, "edgecolor": "white", "linewidth": 0.5}
        )
        axis.scatter(path["i_xt"], path["i_ty"], s=size, marker=marker, zorder=3, **dots)
        # for a legend of the user's, in full colour and without a size
        axis.plot([], [], marker=marker, label=layer if len(splits) == 1 else f"{layer} · {split}", **look)
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


def _curves_panel(axis: "Axes", table: "pl.DataFrame", colour: str, splits: list[str]) -> None:
    for _, path in _paths(table):
        split = path["split"][0]
        marker = SPLIT_MARKERS[splits.index(split) % len(SPLIT_MARKERS)]
        for quantity, (name, line) in QUANTITIES.items():
            known = path.drop_nulls([quantity])  # without labels there is no I(T;Y)
            dot = marker or ("o" if len(known) == 1 else "")  # no line has one end
            look: dict[str, Any] = {"linewidth": 1.8, **WIDTHS.get(quantity, {})}
            label = name if len(splits) == 1 else f"{name} · {split}"
            dots: dict[str, Any] = {"marker": dot, "markersize": look["linewidth"] + 3}
            axis.plot(known["epoch"], known[quantity], color=colour, linestyle=line, label=label, **dots, **look)
    axis.set_xlabel("epoch")
    axis.set_ylabel(table["unit"][0])
    axis.set_ylim(bottom=min(0.0, axis.get_ylim()[0]))
    epoch_ticks(axis)


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
    samples = ", ".join(f"{count:,}" for count in table["n"].unique(maintain_order=True))
    return f"{caption(table, over=True)} · N = {samples}"


def _epochs_title(table: "pl.DataFrame") -> str:
    epochs = sorted(set(table["epoch"].to_list()))
    if len(epochs) == 1:
        return f"layers · epoch {epochs[0]}"
    return f"layers · epochs {epochs[0]} (light) to {epochs[-1]} (dark)"


def _beta_title(table: "pl.DataFrame") -> str:
    return f"β = {table['beta'][0]:g}"
