"""`ibstore cp`: copy runs into another store."""

from typing import Annotated

import typer

from ibstore.cli.arguments import RunOption
from ibstore.cli.output import QuietOption
from ibstore.cli.progress import listening
from ibstore.events import Event

NAME = "cp"


def command(
    source: Annotated[str, typer.Argument(metavar="SRC", help="Path or URL of a store.", show_default=False)],
    target: Annotated[
        str, typer.Argument(metavar="DST", help="Path or URL of a new or an existing store.", show_default=False)
    ],
    run: RunOption = None,
    quiet: QuietOption = False,
) -> None:
    """Copy runs between folders and buckets.

    Committed ones, with their probe sets, byte for byte.
    Each file is checked against its commit record on the way. A copied run is there when all of it is; a copy that
    was killed is completed by copying again. A run that is being written is copied as it stands.

    Example: `ibstore cp lab.zarr copy.zarr --run mnist-cnn-seed0`
    """
    from ibstore.store.upkeep.copy import copy_runs

    with listening(quiet) as emit:
        names = copy_runs(source, target, run, emit)
        emit(copied(names, target))


def copied(names: list[str], target: str) -> Event:
    """A notice of what was copied, and what to do next."""
    runs = f"{len(names)} run{'s' if len(names) != 1 else ''}"
    return Event("notice", detail=f"copied {runs} to {target}; next: ibstore ls {target}")
