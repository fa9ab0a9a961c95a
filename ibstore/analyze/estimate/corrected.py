"""Entropy estimators beyond the plug-in's, each a function of counts of counts, in bits.

Each knows how many keys (``keys``) were seen ``multiplicity`` times, and N; in the formulas n runs over the counts of
the distinct keys, K is how many those are, p = n / N, f₁ and f₂ are the keys seen once and twice, ψ is the digamma
function. The formulas are in nats, as in their sources. None builds anything of the size of K or N.
"""

import math
from collections.abc import Callable
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from ibstore.analyze.estimate.entropy import NATS_PER_BIT, Counts, Estimator, estimator, family
from ibstore.analyze.estimate.nsb import Posterior

Floats = NDArray[np.floating[Any]]

SIGNIFICANT: Final = 1.65
"""Standard deviations by which Turing's proportion differs significantly from the smoothed one."""


def _sum(keys: Counts | Floats, values: Floats) -> float:
    """Σ over the distinct keys, exactly rounded, in bits."""
    return math.fsum((keys * values).tolist()) / NATS_PER_BIT


def _entropy(keys: Counts | Floats, p: Floats) -> float:
    """−Σ p ln p of probabilities that so many keys have, in bits; nothing where p is 0."""
    from scipy.special import entr

    return _sum(keys, entr(p))


def _seen(multiplicity: Counts, keys: Counts, times: int) -> int:
    """How many keys were seen so often."""
    return int(keys[multiplicity == times].sum())


@estimator
def miller_madow(multiplicity: Counts, keys: Counts, samples: int) -> float:
    """Plug-in + (K − 1) / 2N, its bias to first order in 1/N (Miller 1955)."""
    correction = (int(keys.sum()) - 1) / (2 * samples)
    return _entropy(keys, multiplicity / samples) + correction / NATS_PER_BIT


@estimator
def jackknife(multiplicity: Counts, keys: Counts, samples: int) -> float:
    """N·H − (N − 1)·mean of the plug-in entropies without one sample each (Quenouille 1956; Zahl 1977)."""
    from scipy.special import xlogy

    if samples == 1:
        return 0.0
    n = multiplicity.astype(np.float64)
    whole = math.fsum((keys * xlogy(n, n)).tolist())
    without = math.log(samples - 1) - (whole - xlogy(n, n) + xlogy(n - 1, n - 1)) / (samples - 1)
    left_out = math.fsum((keys * n * without).tolist())
    return (samples * math.log(samples) - whole - (samples - 1) / samples * left_out) / NATS_PER_BIT


@estimator
def grassberger(multiplicity: Counts, keys: Counts, samples: int) -> float:
    """Entropy ln N − Σ p·G(n), G(n) = ψ(n) + ½(−1)ⁿ(ψ((n + 1)/2) − ψ(n/2)) (Grassberger 2003)."""
    from scipy.special import psi

    n = multiplicity.astype(np.float64)
    sign = np.where(multiplicity % 2, -0.5, 0.5)
    g = psi(n) + sign * (psi((n + 1) / 2) - psi(n / 2))
    return _sum(keys, n / samples * (math.log(samples) - g))


@estimator
def zhang(multiplicity: Counts, keys: Counts, samples: int) -> float:
    """Σ p·(ψ(N) − ψ(n)): Zhang 2012, in the closed form of Schürmann 2015 (arXiv:1503.05911)."""
    from scipy.special import psi

    return _sum(keys, multiplicity / samples * (psi(samples) - psi(multiplicity)))


@estimator
def bonachela(multiplicity: Counts, keys: Counts, samples: int) -> float:
    """Σ (n + 1)·(1/(n + 2) + … + 1/(N + 2)) / (N + 2): small samples (Bonachela, Hinrichsen, Muñoz 2008)."""
    from scipy.special import psi

    return _sum(keys, (multiplicity + 1) / (samples + 2) * (psi(samples + 3) - psi(multiplicity + 2)))


def coverage(multiplicity: Counts, keys: Counts, samples: int) -> float:
    """Probability of all keys that were seen, 1 − f₁/N (Good–Turing); 1/N where every key was seen once.

    >>> coverage(np.array([1, 3]), np.array([2, 1]), 5)
    0.6
    """
    return 1 - min(_seen(multiplicity, keys, 1), samples - 1) / samples


