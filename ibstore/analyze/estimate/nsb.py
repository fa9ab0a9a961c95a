"""The posterior of Nemenman, Shafee and Bialek over the concentration β of a Dirichlet prior."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from ibstore.analyze.estimate.entropy import Counts

Floats = NDArray[np.float64]

FAR: Final = 60.0
"""|ln β| and |ln Kβ| up to which the posterior's top is looked for."""

STEP: Final = 0.25
"""Of that first look, in ln β."""

DROP: Final = 45.0
"""Where ln of the posterior is so far below its top, nothing of it is left in a float64."""

POINTS: Final = 400
"""Of the trapezoid rule, which converges geometrically on a smooth peak."""

FINEST: Final = 0.1
"""Distance of two points where the peak is wide: many possible keys that all differ leave ln K of it."""

BLOCK: Final = 1 << 20
"""Numbers made at a time."""


@dataclass(frozen=True)
class Posterior:
    """Over v = ln β, for ``keys`` seen ``multiplicity`` times, N samples and ``possible`` keys; in nats."""

    multiplicity: Counts
    keys: Counts
    samples: int
    possible: float

    def mean(self) -> float:
        """E[H | n]."""
        if self.possible == 1:
            return 0.0
        v = self._support()
        weight = np.exp(self.log_density(v) - self.log_density(v).max())
        return float((weight @ self.entropy(v)) / weight.sum())

    def _support(self) -> Floats:
        """Equally spaced v over what matters."""
        from scipy.optimize import minimize_scalar

        grid = np.arange(-FAR - max(0.0, math.log(self.possible)), FAR, STEP)
        coarse = self.log_density(grid)
        top = int(coarse.argmax())
        around = grid[max(top - 1, 0)], grid[min(top + 1, len(grid) - 1)]
        found = minimize_scalar(lambda v: -self._at(v), bounds=around, method="bounded", options={"xatol": 1e-3})
        peak, floor = float(found.x), max(-float(found.fun), float(coarse[top])) - DROP
        low, high = self._below(peak, floor, -1), self._below(peak, floor, 1)
        return np.linspace(low, high, max(POINTS, math.ceil((high - low) / FINEST)))

    def _at(self, v: float) -> float:
        return float(self.log_density(np.array([v]))[0])

    def _below(self, peak: float, floor: float, direction: int) -> float:
        """Where the density has fallen to ``floor`` on one side of its peak, or just beyond."""
        step = 1e-3
        while self._at(peak + direction * step) > floor and step < FAR + math.log(self.possible):
            step *= 1.5
        return peak + direction * step

    def log_density(self, v: Floats) -> Floats:
        """ln(L(β)·ξ'(β)·β) up to a constant; gamma functions' ratios through beta functions, which lose no digits."""
        from scipy.special import betaln, gammaln, polygamma

        beta, many = np.exp(v), self.possible * np.exp(v)
        likelihood = betaln(self.samples, many) + self._over_keys(
            beta,
            lambda n, b: gammaln(n) - betaln(n, b),  # ln Γ(n + β)/Γ(β)
        )
        prior = self.possible * polygamma(1, many + 1) - polygamma(1, beta + 1)
        return np.asarray(likelihood + np.log(np.maximum(prior, np.finfo(float).tiny)) + v)

    def entropy(self, v: Floats) -> Floats:
        """E[H | n, β]."""
        from scipy.special import psi

        beta, total = np.exp(v), self.samples + self.possible * np.exp(v)
        unseen = self.possible - int(self.keys.sum())
        seen = self._over_keys(beta, lambda n, b: (n + b) * psi(n + b + 1))
        return np.asarray(psi(total + 1) - (seen + unseen * beta * psi(beta + 1)) / total)

    def _over_keys(self, beta: Floats, function: Callable[[Floats, Floats], Floats]) -> Floats:
        """Σ over the distinct keys of ``function(n, β)``, for each β."""
        n, keys = self.multiplicity[:, None].astype(np.float64), self.keys.astype(np.float64)
        size = max(1, math.floor(BLOCK / len(keys)))
        return np.concatenate([keys @ function(n, beta[at : at + size]) for at in range(0, len(beta), size)])
