"""Drawing the core's events: bars on a terminal, plain lines otherwise, nothing when quiet. All on stderr."""

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

import typer

from ibstore.events import Emit, Event, ignore

LINES: Final = 10
"""Plain lines that a stage prints at most."""


@contextmanager
def listening(quiet: bool) -> Iterator[Emit]:
    """Give a listener for the core's events; bars vanish when the work is done."""
    if quiet:
        yield ignore
    elif sys.stderr.isatty():
        with _bars() as emit:
            yield emit
    else:
        yield _lines()


@contextmanager
def _bars() -> Iterator[Emit]:
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeRemainingColumn

    console = Console(stderr=True)
    columns = (TextColumn("{task.fields[stage]}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, TextColumn("{task.description}", markup=False), console=console, transient=True) as bars:
        known: dict[str, TaskID] = {}

        def emit(event: Event) -> None:
            if event.is_notice:
                console.print(event.detail, markup=False)
                return
            if event.stage not in known:
                known[event.stage] = bars.add_task(event.detail, total=event.total, stage=event.stage)
            bars.update(known[event.stage], completed=event.done, total=event.total, description=event.detail)

        yield emit


def tell(line: str) -> None:
    """Write a line to stderr; when whoever read it is gone, the work goes on without."""
    try:
        typer.echo(line, err=True)
    except OSError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stderr.fileno())


def _lines() -> Emit:
    """A line for each tenth of a stage, so that a log stays readable."""
    last: dict[str, int] = {}

    def emit(event: Event) -> None:
        tenth = LINES * event.done // event.total if event.total else -1
        if event.is_notice:
            tell(event.detail)
        elif not event.inner and last.get(event.stage) != tenth:
            last[event.stage] = tenth
            tell(f"{event.stage} {event.done}/{event.total} {event.detail}".rstrip())

    return emit
