"""`ibstore analyze`: the information plane of a store."""

import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from functools import partial
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ibstore.cli.arguments import BetaOption, EstimatorOption, SchedulerOption, UnitOption, bytes_of
from ibstore.cli.output import Format, FormatOption, OutOption, QuietOption, write
from ibstore.cli.progress import listening
from ibstore.cli.selecting import Selected, selecting
from ibstore.errors import UsageError
from ibstore.events import Event

if TYPE_CHECKING:
    import polars as pl
    from distributed import Client

NAME = "analyze"
CONTEXT = ("run", "split", "channel", "estimator", "unit", "n", "h_y", "beta")
LONG_CONTEXT = ("run", "split", "channel", "estimator", "unit", "n")
PLANNED_CONTEXT = ("run", "split")
PLANNED = (
    *("layer", "epochs", "waists", "recipes", "recalled", "raw_bytes", "stored_bytes", "passes", "held_bytes"),
    *("fit_bytes", "key_bytes", "kept_bytes", "threads", "peak_bytes"),
)
LONG = ("waist", "layer", "epoch", "variable", "entropy", "distinct", "singletons", "coverage", "saturated")
BARS = ("i_xt_low", "i_xt_high", "i_ty_low", "i_ty_high", "variance")
"""Shown where an estimator has error bars."""

OWN = ("mean_kl",)
"""Shown where layers are draws of a stochastic one, which says itself what it tells of the input."""

BRIEF = ("waist", "layer", "epoch", "h_x", "h_t", "i_xt", "i_ty", "ib", "distinct_t", "saturated")


@selecting
def command(
    selected: Selected,
    estimator: EstimatorOption = None,
    long: Annotated[
        bool, typer.Option("--long", help="A row for each entropy, with what it was counted from, instead of columns.")
    ] = False,
    beta: BetaOption = 1.0,
    unit: UnitOption = "bits",
    form: FormatOption = None,
    out: OutOption = None,
    follow: Annotated[
        bool, typer.Option("--follow", help="Go on with epochs as they are committed, until nobody writes.")
    ] = False,
    keep_keys: Annotated[
        str,
        typer.Option(
            "--keep-keys",
            help="auto, always or never: by default keys are kept that are much smaller than what they come from.",
        ),
    ] = "auto",
    device: Annotated[
        str, typer.Option("--device", help="Where to pool, bin and pack: cpu, cuda, cuda:1, … The keys are the same.")
    ] = "cpu",
    scheduler: SchedulerOption = None,
    explain: Annotated[
        bool, typer.Option("--explain", help="Tell what would be read, kept and counted, and do nothing.")
    ] = False,
    quiet: QuietOption = False,
) -> None:
    """Compute the information plane under one or more waists.

    Narrows each recorded layer as the waist says, counts the patterns, and prints H, I(X;T) and I(T;Y) for each
    layer and epoch. Results are kept: asking again costs nothing, another waist computes only itself. `table`
    shows the columns that people look at; the other formats have all of them. Without --waist: thesis-6.2.
    With --estimator entropies are corrected for their bias: plugin (as it is), miller_madow, grassberger, chao_shen,
    chao_wang_jost, shrink, jackknife, nsb, ansb, bonachela, zhang, good_turing, jeffreys, laplace, perks, minimax,
    bayes(0.5) (or another alpha), nsb(1000) (as many possible keys). Others look at the reduced values, not at bins:
    kde (noise chosen by the labels, or kde(variance=0.1)), ksg(k=3, variant=1), renyi(alpha=1.01), edge(seed=0); each
    takes samples=… too. docs/estimators.md says which to take.
    With --explain the plan is printed, a row for each reading of a layer's segment, which serves all waists at once.
    With --follow a store that is being written is looked at again and again, and rows are added as epochs are
    committed (in a file of --out the whole table each time).

    Example: `ibstore analyze lab.zarr --waist thesis-6.2 --waist 'mine: x=maxpool(7, 7) | threshold(0.5);
    *=identity | quantile(bins=4)' --unit nats`
    """
    names, known = selected.named()
    study = selected.study()
    columns = (LONG, LONG_CONTEXT) if long else (BRIEF, CONTEXT)
    asked = {"estimators": estimator or "plugin", "known": known, **selected.about()}
    asked |= {"keep_keys": keep_keys, "device": device}
    if explain and scheduler is not None:
        raise UsageError("--explain tells what this process would do, without a --scheduler; leave one of them out")
    with listening(quiet) as emit, _cluster(scheduler, selected, device) as client:
        asked["client"] = client
        if explain:
            plan = study.explain(names, emit=emit, **asked)
            write(plan, form, out, PLANNED, PLANNED_CONTEXT)
            if plan.is_empty():
                emit(Event("notice", detail="nothing to compute: all of it is kept"))
            return
        question = partial(study.analyze, names, long=long, beta=beta, unit=unit, emit=emit, **asked)
        if follow:
            _write_growing(study.follow(question, selected.run), form, out, *columns)
            return
        table = question()
    brief, context = columns
    shown = [] if long else [name for name, of in ((BARS, "variance"), (OWN, "mean_kl")) if table[of].count()]
    write(table, form, out, (*brief, *chain.from_iterable(shown)), context)


@contextmanager
def _cluster(scheduler: str | None, selected: Selected, device: str) -> "Iterator[Client | None]":
    """A client of the cluster that is asked for, if one is."""
    if scheduler is None:
        yield None
        return
    from ibstore.analyze.cluster import connected
    from ibstore.devices import gpus_of

    with connected(scheduler, bytes_of(selected.memory), gpus_of(device)) as client:
        yield client


def _write_growing(
    tables: "Iterable[pl.DataFrame]",
    form: Format | None,
    out: Path | None,
    columns: tuple[str, ...],
    context: tuple[str, ...],
) -> None:
    """Write the rows that each table has and the one before had not; to a file each table whole."""
    last = None
    for table in tables:
        new = table if last is None else table.join(last, on=table.columns, how="anti", nulls_equal=True)
        write(table if out else new, form, out, columns, context, header=last is None)
        sys.stdout.flush()
        last = table
