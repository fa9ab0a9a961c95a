"""The IB curve against closed forms, a convex problem solved apart with its dual bound, and what must hold of it."""

import math
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy.optimize import brentq, minimize_scalar
from scipy.special import entr, rel_entr, xlogy

from ibstore.analyze.estimate import bottleneck
from ibstore.analyze.estimate.bottleneck import Curve, curve, default_betas, finite_sample, functional, gaps
from ibstore.errors import UsageError, ValuesError

BITS = 1 / math.log(2)
BETAS = 1 + np.geomspace(0.02, 300, 25)
WEIGHTS = st.integers(0, 20).map(float)


def joints(classes=(2, 4)):
    """Small joint distributions, as counts."""
    shapes = st.tuples(st.integers(1, 5), st.integers(*classes))
    return shapes.flatmap(lambda shape: arrays(np.float64, shape, elements=WEIGHTS)).filter(np.any)


def h(q):
    """Binary entropy."""
    return (entr(q) + entr(1 - q)) * BITS


def symmetric(delta):
    """A binary symmetric channel with a uniform input."""
    return np.array([[1 - delta, delta], [delta, 1 - delta]]) / 2


def noise_of(i_xt):
    """q of the noisy copy T of a uniform bit X with so much information: I(X;T) = 1 − h(q)."""
    return brentq(lambda q: 1 - h(q) - i_xt, 0, 0.5, xtol=1e-15)


def gerber(i_xt, delta):
    """The curve of the symmetric channel, 1 − h(q ⋆ δ) (Wyner & Ziv 1973; Witsenhausen & Wyner 1975)."""
    q = noise_of(i_xt)
    return 1 - h(q * (1 - delta) + (1 - q) * delta)


def information(joint):
    p = joint / joint.sum()
    return rel_entr(p, np.outer(p.sum(axis=1), p.sum(axis=0))).sum() * BITS


