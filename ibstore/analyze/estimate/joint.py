"""Entropies and informations of X, T and Y from integer codes: one code a sample, equal codes for equal patterns.

Samples with the same (x, t, y) are one *cell*. A `Joint` holds how many samples each cell has and the codes of x, t, y
and what they are together, so that every count, entropy and information is a sum over cells, whatever the order of
the samples. Values are in bits and raw: an estimate of an information may be negative.
"""

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property, reduce
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from ibstore.analyze.estimate.entropy import Counts, CountsOfCounts
from ibstore.errors import UnknownNameError, ValuesError

Codes = NDArray[np.int64]
Integers = NDArray[np.integer[Any]]

VARIABLES: Final = ("x", "y", "t", "xt", "ty", "xy", "xyt")

QUANTITIES: Final[Mapping[str, Mapping[str, int]]] = {
    **{f"h_{variable}": {variable: 1} for variable in VARIABLES},
    "h_t_given_y": {"ty": 1, "y": -1},
    "h_y_given_t": {"ty": 1, "t": -1},
    "h_t_given_x": {"xt": 1, "x": -1},
    "h_x_given_t": {"xt": 1, "t": -1},
    "i_xt": {"x": 1, "t": 1, "xt": -1},
    "i_ty": {"t": 1, "y": 1, "ty": -1},
    "i_xy": {"x": 1, "y": 1, "xy": -1},
    "h_x_given_ty": {"xyt": 1, "ty": -1},
    "h_y_given_xt": {"xyt": 1, "xt": -1},
    "h_t_given_xy": {"xyt": 1, "xy": -1},
    "h_ty_given_x": {"xyt": 1, "x": -1},
    "i_xt_given_y": {"xy": 1, "ty": 1, "y": -1, "xyt": -1},
    "i_xy_given_t": {"xt": 1, "ty": 1, "t": -1, "xyt": -1},
    "i_ty_given_x": {"xy": 1, "xt": 1, "x": -1, "xyt": -1},
    "i_xyt": {"x": 1, "y": 1, "t": 1, "xy": -1, "xt": -1, "ty": -1, "xyt": 1},
}
"""Each quantity as a sum of entropies with signs."""

CROWDED: Final = 8
"""Values a sample up to which marking those that are taken is quicker than sorting the samples."""


def dense(codes: Integers) -> Codes:
    """Codes 0 … K − 1 of (N,) integers, in the order of their values.

    Raises
    ------
    ValuesError
        Where they are no (N,) integers, or there are none.

    Examples
    --------
    >>> dense(np.array([7, -2, 7, 40])).tolist()
    [1, 0, 1, 2]
    """
    given = np.asarray(codes)
    if given.ndim != 1 or given.dtype.kind not in "biu":
        raise ValuesError(f"codes are {given.dtype} of shape {given.shape}; give one integer a sample")
    if not given.size:
        raise ValuesError("no samples have codes; give one at least")
    low, high = given.min(), given.max()
    if (span := int(high) - int(low) + 1) > CROWDED * given.size:
        return np.unique(given, return_inverse=True)[1].astype(np.int64, copy=False)
    places = given.astype(np.uint64) - low.astype(np.uint64)  # modulo 2^64, so exact for signed codes too
    seen = np.zeros(span, np.int64)
    seen[places] = 1
    found: Codes = np.cumsum(seen)[places] - 1
    return found


def combined(first: Integers, *others: Integers) -> Codes:
    """Dense (N,) codes of several variables together, in lexicographic order; equal where all of them are.

    Each product is made dense before the next, so that none is more than N².

    Raises
    ------
    ValuesError
        Where they have not as many samples as each other, or as `dense`.

    Examples
    --------
    >>> combined(np.array([5, 5, 9, 5]), np.array([1, 0, 0, 1])).tolist()
    [1, 0, 2, 1]
    """
    return reduce(_pair, map(dense, others), dense(first))


def _pair(first: Codes, second: Codes) -> Codes:
    """Dense codes of two dense variables together."""
    if len(first) != len(second):
        raise ValuesError(f"codes of {len(first)} and of {len(second)} samples cannot be joined; give them of the same")
    return dense(first * (int(second.max()) + 1) + second)


def counts_of(codes: Integers) -> CountsOfCounts:
    """Counts of counts of (N,) codes.

    >>> counts_of(np.array([3, 3, 8, 5])).keys.tolist()  # two were seen once, one twice
    [2, 1]
    """
    return of_counts(np.bincount(dense(codes)))


