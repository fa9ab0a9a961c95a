"""`ibstore plot`: pictures."""

from pathlib import Path
from typing import Annotated

import typer

from ibstore.cli.arguments import BetaOption, EstimatorOption, UnitOption
from ibstore.cli.output import QuietOption
from ibstore.cli.progress import listening, tell
from ibstore.cli.selecting import BINLESS, VALUES, Selected, selecting
from ibstore.errors import UsageError

NAME = "plot"


@selecting
def command(
    selected: Selected,
    kind: Annotated[str, typer.Argument(metavar="KIND", help="Which picture, such as plane.", show_default=False)],
    out: Annotated[Path | None, typer.Option("--out", "-o", help="File to draw to: .png, .svg or .pdf.")] = None,
    animate: Annotated[
        Path | None, typer.Option("--animate", help="File for a film of the plane, an epoch a frame: .gif or .mp4.")
    ] = None,
    mean: Annotated[
        bool, typer.Option("--mean", help="Of the plane: each split's mean path over the runs, and their spread.")
    ] = False,
    normalized: Annotated[bool, typer.Option("--normalized", help="Of the plane: parts of H(X) and of H(Y).")] = False,
    estimator: EstimatorOption = None,
    beta: BetaOption = 1.0,
    unit: UnitOption = "bits",
    quiet: QuietOption = False,
) -> None:
    """Draw a picture of what layers know, of what training does, or of what runs came to.

    \b
    plane        I(T;Y) over I(X;T): layers by colour, epochs by shade
    curves       H(T), I(X;T), I(T;Y) and ib against the epoch, layers side by side
    extended     the plane of several networks as one
    diagram      circles of X, Y and T, and what they share
    convergence  estimates against the number of samples
    beta         the best layer and epoch at each beta
    bound        bounds of the generalization error against the epoch
    dependence   joint against product probability of neighbouring units
    waist        a sample's layer as it is, reduced, and as bins
    samples      what layers say of one sample, before and after training
    units        quantiles, mean and deviation of each unit
    histogram    values of a unit, class by class
    dynamics     gradients, their SNR, and weights against the epoch
    outcomes     loss, error and divergence against swept settings
    transmitted  what stochastic layers tell of the input, against beta_kl
    correlation  total correlation of layers against beta_kl
    maps         where in a picture layers say something

    Without --waist: every waist that was analyzed before and fits the runs. What is missing is computed first. KIND
    takes the numbers of its measure, if it has one, such as 'maps(count=3)' or 'beta(highest=100)' (docs/measures.md).

    Example: `ibstore plot lab.zarr plane -o plane.png --waist thesis-6.2`
    """  # noqa: D301  (click keeps the lines of a paragraph that begins with a backspace)
    from ibstore.analyze import plots

    name = kind.partition("(")[0].strip()
    options = {option: True for option, given in (("mean", mean), ("normalized", normalized)) if given}
    _check_files(name, out, animate, options)
    measure, arguments = plots.MEASURES.get(name), kind.removeprefix(name)
    if measure is None and arguments.strip():
        raise UsageError(f"{name} takes no numbers; leave out {arguments.strip()!r}")
    study = selected.study()
    if measure in BINLESS:
        selected.check_binless(measure, unit=unit, beta=None if beta == 1.0 else beta)
    names, known = selected.named([VALUES] if measure in BINLESS else study.analyzed(selected.run))
    with listening(quiet) as emit:
        asked = study.ask(names, known=known, emit=emit, **selected.about())
        if measure is None:
            table = asked.plane(estimator or "plugin", beta=beta, unit=unit)
        else:
            table = asked.measure(measure + arguments, estimator or "plugin", unit=unit)
    if out is not None:
        plots.draw(name, table, out, **options)
    if animate is not None:
        plots.animate(table, animate, **options)
    if not quiet:
        of_waists = "" if measure in BINLESS else f" of {', '.join(names)}"
        for file in filter(None, (out, animate)):
            tell(f"{file} drawn: {name}{of_waists}")


def _check_files(name: str, out: Path | None, film: Path | None, options: dict[str, bool]) -> None:
    """Return when such a picture can be drawn to these files; raises `UsageError`."""
    from ibstore.analyze import plots
    from ibstore.analyze.plots.animation import check

    if out is None and film is None:
        raise UsageError("there is no file to draw to; give one with --out (-o), or with --animate")
    plots.check(name, Path("plane.png") if out is None else out)
    of_planes = {**options, **({} if film is None else {"animate": film})}
    if of_planes and name != "plane":
        raise UsageError(f"--{next(iter(of_planes))} is about the plane, and means nothing to {name}; leave it out")
    if film is not None:
        check(film)
