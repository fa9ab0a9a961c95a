"""`ibstore measure`: questions beyond the information plane."""

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

NAME = "measure"

CONTEXT = (
    "run",
    "split",
    "channel",
    "waist",
    "estimator",
    "unit",
    "n",
    "method",
    "level",
    "permutations",
    "form",
    "runs",
)


def command(
    store: StoreArgument,
    what: Annotated[str, typer.Argument(metavar="WHAT", help="The measure, such as `intervals(level=0.9)`.")],
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
    """Ask beyond the information plane, with WHAT written like a recipe: a name, and numbers that are not the defaults.

    intervals(method=jackknife, level=0.95): of H(T), I(X;T), I(T;Y); method=bootstrap takes resamples=200, seed=0.
    null(permutations=200, level=0.95, seed=0): I(T;Y) beside what it is by chance.
    convergence(1000, 2000, repeats=10, seed=0): estimates from parts of the samples; by default halves of halves.
    diagram: conditional entropies, and the areas that X, Y and T share.
    between: I(Ti;Tj) of every two layers.
    ranges: what the bins clip into their ends, and how many of them are used.
    correlation(shrinkage=0): total correlation of a layer's units.
    runs(level=0.95): mean, spread and interval over runs.
    extended(form=pooled, seed=0): several networks as one; form=sampled draws a network for each sample.
    bounds(delta=0.05, dimension=0): what bounds the generalization error.
    limit, gaps: the optimal curve of the data, and how far layers lie from it.
    betas(lowest=0.01, highest=1000, count=61): which layer and epoch is best at each beta.
    Keys are taken from what is kept; what is lacking is computed first. docs/measures.md has formulas and columns.

    Example: `ibstore measure lab.zarr 'intervals(level=0.9)' --waist thesis-6.2 --layer out --estimator nsb`
    """
    from ibstore.analyze import Study

    names, known = chosen_waists(waist, waists, [DEFAULT_WAIST])
    about: dict[str, Any] = {"runs": run, "layers": layer, "epochs": epoch, "channels": channels, "known": known}
    with listening(quiet) as emit:
        asked = Study(store, results).ask(names, **about, memory=bytes_of(memory), threads=threads, emit=emit)
        table = asked.measure(what, estimator or "plugin", unit=unit)
    context = tuple(name for name in CONTEXT if name in table.columns)
    brief = tuple(name for name in table.columns if name not in context)
    write(table, form, out, brief, context)
