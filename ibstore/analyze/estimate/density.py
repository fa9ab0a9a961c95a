"""Estimators that look at values instead of counting patterns, declared by name: ``kde(variance=0.1)``.

Each is a function of a few numbers that makes a `Density`: what it makes of the values of X, T and Y is a row of the
information plane, in bits. They see what a waist's reduction leaves of a layer; its discretization is not used.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import numpy as np
from numpy.typing import NDArray

from ibstore.analyze.estimate.joint import counts_of
from ibstore.analyze.grammar import Call, parse_call
from ibstore.errors import UsageError

if TYPE_CHECKING:
    from ibstore.analyze.device import Device

Values = NDArray[Any]
Row = dict[str, Any]

COPIES: Final = {"ksg": 4, "renyi": 2, "edge": 2}
"""Copies of a variable in float64 that an estimator makes at most (measured)."""

WORK: Final = 1 << 26
"""Bytes of blocks that are worked on."""

COLLISION: Final = 2.0
"""The α whose entropies need no matrix."""

ALL: Final = 0
"""As ``samples``: every sample."""


@dataclass(frozen=True)
class Variables:
    """What an estimator sees: ``x`` and ``t``, (sample, unit), and integer labels ``y``, (sample,), or None.

    ``x`` is there only for estimators that look at it. ``threads`` and ``room``, bytes, are theirs to use, and the
    ``device``, where there is one.
    """

    x: Values | None
    t: Values
    y: NDArray[np.int64] | None
    threads: int = 1
    room: int = 256 << 20
    device: "Device | None" = None


@dataclass(frozen=True)
class Density:
    """An estimator with its numbers bound.

    Parameters
    ----------
    row
        From the variables to columns of the information plane, in bits: h_x, h_y, h_t, h_xt, h_ty, i_xt_raw, i_ty_raw
        and error bars, as far as it has them.
    samples
        How many samples it looks at, chosen by a seeded permutation; 0 is all.
    needs_x
        Whether it looks at the input.
    bytes
        About what it holds, from samples and units (the most that a variable has), beside the values themselves.
    """

    row: Callable[[Variables], Row]
    samples: int = ALL
    needs_x: bool = False
    bytes: Callable[[int, int], int] = lambda _samples, _units: 0

    def chosen(self, samples: int) -> NDArray[np.int64]:
        """Which of so many samples it looks at, ascending; those of fewer are among those of more."""
        if self.samples == ALL or self.samples >= samples:
            return np.arange(samples)
        return np.sort(np.random.default_rng(0).permutation(samples)[: self.samples])


DENSITIES: Final[dict[str, Callable[..., Density]]] = {}
"""Declared estimators by name."""


def density(function: Callable[..., Density]) -> Callable[..., Density]:
    """Declare an estimator under its function's name; that takes int, float or str, and may raise a ValueError."""
    DENSITIES[function.__name__] = function
    return function


def is_density(text: str) -> bool:
    """Whether a text names an estimator of this kind.

    >>> is_density("kde(0.1)"), is_density("nsb(1000)")
    (True, False)
    """
    return text.partition("(")[0].strip().lower() in DENSITIES


def density_name(text: str) -> str:
    """The one name of an estimator: arguments by name, those that are what they are by default left out.

    Raises
    ------
    UsageError
        When it takes other arguments.

    Examples
    --------
    >>> density_name("kde(0.1)"), density_name("KSG(k=3)")
    ('kde(variance=0.1)', 'ksg')
    """
    call = _read(text)
    default = dict(parse_call(call.name, "estimator", DENSITIES).kwargs)
    return str(Call(call.name, (), tuple(item for item in call.kwargs if default[item[0]] != item[1])))


def find_density(text: str) -> Density:
    """Estimator by its name."""
    call = _read(text)
    return DENSITIES[call.name](**dict(call.kwargs))


def _read(text: str) -> Call:
    try:
        call = parse_call(text.strip().lower(), "estimator", DENSITIES)
        DENSITIES[call.name](**dict(call.kwargs))
    except (UsageError, ValueError) as error:
        raise UsageError(f"estimator {text!r}: {error}") from None
    return call


