"""`ibstore plot`: pictures of the information plane."""

from pathlib import Path
from typing import Annotated

import typer

from ibstore.cli.analyze import DEFAULT_WAIST
from ibstore.cli.arguments import (
    BetaOption,
    ChannelsOption,
    EpochOption,
    EstimatorOption,
    LayerOption,
    RunOption,
    StoreArgument,
    UnitOption,
    WaistOption,
    WaistsOption,
    chosen_waists,
)
from ibstore.cli.output import QuietOption, ResultsOption
from ibstore.cli.progress import listening, tell

NAME = "plot"


def command(
    store: StoreArgument,
    kind: Annotated[str, typer.Argument(metavar="plane|curves", help="Which picture.", show_default=False)],
    out: Annotated[Path, typer.Option("--out", "-o", help="File to draw to: .png, .svg or .pdf.")],
    run: RunOption = None,
    layer: LayerOption = None,
    epoch: EpochOption = None,
    waist: WaistOption = None,
    waists: WaistsOption = None,
    estimator: EstimatorOption = None,
    channels: ChannelsOption = "concat",
    beta: BetaOption = 1.0,
    unit: UnitOption = "bits",
    results: ResultsOption = None,
    quiet: QuietOption = False,
) -> None:
    """Draw the information plane, or curves over the epochs.

    `plane`: I(T;Y) over I(X;T), layers by colour, epochs by shade. `curves`: H(T), I(X;T), I(T;Y) and ib against
    the epoch, layers side by side. Without --waist: every waist that was analyzed before and fits the runs. What is
    missing is computed first.

    Example: `ibstore plot lab.zarr plane -o plane.png --waist thesis-6.2`
    """
    from ibstore.analyze import Study, plots

    plots.check(kind, out)
    study = Study(store, results)
    names, known = chosen_waists(waist, waists, study.analyzed(run) or [DEFAULT_WAIST])
    with listening(quiet) as emit:
        table = study.analyze(
            names,
            runs=run,
            layers=layer,
            epochs=epoch,
            channels=channels,
            estimators=estimator or "plugin",
            beta=beta,
            unit=unit,
            known=study.meanings() | known,
            emit=emit,
        )
    plots.draw(kind, table, out)
    if not quiet:
        tell(f"{out} drawn: {kind} of {', '.join(names)}")
