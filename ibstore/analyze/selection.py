"""What a question is about: waists on runs, layers and epochs of a store, and what may be used to answer it."""

import math
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Self

from ibstore.analyze import densities, estimates, plane
from ibstore.analyze.cache import RESULTS
from ibstore.analyze.engine import compute
from ibstore.analyze.estimate.density import DENSITIES, density_name, is_density
from ibstore.analyze.estimate.entropy import estimator_name
from ibstore.analyze.keys import Keyed, keep, keyed
from ibstore.analyze.packs import pack_small
from ibstore.analyze.parts import Parts
from ibstore.analyze.plan import Budget, Scan, explained, plan
from ibstore.analyze.tasks import CHANNELS, Task, tasks
from ibstore.analyze.waist import Waist, find_waists, presets
from ibstore.errors import UnknownNameError, UsageError
from ibstore.events import Emit, Event
from ibstore.store import Run, Store
from ibstore.store.format.layout import listed
from ibstore.store.reader import Listed

if TYPE_CHECKING:
    import polars as pl

    from ibstore.analyze.cluster import Cluster

Names = str | Sequence[str]
Waists = str | Waist | Sequence[str | Waist]


@dataclass(frozen=True)
class Selection:
    """Tasks of some waists on a store, and what is computed of them.

    Parameters
    ----------
    parts
        Where results are kept.
    waists, todo
        Waists that are asked for, and all their tasks.
    layers
        Layers that are asked for by name; None is all of them.
    epochs
        Epochs that are asked for; None is all of them.
    channels
        One of `CHANNELS`.
    budget
        What may be used.
    emit
        Told of progress.
    cluster
        Workers that compute what is lacking; None: this process does.
    """

    parts: Parts
    waists: Sequence[Waist]
    todo: Sequence[Task]
    layers: Sequence[str] | None
    epochs: Sequence[int] | None
    channels: str
    budget: Budget
    emit: Emit
    cluster: "Cluster | None" = None

    @classmethod
    def of(
        cls,
        store: Store,
        parts: Parts,
        waists: Waists,
        runs: Names | None,
        layers: Names | None,
        epochs: Sequence[int] | None,
        known: Mapping[str, Waist] | None,
        channels: str,
        budget: Budget,
        emit: Emit,
        cluster: "Cluster | None" = None,
    ) -> Self:
        """Selection of waists, runs, layers and epochs of a store by their names; what is not named is all of it.

        Raises
        ------
        UnknownNameError, WaistError, UsageError
            When one of them does not exist.
        DamagedError
            When what they hang on cannot be read.
        """
        if channels not in CHANNELS:
            raise UsageError(f"channels are taken as {' or '.join(CHANNELS)}, not {channels!r}; give one of these")
        asked = [waists] if isinstance(waists, str | Waist) else waists
        chosen = find_waists(asked, presets() | dict(known or {}))
        named = [layers] if isinstance(layers, str) else layers
        found = listed_runs(store, runs, epochs)
        todo = tasks([each.run for each in found if each.run], chosen, named, epochs, channels)
        _refuse_damaged(todo, found)
        return cls(parts, chosen, todo, named, epochs, channels, budget, emit, cluster)

    @property
    def runs(self) -> dict[str, Run]:
        """Runs that it has tasks of, by name."""
        return {task.run.name: task.run for task in self.todo}

    def plane(self, estimators: Names = "plugin", *, beta: float = 1.0, unit: str = "bits") -> "pl.DataFrame":
        """The information plane, as `Study.analyze` describes it."""
        check_unit(unit)
        if not math.isfinite(beta):
            raise UsageError(f"beta is {beta}; give a finite number")
        named = named_estimators(estimators)
        self.estimate(named)
        table = plane.table(self.todo, named, self.parts, self.epochs, beta, unit)
        plane.refuse_nan(table)
        return table

    def entropies(self, estimators: Names = "plugin", *, unit: str = "bits") -> "pl.DataFrame":
        """The same estimates long: a row for each entropy."""
        self.plane(estimators, unit=unit)
        return plane.entropies(self.todo, named_estimators(estimators), self.parts, self.epochs, unit)

    def estimate(self, estimators: Sequence[str]) -> None:
        """Compute and keep what is not kept yet of some estimators, by their one name each, here or on a cluster."""
        if self.cluster is None:
            self.compute(estimators)
        else:
            self.cluster.compute(self, estimators)
        self._remember(estimators)
        for kind in RESULTS:
            pack_small(self.parts, kind)

    def compute(self, estimators: Sequence[str]) -> None:
        """Compute and keep it in this process."""
        counting = [name for name in estimators if not is_density(name)]
        compute(self._planned(counting), counting, self.parts, self.budget, self.emit)
        estimates.fill(self.todo, counting, self.parts, self.emit)
        looking = [name for name in estimators if is_density(name)]
        lack = densities.lacking(self.todo, looking, self.epochs, self.parts)
        densities.fill(lack, self.parts, self.budget, self.emit)

    def unnoted(self) -> Self:
        """The same, but queries and pictures will not see its waists."""
        return replace(self, waists=())

    def keys(self) -> Iterator[Keyed]:
        """Keys of every layer and epoch, in the tables' order; those that are not kept yet are computed and kept."""
        self._remember([])
        return keyed(self.todo, self.epochs, self.parts, self.budget, self.emit)

    def one_task_of(self, *names: str) -> Iterator[Self]:
        """Selections of a single task each: the first of those that agree in run, split, waist, …, as named."""
        first: dict[tuple[str, ...], Task] = {}
        for task in self.todo:
            first.setdefault(tuple(task.names[name] for name in names), task)
        return (replace(self, todo=[task]) for task in first.values())

    def last(self) -> Iterator[Self]:
        """Each run's last epoch alone, of those asked for: a selection for all runs that end with the same."""
        ending: dict[int, list[Task]] = {}
        for task in self.todo:
            ending.setdefault(max(set(self.epochs or task.run.epochs) & set(task.run.epochs)), []).append(task)
        for epoch, todo in ending.items():
            own = [task for task in todo if epoch in task.segment.record.epochs]
            yield replace(self, todo=own, epochs=[epoch])

    def by(self, *names: str) -> Iterator[Self]:
        """Parts of the selection: each has tasks that agree in run, split, waist, layer, channel, segment, as named."""
        keep(self.todo, self.parts, self.budget, self.emit)
        groups: dict[tuple[str, ...], list[Task]] = {}
        for task in self.todo:
            own = {**task.names, "segment": task.segment.key}
            groups.setdefault(tuple(own[name] for name in names), []).append(task)
        for todo in groups.values():
            yield replace(self, todo=todo)

    def explain(self, estimators: Names = "plugin") -> "pl.DataFrame":
        """What `plane` would do, as `Study.explain` describes it."""
        named = named_estimators(estimators)
        names = [name for name in named if is_density(name)]
        looking = densities.lacking(self.todo, names, self.epochs, self.parts)
        if looking:
            told = ", ".join(dict.fromkeys(name for _, name, _ in looking.values()))
            self.emit(Event("notice", detail=f"besides, reduced values are read for {len(looking)} estimates: {told}"))
        return explained(self._planned([name for name in named if not is_density(name)]))

    def _planned(self, estimators: Sequence[str]) -> list[Scan]:
        """Scans for the tasks that lack an estimate, and the counts that it is made of."""
        lacking = estimates.lacking(self.todo, estimators, self.parts)
        uncounted = {task.counts_key for task, _ in lacking}
        uncounted -= self.parts.existing("counts", uncounted)
        missing = [task for task in self.todo if task.counts_key in uncounted]
        return plan(missing, self.budget, self.parts.existing("patterns", {task.t_key for task in missing}))

    def _remember(self, estimators: Sequence[str]) -> None:
        """Note what was asked for, for queries."""
        for waist in self.waists:
            self.parts.remember_waist(waist.name, waist.texts)
        for name in estimators:
            if name != "plugin":
                self.parts.remember("estimators", name)
        if self.channels != CHANNELS[0]:
            self.parts.remember("channels", self.channels)


