"""`ibstore report`: a page for a colleague."""

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from ibstore.cli.arguments import BetaOption, EstimatorOption, UnitOption
from ibstore.cli.output import QuietOption, placed
from ibstore.cli.progress import listening, tell
from ibstore.cli.selecting import Selected, selecting
from ibstore.errors import UsageError
from ibstore.store.format.layout import counted, size
from ibstore.store.places.disk import save

if TYPE_CHECKING:
    from ibstore.analyze.question import Question

NAME = "report"

MOST_TOLD: Final = 4
"""Command lines of captures that a page tells; more differ in their seeds and sweeps."""


@selecting
def command(
    selected: Selected,
    out: Annotated[Path, typer.Option("--out", "-o", help="File to write: .html.", callback=placed)] = Path(
        "report.html"
    ),
    title: Annotated[str | None, typer.Option("--title", help="Of the page; by default the store's name.")] = None,
    diagnose: Annotated[
        str, typer.Option("--diagnose", help="Which epochs the doctor looks at: last, of each run, all or none.")
    ] = "last",
    estimator: EstimatorOption = None,
    beta: BetaOption = 1.0,
    unit: UnitOption = "bits",
    quiet: QuietOption = False,
) -> None:
    """Write a page that shows a store: what was trained, the plane epoch by epoch, and how far to believe it.

    One HTML file that needs nothing else, no network and no folder beside it: charts with an epoch slider and choosers
    of waist, run and layers, values under the pointer, what the doctor says, tables that sort and download as CSV, and
    the commands to do it again. Without --waist: every waist that was analyzed before and fits the runs. What is
    missing is computed first.

    Example: `ibstore report lab.zarr -o report.html --waist thesis-6.2 --waist thesis-6.3-ex4`
    """
    if out.suffix.lower() not in {".html", ".htm"}:
        raise UsageError(f"{out} is no page; end its name in .html")
    study = selected.study()
    names, known = selected.named(study.analyzed(selected.run))
    with listening(quiet) as emit:
        asked = study.ask(names, known=known, emit=emit, **selected.about())
        of_page = title or Path(selected.store).name or selected.store
        how: dict[str, Any] = {"estimator": estimator, "unit": unit, "beta": beta, "channels": selected.channels}
        how |= {"run": selected.run, "layer": selected.layer, "epoch": selected.epoch}
        lines = list(_commands(asked, selected.store, how, {"diagnose": diagnose, "title": title, "out": str(out)}))
        text = asked.report(of_page, estimator or "plugin", beta=beta, unit=unit, diagnosed=diagnose, commands=lines)
    content = text.encode()
    save(out, content, "--out")
    if not quiet:
        tell(f"{out} written, {size(len(content))}: of {', '.join(names)}; open it in a browser")


def _commands(question: "Question", store: str, how: dict[str, Any], page: dict[str, Any]) -> Iterator[str]:
    """Lines that make the store's runs, the page's numbers and the page again."""
    from ibstore.cli.redo import asked, captured, versions

    lines = [captured(run.manifest, store) for run in question.runs.values()]
    told = [line for line in lines if line is not None]
    yield from told[:MOST_TOLD]
    if len(told) > MOST_TOLD:
        yield f"# and {counted(len(told) - MOST_TOLD, 'more run')}: `ibstore info {store}` has their settings"
    if len(told) < len(lines):
        yield f"# {counted(len(lines) - len(told), 'run')} recorded in a training loop of one's own"
    yield asked("analyze", store, question.waists, **how)
    yield asked("report", store, question.waists, **how, **page)
    yield f"# analyzed with {versions()}"
