"""Progress as events: the core emits them, whoever likes draws them (the command line does, with bars).

>>> seen: list[Event] = []
>>> seen.append(Event("record", done=2, total=10, detail="epoch 1"))
>>> seen[0].fraction
0.2
"""

from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Event:
    """One step of long work: ``done`` of ``total`` steps of ``stage`` have ended.

    An ``inner`` event is a step within a step, such as a batch of an epoch: bars show it, a log need not.
    A notice is an event with ``total == 0``: a sentence that the user should read, without progress.
    """

    stage: str
    done: int = 0
    total: int = 0
    detail: str = ""
    inner: bool = False

    @property
    def fraction(self) -> float:
        """Share of the work that is done, between 0 and 1."""
        return self.done / self.total if self.total else 0.0

    @property
    def is_notice(self) -> bool:
        """Whether this is a sentence to read rather than a step."""
        return self.total == 0


Emit = Callable[[Event], None]


def ignore(event: Event) -> None:
    """Listen to nothing: the default listener."""
