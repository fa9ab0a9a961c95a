"""A background thread that writes while training goes on, with a bounded queue in front of it.

>>> written: list[str] = []
>>> writer = BackgroundWriter(length=2)
>>> writer.put(lambda: written.append("a batch"))
>>> writer.close()
>>> written
['a batch']
"""

from collections.abc import Callable
from queue import Empty, Queue
from threading import Thread
from typing import Final

from ibstore.capture.termination import sigterm_waits
from ibstore.errors import WriteError

QUEUE_BYTES: Final = 256 << 20
QUEUE_SHARE: Final = 32
MIN_LENGTH: Final = 2
MAX_LENGTH: Final = 64
IDLE_SECONDS: Final = 1.0

Task = Callable[[], None]


def nothing() -> None:
    """Do nothing."""


def queue_length(task_bytes: int, free: int) -> int:
    """Tasks of ``task_bytes`` bytes that may wait: 256 MiB of them, or a 32nd of ``free`` bytes of memory.

    At least 2, which keep the writer busy whatever a batch weighs, and at most 64. A device that runs a probe set
    faster than it can be written goes on training the sooner the more of it may wait.

    >>> queue_length(18_856_000, 4 << 30), queue_length(18_856_000, 1 << 37), queue_length(1 << 30, 4 << 30)
    (14, 64, 2)
    """
    room = max(QUEUE_BYTES, free // QUEUE_SHARE)
    return min(max(room // max(1, task_bytes), MIN_LENGTH), MAX_LENGTH)


class BackgroundWriter:
    """Runs tasks one after another in a thread of its own.

    After a task has failed the thread goes on to take tasks but runs none: `put` never waits for ever, and
    the error is raised where the next task is put, or at the end.

    Parameters
    ----------
    length
        Tasks that may wait; `put` waits while there are as many.
    idle
        Run when no task has come for ``seconds``, unless one has failed.
    last
        Run at the end, even after a task has failed.
    seconds
        How long the thread waits for a task before it is idle.
    """

    def __init__(self, length: int, idle: Task = nothing, last: Task = nothing, seconds: float = IDLE_SECONDS) -> None:
        self._tasks: Queue[Task | None] = Queue(length)
        self._idle, self._last, self._seconds = idle, last, seconds
        self._error: BaseException | None = None
        self._told = False
        self._closed = False
        # A daemon, since an interpreter that ends would otherwise wait for a recorder that nobody closes.
        self._thread = Thread(target=self._work, name="ibstore-writer", daemon=True)
        self._thread.start()

    def put(self, task: Task) -> None:
        """Hand over ``task``; wait while the queue is full.

        Raises
        ------
        WriteError
            After `close`.
        BaseException
            What an earlier task raised: the same exception.
        """
        if self._closed:
            raise WriteError("the background writer is closed; open the recorder again under another run name")
        self._raise_error()
        with sigterm_waits():
            self._tasks.put(task)

    def close(self) -> None:
        """Run what waits, end the thread, and raise what a task raised unless `put` did; it can be called twice.

        All is run by the thread: a wait that is interrupted leaves it at work, and a forked child, which has no such
        thread, touches nothing of what is its parent's.
        """
        if not self._closed:
            self._closed = True
            if self._thread.is_alive():  # or nobody would empty a full queue
                self._tasks.put(None)
        self._thread.join()
        if not self._told:
            self._raise_error()

    def _raise_error(self) -> None:
        if self._error is not None:
            self._told = True
            raise self._error

    def _work(self) -> None:
        while (task := self._next()) is not None:
            if self._error is None:
                self._run(task)
            del task  # or its arrays would stay in memory until the next one comes
        self._run(self._last)

    def _next(self) -> Task | None:
        try:
            return self._tasks.get(timeout=self._seconds)
        except Empty:
            return self._idle

    def _run(self, task: Task) -> None:
        try:
            task()
        except BaseException as error:  # it belongs to whoever put the task
            self._error = self._error or error
