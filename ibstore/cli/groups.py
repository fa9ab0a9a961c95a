"""Options that belong together, given to a command as one thing, so that its signature stays short."""

import inspect
from collections.abc import Callable
from functools import wraps
from typing import Any

Group = Callable[..., Any]
"""Its parameters become arguments and options; what it returns of them is what the command gets."""


def grouped(*groups: Group) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Give a command, in place of its first parameters, what each group makes of its options.

    What is required stands before what is not, that of the groups first.
    """

    def decorate(command: Callable[..., None]) -> Callable[..., None]:
        own = list(inspect.signature(command).parameters.values())[len(groups) :]
        theirs = [list(inspect.signature(group).parameters.values()) for group in groups]
        parameters = [parameter for each in (*theirs, own) for parameter in each]

        @wraps(command)
        def with_options(**given: Any) -> None:
            made = [
                group(**{each.name: given.pop(each.name) for each in own_of})
                for group, own_of in zip(groups, theirs, strict=True)
            ]
            command(*made, **given)

        ordered = sorted(parameters, key=lambda parameter: parameter.default is not parameter.empty)
        with_options.__signature__ = inspect.Signature(ordered)  # type: ignore[attr-defined]
        return with_options

    return decorate
