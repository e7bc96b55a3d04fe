"""maths: sums, worked out on the syntax tree and never by `eval`."""

from __future__ import annotations

import ast
import math
import operator
from collections.abc import Callable
from typing import Any, Final

from server.tools.native.given import Given
from server.tools.native.native_tool import NativeTool, arguments
from server.workflow.services import Tool, ToolOutput

__all__ = ["evaluate", "tools"]

_MOST_CHARACTERS: Final = 2_000
_MOST_NODES: Final = 500
_FAULTS: Final = (ValueError, ArithmeticError, TypeError, SyntaxError, RecursionError, MemoryError)
_MOST_BITS: Final = 4_096
"""Of a whole number; what would be larger is refused before it is worked out."""
_MOST_PLACES: Final = 1_000

_BINARY: Final[dict[type[ast.operator], Callable[[Any, Any], Any]]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
    ast.FloorDiv: operator.floordiv,
    ast.Mod: operator.mod,
    ast.Pow: operator.pow,
}
_UNARY: Final[dict[type[ast.unaryop], Callable[[Any], Any]]] = {
    ast.UAdd: operator.pos,
    ast.USub: operator.neg,
}
_NAMES: Final = {"pi": math.pi, "e": math.e, "tau": math.tau}


def _rounded(number: float, places: int = 0) -> int | float:
    """Python would work out ten to the power of any number of places."""
    if abs(places) > _MOST_PLACES:
        raise ValueError(f"round takes at most {_MOST_PLACES} places")
    return round(number, places) if places else round(number)


_FUNCTIONS: Final[dict[str, Callable[..., Any]]] = {
    **{name: getattr(math, name) for name in ("sqrt", "exp", "log", "log2", "log10", "log1p")},
    **{
        name: getattr(math, name) for name in ("sin", "cos", "tan", "asin", "acos", "atan", "atan2")
    },
    **{name: getattr(math, name) for name in ("sinh", "cosh", "tanh", "degrees", "radians")},
    **{name: getattr(math, name) for name in ("ceil", "floor", "trunc", "hypot", "expm1")},
    "arcsin": math.asin,
    "arccos": math.acos,
    "arctan": math.atan,
    "ln": math.log,
    "abs": abs,
    "round": _rounded,
    "min": min,
    "max": max,
}


def tools() -> list[Tool]:
    schema = arguments({"expression": "Such as (3 + 4) * 2 ** 5 / sqrt(2)."}, ("expression",))
    told = "Works out a mathematical expression."
    return [NativeTool("maths", "eval_expression", told, schema, _evaluate)]


async def _evaluate(given: Given) -> ToolOutput:
    expression = given.text("expression").strip()
    try:
        result = evaluate(expression)
    except _FAULTS as error:
        raise given.wrong(f"Invalid expression: {expression[:200]}, error: {error}") from None
    return ToolOutput(text=f'The result of the expression "{expression}" is {result}')


def evaluate(expression: str) -> int | float:
    """The value of an expression of numbers, + - * / // % ** and the usual functions. Raises
    `ValueError`, `ArithmeticError`, `TypeError` or `SyntaxError`."""
    if len(expression) > _MOST_CHARACTERS:
        raise ValueError(f"it is longer than {_MOST_CHARACTERS} characters")
    tree = ast.parse(expression.replace("^", "**"), mode="eval")
    if sum(1 for _ in ast.walk(tree)) > _MOST_NODES:
        raise ValueError("it has too many parts")
    return _value(tree.body)


def _value(node: ast.expr) -> int | float:
    if isinstance(node, ast.Constant) and type(node.value) in (int, float):
        return _bounded(node.value)
    if isinstance(node, ast.Name) and node.id in _NAMES:
        return _NAMES[node.id]
    if isinstance(node, ast.UnaryOp) and type(node.op) in _UNARY:
        return _bounded(_UNARY[type(node.op)](_value(node.operand)))
    if isinstance(node, ast.BinOp) and type(node.op) in _BINARY:
        return _binary(node)
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and not node.keywords:
        return _called(node.func.id, [_value(item) for item in node.args])
    raise ValueError(f"{ast.unparse(node)[:60]!r} is no number, operator or function known here")


def _binary(node: ast.BinOp) -> int | float:
    left, right = _value(node.left), _value(node.right)
    whole = isinstance(left, int) and isinstance(right, int)
    if whole and isinstance(node.op, ast.Pow) and int(left).bit_length() * right > _MOST_BITS:
        raise ValueError("its result is too large")
    return _bounded(_BINARY[type(node.op)](left, right))


def _called(name: str, given: list[int | float]) -> int | float:
    function = _FUNCTIONS.get(name)
    if function is None:
        raise ValueError(f"there is no function {name!r}")
    return _bounded(function(*given))


def _bounded(value: Any) -> int | float:
    if isinstance(value, complex) or not isinstance(value, int | float):
        raise ValueError("its result is no real number")
    if isinstance(value, int) and value.bit_length() > _MOST_BITS:
        raise ValueError("its result is too large")
    return value
