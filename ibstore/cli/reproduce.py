"""`ibstore reproduce`: the literature, redone from one declarative file each."""

import shlex
import sys
import time
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Annotated, Self

import typer

from ibstore.cli.output import QuietOption
from ibstore.cli.progress import tell
from ibstore.cli.redo import versions
from ibstore.errors import UnknownNameError, UsageError, WriteError
from ibstore.store.places.disk import save

NAME = "reproduce"

SUMMARY = "summary.md"
STORE = "lab.zarr"
AS_THERE = {True: "yes", False: "**no**", None: "not to be told"}
UNTOLD = (
    "Not to be told: most patterns stand for one sample each, the networks have learnt too little, an event is not "
    "clear, or the training is too short to tell."
)


@dataclass(frozen=True)
class Step:
    """A command on what was captured; with a ``table`` its answer is one, of that name, for findings to SELECT from."""

    command: str
    table: str | None = None

    @property
    def whole(self) -> str:
        """The command with the file that its table is kept in: as Parquet, in which columns keep their types."""
        return self.command if self.table is None else f"{self.command} --out {{out}}/{self.table}.parquet"


@dataclass(frozen=True)
class Picture:
    """A picture: the command that draws it, and what is written below it."""

    command: str
    title: str


@dataclass(frozen=True)
class Finding:
    """What a source reports, and a SELECT of what was found here (text) and whether that agrees (boolean).

    Of a ``whole`` one a quick training tells nothing, whatever it finds: it speaks of the end of a long one.
    """

    says: str
    sql: str
    whole: bool = False


@dataclass(frozen=True)
class Size:
    """The captures of the whole thing, or of a quick one; ``needs_data``: from a folder of files."""

    captures: tuple[str, ...]
    needs_data: bool = False


@dataclass(frozen=True)
class Reproduction:
    """What is redone: commands of ``ibstore``, with {store}, {out} and {data} in the place of paths."""

    name: str
    title: str
    source: str
    sizes: Mapping[str, Size]
    steps: tuple[Step, ...]
    pictures: tuple[Picture, ...]
    findings: tuple[Finding, ...]

    @classmethod
    def read(cls, name: str) -> Self:
        """That of a name.

        Raises
        ------
        UnknownNameError
            When there is none.
        """
        if name not in names():
            raise UnknownNameError(f"there is no reproduction {name!r}; choose one of {', '.join(names())}")
        found = tomllib.loads((resources.files("ibstore.reproductions") / f"{name}.toml").read_text(encoding="utf-8"))
        sizes = {
            size: Size(tuple(own["captures"]), own.get("needs_data", False)) for size, own in found["sizes"].items()
        }
        return cls(
            name,
            found["title"],
            found["source"],
            sizes,
            tuple(Step(**each) for each in found.get("step", [])),
            tuple(Picture(**each) for each in found.get("picture", [])),
            tuple(Finding(**each) for each in found.get("finding", [])),
        )


def names() -> list[str]:
    """What can be redone."""
    return sorted(
        Path(file.name).stem
        for file in resources.files("ibstore.reproductions").iterdir()
        if file.name.endswith(".toml")
    )


def command(
    name: Annotated[
        str,
        typer.Argument(
            metavar="NAME", help="What to redo: blackbox, cnn-kde, info-dropout, szt or thesis.", show_default=False
        ),
    ],
    out: Annotated[Path | None, typer.Option("--out", "-o", help="Folder to make; by default NAME.")] = None,
    quick: Annotated[bool, typer.Option("--quick", help="A minute of it, on data that come with ibstore.")] = False,
    data_dir: Annotated[Path | None, typer.Option("--data-dir", help="Folder with the data set's files.")] = None,
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on in a folder where it was begun; what is there is not done again.")
    ] = False,
    quiet: QuietOption = False,
) -> None:
    """Redo what the literature did: capture, analyze, draw, and hold what was found against what it reports.

    The folder has the store, tables, pictures, and summary.md: what the source reports beside what was found, the
    commands, seeds and times. Where a finding does not come back, it says so.

    Example: `ibstore reproduce thesis --quick`
    """
    asked = Reproduction.read(name)
    size = asked.sizes["quick" if quick else "full"]
    folder = Path(name) if out is None else out
    if size.needs_data and data_dir is None:
        raise UsageError(f"{name} is redone on files; give --data-dir DIR, or --quick for data that come with ibstore")
    if data_dir is not None and not size.needs_data:
        raise UsageError(f"{name}{' --quick' * quick} takes data that come with ibstore; leave --data-dir out")
    _make(folder, resume=resume)
    places = {"store": str(folder / STORE), "out": str(folder), "data": str(data_dir)}
    seconds = dict(_carried_out(asked, size, places, resume=resume, quiet=quiet))
    text = summary(asked, seconds, _found(asked, folder, quick=quick), quick=quick)
    save(folder / SUMMARY, text.encode(), "--out")
    sys.stdout.write(text)


