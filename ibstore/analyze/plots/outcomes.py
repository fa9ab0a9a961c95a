"""What trainings came to, against the settings in which they differ."""

from functools import partial
from typing import TYPE_CHECKING, Final

from ibstore.analyze.measures.trainings import FIRST, LAST
from ibstore.analyze.plots.page import Page, Panel, draws
from ibstore.analyze.plots.style import dots_and_means, legend_below, looks_of
from ibstore.errors import UsageError

if TYPE_CHECKING:
    import polars as pl
    from matplotlib.axes import Axes

PANELS: Final = {
    "loss": "loss",
    "error": "error",
    "kl": "mean KL [nats]",
    "loss_and_kl": "loss with noise\n+ KL [nats]",
}

TITLES: Final = {"loss": "loss", "error": "error", "kl": "divergence", "loss_and_kl": "loss and divergence"}


@draws("what runs came to, the table of the measure 'outcomes'", "split", "loss", "error", "kl")
def outcomes(table: "pl.DataFrame") -> Page:
    """Against the number of most values among the settings in which runs differ; a colour for each rest of them.

    Of the test split where it was measured. Dots are runs, lines the means over seeds.

    Raises
    ------
    UsageError
        When the runs differ in no number.
    """
    import polars as pl

    settings = [name for name in table.columns if name not in (*FIRST, *LAST)]
    numbers = [name for name in settings if table[name].dtype.is_numeric()]
    if not numbers:
        raise UsageError("the runs differ in no number to draw against; sweep one: --sweep width=0.25,0.5,1")
    x = max(numbers, key=lambda name: table[name].n_unique())
    split = "test" if "test" in table["split"] else table["split"][0]
    rest = [pl.format(f"{name} {{}}", pl.col(name).cast(pl.String).fill_null("–")) for name in settings if name != x]
    label = pl.concat_str(rest, separator=", ") if rest else pl.lit(split)
    own = table.filter(split=split).with_columns(label.alias("label")).sort(x)
    labels = own["label"].unique(maintain_order=True).to_list()
    looks = looks_of(labels)

    def draw(axis: "Axes", name: str) -> None:
        for each in labels:
            known = own.filter(label=each).drop_nulls([x, name])
            dots_and_means(axis, known, x, name, looks[each], each)
        axis.set(xlabel=x, ylabel=f"{PANELS[name]} ({split})")

    shown = [name for name in PANELS if not own[name].is_null().all()]
    return Page([Panel(TITLES[name], partial(draw, name=name)) for name in shown], len(PANELS), finish=legend_below)
