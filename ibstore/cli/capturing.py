"""The options of `ibstore capture` in four groups: the training, what is recorded, how many, what stops it."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ibstore.errors import UsageError

if TYPE_CHECKING:
    from ibstore.capture.train import MakeStopping

RULE = "beta=1, tol=0.1, every=10, patience=1"
PLUGIN = "plugin"
"""What stops a training unless something else is said."""


def training(
    dataset: Annotated[
        str | None, typer.Option("--dataset", help="Data set by name, such as mnist; an unknown one lists them.")
    ] = None,
    data_dir: Annotated[Path | None, typer.Option("--data-dir", help="Folder with a data set's files.")] = None,
    limit: Annotated[int | None, typer.Option("--limit", help="Train on the first N samples.")] = None,
    train_fraction: Annotated[
        float | None, typer.Option("--train-fraction", help="Train on that part of them, drawn class by class.")
    ] = None,
    epochs: Annotated[int | None, typer.Option("--epochs", help="Epochs to train.")] = None,
    batch_size: Annotated[int | None, typer.Option("--batch-size", help="Samples in a training batch.")] = None,
    lr: Annotated[float | None, typer.Option("--lr", help="Learning rate.")] = None,
    optimizer: Annotated[
        str | None, typer.Option("--optimizer", help="Adam, SGD, SGD-momentum, SGD-momentum-decay or Adadelta.")
    ] = None,
    set_: Annotated[
        list[str] | None, typer.Option("--set", metavar="NAME=VALUE", help="An option of the recipe; may be repeated.")
    ] = None,
    width: Annotated[
        float | None, typer.Option("--width", help="As --set width=…: layers narrower, such as 0.25, or wider.")
    ] = None,
    seed: Annotated[int, typer.Option("--seed", help="Seed of weights and data order.")] = 0,
    data_seed: Annotated[
        int, typer.Option("--data-seed", help="Seed of generated data, of the part trained on, and of the probe.")
    ] = 0,
    device: Annotated[str, typer.Option("--device", help="auto, cpu, cuda, cuda:1, …")] = "auto",
    threads: Annotated[
        int | None,
        typer.Option(
            "--threads",
            help="torch's threads; by default one for tiny networks and with --scheduler, all for others and "
            "--replicas.",
        ),
    ] = None,
) -> dict[str, Any]:
    """What `TrainSettings.of` takes of them."""
    given = dict(locals())
    pairs = [_pair(text) for text in given.pop("set_") or []]
    pairs += [("width", str(width))] if given.pop("width") is not None else []
    options = dict(pairs)
    if len(options) < len(pairs):
        raise UsageError("an option of the recipe is said twice; give each once, or all its values in one --sweep")
    return given | {"options": options}


def recording(
    layer: Annotated[
        list[str] | None,
        typer.Option("--layer", help="Record this layer instead of the recipe's own; may be repeated."),
    ] = None,
    split: Annotated[
        list[str] | None, typer.Option("--split", help="Record train, test or all; may be repeated.")
    ] = None,
    probe: Annotated[
        int | None, typer.Option("--probe", help="Record N samples of each split, drawn class by class.")
    ] = None,
    probe_batch: Annotated[int, typer.Option("--probe-batch", help="Samples in a recorded batch.")] = 1000,
    every: Annotated[int | None, typer.Option("--every", help="Record every N-th epoch.")] = None,
    schedule: Annotated[
        str | None,
        typer.Option("--schedule", help="Record at every:N, log:N or list:A,B,… of @steps or @epochs."),
    ] = None,
    fixed_minibatches: Annotated[
        bool, typer.Option("--fixed-minibatches", help="Also gradients of all minibatches at the same weights.")
    ] = False,
    parallel_minibatches: Annotated[
        bool,
        typer.Option("--parallel-minibatches", help="Also gradients of networks trained on one minibatch each."),
    ] = False,
    dtype: Annotated[
        str | None, typer.Option("--dtype", help="Round to float16, bfloat16 or float32; by default nothing is lost.")
    ] = None,
    codec: Annotated[str, typer.Option("--codec", help="zstd, zstd:LEVEL, lz4 or none; all lossless.")] = "zstd:-1",
    chunk_bytes: Annotated[int, typer.Option("--chunk-bytes", help="Bytes of a chunk before compression.")] = 4194304,
) -> dict[str, Any]:
    """What `TrainSettings.of` takes of them for `Recording`."""
    from ibstore.capture.schedule import Schedule
    from ibstore.store import Encoding

    if every is not None and schedule is not None:
        raise UsageError("--every and --schedule both say when to record; give one of them")
    text = f"every:{every}" if every is not None else schedule
    return {
        "layers": tuple(layer) if layer else None,
        "splits": tuple(split) if split else None,
        "probe": probe,
        "probe_batch": probe_batch,
        "schedule": None if text is None else Schedule.parse(text),
        "fixed_minibatches": fixed_minibatches,
        "parallel_minibatches": parallel_minibatches,
        "dtype": dtype,
        "encoding": Encoding(codec, chunk_bytes),
    }


@dataclass(frozen=True)
class Many:
    """How many trainings are asked for."""

    replicas: int | None
    at_once: int | None
    same_init: bool
    sweeps: list[str]


def many(
    replicas: Annotated[
        int | None, typer.Option("--replicas", help="Train N networks of successive seeds at once, each a run.")
    ] = None,
    at_once: Annotated[
        int | None,
        typer.Option("--at-once", help="So many of --replicas at a time; by default all, with --scheduler their root."),
    ] = None,
    same_init: Annotated[
        bool, typer.Option("--same-init", help="With --replicas: all begin with the same weights.")
    ] = False,
    sweep: Annotated[
        list[str] | None,
        typer.Option("--sweep", metavar="NAME=VALUES", help="Train one after another: lr=0.1,0.01 or seed=0:5."),
    ] = None,
    hidden_layers: Annotated[
        str | None, typer.Option("--hidden-layers", help="As --sweep hidden_layers=…, such as 1:6.")
    ] = None,
) -> Many:
    """How many trainings they ask for."""
    if replicas is None and (same_init or at_once is not None):
        said = "--same-init" if same_init else "--at-once"
        raise UsageError(f"{said} is about networks that are trained at once; give --replicas N with it")
    sweeps = list(sweep or []) + ([f"hidden_layers={hidden_layers}"] if hidden_layers else [])
    return Many(replicas, at_once, same_init, sweeps)


@dataclass(frozen=True)
class Stop:
    """What may stop a training before its last epoch."""

    waist: str | None
    layer: str | None
    estimator: str
    rule: dict[str, Any]

    def maker(self) -> "MakeStopping | None":
        """Makes what stops a run, of the last layer that it records; None where nothing does."""
        if self.waist is None:
            return None
        from ibstore.analyze import informations
        from ibstore.capture.stopping import InformationStopping

        waist = self.waist

        def make(last: str) -> InformationStopping:
            layer = self.layer or last
            try:
                estimator = informations(waist, layer, self.estimator)
            except UsageError as error:
                raise UsageError(f"--stop-information {waist!r}: {error}") from None
            return InformationStopping(estimator, layer, **self.rule)

        return make


def stop(
    stop_information: Annotated[
        str | None,
        typer.Option(
            "--stop-information",
            metavar="WAIST",
            help="Stop when I(T;Y) − β·I(X;T) of the last layer grows no more, by a waist or a recipe.",
        ),
    ] = None,
    stop_layer: Annotated[str | None, typer.Option("--stop-layer", help="Look at this layer instead.")] = None,
    stop_estimator: Annotated[str, typer.Option("--stop-estimator", help="Estimator of entropy.")] = PLUGIN,
    stop_rule: Annotated[str, typer.Option("--stop-rule", help="Its numbers; every counts epochs.")] = RULE,
) -> Stop:
    """What they stop a training by."""
    if stop_information is None and (stop_layer is not None or stop_estimator != PLUGIN or stop_rule != RULE):
        raise UsageError(
            "--stop-layer, --stop-estimator and --stop-rule say how to look; say by which waist with --stop-information"
        )
    return Stop(stop_information, stop_layer, stop_estimator, _rule(stop_rule))


def _pair(text: str) -> tuple[str, str]:
    name, equals, value = text.partition("=")
    if not (name and equals and value):
        raise UsageError(f"--set {text!r} cannot be read; write --set NAME=VALUE, such as --set activation=relu")
    return name.strip().replace("-", "_"), value.strip()


def _rule(text: str) -> dict[str, Any]:
    kinds = {"beta": float, "tol": float, "every": int, "patience": int}
    found = {}
    for part in text.split(","):
        name, _, value = (each.strip() for each in part.partition("="))
        if name in found:
            raise UsageError(f"--stop-rule {text!r} says {name} twice; give each once")
        try:
            found[name] = kinds[name](value)
        except (KeyError, ValueError):
            raise UsageError(
                f"--stop-rule {text!r} cannot be read at {part.strip()!r}; write numbers for some of "
                f"{', '.join(kinds)}, such as beta=1, tol=0.1"
            ) from None
    return found
