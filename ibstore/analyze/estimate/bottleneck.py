"""The information bottleneck's limits in the plane of I(X;T) and I(T;Y), in bits.

For a discrete p(x, y) the *curve* is the most I(T;Y) that any T made of X can have with so much I(X;T) (Tishby, Pereira
& Bialek 1999). Its points are minima of L = I(X;T) − β·I(T;Y), which satisfy the self-consistent equations

    p(t|x) ∝ p(t)·exp(−β·KL[p(y|x) ‖ p(y|t)]),   p(t) = Σ p(x)·p(t|x),   p(y|t) = Σ p(y|x)·p(x|t)

Iterated, they are the EM algorithm of a mixture whose components are the clusters t: over p(t) alone the problem is
convex, and over both it has poor minima where there are too few clusters. So β is lowered from its largest value, with
as many clusters as there are distinct p(y|x) (*reverse annealing*): clusters become superfluous and are joined, never
missed. Annealing upwards has to notice each bifurcation and to split there, and sees no jump between two minima.
"""

from dataclasses import dataclass
from typing import Final, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ibstore.analyze.estimate.entropy import NATS_PER_BIT
from ibstore.errors import UsageError, ValuesError

Floats = NDArray[np.float64]

SAME: Final = 2.0**-40
"""Probabilities so near are equal up to rounding."""

NEAR: Final = 0.01
"""Clusters go on as one where β·KL between them, in nats, is no more: far below what tells the optimal ones apart."""

CLUSTERS: Final = 1024
"""As many there are at most; of more distinct p(y|x) the nearest start as one."""

CONVERGED: Final = 1e-9
"""An iteration that gains less, of I(T;Y) as a share of I(X;Y), is the last of its β."""

ITERATIONS: Final = 1000
"""For one β at most, near a bifurcation; where they end is a T all the same, if not the best one."""

NOTHING: Final = 1e-12
"""A probability, or a share of I(X;Y), that is rounding."""

POINTS: Final = 257
"""Of a finite-sample curve, beside the vertices of the curve below which it lies."""

TINY: Final = 1e-300
"""In place of a probability of 0 under a logarithm."""


@dataclass(frozen=True)
class Curve:
    """Vertices of the IB curve, a concave polygon from (0, 0) to (H(X), I(X;Y)), growing in both.

    Every vertex is a T that there is, so the polygon is never above the true curve; between vertices it is below it.
    X counts as its classes of equal p(y|x), the minimal sufficient statistic of Y.
    """

    i_xt: Floats
    """I(X;T) in bits."""
    i_ty: Floats
    """I(T;Y) in bits."""
    beta: Floats
    """A β of which the vertex is the optimum; 1/β is a slope of the polygon there. 0 at the origin."""

    @property
    def functional(self) -> Floats:
        """L = I(X;T) − β·I(T;Y) of each vertex, in bits."""
        return self.i_xt - self.beta * self.i_ty

    def at(self, i_xt: ArrayLike) -> Floats:
        """The most I(T;Y) that so much I(X;T) can have."""
        return np.asarray(np.interp(np.asarray(i_xt, np.float64), self.i_xt, self.i_ty))

    def needed(self, i_ty: ArrayLike) -> Floats:
        """The least I(X;T) that so much I(T;Y) needs; infinite above I(X;Y)."""
        asked = np.asarray(i_ty, np.float64)
        beyond = asked > self.i_ty[-1] * (1 + CONVERGED)
        return np.where(beyond, np.inf, np.interp(asked, self.i_ty, self.i_xt))


@dataclass(frozen=True)
class FiniteSample:
    """What a sample of N promises of the true I(T;Y), for the I(X;T) of each point; see `finite_sample`."""

    i_xt: Floats
    """I(X;T) in bits."""
    i_ty: Floats
    """I(T;Y) in bits; below 0 nothing is promised."""
    complexity: float
    """R*(N): the I(X;T) for which the promise is largest."""
    guaranteed: float
    """That promise, I(X;Y) − D*(N)."""


