"""Networks that recipes train.

Layers worth recording are modules with a name, so that a recipe names them as anybody would.
"""

from collections import OrderedDict

from torch import nn


def mnist_cnn() -> nn.Module:
    """The thesis's small CNN for 28 × 28 digits: 28,938 parameters.

    Layers: ``conv1`` (16, 14, 14) and ``conv2`` (32, 7, 7), each a 5 × 5 convolution with ReLU and 2 × 2 max
    pooling, and ``out`` (10), before any softmax.

    >>> sum(parameter.numel() for parameter in mnist_cnn().parameters())
    28938
    """
    return nn.Sequential(
        OrderedDict(conv1=_block(1, 16), conv2=_block(16, 32), flatten=nn.Flatten(), out=nn.Linear(32 * 7 * 7, 10))
    )


def _block(inputs: int, outputs: int) -> nn.Module:
    return nn.Sequential(nn.Conv2d(inputs, outputs, kernel_size=5, padding=2), nn.ReLU(), nn.MaxPool2d(2))
