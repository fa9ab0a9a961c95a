"""Stochastic layers: their noise, their divergences, what the loss pays for them, and what a recorder sees."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats
from torch import nn
from torch.distributions import Independent, Normal, kl_divergence
from torch.nn.functional import binary_cross_entropy_with_logits, cross_entropy

from ibstore.capture import bottlenecks
from ibstore.capture.arguments import Probe
from ibstore.capture.dropout import (
    CAP,
    BinaryDropout,
    GaussianBottleneck,
    GaussianDropout,
    InformationDropout,
    Lagrangian,
    LogNormal,
    LogNormalDropout,
    LogUniform,
    Prior,
    StandardNormal,
    divergences,
    drawing,
    transmitting,
)
from ibstore.capture.dropout.statistics import settled
from ibstore.capture.recorder import Recorder
from ibstore.errors import CaptureError, UsageError
from ibstore.store import Store

from .networks import hook_count, recorded

NUMBERS = st.floats(-3, 3)
DEVIATIONS = st.floats(0.01, 3)


def softplus_layer(units=3, seed=1):
    f = nn.Sequential(nn.Linear(4, units), nn.Softplus())
    return InformationDropout(f, nn.Linear(4, units), LogNormal(), seed)


def relu_layer(units=3, seed=1):
    return InformationDropout(nn.Sequential(nn.Linear(4, units), nn.ReLU()), nn.Linear(4, units), LogUniform(CAP), seed)


@pytest.fixture
def x():
    return torch.randn(12, 4, generator=torch.Generator().manual_seed(3))


# ---- divergences


@given(NUMBERS, DEVIATIONS, NUMBERS, DEVIATIONS)
def test_the_divergence_of_normals_is_that_of_torch(mean, deviation, prior_mean, prior_deviation):
    each = [torch.tensor(value, dtype=torch.float64) for value in (mean, deviation, prior_mean, prior_deviation)]
    expected = kl_divergence(Normal(*each[:2]), Normal(*each[2:])).item()
    assert divergences.normal(*each).item() == pytest.approx(expected, abs=1e-9)


def test_the_divergence_of_log_normals_is_what_samples_say():
    random = np.random.default_rng(0)
    mean, deviation, prior_mean, prior_deviation = 0.4, 0.3, -0.2, 0.9
    p, q = stats.lognorm(deviation, scale=math.exp(mean)), stats.lognorm(prior_deviation, scale=math.exp(prior_mean))
    z = p.rvs(400_000, random_state=random)
    ratios = p.logpdf(z) - q.logpdf(z)
    told = divergences.normal(torch.tensor(mean), torch.tensor(deviation), prior_mean, prior_deviation).item()
    assert told == pytest.approx(ratios.mean(), abs=5 * ratios.std() / math.sqrt(len(z)))


def test_the_divergence_from_a_log_uniform_prior_is_what_samples_say_up_to_a_constant():
    """The prior's density of log z is a constant c: KL = E log p(log z) − log c, and the cap's is subtracted."""
    random = np.random.default_rng(0)

    def cost(alpha):
        log_z = random.normal(0.5, alpha, 400_000)
        return stats.norm(0.5, alpha).logpdf(log_z).mean()

    told = divergences.log_uniform(torch.tensor([0.05, 0.2, CAP]), CAP).tolist()
    assert told[2] == pytest.approx(0, abs=1e-6)
    assert told[:2] == pytest.approx([cost(0.05) - cost(CAP), cost(0.2) - cost(CAP)], abs=0.01)


@pytest.mark.parametrize("batch", [2, 50])
def test_total_correlation_is_the_gaussian_formula(batch):
    random = np.random.default_rng(1)
    mean, deviation = random.normal(size=(batch, 3)), random.uniform(0.2, 2, (batch, 3))
    covariance = np.cov(mean, rowvar=False, bias=True) + np.diag((deviation**2).mean(0))
    expected = (np.log(np.diag(covariance)).sum() - np.linalg.slogdet(covariance)[1]) / 2
    told = divergences.total_correlation(torch.from_numpy(mean), torch.from_numpy(deviation))
    assert told.item() == pytest.approx(expected)
    assert told.item() > 0


def test_gradients_are_finite_differences():
    random = torch.Generator().manual_seed(0)
    mean, raw = (torch.randn(6, 3, generator=random, dtype=torch.float64, requires_grad=True) for _ in range(2))
    assert torch.autograd.gradcheck(lambda a, b: divergences.normal(a, b.exp(), 0.3, 0.8), (mean, raw))
    assert torch.autograd.gradcheck(lambda b: divergences.log_uniform(b.exp(), CAP), (raw,))
    assert torch.autograd.gradcheck(lambda a, b: divergences.total_correlation(a, b.exp()), (mean, raw))


@pytest.mark.parametrize("make", [relu_layer, softplus_layer])
def test_gradients_through_the_noise_are_finite_differences(make, x):
    torch.manual_seed(5)
    layer = make().double()
    inputs = x[:3].double().requires_grad_()

    def whole(*_):
        torch.manual_seed(7)
        with transmitting(layer) as heard:
            z = layer(inputs)
        return z.sum() + Lagrangian(0.3, 0.2)(heard)

    assert torch.autograd.gradcheck(whole, (inputs, *layer.parameters()))


# ---- noise


def test_noise_is_log_normal_with_the_layers_own_alpha(x):
    torch.manual_seed(0)
    layer = softplus_layer()
    many = x[:1].expand(20_000, 4)
    with torch.no_grad():
        f, alpha, z = layer.f(x[:1]), layer.alpha(x[:1]), layer(many)
    standard = (z.log() - f.log()) / alpha
    for unit in standard.T.numpy():
        assert stats.kstest(unit, "norm").pvalue > 1e-3
    assert ((alpha > 0.001) & (alpha < CAP)).all()


@pytest.mark.parametrize(
    ("make", "mean", "variance"),
    [
        (lambda f: BinaryDropout(f, 1, share=0.3), 1, 0.3 / 0.7),
        (lambda f: GaussianDropout(f, 1, alpha=0.5), 1, 0.25),
        (lambda f: LogNormalDropout(f, 1, alpha=0.5), math.exp(0.125), (math.exp(0.25) - 1) * math.exp(0.25)),
    ],
)
def test_the_moments_of_the_other_noises(make, mean, variance):
    torch.manual_seed(0)
    epsilon = make(nn.Identity())(torch.ones(200_000, 1, dtype=torch.float64))
    assert epsilon.mean().item() == pytest.approx(mean, abs=0.01)
    assert epsilon.var().item() == pytest.approx(variance, rel=0.03)


def test_a_unit_is_dropped_or_stays():
    torch.manual_seed(0)
    z = BinaryDropout(nn.Identity(), 1, share=0.25)(torch.ones(10_000, 1))
    assert z.unique().tolist() == pytest.approx([0, 4 / 3])
    assert BinaryDropout(nn.Identity(), 1, share=0)(torch.ones(5, 1)).tolist() == [[1.0]] * 5


@pytest.mark.parametrize("make", [relu_layer, softplus_layer])
def test_there_is_no_noise_when_it_is_used(make, x):
    layer = make().eval()
    before = torch.get_rng_state()
    assert torch.equal(layer(x), layer.f(x))
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: BinaryDropout(nn.Identity(), 1, share=1.0), r"share of 1.0 cannot be dropped"),
        (lambda: GaussianDropout(nn.Identity(), 1, alpha=0.0), r"α is 0.0; give a number above 0.001"),
        (lambda: Lagrangian(beta_kl=-1.0), r"beta_kl is -1.0; give a number from 0"),
        (lambda: Lagrangian(gamma_tc=math.nan), r"gamma_tc is nan; give a number from 0"),
        (lambda: GaussianDropout(nn.Identity(), 1, alpha=math.inf), r"α is inf; give a number above 0.001"),
        (lambda: LogUniform(0.0), r"α is 0.0; give a number above 0.001"),
        (lambda: InformationDropout(nn.ReLU(), nn.Identity(), LogUniform(0.5), 1), r"capped at 0.701, and the prior's"),
        (lambda: InformationDropout(nn.ReLU(), nn.Identity(), StandardNormal(), 1), r"which is not of log z; give Log"),
        (lambda: InformationDropout(nn.ReLU(), nn.Identity(), None, 1), r"prior is None, which is not of log z"),
        (lambda: BinaryDropout(nn.Identity(), 1, share="a"), r"share of 'a' cannot be dropped"),
        (lambda: drawing(nn.Identity(), -1).__enter__(), r"draw is -1; give its number from 0"),
        (lambda: BinaryDropout(nn.Identity(), -1), r"seed is -1; give each stochastic layer an integer from 0"),
        (lambda: BinaryDropout(nn.Identity(), "a"), r"seed is 'a'; give each"),
        (lambda: Lagrangian(beta_kl="a"), r"beta_kl is 'a'; give a number from 0"),
        (lambda: Lagrangian(samples=0), r"samples is 0; give how many samples"),
        (lambda: bottlenecks.mnist(dropout="some"), r"dropout is 'some'; give one of information, binary"),
        (lambda: bottlenecks.cifar(activation="tanh"), r"activation is 'tanh'; give one of relu, softplus"),
        (lambda: bottlenecks.cluttered(width=0.0), r"width is 0.0; give a factor"),
        (lambda: bottlenecks.vae(latent=0), r"latent is 0; give the units"),
        (lambda: bottlenecks.vae(bottleneck="none"), r"bottleneck is 'none'; give gaussian or information"),
    ],
)
def test_what_cannot_be_meant_is_refused(make, message):
    with pytest.raises(UsageError, match=message):
        make()


@pytest.mark.parametrize(
    "make",
    [
        lambda: InformationDropout(nn.Linear(4, 3), nn.Linear(4, 1), LogNormal(), 1),
        lambda: GaussianBottleneck(nn.Linear(4, 3), nn.Linear(4, 1), 1),
    ],
)
def test_a_unit_has_an_alpha_of_its_own(make, x):
    with pytest.raises(CaptureError, match=r"head puts out \(12, 1\) where f puts out \(12, 3\); let it put out one"):
        make()(x)


def test_layers_of_one_network_have_other_seeds(store, x):
    network = nn.Sequential(relu_layer(4), relu_layer(4))
    with pytest.raises(CaptureError, match="stochastic layers '0' and '1' have the same seed 1, and so the same noise"):
        Recorder(store, network, x=x)
    assert not store.exists()


# ---- what is paid


def test_nothing_paid_is_ordinary_training(x):
    y = torch.zeros(12, dtype=torch.long)
    gradients = []
    for weighed in (False, True):
        torch.manual_seed(0)
        network = nn.Sequential(relu_layer(), nn.Linear(3, 2))
        with transmitting(network) as heard:
            loss = cross_entropy(network(x), y)
        (loss + Lagrangian(beta_kl=0.0)(heard) if weighed else loss).backward()
        gradients.append([parameter.grad for parameter in network.parameters() if parameter.grad is not None])
    assert len(gradients[0]) == len(gradients[1]) > 0
    assert all(map(torch.equal, *gradients))


def test_what_is_paid_is_summed_over_layers_and_units_and_averaged_over_samples(x):
    torch.manual_seed(0)
    network = nn.Sequential(relu_layer(4, seed=1), relu_layer(5, seed=2)).eval()
    with transmitting(network) as heard:
        network(x)
    first, second = network[0].alpha(x), network[1].alpha(network[0](x))
    nats = -(first / CAP).log().sum(1) - (second / CAP).log().sum(1)
    assert list(heard) == ["0", "1"]
    assert Lagrangian(beta_kl=0.5, samples=40)(heard).item() == pytest.approx(0.5 * nats.mean().item() / 40, rel=1e-5)


def test_total_correlation_is_a_term_of_its_own(x):
    torch.manual_seed(0)
    layer = softplus_layer().eval()
    with transmitting(layer) as heard:
        f = layer(x)
    expected = divergences.total_correlation(f.log(), layer.alpha(x))
    assert Lagrangian(beta_kl=0, gamma_tc=2.0, samples=10)(heard).item() == pytest.approx(expected.item() / 5)
    both = Lagrangian(beta_kl=3.0, gamma_tc=2.0, samples=10)(heard).item()
    assert both == pytest.approx((3 * heard[""].nats.mean() + 2 * expected).item() / 10, rel=1e-5)


def test_total_correlation_of_many_units_that_say_the_same_is_a_number():
    """In float32 their covariance would be singular."""
    torch.manual_seed(0)
    mean = torch.randn(50, 1).repeat(1, 200).requires_grad_()
    deviation = torch.full((50, 200), 1e-3)
    with torch.autocast("cpu", torch.bfloat16):
        found = divergences.total_correlation(mean, deviation)
    found.backward()
    values = mean.detach().double().numpy()
    covariance = np.cov(values, rowvar=False, bias=True) + np.eye(200) * 1e-6
    expected = (np.log(np.diag(covariance)).sum() - np.linalg.slogdet(covariance)[1]) / 2
    assert found.item() == pytest.approx(expected, rel=1e-5)
    assert found.dtype == torch.float32
    assert torch.isfinite(mean.grad).all()


def test_numbers_of_numpy_are_numbers():
    assert (
        Lagrangian(beta_kl=np.float32(0.5)).beta_kl == GaussianDropout(nn.Identity(), 1, np.float32(0.5)).alpha == 0.5
    )


@pytest.mark.parametrize("backend", ["eager", "aot_eager"])
def test_to_pay_for_what_nobody_heard_is_an_error(x, backend):
    """A compiled network does not hear who comes after its first call."""
    network = nn.Sequential(relu_layer())
    compiled = torch.compile(network, backend=backend)
    compiled(x)
    with transmitting(network) as heard:
        compiled(x)
    assert not heard
    with pytest.raises(CaptureError, match=r"beta_kl=1 weighs what no layer has told; .* enter transmitting before"):
        Lagrangian(beta_kl=1.0)(heard)
    assert Lagrangian()(heard) == 0.0
    torch.compiler.reset()


def test_what_a_recorder_runs_is_not_heard(store, x):
    network = nn.Sequential(relu_layer())
    with Recorder(store, network, x=x, layers=["0.kl"]) as recorder, transmitting(network) as heard:
        network(x[:5])
        recorder.record(0)
    assert [told.nats.shape for told in heard.values()] == [(5,)]


class Folded(nn.Module):
    """Makes three rows of each sample."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.noisy, self.out = softplus_layer(), nn.Linear(9, 2)

    def forward(self, x):
        return self.out(self.noisy(x.reshape(-1, 4)).reshape(len(x), 9))


