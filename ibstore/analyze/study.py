"""A store opened for questions: `Study` analyzes under waists and answers SQL."""

import math
import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Final

from ibstore.analyze import estimates, plane
from ibstore.analyze.cache import RESULTS, forget, kept
from ibstore.analyze.engine import compute
from ibstore.analyze.estimate.entropy import estimator_name
from ibstore.analyze.packs import pack_small
from ibstore.analyze.parts import Parts
from ibstore.analyze.plan import Budget, Scan, explained, plan
from ibstore.analyze.tasks import Task, patterns_of, tasks
from ibstore.analyze.waist import Waist, find_waists, presets
from ibstore.errors import DamagedError, IbstoreError, UnknownNameError, UsageError, WaistError
from ibstore.events import Emit, Event, ignore
from ibstore.store import Run, Store
from ibstore.store.places import open_storage
from ibstore.store.reader import Listed, listed

if TYPE_CHECKING:
    import polars as pl

    from ibstore.analyze.sql.activations import Lazy


SECONDS_BETWEEN_LOOKS: Final = 2.0


class Study:
    """Questions to a store; what was computed is kept beside it and found again.

    Parameters
    ----------
    store
        Path or URL of the store.
    results
        Path or URL for results; by default ``<store>.analysis``.

    Raises
    ------
    NotAStoreError
        When there is no store at that path.
    """

    def __init__(self, store: str | Path, results: str | Path | None = None) -> None:
        self.store = Store.open(store)
        self.parts = Parts.beside(self.store.storage) if results is None else Parts(open_storage(results))

    def analyze(
        self,
        waists: str | Waist | Sequence[str | Waist] = "thesis-6.2",
        *,
        runs: str | Sequence[str] | None = None,
        layers: str | Sequence[str] | None = None,
        epochs: Sequence[int] | None = None,
        estimators: str | Sequence[str] = "plugin",
        long: bool = False,
        beta: float = 1.0,
        unit: str = "bits",
        known: Mapping[str, Waist] | None = None,
        memory: int | None = None,
        threads: int | None = None,
        keep_keys: str = "auto",
        device: str = "cpu",
        emit: Emit = ignore,
    ) -> "pl.DataFrame":
        """Information plane under one or more waists.

        Parameters
        ----------
        waists
            One or more of: presets by name, inline texts (``"mine: x=…; *=…"``), `Waist` objects.
        runs, layers, epochs
            What to look at; everything by default.
        estimators
            One or more by name, such as "plugin", "miller_madow" or "nsb"; `docs/estimators.md` tells them apart.
            Further ones are made of counts that are kept.
        long
            Whether the table is long: a row for each entropy instead of columns.
        beta
            Weight of I(T;Y) in ``ib`` = I(X;T) − beta · I(T;Y).
        unit
            "bits" or "nats".
        known
            Waists that names may mean besides the presets.
        memory, threads
            What may be used: bytes, by default half of what is free and 8 GiB at most; and by default a thread a core.
            No number depends on either.
        keep_keys
            Whether the keys are kept for ``patterns`` and ``joint_counts``, and for other waists with the same recipes:
            "always", "never", or "auto", where they are much smaller than what they are computed from.
        device
            Where layers are pooled, binned and packed: "cpu", or a device of torch ("cuda", "cuda:1"; "auto" is a CUDA
            device where there is one). The keys are the same.
        emit
            Told of progress.

        Returns
        -------
        polars.DataFrame
            Columns run, split, epoch, layer, waist, estimator, unit, n; h_x, h_y, h_t, h_xt, h_ty; i_xt and i_ty within
            0 and the smaller entropy, beta, ib; distinct_x, distinct_t, singletons_t, coverage_t, ceiling (log N),
            saturated; i_xt_raw and i_ty_raw as estimated; dpi_xt and dpi_ty, by how much i_xt and i_ty exceed those of
            a layer before. Rows by run, split, waist, layer as executed, epoch, estimator as asked.
            Long: run, split, epoch, layer, waist, estimator, variable (x, y, t, xt, ty), unit, n, entropy, distinct,
            singletons, coverage, ceiling, saturated.

        Raises
        ------
        UnknownNameError, WaistError
            When a run, layer, epoch, waist or estimator does not exist, or a recipe does not fit its layer.
        DamagedError, ValuesError
            When stored data is altered, or cannot be discretized.
        WriteError
            When results cannot be kept.
        """
        if unit not in plane.UNITS:
            raise UsageError(f"unit {unit!r} is unknown; it is bits or nats")
        if not math.isfinite(beta):
            raise UsageError(f"beta is {beta}; give a finite number")
        named = _named(estimators)
        chosen, todo = self._asked(waists, runs, layers, epochs, known)
        budget = Budget.of(memory, threads, keep_keys, device)
        compute(self._planned(todo, named, budget), named, self.parts, budget, emit)
        estimates.fill(todo, named, self.parts, emit)
        self._remember(chosen, named)
        for kind in RESULTS:
            pack_small(self.parts, kind)
        table = plane.table(todo, named, self.parts, epochs, beta, unit)
        plane.refuse_nan(table)
        return plane.entropies(todo, named, self.parts, epochs, unit) if long else table

    def explain(
        self,
        waists: str | Waist | Sequence[str | Waist] = "thesis-6.2",
        *,
        runs: str | Sequence[str] | None = None,
        layers: str | Sequence[str] | None = None,
        epochs: Sequence[int] | None = None,
        estimators: str | Sequence[str] = "plugin",
        known: Mapping[str, Waist] | None = None,
        memory: int | None = None,
        threads: int | None = None,
        keep_keys: str = "auto",
        device: str = "cpu",
    ) -> "pl.DataFrame":
        """What `analyze` would do for the same question, which is not done: nothing is read but the layers' sizes.

        Returns
        -------
        polars.DataFrame
            A row a scan, which is one reading of a layer's segment for every waist that lacks it; what is kept already
            has none. Columns run, split, layer, epochs; waists, recipes it is read for, recipes whose keys are recalled
            from before, reductions (how many); raw_bytes and stored_bytes of the values, passes (how often they are
            read); held_bytes of reduced values in between, fit_bytes for quantiles, key_bytes of keys, and kept_bytes
            of those that will be kept; threads, and peak_bytes, about the most memory of the process.

        Raises
        ------
        UnknownNameError, WaistError, UsageError
            As for `analyze`.
        """
        _, todo = self._asked(waists, runs, layers, epochs, known)
        return explained(self._planned(todo, _named(estimators), Budget.of(memory, threads, keep_keys, device)))

    def _asked(
        self,
        waists: str | Waist | Sequence[str | Waist],
        runs: str | Sequence[str] | None,
        layers: str | Sequence[str] | None,
        epochs: Sequence[int] | None,
        known: Mapping[str, Waist] | None,
    ) -> tuple[list[Waist], list[Task]]:
        """Waists that a question means, and all its tasks."""
        asked = [waists] if isinstance(waists, str | Waist) else waists
        chosen = find_waists(asked, presets() | dict(known or {}))
        named = [layers] if isinstance(layers, str) else layers
        found = self._listed(runs, epochs)
        todo = tasks([each.run for each in found if each.run], chosen, named, epochs)
        _refuse_damaged(todo, found)
        return chosen, todo

    def _planned(self, todo: list[Task], estimators: Sequence[str], budget: Budget) -> list[Scan]:
        """Scans for the tasks that lack an estimate, and the counts that it is made of."""
        lacking = estimates.lacking(todo, estimators, self.parts)
        uncounted = {task.counts_key for task, _ in lacking}
        uncounted -= self.parts.existing("counts", uncounted)
        missing = [task for task in todo if task.counts_key in uncounted]
        return plan(missing, budget, self.parts.existing("patterns", {task.t_key for task in missing}))

    def _remember(self, waists: Sequence[Waist], estimators: Sequence[str]) -> None:
        """Note what was asked for, for queries."""
        for waist in waists:
            self.parts.remember_waist(waist.name, {layer: str(recipe) for layer, recipe in waist.recipes})
        for name in estimators:
            if name != "plugin":
                self.parts.remember_estimator(name)

    def follow(
        self,
        question: "Callable[[], pl.DataFrame]",
        runs: Sequence[str] | None = None,
        wait: Callable[[], None] = lambda: time.sleep(SECONDS_BETWEEN_LOOKS),
    ) -> "Iterator[pl.DataFrame]":
        """Answers to ``question`` while the store is being written: whenever they change, until nobody writes.

        Parameters
        ----------
        question
            What is asked again and again, such as ``lambda: study.analyze("thesis-6.2")``.
        runs
            Whose writers are waited for; by default everybody's, those that begin meanwhile too.
        wait
            Called before looking again.
        """
        last = None
        while True:
            written = [name for name in self.store.writers() if not runs or name in runs]
            found = [each for each in self.store.listing() if not runs or each.name in runs]
            if not written or any(each.damage or (each.run and each.run.epochs) for each in found):
                answer = question()
                if last is None or not answer.equals(last):
                    yield answer
                last = answer
            if not written:
                return
            wait()

    def query(
        self, sql: str, emit: Emit = ignore, damaged: Callable[[DamagedError], None] | None = None
    ) -> "pl.DataFrame":
        """Answer of one SELECT over the tables ``runs``, ``layers``, ``epochs``, ``samples``, ``entropies``,
        ``information_plane``, ``patterns``, ``joint_counts``, ``activations`` and ``wide.<layer>``.

        The information plane, patterns and counts are what was analyzed so far, in bits, under each waist's latest
        meaning; activations are read from the store as far as the query needs them.

        Parameters
        ----------
        sql
            The SELECT, as DuckDB speaks it.
        emit
            Told of what is worth a notice.
        damaged
            Told of each run's or segment's record that cannot be read, which is left out then.

        Raises
        ------
        QueryError
            When ``sql`` is no single SELECT, or DuckDB refuses it.
        DamagedError
            When a record cannot be read, and no ``damaged`` is to be told.
        """  # noqa: D205  (the tables' names fill the first sentence)
        import tempfile

        from ibstore.analyze.sql import sandbox, tables

        sandbox.check(sql)
        runs = self._readable(damaged)
        todo = self._remembered(runs, emit)
        estimators = self.parts.remembered_estimators()
        computed = {"information_plane": plane.table(todo, estimators, self.parts).drop_nulls("n")}
        if tables.speaks_of("entropies", sql):
            computed["entropies"] = plane.entropies(todo, estimators, self.parts).drop_nulls("n")
        if computed["information_plane"].is_empty():
            emit(Event("notice", detail="nothing is analyzed yet: `ibstore analyze` fills information_plane"))

        def ask() -> "pl.DataFrame":
            with (
                tempfile.TemporaryDirectory(prefix="ibstore-") as spill,
                tempfile.TemporaryDirectory(prefix="ibstore-") as scratch,
                sandbox.memory(Path(spill)) as db,
            ):
                patterns = patterns_of(todo, self.parts, Path(scratch))
                files = [Path(path) for path in patterns["path"].unique(maintain_order=True)]
                lazy: list[Lazy] = []
                try:
                    lazy = tables.lay(db, runs, computed, patterns, sql)
                    sandbox.lock(db, files)
                    return sandbox.select(db, sql)
                except IbstoreError as error:
                    for table in lazy:
                        if table.damage is not None:
                            raise table.damage from None
                    if all(path.exists() for path in files):
                        raise
                    raise FileNotFoundError from error  # another process packed it

        return self.parts.steadily(ask)

    def kept(self) -> "pl.DataFrame":
        """Results that are kept: columns table, run, split, layer, waist, estimator, part, epochs, bytes.

        A row for each meaning of each part: waists with equal recipes share parts. What no waist asks for any more,
        since its run is gone or its waist means something else, has no run, split, layer and waist.
        """
        todo = self._remembered(self._readable(None), ignore)
        return kept(self.parts, todo, self.parts.remembered_estimators())

    def forget(self, parts: Collection[str]) -> None:
        """Remove kept parts by their names (the column ``part`` of `kept`); asked for again they are computed again."""
        forget(self.parts, parts)

    def analyzed(self, runs: Sequence[str] | None = None) -> list[str]:
        """Names of the waists that were asked for so far, can be read here, and fit all of ``runs``."""
        found = [each.run for each in self._listed(runs, None) if each.run]
        layers = [{layer.name for layer in run.manifest.layers} for run in found]
        waists = self._remembered_waists(ignore)
        return [waist.name for waist in waists if all(set(waist.layers) <= has for has in layers)]

    def meanings(self) -> dict[str, Waist]:
        """The presets, and every waist that was asked for so far as it is meant now."""
        return presets() | {waist.name: waist for waist in self._remembered_waists(ignore)}

    def _listed(self, names: str | Sequence[str] | None, epochs: Sequence[int] | None) -> list[Listed]:
        """Chosen runs, each with the epochs that are asked for; damage in others of their epochs does no harm."""
        wanted = [names] if isinstance(names, str) else names
        found = [self.store.listed(name) for name in dict.fromkeys(wanted)] if wanted else self.store.listing()
        for each in found:
            lacking = [epoch for epoch in epochs or [] if each.run and epoch not in each.run.epochs]
            if each.damage and (each.run is None or epochs is None or lacking):
                raise each.damage[0]
        runs = [each.run for each in found if each.run]
        if not any(run.epochs for run in runs):
            raise UnknownNameError(
                f"{self.store.location} has no committed epoch yet; `ibstore capture mnist-cnn --store "
                f"{self.store.location}` records some"
            )
        for epoch in epochs or []:
            for run in runs:
                if epoch not in run.epochs:
                    raise UnknownNameError(
                        f"run {run.name!r} has no epoch {epoch}; it has {listed(run.epochs)}: choose among them, or "
                        "other runs with --run"
                    )
        return found

    def _readable(self, damaged: Callable[[DamagedError], None] | None) -> list[Run]:
        """All runs, without what ``damaged`` is told of."""
        found = self.store.listing()
        for error in (error for each in found for error in each.damage):
            if damaged is None:
                raise error
            damaged(error)
        return [each.run for each in found if each.run]

    def _remembered(self, runs: Sequence[Run], emit: Emit) -> list[Task]:
        """Tasks of every waist that was asked for, as it is meant now, on the runs as they are now."""
        todo = []
        for waist in self._remembered_waists(emit):
            for run in runs:
                layers = [layer.name for layer in run.manifest.layers if waist.recipe(layer.name)]
                todo += tasks([run], [waist], layers, None)
        return todo

    def _remembered_waists(self, emit: Emit) -> Iterator[Waist]:
        for name, texts in self.parts.remembered_waists().items():
            try:
                yield Waist.of(name, texts)
            except WaistError:  # a reduction or discretizer that another program registered
                emit(Event("notice", detail=f"waist {name!r} needs a function that is not registered here; left out"))


def _named(estimators: str | Sequence[str]) -> list[str]:
    """Estimators by their one name each, in the order asked."""
    asked = [estimators] if isinstance(estimators, str) else estimators
    if not asked:
        raise UsageError("no estimator is asked for; give one, such as plugin")
    return list(dict.fromkeys(estimator_name(text) for text in asked))


def _refuse_damaged(todo: Sequence[Task], found: Sequence[Listed]) -> None:
    """Return when no task's edges hang on epochs that cannot be read."""
    damage = {each.name: each.damage[0] for each in found if each.damage}
    for task in todo:
        if task.run.name in damage and task.recipe.per == "run":
            raise damage[task.run.name]


def open_store(path: str | Path, results: str | Path | None = None) -> Study:
    """Open the store at ``path`` for questions: `ibstore.open`.

    >>> import ibstore
    >>> plane = ibstore.open("lab.zarr").analyze(waists=["thesis-6.2"])  # doctest: +SKIP
    """
    return Study(path, results)
