"""Pickles as the code of Saxe et al. (2018) writes them: a file an epoch, ``{'epoch', 'data', 'loss'}``."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any, Final

import numpy as np

from ibstore.errors import SourceError
from ibstore.store.importers import pickles
from ibstore.store.importers.folders import files_of, inputs_beside
from ibstore.store.importers.names import epoch_of
from ibstore.store.importers.source import Array, Epoch, Source, array_of, numbered, reading

SUFFIXES: Final = ("", ".pkl", ".pickle", ".p")
LAYERS: Final = "activity_"
SPLITS: Final = {"trn": "train", "tst": "test"}
METRICS: Final = ("loss", "accuracy")
"""Names of what Keras' ``evaluate`` gives."""


def epoch_pickles(path: Path) -> list[Path]:
    """Files of a folder that are called as epochs are and have no other format's ending."""
    return [file for file in files_of(path, "*") if file.suffix in SUFFIXES and epoch_of(file.stem) is not None]


@contextmanager
def saxe_folder(path: Path) -> Iterator[Source]:
    """Source of a folder of such pickles, or of a single one."""
    files = epoch_pickles(path) if path.is_dir() else [path]
    found = []
    for file in files:
        epoch = epoch_of(file.stem)
        if epoch is None:
            raise SourceError(f"{file} names no epoch; call it epoch00000003")
        found.append((epoch, str(file), partial(_epoch, file, epoch)))
    yield Source(numbered(found), sized=False, inputs=inputs_beside(path), split="test")


def _epoch(file: Path, number: int) -> Epoch:
    with reading(str(file)):
        content = pickles.load(file)
        if not isinstance(content, dict) or not isinstance(content.get("data"), dict):
            raise ValueError("it has no dict 'data'")  # noqa: TRY004  (bad data, not a bad argument)
        if content.get("epoch", number) != number:
            raise ValueError(f"it says that it is epoch {content['epoch']!r}")
        arrays = _layers(file, content["data"])
        metrics = _losses(content.get("loss", {}))
        return Epoch(str(file), arrays, None, _merged(metrics, _dynamics(content["data"], list(arrays))))


def _layers(file: Path, data: Mapping[Any, Any]) -> dict[str, Array]:
    """Activations of the test set: ``layer0``, ``layer1``, … in the list's order."""
    activity = data.get(f"{LAYERS}tst")
    if not isinstance(activity, list | tuple) or not all(isinstance(each, pickles.Numbers) for each in activity):
        raise ValueError("its data have no list of arrays 'activity_tst'")
    return {
        f"layer{number}": array_of(each.values, f"{file}, activity_tst[{number}]")
        for number, each in enumerate(activity)
    }


def _losses(loss: Any) -> dict[str, dict[str, float]]:
    """``{'trn': 0.1}`` or ``{'trn': [loss, accuracy]}``, or the loss alone, as metrics of the splits."""
    by_split = loss if isinstance(loss, dict) else {"tst": loss}
    metrics = {SPLITS.get(str(split), str(split)): _named(values) for split, values in by_split.items()}
    return {split: scalars for split, scalars in metrics.items() if scalars}


def _named(values: Any) -> dict[str, float]:
    several = values if isinstance(values, list | tuple) else [values]
    found = [_scalar(value) for value in several]
    names = (*METRICS, *(f"metric{number}" for number in range(len(METRICS), len(found))))
    return {name: value for name, value in zip(names, found, strict=False) if value is not None}


def _dynamics(data: Mapping[Any, Any], layers: list[str]) -> dict[str, dict[str, float]]:
    """What else there is of each layer, such as ``gradmean``, as metrics ``gradmean.layer0`` of the training."""
    found = {}
    for name, values in data.items():
        if isinstance(values, list | tuple) and len(values) == len(layers):
            for layer, value in zip(layers, values, strict=True):
                scalar = _scalar(value)
                if scalar is not None:
                    found[f"{name}.{layer}"] = scalar
    return {"train": found} if found else {}


def _scalar(value: Any) -> float | None:
    """A number, or an array of one; None for all else."""
    plain = value.values if isinstance(value, pickles.Numbers) else value
    if isinstance(plain, np.ndarray):
        plain = plain.reshape(-1)[0] if plain.size == 1 else None
    return float(plain) if isinstance(plain, int | float | np.number) else None


def _merged(one: Mapping[str, dict[str, float]], other: Mapping[str, dict[str, float]]) -> dict[str, dict[str, float]]:
    return {split: {**one.get(split, {}), **other.get(split, {})} for split in dict.fromkeys((*one, *other))}