def _make(folder: Path, *, resume: bool) -> None:
    """Make the folder, or find it as it was left; an empty one does for both."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        used = any(folder.iterdir())
    except OSError as error:
        raise WriteError(
            f"cannot make {folder}: {error.strerror or error}; choose another folder with --out"
        ) from error
    if used and not resume:
        raise UsageError(
            f"{folder} is there already; go on with --resume, give another folder with --out, or remove it"
        )


def _carried_out(
    asked: Reproduction, size: Size, places: Mapping[str, str], *, resume: bool, quiet: bool
) -> Iterator[tuple[str, float]]:
    """Every command, as it was given, with the seconds that it took; the first that does not end well ends it all."""
    from ibstore.cli import INTERRUPTED_CODE, app

    steps, pictures = (step.whole for step in asked.steps), (picture.command for picture in asked.pictures)
    for text in (*size.captures, *steps, *pictures):
        words = [word.format(**places) for word in shlex.split(text)]
        shown = shlex.join(["ibstore", *words])
        if not quiet:
            tell(shown)
        how = ["--quiet"] * quiet + ["--resume"] * (resume and words[0] == "capture")
        start = time.perf_counter()
        code = app([*words, *how], prog_name="ibstore", standalone_mode=False)
        if code == INTERRUPTED_CODE:
            raise KeyboardInterrupt
        if code:
            raise typer.Exit(code)
        yield shown, time.perf_counter() - start


def _found(asked: Reproduction, folder: Path, *, quick: bool) -> list[tuple[str, bool | None]]:
    """What each finding's SELECT says, of the store's tables and of those that steps made."""
    import polars as pl

    from ibstore.analyze import Study

    study = Study(folder / STORE)
    made = {step.table: pl.read_parquet(folder / f"{step.table}.parquet") for step in asked.steps if step.table}
    answers = [study.query(finding.sql, also=made).row(0) for finding in asked.findings]
    return [
        (text, None if quick and finding.whole else agrees)
        for finding, (text, agrees) in zip(asked.findings, answers, strict=True)
    ]


def summary(
    asked: Reproduction, seconds: Mapping[str, float], found: Sequence[tuple[str, bool | None]], *, quick: bool
) -> str:
    """The page: findings side by side, pictures, how to redo it, and how each finding is judged."""
    lines = [f"# {asked.title}", "", f"After {asked.source}.", ""]
    if quick:
        lines += ["A quick one, smaller than the source's: take its numbers for a sign, not for a finding.", ""]
    lines += ["| the source reports | found here | as there? |", "| --- | --- | --- |"]
    lines += [
        f"| {finding.says} | {text} | {AS_THERE[agrees]} |"
        for finding, (text, agrees) in zip(asked.findings, found, strict=True)
    ]
    if any(agrees is None for _, agrees in found):
        lines += ["", UNTOLD]
    for picture in asked.pictures:
        words = shlex.split(picture.command)
        file = Path(words[words.index("-o") + 1]).name
        lines += ["", f"![{picture.title}]({file})", "", f"{picture.title}."]
    lines += [
        "",
        "## How to redo it",
        "",
        f"In {sum(seconds.values()):.0f} s, with seed 0 unless a line says another:",
        "",
    ]
    lines += ["```sh", *(f"{line}  # {spent:.0f} s" for line, spent in seconds.items()), "```", "", f"{versions()}."]
    lines += ["", "## How each is judged", ""]
    for finding in asked.findings:
        lines += [f"{finding.says}{' (by a whole training alone)' * finding.whole}:", ""]
        lines += ["```sql", finding.sql.strip(), "```", ""]
    return "\n".join(lines)