def listed_runs(store: Store, names: Names | None, epochs: Sequence[int] | None) -> list[Listed]:
    """Chosen runs, each with the epochs that are asked for; damage in others of their epochs does no harm."""
    wanted = [names] if isinstance(names, str) else names
    named = [each for name in wanted or [] for each in _listed(store, name)]
    found = list({each.name: each for each in named}.values()) if wanted else store.listing()
    for each in found:
        lacking = [epoch for epoch in epochs or [] if each.run and epoch not in each.run.epochs]
        if each.damage and (each.run is None or epochs is None or lacking):
            raise each.damage[0]
    runs = [each.run for each in found if each.run]
    if not any(run.epochs for run in runs):
        raise UnknownNameError(
            f"{store.location} has no committed epoch yet; `ibstore capture mnist-cnn --store "
            f"{store.location}` records some"
        )
    for epoch in epochs or []:
        for run in runs:
            if epoch not in run.epochs:
                raise UnknownNameError(
                    f"run {run.name!r} has no epoch {epoch}; it has {listed(run.epochs)}: choose among them, or "
                    "other runs with --run"
                )
    return found


def _listed(store: Store, name: str) -> list[Listed]:
    """The run of that name; of a pattern, which is no run's own name, all that it fits."""
    if "*" not in name or name in store.run_names():
        return [store.listed(name)]
    return [each for each in store.listing() if fits(each.name, name)] or [store.listed(name)]  # refused in its words


def fits(run: str, asked: str) -> bool:
    """Whether a run is asked for by its name, or by a pattern, in which ``*`` stands for any text.

    >>> fits("szt-seed12", "szt-*"), fits("szt-seed12", "szt"), fits("a[1]*", "a[1]*")
    (True, False, True)
    """
    return re.fullmatch(".*".join(map(re.escape, asked.split("*"))), run, re.DOTALL) is not None


def check_unit(unit: str) -> None:
    """Return when there is such a unit; raises `UsageError`."""
    if unit not in plane.UNITS:
        raise UsageError(f"unit {unit!r} is unknown; it is bits or nats")


def named_estimators(estimators: Names) -> list[str]:
    """Estimators by their one name each, in the order asked."""
    asked = [estimators] if isinstance(estimators, str) else estimators
    if not asked:
        raise UsageError("no estimator is asked for; give one, such as plugin")
    return list(dict.fromkeys(density_name(text) if is_density(text) else _counting(text) for text in asked))


def _counting(text: str) -> str:
    try:
        return estimator_name(text)
    except UnknownNameError as error:
        raise UnknownNameError(f"{error}, {', '.join(DENSITIES)}") from None


def _refuse_damaged(todo: Sequence[Task], found: Sequence[Listed]) -> None:
    """Return when no task's edges hang on epochs that cannot be read."""
    damage = {each.name: each.damage[0] for each in found if each.damage}
    for task in todo:
        if task.run.name in damage and task.recipe.per == "run":
            raise damage[task.run.name]
