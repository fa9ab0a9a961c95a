"""What a filter cannot want, and what it wants whole, decided by Arrow itself from what is known of a piece.

Arrow prunes the fragments of a dataset by their partition expressions. Here a fragment is made for each piece, with
no file behind it, and only asked whether the filter can, or must, hold in it.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Final

import pyarrow as pa
import pyarrow.dataset as ds
from pyarrow.fs import LocalFileSystem

WAYS: Final = 8
"""Into so many parts a range is cut that the filter wants in part."""

MOST: Final = 128
"""No more pieces are judged at once: each takes 50 µs, and the rest is filtered row by row."""


@dataclass(frozen=True)
class Range:
    """Positions ``start`` … ``stop`` − 1; ``whole`` when the filter holds in all of them, else it may in some."""

    start: int
    stop: int
    whole: bool


@dataclass(frozen=True)
class Pruner:
    """Judges pieces of a table with ``schema`` by a filter, None where there is none."""

    schema: pa.Schema
    filter: ds.Expression | None

    def judge(self, known: Sequence[ds.Expression]) -> list[bool | None]:
        """For each piece, of which an expression is known to hold: True if the filter does, None if it may, else False.

        No column that the filter speaks of may be NULL, or be NaN where it compares.
        """
        if self.filter is None:
            return [True] * len(known)
        form, files = ds.ParquetFileFormat(), LocalFileSystem()
        pieces = [
            form.make_fragment(str(number), filesystem=files, partition_expression=expression)
            for number, expression in enumerate(known)
        ]
        dataset = ds.FileSystemDataset(pieces, self.schema, form, filesystem=files)
        may = {int(piece.path) for piece in dataset.get_fragments(self.filter)}
        may_not = {int(piece.path) for piece in dataset.get_fragments(~self.filter)}
        return [(None if number in may_not else True) if number in may else False for number in range(len(known))]

    def ranges(self, count: int, known: Callable[[int, int], ds.Expression], step: int = 0) -> list[Range]:
        """Ranges of ``count`` positions in which the filter may hold, in order; ``known`` tells what holds in a range.

        What is wanted in part is cut again, as long as that leads to something; where it does not at first, since the
        positions are in no order, pieces of ``step`` are looked at, if there are not too many.
        """
        pending = self._judged([Range(0, count, whole=False)], known) if count else []
        done: list[Range] = []
        while pending:
            done += [each for each in pending if each.whole or each.stop - each.start == 1]
            parted = [each for each in pending if each not in done]
            pending, fruitful = self._cut(parted, known)
            if not fruitful:
                pieces = _pieces(count, step) if step and parted == [Range(0, count, whole=False)] else []
                done += self._judged(pieces, known) if 0 < len(pieces) <= MOST else parted
                break
        return merged(done)

    def _cut(self, parted: Sequence[Range], known: Callable[[int, int], ds.Expression]) -> tuple[list[Range], bool]:
        """Parts of the ranges in which the filter may hold, and whether they are fewer, or are wanted whole."""
        cuts = [cut for each in parted for cut in _pieces(each.stop, -(-(each.stop - each.start) // WAYS), each.start)]
        if len(cuts) > MOST:
            return [], False
        found = self._judged(cuts, known)
        return found, not cuts or len(found) < len(cuts) or any(each.whole for each in found)

    def _judged(self, ranges: Sequence[Range], known: Callable[[int, int], ds.Expression]) -> list[Range]:
        """Those in which the filter may hold."""
        verdicts = self.judge([known(each.start, each.stop) for each in ranges])
        return [
            Range(each.start, each.stop, verdict is True)
            for each, verdict in zip(ranges, verdicts, strict=True)
            if verdict is not False
        ]


def _pieces(stop: int, step: int, start: int = 0) -> list[Range]:
    """Pieces of ``step`` positions."""
    return [Range(first, min(first + step, stop), whole=False) for first in range(start, stop, step)]


def merged(ranges: Iterable[Range]) -> list[Range]:
    """Ranges in order, those that touch and are alike as one."""
    found: list[Range] = []
    for each in sorted(ranges, key=lambda each: each.start):
        if found and (found[-1].stop, found[-1].whole) == (each.start, each.whole):
            found[-1] = Range(found[-1].start, each.stop, each.whole)
        else:
            found.append(each)
    return found
