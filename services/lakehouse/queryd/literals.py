"""Parameters as values in the tree.

A parameter becomes a literal *node*, never text: the generator quotes it, so it cannot be anything
but a value. Unlike a bound string it has no type of its own, so that ``day >= $1`` compares dates,
as in PostgreSQL, on both engines alike, and files can be pruned by it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

import orjson
from sqlglot import exp

from lakehouse.queryd.parse import Statement, invalid, parameter_name

_PARAMETERS_MAX: Final = 10_000  # with the items of arrays
_NESTING_MAX: Final = 32


@dataclass(frozen=True, slots=True)
class Parameters:
    """Values by position or by name."""

    positional: tuple[Any, ...] = ()
    named: tuple[tuple[str, Any], ...] = ()


def read_parameters(text: str, statement: Statement) -> Parameters:
    """The JSON of a request, checked against what the statement asks for.

    Raises ``invalid``: not JSON, not an array or object, too few, too many, or an unknown name.
    """
    if text == "":
        given: Any = []
    else:
        try:
            given = orjson.loads(text)
        except orjson.JSONDecodeError as error:
            raise invalid("the parameters are not JSON") from error
    _check_size(given)
    if isinstance(given, dict):
        missing = [name for name in statement.named if name not in given]
        unknown = [name for name in given if name not in statement.named]
        if missing or unknown or statement.positional:
            raise invalid(
                "the parameters do not match the statement",
                missing=", ".join(missing)[:200],
                unknown=", ".join(unknown)[:200],
                hint="an object for $name, an array for ? and $1",
            )
        return Parameters(named=tuple(given.items()))
    if not isinstance(given, list):
        raise invalid("the parameters must be a JSON array or object")
    if len(given) != statement.positional or statement.named:
        raise invalid(
            "the parameters do not match the statement",
            given=len(given),
            expected=statement.positional or len(statement.named),
            hint="an object for $name, an array for ? and $1",
        )
    return Parameters(positional=tuple(given))


def _check_size(given: Any) -> None:
    level, count = [given], 0
    for _ in range(_NESTING_MAX):
        level = [
            item
            for one in level
            if isinstance(one, list | dict)
            for item in (one.values() if isinstance(one, dict) else one)
        ]
        count += len(level)
        if count > _PARAMETERS_MAX:
            raise invalid(
                "there are too many parameters",
                limit=_PARAMETERS_MAX,
                hint="ingest them as a dataset and join with it",
            )
        if not level:
            return
    raise invalid("a parameter is nested too deep", limit=_NESTING_MAX)


def substitute(tree: exp.Expr, parameters: Parameters) -> exp.Expr:
    """``tree`` with its placeholders replaced by literals, in place."""
    named = dict(parameters.named)
    questions = iter(parameters.positional)
    for node in list(tree.find_all(exp.Placeholder, exp.Parameter, bfs=False)):
        name = parameter_name(node)
        if name == "":
            value = next(questions)
        elif name.isdigit():
            position = int(name)
            if not 1 <= position <= len(parameters.positional):
                raise invalid("there is no such parameter", parameter=f"${name}")
            value = parameters.positional[position - 1]
        else:
            value = named[name]
        node.replace(literal(value))
    return tree


def literal(value: Any) -> exp.Expr:
    """A JSON value as a literal. Raises ``invalid`` for what has no literal."""
    if value is None:
        return exp.Null()
    if isinstance(value, bool):
        return exp.Boolean(this=value)
    if isinstance(value, int):
        number = exp.Literal.number(abs(value))
        return number if value >= 0 else exp.Paren(this=exp.Neg(this=number))
    if isinstance(value, float):
        return exp.Cast(this=exp.Literal.string(repr(value)), to=exp.DataType.build("DOUBLE"))
    if isinstance(value, str):
        if "\x00" in value:
            raise invalid("a parameter has a NUL character", hint="remove it")
        return exp.Literal.string(value)
    if isinstance(value, list):
        return exp.Array(expressions=[literal(item) for item in value])
    raise invalid("a parameter must be a string, number, boolean, null or array of them")