def test_rows_of_one_sample_are_told_and_paid_together(store):
    x = torch.randn(10, 3, 4, generator=torch.Generator().manual_seed(0))
    network = Folded()
    with transmitting(network) as heard:
        network(x)
    expected = heard["noisy"].nats.sum().item() / 10
    assert Lagrangian(beta_kl=1.0)(heard, batch=10).item() == pytest.approx(expected)
    told = {"y": torch.zeros(10), "measure": lambda output, _: {"loss": output.mean()}, "layers": ["out"]}
    found = [record(store, network, x, 0, batch=size, run=f"run{size}", **told)[0]["train"] for size in (3, 10)]
    assert found[0]["kl_noisy"] == pytest.approx(expected, rel=1e-5)
    assert found[0]["noisy_loss"] == pytest.approx(found[1]["noisy_loss"], rel=1e-5)
    assert found[0]["noisy_loss"] != pytest.approx(found[0]["loss"], rel=1e-3)


def test_a_single_unit_without_an_axis_is_one(x):
    layer = InformationDropout(nn.Flatten(0), nn.Flatten(0), LogNormal(), 1)
    with transmitting(layer) as heard:
        layer(x[:, :1])
    assert heard[""].nats.shape == (12,)
    assert heard[""].total_correlation().item() == pytest.approx(0, abs=1e-6)


