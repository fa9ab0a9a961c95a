"""Trainings that differ in some settings: every combination of the values that are named.

>>> [combination for combination in combinations(["lr=0.1,0.01", "seed=0:1"])]
[{'lr': '0.1', 'seed': '0'}, {'lr': '0.1', 'seed': '1'}, {'lr': '0.01', 'seed': '0'}, {'lr': '0.01', 'seed': '1'}]
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from itertools import pairwise, product
from typing import Any, Final

from ibstore.errors import UsageError

WHOLE: Final = ("epochs", "batch_size", "seed", "data_seed", "limit")
NUMBERS: Final = ("lr", "train_fraction")
TEXTS: Final = ("dataset", "optimizer")
"""Settings that can be swept, beside a recipe's own options."""

MOST: Final = 10_000
"""Values of a range."""

_RANGE: Final = re.compile(r"(-?\d+):(-?\d+)")


def combinations(sweeps: Sequence[str]) -> Iterator[dict[str, str]]:
    """Every combination of the values of ``NAME=VALUE,VALUE,…``, the last name varying fastest.

    A value ``FIRST:LAST`` stands for all integers from the first to the last, both included.

    Raises
    ------
    UsageError
        When one cannot be read, or a name stands twice.
    """
    axes = dict(_axis(text) for text in sweeps)
    if len(axes) < len(sweeps):
        raise UsageError(f"a setting is swept twice in {', '.join(sweeps)}; give all its values in one --sweep")
    return (dict(zip(axes, values, strict=True)) for values in product(*axes.values()))


def sorted_out(combination: Mapping[str, str]) -> dict[str, Any]:
    """Values by their settings' types; what is no setting is an option of the recipe's.

    >>> sorted_out({"lr": "0.1", "seed": "3", "hidden_layers": "2"})
    {'lr': 0.1, 'seed': 3, 'options': {'hidden_layers': '2'}}

    Raises
    ------
    UsageError
        When a value is no number where one is due.
    """
    settings: dict[str, Any] = {}
    options: dict[str, str] = {}
    for name, value in combination.items():
        kind = int if name in WHOLE else float if name in NUMBERS else str
        if name not in (*WHOLE, *NUMBERS, *TEXTS):
            options[name] = value
            continue
        try:
            settings[name] = kind(value)
        except ValueError:
            raise UsageError(f"{name} is swept over {value!r}, which is no {kind.__name__}; give numbers") from None
    return settings | ({"options": options} if options else {})


def named(head: str, combination: Mapping[str, str]) -> str:
    """Name of a run of that combination; the seed stands last, and is named where the run is.

    >>> named("szt", {"hidden_layers": "2", "seed": "3"})
    'szt-hidden_layers2'
    """
    return "-".join([head, *(f"{name}{value}" for name, value in combination.items() if name != "seed")])


def shared_out(seed: int, replicas: int, at_once: int | None = None) -> list[range]:
    """Seeds of the replicas that are trained together: as few groups as can be, no two differing by more than one.

    >>> shared_out(3, 7, at_once=3)
    [range(3, 6), range(6, 8), range(8, 10)]

    Raises
    ------
    UsageError
        When there are none, or none at once.
    """
    if replicas < 1:
        raise UsageError(f"replicas is {replicas}; give --replicas 1 or more")
    if at_once is not None and at_once < 1:
        raise UsageError(f"at_once is {at_once}; give --at-once 1 or more")
    groups = -(-replicas // (at_once or replicas))
    small, larger = divmod(replicas, groups)
    ends = [seed + number * small + min(number, larger) for number in range(groups + 1)]
    return [range(first, end) for first, end in pairwise(ends)]


def _axis(text: str) -> tuple[str, list[str]]:
    name, equals, values = text.partition("=")
    name = name.strip().replace("-", "_")
    found = [each for value in values.split(",") for each in _expanded(value.strip())]
    if not equals or not name or not all(found):
        raise UsageError(f"sweep {text!r} cannot be read; write NAME=VALUE,VALUE or NAME=FIRST:LAST, as lr=0.1,0.01")
    if len(set(found)) < len(found):
        raise UsageError(f"sweep {text!r} has a value twice; give each once")
    return name, found


def _expanded(value: str) -> list[str]:
    match = _RANGE.fullmatch(value)
    if match is None:
        return [value]
    first, last = int(match[1]), int(match[2])
    if last < first:
        raise UsageError(f"range {value!r} ends before it begins; write FIRST:LAST, both included")
    if last - first >= MOST:
        raise UsageError(f"range {value!r} has {last - first + 1:,} values; sweep {MOST:,} at most at a time")
    return [str(number) for number in range(first, last + 1)]
