"""The information plane: what is to be computed, computing what is missing, and the table.

I(X;T) = H(X) + H(T) − H(X,T) and I(T;Y) = H(T) + H(Y) − H(T,Y), with X, T and Y under their waist, estimated
from counts over the probe set. For X as the sample's identity and a deterministic network, I(X;T) = ``h_t``.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from io import BytesIO
from typing import TYPE_CHECKING, Any, Final

from ibstore.analyze.entropy import NATS_PER_BIT, CountsOfCounts, saturated
from ibstore.analyze.grammar import Recipe
from ibstore.analyze.parts import Parts, content_key, unreadable
from ibstore.analyze.waist import Waist
from ibstore.errors import StoreError, UnknownNameError
from ibstore.store import LayerInfo, Run, Segment, SplitInfo

if TYPE_CHECKING:
    import polars as pl

UNITS: Final = {"bits": 1.0, "nats": NATS_PER_BIT}
ENTROPIES: Final = ("h_x", "h_y", "h_t", "h_xt", "h_ty", "i_xt", "i_ty")
COLUMNS: Final = (
    *("run", "split", "epoch", "layer", "waist", "unit", "n"),
    *(*ENTROPIES, "beta", "ib"),
    *("distinct_x", "distinct_t", "singletons_t", "saturated"),
)
TEXT_COLUMNS: Final = ("run", "split", "layer", "waist")


@dataclass(frozen=True)
class Task:
    """One part of the table: a layer of a run's split under a waist, over the epochs of one segment."""

    run: Run
    split: SplitInfo
    waist: Waist
    layer: LayerInfo
    segment: Segment

    @property
    def recipe(self) -> Recipe:
        """The layer's recipe."""
        recipe = self.waist.recipe(self.layer.name)
        assert recipe is not None, "tasks are made for layers that the waist narrows"
        return recipe

    @property
    def fitted_on(self) -> tuple[Segment, ...]:
        """Segments that the bins' edges hang on."""
        return self.run.segments if self.recipe.per == "run" else (self.segment,)

    @cached_property
    def key(self) -> str:
        """Content key of the part."""
        return content_key(
            {
                **self.names,
                "x": self.waist.x.meaning,
                "t": self.recipe.meaning,
                "data": self.split.data,
                "epochs": self.segment.record.epochs,
                "files": self.segment.checksums(self.split, self.layer),
                "fitted_on": [segment.checksums(self.split, self.layer) for segment in self.fitted_on],
            }
        )

    @property
    def x_key(self) -> str:
        """Content key of the part that holds the input's patterns."""
        names = {**self.names, "layer": "x"}
        return content_key({**names, "x": self.waist.x.meaning, "data": self.split.data})

    @property
    def names(self) -> dict[str, str]:
        """The part's constant text columns."""
        return dict(zip(TEXT_COLUMNS, (self.run.name, self.split.name, self.layer.name, self.waist.name), strict=True))

    @property
    def what(self) -> str:
        """The layer, for messages."""
        return f"run {self.run.name!r}, layer {self.layer.name!r}"


def tasks(
    runs: Sequence[Run], waists: Sequence[Waist], layers: Sequence[str] | None, epochs: Sequence[int] | None
) -> list[Task]:
    """Everything that the table needs, in its order: run, split, waist, layer as executed, epoch.

    ``layers`` and ``epochs`` choose; None is all of them.

    Raises
    ------
    UnknownNameError
        When a waist narrows a layer that a run does not have, or ``layers`` names one that no waist narrows.
    """
    return [
        Task(run, split, waist, layer, segment)
        for run in sorted(runs, key=lambda run: run.name)
        for split in run.manifest.splits
        for waist in sorted(waists, key=lambda waist: waist.name)
        for layer in _layers(run, waist, layers)
        for segment in run.segments
        if epochs is None or set(epochs) & set(segment.record.epochs)
    ]