def test_a_measure_does_not_take_a_layers_name(store, x):
    told = {"y": torch.zeros(12), "measure": lambda output, _: {"kl_0": output.mean()}}
    with pytest.raises(CaptureError, match="measure gives 'kl_0', which stochastic layers say themselves; rename it"):
        record(store, nn.Sequential(relu_layer()), x, 0, layers=["0.kl"], **told)


def test_a_layer_that_is_called_twice_tells_and_pays_twice(x):
    torch.manual_seed(0)
    layer, other = relu_layer(units=4), relu_layer(units=4, seed=2)
    network = nn.Sequential(layer, other, layer)
    with transmitting(network) as heard:
        network(x)
    assert list(heard) == ["0:0", "1", "0:1"]
    assert not torch.equal(heard["0:0"].kl, heard["0:1"].kl)
    paid = Lagrangian(beta_kl=1.0)(heard)
    assert paid.item() == pytest.approx(sum(told.nats.mean().item() for told in heard.values()), rel=1e-6)


def test_of_pictures_the_channels_are_correlated_at_all_places_alike():
    torch.manual_seed(0)
    f = nn.Sequential(nn.Conv2d(1, 2, 1), nn.Softplus())
    layer = InformationDropout(f, nn.Conv2d(1, 2, 1), LogNormal(), seed=1).eval()
    x = torch.randn(5, 1, 3, 4)
    with transmitting(layer) as heard:
        location, deviation = layer(x).log(), layer.alpha(x)
    rows = [each.permute(0, 2, 3, 1).reshape(-1, 2) for each in (location, deviation)]
    assert heard[""].total_correlation().item() == pytest.approx(divergences.total_correlation(*rows).item(), rel=1e-4)


