"""The information plane: what is to be computed, computing what is missing, and the table.

I(X;T) = H(X) + H(T) − H(X,T) and I(T;Y) = H(T) + H(Y) − H(T,Y), with X, T and Y under their waist, estimated
from counts over the probe set. For X as the sample's identity and a deterministic network, I(X;T) = ``h_t``.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from io import BytesIO
from typing import TYPE_CHECKING, Any, Final

import numpy as np
from numpy.typing import NDArray

from ibstore.analyze.entropy import NATS_PER_BIT, CountsOfCounts, saturated
from ibstore.analyze.grammar import Recipe
from ibstore.analyze.parts import Parts, content_key, unreadable
from ibstore.analyze.scan import Reduced, encode, fit, reduced_like
from ibstore.analyze.waist import Waist
from ibstore.errors import StoreError, UnknownNameError
from ibstore.events import Emit, Event
from ibstore.store import LayerInfo, Run, Segment, SplitInfo
from ibstore.store.format.probe import integer_labels

if TYPE_CHECKING:
    import polars as pl

    from ibstore.analyze.sql.counts import KeyCounter

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

    def reduced(self, segment: Segment, epoch: int, *, keep: bool = True) -> Reduced:
        """The layer's reduced values of an epoch, kept in memory between passes where they are small."""
        return Reduced(
            blocks=lambda: segment.blocks(self.split, self.layer, epoch),
            what=f"run {self.run.name!r}, layer {self.layer.name!r}, epoch {epoch}",
            shape=self.layer.shape,
            dtype=np.dtype(self.layer.dtype),
            samples=self.split.samples,
            recipe=self.recipe,
            keep=keep,
        )


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


def check_shapes(todo: Sequence[Task]) -> None:
    """Refuse a recipe that does not fit its layer before anything is read."""
    for run, layer, recipe in dict.fromkeys((task.run.name, task.layer, task.recipe) for task in todo):
        reduced_like(recipe, layer.shape, np.dtype(layer.dtype), f"run {run!r}, layer {layer.name!r}")


def compute(todo: Sequence[Task], parts: Parts, emit: Emit) -> None:
    """Compute the parts that are not there yet, and keep them."""
    kept = set(parts.existing("information_plane", [task.key for task in todo]))
    missing = [task for task in todo if task.key not in kept]
    if not missing:
        return
    from ibstore.analyze.sql.counts import KeyCounter

    for task in {(task.split.data, task.waist.x): task for task in missing}.values():
        _reduced_x(task)  # refuses a recipe that does not fit the input before anything is computed
    with KeyCounter() as counter:
        loaded = fitted = None
        for done, task in enumerate(missing):
            emit(Event("analyze", done, len(missing), f"{task.run.name} · {task.waist.name} · {task.layer.name}"))
            if (probe := (task.split.data, task.waist.x)) != loaded:
                _load_probe(counter, task)
                loaded = probe
            if task.names != fitted:  # the epochs of a layer come in a row
                edges, fitted = _edges_over_run(task), task.names
            _compute(counter, task, parts, edges)
        emit(Event("analyze", len(missing), len(missing)))


def _load_probe(counter: "KeyCounter", task: Task) -> None:
    probe = task.run.probe(task.split)
    labels = probe.labels()
    x = _reduced_x(task)
    y = None if labels is None else integer_labels(labels)
    counter.load_probe(probe.samples(), y, encode(x, fit(task.waist.x, [x])))


def _reduced_x(task: Task) -> Reduced:
    probe = task.run.probe(task.split)
    shape, dtype = probe.x_form()
    what = f"input x of run {task.run.name!r}"
    return Reduced(probe.x_blocks, what, shape, dtype, task.split.samples, task.waist.x, remedy="mend the data")


def _edges_over_run(task: Task) -> NDArray[np.float64] | None:
    """Edges that hold for all epochs of the task's run; None where each epoch has its own."""
    if task.recipe.per != "run":
        return None
    everything = [(segment, epoch) for segment in task.run.segments for epoch in segment.record.epochs]
    return fit(task.recipe, [task.reduced(segment, epoch, keep=False) for segment, epoch in everything])


def _compute(counter: "KeyCounter", task: Task, parts: Parts, edges: NDArray[np.float64] | None) -> None:
    counter.load_layer(_keys(task, edges))
    frame = _rows(task, counter.counts())
    if not parts.existing("patterns", [task.x_key]):
        parts.put("patterns", task.x_key, counter.patterns("x", {**task.names, "layer": "x"}))
    parts.put("patterns", task.key, counter.patterns("t", task.names))
    content = BytesIO()
    frame.write_parquet(content)
    parts.put("information_plane", task.key, content.getvalue())


def _keys(task: Task, edges: NDArray[np.float64] | None) -> Iterator[tuple[int, Iterator[NDArray[np.uint8]]]]:
    """Patterns of each epoch of the task's segment, under the given edges or the epoch's own."""
    for epoch in task.segment.record.epochs:
        reduced = task.reduced(task.segment, epoch)
        yield epoch, encode(reduced, fit(task.recipe, [reduced]) if edges is None else edges)


def _rows(task: Task, counts: dict[int, dict[str, CountsOfCounts]]) -> "pl.DataFrame":
    import polars as pl

    labelled = task.run.probe(task.split).has_labels
    rows = [{**task.names, "epoch": epoch, **row(counts[epoch], labelled)} for epoch in sorted(counts)]
    return pl.DataFrame(rows, schema=schema())


def row(counts: dict[str, CountsOfCounts], labelled: bool = True) -> dict[str, Any]:
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