@dataclass(frozen=True)
class Gaps:
    """How far layers are from what is possible, in bits; see `gaps`."""

    complexity: Floats
    """ΔC = I(X;T) − R*(N); below 0 the layer is simpler than the best promise allows."""
    generalization: Floats
    """ΔG = D − D*(N), D = I(X;Y|T); below 0 the layer has more than is promised."""
    excess: Floats
    """I(X;T) beyond what the curve needs for the layer's I(T;Y); −∞ where that is above I(X;Y)."""
    missed: Floats
    """I(T;Y) that the layer's I(X;T) could have on the curve, and has not."""


@dataclass(frozen=True)
class Sweep:
    """The functional of points of the plane for several β; see `functional`."""

    beta: Floats
    value: Floats
    """L, (beta, point), in bits."""
    best: NDArray[np.int64]
    """The point of the least L, for each β."""


def curve(p_xy: ArrayLike, betas: ArrayLike | None = None) -> Curve:
    """The IB curve of a joint distribution: the upper concave hull of the optima found, with both ends.

    Where p(y|x) is 0 or 1, L has no optima but (0, 0) and (H(Y), H(Y)) (Kolchinsky, Tracey & Van Kuyk 2019). After
    merging they are the ends of the curve, and the line I(T;Y) = I(X;T) between them is all of it, whatever the β.

    Parameters
    ----------
    p_xy
        (x, y): probabilities or counts; they are divided by their sum.
    betas
        Those β, in any order; by default `default_betas`.

    Raises
    ------
    ValuesError
        When ``p_xy`` is no distribution of two variables.
    UsageError
        When a β is not a finite number above 0.

    Examples
    --------
    >>> both = curve([[0.4, 0.1], [0.1, 0.4]])
    >>> [float(end.round(3)) for end in (both.i_xt[-1], both.i_ty[-1], both.at(0.5), both.needed(0.2))]
    [1.0, 0.278, 0.164, 0.63]
    """
    source = _merged(p_xy)
    sweep = np.unique(_checked(default_betas(p_xy) if betas is None else betas))
    i_xy = float(source.weight @ _divergence(source)) / NATS_PER_BIT
    if i_xy <= NOTHING:
        return Curve(np.zeros(1), np.zeros(1), np.zeros(1))
    h_x = -float(source.weight @ np.log(source.weight)) / NATS_PER_BIT
    line = i_xy >= h_x * (1 - NOTHING)
    return _hull(np.empty((0, 3)) if line else _annealed(source, sweep[::-1], i_xy), h_x, i_xy)


def default_betas(p_xy: ArrayLike, count: int = 60) -> Floats:
    """β whose excess over 1 grows by a constant factor: from below the first bifurcation to 1,000 times it.

    That is at 1/ρ² at the latest, ρ being the maximal correlation of X and Y (the second singular value of
    p(x, y)/√p(x)p(y)), and at ln(1/p(x)) / KL[p(y|x) ‖ p(y)] of any x.

    >>> default_betas([[0.4, 0.1], [0.1, 0.4]], 4).round(2).tolist()
    [1.18, 5.44, 112.11, 2778.78]
    """
    if count < 1:
        raise UsageError(f"{count} values of β are asked for; at least 1 is needed")
    of_x, rows = source = _merged(p_xy)
    if len(of_x) == 1:
        return np.geomspace(1, 1000, count)
    whitened = np.sqrt(of_x)[:, None] * rows / np.sqrt(of_x @ rows)
    correlation = np.linalg.svd(whitened, compute_uv=False)[1]
    slope = max(correlation**2, float((_divergence(source) / -np.log(of_x)).max()), NOTHING)
    excess = max(1 / slope - 1, 0.01)
    return np.asarray(1 + np.geomspace(0.1 * excess, 1000 * (1 + excess), count))