def test_the_divergence_holds_information_and_total_correlation():
    """KL = I(X;Z) + TC(Z) + Σ KL(p(zᵢ) ‖ q(zᵢ)) where means are Gaussian, so that all of it is known."""
    random = np.random.default_rng(0)
    raw = random.normal(size=(4000, 3))
    white = (raw - raw.mean(0)) @ np.linalg.inv(np.linalg.cholesky(np.cov(raw, rowvar=False, bias=True))).T
    mixing, alpha = random.normal(size=(3, 3)), 0.4
    means = white @ mixing.T
    covariance = mixing @ mixing.T + alpha**2 * np.eye(3)
    information = (np.linalg.slogdet(covariance)[1] - 3 * math.log(alpha**2)) / 2
    correlation = (np.log(np.diag(covariance)).sum() - np.linalg.slogdet(covariance)[1]) / 2
    marginal = sum((variance - 1 - math.log(variance)) / 2 for variance in np.diag(covariance))
    location = torch.from_numpy(means)
    deviation = torch.full_like(location, alpha)
    kl = divergences.normal(location, deviation, 0.0, 1.0).sum(1).mean().item()
    assert kl == pytest.approx(information + correlation + marginal)
    assert divergences.total_correlation(location, deviation).item() == pytest.approx(correlation)


