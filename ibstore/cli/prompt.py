"""The prompt of `ibstore query`: one SELECT after another, with history and completion where readline is."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final

import typer

from ibstore.cli.progress import tell
from ibstore.errors import IbstoreError

FIRST, NEXT = "ibstore> ", "    ...> "
LEAVE: Final = ("exit", "quit", ".exit", ".quit")
HINT: Final = "One SELECT, ended by a semicolon; tab completes, Ctrl-D leaves."
KEYWORDS: Final = (
    *("SELECT", "FROM", "WHERE", "GROUP BY", "ORDER BY", "LIMIT", "JOIN", "USING", "WITH", "AS", "AND", "OR", "NOT"),
    *("DESCRIBE", "SUMMARIZE", "avg(", "count(", "min(", "max(", "stddev(", "entropy(", "mutual_information("),
)
MOST_LINES: Final = 1000
"""Of the history that is kept."""

Read = Callable[[str], str]


def converse(answer: Callable[[str], None], read: Read = input) -> None:
    """Answer one statement after another until the end of the input; what fails is told, and the next one is asked.

    Parameters
    ----------
    answer
        Answers a statement, without its semicolon.
    read
        Reads a line after showing a text; EOFError at the end, KeyboardInterrupt to begin a statement anew.
    """
    for statement in statements(read):
        try:
            answer(statement)
        except IbstoreError as error:
            tell(f"Error: {error}")
        except KeyboardInterrupt:
            tell("interrupted")


def statements(read: Read) -> Iterator[str]:
    """Statements that are typed, each up to its semicolon."""
    lines: list[str] = []
    while True:
        try:
            line = read(NEXT if lines else FIRST)
        except EOFError:
            return
        except KeyboardInterrupt:
            lines = []
            continue
        if not lines and line.strip().rstrip(";").lower() in LEAVE:
            return
        if not lines and not line.strip():
            continue
        lines.append(line)
        if line.rstrip().endswith(";"):
            yield "\n".join(lines).rstrip().rstrip(";")
            lines = []


def completions(text: str, words: Sequence[str]) -> list[str]:
    """Words that begin so, whatever their case.

    >>> completions("sel", ["SELECT", "selection", "FROM"])
    ['SELECT', 'selection']
    """
    return [word for word in words if word.lower().startswith(text.lower())] if text else []


@contextmanager
def remembering(words: Sequence[str], history: Path | None = None) -> Iterator[None]:
    """Let lines be edited, completed and remembered; nothing happens where there is no readline."""
    try:
        import readline
    except ImportError:  # as on Windows
        yield
        return
    path = Path(typer.get_app_dir("ibstore"), "history") if history is None else history
    with suppress(OSError):
        readline.read_history_file(path)
    readline.set_history_length(MOST_LINES)
    readline.set_completer_delims(" \t\n,;()=<>+-*/'\"")
    readline.set_completer(lambda text, state: ([*completions(text, words), None])[state])
    readline.parse_and_bind("tab: complete")
    try:
        yield
    finally:
        readline.set_completer(None)
        with suppress(OSError):  # a history is a comfort
            path.parent.mkdir(parents=True, exist_ok=True)
            readline.write_history_file(path)
