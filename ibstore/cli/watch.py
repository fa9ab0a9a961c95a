"""`ibstore watch`: a running capture in the terminal."""

import json
import math
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from datetime import timedelta
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from ibstore.cli.arguments import RunOption, StoreArgument
from ibstore.cli.progress import tell
from ibstore.store.format.layout import size

if TYPE_CHECKING:
    import polars as pl
    from rich.console import Group
    from rich.table import Table

    from ibstore.analyze import Study
    from ibstore.store import Run

NAME = "watch"

Show = Callable[["pl.DataFrame"], None]
HEADS: Final = {
    "stored_bytes": "stored",
    "per_minute": "a minute",
    "epochs": "of",
    "writing": "",
    "i_xt": "I(X;T)",
    "i_ty": "I(T;Y)",
}
OF_LAYERS: Final = ("split", "layer", "i_xt", "i_ty")

Line = Callable[[dict[str, Any]], str]
"""From a row to what is told of it."""


def command(
    store: StoreArgument,
    run: RunOption = None,
    waist: Annotated[
        str | None, typer.Option("--waist", "-w", help="Show the information plane under this waist, too.")
    ] = None,
    once: Annotated[bool, typer.Option("--once", help="Look once, and leave.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="A JSON object a line, for scripts.")] = False,
) -> None:
    """Watch runs while they are written: epochs, loss, size, rate, time left, and the plane so far.

    On a terminal the picture is renewed every two seconds; elsewhere there is a line for each epoch that is committed.
    It ends when nobody writes any more.

    Example: `ibstore watch lab.zarr --waist thesis-6.2`
    """
    from ibstore.analyze import Study

    watcher = Watcher(Study(store), run, waist)
    line = _json if as_json else _line
    with _showing(line, live=sys.stdout.isatty() and not (once or as_json)) as show, suppress(KeyboardInterrupt):
        first = watcher.now()
        if first.is_empty():
            tell(f"{store} has no committed epoch yet" + "; waiting for one" * (not once))
        for answer in [first] if once else watcher.looks():
            show(answer)


@dataclass
class Watcher:
    """Looks at runs again and again.

    Parameters
    ----------
    study
        The store.
    names
        Runs to look at; None: all.
    waist
        Under which the plane is computed; None: there is none.
    clock
        Tells seconds.
    """

    study: "Study"
    names: list[str] | None
    waist: str | None
    clock: Callable[[], float] = time.monotonic
    _first: dict[str, tuple[float, int]] = field(default_factory=dict)

    def looks(self) -> "Iterator[pl.DataFrame]":
        """What is to be seen, whenever it changes, until nobody writes."""
        yield from self.study.follow(self.now, self.names)

    def now(self) -> "pl.DataFrame":
        """A row a run, or under a waist a row a layer: state, epoch, loss, accuracy, size, rate, seconds left.

        Columns run, writing, epoch (the last), epochs (planned, null where it is not known), loss, accuracy,
        stored_bytes, per_minute (epochs a minute since the first look), left (seconds); with a waist split, layer,
        i_xt, i_ty, in bits.
        """
        import polars as pl

        writing = self.study.store.writers()
        found = [self.study.store.run(name) for name in self.names] if self.names else self.study.store.runs()
        runs = [run for run in found if run.epochs]
        rows = [{**self._of(run), "writing": run.name in writing} for run in runs]
        kinds = {"run": pl.String, "writing": pl.Boolean, "epoch": pl.Int64, "epochs": pl.Int64, "loss": pl.Float64}
        kinds |= {"accuracy": pl.Float64, "stored_bytes": pl.Int64, "per_minute": pl.Float64, "left": pl.Float64}
        table = pl.DataFrame(rows, schema=kinds)
        return table if self.waist is None or not rows else table.join(self._plane(runs), on=["run", "epoch"])

    def _of(self, run: "Run") -> dict[str, Any]:
        epoch, planned = run.epochs[-1], run.manifest.settings.get("epochs")
        if "@steps" in str(run.manifest.settings.get("schedule", "")):
            planned = None  # points are steps then
        metrics = next(iter(run.segments[-1].record.metrics[-1].values()), {})
        since, first = self._first.setdefault(run.name, (self.clock(), epoch))
        seconds = self.clock() - since
        rate = 60 * (epoch - first) / seconds if epoch > first and seconds > 0 else None
        left = None if rate is None or planned is None else max(0.0, 60 * (planned - epoch) / rate)
        told = {name: metrics.get(name) for name in ("loss", "accuracy")}
        sizes = {"stored_bytes": run.stored_bytes, "per_minute": rate, "left": left}
        return {"run": run.name, "epoch": epoch, "epochs": planned, **told, **sizes}

    def _plane(self, runs: "list[Run]") -> "pl.DataFrame":
        """The plane of each run's last epoch."""
        import polars as pl

        planes = [self.study.ask(self.waist or "", runs=[run.name], epochs=[run.epochs[-1]]).plane() for run in runs]
        return pl.concat(planes).select("run", "epoch", "split", "layer", "i_xt", "i_ty")


@contextmanager
def _showing(line: Line, *, live: bool) -> Iterator[Show]:
    """Show tables: one picture that is renewed, or lines of what is new."""
    if not live:
        seen: set[tuple[object, ...]] = set()
        yield lambda table: _tell_new(table, seen, line)
        return
    from rich.live import Live

    with Live(auto_refresh=False) as picture:
        yield lambda table: picture.update(_drawn(table), refresh=True)


def _tell_new(table: "pl.DataFrame", seen: set[tuple[object, ...]], line: Line) -> None:
    """A line a row that has not been told yet."""
    for row in table.iter_rows(named=True):
        if (key := tuple(row[name] for name in ("run", "epoch", "layer") if name in row)) not in seen:
            seen.add(key)
            sys.stdout.write(line(row) + "\n")
    sys.stdout.flush()


def _line(row: dict[str, Any]) -> str:
    """What is known of a row, but for how fast it goes: that is a moment's."""
    moments = {"per_minute", "left", "writing"}
    told = {name: value for name, value in row.items() if name not in moments and value is not None}
    return "  ".join(f"{name.removesuffix('_bytes')} {_cell(name, value)}" for name, value in told.items())


def _json(row: dict[str, Any]) -> str:
    """All of a row; JSON has no NaN."""
    lost = {name: None for name, value in row.items() if isinstance(value, float) and not math.isfinite(value)}
    return json.dumps(row | lost, ensure_ascii=False)


def _drawn(table: "pl.DataFrame") -> "Group":
    """What rich draws: the runs, and below them what is known of their layers."""
    from rich.console import Group

    of_layers = [name for name in OF_LAYERS if name in table.columns]
    runs = table.drop(of_layers).unique(maintain_order=True)
    planes = [table.select("run", "epoch", *of_layers)] if of_layers else []
    return Group(*map(_rich, [runs, *planes]))


def _rich(table: "pl.DataFrame") -> "Table":
    """A table as rich draws it; a run that is longer than its room is cut."""
    from rich import box
    from rich.table import Table
    from rich.text import Text

    drawn = Table(box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, 1, 0, 0))
    for name in table.columns:
        long = name in {"run", "layer"}
        cells = [_cell(name, value) for value in table[name]]
        drawn.add_column(
            HEADS.get(name, name),
            justify="right" if table[name].dtype.is_numeric() else "left",
            no_wrap=True,
            overflow="ellipsis",
            min_width=None if long else max(map(len, [HEADS.get(name, name), *cells])),
        )
    for row in table.iter_rows(named=True):
        drawn.add_row(*(Text(_cell(name, value)) for name, value in row.items()))
    return drawn


def _cell(name: str, value: object) -> str:
    if value is None:
        return "–"
    if isinstance(value, bool):
        return "writing" if value else "at rest"
    if name == "left":
        return str(timedelta(seconds=round(float(str(value)))))
    if isinstance(value, int) and name.endswith("_bytes"):
        return size(value)
    return f"{value:.4g}" if isinstance(value, float) else str(value)
