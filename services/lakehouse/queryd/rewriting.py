"""How one node of a tree is replaced by another that may hold it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Final

from sqlglot import exp

from lakehouse.queryd.kinds import kind
from lakehouse.queryd.parse import invalid

_HOLE_DEPTH: Final = 4

Rewrite = Callable[[exp.Expr], exp.Expr | None]


class _Hole(exp.Expression):
    """Where the rewritten node itself goes in what replaces it."""


def put(node: exp.Expr, outer: exp.Expr) -> None:
    """Replace ``node`` by ``outer``, in which a hole stands for the node."""
    gap = _find_hole(outer)
    if outer.type is None:
        outer.type = node.type
    node.replace(outer)
    if gap is not None:
        gap.replace(node)


def _find_hole(outer: exp.Expr) -> exp.Expr | None:
    """The hole near the top of ``outer``; below are the operands, which may be large."""
    level = [outer]
    for _ in range(_HOLE_DEPTH):
        level = [child for node in level for child in node.iter_expressions()]
        for node in level:
            if isinstance(node, _Hole):
                return node
    return None


def hole() -> exp.Expr:
    """Where ``put`` puts the node that is replaced."""
    return _Hole()


def cast(node: exp.Expr, to: str) -> exp.Cast:
    """``CAST(node AS to)``."""
    return exp.Cast(this=node, to=exp.DataType.build(to))


def call(name: str, *arguments: exp.Expr) -> exp.Anonymous:
    """A call of a function by the engine's own name for it."""
    return exp.Anonymous(this=name, expressions=list(arguments))


def outermost(node: exp.Expr) -> exp.Expr:
    """The aggregate with its FILTER and OVER."""
    while isinstance(node.parent, exp.Filter | exp.Window | exp.WithinGroup) and (
        node.parent.this is node
    ):
        node = node.parent
    return node


def kind_of_type(dtype: exp.DataType) -> str:
    """``kinds.kind`` of a type itself."""
    holder = exp.Null()
    holder.type = dtype
    return kind(holder)


def argument(node: exp.Expr) -> exp.Expr:
    """The first argument of a call."""
    found: exp.Expr = node.expressions[0] if isinstance(node, exp.Anonymous) else node.this
    return found


def distance(node: exp.Expr, names: Mapping[str, str]) -> exp.Expr | None:
    """A distance of two vectors by the engine's name for it, over doubles; None for other nodes.

    Raises ``invalid`` unless it is of two.
    """
    if not isinstance(node, exp.Anonymous | exp.CosineDistance):
        return None
    name = "cosine_distance" if isinstance(node, exp.CosineDistance) else node.name.lower()
    if name not in names:
        return None
    pair = node.expressions if isinstance(node, exp.Anonymous) else [node.this, node.expression]
    if len(pair) != 2 or None in pair:
        raise invalid("a distance is one of two vectors", function=name, arguments=len(pair))
    return call(names[name], *(cast(one.copy(), "DOUBLE[]") for one in pair))


def replace_outermost(node: exp.Expr, make: Callable[[exp.Expr], exp.Expr]) -> None:
    """Wrap an aggregate together with its FILTER and OVER."""
    outer = outermost(node)
    put(outer, make(hole()))