def _layers(run: Run, waist: Waist, wanted: Sequence[str] | None) -> list[LayerInfo]:
    """Layers of a run that a waist narrows, in execution order."""
    has = [layer.name for layer in run.manifest.layers]
    for name in waist.layers if wanted is None else wanted:
        if name not in has:
            asked = f"waist {waist.name!r} narrows" if wanted is None else "--layer asks for"
            raise UnknownNameError(
                f"{asked} layer {name!r}, which run {run.name!r} does not have; it has {', '.join(has)}: choose among "
                "them with --layer, other runs with --run, or give another waist"
            )
        if waist.recipe(name) is None:
            raise UnknownNameError(
                f"waist {waist.name!r} has no recipe for layer {name!r}; it narrows {', '.join(waist.layers)}"
            )
    chosen = set(has if wanted is None else wanted)
    return [layer for layer in run.manifest.layers if layer.name in chosen and waist.recipe(layer.name)]


def rows(task: Task, counts: Mapping[int, Mapping[str, CountsOfCounts]], labelled: bool) -> "pl.DataFrame":
    """A task's part of the table, in bits."""
    import polars as pl

    found = [{**task.names, "epoch": epoch, **row(counts[epoch], labelled)} for epoch in sorted(counts)]
    return pl.DataFrame(found, schema=schema())


def row(counts: Mapping[str, CountsOfCounts], labelled: bool = True) -> dict[str, Any]:
    """Values in bits from the counts of x, y, t, xt and ty; what hangs on labels is None without them."""
    h = {variable: found.entropy() for variable, found in counts.items()}
    t = counts["t"]
    return {
        "n": t.samples,
        "h_x": h["x"],
        "h_y": h["y"] if labelled else None,
        "h_t": h["t"],
        "h_xt": h["xt"],
        "h_ty": h["ty"] if labelled else None,
        "i_xt": _information(h["x"], h["t"], h["xt"]),
        "i_ty": _information(h["t"], h["y"], h["ty"]) if labelled else None,
        "distinct_x": counts["x"].distinct,
        "distinct_t": t.distinct,
        "singletons_t": t.singletons,
        "saturated": saturated(h["t"], t.samples),
    }


def _information(first: float, second: float, joint: float) -> float:
    """H + H − H(joint), rounded once: exactly the one entropy where the other is the joint one; never below 0."""
    return max(0.0, math.fsum((first, second, -joint)))


def schema() -> "dict[str, Any]":
    """Columns of a stored part and their polars types."""
    import polars as pl

    texts = dict.fromkeys(TEXT_COLUMNS, pl.String)
    numbers = {"epoch": pl.Int64, "n": pl.Int64, **dict.fromkeys(ENTROPIES, pl.Float64)}
    counts = dict.fromkeys(("distinct_x", "distinct_t", "singletons_t"), pl.Int64)
    return {**texts, **numbers, **counts, "saturated": pl.Boolean}


def table(todo: Sequence[Task], parts: Parts, epochs: Sequence[int] | None, beta: float, unit: str) -> "pl.DataFrame":
    """The information plane of the tasks, whose parts are there, in the tasks' order."""
    import polars as pl

    frames = [_part(parts, key) for key in parts.existing("information_plane", [task.key for task in todo])]
    stored = pl.concat(frames) if frames else pl.DataFrame(schema=schema())
    if epochs is not None:
        stored = stored.filter(pl.col("epoch").is_in(list(epochs)))
    return (
        stored.with_columns(pl.col(ENTROPIES) * UNITS[unit])
        .with_columns(
            unit=pl.lit(unit),
            beta=pl.lit(float(beta)),
            ib=pl.col("i_xt") - float(beta) * pl.col("i_ty"),
        )
        .select(COLUMNS)
    )


def _part(parts: Parts, key: str) -> "pl.DataFrame":
    import polars as pl

    try:
        return pl.read_parquet(BytesIO(parts.read("information_plane", key)))
    except (OSError, StoreError, pl.exceptions.PolarsError) as error:
        raise unreadable(parts.where("information_plane", key), str(error)) from None
