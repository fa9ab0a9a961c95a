"""The grammar of waists: ``maxpool(1, 4, 4) | quantile(bins=2)`` becomes an immutable `Recipe`.

A recipe's text is a Python expression, ``reduction | discretization``, read by `ast` (nothing is evaluated).
A fitted discretization also takes ``scope=unit|channel|layer`` (whose values share edges) and
``per=epoch|run`` (whether edges are fitted anew each epoch).
"""

import ast
import difflib
import inspect
import sys
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Final, Literal, NoReturn, get_args

import numpy as np

from ibstore.analyze.discretize import DISCRETIZATIONS, Binning, Discretization
from ibstore.analyze.reduce import CHECKS, REDUCTIONS, Block
from ibstore.errors import WaistError

SCOPES: Final = ("unit", "channel", "layer")
SPANS: Final = ("epoch", "run")
LARGEST: Final = sys.float_info.max
NO_RECIPE: Final = "a recipe is reduction | discretization, as in identity | quantile(bins=2)"

Value = int | float | str


@dataclass(frozen=True)
class Call:
    """A function's name with its arguments, defaults filled in: ``maxpool(1, 4, 4)``."""

    name: str
    args: tuple[Value, ...] = ()
    kwargs: tuple[tuple[str, Value], ...] = ()

    def __str__(self) -> str:
        arguments = [f"{value}" for value in self.args] + [f"{name}={value}" for name, value in self.kwargs]
        return f"{self.name}({', '.join(arguments)})" if arguments else self.name


@dataclass(frozen=True)
class View:
    """What a recipe sees of a layer: a reduction of all of it, or of one channel."""

    reduction: Call
    channel: int | None = None

    def __str__(self) -> str:
        return str(self.reduction) if self.channel is None else f"channel {self.channel}: {self.reduction}"

    @property
    def is_stored(self) -> bool:
        """Whether it is the layer as it is stored, which needs no memory of its own."""
        return self.reduction.name == "identity" and self.channel is None


@dataclass(frozen=True)
class Recipe:
    """How one layer is narrowed, or one ``channel`` of it; equal recipes have equal texts.

    Examples
    --------
    >>> parse_recipe("maxpool(1,4,4)|quantile(2)")
    Recipe('maxpool(1, 4, 4) | quantile(bins=2, lo=0.01, hi=0.99)')
    """

    reduction: Call
    discretization: Call
    scope: Literal["unit", "channel", "layer"] = "unit"
    per: Literal["epoch", "run"] = "epoch"
    channel: int | None = None

    def __str__(self) -> str:
        options = [("scope", self.scope)] * (self.scope != "unit") + [("per", self.per)] * (self.per != "epoch")
        call = self.discretization
        return f"{self.view} | {Call(call.name, call.args, (*call.kwargs, *options))}"

    def __repr__(self) -> str:
        return f"Recipe({str(self)!r})"

    @property
    def view(self) -> View:
        """What it sees of the layer; recipes that see the same share the work of reducing."""
        return View(self.reduction, self.channel)

    def chosen(self, block: Block) -> Block:
        """The recipe's channel of a block (sample, channel, …), which stays an axis; the whole block without one."""
        return block if self.channel is None else block[:, self.channel : self.channel + 1]

    def reduce(self, block: Block) -> Block:
        """Reduce values (sample, …) to (sample, …); raises WaistError where the layer's shape does not fit."""
        call = self.reduction
        try:
            with np.errstate(over="ignore", invalid="ignore"):  # ∞ − ∞ is NaN, and NaN is looked for
                reduced = REDUCTIONS[call.name](self.chosen(block), *call.args, **dict(call.kwargs))
        except ValueError as error:
            raise WaistError(f"{self}: {error}; the layer's shape is {block.shape[1:]}") from None
        if np.shape(reduced)[:1] != block.shape[:1]:
            raise WaistError(
                f"{self}: {call.name} does not keep the sample axis: from shape {block.shape} it makes "
                f"{np.shape(reduced)}"
            )
        return reduced

    @property
    def discretize(self) -> Discretization:
        """The discretization with its parameters bound."""
        return _bound(DISCRETIZATIONS[self.discretization.name], self.discretization)

    @property
    def meaning(self) -> str:
        """What results hang on: the text, and the source of functions that ibstore does not ship."""
        functions = REDUCTIONS[self.reduction.name], DISCRETIZATIONS[self.discretization.name]
        return "\n".join([str(self), *map(_foreign_source, functions)]).rstrip()

    @property
    def view_meaning(self) -> str:
        """What results hang on that see reduced values alone."""
        return "\n".join([str(self.view), _foreign_source(REDUCTIONS[self.reduction.name])]).rstrip()


