"""What a WHERE clause says about single columns of single relations, for pruning files. Pure.

Every term is a consequence of the clause: a file is left out only if no row of it can pass.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Final

from sqlglot import exp

from lakehouse.model.schema import Column
from lakehouse.queryd.bind import Reference
from lakehouse.table.stats import Term

_OPERATORS: Final[dict[type[exp.Expr], str]] = {
    exp.EQ: "=",
    exp.LT: "<",
    exp.LTE: "<=",
    exp.GT: ">",
    exp.GTE: ">=",
}
_MIRRORED: Final = {"=": "=", "<": ">", "<=": ">=", ">": "<", ">=": "<="}
_NUMBERS: Final = ("int64", "uint64", "float64", "decimal(")
_TIMES: Final = ("date", "timestamp", "timestamptz")


def terms(
    tree: exp.Expr,
    references: tuple[Reference, ...],
    columns: Mapping[str, Mapping[str, Column]],
) -> dict[str, list[Term]]:
    """Slot -> terms that every row of that mention must satisfy to matter.

    Only the WHERE of the SELECT that mentions the relation counts, and only comparisons with
    constants that are false for null: those hold below outer joins too.
    """
    by_slot = {reference.slot: reference for reference in references}
    found: dict[str, list[Term]] = {}
    for select in tree.find_all(exp.Select):
        where = select.args.get("where")
        if where is None:
            continue
        mentioned = {
            table.alias: by_slot[table.name] for table in _sources(select) if table.name in by_slot
        }
        for conjunct in conjuncts(where.this):
            for alias, name, operator, values in comparisons(conjunct):
                reference = mentioned.get(alias)
                column = columns[reference.table].get(name) if reference is not None else None
                if reference is None or column is None:
                    continue
                texts = [constant(value, column.type) for value in values]
                if all(text is not None for text in texts):
                    known = tuple(text for text in texts if text is not None)
                    term = Term(column.id, operator, known, column.type)
                    found.setdefault(reference.slot, []).append(term)
    return found


def _sources(select: exp.Select) -> Iterator[exp.Table]:
    """Relations that stand directly in the FROM of ``select``."""
    origin = select.args.get("from_") or select.args.get("from")
    places = [origin.this] if origin is not None else []
    places += [join.this for join in select.args.get("joins") or ()]
    for place in places:
        if isinstance(place, exp.Table):
            yield place


def conjuncts(node: exp.Expr) -> Iterator[exp.Expr]:
    """What must hold all together for ``node`` to hold."""
    waiting = [node]
    while waiting:
        one = waiting.pop()
        if isinstance(one, exp.Paren):
            waiting.append(one.this)
        elif isinstance(one, exp.And):
            waiting += [one.this, one.expression]
        else:
            yield one


def comparisons(
    node: exp.Expr,
) -> Iterator[tuple[str, str, str, list[exp.Expr]]]:
    """(alias, column, operator, constants) of a conjunct."""
    operator = _OPERATORS.get(type(node))
    if operator is not None:
        left, right = node.this, node.expression
        if isinstance(right, exp.Column):
            left, right, operator = right, left, _MIRRORED[operator]
        if isinstance(left, exp.Column):
            yield left.table, left.name, operator, [right]
    elif isinstance(node, exp.Between) and isinstance(node.this, exp.Column):
        column = node.this
        if not node.args.get("symmetric"):
            yield column.table, column.name, ">=", [node.args["low"]]
            yield column.table, column.name, "<=", [node.args["high"]]
    elif (
        isinstance(node, exp.In)
        and isinstance(node.this, exp.Column)
        and node.expressions
        and not node.args.get("query")
    ):
        yield node.this.table, node.this.name, "in", list(node.expressions)


def constant(node: exp.Expr, kind: str) -> str | None:
    """A constant as the text of a bound of that type; None if it is not surely the same value."""
    sign = ""
    while isinstance(node, exp.Paren):
        node = node.this
    if isinstance(node, exp.Neg):
        sign, node = "-", node.this
    if isinstance(node, exp.Cast) and not sign:
        if node.to.sql().lower() != kind or not isinstance(node.this, exp.Literal):
            return None
        node = node.this
    if not isinstance(node, exp.Literal):
        return None
    text = str(node.this)
    if node.is_string:
        if kind == "string" and not sign:
            return text
        return text.replace(" ", "T", 1) if kind in _TIMES and not sign else None
    if kind.startswith(_NUMBERS) and "e" not in text.lower():
        return sign + text
    return None