def chao_keys(multiplicity: Counts, keys: Counts, samples: int) -> float:
    """Keys there are, seen and unseen: K + (N − 1)/N·f₁²/2f₂, or f₁(f₁ − 1)/2 where f₂ is 0 (Chao 1984).

    >>> chao_keys(np.array([1, 2]), np.array([4, 2]), 8)
    9.5
    """
    once, twice = _seen(multiplicity, keys, 1), _seen(multiplicity, keys, 2)
    unseen = once**2 / (2 * twice) if twice else once * (once - 1) / 2
    return float(int(keys.sum()) + (samples - 1) / samples * unseen)


@estimator
def chao_shen(multiplicity: Counts, keys: Counts, samples: int) -> float:
    """−Σ q·ln q / (1 − (1 − q)ᴺ), q = C·p with the coverage C (Chao & Shen 2003)."""
    from scipy.special import entr

    q = coverage(multiplicity, keys, samples) * multiplicity / samples
    with np.errstate(divide="ignore"):  # ln 0 of a key that has all the probability
        seen = -np.expm1(samples * np.log1p(-q))
    return _sum(keys, entr(q) / seen)


@estimator
def chao_wang_jost(multiplicity: Counts, keys: Counts, samples: int) -> float:
    """Σ p·(ψ(N) − ψ(n)) + f₁/N·(1 − A)^(1 − N)·(−ln A − Σ_{r<N} (1 − A)^r / r) (Chao, Wang & Jost 2013).

    A = 2f₂ / ((N − 1)f₁ + 2f₂), or 2 / ((N − 1)(f₁ − 1) + 2) where f₂ is 0.
    """
    once, twice = _seen(multiplicity, keys, 1), _seen(multiplicity, keys, 2)
    seen = zhang(multiplicity, keys, samples)
    if not once or samples == 1:
        return seen
    pairs, others = (twice, once) if twice else (1, once - 1)
    a = 2 * pairs / ((samples - 1) * others + 2 * pairs)
    return seen + once / samples * _tail(a, samples) / NATS_PER_BIT


def _tail(a: float, samples: int) -> float:
    """Σ_{r≥N} z^(r − N + 1) / r for z = 1 − a: what −ln a − Σ_{r<N} zʳ/r is, without its cancellation.

    It is z·∫ e^(−Ns) / (1 − z·e^(−s)) ds over s > 0, here over ln(Ns).
    """
    from scipy.integrate import quad

    z = 1 - a

    def integrand(v: float) -> float:
        u = math.exp(v)
        return u * math.exp(-u) / (samples * (a - z * math.expm1(-u / samples)))

    low = min(0.0, math.log(samples * a)) - 40
    return z * float(quad(integrand, low, math.log(750), limit=500, epsabs=0, epsrel=1e-12)[0])


@estimator
def shrink(multiplicity: Counts, keys: Counts, samples: int) -> float:
    """Plug-in of λ/K + (1 − λ)p, λ = (1 − Σp²) / ((N − 1)·Σ(1/K − p)²) within 0 … 1 (Hausser & Strimmer 2009)."""
    p: Floats = multiplicity / samples
    target = 1 / int(keys.sum())
    distance = (samples - 1) * math.fsum((keys * (target - p) ** 2).tolist())
    spread = 1 - math.fsum((keys * p**2).tolist())
    weight = 1.0 if distance == 0 else min(1.0, max(0.0, spread / distance))
    return _entropy(keys, weight * target + (1 - weight) * p)


def _with_prior(alpha: Callable[[int, int], float]) -> Estimator:
    """Plug-in of (n + α) / (N + Kα), a Dirichlet prior whose α hangs on N and K."""

    def entropy(multiplicity: Counts, keys: Counts, samples: int) -> float:
        distinct = int(keys.sum())
        pseudo = alpha(samples, distinct)
        return _entropy(keys, (multiplicity + pseudo) / (samples + distinct * pseudo))

    return entropy


@family("bayes")
def bayes(alpha: float) -> Estimator:
    """Plug-in of (n + α) / (N + Kα): the posterior mean of p under a symmetric Dirichlet prior on the K keys seen.

    >>> one = bayes(1.0)(np.array([1, 3]), np.array([1, 1]), 4)  # p is ⅓ and ⅔
    >>> math.isclose(one, math.log2(3) - 2 / 3)
    True
    """
    return _with_prior(lambda _samples, _distinct: alpha)


@estimator
def jeffreys(multiplicity: Counts, keys: Counts, samples: int) -> float:
    """`bayes` with α = ½ (Jeffreys 1946; Krichevsky & Trofimov 1981)."""
    return _with_prior(lambda _samples, _distinct: 0.5)(multiplicity, keys, samples)


@estimator
def laplace(multiplicity: Counts, keys: Counts, samples: int) -> float:
    """`bayes` with α = 1 (Bayes and Laplace)."""
    return _with_prior(lambda _samples, _distinct: 1.0)(multiplicity, keys, samples)


