"""`ibstore rm`: remove runs."""

import sys
from typing import TYPE_CHECKING, Annotated

import typer

from ibstore.cli.arguments import StoreArgument, YesOption
from ibstore.cli.output import QuietOption
from ibstore.cli.progress import listening
from ibstore.errors import UsageError
from ibstore.events import Event
from ibstore.store.format.layout import counted, size

if TYPE_CHECKING:
    from ibstore.store.upkeep.remove import Removal

NAME = "rm"


def command(
    store: StoreArgument,
    runs: Annotated[list[str], typer.Argument(metavar="RUN…", help="Names of the runs.", show_default=False)],
    yes: YesOption = False,
    quiet: QuietOption = False,
) -> None:
    """Remove runs.

    With them go the states of their trainings, and the probe sets that no other run uses.
    Says what will be removed and asks; where nobody can be asked, it needs --yes. A run that is being written is
    refused.

    Example: `ibstore rm lab.zarr mnist-cnn-seed0 --yes`
    """
    from ibstore.store.upkeep.remove import plan_removal, remove_runs

    planned = _text(plan_removal(store, runs))
    if not yes:
        if not sys.stdin.isatty():
            raise UsageError(f"this would remove {planned}; nothing was removed: give --yes")
        typer.confirm(f"Remove {planned}?", abort=True, err=True)
    with listening(quiet) as emit:
        removed = remove_runs(store, runs, emit)
        emit(Event("notice", detail=f"removed {_text(removed)}"))


def _text(removal: "Removal") -> str:
    """What is removed, in words."""
    runs = [f"run {name!r} ({counted(len(epochs), 'epoch')})" for name, epochs in removal.runs.items()]
    probe_sets = [f"probe set {digest}" for digest in removal.probe_sets]
    return f"{', '.join([*runs, *probe_sets])}: {size(removal.bytes)}"
