"""What stochastic layers transmit, and where in a picture."""

from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, Final

from ibstore.analyze.measures.bottlenecks import FIRST, LAST
from ibstore.analyze.measures.dependence import CORRELATIONS
from ibstore.analyze.plots.page import Page, Panel, draws, last_epochs
from ibstore.analyze.plots.style import dots_and_means, legend_below, looks_of
from ibstore.errors import UsageError

if TYPE_CHECKING:
    import polars as pl
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

SPLITS: Final = ("test", "train")
"""Whose numbers are drawn, where there are several: the first."""

INPUT: Final = "x"


TITLES: Final = {
    "mean_kl": "mean KL [{unit}]",
    "error": "error",
    "tc_per_unit": "TC a unit [{unit}]",
    "discrete_per_unit": "TC of bins a unit [{unit}]",
    "gaussian_per_unit": "Gaussian TC a unit [{unit}]",
}
"""TC is the total correlation."""


@draws("what layers transmit, the table of the measure 'transmitted'", "beta_kl", "gamma_tc", "mean_kl")
def transmitted(table: "pl.DataFrame") -> Page:
    """Against β, at each run's last epoch: mean divergence by layer, error, and total correlation, where it is known.

    Dots are runs, lines their means. Runs that differ in other settings, too, have colours of their own.
    """
    others = [name for name in table.columns if name not in (*FIRST, *LAST)]
    gammas = ["gamma_tc"] if table["gamma_tc"].n_unique() > 1 else []
    return _against_beta(table, ("mean_kl", "error", "tc_per_unit"), [*gammas, *others])


@draws("total correlation, the table of the measure 'correlation'", "beta_kl", *CORRELATIONS)
def correlation(table: "pl.DataFrame") -> Page:
    """Total correlation a unit against β, at each run's last epoch: of the bins, and by the Gaussian formula.

    Runs that differ in other settings, too, and other waists and channels have colours of their own.
    """
    known = ("run", "split", "epoch", "layer", "edges", "unit", "seed", "beta_kl", "n", "units", "constant")
    rest = [name for name in table.columns if name not in (*known, *CORRELATIONS)]
    others = [name for name in rest if table[name].n_unique() > 1]
    return _against_beta(table, ("discrete_per_unit", "gaussian_per_unit"), others)


def _against_beta(table: "pl.DataFrame", names: Sequence[str], others: Sequence[str]) -> Page:
    """Columns against β, a panel each; a line for a layer and each combination of what else runs differ in."""
    import polars as pl

    if table["beta_kl"].is_null().all():
        raise UsageError(
            "no run says which beta_kl it was trained with; sweep it (--sweep beta_kl=0,0.1,1), or let a Recorder say "
            "it: provenance=Provenance(settings={'options': {'beta_kl': 0.1}})"
        )
    last = last_epochs(table)
    rest = [pl.format(f"{name} {{}}", pl.col(name).cast(pl.String).fill_null("–")) for name in others]
    own = last.sort("beta_kl").with_columns(
        pl.concat_str("layer", *rest, separator=" ").alias("label"),
        pl.concat_str(pl.lit("error"), "split", *rest, separator=" ").alias("error_label"),
    )
    panels = {name: known for name in names if not (known := _known(own, name)).is_empty()}
    if not panels:
        raise UsageError("there is nothing to draw: no run knows any of it; record f and α of stochastic layers")
    layers = own["label"].unique(maintain_order=True).to_list()
    errors = panels["error"]["error_label"].unique(maintain_order=True).to_list() if "error" in panels else []
    looks = looks_of([*layers, *errors])

    def draw(axis: "Axes", name: str) -> None:
        known, label = panels[name], "error_label" if name == "error" else "label"
        for each in known[label].unique(maintain_order=True):
            dots_and_means(axis, known.filter(pl.col(label) == each), "beta_kl", name, looks[each], each)
        _finish(axis, known, name)

    return Page(
        [Panel(TITLES[name].partition(" [")[0], partial(draw, name=name)) for name in panels],
        len(panels),
        finish=legend_below,
    )


