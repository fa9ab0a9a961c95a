"""Estimators against references that walk over the keys one by one, closed forms, and what must hold for all."""

import math
from collections import Counter

import mpmath
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.integrate import quad
from scipy.special import digamma, gammaln, polygamma

from ibstore.analyze.estimate import corrected
from ibstore.analyze.estimate.entropy import (
    ALIASES,
    ESTIMATORS,
    FAMILIES,
    CountsOfCounts,
    estimator_name,
    find_estimator,
)
from ibstore.errors import UnknownNameError, UsageError

HARMONIC = np.concatenate([[0.0], np.cumsum(1 / np.arange(1, 2000))])
NAMES = sorted(ESTIMATORS)
FOR_FEW_SAMPLES = {"ansb", "bonachela"}


def counted(counts):
    """Counts of counts of the keys' counts."""
    multiplicity, keys = np.unique(np.asarray(counts, np.int64), return_counts=True)
    return CountsOfCounts(multiplicity, keys)


def of_sample(sample):
    return counted(list(Counter(sample).values()))


def miller_madow(n):
    p = n / n.sum()
    return -(p * np.log(p)).sum() + (len(n) - 1) / (2 * n.sum())


def jackknife(n):
    total = n.sum()

    def plugin(counts):
        p = counts[counts > 0] / counts.sum()
        return -(p * np.log(p)).sum()

    without = [plugin(n - (np.arange(len(n)) == key)) for key in range(len(n)) for _ in range(n[key])]
    return total * plugin(n) - (total - 1) * np.mean(without)


