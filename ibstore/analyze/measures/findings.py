"""What can be said against a row of the information plane: each finding is one declared function of the evidence.

It gives a sentence where it applies and None where not; beside it stand how grave it is and what to do.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final

Evidence = Mapping[str, Any]
"""Columns of the row by the plug-in, and what else was measured, in bits; None where there is nothing."""

Check = Callable[[Evidence], str | None]

FEW_SAMPLES: Final = 100
FEW_COVERED: Final = 0.9
MANY_CLIPPED: Final = 0.05
BY_CHANCE: Final = 0.05
TOO_MUCH: Final = 0.01
"""Bits by which a layer may have more information than one before it."""

FAR_BEYOND: Final = 0.1
"""Bits beyond a bound that are more than an estimator's noise about 0."""

GRAVE, DOUBT, NOTE = "no", "caution", "yes"
"""Verdicts: a row cannot be trusted, only with caution, or can be."""

VERDICTS: Final = (GRAVE, DOUBT, NOTE)


@dataclass(frozen=True)
class Finding:
    """What may be found: its name, the verdict on the row, the check, and what to change."""

    name: str
    verdict: str
    check: Check
    advice: str


FINDINGS: Final[list[Finding]] = []
"""Declared findings, the gravest first."""


def finding(verdict: str, advice: str) -> Callable[[Check], Check]:
    """Declare a check under its function's name."""

    def declare(check: Check) -> Check:
        FINDINGS.append(Finding(check.__name__, verdict, check, advice))
        return check

    return declare


@finding(GRAVE, "report this: it is a fault of ibstore")
def self_test(row: Evidence) -> str | None:
    """I(T;T) = H(T)."""
    if abs(row["i_tt"] - row["h_t"]) <= 1e-9 * (1 + abs(row["h_t"])):
        return None
    return f"I(T;T) = {row['i_tt']:.6f} bits, and H(T) = {row['h_t']:.6f}"


@finding(GRAVE, "narrow the layer more (larger pooling windows, fewer bins); twice the samples give one bit of room")
def saturated(row: Evidence) -> str | None:
    """H(T) is near its ceiling."""
    if not row["saturated"]:
        return None
    return (
        f"H(T) = {row['h_t']:.2f} of at most log N = {row['ceiling']:.2f} bits: {row['distinct_t']:,} patterns of "
        f"{row['n']:,} samples, so the number tells the sample's size"
    )


@finding(GRAVE, "use finer bins, or edges that lie where the layer's values do (quantile)")
def constant(row: Evidence) -> str | None:
    """One pattern."""
    return "all samples have one pattern, so nothing is told" if row["distinct_t"] == 1 and row["n"] > 1 else None


@finding(GRAVE, "do not read I(T;Y) of this row; narrow the layer more, or take more samples")
def chance(row: Evidence) -> str | None:
    """I(T;Y) is not more than with permuted labels."""
    if row["p_value"] is None or row["p_value"] <= BY_CHANCE or row["distinct_t"] == 1:
        return None
    return f"I(T;Y) = {row['i_ty']:.3f} bits, and {row['null_mean']:.3f} with labels that are permuted"


@finding(DOUBT, "take more noise, or more samples, or an estimator of counts under a waist")
def others_saturated(row: Evidence) -> str | None:
    """An estimator of values is near log N."""
    told = row["saturated_by"]
    return f"I(X;T) by {told} is within 5 % of log N: samples are told apart, and little else is told" if told else None


@finding(
    DOUBT, "compare with I(T;Y) less what permuted labels give (`ibstore measure … null`), or narrow the layer more"
)
def mostly_chance(row: Evidence) -> str | None:
    """Half of I(T;Y) is there by chance."""
    known = row["p_value"] is not None and row["p_value"] <= BY_CHANCE
    if not known or row["null_mean"] <= row["i_ty"] / 2:
        return None
    return f"of I(T;Y) = {row['i_ty']:.3f} bits {row['null_mean']:.3f} would be there with labels that are permuted"


