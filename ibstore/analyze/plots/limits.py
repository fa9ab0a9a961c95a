"""What can be reached: the best layer at each β, and bounds of the generalization error."""

from functools import partial
from typing import TYPE_CHECKING

from ibstore.analyze.plots.page import Page, Panel, captioned, draws
from ibstore.analyze.plots.style import GREY, LINES, MARKERS, dots_of, epoch_ticks, legend_below, plain_ticks

if TYPE_CHECKING:
    import polars as pl
    from matplotlib.axes import Axes


@draws("the best layer at each β, the table of the measure 'betas'", "beta", "functional", "layer")
def beta(table: "pl.DataFrame") -> Page:
    """Least I(X;T) − β·I(T;Y) over layers and epochs, against β: which layer and epoch that is, by colour and number.

    A panel a run, split, waist and estimator, as far as there are several.
    """
    keys = [name for name in ("run", "split", "waist", "estimator") if table[name].n_unique() > 1]
    groups = table.group_by(keys, maintain_order=True) if keys else [((), table)]
    looks = dots_of(table["layer"].unique(maintain_order=True).to_list())

    def draw(axis: "Axes", rows: "pl.DataFrame") -> None:
        axis.plot(rows["beta"], rows["functional"], color="#BBBBBB", linewidth=1.0, zorder=1)
        for (layer,), own in rows.group_by("layer", maintain_order=True):
            axis.scatter(own["beta"], own["functional"], s=16, label=layer, zorder=2, **looks[str(layer)])
        for (layer, epoch), own in rows.group_by("layer", "epoch", maintain_order=True):
            at = own.row(len(own) // 2, named=True)
            axis.annotate(
                str(epoch),
                (at["beta"], at["functional"]),
                (0, 6),
                textcoords="offset points",
                fontsize=8,
                ha="center",
                color=looks[str(layer)]["color"],
            )
        axis.set(xscale="log", yscale="symlog", xlabel="β", ylabel=f"least I(X;T) − β·I(T;Y) [{rows['unit'][0]}]")

    panels = [Panel(" · ".join(map(str, names)), partial(draw, rows=own)) for names, own in groups]
    return Page(panels, 3, finish=legend_below)


@draws("bounds of the error, the table of the measure 'bounds'", "input_compression", "classic", "layer")
def bound(table: "pl.DataFrame") -> Page:
    """Bounds of the generalization error against the epoch: a line a layer, a panel a waist; above 1 they say nothing.

    Runs are over each other, and splits after the first dashed. Grey lines are the classic bound of the number of
    parameters, where it was asked for.
    """
    splits = table["split"].unique(maintain_order=True).to_list()
    looks = dots_of(table["layer"].unique(maintain_order=True).to_list())

    def draw(axis: "Axes", rows: "pl.DataFrame") -> None:
        for (_, split, layer), own in rows.group_by("run", "split", "layer", maintain_order=True):
            path, look = own.sort("epoch"), looks[str(layer)]
            line = {"linewidth": 1.8, "linestyle": LINES[splits.index(split) % len(LINES)], "color": look["color"]}
            marker = look["marker"] if look["marker"] != MARKERS[0] or len(path) == 1 else ""
            label = str(layer) if len(splits) == 1 else f"{layer} · {split}"
            axis.plot(path["epoch"], path["input_compression"], marker=marker, label=label, **line)
        classic = rows.drop_nulls("classic").unique(["split", "epoch"]).sort("epoch")  # the same of all layers
        for _, path in classic.group_by("split", maintain_order=True):
            axis.plot(path["epoch"], path["classic"], linewidth=1.8, label="classic", color=GREY, linestyle=":")
        axis.axhline(1.0, color="#8A8A8A", linewidth=1.0, linestyle=(0, (4, 3)), zorder=1)
        axis.set(yscale="log", xlabel="epoch", ylabel="generalization error, at most")
        plain_ticks(axis.yaxis)
        epoch_ticks(axis)

    groups = table.group_by("waist", maintain_order=True)
    panels = [Panel(str(waist), partial(draw, rows=own)) for (waist,), own in groups]
    return Page(panels, 3, finish=captioned(table, finish=legend_below, over=True))
