"""`ibstore probe`: how much of a target a stored layer still holds."""

from typing import Annotated

import typer

from ibstore.cli.arguments import UnitOption
from ibstore.cli.output import FormatOption, OutOption, QuietOption, write
from ibstore.cli.progress import listening
from ibstore.cli.selecting import VALUES, Selected, selecting

NAME = "probe"

CONTEXT = ("run", "split", "channel", "waist", "edges", "target", "unit", "n_fit", "n", "classes", "chance")
BRIEF = ("layer", "epoch", "accuracy", "h_target", "cross_entropy", "information")


@selecting
def command(
    selected: Selected,
    target: Annotated[
        str, typer.Option("--target", help="y, the labels, or a target that was recorded, such as nuisance.")
    ] = "y",
    hidden: Annotated[int, typer.Option("--hidden", help="Units of its hidden layer; 0: it is linear.")] = 128,
    seed: Annotated[int, typer.Option("--seed", help="Of its weights and of the samples held back.")] = 0,
    unit: UnitOption = "bits",
    form: FormatOption = None,
    out: OutOption = None,
    quiet: QuietOption = False,
) -> None:
    """Let a small classifier read a target in stored layers: how much of it they still hold.

    The network is not run. The classifier is fitted on the split train and asked on test where both were recorded,
    else a fifth of the samples is held back. Its accuracy stands beside chance, and information is a lower bound of
    I(target; layer). Without --waist it sees the values as they are; with one, what its reduction leaves of them.

    Example: `ibstore probe lab.zarr --layer features --target nuisance`
    """
    names, known = selected.named([VALUES])
    with listening(quiet) as emit:
        asked = selected.study().ask(names, known=known, emit=emit, **selected.about())
        table = asked.probe(target, hidden=hidden, seed=seed, unit=unit)
    write(table, form, out, BRIEF, CONTEXT)
