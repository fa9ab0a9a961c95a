"""What training does to gradients and weights."""

from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, Final

from ibstore.analyze.plots.page import Page, Panel, captioned, draws
from ibstore.analyze.plots.style import GREY, colour_of, legend_below, plain_ticks

if TYPE_CHECKING:
    import polars as pl
    from matplotlib.axes import Axes

PANELS: Final = {
    "gradients": {"gradient_mean": "-", "gradient_std": ":"},
    "signal to noise": {"snr": "-"},
    "weights": {"weight_norm": "-"},
}
"""Columns of each panel, and their line."""

MARKS: Final[dict[str, tuple[str, Any]]] = {
    "gradient_mean": ("mean", "-"),
    "gradient_std": ("deviation", ":"),
    "loss_kink": ("the loss kinks", (0, (4, 3))),
    "snr_drop": ("the SNR drops", (0, (1, 2))),
}
"""What lines of columns are called, whatever the layer."""


@draws("gradients and weights, the table of the measure 'dynamics'", "variant", "gradient_mean", "snr", "weight_norm")
def dynamics(table: "pl.DataFrame") -> Page:
    """Norms of the mean gradient and of its deviation, their ratio, and the norm of the weights, against the epoch.

    All axes are logarithmic; layers by colour, runs over each other. Upright lines are the events: where the loss
    kinks, and where the SNR of a layer (in its colour) drops. A row of panels for each definition of the gradients.
    """
    variants = table["variant"].unique(maintain_order=True).to_list()
    layers = table["layer"].unique(maintain_order=True).to_list()
    panels = []
    for variant in variants:
        own = table.filter(variant=variant)
        for name, columns in PANELS.items():
            if any(own[column].is_not_null().any() for column in columns):
                title = name if len(variants) == 1 else f"{name} · {variant}"
                panels.append(Panel(title, partial(_norms, table=own, layers=layers, columns=columns)))

    return Page(panels, len(PANELS), finish=captioned(table, finish=legend_below, over=True))


def _norms(axis: "Axes", table: "pl.DataFrame", layers: Sequence[str], columns: dict[str, str]) -> None:
    import polars as pl

    for (_, layer), own in table.group_by("run", "layer", maintain_order=True):
        colour = colour_of(list(layers), str(layer))
        for column, line in columns.items():
            known = own.filter((pl.col(column) > 0) & pl.col(column).is_finite() & (pl.col("epoch") > 0)).sort("epoch")
            label = layer if line == "-" else None
            axis.plot(known["epoch"], known[column], color=colour, linestyle=line, linewidth=1.6, label=label)
    for column in ("loss_kink", "snr_drop"):
        for epoch, layer in table.select(column, "layer").drop_nulls().unique(maintain_order=True).rows():
            colour = colour_of(list(layers), layer) if column == "snr_drop" else GREY
            axis.axvline(epoch, linestyle=MARKS[column][1], linewidth=1.0, zorder=1, color=colour)
    _names(axis, table, columns)
    axis.set(xscale="log", yscale="log", xlabel="epoch")
    for each in (axis.xaxis, axis.yaxis):
        plain_ticks(each)


def _names(axis: "Axes", table: "pl.DataFrame", columns: dict[str, str]) -> None:
    """What the kinds of lines mean, for a legend."""
    from matplotlib.lines import Line2D

    for column, (name, line) in MARKS.items():
        drawn = column in columns or not column.startswith("gradient")
        if drawn and table[column].is_not_null().any():
            axis.add_line(Line2D([], [], label=name, color=GREY, linestyle=line))
