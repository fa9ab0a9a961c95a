"""`ibstore capture`: train a recipe and record it, once or many times, or record checkpoints of long ago."""

from dataclasses import replace
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ibstore.cli import capturing
from ibstore.cli.allocator import keep_freed_memory
from ibstore.cli.arguments import SchedulerOption, check_lasting
from ibstore.cli.capturing import Many, Stop
from ibstore.cli.groups import grouped
from ibstore.cli.output import QuietOption
from ibstore.cli.progress import listening, tell
from ibstore.errors import UsageError
from ibstore.store.format.layout import counted, size

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ibstore.capture.recipes import Recipe
    from ibstore.capture.train import TrainSettings
    from ibstore.events import Emit

NAME = "capture"

THESIS = {"conv1", "conv2", "out"}
"""Layers that the default waist of `ibstore analyze` narrows."""

ANY = "bins: *=identity | equalmass(bins=30)"
"""A waist for other layers, to begin with."""


@grouped(capturing.training, capturing.recording, capturing.many, capturing.stop)
def command(
    training: dict[str, Any],
    recording: dict[str, Any],
    many: Many,
    stop: Stop,
    store: Annotated[str, typer.Option("--store", help="Path or URL of the store; made where there is none.")],
    recipe: Annotated[
        str | None,
        typer.Argument(metavar="RECIPE", help="What to train, such as mnist-cnn, or FILE.py:NAME.", show_default=False),
    ] = None,
    run: Annotated[
        str | None, typer.Option("--run", help="Name of the run; by default RECIPE-seedSEED. Of many: how they begin.")
    ] = None,
    from_checkpoints: Annotated[
        str | None,
        typer.Option("--from-checkpoints", metavar="GLOB", help="Train nothing: record these state dicts, in order."),
    ] = None,
    model: Annotated[
        str | None,
        typer.Option("--model", metavar="MODULE:FACTORY", help="With --from-checkpoints: what makes the network."),
    ] = None,
    force: Annotated[
        bool,
        typer.Option(
            "--force", help="Remove a run of that name first (not with --resume); go on though space is short."
        ),
    ] = False,
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on after the last committed epoch, bit for bit.")
    ] = False,
    scheduler: SchedulerOption = None,
    quiet: QuietOption = False,
) -> None:
    """Train a recipe and record every layer.

    From the untrained network (epoch 0) to the last epoch.
    What is not given is the recipe's own: mnist-cnn trains 10 epochs on mnist-sample (real digits that come with
    the installation), batch 100, Adam with lr 0.002. The same seed, device, threads and probe batch give the same
    store, bit for bit. Recipes: info-dropout-cifar, info-dropout-cluttered, info-dropout-mnist,
    info-dropout-occluded, keras-cnn, mlp-mnist, mnist-cnn, mnist14-conv, resnet18, szt, szt-complicated, szt-simple,
    vae-mnist.

    Example: `ibstore capture mnist-cnn --store lab.zarr --dataset mnist --data-dir data --epochs 10`

    Fifty networks at once: `ibstore capture szt --store lab.zarr --replicas 50`
    """
    check_lasting(store)
    keep_freed_memory()
    how: dict[str, Any] = {"force": force, "resume": resume}
    with listening(quiet) as emit:
        if from_checkpoints is not None:
            from ibstore.cli.checkpoints import record

            if many.replicas is not None or many.sweeps or stop.waist is not None or scheduler is not None:
                raise UsageError(
                    "--replicas, --sweep, --hidden-layers, --stop-information and --scheduler are about a training; "
                    "leave them out with --from-checkpoints"
                )
            names = [record(store, recipe, run, from_checkpoints, model, training, recording, emit=emit, **how)]
        else:
            if model is not None:
                raise UsageError("--model names the network of checkpoints; give --from-checkpoints GLOB with it")
            if recipe is None:
                raise UsageError("there is nothing to train; give a RECIPE, or --from-checkpoints GLOB with --model")
            names = _train(store, recipe, run, training | recording, many, stop, emit, how, scheduler)
    if not quiet:
        _tell(store, names)


def _train(
    store: str,
    name: str,
    run: str | None,
    given: dict[str, Any],
    many: Many,
    stop: Stop,
    emit: "Emit",
    how: dict[str, Any],
    scheduler: str | None,
) -> list[str]:
    """Train every combination that is asked for; return the runs' names."""
    from ibstore.capture.recipes import recipe as find_recipe
    from ibstore.capture.sweep import combinations, named, sorted_out
    from ibstore.capture.train import TrainSettings
    from ibstore.cli.spreading import Training, spread

    recipe = find_recipe(name)
    trainings = []
    for combination in combinations(many.sweeps):
        if many.replicas is not None and "seed" in combination:
            raise UsageError("--replicas are of successive seeds already; leave seed out of --sweep")
        swept = sorted_out(combination)
        _check_said_once(given, combination)
        options = given["options"] | swept.pop("options", {})
        settings = TrainSettings.of(recipe, **given | swept | {"options": options})
        own = named(recipe.name if run is None else run, combination)
        if many.replicas is not None:  # a tiny network has work for one thread, many at once have it for all
            settings = replace(settings, threads=given["threads"])
        elif run is None or "seed" in combination:
            own = f"{own}-seed{settings.seed}"
        trainings.append(Training(recipe, store, own, settings, stop, many))
    _check_all(recipe, [training.settings for training in trainings])
    if scheduler is not None:
        return spread(scheduler, name, trainings, emit=emit, **how)
    return [name for training in trainings for name in training.carry_out(emit=emit, **how)]


def _check_all(recipe: "Recipe", settings: "Sequence[TrainSettings]") -> None:
    """Return when each of several trainings can begin, and no two are the same: the last may be hours away."""
    from ibstore.capture.train import check_options

    for number, each in enumerate(settings):
        if each in settings[:number]:
            raise UsageError("two of the trainings that are swept are the same; give each value once")
        if len(settings) > 1:
            check_options(recipe, each)


def _check_said_once(given: dict[str, Any], combination: dict[str, str]) -> None:
    """Return when nothing is swept that an option of its own says, too; seeds have a value that is not asked for."""
    said = {name for name, value in given.items() if value not in (None, 0)} | given["options"].keys()
    twice = [name for name in combination if name in said]
    if twice:
        raise UsageError(f"{twice[0]} is swept, and said by an option of its own; leave one of them out")


def _tell(store: str, names: list[str]) -> None:
    from ibstore.store import Store

    opened = Store.open(store)
    fitting = set(THESIS)
    for name in names:
        run = opened.run(name)
        fitting &= {layer.name for layer in run.manifest.layers}
        scalars = run.segments[-1].record.metrics[-1]
        told = ", ".join(
            f"{split} {metric} {value:.4f}" for split, values in scalars.items() for metric, value in values.items()
        )
        metrics = f"; {told}" if told else ""
        tell(f"run {name}: {counted(len(run.epochs), 'epoch')}, {size(run.stored_bytes)} in {store}{metrics}")
    waist = "" if fitting >= THESIS else f" --waist '{ANY}'"
    tell(f"next: ibstore analyze {store}{waist}")
