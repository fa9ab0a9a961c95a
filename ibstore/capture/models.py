"""Networks that recipes train.

Layers worth recording are children with a name: a block of a linear map and what follows it, so that ``hidden1`` is
after the activation and ``hidden1.0`` before it.
"""

from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from itertools import pairwise
from typing import Final

from torch import nn

from ibstore.errors import UsageError

ACTIVATIONS: Final[Mapping[str, Callable[[], nn.Module]]] = {
    "tanh": nn.Tanh,
    "relu": nn.ReLU,
    "softplus": nn.Softplus,
    "sigmoid": nn.Sigmoid,
}

SZT_HIDDEN: Final = (10, 7, 5, 4, 3, 3)
"""Units of up to six hidden layers; the literature's network has the first five."""


def mnist_cnn() -> nn.Module:
    """The thesis's small CNN for 28 × 28 digits: 28,938 parameters.

    Layers: ``conv1`` (16, 14, 14) and ``conv2`` (32, 7, 7), each a 5 × 5 convolution with ReLU and 2 × 2 max
    pooling, and ``out`` (10), before any softmax.

    >>> sum(parameter.numel() for parameter in mnist_cnn().parameters())
    28938
    """

    def block(inputs: int, outputs: int) -> nn.Module:
        return nn.Sequential(nn.Conv2d(inputs, outputs, kernel_size=5, padding=2), nn.ReLU(), nn.MaxPool2d(2))

    return named(conv1=block(1, 16), conv2=block(16, 32), flatten=nn.Flatten(), out=nn.Linear(32 * 7 * 7, 10))


def szt(activation: str = "tanh", hidden_layers: int = 5) -> nn.Module:
    """Shwartz-Ziv & Tishby's 12-10-7-5-4-3-2, or its first so many hidden layers; logits come out.

    Weights have variance 1 / (units before), cut at two standard deviations; biases are 0.

    >>> [layer for layer, _ in szt(hidden_layers=2).named_children()]
    ['hidden1', 'hidden2', 'out']
    """
    if not 1 <= hidden_layers <= len(SZT_HIDDEN):
        raise UsageError(f"hidden_layers is {hidden_layers}; give 1 to {len(SZT_HIDDEN)}")
    model = _dense((12, *SZT_HIDDEN[:hidden_layers]), activation, out=nn.Linear(SZT_HIDDEN[hidden_layers - 1], 2))
    for module in model.modules():
        if isinstance(module, nn.Linear):
            deviation = module.in_features**-0.5
            nn.init.trunc_normal_(module.weight, std=deviation, a=-2 * deviation, b=2 * deviation)
            nn.init.zeros_(module.bias)
    return model


def tanh_units(sizes: str) -> nn.Module:
    """Dense layers of tanh units, the last one (``out``) too: ``12-5-1``.

    >>> [layer for layer, _ in tanh_units("12-5-1").named_children()]
    ['hidden1', 'out']
    """
    *hidden, last = _sizes(sizes)
    return _dense(hidden, "tanh", out=_block(nn.Linear(hidden[-1], last), nn.Tanh()))


def mnist14_conv() -> nn.Module:
    """For 14 × 14 digits: ``conv`` (1, 3, 3), ``hidden`` 10 tanh, ``out`` 10 softmax."""
    return named(
        conv=_block(nn.Conv2d(1, 1, kernel_size=4), nn.MaxPool2d(3), nn.ReLU()),
        flatten=nn.Flatten(),
        hidden=_block(nn.Linear(9, 10), nn.Tanh()),
        out=_block(nn.Linear(10, 10), nn.Softmax(dim=1)),
    )


def mlp_mnist(hidden: str = "1024-20-20", activation: str = "tanh") -> nn.Module:
    """784, hidden layers ``hidden1``, …, and 10 logits (``out``)."""
    sizes = (784, *_sizes(hidden))
    return nn.Sequential(
        OrderedDict(
            [("flatten", nn.Flatten()), *_dense(sizes, activation, out=nn.Linear(sizes[-1], 10)).named_children()]
        )
    )


def keras_cnn() -> nn.Module:
    """The Keras example's CNN without dropout: layers 0 to 5 of the report are ``conv0`` … ``dense5`` (logits)."""
    return named(
        conv0=_block(nn.Conv2d(1, 32, kernel_size=3), nn.ReLU()),
        conv1=_block(nn.Conv2d(32, 64, kernel_size=3), nn.ReLU()),
        pool2=nn.MaxPool2d(2),
        flatten3=nn.Flatten(),
        dense4=_block(nn.Linear(64 * 12 * 12, 128), nn.ReLU()),
        dense5=nn.Linear(128, 10),
    )


def resnet18() -> nn.Module:
    """Torchvision's ResNet-18 with ten classes, untrained."""
    from ibstore.capture._torchvision import torchvision_models

    model: nn.Module = torchvision_models().resnet18(weights=None, num_classes=10)
    return model


def _dense(sizes: Sequence[int], activation: str, out: nn.Module) -> nn.Sequential:
    """Blocks ``hidden1``, … of a linear map and an activation, then ``out``."""
    if activation not in ACTIVATIONS:
        raise UsageError(f"activation is {activation!r}; give one of {', '.join(ACTIVATIONS)}")
    blocks = OrderedDict(
        (f"hidden{number}", _block(nn.Linear(before, after), ACTIVATIONS[activation]()))
        for number, (before, after) in enumerate(pairwise(sizes), start=1)
    )
    return named(**blocks, out=out)


def _sizes(text: str) -> list[int]:
    """Units of layers as they are written: ``1024-20-20``."""
    try:
        sizes = [int(part) for part in text.split("-")]
    except ValueError:
        sizes = [0]
    if min(sizes) < 1:
        raise UsageError(f"units of layers are {text!r}; write them as 1024-20-20")
    return sizes


def _block(*modules: nn.Module) -> nn.Sequential:
    return nn.Sequential(*modules)


def named(**modules: nn.Module) -> nn.Sequential:
    """Modules one after another, by their names."""
    return nn.Sequential(OrderedDict(modules))