@pytest.mark.parametrize("bottleneck", ["gaussian", "information"])
def test_the_lagrangian_of_an_autoencoder_is_that_of_a_variational_one(bottleneck):
    """β = 1, y = x and a factorized prior: −ELBO, written out with torch's distributions."""
    torch.manual_seed(0)
    network = bottlenecks.vae(bottleneck, latent=4, width=0.1)
    x = torch.rand(6, 1, 28, 28)
    torch.manual_seed(1)
    with transmitting(network) as heard:
        loss = network(x).mean() + Lagrangian(beta_kl=1.0)(heard)
    code, features = network.drop1, network.encoder(x)
    f, alpha = code.f(features), code.alpha(features)
    torch.manual_seed(1)
    noise = torch.randn_like(f)
    if bottleneck == "gaussian":
        posterior, z = Normal(f, alpha), f + alpha * noise
        prior = Normal(torch.zeros_like(f), 1.0)
    else:  # log z is the variational autoencoder's code
        posterior, z = Normal(f.log(), alpha), (f.log() + alpha * noise).exp()
        prior = Normal(torch.zeros_like(f), 1.0)
    likelihood = -binary_cross_entropy_with_logits(network.decoder(z), x.flatten(1), reduction="none").sum(1)
    elbo = likelihood - kl_divergence(Independent(posterior, 1), Independent(prior, 1))
    assert loss.item() == pytest.approx(-elbo.mean().item(), rel=1e-5)


