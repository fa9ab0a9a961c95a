"""`ibstore capture --from-checkpoints`: the options of a training that was long ago."""

from typing import TYPE_CHECKING, Any, Final

from ibstore.errors import UsageError

if TYPE_CHECKING:
    from ibstore.events import Emit

TRAINING: Final = ("epochs", "batch_size", "lr", "optimizer")
"""What is said of a training alone."""


def record(
    store: str,
    recipe_name: str | None,
    run: str | None,
    pattern: str,
    model: str | None,
    training: dict[str, Any],
    recording: dict[str, Any],
    *,
    force: bool,
    resume: bool,
    emit: "Emit",
) -> str:
    """Record checkpoints of a recipe's network, or of one that ``model`` makes; return the run's name."""
    from ibstore.capture.checkpoints import record_checkpoints
    from ibstore.capture.datasets import load_dataset
    from ibstore.capture.recipes import recipe as find_recipe
    from ibstore.capture.training.job import probes_of
    from ibstore.capture.training.objectives import objective

    if (recipe_name is None) == (model is None):
        raise UsageError(
            "checkpoints are weights alone; give either --model MODULE:FACTORY or the RECIPE of their network, "
            "and put the pattern in quotes"
        )
    recipe = None if recipe_name is None else find_recipe(recipe_name)
    dataset = training["dataset"] or (None if recipe is None else recipe.dataset)
    if dataset is None:
        raise UsageError("the network has to be shown something; give --dataset, such as mnist-sample")
    if recording["schedule"] is not None:
        raise UsageError("which epochs are recorded is what the files say; leave --every and --schedule out")
    idle = [f"--{name.replace('_', '-')}" for name in TRAINING if training[name] is not None]
    if idle:
        raise UsageError(f"with --from-checkpoints nothing is trained; leave {', '.join(idle)} out")
    if model is not None and training["options"]:
        raise UsageError("--set is about a recipe's options; let --model name a function that needs none")
    sizes = {"limit": training["limit"], "fraction": training["train_fraction"], "seed": training["data_seed"]}
    data = load_dataset(dataset, training["data_dir"], **sizes)
    factory: Any = model
    own: dict[str, Any] = {"layers": recording["layers"]}
    if recipe is not None:
        options = recipe.with_options(training["options"])
        factory = lambda: recipe.make(options)  # noqa: E731  (a name for it would say no more)
        own = {
            "layers": recording["layers"] or recipe.recorded_layers(factory()),
            "measure": objective(recipe.loss).measure,
        }
    name = f"{recipe_name or model}-checkpoints".replace(":", "-") if run is None else run
    record_checkpoints(
        store,
        pattern,
        factory,
        probes=probes_of(data, recording["splits"] or ("train",), recording["probe"], training["data_seed"], emit),
        run=name,
        batch_size=recording["probe_batch"],
        dtype=recording["dtype"],
        encoding=recording["encoding"],
        device=training["device"],
        force=force,
        resume=resume,
        emit=emit,
        **own,
    )
    return name
