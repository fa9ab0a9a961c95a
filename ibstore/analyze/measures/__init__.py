"""Questions beyond the information plane, each a table, declared by name with its numbers: ``intervals(level=0.9)``."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from ibstore.analyze.estimate.density import is_density
from ibstore.analyze.grammar import parse_call
from ibstore.errors import UsageError

if TYPE_CHECKING:
    import polars as pl

    from ibstore.analyze.keys import Keyed
    from ibstore.analyze.selection import Selection


@dataclass(frozen=True)
class Asked:
    """What a measure is asked of: a selection, by estimators, in a unit."""

    selection: "Selection"
    estimators: list[str]
    unit: str

    @property
    def counting(self) -> list[str]:
        """The estimators, where all of them are made of counts."""
        for name in self.estimators:
            if is_density(name):
                raise UsageError(
                    f"this measure is made of counts, and {name} looks at values; give another --estimator"
                )
        return self.estimators

    @property
    def whole(self) -> "Selection":
        """The selection, of measures that take no estimator."""
        if self.estimators != ["plugin"]:
            raise UsageError(
                f"this measure takes no estimator, not {', '.join(self.estimators)}; leave --estimator out"
            )
        return self.selection

    def keys(self) -> "Iterator[Keyed]":
        """Keys of every layer and epoch, in the tables' order."""
        return self.selection.keys()

    def plane(self) -> "pl.DataFrame":
        """The information plane."""
        return self.selection.plane(self.estimators, unit=self.unit)


Measure = Callable[[Asked], "pl.DataFrame"]

MEASURES: Final[dict[str, Callable[..., Measure]]] = {}
"""Declared measures by name."""


def measure(function: Callable[..., Measure]) -> Callable[..., Measure]:
    """Declare a measure under its function's name; that takes int, float or str, and may raise a ValueError."""
    MEASURES[function.__name__] = function
    return function


def find_measure(text: str) -> Measure:
    """Measure of a text such as ``intervals`` or ``intervals(level=0.9)``.

    Raises
    ------
    UsageError
        When there is none of that name, or it takes other arguments.
    """
    try:
        call = parse_call(text.strip(), "measure", MEASURES)
        return MEASURES[call.name](*call.args, **dict(call.kwargs))
    except (UsageError, ValueError) as error:
        raise UsageError(f"measure {text!r}: {error}") from None


@measure
def intervals(method: str = "jackknife", resamples: int = 200, level: float = 0.95, seed: int = 0) -> Measure:
    """Intervals of H(T), I(X;T) and I(T;Y) by ``method`` jackknife or bootstrap."""
    from ibstore.analyze.measures import uncertainty

    return lambda asked: uncertainty.intervals(asked.keys(), asked.counting, method, resamples, level, seed, asked.unit)


@measure
def null(permutations: int = 200, level: float = 0.95, seed: int = 0) -> Measure:
    """I(T;Y) beside what it is by chance, where labels are permuted."""
    from ibstore.analyze.measures import uncertainty

    return lambda asked: uncertainty.null(asked.keys(), asked.counting, permutations, level, seed, asked.unit)


@measure
def convergence(*sizes: int, repeats: int = 10, seed: int = 0) -> Measure:
    """Estimates from parts of the samples, by default halves of halves: whether they still move."""
    from ibstore.analyze.measures import uncertainty

    return lambda asked: uncertainty.convergence(asked.keys(), asked.counting, sizes or None, repeats, seed, asked.unit)


@measure
def runs(level: float = 0.95) -> Measure:
    """Mean, spread and interval over the runs."""
    from ibstore.analyze.measures import networks

    return lambda asked: networks.over_runs(asked.plane(), level)


@measure
def extended(form: str = "pooled", seed: int = 0) -> Measure:
    """One plane of several networks together, ``form`` sampled or pooled."""
    from ibstore.analyze.measures import networks

    return lambda asked: networks.extended(
        (own.keys() for own in asked.selection.by("split", "waist", "layer", "channel")),
        form,
        asked.counting,
        seed,
        asked.unit,
    )


@measure
def diagram() -> Measure:
    """Conditional entropies and informations of X, Y and T: the areas of their diagram."""
    from ibstore.analyze.measures import dependence

    return lambda asked: dependence.diagram(asked.keys(), asked.counting, asked.unit)


@measure
def between() -> Measure:
    """I(Tᵢ;Tⱼ) of every two layers."""
    from ibstore.analyze.measures import dependence

    return lambda asked: dependence.between(
        (own.keys() for own in asked.selection.by("run", "split", "waist", "segment")), asked.counting, asked.unit
    )


