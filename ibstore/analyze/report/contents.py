"""What a report says, before it has a form: tables, opinions, networks."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import polars as pl

from ibstore.analyze.losses import dynamics
from ibstore.analyze.measures.doctor import Opinion, opinions
from ibstore.analyze.plane import MEAN
from ibstore.analyze.plots.page import last_epochs
from ibstore.analyze.plots.planes import mean_path
from ibstore.analyze.recorded import epochs_table, layers_table, runs_table
from ibstore.analyze.tasks import WHOLE
from ibstore.errors import UsageError
from ibstore.store.format.layout import listed, size

if TYPE_CHECKING:
    from ibstore.analyze.question import Question
    from ibstore.store import Run

PLANE: Final = (
    *("run", "split", "waist", "estimator", "layer", "epoch", "n", "h_x", "h_y", "h_t", "i_xt", "i_ty", "ib"),
    *("ceiling", "saturated", "distinct_t", "i_xt_low", "i_xt_high", "i_ty_low", "i_ty_high"),
)
MOST_ROWS: Final = 40_000
"""Of a table: about 5 MB, and what a browser draws without a wait."""

MEAN_OF_RUNS: Final = "mean of the runs"
"""The run of rows that are, at each epoch, the mean over the runs that have it."""

DIAGNOSED: Final = ("last", "all", "none")
"""Epochs that the doctor looks at."""


@dataclass(frozen=True)
class Network:
    """A network as its module prints itself, and the runs that trained it."""

    module: str
    runs: Sequence[str]


@dataclass(frozen=True)
class Diagnosis:
    """The doctor's opinions of the layers of a run, split and waist."""

    title: str
    samples: int
    layers: Sequence[Opinion]


@dataclass(frozen=True)
class Contents:
    """All that a page says.

    Parameters
    ----------
    title
        What the page is about.
    facts
        What holds of all runs, by name.
    unit, beta
        Of informations, and the weight of I(T;Y) in ``ib``.
    tables
        ``runs``, ``plane``, ``epochs``, ``dynamics`` and ``layers``, each of at most `MOST_ROWS`.
    notes
        What is to be said of some of the tables.
    waists
        The recipes of each waist, by its name and by layer.
    networks, diagnoses
        See there.
    versions
        Of the packages that captured, by name.
    """

    title: str
    facts: Mapping[str, str]
    unit: str
    beta: float
    tables: Mapping[str, pl.DataFrame]
    notes: Mapping[str, str]
    waists: Mapping[str, Mapping[str, str]]
    networks: Sequence[Network]
    diagnoses: Sequence[Diagnosis]
    versions: Mapping[str, str]

    @property
    def layers(self) -> list[str]:
        """Layers of the plane, in execution order."""
        return self.choices("layer")

    @property
    def first(self) -> str:
        """The waist that the page begins with: that of the fewest saturated rows."""
        shares = (
            self.tables["plane"].group_by("waist", maintain_order=True).agg(pl.col("saturated").cast(pl.Float64).mean())
        )
        return str(shares.sort("saturated", nulls_last=True, maintain_order=True)["waist"][0])

    def choices(self, column: str) -> list[Any]:
        """What can be chosen of the plane, in the table's order."""
        return self.tables["plane"][column].unique(maintain_order=True).to_list()


def contents(
    question: "Question",
    title: str,
    estimators: Sequence[str] = ("plugin",),
    *,
    beta: float = 1.0,
    unit: str = "bits",
    diagnosed: str = "last",
) -> Contents:
    """Compute what a report says of a question.

    Parameters
    ----------
    question
        What the page is about.
    title
        Of the page.
    estimators, beta, unit
        As of `Study.analyze`.
    diagnosed
        Which epochs the doctor looks at: the ``last`` of each run, ``all``, or ``none``.

    Raises
    ------
    UsageError
        When ``diagnosed`` is something else, or a single run has more rows than a page holds.
    """
    if diagnosed not in DIAGNOSED:
        raise UsageError(f"diagnosed is {diagnosed!r}; give one of {', '.join(DIAGNOSED)}")
    runs = list(question.runs.values())
    epochs = epochs_table(runs)
    plane = question.plane(estimators, beta=beta, unit=unit)
    whole = {
        "runs": _runs(runs, epochs),
        "plane": _with_means(plane.filter(pl.col("channel").is_in([WHOLE, MEAN]))),
        "epochs": epochs,
        "dynamics": dynamics(runs),
        "layers": layers_table(runs).with_columns(
            pl.col("shape").list.eval(pl.element().cast(pl.String)).list.join("×")
        ),
    }
    fitting = {name: _fitting(name, table) for name, table in whole.items()}
    versions = {name: value for run in runs for name, value in run.manifest.versions.items()}
    return Contents(
        title,
        _facts(runs, plane),
        unit,
        beta,
        {name: table for name, (table, _) in fitting.items()},
        {name: note for name, (_, note) in fitting.items() if note},
        {waist.name: waist.texts for waist in question.waists},
        _networks(runs),
        list(_diagnoses(question, estimators, diagnosed)),
        versions,
    )


