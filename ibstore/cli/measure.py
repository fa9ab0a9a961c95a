"""`ibstore measure`: questions beyond the information plane."""

from typing import Annotated

import typer

from ibstore.cli.arguments import EstimatorOption, UnitOption
from ibstore.cli.output import FormatOption, OutOption, QuietOption, write
from ibstore.cli.progress import listening
from ibstore.cli.selecting import BINLESS, VALUES, Selected, selecting

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


@selecting
def command(
    selected: Selected,
    what: Annotated[str, typer.Argument(metavar="WHAT", help="The measure, such as `intervals(level=0.9)`.")],
    estimator: EstimatorOption = None,
    unit: UnitOption = "bits",
    form: FormatOption = None,
    out: OutOption = None,
    quiet: QuietOption = False,
) -> None:
    """Ask beyond the information plane, with WHAT written like a recipe: a name, and numbers that are not the defaults.

    \b
    intervals(method=jackknife, level=0.95)      of H(T), I(X;T) and I(T;Y);
        method=bootstrap takes resamples=200, seed=0
    null(permutations=200, level=0.95, seed=0)   I(T;Y) by chance
    convergence(1000, 2000, repeats=10, seed=0)  estimates from parts of the samples;
        by default halves of halves
    diagram                                      areas that X, Y and T share
    between                                      I(Ti;Tj) of every two layers
    correlation(shrinkage=0)                     total correlation of a layer's units
    transmitted                                  what stochastic layers say that they tell
    outcomes                                     loss, error, KL beside swept settings
    maps(count=6)                                where in a picture layers say something
    units                                        quantiles, mean, deviation of each unit
    histogram(number=0, bins=50)                 values of one unit, class by class
    samples(row=0, most=16)                      what layers say of one sample
    stages(row=0, most=16)                       what a waist makes of one sample
    neighbours(most=100)                         are neighbouring units independent?
    ranges                                       what bins clip, and how many are used
    runs(level=0.95)                             mean, spread and interval over runs
    extended(form=pooled, seed=0)                several networks as one, or form=sampled
    bounds(delta=0.05, dimension=0)              of the generalization error
    limit                                        the optimal curve of the data
    gaps                                         how far layers lie from it
    betas(lowest=0.01, highest=1000, count=61)   the best layer and epoch at each beta
    dynamics                                     gradients, SNR, weights along the training
    events(margin=0.05)                          where the loss kinks, SNR drops, I(X;T) turns
    relaxation(level=0.5, layer=, by=run)        epochs to an information of the labels

    Keys are taken from what is kept; what is lacking is computed first. docs/measures.md has formulas and columns.

    Example: `ibstore measure lab.zarr 'intervals(level=0.9)' --waist thesis-6.2 --layer out --estimator nsb`
    """  # noqa: D301  (click keeps the lines of a paragraph that begins with a backspace)
    from ibstore.analyze.measures import find_measure

    find_measure(what)  # told before a store is looked at
    kind = what.partition("(")[0].strip()
    if kind in BINLESS:
        selected.check_binless(kind, unit=unit)
    names, known = selected.named([VALUES] if kind in BINLESS else None)
    with listening(quiet) as emit:
        asked = selected.study().ask(names, known=known, emit=emit, **selected.about())
        table = asked.measure(what, estimator or "plugin", unit=unit)
    context = tuple(name for name in CONTEXT if name in table.columns)
    brief = tuple(name for name in table.columns if name not in context)
    write(table, form, out, brief, context)