@estimator
def perks(multiplicity: Counts, keys: Counts, samples: int) -> float:
    """`bayes` with α = 1/K (Perks 1947)."""
    return _with_prior(lambda _samples, distinct: 1 / distinct)(multiplicity, keys, samples)


@estimator
def minimax(multiplicity: Counts, keys: Counts, samples: int) -> float:
    """`bayes` with α = √N/K (Trybula 1958)."""
    return _with_prior(lambda samples, distinct: math.sqrt(samples) / distinct)(multiplicity, keys, samples)


@estimator
def ansb(_multiplicity: Counts, keys: Counts, samples: int) -> float:
    """γ − ln 2 + 2·ln N − ψ(Δ), Δ = N − K coincidences: NSB far below saturation; NaN where Δ is 0.

    For Dirichlet priors whose keys are without end (Nemenman 2011); of equal keys it tells γ nats too much.
    """
    from scipy.special import psi

    coincidences = samples - int(keys.sum())
    if coincidences == 0:
        return math.nan
    return float(np.euler_gamma - math.log(2) + 2 * math.log(samples) - psi(coincidences)) / NATS_PER_BIT


@estimator
def nsb(multiplicity: Counts, keys: Counts, samples: int) -> float:
    """`nsb_among` as many keys as Chao expects there are, seen and unseen (`chao_keys`)."""
    return nsb_among(chao_keys(multiplicity, keys, samples))(multiplicity, keys, samples)


@family("nsb")
def nsb_among(possible: float) -> Estimator:
    """Posterior mean under Dirichlet priors mixed so that the prior of H is almost flat; K keys are possible.

    ∫ E[H | n, β]·L(β)·ξ'(β) dβ / ∫ L(β)·ξ'(β) dβ, with L(β) = Γ(Kβ)/Γ(N + Kβ)·Π Γ(n + β)/Γ(β),
    ξ(β) = ψ(Kβ + 1) − ψ(β + 1) and E[H | n, β] = ψ(N + Kβ + 1) − Σ (n + β)/(N + Kβ)·ψ(n + β + 1)
    (Nemenman, Shafee & Bialek 2002). Where more keys were seen than ``possible``, K is those.
    """

    def entropy(multiplicity: Counts, keys: Counts, samples: int) -> float:
        found = Posterior(multiplicity, keys, samples, max(possible, float(keys.sum())))
        return found.mean() / NATS_PER_BIT

    return entropy


@estimator
def good_turing(multiplicity: Counts, keys: Counts, samples: int) -> float:
    """Plug-in of smoothed frequencies, f₁/N being shared by the keys that Chao expects unseen (Gale & Sampson 1995).

    A key seen n times counts as r*(n) times: (n + 1)f₍ₙ₊₁₎/fₙ while that differs significantly from the line, then
    n·(1 + 1/n)^(b + 1), b being the slope of ln Zₙ over ln n (`_smoothed`).
    """
    seen = coverage(multiplicity, keys, samples)
    smoothed = _smoothed(multiplicity, keys)
    p = seen * smoothed / math.fsum((keys * smoothed).tolist())
    if seen == 1:
        return _entropy(keys, p)
    unseen = max(1.0, chao_keys(multiplicity, keys, samples) - int(keys.sum()))
    return _entropy(keys, p) + (1 - seen) * math.log(unseen / (1 - seen)) / NATS_PER_BIT


def _smoothed(multiplicity: Counts, keys: Counts) -> Floats:
    """r*(n) of each multiplicity, the proportions of Good and Turing made smooth."""
    order = np.argsort(multiplicity)
    n, f = multiplicity[order].astype(np.float64), keys[order].astype(np.float64)
    if len(n) == 1:
        return n
    following = np.r_[n[1:], 2 * n[-1] - n[-2]]
    z = 2 * f / (following - np.r_[0.0, n[:-1]])
    slope = float(np.polynomial.Polynomial.fit(np.log(n), np.log(z), 1).convert().coef[1])
    line = n * (1 + 1 / n) ** (slope + 1)
    next_keys = np.where(following == n + 1, np.r_[f[1:], 0.0], 0.0)
    turing = (n + 1) * next_keys / f
    deviation = (n + 1) / f * np.sqrt(next_keys * (1 + next_keys / f))
    lined = np.maximum.accumulate((next_keys == 0) | (np.abs(turing - line) <= SIGNIFICANT * deviation))
    smoothed = np.empty_like(n)
    smoothed[order] = np.where(lined, line, turing)
    return smoothed
