"""Commands that start as fast as they can: typer would load pydantic to check what needs no check.

typer builds a pydantic validator for each parameter of a command, for those that were not given too; to load pydantic
takes as long as all the rest of `ibstore ls`. Texts, flags and what was not given are what they are.
"""

from collections.abc import Callable
from typing import Any

import typer
from typer.core import TyperCommand, TyperGroup

Process = Callable[[Any, Any], Any]


class Command(TyperCommand):
    """A command whose texts, flags and what was not given are taken as they are."""

    def get_params(self, ctx: Any) -> list[Any]:
        """Its parameters, those of typer's own too."""
        return [_spared(param) for param in super().get_params(ctx)]


class Group(TyperGroup):
    """A group of commands, likewise."""

    def get_params(self, ctx: Any) -> list[Any]:
        """Its parameters, those of typer's own too."""
        return [_spared(param) for param in super().get_params(ctx)]


def _spared(param: Any) -> Any:
    if not hasattr(param.process_value, "is_spared"):
        param.process_value = _plain(param, param.process_value)
        param.process_value.is_spared = True
    return param


def _plain(param: Any, process: Process) -> Process:
    """What a parameter does with a value, except where there is nothing to do."""

    def plain(context: typer.Context, value: Any) -> Any:
        if not _is_settled(param, value):
            return process(context, value)
        return value if param.callback is None else param.callback(context, param, value)

    return plain


def _is_settled(param: Any, value: Any) -> bool:
    """Whether nothing about a value needs a check."""
    kind = param.type_descriptor.annotation
    if value is None or value is param.default:
        return not param.required
    texts = kind == list[str] and isinstance(value, list) and all(isinstance(text, str) for text in value)
    return texts or (kind in (str, bool) and isinstance(value, kind))
