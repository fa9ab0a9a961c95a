"""What is to be computed: a task for each layer, split and segment under a waist, and the names of what it needs.

Everything that a task computes is kept under a content key: whose run and waist it is, and what the layer is called,
is in none.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from ibstore.analyze.estimate.density import is_density
from ibstore.analyze.grammar import Recipe
from ibstore.analyze.narrow import is_fitted
from ibstore.analyze.parts import Parts, content_key
from ibstore.analyze.waist import Waist
from ibstore.errors import UnknownNameError
from ibstore.store import LayerInfo, Run, Segment, SplitInfo

if TYPE_CHECKING:
    import polars as pl

TEXT_COLUMNS: Final = ("run", "split", "layer", "channel", "waist")

CHANNELS: Final = ("concat", "mean")
"""A layer as one variable, or each of its channels as one, and the mean over them."""

WHOLE: Final = "all"
"""What the column ``channel`` says of a whole layer."""


@dataclass(frozen=True)
class Task:
    """A layer of a run's split under a waist, or one channel of it, over the epochs of one segment.

    ``over_run`` names the layer's content in all segments, on which edges that are fitted over a run hang.
    """

    run: Run
    split: SplitInfo
    waist: Waist
    layer: LayerInfo
    segment: Segment
    over_run: str
    channel: int | None = None

    @property
    def recipe(self) -> Recipe:
        """The layer's recipe."""
        recipe = self.waist.recipe(self.layer.name)
        assert recipe is not None, "tasks are made for layers that the waist narrows"
        return replace(recipe, channel=self.channel)

    @property
    def edges(self) -> str:
        """Whether bins' edges are fitted to each "epoch", or to the "run", or are "fixed": only those two compare."""
        return self.recipe.per if is_fitted(self.recipe) else "fixed"

    @cached_property
    def counts_key(self) -> str:
        """Content key of the counts of counts."""
        return content_key({"x": self.x_key, "t": self.t_key})

    def plane_key(self, estimator: str) -> str:
        """Content key of what an estimator makes of the counts."""
        return content_key({"estimator": estimator, "x": self.x_key, "t": self.t_key})

    def value_key(self, estimator: str, epoch: int) -> str:
        """Content key of what an estimator that looks at values makes of an epoch."""
        seen = {"x": self.x_values_key, "t": self.t_values_key, "epoch": epoch}
        return content_key({"estimator": estimator, **seen})

    def estimate_keys(self, estimator: str) -> dict[str, tuple[int, ...]]:
        """Content keys of an estimator's parts, and the epochs that each is about."""
        epochs = tuple(self.segment.record.epochs)
        if is_density(estimator):
            return {self.value_key(estimator, epoch): (epoch,) for epoch in epochs}
        return {self.plane_key(estimator): epochs}

    @cached_property
    def t_key(self) -> str:
        """Content key of the layer's patterns, which waists with one recipe share."""
        fitted_on = self.over_run if self.recipe.per == "run" else ""
        return content_key({"recipe": self.recipe.meaning, **self._values, "fitted_on": fitted_on})

    @cached_property
    def edges_key(self) -> str:
        """Content key of the layer's edges, where they are fitted to values."""
        fitted_on = {"run": self.over_run} if self.recipe.per == "run" else self._values
        return content_key({"edges": self.recipe.meaning, **fitted_on})

    @cached_property
    def t_values_key(self) -> str:
        """Content key of the layer's reduced values, which discretizations share."""
        return content_key({"reduced": self.recipe.view_meaning, **self._values})

    @property
    def _values(self) -> dict[str, Any]:
        """What the layer's stored values hang on."""
        files = self.segment.checksums(self.split, self.layer)
        return {"data": self.split.data, "epochs": self.segment.record.epochs, "files": files}

    @cached_property
    def x_key(self) -> str:
        """Content key of the input's patterns, which layers, epochs and runs share."""
        return content_key({"recipe": self.waist.x.meaning, "data": self.split.data})

    @cached_property
    def x_values_key(self) -> str:
        """Content key of the input's reduced values."""
        return content_key({"reduced": self.waist.x.view_meaning, "data": self.split.data})

    @property
    def names(self) -> dict[str, str]:
        """What the part is in the table, in text."""
        channel = WHOLE if self.channel is None else str(self.channel)
        names = (self.run.name, self.split.name, self.layer.name, channel, self.waist.name)
        return dict(zip(TEXT_COLUMNS, names, strict=True))

    @property
    def what(self) -> str:
        """The layer, for messages."""
        return f"run {self.run.name!r}, layer {self.layer.name!r}"


def tasks(
    runs: Sequence[Run],
    waists: Sequence[Waist],
    layers: Sequence[str] | None,
    epochs: Sequence[int] | None,
    channels: str = "concat",
) -> list[Task]:
    """Everything that the table needs, in its order: run, split, waist, layer as executed, channel, epoch.

    ``layers`` and ``epochs`` choose; None is all of them. ``channels`` is one of `CHANNELS`; a layer without places, of
    one axis a sample, is one variable in any case.

    Raises
    ------
    UnknownNameError
        When a waist narrows a layer that a run does not have, or ``layers`` names one that no waist narrows.
    """
    return [
        Task(run, split, waist, layer, segment, over_run, channel)
        for run in sorted(runs, key=lambda run: run.name)
        for split in run.manifest.splits
        for waist in sorted(waists, key=lambda waist: waist.name)
        for layer in _layers(run, waist, layers)
        for over_run in [_over_run(run, split, layer, waist)]
        for channel in _channels(layer, channels)
        for segment in run.segments
        if epochs is None or set(epochs) & set(segment.record.epochs)
    ]


def _channels(layer: LayerInfo, channels: str) -> Sequence[int | None]:
    """Channels that are variables of their own; None where the whole layer is one."""
    return range(layer.shape[0]) if channels == "mean" and len(layer.shape) > 1 else [None]


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


def patterns_of(todo: Sequence[Task], parts: Parts, scratch: Path) -> "pl.DataFrame":
    """Where the kept patterns of whole layers lie: (part, path, run, split, layer, waist, is_input), a row a meaning.

    What lies in a bucket is copied to ``scratch``.
    """
    import polars as pl

    whole = [task for task in todo if task.channel is None]
    homes = parts.homes("patterns", {key for task in whole for key in (task.x_key, task.t_key)})
    paths = zip(homes.values(), parts.local("patterns", homes, scratch), strict=True)
    path_of = {key: str(path) for keys, path in paths for key in keys}
    names = dict.fromkeys(("part", "path", *TEXT_COLUMNS), pl.String) | {"is_input": pl.Boolean}
    meanings = [
        {"part": key, **task.names, **changed, "is_input": bool(changed), "path": path_of[key]}
        for task in whole
        for key, changed in ((task.t_key, {}), (task.x_key, {"layer": "x"}))
        if key in path_of
    ]
    return pl.DataFrame(meanings, schema=names).drop("channel").unique(maintain_order=True)
