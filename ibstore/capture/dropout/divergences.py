"""How far a layer's p(z|x) is from its prior, in nats: Kullback–Leibler divergences of single units.

Their mean over x, summed over units, is never below I(X;Z): KL(p(z|x) ‖ q(z)) = I(X;Z) + KL(p(z) ‖ q(z)) on average
over x. Formulas are those of Achille & Soatto 2018, "Information Dropout" (arXiv:1611.01353), and of their code.
"""

import math

import torch

Tensor = torch.Tensor


def log_uniform(alpha: Tensor, cap: float) -> Tensor:
    """Of z = ε f(x), log ε ~ N(0, α²), against a log-uniform prior with a point mass at 0: −log(α / cap).

    A log-uniform prior cannot be normalized: the divergence is known up to a constant, here such that it is 0 at the
    cap, where a unit is as noisy as it can be. So the mean over x bounds I(X;Z) up to that constant only.

    Parameters
    ----------
    alpha
        Standard deviation of log ε of each unit, within (0, cap].
    cap
        The largest α.

    Examples
    --------
    >>> log_uniform(torch.tensor([1.0, 0.5]), cap=1.0)
    tensor([0.0000, 0.6931])
    """
    return math.log(cap) - alpha.log()


def normal(mean: Tensor, deviation: Tensor, prior_mean: Tensor | float, prior_deviation: Tensor | float) -> Tensor:
    """Of N(μ, α²) against N(m, σ²): (α² + (μ − m)²) / (2σ²) − log(α/σ) − ½.

    Divergences do not change when both variables go through one invertible map: this is also that of the log-normal
    z = exp N(μ, α²) against exp N(m, σ²).

    >>> normal(torch.tensor([0.0, 1.0]), torch.tensor([1.0, 1.0]), 0.0, 1.0)
    tensor([0.0000, 0.5000])
    """
    scale = torch.as_tensor(prior_deviation, dtype=mean.dtype, device=mean.device)
    return (deviation**2 + (mean - prior_mean) ** 2) / (2 * scale**2) - deviation.log() + scale.log() - 0.5


def total_correlation(mean: Tensor, deviation: Tensor) -> Tensor:
    """TC of normal units in nats, ½ Σ log σᵢᵢ² − ½ log |Σ|, from what a batch says of them; it has gradients.

    Σ is the law of total covariance: the covariance of the means over the batch, and on its diagonal the mean of the
    variances that each unit has of itself. So it is not singular, however small the batch.

    Parameters
    ----------
    mean, deviation
        Of each sample's units, (sample, unit); two samples at least.

    Examples
    --------
    >>> same = torch.tensor([[-1.0], [1.0]]).expand(2, 2)
    >>> total_correlation(same, torch.ones(2, 2))
    tensor(0.1438)
    """
    location = mean.double()  # in float32 the determinant of many units that say the same is no longer above 0
    centred = location - location.mean(0)
    covariance = centred.T @ centred / len(mean) + torch.diag((deviation.double() ** 2).mean(0))
    return ((covariance.diagonal().log().sum() - torch.logdet(covariance)) / 2).to(mean.dtype)
