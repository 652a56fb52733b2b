"""What DuckDB must be told for PostgreSQL's answer."""

from __future__ import annotations

from typing import Final

from sqlglot import exp

from lakehouse.queryd.guard import function_name
from lakehouse.queryd.kinds import kind
from lakehouse.queryd.rewriting import argument, call, cast, distance, hole, replace_outermost

_INT_TARGETS: Final = frozenset({exp.DType.INT, exp.DType.SMALLINT, exp.DType.BIGINT})
_NOW: Final = (exp.CurrentTimestamp, exp.CurrentDate, exp.Localtimestamp)
_ARITHMETIC: Final = (exp.Add, exp.Sub, exp.Mul)
_DISTANCES: Final = {
    "cosine_distance": "list_cosine_distance",
    "l2_distance": "list_distance",
    "inner_product": "list_inner_product",
}


def rewrite_duckdb(node: exp.Expr) -> exp.Expr | None:
    """What stands for ``node``, or None to leave it as it is (or as it was changed in place)."""
    if isinstance(node, exp.Div):
        node.set("typed", False)  # integer_division says the same, without a cast
        return None
    if isinstance(node, _ARITHMETIC) and kind(node) == "int":
        _widen(node, "this")
        _widen(node, "expression")
        return None
    if isinstance(node, exp.Sum) and kind(node.this) == "int":
        replace_outermost(node, lambda inner: cast(inner, "BIGINT"))
        return None
    if isinstance(node, exp.Cast) and _is_integer_cast(node) and kind(node.this) == "text":
        return _strict_integer(node)
    if isinstance(node, exp.Like | exp.ILike) and not isinstance(node.parent, exp.Escape):
        return _default_escape(node)
    if isinstance(node, exp.Substring):
        return _substring(node)
    if isinstance(node, exp.StrToTime):
        return cast(hole(), "TIMESTAMPTZ")
    if isinstance(node, exp.Hex | exp.LowerHex):
        return exp.Lower(this=call("to_hex", node.this))
    if isinstance(node, _NOW):
        return _now(node)
    if isinstance(node, exp.Anonymous | exp.Func) and function_name(node) == "octet_length":
        return call("strlen", argument(node))
    return _distance(node)


def _distance(node: exp.Expr) -> exp.Expr | None:
    """Of a vector that is null the engine would look at the numbers, and find them to be null."""
    found = distance(node, _DISTANCES)
    if not isinstance(found, exp.Anonymous):
        return found
    nulls: list[exp.Expr] = [
        exp.Is(this=exp.Paren(this=one.this.copy()), expression=exp.Null())
        for one in found.expressions
        if not isinstance(one.this, exp.Array)
    ]
    if not nulls:
        return found
    absent = nulls[0] if len(nulls) == 1 else exp.Or(this=nulls[0], expression=nulls[1])
    return exp.Case(ifs=[exp.If(this=absent, true=exp.Null())], default=found)


def _now(node: exp.Expr) -> exp.Expr:
    """As calls: a bare ``CURRENT_DATE`` next to a column of that name would be that column."""
    if isinstance(node, exp.CurrentDate):
        return cast(call("now"), "DATE")
    if isinstance(node, exp.Localtimestamp):
        return cast(call("now"), "TIMESTAMP")
    return call("now")


def _substring(node: exp.Substring) -> exp.Expr | None:
    """A start below 1 counts positions before the text; DuckDB alone counts from its end."""
    start, length = node.args.get("start"), node.args.get("length")
    if start is None or (isinstance(start, exp.Literal) and str(start.this) != "0"):
        return None
    before = exp.LT(this=start.copy(), expression=exp.Literal.number(1))
    head: exp.Expr = node.this.copy()
    if length is not None:
        moved = exp.Add(this=length.copy(), expression=exp.Paren(this=start.copy()))
        rest = exp.Sub(this=moved, expression=exp.Literal.number(1))
        bounded = exp.Greatest(this=exp.Literal.number(0), expressions=[rest])
        head = exp.Substring(this=head, start=exp.Literal.number(1), length=bounded)
    return exp.Case(ifs=[exp.If(this=before, true=head)], default=hole())


def _widen(node: exp.Expr, place: str) -> None:
    """Integers are 64 bits wide: a literal or a cast to int is no reason to overflow early."""
    operand = node.args[place]
    bare = operand
    while isinstance(bare, exp.Paren | exp.Neg):
        bare = bare.this
    if isinstance(bare, exp.Literal | exp.Cast | exp.Case) and kind(operand) == "int":
        node.set(place, cast(operand, "BIGINT"))


def _is_integer_cast(node: exp.Cast) -> bool:
    return node.to.this in _INT_TARGETS


def _strict_integer(node: exp.Cast) -> exp.Expr | None:
    """A text with a point or an exponent is no integer; DuckDB alone would round it."""
    text = node.this
    if isinstance(text, exp.Literal) and not any(char in str(text.this).lower() for char in ".e"):
        return None
    odd = exp.RegexpLike(this=text.copy(), expression=exp.Literal.string("[.eE]"))
    broken = exp.DPipe(this=text.copy(), expression=exp.Literal.string("?"))
    node.set("this", exp.Case(ifs=[exp.If(this=odd, true=broken)], default=text.copy()))
    return None


def _default_escape(node: exp.Expr) -> exp.Expr | None:
    pattern = node.expression
    if isinstance(pattern, exp.Literal) and "\\" not in str(pattern.this):
        return None
    return exp.Escape(this=hole(), expression=exp.Literal.string("\\"))
