"""What stochastic layers transmit, and where in a picture."""

from typing import TYPE_CHECKING, Any, Final

from ibstore.analyze.plots.style import COLOURS, colour_of, dots_and_means, legend_below, side_by_side, style
from ibstore.errors import UsageError

if TYPE_CHECKING:
    import polars as pl
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

SPLITS: Final = ("test", "train")
"""Whose numbers are drawn, where there are several: the first."""

INPUT: Final = "x"


def transmitted(table: "pl.DataFrame") -> "Figure":
    """Against β, at each run's last epoch: mean divergence by layer, error, and total correlation, where it is known.

    Dots are runs, lines their means.
    """
    import polars as pl

    if table["beta_kl"].is_null().all():
        raise UsageError("no run says which beta_kl it was trained with; sweep it: --sweep beta_kl=0,0.1,1")
    last = table.filter(pl.col("epoch") == pl.col("epoch").max().over("run")).sort("beta_kl")
    layers = last["layer"].unique(maintain_order=True).to_list()
    panels = [name for name in ("mean_kl", "error", "tc_per_unit") if not last[name].is_null().all()]
    with style():
        figure, axes = side_by_side(panels)
        for axis, name in axes:
            _against_beta(axis, last, name, layers)
        legend_below(figure, len(layers))
    return figure


def _against_beta(axis: "Axes", table: "pl.DataFrame", name: str, layers: list[str]) -> None:
    titles = {"mean_kl": "mean KL", "error": "error", "tc_per_unit": "total correlation a unit"}
    known = table.drop_nulls([name, "beta_kl"])
    if name == "error":  # of a network, not of a layer
        groups = [(split, known.filter(layer=layers[0], split=split)) for split in SPLITS]
        colours = dict(zip(SPLITS, COLOURS[4:], strict=False))
    else:
        split = next(each for each in (*SPLITS, *known["split"]) if each in known["split"])
        groups = [(layer, known.filter(layer=layer, split=split)) for layer in layers]
        colours = {layer: colour_of(layers, layer) for layer in layers}
    for label, own in groups:
        if not own.is_empty():
            dots_and_means(axis, own, "beta_kl", name, colours[label], label)
    positive = [beta for beta in known["beta_kl"] if beta > 0]
    if positive and max(positive) > 10 * min(positive):
        axis.set_xscale("symlog", linthresh=min(positive))
    axis.set_xlabel("β of the divergence")
    axis.set_ylabel(f"{titles[name]} [{table['unit'][0]}]" if name != "error" else titles[name])
    values = known[name].to_numpy()
    if name == "mean_kl" and values.min() > 0:  # a late layer has a hundredth of what the first one has
        axis.set_yscale("log")
    else:
        axis.set_ylim(0, 1.08 * float(values.max()))
    if name == "error":
        axis.legend()


def maps(table: "pl.DataFrame") -> "Figure":
    """A row a sample, a column a layer, the input first: values of the places, of the last epoch of each run.

    Where a divergence is bright the layer transmits much. One scale a layer, from its least to its largest value.
    """
    import polars as pl
    from matplotlib.figure import Figure

    last = table.filter(pl.col("epoch") == pl.col("epoch").max().over("run"))
    columns = last.select("run", "layer").unique(maintain_order=True).rows()
    samples = last.select("split", "sample").unique(maintain_order=True).rows()
    with style():
        figure = Figure(figsize=(1.5 * len(columns) + 0.4, 1.5 * len(samples) + 0.6), layout="constrained")
        axes = figure.subplots(len(samples), len(columns), squeeze=False)
        for place, (run, layer) in enumerate(columns):
            shown = last.filter(run=run, layer=layer)
            scale: dict[str, Any] = {"vmin": shown["value"].min(), "vmax": shown["value"].max()}
            title = layer if len({each[0] for each in columns}) == 1 else f"{run}\n{layer}"
            axes[0, place].set_title(title, fontsize=8)
            for axis, (split, sample) in zip(axes[:, place], samples, strict=True):
                own = shown.filter(split=split, sample=sample)
                _picture(axis, own, "gray" if layer == INPUT else "viridis", scale)
    return figure


def _picture(axis: "Axes", table: "pl.DataFrame", colours: str, scale: dict[str, Any]) -> None:
    axis.set_axis_off()
    if not table.is_empty():
        picture = table.sort("row", "column")["value"].to_numpy().reshape(table["row"].n_unique(), -1)
        axis.imshow(picture, cmap=colours, interpolation="nearest", **scale)
