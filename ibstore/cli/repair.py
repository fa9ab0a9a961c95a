"""`ibstore repair`: remove what no commit record names."""

import sys
from collections.abc import Iterator
from typing import TYPE_CHECKING

from ibstore.cli.arguments import StoreArgument, YesOption
from ibstore.cli.output import QuietOption
from ibstore.cli.progress import listening
from ibstore.events import Event

if TYPE_CHECKING:
    from ibstore.store.upkeep.report import Report

NAME = "repair"


def command(store: StoreArgument, yes: YesOption = False, quiet: QuietOption = False) -> None:
    """Remove what killed writers left in a store.

    Without --yes it only lists that.
    Only what no commit record names is removed: segments that were never committed, temporary files, leases of dead
    writers, foreign files. What was committed stays, damaged or not, and runs that are being written are let alone.

    Example: `ibstore repair lab.zarr --yes`
    """
    from ibstore.store.upkeep.repair import repair
    from ibstore.store.upkeep.verify import verify

    with listening(quiet) as emit:
        report = verify(store, emit=emit)
        for found in report.leftovers:
            sys.stdout.write(f"{found.kind}: {found.message.partition(';')[0]}\n")
        removed = repair(store, report.leftovers, emit) if yes and report.leftovers else []
        for sentence in _sentences(report, len(removed) if yes else None):
            emit(Event("notice", detail=sentence))


def _sentences(report: "Report", removed: int | None) -> Iterator[str]:
    """What was done, and what to do next."""
    store, count = report.store, len(report.leftovers)
    if report.damage:
        damage = len(report.damage)
        yield f"what is damaged stays as it is ({damage} findings); `ibstore verify {store}` says what to do"
    if not count:
        yield f"{store}: nothing is left over"
    elif removed is None:
        yield f"nothing was removed; `ibstore repair {store} --yes` removes what is listed"
    else:
        yield f"{store}: removed {removed} of {count} leftovers"