def _facts(runs: "Sequence[Run]", plane: pl.DataFrame) -> dict[str, str]:
    """What the page begins with."""
    epochs = sorted({epoch for run in runs for epoch in run.epochs})
    samples = dict(plane.group_by("split", maintain_order=True).agg(pl.col("n").max()).iter_rows())
    return {
        "runs": str(len(runs)),
        "epochs": listed(epochs),
        "samples": ", ".join(f"{count:,} ({split})" for split, count in samples.items()),
        "stored": size(sum(run.stored_bytes for run in runs)),
    }


def _runs(runs: "Sequence[Run]", epochs: pl.DataFrame) -> pl.DataFrame:
    """Settings of each run, beside the scores of its last epoch."""
    last = last_epochs(epochs).drop("step", "epoch")
    scores = last.pivot("split", index="run", values=["loss", "accuracy"], maintain_order=True, separator=" ")
    if last["split"].n_unique() == 1:  # polars does not say the split then
        scores = scores.rename({name: f"{name} {last['split'][0]}" for name in ("loss", "accuracy") if name in scores})
    renamed = {name: " ".join(reversed(name.split(" ", 1))) for name in scores.columns}
    known = scores.rename(renamed)
    return (
        runs_table(runs)
        .join(known, on="run", how="left", maintain_order="left")
        .drop("settings")
        .with_columns(settings=pl.Series([_settings(run) for run in runs], dtype=pl.String))
    )


def _settings(run: "Run") -> str:
    return ", ".join(f"{name}={value}" for name, value in run.manifest.settings.items() if value is not None)


def _with_means(plane: pl.DataFrame) -> pl.DataFrame:
    """The plane of each run, and before them the mean of all, with one deviation as its bars, where there are more."""
    if plane["run"].n_unique() > 1:
        means = mean_path(plane).with_columns(run=pl.lit(MEAN_OF_RUNS))
        plane = pl.concat([means, plane], how="diagonal_relaxed")
    return plane.select(PLANE)


def _fitting(name: str, table: pl.DataFrame) -> tuple[pl.DataFrame, str]:
    """Whole runs, the first of them, as many as a page holds, and what is to be said of that."""
    if len(table) <= MOST_ROWS:
        return table, ""
    counts = table.group_by("run", maintain_order=True).len()
    kept = counts.filter(pl.col("len").cum_sum() <= MOST_ROWS)["run"]
    if kept.is_empty():
        raise UsageError(
            f"the {name} of run {counts['run'][0]!r} have {counts['len'][0]:,} rows, and a page holds {MOST_ROWS:,}; "
            "choose some of its --epoch or --layer"
        )
    note = f"{len(kept)} of {len(counts)} runs are here; `ibstore query` has all of them"
    return table.filter(pl.col("run").is_in(kept.to_list())), note


def _networks(runs: "Iterable[Run]") -> list[Network]:
    by_module: dict[str, list[str]] = {}
    for run in runs:
        by_module.setdefault(run.manifest.module, []).append(run.name)
    return [Network(module, names) for module, names in by_module.items() if module]


def _diagnoses(question: "Question", estimators: Sequence[str], diagnosed: str) -> "Iterable[Diagnosis]":
    asked: Iterable[Question] = () if diagnosed == "none" else [question] if diagnosed == "all" else question.last()
    for each in asked:
        for names, layers in opinions(each.doctor(estimators)):
            samples = names.pop("n")
            yield Diagnosis(" · ".join(names.values()), samples, layers)
