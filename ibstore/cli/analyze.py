"""`ibstore analyze`: the information plane of a store."""

from ibstore.cli.arguments import (
    BetaOption,
    EpochOption,
    LayerOption,
    RunOption,
    StoreArgument,
    UnitOption,
    WaistOption,
    WaistsOption,
    chosen_waists,
)
from ibstore.cli.output import FormatOption, OutOption, QuietOption, ResultsOption, write
from ibstore.cli.progress import listening

NAME = "analyze"
DEFAULT_WAIST = "thesis-6.2"
CONTEXT = ("run", "split", "unit", "n", "h_y", "beta")
BRIEF = ("waist", "layer", "epoch", "h_x", "h_t", "i_xt", "i_ty", "ib", "distinct_t", "saturated")


def command(
    store: StoreArgument,
    run: RunOption = None,
    layer: LayerOption = None,
    epoch: EpochOption = None,
    waist: WaistOption = None,
    waists: WaistsOption = None,
    beta: BetaOption = 1.0,
    unit: UnitOption = "bits",
    form: FormatOption = None,
    out: OutOption = None,
    results: ResultsOption = None,
    quiet: QuietOption = False,
) -> None:
    """Compute the information plane under one or more waists.

    Narrows each recorded layer as the waist says, counts the patterns, and prints H, I(X;T) and I(T;Y) for each
    layer and epoch. Results are kept: asking again costs nothing, another waist computes only itself. `table`
    shows the columns that people look at; the other formats have all of them. Without --waist: thesis-6.2.

    **Example:** `ibstore analyze lab.zarr --waist thesis-6.2 --waist 'mine: x=maxpool(7, 7) | threshold(0.5);
    *=identity | quantile(bins=4)' --unit nats`
    """
    from ibstore.analyze import Study

    names, known = chosen_waists(waist, waists, [DEFAULT_WAIST])
    with listening(quiet) as emit:
        table = Study(store, results).analyze(
            names, runs=run, layers=layer, epochs=epoch, beta=beta, unit=unit, known=known, emit=emit
        )
    write(table, form, out, BRIEF, CONTEXT)
