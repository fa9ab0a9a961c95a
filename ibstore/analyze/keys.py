"""Keys of single samples, as they were counted: what questions beyond the counts of one layer are made of.

They are read from the kept table ``patterns``; what is not kept there is computed once more and kept.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING, Final

import numpy as np
from numpy.typing import NDArray

from ibstore.analyze.engine import compute
from ibstore.analyze.estimate.joint import Joint, joint
from ibstore.analyze.narrow import nan_refused
from ibstore.analyze.parts import Parts
from ibstore.analyze.plan import Budget, plan
from ibstore.analyze.tasks import Task
from ibstore.events import Emit

if TYPE_CHECKING:
    import polars as pl

Codes = NDArray[np.int64]

NAMES: Final = ("run", "split", "epoch", "layer", "channel", "waist", "edges")
"""What a row is of, in tables."""


@dataclass(frozen=True)
class Keyed:
    """A task's layer at an epoch: keys ``t``, codes of the input ``x`` and labels ``y``, in the order of sample ids."""

    task: Task
    epoch: int
    x: Codes
    t: "pl.Series"
    y: Codes | None

    @property
    def names(self) -> dict[str, str | int]:
        """What it is in tables."""
        return names_of(self.task, self.epoch)

    @cached_property
    def t_codes(self) -> Codes:
        """A number for each distinct key of the layer, (sample,)."""
        return codes(self.t)

    @cached_property
    def joint(self) -> Joint:
        """X, T and Y together."""
        return joint(self.x, self.t_codes, self.y)


def names_of(task: Task, epoch: int) -> dict[str, str | int]:
    """What a row about a task's layer at an epoch is of: `NAMES`."""
    own: dict[str, str | int] = {**task.names, "edges": task.edges, "epoch": epoch}
    return {name: own[name] for name in NAMES}


def codes(keys: "pl.Series") -> Codes:
    """A number for each distinct key, by their order.

    >>> import polars as pl
    >>> codes(pl.Series([b"b", b"a", b"b"])).tolist()
    [2, 1, 2]
    """
    return keys.rank("dense").to_numpy().astype(np.int64)


def keyed(
    todo: Sequence[Task], epochs: Sequence[int] | None, parts: Parts, budget: Budget, emit: Emit
) -> Iterator[Keyed]:
    """Keys of every task, epoch by epoch, in the tasks' order.

    Raises
    ------
    ValuesError
        When an epoch has no keys since there is NaN.
    """
    keep(todo, parts, budget, emit)
    input_of: tuple[str, Codes] | None = None
    for task in todo:
        if input_of is None or input_of[0] != task.x_key:
            input_of = task.x_key, codes(_rows(parts, task.x_key)["key"])
        own = _rows(parts, task.t_key).partition_by("epoch", as_dict=True, include_key=False)
        y = _labels(task)
        for epoch in task.segment.record.epochs:
            if epochs is not None and epoch not in epochs:
                continue
            if (epoch,) not in own:
                raise nan_refused(f"{task.what}, epoch {epoch}")
            yield Keyed(task, epoch, input_of[1], own[epoch,]["key"], y)


def keep(todo: Sequence[Task], parts: Parts, budget: Budget, emit: Emit) -> None:
    """Compute and keep the keys that are not kept."""
    there = parts.existing("patterns", {key for task in todo for key in (task.x_key, task.t_key)})
    missing = [task for task in todo if not {task.x_key, task.t_key} <= there]
    keeping = replace(budget, keep_keys="always")
    compute(plan(missing, keeping, there), [], parts, keeping, emit)


def _rows(parts: Parts, key: str) -> "pl.DataFrame":
    """Epoch, sample and key of a part, in that order."""
    [found] = parts.rows("patterns", [key])
    return found.sort("epoch", "sample")


def _labels(task: Task) -> Codes | None:
    probe = task.run.probe(task.split)
    classes = probe.classes()
    return None if classes is None else classes[np.argsort(probe.samples(), kind="stable")]
