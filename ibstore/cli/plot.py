"""`ibstore plot`: pictures of the information plane."""

from pathlib import Path
from typing import Annotated

import typer

from ibstore.cli.arguments import BetaOption, EstimatorOption, UnitOption
from ibstore.cli.output import QuietOption
from ibstore.cli.progress import listening, tell
from ibstore.cli.selecting import Selected, selecting

NAME = "plot"


@selecting
def command(
    selected: Selected,
    kind: Annotated[str, typer.Argument(metavar="plane|curves", help="Which picture.", show_default=False)],
    out: Annotated[Path, typer.Option("--out", "-o", help="File to draw to: .png, .svg or .pdf.")],
    estimator: EstimatorOption = None,
    beta: BetaOption = 1.0,
    unit: UnitOption = "bits",
    quiet: QuietOption = False,
) -> None:
    """Draw the information plane, or curves over the epochs.

    `plane`: I(T;Y) over I(X;T), layers by colour, epochs by shade. `curves`: H(T), I(X;T), I(T;Y) and ib against
    the epoch, layers side by side. Without --waist: every waist that was analyzed before and fits the runs. What is
    missing is computed first.

    Example: `ibstore plot lab.zarr plane -o plane.png --waist thesis-6.2`
    """
    from ibstore.analyze import plots

    plots.check(kind, out)
    study = selected.study()
    names, known = selected.named(study.analyzed(selected.run))
    asked = {"estimators": estimator or "plugin", "beta": beta, "unit": unit, **selected.about()}
    with listening(quiet) as emit:
        table = study.analyze(names, known=study.meanings() | known, emit=emit, **asked)
    plots.draw(kind, table, out)
    if not quiet:
        tell(f"{out} drawn: {kind} of {', '.join(names)}")