def finite_sample(curve: Curve, samples: int, classes: int) -> FiniteSample:
    """The curve less K·|Y|/√N, K = 2^I(X;T): the worst case of the true I(T;Y) after a sample of N.

    From I(T;Y) ≤ Î(T;Y) + O(K·|Y|/√N) and I(X;T) ≤ Î(X;T) + O(K/√N), K = |T| (Shamir, Sabato & Tishby 2010), used as
    by Tishby & Zaslavsky (2015, figure 2): K ≈ 2^I(X;T), the curve is the sample's, and I(X;T) is taken as it is. The
    constants are taken to be 1, and bits are not told from nats: like its sources, this tells orders of magnitude.

    Raises
    ------
    UsageError
        When there is no sample or no class.

    Examples
    --------
    >>> deterministic = curve([[1, 0], [0, 1]])
    >>> promise = finite_sample(deterministic, samples=10_000, classes=2)
    >>> round(promise.complexity, 3), round(promise.guaranteed, 3)
    (1.0, 0.96)
    """
    if samples < 1 or classes < 1:
        raise UsageError(f"a finite-sample curve of {samples} samples and {classes} classes; give at least 1 of each")
    per_cluster = classes / np.sqrt(samples)
    slopes = np.diff(curve.i_ty) / np.diff(curve.i_xt)
    turning = np.clip(np.log2(slopes / (per_cluster * NATS_PER_BIT)), curve.i_xt[:-1], curve.i_xt[1:])
    i_xt = np.unique(np.concatenate([curve.i_xt, turning, np.linspace(0, curve.i_xt[-1], POINTS)]))
    i_ty = curve.at(i_xt) - per_cluster * np.exp2(i_xt)
    top = int(i_ty.argmax())
    return FiniteSample(i_xt, i_ty, float(i_xt[top]), float(i_ty[top]))


def gaps(curve: Curve, finite: FiniteSample, i_xt: ArrayLike, i_ty: ArrayLike) -> Gaps:
    """Complexity gap and generalization gap of layers (Tishby & Zaslavsky 2015, III-B), and their way to the curve.

    With R = I(X;T), D = I(X;Y|T) = I(X;Y) − I(T;Y), and (R*(N), D*(N)) where the worst case of a sample of N is best:
    ΔC = R − R*(N), "unnecessary complexity", and ΔG = D − D*(N), what was not captured although it could have been.
    D*(N) is read on the worst-case curve, so ΔG = ``finite.guaranteed`` − I(T;Y). ``excess`` and ``missed`` are the
    horizontal and the vertical distance to the curve itself, whatever N is.

    >>> line = curve([[1, 0], [0, 1]])
    >>> layer = gaps(line, finite_sample(line, 10_000, 2), i_xt=3.0, i_ty=0.75)
    >>> [float(gap.round(2)) for gap in (layer.complexity, layer.generalization, layer.excess, layer.missed)]
    [2.0, 0.21, 2.25, 0.25]
    """
    x, y = np.asarray(i_xt, np.float64), np.asarray(i_ty, np.float64)
    return Gaps(
        complexity=np.asarray(x - finite.complexity),
        generalization=np.asarray(finite.guaranteed - y),
        excess=np.asarray(x - curve.needed(y)),
        missed=np.asarray(curve.at(x) - y),
    )


def functional(i_xt: ArrayLike, i_ty: ArrayLike, betas: ArrayLike) -> Sweep:
    """L = I(X;T) − β·I(T;Y) of points of the plane, (point,), for each β, and the point that has the least.

    Of equal points the first is the best; points that have a NaN never are.

    Raises
    ------
    ValuesError
        When there is no point without NaN, or the coordinates do not pair.
    UsageError
        When a β is not a finite number above 0.

    Examples
    --------
    >>> functional([1.0, 3.0, 6.0], [0.5, 0.9, 1.0], betas=[2, 8, 50]).best.tolist()
    [0, 1, 2]
    """
    x, y, beta = np.asarray(i_xt, np.float64), np.asarray(i_ty, np.float64), _checked(betas)
    if x.ndim != 1 or x.shape != y.shape:
        raise ValuesError(f"I(X;T) has the shape {x.shape}, I(T;Y) {y.shape}; give one number of each for every point")
    value = x - beta[:, None] * y
    if not np.isfinite(value).any(axis=1).all():
        raise ValuesError("no point of the plane has both I(X;T) and I(T;Y); leave out estimators that have none")
    return Sweep(beta, value, np.where(np.isnan(value), np.inf, value).argmin(axis=1))


