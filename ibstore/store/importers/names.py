"""Which epoch and which layer a file's name speaks of: a small set of patterns, the same for all formats."""

import re
from typing import Final

_EPOCH: Final = r"(?:epoch|step)[_.-]?(?P<epoch>\d+)"
_WHOLE: Final = re.compile(rf"(?:(?:.*[_.-])?{_EPOCH}|(?P<number>\d+))", re.IGNORECASE)
_LAYERS: Final = (
    re.compile(rf"(?P<layer>[^/]+?)[_.-]{_EPOCH}", re.IGNORECASE),
    re.compile(rf"{_EPOCH}/(?P<layer>[^/]+)", re.IGNORECASE),
    re.compile(rf"(?P<layer>[^/]+)/(?:{_EPOCH}|(?P<number>\d+))", re.IGNORECASE),
)


def epoch_of(name: str) -> int | None:
    """Epoch that a name without its ending speaks of; None where it names none.

    >>> [epoch_of(name) for name in ("epoch_3", "epoch00000010", "mnist-epoch-007", "step_200", "0003")]
    [3, 10, 7, 200, 3]
    >>> [epoch_of(name) for name in ("conv1", "readme", "epoch", "epoch_3_old")]
    [None, None, None, None]
    """
    found = _WHOLE.fullmatch(name)
    return int(found["epoch"] or found["number"]) if found else None


def layer_and_epoch_of(path: str) -> tuple[str, int] | None:
    """Layer and epoch that a relative path without its ending speaks of; None where it does not name both.

    >>> [layer_and_epoch_of(path) for path in ("conv1_epoch10", "epoch_10/conv1", "conv1/0010", "conv1/epoch_10")]
    [('conv1', 10), ('conv1', 10), ('conv1', 10), ('conv1', 10)]
    >>> [layer_and_epoch_of(path) for path in ("conv1", "epoch_10", "a/b/epoch_10")]
    [None, None, None]
    """
    for pattern in _LAYERS:
        if found := pattern.fullmatch(path):
            groups = found.groupdict()
            return groups["layer"], int(groups["epoch"] or groups["number"])
    return None


def natural(name: str) -> list[tuple[int, int, str]]:
    """Sorting key by which numbers in names count as numbers.

    >>> sorted(["layer10", "layer2", "input"], key=natural)
    ['input', 'layer2', 'layer10']
    """
    parts = re.findall(r"\d+|\D+", name)
    return [(0, int(part), "") if part.isdecimal() else (1, 0, part) for part in parts]
