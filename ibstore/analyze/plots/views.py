"""What layers look like: maps of their units, histograms, one sample's layers, and what a waist makes of them."""

from functools import partial
from typing import TYPE_CHECKING, Any, Final

from ibstore.analyze.measures.views import STAGES, STATISTICS
from ibstore.analyze.plots.page import NUMBERED, Page, Panel, captioned, draws, last_epochs, nothing, several, told
from ibstore.analyze.plots.style import COLOURS, GREY, HATCHES, LINES, legend_below, looks_of

if TYPE_CHECKING:
    import polars as pl
    from matplotlib.axes import Axes

TITLES: Final = {"q01": "0.01 quantile", "q99": "0.99 quantile", "mean": "mean", "std": "deviation"}
INCHES: Final = (3.4, 3.0)
APART: Final = ("run", "split", "epoch")
"""What panels of the last epochs say of their rows, where it differs."""


@draws("maps of units, the table of the measure 'units'", "map", "row", "column", *STATISTICS)
def units(table: "pl.DataFrame") -> Page:
    """Maps of each unit's quantiles, mean and deviation: a row a layer, its maps side by side in a grid.

    Of each run the last epoch.
    """
    last = last_epochs(table)
    apart = several(last, *APART)
    panels = [
        Panel(f"{layer} · {TITLES[name]}{told(own, apart)}", partial(_mosaic, table=own, column=name))
        for (_, _, layer), own in last.group_by("run", "split", "layer", maintain_order=True)
        for name in STATISTICS
    ]
    return Page(panels, len(STATISTICS), INCHES, captioned(last, "epoch"))


@draws("one sample's layers, the table of the measure 'samples'", "sample", "map", "value", without=["stage"])
def samples(table: "pl.DataFrame") -> Page:
    """What layers say of one sample, before and after training: a row and a scale a layer, its maps in a grid."""
    panels = []
    apart = several(table, "run", "split", "sample", "label")
    groups = list(table.group_by("run", "split", "layer", maintain_order=True))
    for (_, _, layer), own in groups:
        scale = (own["value"].min(), own["value"].max())
        for (epoch,), shown in own.group_by("epoch", maintain_order=True):
            title = f"{layer} · epoch {epoch}{told(own, apart)}"
            panels.append(Panel(title, partial(_mosaic, table=shown, scale=scale)))
    return Page(panels, max(own["epoch"].n_unique() for _, own in groups), INCHES, captioned(table, "sample", "label"))


@draws("a sample under a waist, the table of the measure 'stages'", "waist", "stage", "sample", "value")
def waist(table: "pl.DataFrame") -> Page:
    """A sample's layer as it is, reduced, and as numbers of bins, side by side: a row a layer and waist.

    Of each run the last epoch.
    """
    last = last_epochs(table)
    apart = several(last, "waist", *APART, "sample", "label")
    panels = [
        Panel(f"{layer} · {stage}{told(own, apart)}", partial(_mosaic, table=own.filter(stage=stage)))
        for (_, _, _, layer), own in last.group_by("run", "split", "waist", "layer", maintain_order=True)
        for stage in STAGES
    ]
    return Page(panels, len(STAGES), INCHES, captioned(last, *NUMBERED))


@draws("values of a unit, the table of the measure 'histogram'", "number", "label", "left", "right", "n")
def histogram(table: "pl.DataFrame") -> Page:
    """Values of a unit, class by class, a panel a layer; and how many samples each class has.

    Of each run the last epoch.

    Raises
    ------
    UsageError
        When there are more classes than can be told apart by their lines.
    """
    last = last_epochs(table)
    classes = [str(label) for label in last["label"].drop_nulls().unique().sort()]
    looks = looks_of(classes)
    apart = several(last, *APART)
    groups = last.group_by("run", "split", "layer", maintain_order=True)
    panels = [
        Panel(f"{layer} · unit {own['number'][0]}{told(own, apart)}", partial(_steps, table=own, looks=looks))
        for (_, _, layer), own in groups
    ]
    if classes:
        panels += _of_labels(last, looks)
    return Page(panels, 3, finish=captioned(last, "epoch", finish=legend_below if classes else nothing))


