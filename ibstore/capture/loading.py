"""What a text such as ``package.module:name`` or ``folder/file.py:name`` stands for: a user's own network or recipe."""

import sys
import zlib
from collections.abc import Callable
from importlib import import_module
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

from ibstore.errors import UnknownNameError, UsageError

if TYPE_CHECKING:
    from torch import nn

Factory = str | Callable[[], Any]
"""What makes a network: a callable without arguments, or the text that names one."""


def load_object(text: str) -> Any:
    """Import what a text names: ``package.module:name``, or ``file.py:name``; a name may be dotted.

    Modules are looked for in the current folder as well, and a file may import those beside it: both folders stay
    on ``sys.path``, as with ``python file.py``. A file is run once a process.

    Raises
    ------
    UsageError
        When the text cannot be read, or the module fails while it is imported.
    UnknownNameError
        When there is no such module, file or name.

    Examples
    --------
    >>> load_object("math:sqrt")(4.0)
    2.0
    """
    where, colon, name = text.rpartition(":")
    if not colon or not where or not all(part.isidentifier() for part in name.split(".")):
        raise UsageError(f"{text!r} names no object; write it as package.module:name or folder/file.py:name")
    found: Any = _file(Path(where)) if where.endswith(".py") else _module(where)
    for part in name.split("."):
        if not hasattr(found, part):
            raise UnknownNameError(f"{where} has no {name!r}; {_has(found)}")
        found = getattr(found, part)
    return found


def load_network(factory: Factory) -> "nn.Module":
    """Make a network of a callable without arguments, or of the text that names one.

    Raises
    ------
    UsageError
        When it cannot be loaded or called, fails, or gives something else.

    Examples
    --------
    >>> load_network("ibstore.capture.models:mnist_cnn").out
    Linear(in_features=1568, out_features=10, bias=True)
    """
    from torch import nn

    made = load_object(factory) if isinstance(factory, str) else factory
    name = factory if isinstance(factory, str) else getattr(factory, "__name__", repr(factory))
    if isinstance(made, nn.Module):
        raise UsageError(f"{name} is a network; give what makes one: a function without arguments, or a class")
    if not callable(made):
        raise UsageError(f"{name} is of type {type(made).__name__}; give a function that returns a torch.nn.Module")
    try:
        model = made()
    except Exception as error:
        raise UsageError(
            f"{name}() fails ({type(error).__name__}: {error}); give a function without arguments that returns a "
            "torch.nn.Module"
        ) from error
    if not isinstance(model, nn.Module):
        raise UsageError(f"{name}() returns {type(model).__name__}; let it return a torch.nn.Module")
    return model


def _module(name: str) -> ModuleType:
    if not all(part.isidentifier() for part in name.split(".")):
        raise UsageError(f"{name!r} is no module's name; write package.module:name, or folder/file.py:name")
    _look_in(Path.cwd())
    try:
        return import_module(name)
    except ModuleNotFoundError as error:
        if error.name is None or not f"{name}.".startswith(f"{error.name}."):
            raise _failed(name, error) from error
        raise UnknownNameError(
            f"there is no module {error.name!r} to import {name!r} from; give one that is installed or in the current "
            "folder, or write folder/file.py:name"
        ) from None
    except (Exception, SystemExit) as error:
        raise _failed(name, error) from error


def _file(path: Path) -> ModuleType:
    try:
        path = path.resolve(strict=True)
    except OSError:
        raise UnknownNameError(f"there is no file {path}; give its path from the current folder") from None
    name = f"{path.stem}_{zlib.crc32(bytes(path)):08x}"  # a file may be called as a package is
    if name in sys.modules:
        return sys.modules[name]
    _look_in(path.parent)
    spec = spec_from_file_location(name, path)
    assert spec is not None  # the name ends as a module's does
    assert spec.loader is not None
    module = sys.modules[name] = module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
    except (Exception, SystemExit) as error:
        del sys.modules[name]
        raise _failed(str(path), error) from error
    return module


def _look_in(folder: Path) -> None:
    """Let modules of a folder be imported: now, and when a function of them imports one later."""
    if str(folder) not in sys.path:
        sys.path.insert(0, str(folder))


def _failed(name: str, error: BaseException) -> UsageError:
    return UsageError(f"{name} cannot be imported ({type(error).__name__}: {error}); mend it, and try again")


def _has(found: object) -> str:
    """Names that may be meant, as the next action of a message."""
    own = [name for name, value in vars(found).items() if not name.startswith("_") and _is_own(value, found)]
    return f"it has {', '.join(own[:8])}{', …' if len(own) > len(own[:8]) else ''}" if own else "name one that it has"


def _is_own(value: object, module: object) -> bool:
    """Whether a module has made a value itself: a function or class of its own, or an object of any class."""
    if isinstance(value, type) or hasattr(value, "__name__"):
        return getattr(value, "__module__", None) == getattr(module, "__name__", "")
    return type(value).__module__ not in {"builtins", "typing"}
