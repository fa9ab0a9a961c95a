"""SIGTERM as an orderly end: who is asked to leave commits first what it has recorded.

While a recorder is open, a SIGTERM that nobody else handles raises `Terminated` in the main thread, so that
``with`` blocks are left and interpreters end as they should; otherwise it would kill at once.
"""

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Final

CODE: Final = 128 + signal.SIGTERM

_open = 0
_held = 0
_asked = False


class Terminated(SystemExit):
    """The process was asked to leave; unless it is caught, the interpreter ends with code 143 and says nothing."""

    def __init__(self) -> None:
        super().__init__(CODE)


def leave_on_sigterm() -> None:
    """From now on SIGTERM means to leave; undone by as many calls of `forget_sigterm`."""
    global _open  # noqa: PLW0603  (a process has one handler)
    _open += 1
    if _in_main_thread() and signal.getsignal(signal.SIGTERM) is signal.SIG_DFL:
        signal.signal(signal.SIGTERM, _leave)


def forget_sigterm() -> None:
    """Undo one `leave_on_sigterm`: the last one puts the default back."""
    global _open  # noqa: PLW0603
    _open -= 1
    if not _open and _in_main_thread() and signal.getsignal(signal.SIGTERM) is _leave:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)


@contextmanager
def sigterm_waits() -> Iterator[None]:
    """Do first what is in the block: a queue that is left in the middle stays locked, and a close has to be whole."""
    global _held, _asked  # noqa: PLW0603
    if not _in_main_thread():  # signals are handled in that one alone
        yield
        return
    _held += 1
    try:
        yield
    finally:
        _held -= 1
        if _asked and not _held:
            _asked = False
            raise Terminated


def _leave(number: int, frame: FrameType | None) -> None:  # noqa: ARG001  (what a handler is given)
    global _asked  # noqa: PLW0603
    if not _held:
        raise Terminated
    _asked = True


def _in_main_thread() -> bool:
    return threading.current_thread() is threading.main_thread()
