"""`ibstore doctor`: which rows of the information plane can be trusted."""

import sys
from typing import Any

from ibstore.cli.analyze import DEFAULT_WAIST
from ibstore.cli.arguments import (
    ChannelsOption,
    EpochOption,
    LayerOption,
    MemoryOption,
    RunOption,
    StoreArgument,
    WaistOption,
    WaistsOption,
    WorkersOption,
    bytes_of,
    chosen_waists,
)
from ibstore.cli.output import FormatOption, OutOption, QuietOption, ResultsOption, write
from ibstore.cli.progress import listening

NAME = "doctor"


def command(
    store: StoreArgument,
    run: RunOption = None,
    layer: LayerOption = None,
    epoch: EpochOption = None,
    waist: WaistOption = None,
    waists: WaistsOption = None,
    channels: ChannelsOption = "concat",
    form: FormatOption = None,
    out: OutOption = None,
    results: ResultsOption = None,
    memory: MemoryOption = None,
    threads: WorkersOption = None,
    quiet: QuietOption = False,
) -> None:
    """Say which rows of the information plane can be trusted, and what to change.

    Looks, layer by layer and epoch by epoch, for what says more about the estimator than about the network: entropies
    at their ceiling, patterns that were not seen, informations that permuted labels have too, estimators that differ or
    leave their bounds, numbers that still move with the samples, values beyond the bins. In plain words, or as a table
    with --format or --out.

    Example: `ibstore doctor lab.zarr --waist thesis-6.2 --epoch 10`
    """
    from ibstore.analyze import Study
    from ibstore.analyze.measures.doctor import words

    names, known = chosen_waists(waist, waists, [DEFAULT_WAIST])
    about: dict[str, Any] = {"runs": run, "layers": layer, "epochs": epoch, "channels": channels, "known": known}
    with listening(quiet) as emit:
        table = Study(store, results).ask(names, **about, memory=bytes_of(memory), threads=threads, emit=emit).doctor()
    if form is None and out is None:
        sys.stdout.write(words(table))
    else:
        write(table, form, out)
