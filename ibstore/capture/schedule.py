"""When a network is recorded: capture points among the epochs or the steps of a training.

>>> Schedule.parse("log:5").points(1000)
(0, 1, 6, 32, 178, 1000)
"""

import re
from dataclasses import dataclass
from functools import lru_cache
from itertools import pairwise
from math import log
from typing import Final, Literal, Self, cast, get_args

from ibstore.errors import UsageError

Kind = Literal["every", "log", "list"]
Unit = Literal["steps", "epochs"]

_UNITS: Final[dict[Kind, Unit]] = {"every": "epochs", "log": "steps", "list": "epochs"}
"""Units that need not be written: the literature's logarithmic schedules count steps."""

_TEXT: Final = re.compile(r"(?P<kind>[^:@]+):(?P<numbers>[^@]*)(?:@(?P<unit>.*))?")
_WAYS: Final = "every:10, log:200 or list:0,1,2,5,10, followed by @steps or @epochs where another unit is meant"


@dataclass(frozen=True, slots=True)
class Schedule:
    """Capture points of a training, made by `parse` or `every`.

    The untrained network (0) and the trained one (the last point) are always among them: they are what every other
    point is compared with, and whoever leaves one out cannot have it afterwards.

    Parameters
    ----------
    kind
        ``every``: each n-th; ``log``: at most n, spaced logarithmically; ``list``: these.
    numbers
        The n of ``every`` and ``log``, or the points of ``list`` in growing order.
    unit
        What is counted: ``steps`` of the optimizer or ``epochs``. Under a step schedule the capture point, the
        store's epoch, is the step itself.

    Raises
    ------
    UsageError
        When the numbers cannot be meant.
    """

    kind: Kind
    numbers: tuple[int, ...]
    unit: Unit

    def __post_init__(self) -> None:
        if self.unit not in get_args(Unit):
            raise UsageError(f"schedule {self.kind} has the unit {self.unit!r}; count in steps or epochs")
        if self.kind not in get_args(Kind):
            raise UsageError(f"there is no schedule {self.kind!r}; write {_WAYS}")
        if self.kind == "list":
            self._check_list()
        elif len(self.numbers) != 1 or self.numbers[0] < 1:
            raise UsageError(f"schedule {self} has no single number from 1 on; write it as {self.kind}:10")

    def _check_list(self) -> None:
        if not self.numbers or self.numbers[0] < 0:
            raise UsageError(f"schedule {self} has no list of points from 0 on; write it as list:0,1,2,5,10")
        for before, after in pairwise(self.numbers):
            if before >= after:
                fact = "twice" if before == after else f"after {before}"
                raise UsageError(f"schedule {self} has point {after} {fact}; give each once, in growing order")

    @classmethod
    def every(cls, number: int, unit: Unit = "epochs") -> Self:
        """Each ``number``-th epoch, or step."""
        return cls("every", (number,), unit)

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read ``every:N``, ``log:N`` or ``list:A,B,…`` with ``@steps`` or ``@epochs`` behind it, or neither.

        ``log`` counts steps and the others epochs where nothing is said.

        Raises
        ------
        UsageError
            When the text is none of that.

        Examples
        --------
        >>> Schedule.parse("every:10@steps")
        Schedule(kind='every', numbers=(10,), unit='steps')
        >>> str(Schedule.parse("list:0,1,5@epochs"))
        'list:0,1,5'
        """
        match = _TEXT.fullmatch(text.strip()) if isinstance(text, str) else None
        if match is None or match["kind"] not in _UNITS:
            raise UsageError(f"schedule {text!r} cannot be read; write {_WAYS}")
        kind = cast(Kind, match["kind"])
        try:
            numbers = tuple(int(number) for number in match["numbers"].split(","))
        except ValueError:
            raise UsageError(f"schedule {text!r} has something that is no integer; write {_WAYS}") from None
        unit = _UNITS[kind] if match["unit"] is None else match["unit"]
        return cls(kind, numbers, cast(Unit, unit))

    def __str__(self) -> str:
        suffix = "" if self.unit == _UNITS.get(self.kind) else f"@{self.unit}"
        return f"{self.kind}:{','.join(map(str, self.numbers))}{suffix}"

    def points(self, total: int) -> tuple[int, ...]:
        """Capture points of a training of ``total`` steps or epochs: growing, from 0 to ``total``.

        ``log:N`` has exp(k log(total) / (N − 1)), k = 0 … N − 1, rounded: as many of them as differ.

        Raises
        ------
        UsageError
            When ``total`` is negative, or a listed point comes after it: it would never be recorded.

        Examples
        --------
        >>> Schedule.every(4).points(10), Schedule.parse("list:1,2").points(4)
        ((0, 4, 8, 10), (0, 1, 2, 4))
        """
        if not isinstance(total, int) or total < 0:
            raise UsageError(f"a training of {total!r} {self.unit} has no capture points; give a length from 0 on")
        if self.kind == "list" and self.numbers[-1] > total:
            raise UsageError(
                f"schedule {self} has point {self.numbers[-1]}, but the training ends after {total} {self.unit}; leave "
                "the point out, or train longer"
            )
        return tuple(sorted({0, total, *self._between(total)}))

    def due(self, point: int, total: int | None) -> bool:
        """Whether the network is recorded at ``point``; ``total`` is None where nobody knows when the training ends.

        Raises
        ------
        UsageError
            When the schedule is logarithmic and ``total`` is None.
        """
        if self.kind == "log" and total is None:
            raise UsageError(
                f"schedule {self} spreads its points up to the end of the training, which is not known; say when it "
                "ends, or record every so many"
            )
        if point < 0 or (total is not None and point > total):
            return False
        if point in (0, total):
            return True
        if self.kind == "every":
            return point % self.numbers[0] == 0
        return point in (self.numbers if total is None else self._between(total))

    def _between(self, total: int) -> range | tuple[int, ...] | frozenset[int]:
        if self.kind == "every":
            return range(0, total, self.numbers[0])
        return self.numbers if self.kind == "list" else _logarithmic(self.numbers[0], total)


@lru_cache(maxsize=16)
def _logarithmic(number: int, total: int) -> frozenset[int]:
    """At most ``number`` integers from 1 to ``total``, whose logarithms are as evenly spaced as integers' can be."""
    if total < 1 or number == 1:
        return frozenset()
    if number > total * log(total) + 1:  # closer than the integers are anywhere
        return frozenset(range(1, total + 1))
    return frozenset(round(total ** (k / (number - 1))) for k in range(number))
