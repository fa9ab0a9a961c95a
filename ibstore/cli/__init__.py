"""The command line: arguments in, tables and pictures out. Importing it imports typer and rich alone."""

import sys

import typer

from ibstore.capture.termination import CODE, Terminated
from ibstore.cli import (
    analyze,
    cache,
    capture,
    cp,
    doctor,
    export,
    import_,
    info,
    ls,
    measure,
    merge,
    plot,
    probe,
    query,
    repair,
    report,
    reproduce,
    rm,
    sweep,
    verify,
    waists,
    watch,
)
from ibstore.cli.progress import tell
from ibstore.cli.spare import Command, Group
from ibstore.errors import IbstoreError

app = typer.Typer(
    name="ibstore",
    help="Capture activations once, ask for ever: an activation store with information planes and SQL.",
    epilog="Try `ibstore capture mnist-cnn --store lab.zarr`, then `ibstore analyze lab.zarr`.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,  # rich would take as long to draw the help as all the rest
    cls=Group,
    context_settings={"help_option_names": ["-h", "--help"]},
)

for command in (
    *(capture, analyze, measure, probe, sweep, doctor, query, plot, report, watch, reproduce),
    *(ls, info, waists, import_, export, verify, repair, cp, merge, rm),
):
    app.command(command.NAME, cls=Command)(command.command)
app.add_typer(cache.app)


INTERRUPTED = "interrupted; what was committed is whole: capture goes on with --resume, analyze when it is asked again"
INTERRUPTED_CODE = 130


def _version(wanted: bool) -> None:
    if wanted:
        from ibstore import __version__

        typer.echo(f"ibstore {__version__}")
        raise typer.Exit


@app.callback()
def _options(
    version: bool = typer.Option(
        False, "--version", help="Print the version and leave.", callback=_version, is_eager=True
    ),
) -> None:
    pass


def main() -> None:
    """Run the command line; a failure is one sentence on stderr, exit 2 for usage and 1 for the rest."""
    try:
        app(prog_name="ibstore")
    except IbstoreError as error:
        _fail(str(error), error.exit_code)
    except Terminated as leaving:
        _fail("; ".join(["terminated; what was committed is whole, go on with --resume", *_notes(leaving)]), CODE)
    except KeyboardInterrupt:
        _fail(INTERRUPTED, INTERRUPTED_CODE)
    except SystemExit as leaving:
        if leaving.code == INTERRUPTED_CODE:  # so typer ends what was interrupted
            _fail(INTERRUPTED, INTERRUPTED_CODE)
        raise
    except (OSError, MemoryError) as error:
        reason = getattr(error, "strerror", None) or str(error) or "out of memory"
        named = f"{error.filename}: " if getattr(error, "filename", None) else ""  # type: ignore[union-attr]
        _fail(f"{named}{reason}; mend that and run the command again", 1)


def _notes(error: BaseException) -> list[str]:
    return getattr(error, "__notes__", [])


def _fail(message: str, code: int) -> None:
    sys.stdout.flush()
    tell(f"Error: {message}")
    raise SystemExit(code)
