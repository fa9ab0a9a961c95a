"""`ibstore capture`: train a bundled recipe and record it."""

from pathlib import Path
from typing import Annotated

import typer

from ibstore.cli.arguments import check_lasting
from ibstore.cli.output import QuietOption
from ibstore.cli.progress import listening, tell
from ibstore.store.format.layout import size

NAME = "capture"


def command(
    recipe: Annotated[
        str, typer.Argument(metavar="RECIPE", help="What to train, such as mnist-cnn.", show_default=False)
    ],
    store: Annotated[str, typer.Option("--store", help="Path or URL of the store; made where there is none.")],
    run: Annotated[str | None, typer.Option("--run", help="Name of the run; by default RECIPE-seedSEED.")] = None,
    dataset: Annotated[str | None, typer.Option("--dataset", help="mnist-sample (embedded) or mnist.")] = None,
    data_dir: Annotated[Path | None, typer.Option("--data-dir", help="Folder with a data set's files.")] = None,
    limit: Annotated[int | None, typer.Option("--limit", help="Train on the first N samples.")] = None,
    epochs: Annotated[int | None, typer.Option("--epochs", help="Epochs to train.")] = None,
    batch_size: Annotated[int | None, typer.Option("--batch-size", help="Samples in a training batch.")] = None,
    lr: Annotated[float | None, typer.Option("--lr", help="Learning rate.")] = None,
    seed: Annotated[int, typer.Option("--seed", help="Seed of weights and data order.")] = 0,
    device: Annotated[str, typer.Option("--device", help="auto, cpu, cuda, cuda:1, …")] = "auto",
    threads: Annotated[int | None, typer.Option("--threads", help="torch's threads.")] = None,
    dtype: Annotated[
        str | None, typer.Option("--dtype", help="Round to float16, bfloat16 or float32; by default nothing is lost.")
    ] = None,
    codec: Annotated[str, typer.Option("--codec", help="zstd, zstd:LEVEL, lz4 or none; all lossless.")] = "zstd:1",
    chunk_bytes: Annotated[int, typer.Option("--chunk-bytes", help="Bytes of a chunk before compression.")] = 4194304,
    probe_batch: Annotated[int, typer.Option("--probe-batch", help="Samples in a recorded batch.")] = 1000,
    force: Annotated[
        bool,
        typer.Option(
            "--force", help="Remove a run of that name first (not with --resume); go on though space is short."
        ),
    ] = False,
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on after the last committed epoch, bit for bit.")
    ] = False,
    quiet: QuietOption = False,
) -> None:
    """Train a recipe and record every layer.

    From the untrained network (epoch 0) to the last epoch.
    What is not given is the recipe's own: mnist-cnn trains 10 epochs on mnist-sample (real digits that come with
    the installation), batch 100, Adam with lr 0.002. The same seed, device, threads and probe batch give the same
    store, bit for bit.

    Example: `ibstore capture mnist-cnn --store lab.zarr --dataset mnist --data-dir data --epochs 10`
    """
    from ibstore.capture.recipes import recipe as find_recipe
    from ibstore.capture.train import TrainSettings, train
    from ibstore.store import Encoding

    check_lasting(store)
    settings = TrainSettings.of(
        find_recipe(recipe),
        dataset=dataset,
        data_dir=data_dir,
        limit=limit,
        epochs=epochs,
        batch_size=batch_size,
        lr=lr,
        seed=seed,
        device=device,
        threads=threads,
        dtype=dtype,
        encoding=Encoding(codec, chunk_bytes),
        probe_batch=probe_batch,
    )
    with listening(quiet) as emit:
        trained = train(recipe, store, settings=settings, run=run, force=force, resume=resume, emit=emit)
    if not quiet:
        _tell(store, trained.run)


def _tell(store: str, name: str) -> None:
    from ibstore.store import Store

    run = Store.open(store).run(name)
    scalars = run.segments[-1].record.metrics[-1]
    told = ", ".join(
        f"{split} {metric} {value:.4f}" for split, values in scalars.items() for metric, value in values.items()
    )
    tell(f"run {name}: {len(run.epochs)} epochs, {size(run.stored_bytes)} in {store}; {told}")
    tell(f"next: ibstore analyze {store}")