def test_nobody_listens_afterwards(x):
    layer = relu_layer()
    with pytest.raises(RuntimeError), transmitting(layer):
        layer(x[:, :2])
    assert hook_count(layer) == 0


# ---- what a recorder sees


def record(store, network, x, *epochs, layers, batch=5, **options):
    with Recorder(store, network, x=x, layers=layers, batch_size=batch, **options) as recorder:
        return [recorder.record(epoch) for epoch in epochs]


SAID = ["0.f", "0.alpha", "0.kl", "0.z[0]", "0.z[1]"]


def test_a_stochastic_layer_is_recorded_as_what_it_is(store, x):
    torch.manual_seed(0)
    network = nn.Sequential(softplus_layer(), nn.Linear(3, 2))
    (metrics,) = record(store, network, x, 0, layers=SAID)
    f, alpha, kl, *draws = (recorded(store, layer, 0) for layer in SAID)
    layer = network[0].eval()
    for own, told in ((layer.f(x), f), (layer.alpha(x), alpha)):
        np.testing.assert_allclose(told, own.detach().numpy(), rtol=1e-6)
    np.testing.assert_allclose(
        kl, divergences.normal(torch.from_numpy(f).log(), torch.from_numpy(alpha), 0.0, 1.0).numpy(), rtol=1e-5
    )
    assert metrics["train"]["kl_0"] == pytest.approx(kl.sum(1).mean(), rel=1e-5)
    assert not np.array_equal(*draws)
    assert hook_count(network) == 0


def test_draws_are_of_the_layers_distribution(store):
    torch.manual_seed(0)
    x = torch.randn(4000, 4)
    record(store, nn.Sequential(softplus_layer()), x, 0, layers=SAID, batch=500)
    f, alpha, _, *draws = (recorded(store, layer, 0) for layer in SAID)
    standard = [((np.log(z) - np.log(f)) / alpha).ravel() for z in draws]
    for each in standard:
        assert stats.kstest(each, "norm").pvalue > 1e-3
    assert abs(np.corrcoef(standard)[0, 1]) < 0.05
    # No two batches have the same noise.
    assert len(np.unique(np.round(standard[0], 5))) > 0.9 * len(standard[0])


def test_draws_are_the_same_at_every_epoch_and_leave_torchs_random_numbers_alone(store, x):
    torch.manual_seed(0)
    network = nn.Sequential(softplus_layer())
    before = torch.get_rng_state()
    record(store, network, x, 0, 1, layers=SAID)
    assert torch.equal(torch.get_rng_state(), before)
    np.testing.assert_array_equal(recorded(store, "0.z[0]", 0), recorded(store, "0.z[0]", 1))


def test_noise_of_a_sample_hangs_on_its_id_and_split_alone(store, x):
    """Not on the batch, nor on its place in the probe set."""
    torch.manual_seed(0)
    network, ids = nn.Sequential(softplus_layer()), np.arange(100, 112)
    chosen = [7, 2, 9]
    record(store, network, x, 0, layers=["0.z[0]"], run="all", sample=ids, batch=5)
    record(store, network, x[chosen], 0, layers=["0.z[0]"], run="some", sample=ids[chosen], batch=2)
    every, some = (recorded(store, "0.z[0]", 0, run) for run in ("all", "some"))
    np.testing.assert_allclose(some, every[chosen], rtol=1e-5)
    same = {split: Probe(torch.ones(5, 4)) for split in ("train", "test")}
    with Recorder(store, network, layers=["0.z[0]"], probes=same, run="both") as recorder:
        recorder.record(0)
    draws = np.concatenate([recorded(store, "0.z[0]", 0, "both", split) for split in same])
    assert len(np.unique(draws, axis=0)) == 10


