"""Handing work to the workers of a cluster, and taking what they make of it."""

from collections.abc import Callable, Generator, Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any, Final, TypeVar

from ibstore.errors import IbstoreError

if TYPE_CHECKING:
    from distributed import Client, Future

    Script = Generator[tuple[Future[Any], str], Any, bool]
    """What is to be done for a job: yields futures one by one, and what each is, is sent their results, and returns
    whether it is done."""

Job = TypeVar("Job")

LOST: Final = object()
"""In place of what went with the scheduler."""

AT_ONCE: Final = 4096
"""Tasks that workers have to choose from, about: of a million jobs the scheduler need not hold them."""


def handed_out(work: Callable[[Job], Any], jobs: Mapping[str, Job], client: "Client") -> Iterator[Job]:
    """Jobs, by names that are the same whoever asks again, as workers have done them; as `followed` does."""
    scripts = ((job, single(client, work, job, name)) for name, job in jobs.items())
    return (job for job, _ in followed(scripts, client))


def single(client: "Client", work: Callable[[Job], Any], job: Job, name: str) -> "Script":
    """The script of a job that is done in one piece."""
    yield client.submit(work, job, key=name), ""
    return True


def followed(
    scripts: "Iterable[tuple[Job, Script]]", client: "Client", weigh: Callable[[Job], int] = lambda _: 1
) -> Iterator[tuple[Job, str | None]]:
    """Jobs with what of them has been done, and with None as their scripts come to their ends.

    Those whose work was lost with the scheduler are passed over. ``weigh`` says how many tasks a job has at one time.

    Raises
    ------
    IbstoreError
        When a job cannot be done, in the words of the worker, or kills worker after worker.
    """
    from distributed import as_completed

    coming = iter(scripts)
    waiting: dict[Future[Any], tuple[Job, Script, str]] = {}
    ready, weight = as_completed(loop=client.loop), 0

    def wait(step: "tuple[Future[Any], str]", job: Job, script: "Script") -> None:
        waiting[step[0]] = job, script, step[1]
        ready.add(step[0])

    try:
        while True:
            while weight < AT_ONCE and (begun := next(coming, None)):
                wait(next(begun[1]), *begun)
                weight += weigh(begun[0])
            if not waiting:
                return
            future = next(ready)
            job, script, what = waiting[future]
            found = _result(future)
            del waiting[future]
            try:
                if found is not LOST:
                    wait(script.send(found), job, script)
                    yield job, what
                    continue
            except StopIteration as end:
                if end.value:
                    yield job, None
            weight -= weigh(job)
    finally:
        for _, script, _ in waiting.values():
            script.close()  # and what it waits for is forgotten: errors too, whoever holds their traceback
        client.cancel(list(waiting))


def _result(future: "Future[Any]") -> Any:
    from concurrent.futures import CancelledError

    from distributed import KilledWorker

    try:
        return future.result()
    except CancelledError:
        return LOST
    except KilledWorker as error:
        raise IbstoreError(
            f"worker after worker died at {future.key}; give workers more memory, or see what ends them; what is done "
            "is kept"
        ) from error
