"""A store opened for questions: `Study` analyzes under waists and answers SQL."""

import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from ibstore.analyze import plane
from ibstore.analyze.cache import forget, kept
from ibstore.analyze.measures.sweep import by_bins, parse_bins, swept
from ibstore.analyze.parts import Parts
from ibstore.analyze.plan import Budget
from ibstore.analyze.question import Question
from ibstore.analyze.selection import Names, Waists, fits, listed_runs
from ibstore.analyze.tasks import Task, patterns_of, tasks
from ibstore.analyze.waist import Waist, find_waists, presets
from ibstore.errors import DamagedError, IbstoreError, WaistError
from ibstore.events import Emit, Event, ignore
from ibstore.store import Run, Store
from ibstore.store.places import open_storage

if TYPE_CHECKING:
    import polars as pl
    from distributed import Client

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

    def _repr_html_(self) -> str:
        """The store's runs, for a notebook."""
        return self.store._repr_html_()

    def ask(
        self,
        waists: Waists = "thesis-6.2",
        *,
        runs: Names | None = None,
        layers: Names | None = None,
        epochs: Sequence[int] | None = None,
        channels: str = "concat",
        known: Mapping[str, Waist] | None = None,
        memory: int | None = None,
        threads: int | None = None,
        keep_keys: str = "auto",
        device: str = "cpu",
        client: "Client | None" = None,
        emit: Emit = ignore,
    ) -> Question:
        """What questions are about: ``study.ask("thesis-6.2", layers=["out"]).plane()``.

        Parameters
        ----------
        waists
            One or more of: presets by name, inline texts (``"mine: x=…; *=…"``), names that were asked for before,
            `Waist` objects.
        runs, layers, epochs
            What to look at; everything by default. In a run's name ``*`` stands for any text: ``"szt-*"``.
        channels
            "concat": a layer is one variable. "mean": each channel of a layer with places is one, and their mean stands
            beside them; a layer of one axis is one variable all the same.
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
        client
            Of a Dask cluster (``distributed.Client``) whose workers compute what is lacking; ``memory`` and ``threads``
            are then what each of its units may use, by default the worker's own limit and one thread.
        emit
            Told of progress.

        Raises
        ------
        UnknownNameError, WaistError, UsageError
            When a run, layer, epoch or waist does not exist, a recipe does not fit its layer, or too little is granted.
        DamagedError
            When what was committed cannot be read.
        """
        budget = Budget.of(memory, threads, keep_keys, device)
        meant = self._known(waists, known)
        cluster = None
        if client is not None:
            from ibstore.analyze.cluster import Cluster

            cluster = Cluster(client, memory, threads)
        return Question.of(self.store, self.parts, waists, runs, layers, epochs, meant, channels, budget, emit, cluster)

    def analyze(
        self,
        waists: Waists = "thesis-6.2",
        *,
        estimators: Names = "plugin",
        long: bool = False,
        beta: float = 1.0,
        unit: str = "bits",
        **about: Any,
    ) -> "pl.DataFrame":
        """Information plane under one or more waists.

        Parameters
        ----------
        waists
            As for `ask`.
        estimators
            One or more by name, such as "plugin", "miller_madow" or "kde(variance=0.1)"; `docs/estimators.md` tells
            them apart. Further ones are made of what is kept.
        long
            Whether the table is long: a row for each entropy instead of columns.
        beta
            Weight of I(T;Y) in ``ib`` = I(X;T) − beta · I(T;Y).
        unit
            "bits" or "nats".
        **about
            What else `ask` takes: runs, layers, epochs, channels, known, memory, threads, keep_keys, device, client and
            emit.

        Returns
        -------
        polars.DataFrame
            Columns run, split, epoch, layer, channel ("all", or its number, or "mean"), waist, edges ("fixed",
            or fitted to each "epoch" or the "run"), estimator, unit, n; h_x,
            h_y, h_t, h_xt, h_ty; i_xt and i_ty within 0 and what bounds them, beta, ib; distinct_x, distinct_t,
            singletons_t, coverage_t, ceiling (log N), saturated; for each information raw (as estimated), low and high
            (an error bar, where the estimator has one); dpi_xt and dpi_ty, by how much i_xt and i_ty exceed those of a
            layer before; variance, the noise that kde took. Rows by run, split, waist, layer as executed, channel,
            epoch, estimator as asked.
            Long: run, split, epoch, layer, channel, waist, estimator, variable (x, y, t, xt, ty), unit, n, entropy,
            distinct, singletons, coverage, ceiling, saturated.

        Raises
        ------
        UnknownNameError, WaistError
            When a run, layer, epoch, waist or estimator does not exist, or a recipe does not fit its layer.
        DamagedError, ValuesError
            When stored data is altered, or cannot be discretized.
        WriteError
            When results cannot be kept.
        """
        asked = self.ask(waists, **about)
        return asked.entropies(estimators, unit=unit) if long else asked.plane(estimators, beta=beta, unit=unit)

    def explain(self, waists: Waists = "thesis-6.2", *, estimators: Names = "plugin", **about: Any) -> "pl.DataFrame":
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
        return self.ask(waists, **about).explain(estimators)

    def sweep(
        self,
        waists: Waists = "thesis-6.2",
        bins: str | Sequence[int] = "2:64",
        *,
        estimators: Names = "plugin",
        unit: str = "bits",
        known: Mapping[str, Waist] | None = None,
        **about: Any,
    ) -> "pl.DataFrame":
        """Information plane under waists with other numbers of bins; layers are read once for all of them.

        Parameters
        ----------
        waists, estimators, unit, known, **about
            As for `analyze`.
        bins
            Numbers, or a text as `ibstore.analyze.measures.sweep.parse_bins` reads it.

        Returns
        -------
        polars.DataFrame
            As of `analyze`, with the column bins after waist; queries do not see it.
        """
        numbers = parse_bins(bins) if isinstance(bins, str) else list(bins)
        asked = [waists] if isinstance(waists, str | Waist) else waists
        found = swept(find_waists(asked, self._known(waists, known)), numbers)
        selection = self.ask([each.waist for each in found], **about).unnoted()
        return by_bins(selection.plane(estimators, unit=unit), found)

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
            Whose writers are waited for, as for `ask`; by default everybody's, those that begin meanwhile too.
        wait
            Called before looking again.
        """

        def asked(name: str) -> bool:
            return not runs or any(fits(name, each) for each in runs)

        last = None
        while True:
            written = [name for name in self.store.writers() if asked(name)]
            found = [each for each in self.store.listing() if asked(each.name)]
            if not written or any(each.damage or (each.run and each.run.epochs) for each in found):
                answer = question()
                if last is None or not answer.equals(last):
                    yield answer
                last = answer
            if not written:
                return
            wait()

    def query(
        self,
        sql: str,
        emit: Emit = ignore,
        damaged: Callable[[DamagedError], None] | None = None,
        also: "Mapping[str, pl.DataFrame] | None" = None,
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
        also
            Further tables by name, such as what a measure gave.

        Raises
        ------
        QueryError
            When ``sql`` is no single SELECT, or DuckDB refuses it.
        UsageError
            When a further table has another table's name.
        DamagedError
            When a record cannot be read, and no ``damaged`` is to be told.
        """  # noqa: D205  (the tables' names fill the first sentence)
        import tempfile

        from ibstore.analyze.sql import sandbox, tables

        sandbox.check(sql)
        further = tables.further(also or {})
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
                    lazy = tables.lay(db, runs, computed | further, patterns, sql)
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
        found = [each.run for each in listed_runs(self.store, runs, None) if each.run]
        layers = [{layer.name for layer in run.manifest.layers} for run in found]
        waists = self._remembered_waists(ignore)
        return [waist.name for waist in waists if all(set(waist.layers) <= has for has in layers)]

    def meanings(self) -> dict[str, Waist]:
        """The presets, and every waist that was asked for so far as it is meant now."""
        return presets() | {waist.name: waist for waist in self._remembered_waists(ignore)}

    def _known(self, waists: Waists, known: Mapping[str, Waist] | None) -> dict[str, Waist]:
        """What names may mean: presets, waists that are given, and for other names those that were asked for before."""
        given = presets() | dict(known or {})
        asked = [waists] if isinstance(waists, str | Waist) else waists
        others = [name for name in asked if isinstance(name, str) and ":" not in name and name not in given]
        return self.meanings() | given if others else given

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
        todo: list[Task] = []
        by_channel = bool(self.parts.remembered("channels"))
        for waist in self._remembered_waists(emit):
            for run in runs:
                layers = [layer.name for layer in run.manifest.layers if waist.recipe(layer.name)]
                todo += tasks([run], [waist], layers, None)
                if by_channel:
                    todo += [task for task in tasks([run], [waist], layers, None, "mean") if task.channel is not None]
        return todo

    def _remembered_waists(self, emit: Emit) -> Iterator[Waist]:
        for name, texts in self.parts.remembered_waists().items():
            try:
                yield Waist.of(name, texts)
            except WaistError:  # a reduction or discretizer that another program registered
                emit(Event("notice", detail=f"waist {name!r} needs a function that is not registered here; left out"))


def open_store(path: str | Path, results: str | Path | None = None) -> Study:
    """Open the store at ``path`` for questions: `ibstore.open`.

    Examples
    --------
    >>> import ibstore
    >>> plane = ibstore.open("lab.zarr").analyze(waists=["thesis-6.2"])  # doctest: +SKIP
    """
    return Study(path, results)