def test_layers_with_other_seeds_have_other_noise(store, x):
    torch.manual_seed(0)
    same = softplus_layer()
    other = softplus_layer(seed=2)
    other.load_state_dict(same.state_dict())
    network = nn.Sequential(same)
    record(store, network, x, 0, layers=["0.z[0]"], run="one")
    record(store, nn.Sequential(other), x, 0, layers=["0.z[0]"], run="other")
    assert not np.array_equal(recorded(store, "0.z[0]", 0, "one"), recorded(store, "0.z[0]", 0, "other"))


def test_a_layer_that_is_called_twice_is_recorded_by_its_calls(store, x):
    torch.manual_seed(0)
    layer = softplus_layer(units=4)
    layers = ["0.z:0[0]", "0.z:1[0]", "0.kl:1", *(f"0.{what}:{call}" for what in ("f", "alpha") for call in (0, 1))]
    (metrics,) = record(store, nn.Sequential(layer, layer), x, 0, layers=layers)
    first, second = (
        np.log(recorded(store, f"0.z:{call}[0]") / recorded(store, f"0.f:{call}")) / recorded(store, f"0.alpha:{call}")
        for call in (0, 1)
    )
    assert abs(np.corrcoef(first.ravel(), second.ravel())[0, 1]) < 0.5  # noise of its own
    assert metrics["train"].keys() == {"kl_0:0", "kl_0:1"}
    assert metrics["train"]["kl_0:1"] == pytest.approx(recorded(store, "0.kl:1", 0).sum(1).mean(), rel=1e-5)


def test_which_codes_are_normal_stands_in_the_manifest(store, x):
    network = nn.Sequential(softplus_layer(units=4), GaussianBottleneck(nn.Linear(4, 2), nn.Linear(4, 2), seed=2))
    record(store, network, x, 0, layers=["1.f"])
    assert Store.open(store).run("run0").manifest.settings["normal_codes"] == ["1"]


def test_nothing_is_drawn_where_nobody_asks(store, x, monkeypatch):
    network = nn.Sequential(softplus_layer())
    monkeypatch.setattr(type(network[0].z), "forward", lambda *_: pytest.fail("it was drawn"))
    record(store, network, x, 0, layers=["0.f"])
    assert [layer.name for layer in Store.open(store).run("run0").manifest.layers] == ["0.f"]