def _known(table: "pl.DataFrame", name: str) -> "pl.DataFrame":
    """Rows of a panel: of errors those of networks, not of layers, and of both splits; else those of one split."""
    import polars as pl

    known = table.drop_nulls([name, "beta_kl"]).filter(pl.col(name).is_finite())
    if name == "error":
        return known.filter(pl.col("split").is_in(SPLITS)).unique(["run", "split"], keep="first", maintain_order=True)
    split = next((each for each in (*SPLITS, *known["split"]) if each in known["split"]), None)
    return known.filter(split=split)


def _finish(axis: "Axes", table: "pl.DataFrame", name: str) -> None:
    """Axes and their names."""
    import polars as pl

    positive = table.filter(pl.col("beta_kl") > 0)["beta_kl"]
    if len(positive) and positive.max() > 10 * positive.min():  # type: ignore[operator]
        axis.set_xscale("symlog", linthresh=positive.min())
    axis.set_xlabel("β of the divergence")
    axis.set_ylabel(TITLES[name].format(unit=table["unit"][0]))
    values = table[name].to_numpy()
    if name == "mean_kl" and values.min() > 0:  # a late layer has a hundredth of what the first one has
        axis.set_yscale("log")
    else:
        axis.set_ylim(0, 1.08 * float(values.max()) or 1.0)


@draws("where layers say something, the table of the measure 'maps'", "sample", "row", "value", without=["map"])
def maps(table: "pl.DataFrame") -> Page:
    """A row a sample, a column a layer, the input first: values of the places, of the last epoch of each run.

    Where a divergence is bright the layer transmits much. One scale a layer, in all runs, from its least to its largest
    value: below each column.
    """
    last = last_epochs(table)
    columns = last.select("run", "layer").unique(maintain_order=True).rows()
    samples = last.select("split", "sample").unique(maintain_order=True).rows()
    short = _told_apart(last["run"].unique(maintain_order=True).to_list())
    scales = {layer: _scale(last.filter(layer=layer)) for layer in last["layer"].unique()}
    panels = [
        Panel(
            "\n".join(filter(None, (short[run], layer))) if (split, sample) == samples[0] else "",
            partial(
                _picture,
                table=last.filter(run=run, layer=layer, split=split, sample=sample),
                scale=scales[layer],
            ),
        )
        for split, sample in samples
        for run, layer in columns
    ]

    def finish(figure: "Figure", axes: "list[Axes]") -> None:
        from matplotlib.cm import ScalarMappable
        from matplotlib.ticker import MaxNLocator

        for place, (_, layer) in enumerate(columns):
            own = axes[place :: len(columns)]
            own[0].set_title(own[0].get_title(), fontsize=8)
            colours = ScalarMappable(**scales[layer])
            bar = figure.colorbar(colours, ax=own, location="bottom", shrink=0.9, aspect=12, pad=0.01)
            bar.ax.tick_params(labelsize=7)
            bar.locator = MaxNLocator(2)

    return Page(panels, len(columns), (1.7, 1.5), finish, (0.4, 1.3))


def _told_apart(runs: Sequence[str]) -> dict[str, str]:
    """Names of runs without the words that all of them have; of a single one nothing is left.

    >>> _told_apart(["mnist-beta0-seed0", "mnist-beta1-seed0"])
    {'mnist-beta0-seed0': 'beta0', 'mnist-beta1-seed0': 'beta1'}
    """
    shared = set.intersection(*(set(run.split("-")) for run in runs))
    return {run: "-".join(word for word in run.split("-") if word not in shared) for run in runs}


def _scale(table: "pl.DataFrame") -> dict[str, Any]:
    """Colours of a layer's values: grey for the input."""
    from matplotlib.colors import Normalize

    lowest, highest = table["value"].min(), table["value"].max()
    norm = Normalize(lowest, highest)  # type: ignore[arg-type]
    return {"norm": norm, "cmap": "gray" if table["layer"][0] == INPUT else "viridis"}


def _picture(axis: "Axes", table: "pl.DataFrame", scale: dict[str, Any]) -> None:
    axis.set_axis_off()
    if not table.is_empty():
        picture = table.sort("row", "column")["value"].to_numpy().reshape(table["row"].n_unique(), -1)
        axis.imshow(picture, interpolation="nearest", **scale)