def _of_labels(table: "pl.DataFrame", looks: dict[str, dict[str, Any]]) -> list[Panel]:
    """How many samples each class has: a panel a split, or a panel a run and split where runs have other samples."""
    import polars as pl

    counts = table.group_by("run", "split", "layer", "label").agg(pl.col("n").sum())
    alike = (counts.group_by("split", "label").agg(pl.col("n").n_unique())["n"] == 1).all()
    keys = ["split"] if alike else ["run", "split"]
    apart, panels = several(table, *keys), []
    for _, own in table.group_by(keys, maintain_order=True):
        first = own.filter(layer=own["layer"][0], run=own["run"][0])
        panels.append(Panel(f"labels{told(own, apart)}", partial(_labels, table=first, looks=looks)))
    return panels


@draws("how neighbours depend, the table of the measure 'neighbours'", "p_joint", "p_product", "waist")
def dependence(table: "pl.DataFrame") -> Page:
    """Joint against product probability of neighbouring units' bins: on the diagonal they are independent.

    Of each run the last epoch; a panel a layer and waist. What has no sample has no dot.
    """
    last = last_epochs(table)
    apart = several(last, *APART)
    panels = [
        Panel(f"{layer} · {waist}{told(own, apart)}", partial(_dots, table=own))
        for (_, _, waist, layer), own in last.group_by("run", "split", "waist", "layer", maintain_order=True)
    ]
    return Page(panels, 3, finish=captioned(last, "epoch"))


def _mosaic(axis: "Axes", table: "pl.DataFrame", column: str = "value", scale: tuple[Any, Any] = (None, None)) -> None:
    """Maps (row, column) in a square grid with lines between them; ``scale`` is the least and the largest value."""
    import numpy as np

    maps, rows, columns = (int(table[name].max()) + 1 for name in ("map", "row", "column"))  # type: ignore[arg-type]
    values = table.sort("map", "row", "column")[column].to_numpy()
    if maps == rows == 1:  # a line of units is folded
        rows = columns = int(np.ceil(np.sqrt(columns)))
        values = np.pad(values, (0, rows * columns - len(values)), constant_values=np.nan)
    values = values.reshape(maps, rows, columns)
    wide = int(np.ceil(np.sqrt(maps)))
    canvas = np.full((-(-maps // wide) * (rows + 1) - 1, wide * (columns + 1) - 1), np.nan)
    for number, each in enumerate(values):
        top, left = number // wide * (rows + 1), number % wide * (columns + 1)
        canvas[top : top + rows, left : left + columns] = each
    shown = axis.imshow(canvas, cmap="viridis", interpolation="nearest", vmin=scale[0], vmax=scale[1])
    axis.set_axis_off()
    axis.figure.colorbar(shown, ax=axis, shrink=0.8)


def _steps(axis: "Axes", table: "pl.DataFrame", looks: dict[str, dict[str, Any]]) -> None:
    for (label,), own in table.group_by("label", maintain_order=True):
        edges = [*own["left"], own["right"][-1]]
        line = looks.get(str(label), {"color": COLOURS[0]})
        axis.stairs(own["n"], edges, linewidth=1.5, label=None if label is None else str(label), **line)
    axis.set(xlabel="value", ylabel="samples")


def _labels(axis: "Axes", table: "pl.DataFrame", looks: dict[str, dict[str, Any]]) -> None:
    import polars as pl

    counts = table.group_by("label").agg(pl.col("n").sum()).sort("label")
    names = [str(label) for label in counts["label"]]
    hatches = [HATCHES[LINES.index(looks[name]["linestyle"])] for name in names]
    axis.bar(names, counts["n"], color=[looks[name]["color"] for name in names], hatch=hatches, edgecolor="white")
    axis.set(xlabel="label", ylabel="samples")


def _dots(axis: "Axes", table: "pl.DataFrame") -> None:
    import polars as pl

    known = table.filter((pl.col("p_joint") > 0) & (pl.col("p_product") > 0))
    axis.scatter(known["p_product"], known["p_joint"], s=8, alpha=0.4, color=COLOURS[0], linewidth=0)
    least = float(min(known["p_product"].min(), known["p_joint"].min()))  # type: ignore[type-var, arg-type]
    axis.plot([least, 1], [least, 1], color=GREY, linestyle=(0, (4, 3)), linewidth=1.0)
    axis.set(xscale="log", yscale="log", xlabel="product of probabilities", ylabel="joint probability")
