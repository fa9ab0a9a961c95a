"""What the analysis should give, said again in a few slow lines of numpy and `collections.Counter`."""

import math
from collections import Counter
from typing import NamedTuple

import numpy as np


def pooled(values, window, combine):
    """Windows over the trailing axes, uncovered ends left out."""
    lead = values.ndim - len(window)
    kept = values[(..., *[slice(n // w * w) for n, w in zip(values.shape[lead:], window, strict=True)])]
    split = [size for n, w in zip(kept.shape[lead:], window, strict=True) for size in (n // w, w)]
    return combine(kept.reshape(*kept.shape[:lead], *split), axis=tuple(range(lead + 1, lead + 2 * len(window), 2)))


def softmax(values):
    powers = np.exp(values - values.max(axis=1, keepdims=True))
    return powers / powers.sum(axis=1, keepdims=True)


def places(values):
    return values.reshape(*values.shape[:2], -1)


REDUCTIONS = {
    "identity": lambda v: v,
    "maxpool(2, 2)": lambda v: pooled(v, (2, 2), np.max),
    "maxpool(2, 1, 2)": lambda v: pooled(v, (2, 1, 2), np.max),
    "avgpool(1, 2)": lambda v: pooled(v.astype(np.float64), (1, 2), np.mean).astype(np.float32),
    "softmax": softmax,
    "argmax": lambda v: v.argmax(axis=1).reshape(len(v), -1),
    "channelmean": lambda v: places(v).astype(np.float64).mean(axis=2).astype(np.float32),
    "channelmax": lambda v: places(v).max(axis=2),
}


def quantile_edges(values, bins, lo=0.01, hi=0.99):
    low, high = np.quantile(values.astype(np.float64), [lo, hi])
    return np.array([low + (high - low) * j / bins for j in range(1, bins)]) if low < high else np.array([])


def mass_edges(values, bins):
    return np.quantile(values.astype(np.float64), [j / bins for j in range(1, bins)])


def thesis_edges(values, num=2):
    low, high = np.quantile(values.astype(np.float64), [0.01, 0.99])
    found = np.linspace(low - 0.1, high + 0.1, num)
    if num == 2:
        found[-1] /= 2
    return np.sort(found)


FITTED = {
    "quantile(bins=2)": lambda v: quantile_edges(v, 2),
    "quantile(bins=5, lo=0.1, hi=0.75)": lambda v: quantile_edges(v, 5, 0.1, 0.75),
    "equalmass(bins=3)": lambda v: mass_edges(v, 3),
    "thesis_edges": thesis_edges,
    "thesis_edges(num=5)": lambda v: thesis_edges(v, 5),
}

FIXED = {
    "threshold(0.5)": lambda v: v > 0.5,
    "uniform(bins=3, lo=-1, hi=1)": lambda v: bins_of(v, [-1 + 2 * j / 3 for j in (1, 2)]),
    "width(0.75)": lambda v: np.floor(v.astype(np.float64) / 0.75),
    "edges(-1, 0, 0.5)": lambda v: bins_of(v, [-1, 0, 0.5]),
    "exact": lambda v: v + v.dtype.type(0),
}


def bins_of(values, edges):
    """Number of edges ≤ value."""
    return np.searchsorted(np.asarray(edges, np.float64), values.astype(np.float64), side="right")


def groups(shape, scope):
    """Number of the group of each unit of reduced values (…): which units share edges."""
    units = int(np.prod(shape))
    if scope == "layer" or (scope == "channel" and not shape):
        return np.zeros(units, int)
    return np.arange(units) if scope == "unit" else np.repeat(np.arange(shape[0]), units // shape[0])


class Recipe(NamedTuple):
    """A recipe, its text and its bin numbers."""

    reduction: str
    discretization: str
    scope: str = "unit"
    per: str = "epoch"

    def __str__(self):
        name, _, arguments = self.discretization.rstrip(")").partition("(")
        options = [f"scope={self.scope}", f"per={self.per}"] if self.discretization in FITTED else []
        return f"{self.reduction} | {name}({', '.join([*filter(None, [arguments]), *options])})"

    def codes(self, values, run=None):
        """Bin numbers (sample, unit) of values (sample, …); ``run`` has those of all epochs."""
        reduced = REDUCTIONS[self.reduction](values)
        flat = reduced.reshape(len(reduced), -1)
        if self.discretization in FIXED:
            return FIXED[self.discretization](flat)
        fitted_on = flat if self.per == "epoch" else REDUCTIONS[self.reduction](run).reshape(len(run), -1)
        found = np.zeros(flat.shape, int)
        group = groups(reduced.shape[1:], self.scope)
        for number in np.unique(group):
            edges = FITTED[self.discretization](fitted_on[:, group == number].ravel())
            found[:, group == number] = bins_of(flat[:, group == number], edges)
        return found


def keys(patterns):
    """A hashable key for each row."""
    return [tuple(row) for row in np.asarray(patterns).reshape(len(patterns), -1).tolist()]


def entropy(variable):
    """Plug-in entropy of a sequence, in bits."""
    total = len(variable)
    return -sum(n / total * math.log2(n / total) for n in Counter(variable).values())


def plane(x, y, t):
    """H and I of three sequences of keys, in bits."""
    h_x, h_y, h_t = entropy(x), entropy(y), entropy(t)
    h_xt, h_ty = entropy(list(zip(x, t, strict=True))), entropy(list(zip(t, y, strict=True)))
    return {
        "n": len(x),
        "h_x": h_x,
        "h_y": h_y,
        "h_t": h_t,
        "h_xt": h_xt,
        "h_ty": h_ty,
        "i_xt": h_x + h_t - h_xt,
        "i_ty": h_t + h_y - h_ty,
        "distinct_x": len(set(x)),
        "distinct_t": len(set(t)),
        "singletons_t": sum(n == 1 for n in Counter(t).values()),
    }
