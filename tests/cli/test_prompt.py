"""One SELECT after another."""

import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pexpect
import pytest

from ibstore.cli import prompt
from ibstore.cli.prompt import FIRST, NEXT, converse, remembering, statements
from ibstore.errors import UsageError
from tests.conftest import Command


def reading(*lines: str | BaseException) -> Callable[[str], str]:
    """Reads these lines, or raises, and then the end of the input."""
    left: Iterator[str | BaseException] = iter([*lines, EOFError()])

    def read(_: str) -> str:
        line = next(left)
        if isinstance(line, BaseException):
            raise line
        return line

    return read


@pytest.mark.parametrize(
    ("lines", "expected"),
    [
        (["SELECT 1;"], ["SELECT 1"]),
        (["SELECT", "1 ; "], ["SELECT\n1 "]),
        (["", "SELECT 1;", "  ", "SELECT 2;"], ["SELECT 1", "SELECT 2"]),
        (["SELECT 1", KeyboardInterrupt(), "SELECT 2;"], ["SELECT 2"]),
        (["SELECT 1;", "exit", "SELECT 2;"], ["SELECT 1"]),
        ([".quit;", "SELECT 2;"], []),
        (["SELECT 1"], []),
    ],
)
def test_a_statement_ends_with_its_semicolon(lines: list[str | BaseException], expected: list[str]) -> None:
    assert list(statements(reading(*lines))) == expected


def test_what_is_shown_says_whether_a_statement_goes_on() -> None:
    shown, lines = [], iter(["SELECT", "1;"])

    def read(text: str) -> str:
        shown.append(text)
        try:
            return next(lines)
        except StopIteration:
            raise EOFError from None

    list(statements(read))
    assert shown == [FIRST, NEXT, FIRST]


def test_what_fails_is_told_and_the_next_is_asked(capsys: pytest.CaptureFixture[str]) -> None:
    answered = []

    def answer(sql: str) -> None:
        if sql == "bad":
            raise UsageError("no such thing; give another")
        if sql == "slow":
            raise KeyboardInterrupt
        answered.append(sql)

    converse(answer, reading("bad;", "slow;", "good;"))
    assert answered == ["good"]
    assert capsys.readouterr().err == "Error: no such thing; give another\ninterrupted\n"


def test_lines_are_remembered(tmp_path: Path) -> None:
    readline = pytest.importorskip("readline")
    history = tmp_path / "new" / "history"
    readline.clear_history()
    with remembering(["SELECT"], history):
        readline.add_history("SELECT 1;")
        assert readline.get_completer()("sel", 0) == "SELECT"
        assert readline.get_completer()("sel", 1) is None
    readline.clear_history()
    with remembering([], history):
        assert readline.get_history_item(1) == "SELECT 1;"
    assert readline.get_completer() is None


def test_a_prompt_answers_from_the_store(
    ibstore: Command, captured: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lines = iter(["SELECT count(*) AS n FROM runs;", "SELECT nothing FROM nowhere;", "SELECT 2 AS n;"])

    def read(_: str) -> str:
        try:
            return next(lines)
        except StopIteration:
            raise EOFError from None

    monkeypatch.setattr("sys.stdin.isatty", lambda: True, raising=False)
    monkeypatch.setattr("builtins.input", read)
    monkeypatch.setattr(prompt.typer, "get_app_dir", lambda _: str(tmp_path))
    monkeypatch.setattr(prompt.converse, "__defaults__", (read,))
    done = ibstore("query", captured, "--results", tmp_path / "results", "-f", "csv")
    assert done.code == 0
    assert done.out.split() == ["n", "1", "n", "2"]
    assert "Error: " in done.err
    assert "nowhere" in done.err
    assert (tmp_path / "history").exists()


def test_without_a_terminal_a_select_is_asked_for(
    ibstore: Command, captured: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.stdin.isatty", lambda: False, raising=False)
    done = ibstore("query", captured)
    assert (done.code, done.out) == (2, "")
    assert "there is no SQL; give one SELECT, or - to read it from stdin" in done.err


def test_on_a_terminal_lines_are_edited_completed_and_remembered(captured: Path, tmp_path: Path) -> None:
    """Nothing is drawn over what is typed: a bar that renews itself would be."""
    environment = {**os.environ, "TERM": "xterm", "HOME": str(tmp_path), "XDG_CONFIG_HOME": str(tmp_path)}
    command = [sys.executable, "-c", "from ibstore.cli import main; main()", "query", str(captured)]
    program = pexpect.spawn(command[0], command[1:], env=environment, encoding="utf8", timeout=60, dimensions=(30, 100))
    program.expect_exact(FIRST)
    program.send("SELECT count(*) FROM information_pl\t;\r")  # what is missing of the name is completed
    program.expect_exact("count_star()")
    program.expect_exact(FIRST)
    program.send("SELECT 40 + 2 AS answer;\r")
    program.expect_exact("42")
    program.expect_exact(FIRST)
    program.send("\x1b[A\r")  # the arrow up
    program.expect_exact("42")
    program.expect_exact(FIRST)
    program.sendeof()
    program.expect(pexpect.EOF)
    assert program.wait() == 0
    assert "SELECT 40 + 2 AS answer;" in (tmp_path / "ibstore" / "history").read_text()