class _Parts(NamedTuple):
    """p(x) and p(y|x), or p(t) and p(y|t): (part,) and (part, y)."""

    weight: Floats
    rows: Floats


def _checked(betas: ArrayLike) -> Floats:
    beta = np.asarray(betas, np.float64)
    if beta.ndim != 1 or not beta.size or not (np.isfinite(beta) & (beta > 0)).all():
        raise UsageError(f"β is {beta.tolist()}; give a list of finite numbers above 0")
    return beta


def _merged(p_xy: ArrayLike) -> _Parts:
    """The classes of equal p(y|x); what has no probability is left out."""
    joint = np.asarray(p_xy, np.float64)
    if joint.ndim != 2:  # noqa: PLR2004
        raise ValuesError(f"p(x, y) has the shape {joint.shape}; give a matrix, (x, y)")
    if not (np.isfinite(joint) & (joint >= 0)).all() or not joint.any():
        raise ValuesError("p(x, y) is negative or not finite somewhere, or 0 everywhere; give counts or probabilities")
    joint = joint[joint.any(axis=1)][:, joint.any(axis=0)] / joint.max()
    of_x = joint.sum(axis=1)
    rows = joint / of_x[:, None]
    _, first, inverse = np.unique(np.rint(rows / SAME), axis=0, return_index=True, return_inverse=True)
    return _Parts(np.bincount(inverse.ravel(), of_x) / of_x.sum(), rows[first])


def _divergence(source: _Parts) -> Floats:
    """KL[p(y|x) ‖ p(y)] in nats, (x,)."""
    from scipy.special import rel_entr

    return np.asarray(rel_entr(source.rows, source.weight @ source.rows).sum(axis=1))


def _annealed(source: _Parts, betas: Floats, i_xy: float) -> Floats:
    """Optima for falling β, (point, 3): I(X;T), I(T;Y), β. When one cluster is left, only (0, 0) follows."""
    clusters = _Parts(*source)
    points = []
    for beta in betas.tolist():
        clusters = _settled(source, _joined(clusters, beta), beta, CONVERGED * beta * i_xy)
        if len(clusters.weight) == 1:
            break
        points.append((*_point(source, clusters, beta), beta))
    return np.array(points).reshape(-1, 3)


def _joined(clusters: _Parts, beta: float) -> _Parts:
    """Each cluster, from the heaviest on, with those near it: `CLUSTERS` at most, however far that is.

    They take on a share of p(y), as near: of a p(t|x) of 0 the iteration makes 0 again, be it the best or not.
    """
    near = NEAR / beta
    while (joined := _leaders(clusters, near)) is None:
        near *= 2
    blur = min(NEAR / beta, 0.5)
    return _Parts(joined.weight, (1 - blur) * joined.rows + blur * (joined.weight @ joined.rows))


def _leaders(clusters: _Parts, radius: float) -> _Parts | None:
    """Clusters joined within ``radius`` nats, or None where they would be too many."""
    from scipy.special import xlogy

    weight, rows = clusters
    negative_entropy = xlogy(rows, rows).sum(axis=1)
    free = np.ones(len(weight), np.bool_)
    joined: list[Floats] = []
    for leader in np.argsort(-weight, kind="stable").tolist():
        if not free[leader]:
            continue
        if len(joined) == CLUSTERS:
            return None
        divergence = negative_entropy - rows @ np.log(np.maximum(rows[leader], TINY))
        group = free & (divergence <= radius)
        group[leader] = True
        free &= ~group
        joined.append(weight[group] @ rows[group])
    joint = np.array(joined)
    return _Parts(joint.sum(axis=1), joint / joint.sum(axis=1, keepdims=True))


