"""Which epoch a checkpoint is of: the numbers in the names of files.

>>> epochs_of(["net_lr0.1_9.pt", "net_lr0.1_10.pt"])
[(9, None), (10, None)]
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from glob import glob
from pathlib import Path, PurePath
from typing import Final

from ibstore.errors import UsageError
from ibstore.store.format.names import LAST_EPOCH

Numbers = tuple[int, int | None]
"""Epoch, and the optimizer's step where it is known."""

_EPOCH: Final = re.compile(r"epochs?[^0-9a-z/]?([0-9]+)(?![0-9]|\.[0-9])", re.IGNORECASE)
_STEP: Final = re.compile(r"(?:step|iter|iteration)s?[^0-9a-z/]?([0-9]+)(?![0-9]|\.[0-9])", re.IGNORECASE)
_NUMBER: Final = re.compile(r"[0-9]+(?:\.[0-9]+)*")
_WILD: Final = re.compile(r"(\{epoch\}|\{step\}|\*\*/|\*+|\?|\[[^/]+?\])")
_MARK: Final = "write {epoch} into the pattern where it stands, as in 'net_{epoch}_*.pt'"


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """A file that holds a network's weights after an epoch."""

    path: Path
    epoch: int
    step: int | None = None


def find_checkpoints(pattern: str) -> list[Checkpoint]:
    """Files that match a pattern, in the order of their epochs.

    Parameters
    ----------
    pattern
        As a shell's, ``**`` included. ``{epoch}`` and ``{step}`` in it stand for numbers and say what they are;
        where there is no ``{epoch}``, `epochs_of` tells it from what the wildcards match.

    Raises
    ------
    UsageError
        When no file matches, the epochs cannot be told, or two files have the same.
    """
    marked = "{epoch}" in pattern or "{step}" in pattern
    wild = str(Path(pattern.replace("{epoch}", "*").replace("{step}", "*")).expanduser())
    files = sorted(path for path in map(Path, _glob(wild)) if path.is_file())
    known = _marked(pattern, files) if marked else dict(zip(files, epochs_of(_tails(wild, files)), strict=True))
    if not known:
        raise UsageError(f"no file matches {pattern!r}; give a pattern such as 'checkpoints/epoch_*.pt', in quotes")
    return _in_order([Checkpoint(path, *numbers) for path, numbers in known.items()])


def epochs_of(names: Sequence[str]) -> list[Numbers]:
    """Epoch and step that each name tells.

    The epoch is the number behind ``epoch`` where all names have that word, with the one behind ``step`` or ``iter``
    as the step; else the one behind ``step`` or ``iter``, which is then both; else the only whole number that differs
    between the names. Numbers with a point, such as learning rates, do not count.

    Raises
    ------
    UsageError
        When there is no such number, or more than one.

    Examples
    --------
    >>> epochs_of(["epoch=3-step=1200-loss=0.25.ckpt", "epoch=4-step=1600-loss=0.125.ckpt"])
    [(3, 1200), (4, 1600)]
    >>> epochs_of(["step_500.pt"])
    [(500, 500)]
    """
    epochs, steps = ([_labelled(label, name) for name in names] for label in (_EPOCH, _STEP))
    if None not in epochs:
        known = [None] * len(names) if None in steps else steps
        return [(int(epoch or 0), step) for epoch, step in zip(epochs, known, strict=True)]
    if None not in steps:
        return [(int(step or 0), step) for step in steps]
    return [(epoch, None) for epoch in _only_difference(names)]


def _glob(pattern: str) -> list[str]:
    return glob(pattern, recursive=True)  # noqa: PTH207  # Path.glob takes no absolute patterns


def _labelled(label: re.Pattern[str], name: str) -> int | None:
    found = label.findall(name)
    return int(found[-1]) if found else None


def _only_difference(names: Sequence[str]) -> list[int]:
    """The number of each name that tells it from the others."""
    rows = [[int(number) for number in _NUMBER.findall(name) if number.isdecimal()] for name in names]
    for name, row in zip(names, rows, strict=True):
        if len(row) != len(rows[0]) or not row:
            fact = f"are {len(row)} numbers in {name!r}, but {len(rows[0])} in {names[0]!r}"
            raise UsageError(f"there {fact if row else f'is no number in {name!r}'}; narrow the pattern, or {_MARK}")
    columns = list(zip(*rows, strict=True))
    differing = [column for column in columns if len(set(column)) > 1] if len(names) > 1 else columns
    if len(differing) > 1:
        raise UsageError(f"more than one number of {names[-1]!r} may be the epoch; {_MARK}")
    return list(differing[0] if differing else columns[-1])


def _tails(pattern: str, files: Sequence[Path]) -> list[str]:
    """Paths from the first folder or name on that has a wildcard: what stands before it is the same in all."""
    parts = PurePath(pattern).parts
    fixed = next((index for index, part in enumerate(parts) if _WILD.search(part)), len(parts) - 1)
    return [str(PurePath(*path.parts[fixed:])) for path in files]


def _marked(pattern: str, files: Sequence[Path]) -> dict[Path, Numbers]:
    """What ``{epoch}`` and ``{step}`` stand for in the files that have numbers there."""
    if pattern.count("{epoch}") != 1 or pattern.count("{step}") > 1:
        raise UsageError(f"pattern {pattern!r} does not say once what is the epoch; {_MARK}")
    pieces = _WILD.split(str(Path(pattern).expanduser()))
    expression = re.compile("".join(_expression(piece) for piece in pieces))
    matches = {path: match.groupdict() for path in files if (match := expression.fullmatch(str(path)))}
    return {
        path: (int(found["epoch"]), int(found["step"]) if "step" in found else None) for path, found in matches.items()
    }


def _expression(token: str) -> str:
    """A pattern's piece as a regular expression; `glob` has looked at the sets already."""
    if token in {"{epoch}", "{step}"}:
        return f"(?<![0-9])(?P<{token[1:-1]}>[0-9]+)(?![0-9])"
    if not _WILD.fullmatch(token):
        return re.escape(token)
    return {"*": "[^/]*", "**/": "(?:.*/)?"}.get(token, "[^/]")


def _in_order(found: Sequence[Checkpoint]) -> list[Checkpoint]:
    by_epoch: dict[int, Checkpoint] = {}
    for checkpoint in found:
        other = by_epoch.setdefault(checkpoint.epoch, checkpoint)
        if other is not checkpoint:
            raise UsageError(
                f"{other.path} and {checkpoint.path} are both of epoch {checkpoint.epoch}; narrow the pattern, or "
                f"{_MARK}"
            )
        if checkpoint.epoch > LAST_EPOCH:
            raise UsageError(f"{checkpoint.path} has the number {checkpoint.epoch}, which is no epoch; {_MARK}")
    return [by_epoch[epoch] for epoch in sorted(by_epoch)]