@lru_cache
def _bound(function: Callable[..., Discretization], call: Call) -> Discretization:
    """Made once, though every epoch asks for it; another function of that name makes another."""
    return function(*call.args, **dict(call.kwargs))


def _foreign_source(function: Callable[..., Any]) -> str:
    """Source of a function that a user registered, where Python has it."""
    if str(function.__module__).startswith("ibstore."):
        return ""
    try:
        return inspect.getsource(function)
    except (OSError, TypeError):  # typed at a prompt
        return ""


EXACT: Final = Recipe(Call("identity"), Call("exact"))


def parse_recipe(text: str) -> Recipe:
    """Recipe from its text, ``reduction | discretization``.

    Raises
    ------
    WaistError
        With the text and a mark under the offending place.

    Examples
    --------
    >>> parse_recipe("maxpol(4, 4) | threshold(0.5)")
    Traceback (most recent call last):
    ibstore.errors.WaistError: unknown reduction 'maxpol'; did you mean 'maxpool'?
      maxpol(4, 4) | threshold(0.5)
      ^^^^^^
    """
    source = " ".join(text.split())
    if not source:
        _refuse(source, NO_RECIPE, 0)
    try:
        tree = ast.parse(source, mode="eval").body
    except SyntaxError as error:
        place = error.offset - 1 if error.offset else len(source)  # in characters; 0 means the end
        _refuse(source, f"cannot be read ({error.msg})", len(source[:place].encode()))
    except (ValueError, RecursionError, MemoryError):
        raise WaistError("the recipe cannot be read; write reduction | discretization") from None
    if not (isinstance(tree, ast.BinOp) and isinstance(tree.op, ast.BitOr)):
        _refuse(source, NO_RECIPE, 0)
    if isinstance(tree.left, ast.BinOp):
        _refuse(source, "a recipe has one reduction and one discretization", *_span(tree.right))
    reduction = _bind(source, tree.left, "reduction", REDUCTIONS, _read_call(source, tree.left))
    _checked(source, tree.left, CHECKS.get(reduction.name), reduction)
    name, args, kwargs = _read_call(source, tree.right)
    scope = _option(source, tree.right, kwargs, "scope", SCOPES)
    per = _option(source, tree.right, kwargs, "per", SPANS)
    discretization = _bind(source, tree.right, "discretization", DISCRETIZATIONS, (name, args, kwargs))
    discretize = _checked(source, tree.right, DISCRETIZATIONS[name], discretization)
    if (scope or per) and not (isinstance(discretize, Binning) and discretize.levels):
        _refuse(source, f"{name} has fixed bins and takes no scope or per", *_span(tree.right))
    return Recipe(reduction, discretization, scope or "unit", per or "epoch")  # type: ignore[arg-type]


def parse_call(text: str, kind: str, known: Mapping[str, Callable[..., Any]]) -> Call:
    """Call of one of the ``known`` functions, ``name`` or ``name(…)``, with its defaults filled in.

    Raises
    ------
    WaistError
        With the text and a mark under the offending place.
    """
    source = " ".join(text.split())
    try:
        node = ast.parse(source, mode="eval").body
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        raise WaistError(f"it cannot be read; write name or name(argument=value), as in {next(iter(known))}") from None
    return _bind(source, node, kind, known, _read_call(source, node))


def _checked(source: str, node: ast.expr, function: Callable[..., Any] | None, call: Call) -> Any:
    """Result of ``function`` with the call's arguments; its own complaint about them points at the call."""
    try:
        return function(*call.args, **dict(call.kwargs)) if function else None
    except ValueError as error:
        _refuse(source, str(error), *_span(node))


def _read_call(source: str, node: ast.expr) -> tuple[str, list[Value], dict[str, Value]]:
    """Name, positional and keyword arguments of ``name`` or ``name(…)``."""
    if isinstance(node, ast.Name):
        return node.id, [], {}
    if not (isinstance(node, ast.Call) and isinstance(node.func, ast.Name)):
        _refuse(source, "expected a name, or a name with arguments in parentheses", *_span(node))
    args = [_literal(source, argument) for argument in node.args]
    kwargs: dict[str, Value] = {}
    for keyword in node.keywords:
        if keyword.arg is None:
            _refuse(source, "expected name=value", *_span(keyword.value))
        if keyword.arg in kwargs:
            _refuse(source, f"{keyword.arg} is given twice; keep one", *_span(keyword))
        kwargs[keyword.arg] = _literal(source, keyword.value)
    return node.func.id, args, kwargs


