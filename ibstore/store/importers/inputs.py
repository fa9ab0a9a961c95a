"""The samples of an import: inputs, labels, ids and targets, from files of their own, beside or within the epochs."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from ibstore.errors import CaptureError, SourceError, ValuesError
from ibstore.events import Emit, Event
from ibstore.store.format.probe import ProbeSet
from ibstore.store.importers.expected import Expected
from ibstore.store.importers.files import one_array
from ibstore.store.importers.source import INPUTS, Array, Epoch, Source
from ibstore.store.probes import TARGET

NO_INPUTS: Final = "no inputs were given: X is the sample's number; give them with --x FILE"


def probe_set(source: Source, first: Epoch, expected: Expected, given: Mapping[str, Path], emit: Emit) -> ProbeSet:
    """Samples of the run: what is ``given`` by file as ``x`` and ``y``, else what the source has.

    Raises
    ------
    SourceError
        When there are no samples, their counts differ, a label is no integer, an id stands twice or a target is no
        finite number.
    """
    found = _found(source, first, expected, given)
    for name, array in found.items():
        array.check_rows()
        if array.shape[0] != expected.samples:
            raise SourceError(
                f"{array.where} has {array.shape[0]} samples where {expected.where} has {expected.samples}; give "
                f"{name} of the samples that were recorded, in their order"
            )
    values: dict[str, NDArray[Any]] = {name: array.whole() for name, array in found.items()}
    if "x" not in values:
        emit(Event("notice", detail=NO_INPUTS))
        values["x"] = np.arange(expected.samples, dtype=np.int64)[:, None]
    targets = {name.removeprefix(TARGET): each for name, each in values.items() if name.startswith(TARGET)}
    try:
        return ProbeSet.of(values["x"], values.get("y"), values.get("sample"), targets)
    except (CaptureError, ValuesError) as error:
        wheres = ", ".join(array.where for array in found.values()) or expected.where
        raise SourceError(f"{wheres}: {error}") from None


def _found(source: Source, first: Epoch, expected: Expected, given: Mapping[str, Path]) -> dict[str, Array]:
    within = {name: array for name, array in first.arrays.items() if name in INPUTS and name not in expected.layers}
    files = {name: one_array(file, name) for name, file in given.items()}
    return {**within, **source.inputs, **files}
