"""`ibstore sweep`: how far estimates hang on the number of bins."""

from typing import Annotated

import typer

from ibstore.cli.arguments import EstimatorOption, UnitOption
from ibstore.cli.output import FormatOption, OutOption, QuietOption, write
from ibstore.cli.progress import listening
from ibstore.cli.selecting import Selected, selecting

NAME = "sweep"

CONTEXT = ("run", "split", "channel", "waist", "estimator", "unit", "n")
BRIEF = ("layer", "epoch", "bins", "h_t", "i_xt", "i_ty", "distinct_t", "coverage_t", "saturated")


@selecting
def command(
    selected: Selected,
    bins: Annotated[str, typer.Option("--bins", help="2:64 (doubling), 2:10:1 (in steps) or 2,3,5.")] = "2:64",
    estimator: EstimatorOption = None,
    unit: UnitOption = "bits",
    form: FormatOption = None,
    out: OutOption = None,
    quiet: QuietOption = False,
) -> None:
    """Analyze under a waist with other numbers of bins, everything else the same.

    What changes with the number of bins is the binning's doing, not the network's; what stays can be believed. Each
    layer is read once for all numbers. A waist's `bins` (or `num`) are swept wherever it has them, the input's are not.
    Results are kept, but queries and pictures do not see them.

    Example: `ibstore sweep lab.zarr --bins 2:64 --waist thesis-6.2 --layer out --epoch 10`
    """
    names, known = selected.named()
    asked = {"estimators": estimator or "plugin", "unit": unit, "known": known, **selected.about()}
    with listening(quiet) as emit:
        table = selected.study().sweep(names, bins, emit=emit, **asked)
    write(table, form, out, BRIEF, CONTEXT)
