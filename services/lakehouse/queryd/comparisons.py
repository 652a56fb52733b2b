"""Comparisons of a text with a number are refused, as in PostgreSQL.

One engine would read the text as a number, another the number as a text: ``'007' = 7`` and
``'10' < 8`` have no answer that all agree on.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from sqlglot import exp

from lakehouse.queryd.kinds import kind
from lakehouse.queryd.parse import invalid

_COMPARED: Final = (exp.EQ, exp.NEQ, exp.LT, exp.LTE, exp.GT, exp.GTE)
_DISTINCT: Final = (exp.NullSafeEQ, exp.NullSafeNEQ)
_NUMBERS: Final = frozenset({"int", "float", "decimal"})


def check_comparisons(tree: exp.Expr) -> None:
    """Raise ``invalid`` for a column of texts that is compared with a number; ``tree`` has types.

    Only columns and casts count as texts, and beside them literals as numbers: their types are
    certain. A text literal has no type of its own: ``id = '7'`` compares numbers if ``id`` is one.
    """
    for node in tree.find_all(*_COMPARED, *_DISTINCT, exp.Between, exp.In, exp.Case):
        for one, other in _pairs(node):
            _check(_plain(one), _plain(other))


def _pairs(node: exp.Expr) -> Iterator[tuple[exp.Expr, exp.Expr]]:
    this = node.args.get("this")
    if this is None:
        return
    if isinstance(node, exp.Between):
        others = [node.args["low"], node.args["high"]]
    elif isinstance(node, exp.Case):
        others = [when.this for when in node.args["ifs"]]
    elif isinstance(node, exp.In):
        others = [*node.expressions, node.args.get("query")]
    else:
        others = [node.expression]
    yield from ((this, other) for other in others if other is not None)


def _plain(node: exp.Expr) -> exp.Expr:
    """``node`` without brackets, signs and the SELECT around a single value."""
    while True:
        if isinstance(node, exp.Paren | exp.Neg | exp.Subquery | exp.Alias):
            node = node.this
        elif isinstance(node, exp.Select) and len(node.expressions) == 1:
            node = node.expressions[0]
        else:
            return node


def _check(one: exp.Expr, other: exp.Expr) -> None:
    for text, number in ((one, other), (other, one)):
        if (
            isinstance(text, exp.Column | exp.Cast)
            and isinstance(number, exp.Column | exp.Cast | exp.Literal)
            and kind(text) == "text"
            and kind(number) in _NUMBERS
        ):
            name = text.name if isinstance(text, exp.Column) else "the text"
            value = str(number.this) if isinstance(number, exp.Literal) else "7"
            raise invalid(
                "a text is compared with a number",
                column=name,
                hint=f"compare texts: {name} = '{value[:40]}', or numbers:"
                f" cast({name} as bigint) = {value[:40]}",
            )
