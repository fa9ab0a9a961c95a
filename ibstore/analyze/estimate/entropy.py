"""Entropies from counts of counts: how many keys (``keys``) were seen ``multiplicity`` times among N samples.

Every estimator is one function of those three, declared with `estimator`; sums are exactly rounded
(`math.fsum`), so that no order of threads or chunks changes a bit. Values are in bits. `plugin` is here,
`ibstore.analyze.estimate.corrected` has those that correct its bias.
"""

import math
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from importlib import import_module
from typing import Final

import numpy as np
from numpy.typing import NDArray

from ibstore.errors import UnknownNameError, UsageError

Counts = NDArray[np.int64]
Estimator = Callable[[Counts, Counts, int], float]

ESTIMATORS: Final[dict[str, Estimator]] = {}
"""Declared estimators by name."""

FAMILIES: Final[dict[str, Callable[[float], Estimator]]] = {}
"""Estimators that take a number, by name: ``bayes(0.5)``."""

ALIASES: Final = {
    "discrete": "plugin",
    "ml": "plugin",
    "mm": "miller_madow",
    "cs": "chao_shen",
    "cwj": "chao_wang_jost",
    "js": "shrink",
    "gt": "good_turing",
}
"""What the field's libraries call them."""

LARGEST: Final = 1e150
"""Numbers whose squares are float64 too."""

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
        """Entropy in bits by a declared estimator's name; it may be negative, and NaN where the estimator has none."""
        if estimator not in self._known:
            self._known[estimator] = find_estimator(estimator)(self.multiplicity, self.keys, self.samples)
        return self._known[estimator]

    @cached_property
    def _known(self) -> dict[str, float]:
        """Entropies that were asked for: those of the input and the labels are, by every layer and epoch."""
        return {}


def added(counts: Sequence[CountsOfCounts]) -> CountsOfCounts:
    """Counts of counts of keys that no two of ``counts`` share.

    >>> once = CountsOfCounts(np.array([1, 2]), np.array([5, 1]))
    >>> added([once, CountsOfCounts(np.array([2]), np.array([3]))])
    CountsOfCounts(multiplicity=array([1, 2]), keys=array([5, 4]))
    """
    multiplicity, places = np.unique(np.concatenate([each.multiplicity for each in counts]), return_inverse=True)
    keys = np.zeros(len(multiplicity), np.int64)
    np.add.at(keys, places, np.concatenate([each.keys for each in counts]))
    return CountsOfCounts(multiplicity, keys)


def estimator(function: Estimator) -> Estimator:
    """Declare an entropy estimator under its function's name; use it as a decorator (`ibstore.register_estimator`).

    Parameters
    ----------
    function
        Takes multiplicities, how many distinct keys were seen so often, and N; gives bits. What it gave is kept under
        its name, in small letters: another function wants another name.

    Examples
    --------
    >>> @estimator
    ... def keys_seen(multiplicity: Counts, keys: Counts, samples: int) -> float:
    ...     return math.log2(keys.sum())
    >>> CountsOfCounts(np.array([1, 3]), np.array([2, 2])).entropy("keys_seen")
    2.0
    >>> _ = ESTIMATORS.pop("keys_seen")
    """
    ESTIMATORS[function.__name__.lower()] = function
    return function


def family(name: str) -> Callable[[Callable[[float], Estimator]], Callable[[float], Estimator]]:
    """Declare the estimators that a function makes of a number, ``name(number)``."""

    def declare(function: Callable[[float], Estimator]) -> Callable[[float], Estimator]:
        FAMILIES[name] = function
        return function

    return declare


def estimator_name(text: str) -> str:
    """The one name of an estimator from what a user may call it: aliases, spaces, ``alpha=``.

    Raises
    ------
    UnknownNameError
        When there is none of that name.
    UsageError
        When it takes a number and has none, or the other way round, or one that it cannot take.

    Examples
    --------
    >>> estimator_name("mm"), estimator_name("bayes(alpha=1)"), estimator_name("bayes(jeffreys)")
    ('miller_madow', 'bayes(1.0)', 'jeffreys')
    """
    name, number = _read(text)
    return name if number is None else f"{name}({number})"


def find_estimator(text: str) -> Estimator:
    """Estimator by its name, as `estimator_name` reads it."""
    name, number = _read(text)
    return ESTIMATORS[name] if number is None else _made(name, number)


_CALL: Final = re.compile(r"([\w-]+) *(?:\( *(?:\w+ *= *)?([\w.+-]+) *\))?")


def _read(text: str) -> tuple[str, float | None]:
    """Name of an estimator, and the number that it takes."""
    if text not in ESTIMATORS:
        import_module("ibstore.analyze.estimate.corrected")  # declares the others, which the plug-in starts without
    found = _CALL.fullmatch(text.strip().lower())
    called, argument = (found[1].replace("-", "_"), found[2]) if found else (text, None)
    name = ALIASES.get(called, called)
    if argument is None and name in ESTIMATORS:
        return name, None
    if name == "bayes" and argument in ESTIMATORS:
        return str(argument), None
    if name in FAMILIES:
        return name, _number(text, name, argument)
    if name in ESTIMATORS:
        raise UsageError(f"estimator {text!r}: {name} takes no number; write {name}")
    known = (*ESTIMATORS, *(f"{name}(…)" for name in FAMILIES))
    raise UnknownNameError(f"unknown estimator {text!r}; there are {', '.join(known)}")


def _number(text: str, name: str, argument: str | None) -> float:
    """The number in ``name(number)``."""
    try:
        number = float(argument or "")
    except ValueError:
        number = math.nan
    if not 0 < number <= LARGEST:
        raise UsageError(f"estimator {text!r}: {name} takes a number above 0 and up to {LARGEST:g}, as in {name}(0.5)")
    return number


@lru_cache
def _made(name: str, number: float) -> Estimator:
    return FAMILIES[name](number)


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


def within(raw: float, most: float) -> float:
    """An estimate of information within its bounds, 0 and ``most``; one that is no number stays as it is.

    >>> within(-0.1, 2.0), within(2.5, 2.0)
    (0.0, 2.0)
    """
    return max(0.0, min(raw, most)) if math.isfinite(raw) else raw
