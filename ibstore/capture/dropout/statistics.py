"""Batch normalization of networks that are trained with noise and used without it.

Statistics that were gathered while there was noise are those of other activations. They are learnt again without it,
for as long as the network is looked at; training goes on with its own.
"""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager

import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from ibstore.capture.dropout.layers import Noisy


@contextmanager
def settled(network: nn.Module, batches: Iterable[torch.Tensor]) -> Iterator[None]:
    """Give a network the statistics of ``batches`` without noise while the context lasts.

    Nothing happens to a network without stochastic layers, or without batch normalization that keeps statistics.

    Parameters
    ----------
    network
        In whatever mode; it comes back in that mode.
    batches
        What it is run on, (sample, …) each; their mean and variance are averaged with equal weights.
    """
    norms = _norms(network)
    if not norms or not is_noisy(network):
        yield
        return
    before = [({name: buffer.clone() for name, buffer in norm.named_buffers()}, norm.momentum) for norm in norms]
    try:
        _learn(network, norms, batches)
        yield
    finally:
        for norm, (buffers, momentum) in zip(norms, before, strict=True):
            norm.momentum = momentum
            for name, buffer in norm.named_buffers():
                buffer.copy_(buffers[name])


def is_noisy(network: nn.Module) -> bool:
    """Whether there are stochastic layers."""
    return any(isinstance(module, Noisy) for module in network.modules())


def is_itself_with_noise(network: nn.Module) -> bool:
    """Whether a network in use may be given noise: it is stochastic and has no statistics that hang on noise."""
    return is_noisy(network) and not _norms(network)


def _norms(network: nn.Module) -> list[_BatchNorm]:
    return [module for module in network.modules() if isinstance(module, _BatchNorm) and module.track_running_stats]


def _learn(network: nn.Module, norms: list[_BatchNorm], batches: Iterable[torch.Tensor]) -> None:
    modes = [(module, module.training) for module in network.modules()]
    network.eval()
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None  # the mean over batches, not a fading one
        norm.train()
    try:
        with torch.no_grad():
            for batch in batches:
                network(batch)
    finally:
        for module, training in modes:
            module.training = training