@density
def kde(variance: float | str = "labels", samples: int = 10_000) -> Density:
    """Pairwise bounds with Gaussian noise of a variance in every unit (`ibstore.analyze.estimate.kde`).

    I(X;T) is the upper bound, H(T) that of H(T+ε); I(T;Y) comes from the same one; the lower bound is the error bar's
    other end. ``labels`` as variance is the largest noise under which the lower bound still tells 90 % of H(Y) of the
    labels themselves.
    """
    if isinstance(variance, str) and variance != "labels":
        raise ValueError(f"variance is a number or the word labels, not {variance}")
    if not isinstance(variance, str) and not (variance > 0 and math.isfinite(variance)):
        raise ValueError(f"variance must be a finite number above 0, not {variance}")
    _check_samples(samples)

    def row(seen: Variables) -> Row:
        from ibstore.analyze.estimate.kde import bounds, variance_from_labels

        if isinstance(variance, str) and seen.y is None:
            raise UsageError("kde chooses the noise by the labels, and there are none; give it: kde(variance=0.1)")
        noise = variance if not isinstance(variance, str) else variance_from_labels(_known(seen.y))
        sums = None if seen.device is None else seen.device.kernel_sums
        found = bounds(seen.t, noise, seen.y, threads=seen.threads, room=seen.room, kernel_sums=sums)
        own: Row = {"h_x": math.log2(len(seen.t)), "h_t": found.h_t.upper, "variance": noise}
        own |= {"i_xt_raw": found.i_xt.upper, "i_xt_low": found.i_xt.lower, "i_xt_high": found.i_xt.upper}
        if found.i_ty is not None and found.h_t_given_y is not None:
            low, high = sorted(found.i_ty)
            h_ty = counts_of(_known(seen.y)).entropy() + found.h_t_given_y.upper
            own |= {"h_ty": h_ty, "i_ty_raw": found.i_ty.upper, "i_ty_low": low, "i_ty_high": high}
        return own

    return Density(row, samples)


@density
def ksg(k: int = 3, variant: int = 1, samples: int = 4_000) -> Density:
    """Nearest neighbours: Kraskov's two estimators of I(X;T), Ross's of I(T;Y) (`ibstore.analyze.estimate.knn`)."""
    if k < 1 or variant not in (1, 2):
        raise ValueError(f"k is at least 1 and variant 1 or 2, not {k} and {variant}")
    _check_samples(samples)

    def row(seen: Variables) -> Row:
        from ibstore.analyze.estimate import knn

        own = {"i_xt_raw": knn.ksg(_known(seen.x), seen.t, k, variant)}
        return own | ({} if seen.y is None or _all_differ(seen.y) else {"i_ty_raw": knn.ross(seen.t, seen.y, k)})

    return Density(row, samples, needs_x=True, bytes=lambda n, units: COPIES["ksg"] * n * units * 8 + WORK)


@density
def renyi(alpha: float = 1.01, samples: int = 1_000) -> Density:
    """Matrix-based Rényi entropies of kernel matrices, N² numbers each (`ibstore.analyze.estimate.renyi`)."""
    if not (alpha > 0 and math.isfinite(alpha)):
        raise ValueError(f"alpha must be a finite number above 0, not {alpha}")
    _check_samples(samples)

    def row(seen: Variables) -> Row:
        from ibstore.analyze.estimate.renyi import plane, spectrum_entropy

        labels = np.zeros(len(seen.t), np.int64) if seen.y is None else seen.y
        found = plane(_known(seen.x), seen.t, labels, alpha)
        own = {"h_t": found.h_t, "i_xt_raw": found.i_xt}
        if seen.y is None:
            return own
        return own | {"h_y": spectrum_entropy(np.unique(seen.y, return_counts=True)[1], alpha), "i_ty_raw": found.i_ty}

    def held(n: int, units: int) -> int:
        return COPIES["renyi"] * n * units * 8 + (WORK if alpha == COLLISION else 4 * n * n * 8)

    return Density(row, samples, needs_x=True, bytes=held)


@density
def edge(seed: int = 0, samples: int = ALL) -> Density:
    """Hash buckets that are counted, over several widths (`ibstore.analyze.estimate.edge`)."""
    if seed < 0:
        raise ValueError(f"seed is at least 0, not {seed}")
    _check_samples(samples)

    def row(seen: Variables) -> Row:
        from ibstore.analyze.estimate import edge

        own = {"i_xt_raw": edge.edge(_known(seen.x), seen.t, seed)}
        return own if seen.y is None else own | {"i_ty_raw": edge.edge(seen.t, seen.y, seed)}

    return Density(row, samples, needs_x=True, bytes=lambda n, units: COPIES["edge"] * n * units * 8 + WORK)


def _known(values: Values | None) -> Values:
    assert values is not None, "an estimator is given what it needs"
    return values


def _all_differ(y: NDArray[np.int64]) -> bool:
    """Whether no label is seen twice."""
    return len(np.unique(y)) == len(y)


def _check_samples(samples: int) -> None:
    if samples < 0:
        raise ValueError(f"samples is how many to look at, or 0 for all, not {samples}")
