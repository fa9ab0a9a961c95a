"""Entropies from counts of counts: how many keys (``keys``) were seen ``multiplicity`` times among N samples.

Every estimator is one function of those three, declared with `estimator`; sums are exactly rounded
(`math.fsum`), so that no order of threads or chunks changes a bit. Values are in bits.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Final

import numpy as np
from numpy.typing import NDArray

Counts = NDArray[np.int64]
Estimator = Callable[[Counts, Counts, int], float]

ESTIMATORS: Final[dict[str, Estimator]] = {}

SATURATION: Final = 0.95

NATS_PER_BIT: Final = math.log(2)


@dataclass(frozen=True)
class CountsOfCounts:
    """``keys[i]`` distinct keys were each seen ``multiplicity[i]`` times.

    Examples
    --------
    >>> fair = CountsOfCounts(np.array([3]), np.array([4]))  # 4 keys, 3 samples each
    >>> fair.samples, fair.distinct, fair.singletons, plugin(fair.multiplicity, fair.keys, fair.samples)
    (12, 4, 0, 2.0)
    """

    multiplicity: Counts
    keys: Counts

    @property
    def samples(self) -> int:
        """N."""
        return int(self.multiplicity @ self.keys)

    @property
    def distinct(self) -> int:
        """Number of distinct keys."""
        return int(self.keys.sum())

    @property
    def singletons(self) -> int:
        """Number of keys seen once."""
        return int(self.keys[self.multiplicity == 1].sum())

    def entropy(self, estimator: str = "plugin") -> float:
        """Entropy in bits by a declared estimator."""
        if estimator not in self._known:
            self._known[estimator] = ESTIMATORS[estimator](self.multiplicity, self.keys, self.samples)
        return self._known[estimator]

    @cached_property
    def _known(self) -> dict[str, float]:
        """Entropies that were asked for: those of the input and the labels are, by every layer and epoch."""
        return {}


def estimator(function: Estimator) -> Estimator:
    """Declare an entropy estimator under its function's name."""
    ESTIMATORS[function.__name__] = function
    return function


@estimator
def plugin(multiplicity: Counts, keys: Counts, samples: int) -> float:
    """Maximum-likelihood entropy H = Σ p log₂(1/p), p = multiplicity / N (Shannon 1948), in bits."""
    share = keys * multiplicity / samples  # in this order it is exactly 1 where it is the whole
    return math.fsum((share * np.log2(samples / multiplicity)).tolist())


def saturated(entropy: float, samples: int) -> bool:
    """Whether an entropy in bits is within 5 % of its ceiling log₂ N, where it tells N and little else.

    >>> saturated(11.9, 4096), saturated(3.3, 4096)
    (True, False)
    """
    return entropy >= SATURATION * math.log2(samples)
