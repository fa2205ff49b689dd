"""Expressions of a plant file as CasADi expressions: arithmetic, a few functions, and the file's own names.

The text is parsed, not executed: only the node types listed here exist.
"""

from __future__ import annotations

import ast
import difflib
import math
from collections.abc import Callable, Mapping
from typing import Any

import casadi as ca

from rmpc_ros.errors import ConfigError

FUNCTIONS: dict[str, Callable[..., Any]] = {
    "exp": ca.exp,
    "log": ca.log,
    "sqrt": ca.sqrt,
    "sin": ca.sin,
    "cos": ca.cos,
    "tanh": ca.tanh,
    "abs": ca.fabs,
    "min": ca.fmin,
    "max": ca.fmax,
}
CONSTANTS = {"pi": math.pi}
_OPERATORS: dict[type, Callable[[Any, Any], Any]] = {
    ast.Add: lambda a, b: a + b,
    ast.Sub: lambda a, b: a - b,
    ast.Mult: lambda a, b: a * b,
    ast.Div: lambda a, b: a / b,
    ast.Pow: lambda a, b: a**b,
}


def evaluate(text: str, names: Mapping[str, Any], where: str) -> Any:
    """Value of an expression, for example "k1*exp(-E1/(R*T))*xA".

    Parameters
    ----------
    text : the expression, in Python's arithmetic with `**` for powers
    names : CasADi symbols or numbers the expression may use
    where : how an error message calls the place

    Raises
    ------
    ConfigError
        The text is not an expression, or uses a name or construct that does not exist here.
    """
    try:
        tree = ast.parse(text.strip(), mode="eval")
    except SyntaxError as error:
        raise ConfigError(f"{where} = {text!r}: not an expression: {error.msg}") from None
    return _value(tree.body, names, f"{where} = {text!r}")


def _value(node: ast.AST, names: Mapping[str, Any], where: str) -> Any:
    match node:
        case ast.Constant(value=value) if isinstance(value, (int, float)) and not isinstance(value, bool):
            return value
        case ast.Name(id=name):
            if name in names:
                return names[name]
            if name in CONSTANTS:
                return CONSTANTS[name]
            near = difflib.get_close_matches(name, [*names, *CONSTANTS], 1)
            hint = f"; did you mean '{near[0]}'?" if near else ""
            raise ConfigError(f"{where}: the name '{name}' is unknown{hint}")
        case ast.BinOp(left=left, op=operator, right=right) if type(operator) in _OPERATORS:
            return _OPERATORS[type(operator)](_value(left, names, where), _value(right, names, where))
        case ast.UnaryOp(op=ast.USub(), operand=operand):
            return -_value(operand, names, where)
        case ast.UnaryOp(op=ast.UAdd(), operand=operand):
            return _value(operand, names, where)
        case ast.Call(func=ast.Name(id=name), args=arguments, keywords=[]) if name in FUNCTIONS:
            values = [_value(a, names, where) for a in arguments]
            if len(values) != (2 if name in ("min", "max") else 1):
                raise ConfigError(f"{where}: the function '{name}' does not take {len(values)} arguments")
            return FUNCTIONS[name](*values)
    raise ConfigError(
        f"{where}: {ast.unparse(node)!r} is not allowed; use numbers, names, + - * / **, parentheses and "
        f"{', '.join(FUNCTIONS)}"
    )