def of_counts(counts: Counts) -> CountsOfCounts:
    """Counts of counts of the (K,) counts of keys; what was not seen is no key."""
    keys = np.bincount(counts)
    multiplicity = np.flatnonzero(keys[1:]) + 1
    return CountsOfCounts(multiplicity, keys[multiplicity])


def information_between(first: Integers, second: Integers, estimator: str = "plugin") -> float:
    """I(A;B) = H(A) + H(B) − H(A,B) of two (N,) codes, in bits and raw: of two layers, say.

    >>> information_between(np.array([0, 0, 1, 1]), np.array([2, 3, 4, 5]))
    1.0
    """
    alone = [counts_of(codes).entropy(estimator) for codes in (first, second)]
    return math.fsum((*alone, -counts_of(combined(first, second)).entropy(estimator)))


@dataclass(frozen=True)
class Joint:
    """Cells in the order of (x, t, y), how many samples each has, and its dense codes of every variable.

    Attributes
    ----------
    counts
        (cells,), at least 1.
    codes
        By variable (``x``, ``t``, ``xt``, and with labels ``y``, ``ty``, ``xy``, ``xyt``), (cells,), 0 … K − 1.
    """

    counts: Counts
    codes: Mapping[str, Codes]

    @property
    def samples(self) -> int:
        """N."""
        return int(self.counts.sum())

    @property
    def quantities(self) -> tuple[str, ...]:
        """Names of what can be told: without labels nothing of y."""
        return tuple(name for name, terms in QUANTITIES.items() if terms.keys() <= self.codes.keys())

    def terms(self, quantity: str) -> Mapping[str, int]:
        """Variables whose entropies make up a quantity, with their signs.

        Raises
        ------
        UnknownNameError
            When there is none of that name, or it needs labels and there are none.
        """
        if quantity not in self.quantities:
            raise UnknownNameError(f"no quantity {quantity!r} here; there are {', '.join(self.quantities)}")
        return QUANTITIES[quantity]

    def keys(self, variable: str, counts: Counts | None = None) -> Counts:
        """How many samples each key of a variable has, (K,), by the cells' own counts or by other ones."""
        weights = self.counts if counts is None else counts
        return np.bincount(self.codes[variable], weights=weights).astype(np.int64)  # exact below 2^53

    @cached_property
    def counted(self) -> Mapping[str, CountsOfCounts]:
        """Counts of counts by variable."""
        return {variable: of_counts(self.keys(variable)) for variable in self.codes}

    def estimate(self, quantity: str, estimator: str = "plugin") -> float:
        """One of `QUANTITIES` in bits, its entropies by a declared estimator and their sum rounded once."""
        return total(self.terms(quantity), self.counted, estimator)

    def estimates(self, estimator: str = "plugin") -> dict[str, float]:
        """Every quantity that can be told, in bits."""
        return {quantity: self.estimate(quantity, estimator) for quantity in self.quantities}


def total(terms: Mapping[str, int], counted: Mapping[str, CountsOfCounts], estimator: str) -> float:
    """Sum of entropies with signs in bits, rounded once."""
    return math.fsum(sign * counted[variable].entropy(estimator) for variable, sign in terms.items())


def joint(x: Integers, t: Integers, y: Integers | None = None) -> Joint:
    """The cells of (N,) codes of input, layer and, where there are some, labels.

    Raises
    ------
    ValuesError
        As `combined`.

    Examples
    --------
    >>> whole = joint(x=np.arange(4), t=np.array([0, 0, 1, 1]), y=np.array([1, 1, 1, 0]))
    >>> whole.estimate("h_t"), whole.estimate("i_xt"), round(whole.estimate("i_ty"), 3)
    (1.0, 1.0, 0.311)
    """
    given = {"x": x, "t": t} if y is None else {"x": x, "t": t, "y": y}
    _, first, counts = np.unique(combined(*given.values()), return_index=True, return_counts=True)
    alone = {variable: dense(np.asarray(codes)[first]) for variable, codes in given.items()}
    return Joint(counts.astype(np.int64), dict(_together(alone)))


def _together(alone: Mapping[str, Codes]) -> Iterable[tuple[str, Codes]]:
    """Each variable that its letters can make, with its codes."""
    for variable in VARIABLES:
        if set(variable) <= alone.keys():
            yield variable, reduce(_pair, (alone[letter] for letter in variable))