def _literal(source: str, node: ast.expr) -> Value:
    """Value of a number, a signed number or a word."""
    if isinstance(node, ast.Name):
        return node.id
    sign = 1
    inner = node
    if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub | ast.UAdd):
        sign, inner = (-1 if isinstance(node.op, ast.USub) else 1), node.operand
    if not (isinstance(inner, ast.Constant) and type(inner.value) in {int, float}):
        _refuse(source, "expected a number or a word", *_span(node))
    number: int | float = sign * inner.value  # type: ignore[operator, assignment]
    if not abs(number) <= LARGEST:
        _refuse(source, "the number is too large", *_span(node))
    return number


def _option(source: str, node: ast.expr, kwargs: dict[str, Value], name: str, allowed: tuple[str, ...]) -> str | None:
    """Take ``name=word`` out of the keywords."""
    value = kwargs.pop(name, None)
    if value is not None and value not in allowed:
        _refuse(source, f"{name} is one of {', '.join(allowed)}, not {value}", *_span(_argument(node, name)))
    return None if value is None else str(value)


def _bind(
    source: str,
    node: ast.expr,
    kind: str,
    known: Mapping[str, Callable[..., Any]],
    call: tuple[str, list[Value], dict[str, Value]],
) -> Call:
    """Check a call against the registered function's signature and fill in its defaults."""
    name, args, kwargs = call
    if name not in known:
        hint = near(name, known) or f"; there are {', '.join(known)}"
        _refuse(source, f"unknown {kind} {name!r}{hint}", *_span(node.func if isinstance(node, ast.Call) else node))
    signature = inspect.signature(known[name], eval_str=True)
    taken = list(signature.parameters.values())[1 if kind == "reduction" else 0 :]  # a reduction's first is the block
    signature = signature.replace(parameters=taken)
    try:
        bound = signature.bind(*args, **kwargs)
    except TypeError as error:
        wanted = ", ".join(str(parameter) for parameter in taken) or "no arguments"
        _refuse(source, f"{name}: {error}; it takes {wanted}", *_span(node))
    bound.apply_defaults()
    positional: list[Value] = []
    named: list[tuple[str, Value]] = []
    for parameter in taken:
        value = bound.arguments[parameter.name]
        if parameter.kind is inspect.Parameter.VAR_POSITIONAL:
            positional += [_typed(source, node, parameter, item) for item in value]
        else:
            named.append((parameter.name, _typed(source, node, parameter, value)))
    return Call(name, tuple(positional), tuple(named))


def _argument(node: ast.expr, name: str) -> ast.expr:
    """Where a keyword's value stands in a call; the whole call where it is not given by name."""
    keywords = node.keywords if isinstance(node, ast.Call) else []
    return next((keyword.value for keyword in keywords if keyword.arg == name), node)


def _typed(source: str, node: ast.expr, parameter: inspect.Parameter, value: Value) -> Value:
    """``value`` as the type that the parameter is annotated with."""
    kinds = get_args(parameter.annotation) or (parameter.annotation,)
    if float in kinds and type(value) in {int, float}:
        return float(value) + 0.0  # −0.0 is 0.0: equal recipes have equal texts
    if all(isinstance(kind, type) for kind in kinds) and type(value) not in kinds:
        place = _span(_argument(node, parameter.name))
        wanted = " or ".join(kind.__name__ for kind in kinds)
        _refuse(source, f"{parameter.name} must be of type {wanted}, not {value}", *place)
    return value


def near(name: str, known: Iterable[str]) -> str:
    """Hint at the closest of the known names, or nothing."""
    close = difflib.get_close_matches(name, list(known), n=1)
    return f"; did you mean {close[0]!r}?" if close else ""


def _span(node: ast.expr | ast.keyword) -> tuple[int, int]:
    return node.col_offset, node.end_col_offset or node.col_offset + 1


def _refuse(source: str, message: str, start: int, end: int | None = None) -> NoReturn:
    """Point at source[start:end], offsets in UTF-8 bytes as `ast` gives them."""
    raw = source.encode()
    before, marked = raw[:start].decode(errors="ignore"), raw[start:end].decode(errors="ignore")
    length = len(marked) if end is not None else 1
    raise WaistError(f"{message}\n  {source}\n  {' ' * len(before)}{'^' * max(1, length)}")
