"""Samples to train on and to test on, and parts of them."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import reduce
from typing import Any, Final, Self

import numpy as np
from numpy.typing import NDArray

from ibstore.capture.datasets.draws import generator
from ibstore.errors import UsageError

SPLITS: Final = ("train", "test", "all")
"""What is trained on, what is tested on, and every sample of a data set."""


@dataclass(frozen=True, slots=True)
class Samples:
    """Inputs, labels and ids.

    Parameters
    ----------
    x
        Inputs, (sample, …) float32.
    y
        Labels, (sample,) int64.
    sample
        Ids, (sample,) int64: the same input has the same id in every run.
    targets
        What else is known of them, (sample,) float64 by name, such as p(y = 1 given x) as ``p_y1``.
    """

    x: NDArray[np.float32]
    y: NDArray[np.int64]
    sample: NDArray[np.int64]
    targets: Mapping[str, NDArray[np.float64]] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.sample)

    def take(self, rows: NDArray[Any] | slice) -> Self:
        """Some of them."""
        targets = {name: values[rows] for name, values in self.targets.items()}
        return replace(self, x=self.x[rows], y=self.y[rows], sample=self.sample[rows], targets=targets)

    def first(self, count: int) -> Self:
        """The first ``count`` of them, or all where there are no more."""
        return self.take(slice(count))

    def joined(self, other: "Samples") -> "Samples":
        """These and others of the same kind."""
        return Samples(
            np.concatenate((self.x, other.x)),
            np.concatenate((self.y, other.y)),
            np.concatenate((self.sample, other.sample)),
            {name: np.concatenate((values, other.targets[name])) for name, values in self.targets.items()},
        )

    def in_order(self) -> Self:
        """The same in the order of their ids."""
        if np.all(self.sample[1:] > self.sample[:-1]):
            return self
        return self.take(np.argsort(self.sample, kind="stable"))

    def stratified(self, count: int, seed: int) -> Self:
        """Exactly ``count`` of them, each class as near to its share as whole numbers allow, in their order.

        Drawn without replacement; the largest remainders are rounded up.

        Raises
        ------
        UsageError
            When there are not so many, or the seed is no integer from 0.

        Examples
        --------
        >>> samples = Samples(np.zeros((10, 1), np.float32), np.repeat([0, 1], [8, 2]), np.arange(10))
        >>> samples.stratified(5, seed=0).y.tolist()
        [0, 0, 0, 0, 1]
        """
        if not 1 <= count <= len(self):
            raise UsageError(f"{count} of {len(self)} samples cannot be drawn; give a number from 1 to {len(self)}")
        return self.take(_drawn(self.y, count, generator(seed, "stratified")))


@dataclass(frozen=True, slots=True)
class Dataset:
    """A data set: no id stands in two of its parts.

    Parameters
    ----------
    name
        What it was asked for as, or what was found instead.
    train, test
        What is trained on and tested on; ``test`` may be empty.
    note
        What someone should be told who trains on it.
    rest
        What is neither, since only a part is trained on.
    """

    name: str
    train: Samples
    test: Samples
    note: str = ""
    rest: Samples | None = None

    def split(self, name: str) -> Samples:
        """Samples of the split ``train``, ``test`` or ``all``; of all in the order of their ids.

        Raises
        ------
        UsageError
            When there is no such split.
        """
        if name not in SPLITS:
            raise UsageError(f"there is no split {name!r} of a data set; choose one of {', '.join(SPLITS)}")
        if name != "all":
            return self.train if name == "train" else self.test
        parts = [part for part in (self.train, self.test, self.rest) if part is not None]
        return reduce(Samples.joined, parts).in_order()

    def limited(self, limit: int | None) -> "Dataset":
        """The same with at most the first ``limit`` training samples; the test samples stay, the others are left out.

        Raises
        ------
        UsageError
            When ``limit`` is smaller than 1.
        """
        if limit is None:
            return self
        if limit < 1:
            raise UsageError(f"limit is {limit}, which leaves nothing to train on; give --limit 1 or more")
        return replace(self, train=self.train.first(limit))

    def fraction(self, part: float | None, seed: int) -> "Dataset":
        """The same with that part of the training samples trained on, drawn class by class.

        What is left over is tested on where there was nothing to test on, else it is neither.

        Raises
        ------
        UsageError
            When ``part`` is not within (0, 1], or leaves nothing, or the seed is no integer from 0.
        """
        if part is None:
            return self
        if not 0 < part <= 1 or (count := round(part * len(self.train))) < 1:
            raise UsageError(
                f"train_fraction is {part}, of {len(self.train)} samples; give --train-fraction a number in (0, 1] "
                "that leaves some"
            )
        chosen = _drawn(self.train.y, count, generator(seed, "fraction"))
        train, left = self.train.take(chosen), self.train.take(np.flatnonzero(~chosen))
        if not len(self.test):
            return replace(self, train=train, test=left)
        return replace(self, train=train, rest=left if self.rest is None else self.rest.joined(left))


def untested(name: str, train: Samples) -> Dataset:
    """A data set all of whose samples can be trained on."""
    return Dataset(name, train, train.first(0))


def _drawn(labels: NDArray[np.int64], count: int, random: np.random.Generator) -> NDArray[np.bool_]:
    """Which rows are drawn: ``count`` of them, of each class its share."""
    drawn = np.zeros(len(labels), np.bool_)
    classes, sizes = np.unique(labels, return_counts=True)
    for label, share in zip(classes, _shares(sizes, count), strict=True):
        drawn[random.choice(np.flatnonzero(labels == label), share, replace=False)] = True
    return drawn


def _shares(sizes: NDArray[np.int64], count: int) -> list[int]:
    """How many of each class, ``count`` in all, by largest remainders."""
    exact = [int(size) * count for size in sizes]
    total = int(sizes.sum())
    shares = [product // total for product in exact]
    by_remainder = sorted(range(len(sizes)), key=lambda place: (-(exact[place] % total), place))
    for place in by_remainder[: count - sum(shares)]:
        shares[place] += 1
    return shares
