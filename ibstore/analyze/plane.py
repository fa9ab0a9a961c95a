"""The information plane: what is to be computed, computing what is missing, and the table.

I(X;T) = H(X) + H(T) − H(X,T) and I(T;Y) = H(T) + H(Y) − H(T,Y), with X, T and Y under their waist, estimated
from counts over the probe set. For X as the sample's identity and a deterministic network, I(X;T) = ``h_t``.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from ibstore.analyze.estimate.entropy import NATS_PER_BIT, CountsOfCounts, saturated
from ibstore.analyze.grammar import Recipe
from ibstore.analyze.narrow import nan_refused
from ibstore.analyze.parts import Parts, content_key
from ibstore.analyze.waist import Waist
from ibstore.errors import UnknownNameError
from ibstore.store import LayerInfo, Run, Segment, SplitInfo
from ibstore.store.reader import listed

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
    """One part of the table: a layer of a run's split under a waist, over the epochs of one segment.

    ``over_run`` names the layer's content in all segments, on which edges that are fitted over a run hang.
    """

    run: Run
    split: SplitInfo
    waist: Waist
    layer: LayerInfo
    segment: Segment
    over_run: str

    @property
    def recipe(self) -> Recipe:
        """The layer's recipe."""
        recipe = self.waist.recipe(self.layer.name)
        assert recipe is not None, "tasks are made for layers that the waist narrows"
        return recipe

    @cached_property
    def key(self) -> str:
        """Content key of the part: whose run and waist it is, and what the layer is called, is not in it."""
        return content_key({"estimator": "plugin", "x": self.x_key, "t": self.t_key})

    @cached_property
    def t_key(self) -> str:
        """Content key of the layer's patterns, which waists with one recipe share."""
        return content_key(
            {
                "recipe": self.recipe.meaning,
                "data": self.split.data,
                "epochs": self.segment.record.epochs,
                "files": self.segment.checksums(self.split, self.layer),
                "fitted_on": self.over_run if self.recipe.per == "run" else "",
            }
        )

    @cached_property
    def x_key(self) -> str:
        """Content key of the input's patterns, which layers, epochs and runs share."""
        return content_key({"recipe": self.waist.x.meaning, "data": self.split.data})

    @property
    def names(self) -> dict[str, str]:
        """What the part is in the table, in text."""
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
        Task(run, split, waist, layer, segment, over_run)
        for run in sorted(runs, key=lambda run: run.name)
        for split in run.manifest.splits
        for waist in sorted(waists, key=lambda waist: waist.name)
        for layer in _layers(run, waist, layers)
        for over_run in [_over_run(run, split, layer, waist)]
        for segment in run.segments
        if epochs is None or set(epochs) & set(segment.record.epochs)
    ]


def _over_run(run: Run, split: SplitInfo, layer: LayerInfo, waist: Waist) -> str:
    """Name of a layer's content in all segments, where the waist's edges hang on it."""
    recipe = waist.recipe(layer.name)
    if recipe is None or recipe.per != "run":
        return ""
    return content_key({"segments": [segment.checksums(split, layer) for segment in run.segments]})


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
    """A task's part, in bits; an epoch without counts, since it has NaN, has a row without numbers."""
    import polars as pl

    nothing = dict.fromkeys(schema())
    numbers = {epoch: row(counts[epoch], labelled) if epoch in counts else {} for epoch in task.segment.record.epochs}
    found = [{**nothing, "part": task.key, "epoch": epoch, **own} for epoch, own in numbers.items()]
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

    numbers = {"part": pl.String, "epoch": pl.Int64, "n": pl.Int64, **dict.fromkeys(ENTROPIES, pl.Float64)}
    counts = dict.fromkeys(("distinct_x", "distinct_t", "singletons_t"), pl.Int64)
    return {**numbers, **counts, "saturated": pl.Boolean}


def table(todo: Sequence[Task], parts: Parts, epochs: Sequence[int] | None, beta: float, unit: str) -> "pl.DataFrame":
    """The information plane of those tasks whose parts are there, in the tasks' order.

    Epochs with NaN have rows without numbers.
    """
    import polars as pl

    stored = pl.concat([pl.DataFrame(schema=schema()), *parts.rows("information_plane", {task.key for task in todo})])
    if epochs is not None:
        stored = stored.filter(pl.col("epoch").is_in(list(epochs)))
    names = dict.fromkeys(("part", *TEXT_COLUMNS), pl.String) | {"place": pl.Int64}
    named = pl.DataFrame(
        [{"part": task.key, **task.names, "place": place} for place, task in enumerate(todo)], schema=names
    )
    return (
        named.join(stored, on="part")
        .sort("place", "epoch")
        .with_columns(pl.col(ENTROPIES) * UNITS[unit])
        .with_columns(
            unit=pl.lit(unit),
            beta=pl.lit(float(beta)),
            ib=pl.col("i_xt") - float(beta) * pl.col("i_ty"),
        )
        .select(COLUMNS)
    )


def refuse_nan(table: "pl.DataFrame") -> None:
    """Return when every row has numbers; ValuesError where an epoch has NaN, which the first such layer names."""
    import polars as pl

    found = table.filter(pl.col("n").is_null())
    if not found.is_empty():
        run, layer = found.row(0, named=True)["run"], found.row(0, named=True)["layer"]
        epochs = found.filter(run=run, layer=layer)["epoch"].unique().sort().to_list()
        raise nan_refused(f"run {run!r}, layer {layer!r}, epoch {listed(epochs)}")


def patterns(todo: Sequence[Task], parts: Parts, scratch: Path) -> "pl.DataFrame":
    """Where the kept patterns of the tasks lie: (part, path, run, split, layer, waist, is_input), a row a meaning.

    What lies in a bucket is copied to ``scratch``.
    """
    import polars as pl

    homes = parts.homes("patterns", {key for task in todo for key in (task.x_key, task.t_key)})
    paths = zip(homes.values(), parts.local("patterns", homes, scratch), strict=True)
    path_of = {key: str(path) for keys, path in paths for key in keys}
    names = dict.fromkeys(("part", "path", *TEXT_COLUMNS), pl.String) | {"is_input": pl.Boolean}
    meanings = [
        {"part": key, **task.names, **changed, "is_input": bool(changed), "path": path_of[key]}
        for task in todo
        for key, changed in ((task.t_key, {}), (task.x_key, {"layer": "x"}))
        if key in path_of
    ]
    return pl.DataFrame(meanings, schema=names).unique(maintain_order=True)