def _settled(source: _Parts, clusters: _Parts, beta: float, tolerance: float) -> _Parts:
    """The self-consistent equations iterated until L, in nats, falls by less than ``tolerance``."""
    before = np.inf
    for _ in range(ITERATIONS):
        assigned, functional = _assigned(source, clusters, beta)
        clusters = _updated(source, assigned)
        if before - functional < tolerance:
            break
        before = functional
    return clusters


def _assigned(source: _Parts, clusters: _Parts, beta: float) -> tuple[Floats, float]:
    """p(t|x), (x, t), and −Σ p(x) ln Σ p(t) exp(−β·KL), which is L + β·I(X;Y) in nats."""
    from scipy.special import xlogy

    negative_entropy = xlogy(source.rows, source.rows).sum(axis=1, keepdims=True)
    log = beta * (source.rows @ np.log(np.maximum(clusters.rows, TINY)).T - negative_entropy) + np.log(clusters.weight)
    top = log.max(axis=1, keepdims=True)
    assigned = np.exp(np.subtract(log, top, out=log), out=log)
    whole = assigned.sum(axis=1, keepdims=True)
    assigned /= whole
    return assigned, -float(source.weight @ (np.log(whole) + top)[:, 0])


def _updated(source: _Parts, assigned: Floats) -> _Parts:
    """p(t) and p(y|t) of p(t|x); empty clusters are dropped."""
    of_x, rows = source
    weight = of_x @ assigned
    kept = weight > NOTHING
    joint = (assigned.T @ (of_x[:, None] * rows))[kept]
    return _Parts(weight[kept] / weight[kept].sum(), joint / joint.sum(axis=1, keepdims=True))


def _point(source: _Parts, clusters: _Parts, beta: float) -> tuple[float, float]:
    """I(X;T) and I(T;Y) in bits, of the p(t|x) that the clusters give."""
    from scipy.special import rel_entr

    assigned, _ = _assigned(source, clusters, beta)
    of_t = source.weight @ assigned
    made = _updated(source, assigned)
    i_xt = source.weight @ rel_entr(assigned, of_t).sum(axis=1)
    i_ty = made.weight @ rel_entr(made.rows, source.weight @ source.rows).sum(axis=1)
    return float(i_xt) / NATS_PER_BIT, float(i_ty) / NATS_PER_BIT


def _hull(inner: Floats, h_x: float, i_xy: float) -> Curve:
    """Upper concave hull of (0, 0), points (I(X;T), I(T;Y), β) and (H(X), I(X;Y))."""
    inner = inner[(inner[:, 0] > 0) & (inner[:, 0] < h_x) & (inner[:, 1] < i_xy * (1 - NOTHING))]
    kept = [np.zeros(3)]
    for point in [*inner[np.lexsort((inner[:, 2], inner[:, 0]))], np.array([h_x, i_xy, np.inf])]:
        while len(kept) > 1 and not _bulges(kept[-2], kept[-1], point, NOTHING * i_xy):
            kept.pop()
        kept.append(point)
    i_xt, i_ty, beta = np.array(kept).T
    inverse_slopes = np.diff(i_xt) / np.diff(i_ty)
    beta[1:] = np.clip(beta[1:], inverse_slopes, np.r_[inverse_slopes[1:], inverse_slopes[-1]])
    return Curve(i_xt, i_ty, beta)


def _bulges(before: Floats, point: Floats, after: Floats, tolerance: float) -> bool:
    """Whether a point lies above the line between its neighbours."""
    (width, height), (far, rise) = point[:2] - before[:2], after[:2] - before[:2]
    return bool(height * far > rise * width + tolerance * far)
