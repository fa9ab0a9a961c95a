"""What a layer's text names: a module or a tap, one of its calls, a part of its output.

>>> parse("encoder.lstm:1[0][h]")
LayerSpec(name='encoder.lstm:1[0][h]', path='encoder.lstm', call=1, parts=(0, 'h'))
"""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, fields, is_dataclass
from typing import Final

import torch

from ibstore.errors import CaptureError, UsageError

SHOWN: Final = 8
"""Parts of an output, or calls, that a message lists before it stops."""

_SPEC: Final = re.compile(r"(?P<path>[^:\[\]]*)(?::(?P<call>[0-9]+))?(?P<parts>(?:\[[^\[\]]+\])*)")
_PART: Final = re.compile(r"\[([^\[\]]+)\]")
_INTEGER: Final = re.compile(r"-?[0-9]+")


@dataclass(frozen=True, slots=True)
class LayerSpec:
    """One tensor of a network: what the module at ``path``, or the tap of that name, puts out.

    Parameters
    ----------
    name
        The layer's name: the text as it was written.
    path
        Path of the module in its network, or the tap's name; empty: the network itself.
    call
        Which of the module's calls in one forward pass, from 0; None: it has a single one.
    parts
        Indices and keys that lead from the output to the tensor.
    """

    name: str
    path: str
    call: int | None = None
    parts: tuple[int | str, ...] = ()


def parse(text: str) -> LayerSpec:
    """Read ``path[:k][[part]…]``; without a path ``[part]…`` is a part of what the network itself puts out.

    Raises
    ------
    UsageError
        When the text is none of that.

    Examples
    --------
    >>> parse("relu:2").call, parse("lstm[-1]").parts
    (2, (-1,))
    """
    match = _SPEC.fullmatch(text)
    if match is None or not (match["path"] or (match["parts"] and match["call"] is None)):
        raise UsageError(
            f"layer {text!r} cannot be read; write a module's path, then :k for its k-th call from 0 and [i] or [key] "
            "for a part of its output, such as 'encoder.0', 'relu:1', 'lstm[0]' or, of the network's own, '[0]'"
        )
    parts = (int(part) if _INTEGER.fullmatch(part) else part for part in _PART.findall(match["parts"]))
    return LayerSpec(text, match["path"], None if match["call"] is None else int(match["call"]), tuple(parts))


def select(spec: LayerSpec, output: object) -> torch.Tensor:
    """The tensor that ``spec`` names in what its module put out.

    Raises
    ------
    CaptureError
        When there is no such part, or it is no tensor; the message lists what there is.
    """
    found = output
    for part in spec.parts:
        try:
            found = _take(found, part)
        except (LookupError, TypeError):
            raise CaptureError(f"layer {spec.name!r}: the output has no part [{part}]; {_ways(spec, output)}") from None
    if not isinstance(found, torch.Tensor):
        raise CaptureError(f"layer {spec.name!r} puts out a {type(found).__name__}, no tensor; {_ways(spec, output)}")
    return found


def _take(output: object, part: int | str) -> object:
    if isinstance(output, Mapping):
        return output[part] if part in output else output[str(part)]
    if isinstance(output, tuple | list) and isinstance(part, int):
        return output[part]
    return _fields(output)[str(part)]


def _fields(output: object) -> dict[str, object]:
    """Fields of a dataclass or a named tuple, none of anything else."""
    if is_dataclass(output) and not isinstance(output, type):
        return {field.name: getattr(output, field.name) for field in fields(output)}
    return output._asdict() if isinstance(output, tuple) and hasattr(output, "_asdict") else {}


def _ways(spec: LayerSpec, output: object) -> str:
    """How to name a tensor in the output, as the next action of a message."""
    module = spec.path if spec.call is None else f"{spec.path}:{spec.call}"
    if isinstance(output, torch.Tensor):
        return f"it is a tensor itself: name {module!r}" if module else "it is a tensor itself: name the last module"
    ways = [f"{(module + selector)!r} {shape}" for selector, shape in _tensors(output)]
    if not ways:
        return "there is no tensor in it to select; name another layer"
    more = ", …" if len(ways) > SHOWN else ""
    return f"select one of its tensors: {', '.join(ways[:SHOWN])}{more}"


def _tensors(output: object) -> Iterator[tuple[str, tuple[int, ...]]]:
    """Every tensor in a nest of tuples, lists and mappings: its selector and its shape."""
    if isinstance(output, torch.Tensor):
        yield "", tuple(output.shape)
        return
    items: list[tuple[object, object]] = []
    if isinstance(output, Mapping):
        items = list(output.items())
    elif isinstance(output, tuple | list):
        items = list(enumerate(output))
    else:
        items = list(_fields(output).items())
    for key, value in items:
        for selector, shape in _tensors(value):
            yield f"[{key}]{selector}", shape
