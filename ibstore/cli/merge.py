"""`ibstore merge`: bring the runs of several stores into one."""

from typing import Annotated

import typer

from ibstore.cli.cp import copied
from ibstore.cli.output import QuietOption
from ibstore.cli.progress import listening
from ibstore.errors import UsageError

NAME = "merge"


def command(
    target: Annotated[str, typer.Argument(metavar="A", help="Path or URL of the store to bring runs into.")],
    sources: Annotated[list[str], typer.Argument(metavar="B…", help="Stores whose runs are copied.")],
    rename: Annotated[
        list[str] | None, typer.Option("--rename", help="Give run OLD the name NEW: `OLD=NEW`; may be repeated.")
    ] = None,
    quiet: QuietOption = False,
) -> None:
    """Copy all runs of other stores into one.

    Probe sets that they share are stored once.
    Names that would stand for two runs are listed, and nothing is copied: give another name with --rename.

    Example: `ibstore merge lab.zarr other.zarr --rename 'mnist-cnn-seed0=seed0-again'`
    """
    from ibstore.store.upkeep.copy import merge_stores

    pairs = [_renaming(text) for text in rename or []]
    renamed = dict(pairs)
    if len(renamed) < len(pairs):
        raise UsageError("--rename has one run twice; give each one new name")
    with listening(quiet) as emit:
        names = merge_stores(target, sources, renamed, emit)
        emit(copied(names, target))


def _renaming(text: str) -> tuple[str, str]:
    old, _, new = text.partition("=")
    if not old or not new:
        raise UsageError(f"--rename {text!r} is not understood; write OLD=NEW")
    return old, new
