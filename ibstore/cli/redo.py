"""Command lines that make again what a store holds, from what its manifests say."""

import platform
import shlex
from collections.abc import Iterable, Iterator, Mapping
from importlib.metadata import version
from typing import TYPE_CHECKING, Any, Final

from ibstore.cli.capturing import PLUGIN, RULE
from ibstore.store.format.encoding import CODEC
from ibstore.store.format.layout import CHUNK_BYTES

if TYPE_CHECKING:
    from ibstore.analyze import Waist
    from ibstore.store import Manifest

Words = Iterable[str]

UNSAID: Final[Mapping[str, object]] = {
    "seed": 0,
    "data-seed": 0,
    "probe-batch": 1000,
    "codec": CODEC,
    "chunk-bytes": CHUNK_BYTES,
}
"""What `ibstore capture` does unless something else is said."""

OF_SETTINGS: Final = ("epochs", "batch_size", "lr", "limit", "train_fraction", "data_seed", "probe", "schedule")
OF_MANIFEST: Final = ("seed", "threads", "device", "probe_batch", "codec", "chunk_bytes")
FROM_FILES: Final = ("mnist", "cifar10", "cifar10-zca")
"""How data sets are called that need files of the user's."""

USUAL: Final[Mapping[str, object]] = {"channels": "concat", "unit": "bits", "beta": 1.0, "diagnose": "last"}
"""What a question is unless something else is said."""

SWITCHES: Final = ("fixed_minibatches", "parallel_minibatches")


def captured(manifest: "Manifest", store: str) -> str | None:
    """The line that trains and records a run of a recipe again; None for what a loop of one's own recorded.

    Run by run: a replica of many is made alone, and its numbers agree with those of then within float tolerance.
    """
    settings = manifest.settings
    if manifest.recipe is None or "dataset" not in settings:
        return None
    words = ["ibstore", "capture", _recipe(manifest.recipe), "--store", store, "--run", manifest.run]
    return shlex.join([*words, *_options(manifest), *_lists(manifest), *_stop(settings.get("stopping"))])


def asked(command: str, store: str, waists: "Iterable[Waist]", **options: Any) -> str:
    """The line that asks under some waists: presets by name, others by their text.

    ``options`` are the command's, by their names; None, an empty list and what is usual are not said.

    >>> from ibstore.analyze.waist import presets
    >>> asked("analyze", "lab.zarr", [presets()["thesis-6.2"]], unit="nats", layer=["out"], epoch=None)
    'ibstore analyze lab.zarr --waist thesis-6.2 --unit nats --layer out'
    """
    from ibstore.analyze.waist import presets

    words = ["ibstore", command, store]
    for waist in waists:
        text = "; ".join(f"{layer}={recipe}" for layer, recipe in waist.texts.items())
        words += ["--waist", waist.name if waist.name in presets() else f"{waist.name}: {text}"]
    for name, value in options.items():
        if value is not None and value != USUAL.get(name):
            words += [
                word for each in (value if isinstance(value, list) else [value]) for word in (f"--{name}", f"{each}")
            ]
    return shlex.join(words)


def versions() -> str:
    """Versions of what the numbers hang on, here and now."""
    kept = ("ibstore", "torch", "zarr", "duckdb", "polars", "numpy")
    return ", ".join([*(f"{package} {version(package)}" for package in kept), f"Python {platform.python_version()}"])


def _recipe(name: str) -> str:
    """A bundled recipe by its name; one's own is in a file that a manifest does not name."""
    from ibstore.capture.recipes import recipe_names

    return name if name in recipe_names() else f"FILE.py:{name}"


def _options(manifest: "Manifest") -> Iterator[str]:
    """Options with a value, where it is not what would be done unsaid."""
    settings = manifest.settings
    own: dict[str, object] = {name: settings.get(name) for name in OF_SETTINGS}
    own |= {"optimizer": (manifest.optimizer or "").partition("(")[0] or None, "dtype": manifest.rounding}
    own |= {name: getattr(manifest, name) for name in OF_MANIFEST}
    for name, value in own.items():
        option = name.replace("_", "-")
        if value is not None and value != UNSAID.get(option):
            yield from (f"--{option}", str(value))
    yield from _data(str(settings["dataset"]))


def _data(name: str) -> Words:
    """The data set, as a run names it: one that is made of another by that of both that it hangs on."""
    from ibstore.capture.datasets.catalogue import LOADERS

    made = [] if name not in LOADERS else ["--dataset", name]
    return made + (["--data-dir", "DIR"] if name.endswith(FROM_FILES) else [])


def _lists(manifest: "Manifest") -> Iterator[str]:
    """Options that may be repeated, and those without a value."""
    settings = manifest.settings
    for name, value in settings.get("options", {}).items():
        yield from ("--set", f"{name}={value}")
    for layer in manifest.layers:
        yield from ("--layer", layer.name)
    for split in manifest.splits:
        yield from ("--split", split.name)
    yield from (f"--{name.replace('_', '-')}" for name in SWITCHES if settings.get(name))


def _stop(rule: Mapping[str, Any] | None) -> Iterator[str]:
    """What stopped it, or would have: the rule tells its estimator as ``plugin of identity | sign, in bits``."""
    if rule is None:
        return
    estimator, _, recipe = str(rule["estimator"]).partition(" of ")
    yield from ("--stop-information", recipe.rpartition(", in ")[0], "--stop-layer", str(rule["layer"]))
    yield from () if estimator == PLUGIN else ("--stop-estimator", estimator)
    numbers = ", ".join(f"{name}={rule[name]:g}" for name in ("beta", "tol", "every", "patience"))
    yield from () if numbers == RULE else ("--stop-rule", numbers)
