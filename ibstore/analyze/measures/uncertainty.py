"""How far estimates can be trusted: intervals, what is chance, and whether they still move with the sample's size.

All of it is made of keys that are counted, and seeded.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, Final

from ibstore.analyze.estimate.entropy import saturated
from ibstore.analyze.estimate.joint import Joint
from ibstore.analyze.estimate.resample import bootstrap, jackknife, learning_curve, permutation_null
from ibstore.analyze.keys import NAMES, Keyed
from ibstore.analyze.measures.tables import frame
from ibstore.errors import UsageError

if TYPE_CHECKING:
    import polars as pl

Row = dict[str, Any]

COLUMNS: Final = (*NAMES, "estimator", "quantity", "unit", "n", "saturated")
QUANTITIES: Final = ("h_t", "i_xt", "i_ty")
METHODS: Final = ("jackknife", "bootstrap")
"""Ways to an interval."""


def intervals(
    keys: Iterable[Keyed],
    estimators: Sequence[str],
    method: str = "jackknife",
    resamples: int = 200,
    level: float = 0.95,
    seed: int = 0,
    unit: str = "bits",
) -> "pl.DataFrame":
    """Intervals of H(T), I(X;T) and I(T;Y): a row an estimator and quantity.

    Columns run, split, epoch, layer, channel, waist, edges, estimator, quantity, unit, n, saturated; method, level;
    value as estimated, bias as the method sees it, error (standard), low and high. Where every sample has a pattern of
    its own, samples that are left out or drawn again tell nothing, and there is no interval.

    Raises
    ------
    UsageError
        When there is no such method, or a number is out of range.
    """
    if method not in METHODS:
        raise UsageError(f"there is no method {method!r}; there are {', '.join(METHODS)}")

    def found(joint: Joint, estimator: str, own: Sequence[str]) -> Iterator[Row]:
        if method == "jackknife":
            for quantity, left in jackknife(joint, estimator, own, level).items():
                ends = {"bias": left.value - left.corrected, "error": left.error, "low": left.low, "high": left.high}
                yield {"quantity": quantity, "value": left.value, **ends}
            return
        for quantity, drawn in bootstrap(joint, estimator, own, resamples, level, seed).items():
            ends = {"bias": drawn.bias, "error": drawn.std, "low": drawn.low, "high": drawn.high}
            yield {"quantity": quantity, "value": drawn.value, **ends}

    said = {"method": method, "level": level, "unit": unit}
    numbers = ("value", "bias", "error", "low", "high")
    nothing = dict.fromkeys(("bias", "error", "low", "high"))
    rows = (
        {**row, **said, **(nothing if row["distinct"] == row["n"] else {})} for row in _rows(keys, estimators, found)
    )
    return frame(rows, (*COLUMNS, "method", "level", *numbers), numbers, unit)


def null(
    keys: Iterable[Keyed],
    estimators: Sequence[str],
    permutations: int = 200,
    level: float = 0.95,
    seed: int = 0,
    unit: str = "bits",
) -> "pl.DataFrame":
    """I(T;Y) beside what it is where labels are permuted, so that T tells nothing of them: a row an estimator.

    Columns run, split, epoch, layer, channel, waist, edges, estimator, quantity (i_ty), unit, n, saturated;
    permutations, level; value; null_mean, null_std and null_high (at ``level``) of the permutations; p_value.

    Raises
    ------
    UsageError
        When samples have no labels, or a number is out of range.
    """
    numbers = ("value", "null_mean", "null_std", "null_high")
    said = {"permutations": permutations, "level": level, "unit": unit, "quantity": "i_ty"}

    def of(each: Keyed, estimator: str) -> Row:
        if each.y is None:
            raise UsageError("a permutation null of I(T;Y) needs labels, and the samples have none; ask for intervals")
        chance = permutation_null(each.t_codes, each.y, estimator, permutations, level, seed)
        values = dict(zip(numbers, (chance.value, chance.mean, chance.std, chance.quantile), strict=True))
        return {**_facts(each), "estimator": estimator, "p_value": chance.p_value, **values, **said}

    rows = (of(each, estimator) for each in keys for estimator in estimators)
    return frame(rows, (*COLUMNS, "permutations", "level", *numbers, "p_value"), numbers, unit)


def convergence(
    keys: Iterable[Keyed],
    estimators: Sequence[str],
    sizes: Sequence[int] | None = None,
    repeats: int = 10,
    seed: int = 0,
    unit: str = "bits",
) -> "pl.DataFrame":
    """H(T), I(X;T) and I(T;Y) of parts of the samples: a row an estimator, quantity and size.

    Columns run, split, epoch, layer, channel, waist, edges, estimator, quantity, unit, n, saturated; size of a part;
    mean and std over the parts; and, the same at every size, change (from the last size but one to the last) and limit,
    where the estimate would end with samples without end, as a hint.
    """

    def found(joint: Joint, estimator: str, own: Sequence[str]) -> Iterator[Row]:
        for quantity, curve in learning_curve(joint, estimator, own, sizes, repeats, seed).items():
            end = {"quantity": quantity, "change": curve.change, "limit": curve.limit}
            for size, mean, std in zip(curve.sizes, curve.means, curve.deviations, strict=True):
                yield {**end, "size": size, "mean": mean, "std": std}

    numbers = ("mean", "std", "change", "limit")
    rows = ({**row, "unit": unit} for row in _rows(keys, estimators, found))
    return frame(rows, (*COLUMNS, "size", *numbers), numbers, unit)


def _rows(
    keys: Iterable[Keyed], estimators: Sequence[str], found: Callable[[Joint, str, Sequence[str]], Iterable[Row]]
) -> Iterator[Row]:
    """What is found of each joint by each estimator, of the quantities that it has, with names."""
    for each in keys:
        own = [name for name in QUANTITIES if name in each.joint.quantities]
        for estimator in estimators:
            for row in found(each.joint, estimator, own):
                yield {**_facts(each), "estimator": estimator, **row}


def _facts(keys: Keyed) -> Row:
    """What a row is of, N, and whether H(T) is near its ceiling, where nothing is to be learnt of it."""
    t = keys.joint.counted["t"]
    return {**keys.names, "n": t.samples, "distinct": t.distinct, "saturated": saturated(t.entropy(), t.samples)}
