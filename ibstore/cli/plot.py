"""`ibstore plot`: pictures."""

from pathlib import Path
from typing import Annotated

import typer

from ibstore.cli.arguments import BetaOption, EstimatorOption, UnitOption
from ibstore.cli.output import QuietOption
from ibstore.cli.progress import listening, tell
from ibstore.cli.selecting import BINLESS, VALUES, Selected, selecting

NAME = "plot"


@selecting
def command(
    selected: Selected,
    kind: Annotated[
        str,
        typer.Argument(
            metavar="plane|curves|outcomes|transmitted|correlation|maps", help="Which picture.", show_default=False
        ),
    ],
    out: Annotated[Path, typer.Option("--out", "-o", help="File to draw to: .png, .svg or .pdf.")],
    estimator: EstimatorOption = None,
    beta: BetaOption = 1.0,
    unit: UnitOption = "bits",
    quiet: QuietOption = False,
) -> None:
    """Draw the information plane, curves over the epochs, or what stochastic layers transmit.

    `plane`: I(T;Y) over I(X;T), layers by colour, epochs by shade. `curves`: H(T), I(X;T), I(T;Y) and ib against
    the epoch, layers side by side. Without --waist: every waist that was analyzed before and fits the runs. What is
    missing is computed first. `outcomes`: loss, error and divergence of runs against the settings in which they differ.
    Of stochastic layers, without a waist: `transmitted`, what they say that they tell of the input, error and total
    correlation against beta_kl; `maps`, where in a picture they say something. `correlation`: total correlation of
    layers under a waist, of bins and by the Gaussian formula, against beta_kl.

    Example: `ibstore plot lab.zarr plane -o plane.png --waist thesis-6.2`
    """
    from ibstore.analyze import plots

    plots.check(kind, out)
    study = selected.study()
    if kind in BINLESS:
        selected.check_binless(kind, unit=unit, beta=None if beta == 1.0 else beta)
    measured = kind in BINLESS or kind == "correlation"
    names, known = selected.named([VALUES] if kind in BINLESS else study.analyzed(selected.run))
    with listening(quiet) as emit:
        asked = study.ask(names, known=study.meanings() | known, emit=emit, **selected.about())
        if measured:
            table = asked.measure(kind, estimator or "plugin", unit=unit)
        else:
            table = asked.plane(estimator or "plugin", beta=beta, unit=unit)
    plots.draw(kind, table, out)
    if not quiet:
        tell(f"{out} drawn: {kind}" if kind in BINLESS else f"{out} drawn: {kind} of {', '.join(names)}")
