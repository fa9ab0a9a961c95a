"""`ibstore sweep`: how far estimates hang on the number of bins."""

from typing import Annotated, Any

import typer

from ibstore.cli.analyze import DEFAULT_WAIST
from ibstore.cli.arguments import (
    ChannelsOption,
    EpochOption,
    EstimatorOption,
    LayerOption,
    MemoryOption,
    RunOption,
    StoreArgument,
    UnitOption,
    WaistOption,
    WaistsOption,
    WorkersOption,
    bytes_of,
    chosen_waists,
)
from ibstore.cli.output import FormatOption, OutOption, QuietOption, ResultsOption, write
from ibstore.cli.progress import listening

NAME = "sweep"

CONTEXT = ("run", "split", "channel", "waist", "estimator", "unit", "n")
BRIEF = ("layer", "epoch", "bins", "h_t", "i_xt", "i_ty", "distinct_t", "coverage_t", "saturated")


def command(
    store: StoreArgument,
    bins: Annotated[str, typer.Option("--bins", help="2:64 (doubling), 2:10:1 (in steps) or 2,3,5.")] = "2:64",
    run: RunOption = None,
    layer: LayerOption = None,
    epoch: EpochOption = None,
    waist: WaistOption = None,
    waists: WaistsOption = None,
    estimator: EstimatorOption = None,
    channels: ChannelsOption = "concat",
    unit: UnitOption = "bits",
    form: FormatOption = None,
    out: OutOption = None,
    results: ResultsOption = None,
    memory: MemoryOption = None,
    threads: WorkersOption = None,
    quiet: QuietOption = False,
) -> None:
    """Analyze under a waist with other numbers of bins, everything else the same.

    What changes with the number of bins is the binning's doing, not the network's; what stays can be believed. Each
    layer is read once for all numbers. A waist's `bins` (or `num`) are swept wherever it has them, the input's are not.
    Results are kept, but queries and pictures do not see them.

    Example: `ibstore sweep lab.zarr --bins 2:64 --waist thesis-6.2 --layer out --epoch 10`
    """
    from ibstore.analyze import Study

    names, known = chosen_waists(waist, waists, [DEFAULT_WAIST])
    about: dict[str, Any] = {"runs": run, "layers": layer, "epochs": epoch, "channels": channels, "known": known}
    about |= {"memory": bytes_of(memory), "threads": threads}
    with listening(quiet) as emit:
        table = Study(store, results).sweep(
            names, bins, estimators=estimator or "plugin", unit=unit, emit=emit, **about
        )
    write(table, form, out, BRIEF, CONTEXT)
