"""Stochastic layers: Information Dropout and its kin, what they cost, and how a recorder sees them.

Examples
--------
>>> import torch
>>> from torch import nn
>>> layer = InformationDropout(nn.ReLU(), nn.Linear(3, 3), LogUniform(CAP), seed=1)
>>> network = nn.Sequential(layer, nn.Linear(3, 2))
>>> with transmitting(network) as heard:
...     output = network(torch.zeros(5, 3))
>>> loss = nn.functional.cross_entropy(output, torch.zeros(5, dtype=torch.long))
>>> loss = loss + Lagrangian(beta_kl=0.1, samples=5)(heard)
>>> loss.backward()
"""

from ibstore.capture.dropout.information import Lagrangian, Transmitted, listening, normal_codes, tells, transmitting
from ibstore.capture.dropout.layers import (
    CAP,
    BinaryDropout,
    GaussianBottleneck,
    GaussianDropout,
    InformationDropout,
    LogNormalDropout,
    Noisy,
    check_seeds,
    drawing,
)
from ibstore.capture.dropout.priors import LogNormal, LogUniform, Prior, StandardNormal
from ibstore.capture.dropout.statistics import is_itself_with_noise

__all__ = [
    "CAP",
    "BinaryDropout",
    "GaussianBottleneck",
    "GaussianDropout",
    "InformationDropout",
    "Lagrangian",
    "LogNormal",
    "LogNormalDropout",
    "LogUniform",
    "Noisy",
    "Prior",
    "StandardNormal",
    "Transmitted",
    "check_seeds",
    "drawing",
    "is_itself_with_noise",
    "listening",
    "normal_codes",
    "tells",
    "transmitting",
]
