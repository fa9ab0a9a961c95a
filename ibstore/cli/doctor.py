"""`ibstore doctor`: which rows of the information plane can be trusted."""

import sys

from ibstore.cli.arguments import EstimatorOption
from ibstore.cli.output import FormatOption, OutOption, QuietOption, write
from ibstore.cli.progress import listening
from ibstore.cli.selecting import Selected, selecting

NAME = "doctor"


@selecting
def command(
    selected: Selected,
    estimator: EstimatorOption = None,
    form: FormatOption = None,
    out: OutOption = None,
    quiet: QuietOption = False,
) -> None:
    """Say which rows of the information plane can be trusted, and what to change.

    Looks, layer by layer and epoch by epoch, for what says more about the estimator than about the network: entropies
    at their ceiling, patterns that were not seen, informations that permuted labels have too, estimators that differ or
    leave their bounds, numbers that still move with the samples, values beyond the bins. In plain words, or as a table
    with --format or --out. plugin, miller_madow and chao_wang_jost are looked at, and those of --estimator.

    Example: `ibstore doctor lab.zarr --waist thesis-6.2 --epoch 10`
    """
    from ibstore.analyze.measures.doctor import words

    names, known = selected.named()
    with listening(quiet) as emit:
        table = selected.study().ask(names, known=known, emit=emit, **selected.about()).doctor(estimator or ())
    if form is None and out is None:
        sys.stdout.write(words(table))
    else:
        write(table, form, out)