def entropy_of_classes(joint):
    """H of the inputs of equal p(y|x) taken as one; of counts, exactly."""
    weight = {}
    for row in joint[joint.any(axis=1)].astype(int).tolist():
        key = tuple(np.array(row) // math.gcd(*row))
        weight[key] = weight.get(key, 0) + sum(row)
    return entr(np.array(list(weight.values())) / joint.sum()).sum() * BITS


def partitions(items):
    """All ways to cluster a list."""
    if not items:
        yield []
        return
    first, *rest = items
    for smaller in partitions(rest):
        yield [[first], *smaller]
        for i, group in enumerate(smaller):
            yield [*smaller[:i], [first, *group], *smaller[i + 1 :]]


def deterministic(joint):
    """(H(T), I(T;Y)) of every T that is a function of X."""
    for groups in partitions(list(range(len(joint)))):
        clustered = np.array([joint[group].sum(axis=0) for group in groups])
        yield entr(clustered.sum(axis=1) / joint.sum()).sum() * BITS, information(clustered)


def convex(joint, beta, rounds=2500, grid=801):
    """Bounds of the least L = I(X;T) − β·I(T;Y) for two labels, in bits.

    With p(y|t) on a fine grid only p(t) is sought: a convex problem that the Blahut–Arimoto iteration solves. By
    convexity the optimum is lower by ln max D at most, D(u) = Σ p(x)·exp(−β·KL[p(y|x) ‖ u]) / Σ p(t)·exp(…) (Csiszár);
    between points of the grid, β·KL goes on by less than 3e-6·β.
    """
    joint = joint[joint.any(axis=1)] / joint.sum()
    p = joint.sum(axis=1)
    rows = joint / p[:, None]
    u = np.sin(np.linspace(1e-4, np.pi / 2 - 1e-4, grid)) ** 2
    divergence = xlogy(rows, rows).sum(axis=1)[:, None] - rows @ np.log(np.array([u, 1 - u]))
    kernel = np.exp(-beta * divergence)
    weight = np.full(grid, 1 / grid)
    for _ in range(rounds):
        whole = kernel @ weight
        gain = (p / whole) @ kernel
        weight *= gain
    constant = beta * information(joint)
    least = -(p @ np.log(whole)) * BITS - constant
    return least - math.log(gain.max()) * BITS, least


def least(found, betas):
    """L of the best vertex for each β."""
    return functional(found.i_xt, found.i_ty, betas).value.min(axis=1)


@pytest.mark.parametrize("delta", [0.01, 0.1, 0.25, 0.4, 0.499])
def test_a_symmetric_channel_is_mrs_gerber_s(delta):
    found = curve(symmetric(delta))
    whole = 1 - h(delta)
    assert len(found.beta) > 15
    assert found.i_ty == pytest.approx([gerber(r, delta) for r in found.i_xt], rel=1e-6, abs=1e-7 * whole)
    between = np.linspace(0, 1, 201)
    truth = np.array([gerber(r, delta) for r in between])
    assert (found.at(between) <= truth + 1e-9 * whole).all()
    assert found.at(between) == pytest.approx(truth, abs=0.01 * whole)


@pytest.mark.parametrize("delta", [0.05, 0.2])
def test_the_slope_of_the_curve_is_one_over_beta(delta):
    found = curve(symmetric(delta))
    inside = (found.i_xt > 0.05) & (found.i_xt < 0.999)
    q = np.array([noise_of(r) for r in found.i_xt[inside]])
    out = q * (1 - delta) + (1 - q) * delta
    slope = (1 - 2 * delta) * np.log((1 - out) / out) / np.log((1 - q) / q)
    assert inside.sum() > 5
    assert 1 / found.beta[inside] == pytest.approx(slope, rel=1e-3)


@pytest.mark.parametrize("erased", [0.1, 0.5, 0.9])
def test_an_erasure_channel_s_curve_is_a_line(erased):
    """I(T;Y) = (1 − e)·I(X;T) for every T."""
    joint = np.array([[1 - erased, 0, erased], [0, 1 - erased, erased]]) / 2
    found = curve(joint)
    r = np.linspace(0, 1, 11)
    assert found.at(r) == pytest.approx((1 - erased) * r, abs=1e-9)
    assert found.needed((1 - erased) * r) == pytest.approx(r, abs=1e-9)


@given(st.lists(st.integers(1, 9), min_size=2, max_size=6), st.data())
def test_deterministic_labels_have_a_line_and_a_corner(counts, data):
    """Every input has one label; the line goes to (H(Y), H(Y)), however many inputs there are."""
    labels = data.draw(st.lists(st.integers(0, 3), min_size=len(counts), max_size=len(counts)))
    joint = np.zeros((len(counts), 4))
    joint[np.arange(len(counts)), labels] = counts
    of_y = joint.sum(axis=0)
    h_y = entr(of_y / of_y.sum()).sum() * BITS
    for betas in (None, [0.5], [1.0, 2.0, 50.0]):
        found = curve(joint, betas)
        assert found.i_xt[-1] == pytest.approx(h_y, abs=1e-12)
        assert found.i_ty == pytest.approx(found.i_xt, abs=1e-12)
        assert len(found.beta) == (2 if h_y else 1)
        assert found.at([h_y / 3, 9.0]) == pytest.approx([h_y / 3, h_y], abs=1e-12)
        assert found.needed(h_y / 2) == pytest.approx(h_y / 2, abs=1e-12)


def test_labels_that_are_nearly_deterministic_have_nearly_a_line():
    """The bound of Fano says how near: I(T;Y) ≥ I(X;T) − h(ε) at the corner."""
    joint = symmetric(1e-4)
    found = curve(joint)
    assert found.at(0.5) == pytest.approx(gerber(0.5, 1e-4), abs=2e-4)
    assert 0 < 0.5 - found.at(0.5) < h(1e-4)
    assert found.needed(found.i_ty[-1]) == 1


@given(joints())
@settings(deadline=None, max_examples=60)
def test_what_must_hold_of_every_curve(joint):
    found = curve(joint, BETAS)
    i_xy = information(joint)
    assert (found.i_xt[0], found.i_ty[0], found.beta[0]) == (0, 0, 0)
    assert found.i_ty[-1] == pytest.approx(i_xy, abs=1e-12)
    assert found.i_xt[-1] == pytest.approx(entropy_of_classes(joint) if i_xy > 1e-12 else 0, abs=1e-9)
    assert (found.i_ty <= found.i_xt + 1e-12).all()
    assert (np.diff(found.i_xt) > 0).all()
    assert (np.diff(found.i_ty) > 0).all()
    assert (np.diff(found.beta) >= 0).all()
    slopes = np.diff(found.i_ty) / np.diff(found.i_xt)
    assert (np.diff(slopes) < 0).all()
    for before, after, beta in zip(slopes[:-1], slopes[1:], found.beta[1:-1], strict=True):
        assert after * (1 - 1e-12) <= 1 / beta <= before * (1 + 1e-12)


@given(joints())
@example(np.array([[0.0, 2.0, 1.0], [1.0, 2.0, 0.0], [0.0, 0.0, 1.0]]))  # p(t|x) = 0 hides a jump to fewer clusters
@settings(deadline=None, max_examples=60)
def test_no_function_of_the_input_is_better(joint):
    """For no β, so none lies above the curve."""
    points = np.array(list(deterministic(joint))).T
    best = functional(*points, BETAS).value.min(axis=1)
    assert (least(curve(joint, BETAS), BETAS) <= best + 1e-5 * BETAS).all()


@given(joints(classes=(2, 2)), st.sampled_from([1.1, 1.5, 2.5, 6.0, 40.0]))
@settings(deadline=None, max_examples=60)
def test_it_is_the_global_optimum_and_never_above(joint, beta):
    lower, upper = convex(joint, beta)
    assert upper - lower < 2e-3 * beta
    found = least(curve(joint, [beta]), [beta])[0]
    assert lower - 1e-5 * beta <= found <= upper + 1e-5 * beta


def noisy(inputs, classes=2, steep=6.0, seed=0):
    """Many inputs, each with its own p(y|x)."""
    random = np.random.default_rng(seed)
    odds = np.exp(steep * random.normal(size=(inputs, classes)))
    return odds / odds.sum(axis=1, keepdims=True) * random.random((inputs, 1))


@pytest.mark.parametrize("beta", [1.3, 3.0, 20.0, 150.0])
def test_it_is_the_global_optimum_of_many_inputs(beta):
    joint = noisy(150)
    lower, upper = convex(joint, beta, rounds=1500)
    found = least(curve(joint, [400.0, 90.0, 30.0, 8.0, beta]), [beta])[0]
    assert upper - lower < 1e-3 * beta
    assert lower - 1e-5 * beta <= found <= upper + 1e-5 * beta


def test_a_sweep_is_as_good_as_each_beta_alone():
    joint = noisy(12, classes=3, seed=3)
    betas = default_betas(joint, 20)
    together = least(curve(joint, betas), betas)
    alone = [least(curve(joint, [beta]), [beta])[0] for beta in betas]
    assert (together <= np.array(alone) + 1e-6 * betas).all()


@given(joints(), st.randoms())
@settings(deadline=None, max_examples=30)
def test_inputs_of_equal_distributions_are_one(joint, random):
    """A sufficient statistic: an input that is split into several changes nothing, nor does their order."""
    split = (
        np.concatenate([joint, 3 * joint, joint[:1] * 5]),
        np.concatenate([4 * joint[:1] + 5 * joint[:1], 4 * joint[1:]]),
    )
    order = random.sample(range(len(split[0])), len(split[0]))
    many, few = curve(split[0][order], BETAS[::4]), curve(split[1], BETAS[::4])
    r = np.linspace(0, 3, 13)
    assert many.i_xt[-1] == pytest.approx(few.i_xt[-1], abs=1e-9)
    assert many.at(r) == pytest.approx(few.at(r), abs=1e-5)


def test_probabilities_that_differ_by_rounding_are_equal():
    weights = np.random.default_rng(0).random(4096)
    label = np.random.default_rng(1).integers(3, size=4096)
    joint = weights[:, None] * np.array([[0.7, 0.3], [0.1, 0.9], [1 / 3, 2 / 3]])[label]
    found = curve(joint)
    of_t = np.bincount(label, weights) / weights.sum()
    assert found.i_xt[-1] == pytest.approx(entr(of_t).sum() * BITS, abs=1e-9)


def test_what_never_happens_is_nothing():
    joint = np.array([[3.0, 1.0], [1.0, 6.0]])
    padded = np.zeros((4, 4))
    padded[1:3, ::3] = joint
    for mine, other in zip(vars(curve(padded)).values(), vars(curve(joint)).values(), strict=True):
        assert mine.tolist() == other.tolist()


@pytest.mark.parametrize("scale", [1e-300, 1e-12, 1e300])
def test_the_scale_of_the_weights_does_not_matter(scale):
    joint = np.random.default_rng(2).integers(1, 9, size=(4, 3)).astype(float)
    r = np.linspace(0, 2, 9)
    assert curve(joint * scale).at(r) == pytest.approx(curve(joint).at(r), abs=1e-7)


@pytest.mark.parametrize("joint", [np.ones((4, 3)), [[5]], np.outer([1, 2, 4], [1, 3, 3.5]), [[1, 2, 0]], [[1], [2]]])
def test_independent_variables_have_a_point(joint):
    found = curve(joint)
    assert (found.i_xt.tolist(), found.i_ty.tolist(), found.beta.tolist()) == ([0], [0], [0])
    assert found.at([0.0, 2.0]).tolist() == [0, 0]
    assert found.needed([0.0, 0.1]).tolist() == [0, math.inf]
    assert found.functional.tolist() == [0]


def test_it_is_the_same_bits_again_in_whatever_order():
    joint = noisy(20, classes=3, seed=5)
    first, second = curve(joint, BETAS), curve(joint, np.r_[BETAS, BETAS[5:9]][::-1])
    for mine, other in zip(vars(first).values(), vars(second).values(), strict=True):
        assert mine.tolist() == other.tolist()


def test_too_many_distributions_start_as_fewer_clusters(monkeypatch):
    joint = noisy(200, steep=2.0)
    r = np.linspace(0, 2, 9)
    whole = curve(joint, BETAS)
    monkeypatch.setattr(bottleneck, "CLUSTERS", 25)
    assert curve(joint, BETAS).at(r) == pytest.approx(whole.at(r), abs=1e-4)
    monkeypatch.setattr(bottleneck, "CLUSTERS", 3)
    coarse = curve(joint, BETAS)
    assert (least(coarse, BETAS) >= least(whole, BETAS) - 1e-6 * BETAS).all()
    assert coarse.at(0.5) == pytest.approx(whole.at(0.5), abs=1e-3)
    assert coarse.at(2) < whole.at(2) - 0.01


def test_default_betas_begin_below_the_first_bifurcation_and_go_far():
    betas = default_betas(symmetric(0.2))
    assert len(betas) == 60
    assert betas[0] < 1 / 0.6**2 < 1000 < betas[-1]
    assert np.diff(np.log(betas - 1)) == pytest.approx(np.full(59, np.log(betas[1] - 1) - np.log(betas[0] - 1)))
    found = curve(symmetric(0.2))
    assert found.beta[1] == pytest.approx(1 / 0.6**2, rel=0.2)


def test_layers_are_read_off_between_vertices():
    polygon = Curve(np.array([0.0, 1.0, 3.0]), np.array([0.0, 0.5, 0.75]), np.array([0.0, 4.0, 8.0]))
    assert polygon.at([-1, 0, 0.5, 1, 2, 3, 7]).tolist() == [0, 0, 0.25, 0.5, 0.625, 0.75, 0.75]
    assert polygon.needed([-1, 0, 0.25, 0.5, 0.625, 0.75, 0.76]).tolist() == [0, 0, 0.5, 1, 2, 3, math.inf]
    assert float(polygon.needed(0.75 * (1 + 1e-15))) == 3
    assert polygon.at([[0.5], [2.0]]).shape == (2, 1)
    assert polygon.functional.tolist() == [0, -1, -3]


@given(joints(), st.integers(1, 10**7), st.integers(2, 20))
@settings(deadline=None, max_examples=60)
def test_a_finite_sample_costs_what_is_said(joint, samples, classes):
    found = curve(joint, BETAS[::4])
    finite = finite_sample(found, samples, classes)
    assert finite.i_ty == pytest.approx(found.at(finite.i_xt) - 2**finite.i_xt * classes / math.sqrt(samples), abs=1e-9)
    assert set(found.i_xt) <= set(finite.i_xt)
    at = finite.i_xt.tolist().index(finite.complexity)
    assert finite.i_ty[at] == finite.guaranteed == finite.i_ty.max()
    for low, high in pairwise(found.i_xt.tolist()):
        cost = minimize_scalar(
            lambda r: 2**r * classes / math.sqrt(samples) - float(found.at(r)),
            bounds=(low, high),
            method="bounded",
            options={"xatol": 1e-9},
        )
        assert finite.guaranteed >= -cost.fun - 1e-9


def test_more_samples_promise_more_for_more_complexity():
    found = curve(symmetric(0.1))
    finite = [finite_sample(found, samples, classes=2) for samples in (1, 10, 1000, 10_000, 10**9)]
    assert [each.guaranteed for each in finite] == sorted(each.guaranteed for each in finite)
    assert [each.complexity for each in finite] == sorted(each.complexity for each in finite)
    assert (finite[0].complexity, finite[0].guaranteed) == (0, -2)
    assert finite[-1].guaranteed == pytest.approx(1 - h(0.1), abs=1e-3)
    assert 0.1 < finite[1].complexity < 0.9


def test_a_finite_sample_of_a_line_has_its_turn_in_closed_form():
    """r − c·2^r is largest where c·ln 2·2^r = 1."""
    line = curve(np.eye(16))
    finite = finite_sample(line, samples=10_000, classes=16)
    r = -math.log2(16 / 100 * math.log(2))
    assert finite.complexity == pytest.approx(r)
    assert finite.guaranteed == pytest.approx(r - 16 / 100 * 2**r)


def test_gaps_are_those_of_the_paper():
    found = curve(symmetric(0.1))
    finite = finite_sample(found, 2000, classes=2)
    i_xt, i_ty = np.array([6.0, 0.8, 0.1]), np.array([0.45, 0.3, 0.02])
    layers = gaps(found, finite, i_xt, i_ty)
    distortion, best = information(symmetric(0.1)) - i_ty, information(symmetric(0.1)) - finite.guaranteed
    assert layers.generalization == pytest.approx(distortion - best)
    assert layers.complexity == pytest.approx(i_xt - finite.complexity)
    assert found.needed(i_ty) + layers.excess == pytest.approx(i_xt)
    assert found.at(i_xt) - layers.missed == pytest.approx(i_ty)
    assert (layers.excess > 0).all()
    assert (layers.missed > 0).all()


def test_what_is_on_the_curve_has_no_way_to_it():
    found = curve(symmetric(0.1))
    finite = finite_sample(found, 2000, classes=2)
    layers = gaps(found, finite, found.i_xt, found.i_ty)
    assert layers.excess == pytest.approx(np.zeros(len(found.beta)), abs=1e-12)
    assert layers.missed == pytest.approx(np.zeros(len(found.beta)), abs=1e-12)
    optimum = gaps(found, finite, finite.complexity, finite.guaranteed)
    assert (float(optimum.complexity), float(optimum.generalization)) == (0, 0)
    beyond = gaps(found, finite, 1.0, 0.9)
    assert float(beyond.excess) == -math.inf
    assert float(beyond.missed) < 0


def test_the_functional_of_points_and_the_best_of_each_beta():
    i_xt, i_ty = [0.0, 1.0, 4.0, 4.0], [0.0, 0.5, 0.9, 0.9]
    sweep = functional(i_xt, i_ty, betas=[1.5, 5.0, 20.0])
    assert sweep.beta.tolist() == [1.5, 5, 20]
    assert sweep.value == pytest.approx(np.array([[0, 0.25, 2.65, 2.65], [0, -1.5, -0.5, -0.5], [0, -9, -14, -14]]))
    assert sweep.best.tolist() == [0, 1, 2]


def test_points_without_an_estimate_are_never_best():
    sweep = functional([math.nan, 1.0, 2.0], [0.9, math.nan, 0.1], betas=[3.0])
    assert sweep.best.tolist() == [2]
    with pytest.raises(ValuesError, match=r"no point of the plane has both I\(X;T\) and I\(T;Y\)"):
        functional([math.nan, 1.0], [0.9, math.nan], betas=[3.0])


def test_each_vertex_is_the_best_of_its_beta():
    found = curve(noisy(8, classes=3, seed=8))
    sweep = functional(found.i_xt, found.i_ty, found.beta[1:])
    assert sweep.value.min(axis=1) == pytest.approx(found.functional[1:], abs=1e-9)


@pytest.mark.parametrize(
    "joint", [[[0.5, -0.1], [0.3, 0.3]], [[math.nan, 1.0]], [[math.inf, 1.0]], np.zeros((3, 2)), np.zeros((0, 2))]
)
def test_what_is_no_distribution_is_refused(joint):
    with pytest.raises(ValuesError, match="give counts or probabilities"):
        curve(joint)


@pytest.mark.parametrize("joint", [[0.5, 0.5], 1.0, np.ones((2, 2, 2))])
def test_what_is_no_matrix_is_refused(joint):
    with pytest.raises(ValuesError, match=r"give a matrix, \(x, y\)"):
        curve(joint)


@pytest.mark.parametrize("betas", [[], [0.0], [2.0, -1.0], [math.nan], [math.inf], [[1.0]], 3.0])
def test_what_is_no_beta_is_refused(betas):
    for asked in (lambda: curve(np.eye(2), betas), lambda: functional([1.0], [0.5], betas)):
        with pytest.raises(UsageError, match=r"β is .*; give a list of finite numbers above 0"):
            asked()


def test_what_else_cannot_be_meant_is_refused():
    with pytest.raises(UsageError, match="0 values of β are asked for; at least 1 is needed"):
        default_betas(np.eye(2), 0)
    with pytest.raises(UsageError, match="0 samples and 2 classes; give at least 1 of each"):
        finite_sample(curve(np.eye(2)), 0, 2)
    with pytest.raises(UsageError, match="10 samples and 0 classes"):
        finite_sample(curve(np.eye(2)), 10, 0)
    with pytest.raises(ValuesError, match=r"the shape \(2,\), I\(T;Y\) \(3,\)"):
        functional([1.0, 2.0], [1.0, 2.0, 3.0], [1.0])