def test_a_bottleneck_is_recorded_by_the_same_names(store, x):
    network = nn.Sequential(GaussianBottleneck(nn.Linear(4, 2), nn.Linear(4, 2), seed=1))
    record(store, network, x, 0, layers=SAID)
    f, alpha, kl = (recorded(store, layer, 0) for layer in SAID[:3])
    np.testing.assert_allclose(kl, (f**2 + alpha**2 - 1) / 2 - np.log(alpha), rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("bottleneck", ["gaussian", "information"])
def test_with_noise_a_network_is_measured_by_its_first_draw(store, bottleneck):
    """So that the loss with noise and the divergence are a negative variational bound."""
    torch.manual_seed(0)
    network = bottlenecks.vae(bottleneck, latent=4, width=0.1)
    x, y = torch.rand(6, 1, 28, 28), torch.zeros(6, dtype=torch.long)
    before = torch.get_rng_state()
    told = {"y": y, "measure": lambda output, _: {"loss": output.mean()}, "batch": 4}
    (metrics,) = record(store, network, x, 0, layers=["drop1.z[0]"], **told)
    with torch.no_grad():
        z = torch.from_numpy(recorded(store, "drop1.z[0]", 0))
        costs = binary_cross_entropy_with_logits(network.decoder(z), x.flatten(1), reduction="none").sum(1)
    assert metrics["train"]["noisy_loss"] == pytest.approx(costs.mean().item(), rel=1e-5)
    assert metrics["train"]["loss"] == pytest.approx(network.eval()(x).mean().item(), rel=1e-5)
    assert torch.equal(torch.get_rng_state(), before)


def test_noise_of_a_draw_ends_with_its_context(x):
    layer = softplus_layer().eval()
    with drawing(layer, 1):
        assert not torch.equal(layer(x), layer.f(x))
    with pytest.raises(RuntimeError), drawing(layer, 1):
        layer(x[:, :2])
    assert torch.equal(layer(x), layer.f(x))


# ---- statistics without noise


def normalized():
    f = nn.Sequential(nn.Linear(4, 3), nn.BatchNorm1d(3), nn.Softplus())
    return nn.Sequential(
        InformationDropout(f, nn.Linear(4, 3), LogNormal(), 1), nn.Linear(3, 3), nn.BatchNorm1d(3), nn.Linear(3, 2)
    )


def test_what_has_statistics_is_not_measured_with_noise(store, x):
    told = {"y": torch.zeros(len(x)), "measure": lambda output, _: {"loss": output.mean()}}
    (metrics,) = record(store, normalized(), x, 0, layers=["0.f"], **told)
    assert metrics["train"].keys() == {"loss", "kl_0"}


def test_statistics_are_learnt_without_noise_and_put_back(x):
    torch.manual_seed(0)
    network = normalized()
    for _ in range(5):
        network(x)
    before = {name: buffer.clone() for name, buffer in network.named_buffers()}
    drawn = torch.get_rng_state()
    with settled(network, x.split(6)):
        assert network.training
        linear = network[1](network[0].f(x).detach())  # its own statistics are those of the batches by then
        parts = [network[1](torch.nn.functional.softplus(_normed(network[0].f[0](part)))) for part in x.split(6)]
        means = torch.stack([part.mean(0) for part in parts]).mean(0)
        torch.testing.assert_close(network[2].running_mean, means, rtol=1e-3, atol=1e-4)
        assert linear.shape == (12, 3)
    assert torch.equal(torch.get_rng_state(), drawn)
    assert all(torch.equal(buffer, before[name]) for name, buffer in network.named_buffers())
    assert all(module.momentum == 0.1 for module in network.modules() if isinstance(module, nn.BatchNorm1d))


def _normed(values):
    return (values - values.mean(0)) / (values.var(0, unbiased=False) + 1e-5).sqrt()


@pytest.mark.parametrize(
    "network", [nn.Sequential(nn.Linear(4, 3), nn.BatchNorm1d(3)), nn.Sequential(relu_layer(), nn.Linear(3, 2))]
)
def test_other_networks_are_not_run(network, x):
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    with settled(network, (pytest.fail("it was run") for _ in range(1))):
        assert all(torch.equal(tensor, before[name]) for name, tensor in network.state_dict().items())


# ---- the recipes' networks


@pytest.mark.parametrize("dropout", ["information", "binary", "gaussian", "lognormal", "none"])
@pytest.mark.parametrize(
    ("make", "shape"),
    [
        (bottlenecks.mnist, (2, 1, 28, 28)),
        (bottlenecks.cluttered, (2, 1, 96, 96)),
        (bottlenecks.cifar, (2, 3, 32, 32)),
    ],
)
def test_networks_have_the_same_layers_with_every_dropout(make, shape, dropout):
    network = make(dropout=dropout, width=0.1)
    assert network(torch.rand(shape)).shape == (2, 10)
    priors = [path for path, module in network.named_modules() if isinstance(module, Prior)]
    assert bool(priors) == (dropout == "information")
    names = [name for name, _ in network.named_children()]
    assert names == [name for name, _ in make(width=0.1).named_children()]


def test_the_networks_are_those_of_the_literature():
    def channels(network):
        return [module.out_channels for path, module in network.named_modules() if _counts(path, module)]

    def _counts(path, module):
        return isinstance(module, nn.Conv2d) and ".alpha" not in path

    assert channels(bottlenecks.cluttered()) == [32, 32, 32, 64, 64, 64, 96, 96, 96, 192, 192, 192, 192, 192, 10]
    assert channels(bottlenecks.cifar()) == [96, 96, 96, 192, 192, 192, 192, 192, 10]
    assert bottlenecks.cifar()[0].p == pytest.approx(0.2)
    x = torch.rand(1, 1, 96, 96)
    with torch.no_grad():
        assert bottlenecks.cluttered(width=0.1).eval()[:-3](x).shape[-2:] == (6, 6)
