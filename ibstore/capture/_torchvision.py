"""The one work-around for torchvision beside a CPU build of torch.

PyPI's torchvision is built for CUDA. Beside a CPU torch its compiled operators cannot be loaded, and its
import then ends with ``operator torchvision::nms does not exist``, although data sets, transforms and models
need none of them. Declaring the two operators that it looks up lets the import through.
"""

from importlib import import_module
from typing import Any, Final

import torch

_OPERATORS: Final = ("nms", "qnms")
_SIGNATURE: Final = "(Tensor dets, Tensor scores, float iou_threshold) -> Tensor"

_declared: list[torch.library.Library] = []
"""Keeps the declarations: torch drops them with the object that made them."""


def torchvision_datasets() -> Any:
    """Module ``torchvision.datasets``, whether torchvision fits the installed torch or not."""
    return _imported("torchvision.datasets")


def torchvision_models() -> Any:
    """Module ``torchvision.models``, whether torchvision fits the installed torch or not."""
    return _imported("torchvision.models")


def _imported(name: str) -> Any:
    """The import is tried as it is first: a torchvision that brings its operators must declare them itself."""
    try:
        return import_module(name)
    except RuntimeError as error:
        if _declared or "torchvision::nms" not in str(error):
            raise
    _declare_operators()
    return import_module(name)


def _declare_operators() -> None:
    library = torch.library.Library("torchvision", "DEF")  # type: ignore[no-untyped-call]
    for operator in _OPERATORS:
        library.define(operator + _SIGNATURE)  # type: ignore[no-untyped-call]
    _declared.append(library)
