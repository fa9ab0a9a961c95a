"""`ibstore import`: activations that other code wrote become a run."""

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from ibstore.cli.output import QuietOption
from ibstore.cli.progress import listening, tell
from ibstore.store.format.layout import counted, size

NAME = "import"


class Format(StrEnum):
    """What can be imported."""

    NPZ = "npz"
    NPY = "npy"
    SAFETENSORS = "safetensors"
    HDF5 = "hdf5"
    PICKLE = "pickle"


def command(
    source: Annotated[str, typer.Argument(metavar="SRC", help="Folder or file of activations.", show_default=False)],
    store: Annotated[str, typer.Argument(metavar="STORE", help="Path or URL of the store; made where there is none.")],
    run: Annotated[str | None, typer.Option("--run", help="Name of the run; by default SRC's.")] = None,
    form: Annotated[
        Format | None, typer.Option("--format", "-f", help="Format of the files; by default what they look like.")
    ] = None,
    x: Annotated[Path | None, typer.Option("--x", help="File of the inputs (.npy, .npz, .safetensors).")] = None,
    y: Annotated[Path | None, typer.Option("--y", help="File of the integer labels.")] = None,
    split: Annotated[str | None, typer.Option("--split", help="Name of the samples, such as train.")] = None,
    layers: Annotated[
        str | None, typer.Option("--layers", help="Which layers, in execution order: conv1,conv2,out.")
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Remove a run of that name first.")] = False,
    resume: Annotated[bool, typer.Option("--resume", help="Go on with an import that was cut short.")] = False,
    quiet: QuietOption = False,
) -> None:
    """Commit activations that other code wrote, as a run.

    Nothing is lost, and no pickle's code is run.

    Reads folders of .npz, .npy or .safetensors files, an HDF5 file of one group an epoch, folders of pickles as the
    code of Saxe et al. writes them, and what `ibstore export` wrote. Names say which epoch a file is, such as
    epoch_3.npz or conv1_epoch3.npy; docs/moving.md lists them all.

    Example: `ibstore import activations lab.zarr --x inputs.npy --y labels.npy --layers conv1,conv2,out`
    """
    from ibstore.errors import UsageError
    from ibstore.store.importers import import_run

    if force and resume:
        raise UsageError("--force begins anew and --resume goes on; give one of them")
    names = None if layers is None else layers.split(",")
    with listening(quiet) as emit:
        imported = import_run(
            source,
            store,
            run=run,
            form=form,
            x=x,
            y=y,
            split=split,
            layers=names,
            force=force,
            resume=resume,
            emit=emit,
        )
    if not quiet:
        stored = size(imported.stored_bytes)
        tell(f"run {imported.name}: {counted(len(imported.epochs), 'epoch')}, {stored} in {store}")
        tell(f"next: ibstore analyze {store}")