@finding(DOUBT, "record at least some hundred samples")
def few_samples(row: Evidence) -> str | None:
    """N is small."""
    return f"{row['n']} samples are few" if row["n"] < FEW_SAMPLES else None


@finding(DOUBT, "prefer chao_wang_jost or nsb to plugin (`--estimator`), or narrow the layer more")
def unseen(row: Evidence) -> str | None:
    """Good–Turing coverage is low."""
    if row["saturated"] or row["coverage_t"] >= FEW_COVERED:
        return None
    once, missing = row["singletons_t"], 1 - row["coverage_t"]
    return f"{once:,} of {row['distinct_t']:,} patterns were seen once; {missing:.0%} of the probability is unseen"


@finding(DOUBT, "tell both numbers; smaller differences between layers or epochs mean nothing")
def estimators_differ(row: Evidence) -> str | None:
    """A corrected estimate is elsewhere."""
    other = row["corrected_h_t"]
    if row["saturated"] or abs(other - row["h_t"]) <= max(0.1, 0.05 * row["h_t"]):
        return None
    return f"H(T) is {row['h_t']:.2f} bits by plugin and {other:.2f} by {row['corrected_by']}"


@finding(DOUBT, "take more samples, or narrow the layer more; `ibstore measure … convergence` shows the curve")
def still_moves(row: Evidence) -> str | None:
    """Estimates change as the samples double."""
    moved = {
        name: row[f"change_{key}"]
        for name, key in (("H(T)", "h_t"), ("I(T;Y)", "i_ty"))
        if row[f"change_{key}"] is not None and abs(row[f"change_{key}"]) > max(0.05, 0.02 * abs(row[key]))
    }
    if row["saturated"] or not moved:
        return None
    told = ", ".join(f"{name} by {change:+.2f} bits" for name, change in moved.items())
    return f"from half of the samples to all of them changes {told}"


@finding(DOUBT, "narrow the layers alike; layers that others skip (residual networks) may do this rightly")
def processing(row: Evidence) -> str | None:
    """A layer tells more than one before."""
    more = {name: row[key] for name, key in (("I(X;T)", "dpi_xt"), ("I(T;Y)", "dpi_ty")) if (row[key] or 0) > TOO_MUCH}
    if not more:
        return None
    told = ", ".join(f"{name} is {excess:.2f} bits above" for name, excess in more.items())
    return f"{told} that of a layer before, against the data-processing inequality: the waists, or the bias, do that"


@finding(DOUBT, "trust none of the estimators that went beyond a bound by more than the effect")
def beyond_bounds(row: Evidence) -> str | None:
    """Raw and clipped estimates differ."""
    if row["clipped_most"] <= FAR_BEYOND:
        return None
    return f"an estimate of {row['clipped_by']} was {row['clipped_most']:.2f} bits beyond its bounds and was clipped"


@finding(DOUBT, "widen lo and hi, or fit the edges (quantile)")
def out_of_range(row: Evidence) -> str | None:
    """Values are clipped into the end bins."""
    share = row["clipped"]
    if share is None or share <= MANY_CLIPPED:
        return None
    return f"{share:.0%} of the values lie beyond the bins' range and are counted in the end bins"


@finding(NOTE, "fit them over the run (per=run) or fix them, if epochs are to be compared")
def edges_by_epoch(row: Evidence) -> str | None:
    """Epochs do not compare."""
    if row["edges"] != "epoch" or row["epochs"] == 1:
        return None
    return "bins are fitted anew at each epoch: a change between epochs may be one of the bins"


@finding(NOTE, "give x a recipe in the waist, if X is meant coarser than the sample's identity")
def identity(row: Evidence) -> str | None:
    """X is the sample."""
    return "every input is a pattern of its own, so I(X;T) is H(T)" if row["distinct_x"] == row["n"] else None