def grassberger(n):
    def g(count):  # the recurrence of the paper: G(1) = −γ − ln 2, G(2) = 2 − γ − ln 2, G(2k + 1) = G(2k)
        return -np.euler_gamma - math.log(2) + sum(2 / (2 * k + 1) for k in range(count // 2))

    total = n.sum()
    return math.log(total) - sum(count * g(count) for count in n.tolist()) / total


def zhang(n):
    total = int(n.sum())
    entropy = 0.0
    for count in n.tolist():
        term = 1.0
        for v in range(1, total - count + 1):
            term *= 1 - (count - 1) / (total - v)
            entropy += count / total * term / v
    return entropy


def bonachela(n):
    total = int(n.sum())
    return sum((count + 1) * (HARMONIC[total + 2] - HARMONIC[count + 1]) for count in n.tolist()) / (total + 2)


def chao_shen(n):
    total, once = n.sum(), min((n == 1).sum(), n.sum() - 1)
    p = (1 - once / total) * n / total
    return sum(-q * math.log(q) / (1 - (1 - q) ** total) for q in p.tolist())


def chao_wang_jost(n):
    total = int(n.sum())
    once, twice = int((n == 1).sum()), int((n == 2).sum())
    entropy = sum(count / total * (HARMONIC[total - 1] - HARMONIC[count - 1]) for count in n.tolist())
    if once == 0 or total == 1:
        return entropy
    pairs, others = (twice, once) if twice else (1, once - 1)
    a = 2 * pairs / ((total - 1) * others + 2 * pairs)
    with mpmath.workdps(60):
        z = 1 - mpmath.mpf(a)
        series = sum(z**r / r for r in range(1, total))
        tail = z ** (1 - total) * (-mpmath.log(a) - series) if z else mpmath.mpf(0)
    return entropy + once / total * float(tail)


def shrink(n):
    p, k, total = n / n.sum(), len(n), n.sum()
    spread, distance = 1 - (p**2).sum(), (total - 1) * ((1 / k - p) ** 2).sum()
    weight = 1.0 if distance == 0 else min(1.0, max(0.0, spread / distance))
    q = weight / k + (1 - weight) * p
    return -(q * np.log(q)).sum()


def prior(alpha):
    def entropy(n):
        q = (n + alpha(n)) / (n.sum() + len(n) * alpha(n))
        return -(q * np.log(q)).sum()

    return entropy


REFERENCES = {
    "miller_madow": miller_madow,
    "jackknife": jackknife,
    "grassberger": grassberger,
    "zhang": zhang,
    "bonachela": bonachela,
    "chao_shen": chao_shen,
    "chao_wang_jost": chao_wang_jost,
    "shrink": shrink,
    "jeffreys": prior(lambda _: 0.5),
    "laplace": prior(lambda _: 1.0),
    "perks": prior(lambda n: 1 / len(n)),
    "minimax": prior(lambda n: math.sqrt(n.sum()) / len(n)),
    "bayes(0.25)": prior(lambda _: 0.25),
}


@pytest.mark.parametrize("name", REFERENCES)
@given(counts=st.lists(st.integers(1, 12), min_size=2, max_size=25))
@settings(deadline=None, max_examples=60)
def test_an_estimator_is_its_formula_key_by_key(name, counts):
    expected = REFERENCES[name](np.array(counts)) / math.log(2)
    assert counted(counts).entropy(name) == pytest.approx(expected, rel=1e-10, abs=1e-10)


def nsb_by_quadrature(counts, possible):
    """The two integrals of the paper as they are printed, over ln β."""
    n = np.r_[np.array(counts, float), np.zeros(possible - len(counts))]
    total = n.sum()

    def log_weight(v):
        b = math.exp(v)
        likelihood = gammaln(possible * b) - gammaln(total + possible * b) + (gammaln(n + b) - gammaln(b)).sum()
        slope = possible * polygamma(1, possible * b + 1) - polygamma(1, b + 1)
        return likelihood + math.log(slope) + v

    def mean(v):
        b = math.exp(v)
        share = (n + b) / (total + possible * b)
        return digamma(total + possible * b + 1) - (share * digamma(n + b + 1)).sum()

    top = max(log_weight(v) for v in np.linspace(-10, 8, 181))
    both = [
        quad(lambda v: f(v) * math.exp(log_weight(v) - top), -18, 16, limit=400, points=[-6, -3, 0, 3, 6])[0]  # noqa: B023
        for f in (mean, lambda _: 1.0)
    ]
    return both[0] / both[1] / math.log(2)


@pytest.mark.parametrize(
    ("counts", "possible"),
    [([1, 1, 1, 2, 5], 20), ([4, 6], 2), ([1, 2, 3, 4, 5, 6], 6), ([9, 1, 1, 1], 50), ([2, 2, 2, 1, 1, 1, 1, 1], 300)],
)
def test_nsb_is_the_posterior_mean_of_the_paper(counts, possible):
    expected = nsb_by_quadrature(counts, possible)
    assert counted(counts).entropy(f"nsb({possible})") == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("possible", ["1e30", "1e100", "1e150"])
def test_nsb_of_however_many_keys_is_that_of_very_many(possible):
    seen = counted([500, 300, 200])
    assert seen.entropy(f"nsb({possible})") == pytest.approx(1.488182080945402, rel=1e-9)


@pytest.mark.parametrize(
    ("samples", "possible", "expected"), [(2, 1e60, 100.6), (50, 1e100, 172.0), (400, 1e150, 258.1)]
)
def test_nsb_of_keys_that_all_differ_among_very_many(samples, possible, expected):
    assert counted([1] * samples).entropy(f"nsb({possible})") == pytest.approx(expected, abs=0.06)


def test_nsb_takes_as_many_keys_as_chao_expects():
    counts = counted([1, 1, 1, 1, 2, 2, 7])
    possible = corrected.chao_keys(counts.multiplicity, counts.keys, counts.samples)
    assert possible == pytest.approx(7 + 14 / 15 * 16 / 4)
    assert counts.entropy("nsb") == counts.entropy(f"nsb({possible})")
    assert counts.entropy("nsb(3)") == counts.entropy("nsb(7)")  # 7 were seen


PROSODY = """1 120 2 40 3 24 4 13 5 15 6 5 7 11 8 2 9 2 10 1 12 3 14 2 15 1 16 1 17 3 19 1 20 3 21 2 23 3 24 3 25 3 26 2
27 2 28 1 31 2 32 2 33 1 34 2 36 2 41 3 43 1 45 3 46 1 47 1 50 1 71 1 84 1 101 1 105 1 121 1 124 1 146 1 162 1 193 1
199 1 224 1 226 1 254 1 257 1 339 1 421 1 456 1 481 1 483 1 1140 1 1256 1 1322 1 1530 1 2131 1 2395 1 6925 1 7846 1"""


def test_good_turing_smooths_as_the_paper_prints():
    multiplicity, keys = np.array(PROSODY.split(), np.int64).reshape(-1, 2).T
    samples = int(multiplicity @ keys)
    assert samples == 30_902
    seen = corrected.coverage(multiplicity, keys, samples)
    assert 1 - seen == pytest.approx(0.003883, abs=1e-6)
    smoothed = corrected._smoothed(multiplicity, keys)
    counts = smoothed * seen * samples / (keys * smoothed).sum()
    assert counts[:4].round(4).tolist() == [0.7628, 1.7064, 2.6798, 3.6640]


HARMONIC_100 = HARMONIC[100]
KNOWN = {
    "uniform": (np.full(64, 1 / 64), 6.0),
    "Bernoulli": (np.array([0.3, 0.7]), -0.3 * math.log2(0.3) - 0.7 * math.log2(0.7)),
    "geometric": (np.array([2.0**-i for i in range(1, 8)] + [2.0**-7]), 2 - 2**-6),
    "Zipf": (
        1 / np.arange(1, 101) / HARMONIC_100,
        math.log2(HARMONIC_100) + sum(math.log2(k) / k for k in range(1, 101)) / HARMONIC_100,
    ),
}


@pytest.mark.parametrize("name", [name for name in NAMES if name not in FOR_FEW_SAMPLES])
@pytest.mark.parametrize("distribution", KNOWN)
def test_of_many_samples_every_estimator_finds_the_entropy(name, distribution):
    p, expected = KNOWN[distribution]
    found = counted(np.round(p * (1 << 24))).entropy(name)
    assert found == pytest.approx(expected, abs=5e-3 if name == "minimax" else 1e-4)


@pytest.mark.parametrize(
    ("name", "within"),
    [
        *(("jackknife", 0.12), ("grassberger", 0.12), ("chao_shen", 0.12), ("chao_wang_jost", 0.1), ("nsb", 0.1)),
        *(("good_turing", 0.1), ("zhang", 0.6), ("miller_madow", 0.6), ("nsb(1000)", 0.1)),
    ],
)
def test_a_thousand_samples_of_a_thousand_equal_keys(name, within):
    random = np.random.default_rng(5)
    mean = np.mean([of_sample(random.integers(1000, size=1000).tolist()).entropy(name) for _ in range(20)])
    assert abs(mean - math.log2(1000)) < within
    assert abs(mean - math.log2(1000)) <= math.log2(1000) - counted_plugin(random) + 1e-9


def counted_plugin(random):
    return np.mean([of_sample(random.integers(1000, size=1000).tolist()).entropy() for _ in range(20)])


def test_the_asymptotic_estimator_is_right_about_a_dirichlet_process():
    """Of concentration κ its entropy is ψ(κ + 1) + γ nats on average; 3,000 samples of it are drawn one by one."""
    random, estimates, kappa = np.random.default_rng(6), [], 100_000
    for _ in range(100):
        sample = []
        fresh = random.random(3000) * (kappa + np.arange(3000)) < kappa
        for new, before in zip(fresh.tolist(), random.random(3000).tolist(), strict=True):
            sample.append(len(sample) if new else sample[int(before * len(sample))])
        estimates.append(of_sample(sample).entropy("ansb"))
    assert np.mean(estimates) == pytest.approx((digamma(kappa + 1) + np.euler_gamma) / math.log(2), abs=0.1)
    assert math.isnan(counted([1] * 50).entropy("ansb"))


@pytest.mark.parametrize("name", [name for name in [*NAMES, "bayes(2)", "nsb(70)"] if name != "ansb"])
@given(counts=st.lists(st.integers(1, 500), min_size=1, max_size=60), random=st.randoms())
@settings(deadline=None, max_examples=40)
def test_every_estimate_is_finite_and_hangs_on_the_counts_alone(name, counts, random):
    shuffled = counted(random.sample(counts, len(counts)))
    order = random.sample(range(len(shuffled.keys)), len(shuffled.keys))
    other = CountsOfCounts(shuffled.multiplicity[order], shuffled.keys[order])
    value = counted(counts).entropy(name)
    assert math.isfinite(value)
    assert other.entropy(name) == pytest.approx(value, rel=1e-12, abs=1e-12)


@pytest.mark.parametrize("name", [name for name in NAMES if name not in FOR_FEW_SAMPLES | {"grassberger"}])
@pytest.mark.parametrize("samples", [2, 1000])
def test_a_constant_has_no_entropy(name, samples):
    assert counted([samples]).entropy(name) == pytest.approx(0, abs=1e-12)


@pytest.mark.parametrize("name", [*NAMES, "nsb(1e6)"])
def test_nothing_of_the_size_of_samples_times_keys_is_built(name):
    """As many numbers as a K × N matrix has are 10^24 here."""
    counts = CountsOfCounts(np.array([1, 2, 3, 10**6]), np.array([10**12, 10**11, 10**10, 10**6]))
    assert 30 < counts.entropy(name) < 90


@pytest.mark.parametrize(("alias", "name"), ALIASES.items())
def test_an_alias_is_its_estimator(alias, name):
    assert estimator_name(alias) == estimator_name(name) == name
    assert find_estimator(alias) is ESTIMATORS[name]


@pytest.mark.parametrize(
    ("text", "name"),
    [
        *((" Miller-Madow ", "miller_madow"), ("bayes(alpha = 0.50)", "bayes(0.5)"), ("bayes(perks)", "perks")),
        *(("NSB", "nsb"), ("nsb(1e3)", "nsb(1000.0)"), ("bayes(1e-3)", "bayes(0.001)")),
    ],
)
def test_a_name_is_read_as_people_write_it(text, name):
    assert estimator_name(text) == name
    assert find_estimator(text) is find_estimator(name)


@pytest.mark.parametrize(
    ("text", "error", "message"),
    [
        ("plug", UnknownNameError, r"unknown estimator 'plug'; there are plugin, miller_madow, .*bayes\(…\)"),
        ("", UnknownNameError, "unknown estimator ''"),
        ("bayes", UsageError, r"'bayes': bayes takes a number above 0 and up to 1e\+150, as in bayes\(0.5\)"),
        ("bayes(0)", UsageError, "takes a number above 0"),
        ("bayes(inf)", UsageError, "takes a number above 0"),
        ("bayes(1_0.0.0)", UsageError, "takes a number above 0"),
        ("plugin(2)", UsageError, "plugin takes no number"),
    ],
)
def test_what_is_no_estimator_is_told(text, error, message):
    with pytest.raises(error, match=message):
        estimator_name(text)
    assert set(FAMILIES) == {"bayes", "nsb"}
