"""Estimates beyond the plane: whether they still move with the samples, and the areas that X, Y and T share."""

import warnings
from functools import partial
from typing import TYPE_CHECKING, Final

from ibstore.analyze.plots.page import Page, Panel, captioned, draws, last_epochs
from ibstore.analyze.plots.style import COLOURS, legend_below, looks_of
from ibstore.errors import UsageError

if TYPE_CHECKING:
    import polars as pl
    from matplotlib.axes import Axes

QUANTITIES: Final = {"h_t": "H(T)", "i_xt": "I(X;T)", "i_ty": "I(T;Y)"}

REGIONS: Final = {
    "100": "h_x_given_ty",
    "010": "h_y_given_xt",
    "001": "h_t_given_xy",
    "110": "i_xy_given_t",
    "101": "i_xt_given_y",
    "011": "i_ty_given_x",
    "111": "i_xyt",
}
"""Areas of a diagram by the circles of X, Y and T that they lie in."""

SIDE_BY_SIDE: Final = 3


@draws("whether estimates settle, the table of the measure 'convergence'", "quantity", "size", "mean", "limit")
def convergence(table: "pl.DataFrame") -> Page:
    """Each quantity against the number of samples that it is estimated from: a panel a quantity.

    Bands are one deviation over the parts, dotted lines where the estimate would end with samples without end, as a
    hint. Of each run the last epoch; a line a layer and estimator.
    """
    import polars as pl

    last = last_epochs(table)
    said = ["layer", *[name for name in ("estimator", "waist", "run", "split", "channel") if last[name].n_unique() > 1]]
    own = last.with_columns(pl.concat_str(*said, separator=" ").alias("label"))
    looks = looks_of(own["label"].unique(maintain_order=True).to_list())

    def draw(axis: "Axes", quantity: str) -> None:
        known = own.filter(quantity=quantity).drop_nulls("mean")
        for (label,), curve in known.group_by("label", maintain_order=True):
            sizes, means, spread = (curve.sort("size")[name].to_numpy() for name in ("size", "mean", "std"))
            axis.plot(sizes, means, linewidth=1.8, marker="o", markersize=3, label=label, **looks[str(label)])
            axis.fill_between(sizes, means - spread, means + spread, color=looks[str(label)]["color"], alpha=0.15, lw=0)
            limit = curve["limit"][0]
            if limit is not None:
                axis.axhline(limit, color=looks[str(label)]["color"], linestyle=":", linewidth=0.9)
        axis.set_xscale("log")
        axis.set_xticks(known["size"].unique().sort().to_list(), minor=False)
        axis.minorticks_off()
        axis.xaxis.set_major_formatter("{x:.0f}")
        axis.set(xlabel="samples", ylabel=f"{QUANTITIES[quantity]} [{own['unit'][0]}]")

    finish = captioned(last, "epoch", finish=legend_below)
    shown = [name for name in QUANTITIES if name in own["quantity"]]
    return Page([Panel(QUANTITIES[name], partial(draw, quantity=name)) for name in shown], SIDE_BY_SIDE, finish=finish)


@draws("areas of entropies, the table of the measure 'diagram'", *REGIONS.values())
def diagram(table: "pl.DataFrame") -> Page:
    """Circles of X, Y and T whose areas are their entropies, and what they share: a panel a row.

    Of each run the last epoch. Areas are in proportion as far as circles can be; the numbers are exact. What is
    negative, as I(X;Y;T) may be, and what is less than a 10,000th of all, has no area.

    Raises
    ------
    UsageError
        When there are no labels.
    """
    import polars as pl

    last = last_epochs(table).drop_nulls("i_xyt")
    if last.is_empty():
        raise UsageError("the diagram needs labels, and the samples have none; draw the curves instead")
    said = ["layer", *[name for name in ("waist", "estimator", "run", "split", "channel") if last[name].n_unique() > 1]]
    titles = last.select(pl.format("{} [{}]", pl.concat_str(*said, separator=" · "), "unit"))["layer"]
    panels = [
        Panel(title, partial(_circles, row=row)) for title, row in zip(titles, last.iter_rows(named=True), strict=True)
    ]
    return Page(panels, SIDE_BY_SIDE, (4.0, 3.8), captioned(last, "epoch"))


def _circles(axis: "Axes", row: dict[str, float]) -> None:
    from matplotlib_venn import venn3
    from matplotlib_venn.layout.venn3 import DefaultLayoutAlgorithm

    areas = {place: row[name] for place, name in REGIONS.items()}
    least = 1e-4 * sum(map(abs, areas.values()))
    with warnings.catch_warnings():
        # Of circles in circles, and of those without area: they are as near as they can be.
        warnings.filterwarnings("ignore", category=UserWarning, module="matplotlib_venn")
        found = venn3(
            {place: max(0.0, area) if abs(area) > least else 0.0 for place, area in areas.items()},
            set_labels=[f"H({name}) {row[column]:.2f}" for name, column in (("X", "h_x"), ("Y", "h_y"), ("T", "h_t"))],
            set_colors=COLOURS[:3],
            alpha=0.35,
            ax=axis,
            layout_algorithm=DefaultLayoutAlgorithm(),
        )
    for place, area in areas.items():
        label = found.get_label_by_id(place)
        if label is not None:
            label.set(text=f"{area:.2f}" if abs(area) > least else "", fontsize=9)
    for label in found.set_labels:
        label.set_fontsize(11)
