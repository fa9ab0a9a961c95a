"""`ibstore export`: a run's activations as files that other programs read."""

from enum import StrEnum
from typing import Annotated

import typer

from ibstore.cli.arguments import EpochOption, LayerOption, StoreArgument
from ibstore.cli.output import QuietOption
from ibstore.cli.progress import listening, tell

NAME = "export"


class Format(StrEnum):
    """What can be exported."""

    NPZ = "npz"
    SAFETENSORS = "safetensors"
    PARQUET = "parquet"


def command(
    store: StoreArgument,
    run: Annotated[str, typer.Option("--run", help="Which run.")],
    out: Annotated[str, typer.Option("--out", "-o", help="Folder for the files; made where there is none.")],
    form: Annotated[Format, typer.Option("--format", "-f", help="Format of the files.")] = Format.NPZ,
    epoch: EpochOption = None,
    layer: LayerOption = None,
    split: Annotated[str | None, typer.Option("--split", help="Which split, where there are several.")] = None,
    force: Annotated[bool, typer.Option("--force", help="Replace the export that is there.")] = False,
    quiet: QuietOption = False,
) -> None:
    """Write a run's activations as files, one an epoch.

    Inputs and labels stand beside them. npz and safetensors have one array a layer; parquet one row a sample and one
    column a layer. Metrics and all else that is known of the run are in manifest.json, by which `ibstore import` gives
    the same run again.

    Example: `ibstore export lab.zarr --run mnist-cnn-seed0 --epoch 1 --format parquet --out activations`
    """
    from ibstore.store.exporters.export import export_run

    with listening(quiet) as emit:
        paths = export_run(store, run, out, form=form, epochs=epoch, layers=layer, split=split, force=force, emit=emit)
    if not quiet:
        tell(f"{len(paths)} files in {out}")
