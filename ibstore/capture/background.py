"""A background thread that writes while training goes on, with a bounded queue in front of it.

>>> written: list[str] = []
>>> writer = BackgroundWriter(length=2)
>>> writer.put(lambda: written.append("a batch"))
>>> writer.close()
>>> written
['a batch']
"""

from collections.abc import Callable
from queue import Queue
from threading import Thread
from typing import Final

from ibstore.errors import WriteError

QUEUE_BYTES: Final = 256 << 20
MIN_LENGTH: Final = 2
MAX_LENGTH: Final = 64

Task = Callable[[], None]


def queue_length(task_bytes: int) -> int:
    """Tasks of ``task_bytes`` bytes that may wait: 256 MiB of them, at least 2 and at most 64.

    Two keep the writer busy whatever a batch weighs; more than 64 hide nothing that 64 do not.

    >>> queue_length(18_856_000), queue_length(1 << 30), queue_length(40)
    (14, 2, 64)
    """
    return min(max(QUEUE_BYTES // max(1, task_bytes), MIN_LENGTH), MAX_LENGTH)


class BackgroundWriter:
    """Runs tasks one after another in a thread of its own.

    After a task has failed the thread goes on to take tasks but runs none: `put` never waits for ever, and
    the error is raised where the next task is put, or at the end.

    Parameters
    ----------
    length
        Tasks that may wait; `put` waits while there are as many.
    """

    def __init__(self, length: int) -> None:
        self._tasks: Queue[Task | None] = Queue(length)
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
        self._tasks.put(task)

    def close(self) -> None:
        """Run what waits, end the thread, and raise what a task raised unless `put` did; it can be called twice."""
        if not self._closed:
            self._closed = True
            if self._thread.is_alive():  # in a forked child it is not, and nobody would empty a full queue
                self._tasks.put(None)
            self._thread.join()
        if not self._told:
            self._raise_error()

    def _raise_error(self) -> None:
        if self._error is not None:
            self._told = True
            raise self._error

    def _work(self) -> None:
        while (task := self._tasks.get()) is not None:
            if self._error is None:
                self._run(task)
            del task  # or its arrays would stay in memory until the next one comes

    def _run(self, task: Task) -> None:
        try:
            task()
        except BaseException as error:  # it belongs to whoever put the task
            self._error = error
