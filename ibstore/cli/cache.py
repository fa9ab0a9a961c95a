"""`ibstore cache ls` and `ibstore cache rm`: the results that are kept beside a store."""

import sys
from typing import TYPE_CHECKING, Annotated

import typer

from ibstore.cli.arguments import LayerOption, RunOption, StoreArgument, YesOption
from ibstore.cli.output import FormatOption, OutOption, QuietOption, ResultsOption, write
from ibstore.cli.progress import listening
from ibstore.cli.spare import Command, Group
from ibstore.errors import UsageError
from ibstore.events import Event
from ibstore.store.format.layout import size

if TYPE_CHECKING:
    import polars as pl

NAME = "cache"

MEANING = ("table", "run", "split", "layer", "waist", "estimator")

app = typer.Typer(
    name=NAME,
    help="List or remove what `analyze` has kept.",
    no_args_is_help=True,
    rich_markup_mode=None,
    cls=Group,
)


@app.command("ls", cls=Command)
def ls(
    store: StoreArgument,
    form: FormatOption = None,
    out: OutOption = None,
    results: ResultsOption = None,
) -> None:
    """List what is kept, by table, run, layer, waist and estimator.

    Waists with equal recipes share parts, which are listed with each of them. What no waist asks for any more, since
    its run was removed or its waist means something else by now, stands at the end of its table without a run.

    Example: `ibstore cache ls lab.zarr`
    """
    from ibstore.analyze import Study

    write(_by_meaning(Study(store, results).kept()), form, out)


@app.command("rm", cls=Command)
def rm(
    store: StoreArgument,
    run: RunOption = None,
    layer: LayerOption = None,
    waist: Annotated[
        list[str] | None, typer.Option("--waist", "-w", help="Only of this waist; may be repeated.")
    ] = None,
    table: Annotated[
        str | None, typer.Option("--table", help="Only of this table: counts, information_plane, patterns or blocks.")
    ] = None,
    unused: Annotated[bool, typer.Option("--unused", help="Only what no waist asks for any more.")] = False,
    everything: Annotated[bool, typer.Option("--all", help="All of it.")] = False,
    results: ResultsOption = None,
    yes: YesOption = False,
    quiet: QuietOption = False,
) -> None:
    """Remove kept results.

    What is asked for again is computed again.
    Says what will be removed and asks; where nobody can be asked, it needs --yes. A part that another waist shares goes
    too. Stored activations are never touched.

    Example: `ibstore cache rm lab.zarr --unused --yes`
    """
    from ibstore.analyze import Study

    chosen = {"run": run, "layer": layer, "waist": waist, "table": [table] if table else None}
    if not (everything or unused or any(chosen.values())):
        raise UsageError("say what: --unused, --all, or of which --run, --layer, --waist, --table")
    study = Study(store, results)
    found = _chosen(study.kept(), chosen, unused)
    parts = found.unique("part")
    planned = f"{len(parts)} parts, {size(int(parts['bytes'].sum()))}"
    with listening(quiet) as emit:
        if found.is_empty():
            emit(Event("notice", detail="nothing is kept of that"))
            return
        if not yes:
            if not sys.stdin.isatty():
                raise UsageError(f"this would remove {planned}; nothing was removed: give --yes")
            typer.confirm(f"Remove {planned}?", abort=True, err=True)
        study.forget(parts["part"].to_list())
        emit(Event("notice", detail=f"removed {planned}"))


def _chosen(kept: "pl.DataFrame", chosen: dict[str, list[str] | None], unused: bool) -> "pl.DataFrame":
    """Parts of the chosen runs, layers, waists and table."""
    import polars as pl

    for name, values in chosen.items():
        if values is not None:
            lacking = sorted(set(values) - set(kept[name]))
            if lacking and not kept.is_empty():
                has = ", ".join(kept[name].drop_nulls().unique().sort()) or "none"
                raise UsageError(f"nothing is kept of {name} {lacking[0]!r}; there is {has}")
            kept = kept.filter(pl.col(name).is_in(values))
    return kept.filter(pl.col("run").is_null()) if unused else kept


def _by_meaning(kept: "pl.DataFrame") -> "pl.DataFrame":
    """A row for what has one meaning: how many parts, epochs and bytes."""
    import polars as pl

    return kept.group_by(MEANING, maintain_order=True).agg(
        pl.len().alias("parts"), pl.col("epochs").sum().replace(0, None), pl.col("bytes").sum().alias("kept_bytes")
    )