@measure
def correlation(shrinkage: float = 0.0) -> Measure:
    """Total correlation of a layer's units, of their bins and by the Gaussian formula."""
    from ibstore.analyze.measures import dependence

    return lambda asked: dependence.correlation(asked.whole, shrinkage, asked.unit)


@measure
def transmitted() -> Measure:
    """What stochastic layers tell of the input by their own account, beside β and the error."""
    from ibstore.analyze.measures import bottlenecks

    return lambda asked: bottlenecks.transmitted(asked.whole, asked.unit)


@measure
def outcomes() -> Measure:
    """What each run came to, beside the settings in which the runs differ."""
    from ibstore.analyze.measures import trainings

    return lambda asked: trainings.outcomes(asked.whole.runs.values(), asked.selection.epochs)


@measure
def maps(count: int = 6) -> Measure:
    """Where in a picture layers say something: values of the places of the first ``count`` samples."""
    from ibstore.analyze.measures import places

    return lambda asked: places.maps(asked.whole, count, asked.unit)


@measure
def units() -> Measure:
    """Quantiles, mean and deviation of each unit of layers."""
    from ibstore.analyze.measures import views

    return lambda asked: views.units(asked.whole)


@measure
def histogram(number: int = 0, bins: int = 50) -> Measure:
    """Values of unit ``number`` of each layer, class by class."""
    from ibstore.analyze.measures import views

    return lambda asked: views.histogram(asked.whole, number, bins)


@measure
def samples(row: int = 0, most: int = 16) -> Measure:
    """What layers say of the sample in a ``row``, before and after training: their first ``most`` maps."""
    from ibstore.analyze.measures import views

    return lambda asked: views.samples(asked.whole, row, most)


@measure
def stages(row: int = 0, most: int = 16) -> Measure:
    """What a waist makes of the sample in a ``row``: the layer, reduced, and its bins."""
    from ibstore.analyze.measures import views

    return lambda asked: views.stages(asked.whole, row, most)


@measure
def neighbours(most: int = 100) -> Measure:
    """Joint against product probability of the bins of neighbouring units, of at most so many pairs."""
    from ibstore.analyze.measures import views

    return lambda asked: views.neighbours(asked.whole, most)


@measure
def ranges() -> Measure:
    """What the bins clip, and how many of them are used."""
    from ibstore.analyze.measures import binning

    return lambda asked: binning.ranges(asked.whole)


@measure
def bounds(delta: float = 0.05, dimension: int = 0) -> Measure:
    """Bounds of the generalization error: input compression, and the classic one of ``dimension`` parameters."""
    from ibstore.analyze.measures import limits

    return lambda asked: limits.bounds(asked.selection.plane(asked.estimators), delta, dimension)


@measure
def limit() -> Measure:
    """The optimal curve of the data as the waist sees it, of all samples and as far as N samples can tell."""
    from ibstore.analyze.measures import limits

    return lambda asked: limits.limit(asked.whole, asked.unit)


@measure
def gaps() -> Measure:
    """How far layers lie from the optimal curve: complexity and generalization gap."""
    from ibstore.analyze.measures import limits

    return lambda asked: limits.gaps(asked.selection, asked.selection.plane(asked.counting), asked.unit)


@measure
def betas(lowest: float = 0.01, highest: float = 1000.0, count: int = 61) -> Measure:
    """Which layer and epoch has the least I(X;T) − β·I(T;Y), from the lowest to the highest β."""
    from ibstore.analyze.measures import limits

    return lambda asked: limits.betas(asked.plane(), lowest, highest, count)


@measure
def dynamics() -> Measure:
    """Gradients and weights of each layer along the training, and where the loss kinks and the SNR drops."""
    from ibstore.analyze.measures import training

    return lambda asked: training.dynamics(asked.whole)


@measure
def events(margin: float = 0.05) -> Measure:
    """Where the loss kinks, the gradients' SNR drops and I(X;T) turns, which loses at least ``margin`` of itself."""
    from ibstore.analyze.measures import training

    return lambda asked: training.events(asked.selection, asked.plane(), margin)


@measure
def relaxation(level: float = 0.5, layer: str = "", by: str = "run") -> Measure:
    """Epochs until I(T;Y) of the last layer reaches ``level`` bits, beside Σ exp ΔS_k: ``by`` run or layers."""
    from ibstore.analyze.measures import training

    return lambda asked: training.relaxation(asked.selection, asked.selection.plane(asked.estimators), level, layer, by)
