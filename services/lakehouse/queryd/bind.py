"""Names to datasets and columns: one tree in which every name is exact and quoted.

Names are compared as the catalog compares them (``refs.name_key``). Inside the engines every name
is in its folded form; what clients see is the display form, by position.
"""

from __future__ import annotations

import difflib
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from sqlglot import exp
from sqlglot.errors import OptimizeError, SqlglotError
from sqlglot.optimizer.annotate_types import annotate_types
from sqlglot.optimizer.qualify import qualify
from sqlglot.optimizer.scope import Scope, traverse_scope

from lakehouse.errors import ErrorKind, LakehouseError
from lakehouse.model.refs import SYSTEM_SCHEMA, name_key
from lakehouse.queryd.comparisons import check_comparisons
from lakehouse.queryd.kinds import METADATA
from lakehouse.queryd.literals import Parameters, substitute
from lakehouse.queryd.parse import invalid
from lakehouse.queryd.plan import OutputColumn
from lakehouse.queryd.points import POINTS_MAX, PUBLIC_SCHEMA, Mention, mention_of

OUTPUT_COLUMNS_MAX: Final = 4100
_UNSIGNED: Final = "UBIGINT"
_SQL_TYPES: Final = {
    "string": "TEXT",
    "bool": "BOOLEAN",
    "int64": "BIGINT",
    "uint64": _UNSIGNED,
    "float64": "DOUBLE",
    "date": "DATE",
    "time": "TIME",
    "timestamp": "TIMESTAMP",
    "timestamptz": "TIMESTAMPTZ",
    "binary": "BLOB",
}
_NAME_IN_ERROR: Final = re.compile(r"[Cc]olumn '?\"?([^'\"]+?)\"?'? ")

_UNKNOWN: Final = re.compile(r"[Uu]nknown column:? '?\"?([^'\"]+)")


@dataclass(frozen=True, slots=True)
class BoundColumn:
    """A column of a relation: ``name`` as shown, ``folded`` as the statement says it, unique."""

    name: str
    folded: str
    type: str


@dataclass(frozen=True, slots=True)
class Reference:
    """One mention of a relation in the tree: ``slot`` is its table name there until the files it
    needs are known, ``table`` the key of the mention, ``alias`` the name of its columns'
    qualifier."""

    slot: str
    table: str
    alias: str


@dataclass(frozen=True, slots=True)
class Bound:
    """A statement in which all names are resolved and all types known that can be."""

    tree: exp.Expr
    references: tuple[Reference, ...]
    output: tuple[OutputColumn, ...]


def mentions(tree: exp.Expr) -> tuple[Mention, ...]:
    """The relations a statement reads, as written, each once at each point in time; names of CTEs
    are not among them. Raises ``invalid`` for a point in time that is none."""
    copy = tree.copy()
    _fold(copy, {})
    tables = _tables(copy)
    found: dict[str, Mention] = {}
    for table in tables:
        mention = mention_of(table)
        found.setdefault(mention.key, mention)
    here = {id(table) for table in tables}
    for version in copy.find_all(exp.Version):
        if id(version.parent) not in here:
            raise invalid(
                "only a dataset has versions",
                relation=version.parent.alias_or_name[:80] if version.parent else None,
                hint="give the versions where the datasets are named",
            )
    if sum(one.as_of is not None for one in found.values()) > POINTS_MAX:
        raise invalid("too many versions in one statement", limit=POINTS_MAX)
    return tuple(found.values())


def fold_columns(columns: Sequence[tuple[str, str]]) -> tuple[BoundColumn, ...]:
    """Columns (name, type text) with folded names made unique: ``Id`` and ``ID`` are ``id`` and
    ``id_2``, and each is found by its exact spelling."""
    names = Names()
    return tuple(BoundColumn(name, names.give(name_key(name)), kind) for name, kind in columns)


def bind(
    tree: exp.Expr,
    relations: Mapping[str, tuple[BoundColumn, ...]],
    parameters: Parameters,
) -> Bound:
    """Resolve ``tree`` against ``relations`` (keys of mentions -> columns).

    Raises ``invalid``: an unknown or ambiguous column (with the nearest names), a parameter that
    is missing.
    """
    copy = _named_values(substitute(tree.copy(), parameters))
    exact = {
        column.name: column.folded
        for columns in relations.values()
        for column in columns
        if column.folded != name_key(column.name)
    }
    shown: dict[str, str] = {}
    for columns in relations.values():
        for column in columns:
            shown.setdefault(column.folded, column.name)
    written = _fold(copy, exact)
    _name_outputs(copy, written, shown)
    for select in copy.find_all(exp.Select):
        _separate_written(select)
    slots, references = _slot_tables(copy, relations)
    try:
        copy = qualify(
            copy, schema=slots, dialect="postgres", quote_identifiers=True, identify=True
        )
        copy = annotate_types(copy, schema=slots, expression_metadata=METADATA, dialect="postgres")
    except (OptimizeError, SqlglotError) as error:
        raise _resolution_error(error, references, relations) from error
    check_comparisons(copy)
    width = len(_leftmost(copy).expressions)
    if width > OUTPUT_COLUMNS_MAX:
        raise invalid(
            "the result has too many columns",
            columns=width,
            limit=OUTPUT_COLUMNS_MAX,
            hint="name the columns that are needed",
        )
    output = _output(copy, shown, written)
    _separate_outputs(copy)
    for inner in list(copy.find_all(exp.Subquery, exp.CTE)):
        _separate_inner(copy, inner)
    return Bound(copy, references, output)


def _named_values(tree: exp.Expr) -> exp.Expr:
    """VALUES have the column names of PostgreSQL, ``column1 column2 ..``, unless given others."""
    for values in list(tree.find_all(exp.Values)):
        alias = values.args.get("alias")
        first = values.expressions[0] if values.expressions else None
        if first is None or (alias is not None and alias.args.get("columns")):
            continue
        width = len(first.expressions) if isinstance(first, exp.Tuple) else 1
        name = alias.this.copy() if alias is not None and alias.this else exp.to_identifier("v")
        names = [exp.to_identifier(f"column{at + 1}") for at in range(width)]
        named = exp.TableAlias(this=name, columns=names)
        if alias is not None or isinstance(values.parent, exp.From | exp.Join):
            values.set("alias", named)
            continue
        inner = values.copy()
        inner.set("alias", named)
        select = exp.select("*").from_(inner)
        if values.parent is None:
            return select
        values.replace(select)
    return tree


def _fold(tree: exp.Expr, exact: Mapping[str, str]) -> dict[str, str]:
    """Fold every identifier in place; what names looked like that were written as aliases."""
    written: dict[str, str] = {}
    for node in tree.find_all(exp.Identifier):
        name = node.this
        folded = exact.get(name) or name_key(name) or name
        if isinstance(node.parent, exp.Alias | exp.TableAlias) and node.arg_key != "this":
            written.setdefault(folded, name)
        node.set("this", folded)
        node.set("quoted", True)
    return written


def _tables(tree: exp.Expr) -> list[exp.Table]:
    """Every mention of a relation that is not a CTE's name, in the order of the text."""
    found: dict[int, exp.Table] = {}
    for scope in traverse_scope(tree):
        for source in scope.sources.values():
            if isinstance(source, exp.Table) and isinstance(source.this, exp.Identifier):
                if _is_recursive_mention(source, scope):
                    continue
                found.setdefault(id(source), source)
    return [table for table in tree.find_all(exp.Table) if id(table) in found]


def _is_recursive_mention(table: exp.Table, scope: Scope) -> bool:
    """Whether ``table`` names a CTE around it: inside a recursive CTE its own name is a table."""
    if table.args.get("db"):
        return False
    node: exp.Expr | None = table
    while node is not None:
        with_ = node.args.get("with_") or node.args.get("with")
        if with_ is not None and any(cte.alias == table.name for cte in with_.expressions):
            inside = next((c for c in with_.expressions if c.alias == table.name), None)
            if with_.args.get("recursive") or inside is None or not _within(table, inside):
                return True
        node = node.parent
    return False


def _within(node: exp.Expr, ancestor: exp.Expr) -> bool:
    at: exp.Expr | None = node
    while at is not None:
        if at is ancestor:
            return True
        at = at.parent
    return False


def _slot_tables(
    tree: exp.Expr, relations: Mapping[str, tuple[BoundColumn, ...]]
) -> tuple[dict[str, Any], tuple[Reference, ...]]:
    schema: dict[str, Any] = {}
    references = []
    for index, table in enumerate(_tables(tree)):
        name = mention_of(table).key
        columns = relations[name]
        slot = f"__{index}"
        schema[slot] = {column.folded: _sql_type(column.type) for column in columns}
        alias = table.alias or table.name
        qualified = {node.name for node in (table.args.get("db"),) if node is not None}
        if table.args.get("alias") is None:
            table.set("alias", exp.TableAlias(this=exp.to_identifier(alias, quoted=True)))
        table.set("db", None)
        table.set("version", None)
        table.set("this", exp.to_identifier(slot, quoted=True))
        references.append(Reference(slot, name, alias))
        if qualified:
            _drop_schema(tree, qualified | {SYSTEM_SCHEMA, PUBLIC_SCHEMA}, alias)
    return schema, tuple(references)


def _drop_schema(tree: exp.Expr, schemas: set[str], alias: str) -> None:
    """``system.files.key`` is ``files.key`` once the table is known as ``files``."""
    for column in tree.find_all(exp.Column):
        database = column.args.get("db")
        if database is not None and database.name in schemas and column.table == alias:
            column.set("db", None)


def _sql_type(kind: str) -> str:
    if kind in _SQL_TYPES:
        return _SQL_TYPES[kind]
    if kind.startswith("decimal("):
        return kind.upper()
    if kind.startswith("list<"):
        return _sql_type(kind[5:-1]) + "[]"
    if kind.startswith("vector("):
        return "REAL[]"
    return "STRUCT" if kind.startswith("struct<") else "MAP"


def _leftmost(tree: exp.Expr) -> exp.Expr:
    while isinstance(tree, exp.SetOperation | exp.Subquery):
        tree = tree.this
    return tree


def _name_outputs(tree: exp.Expr, written: dict[str, str], shown: Mapping[str, str]) -> None:
    """Give every unnamed result column PostgreSQL's name for it, and make names differ."""
    select = _leftmost(tree)
    if not isinstance(select, exp.Select):
        return
    taken = {_own_name(p) for p in select.expressions}
    inherited, invented = Names(), Names(taken)
    expressions = []
    for projection in select.expressions:
        if projection.is_star or isinstance(projection, exp.Aliases):
            expressions.append(projection)
            continue
        own = _own_name(projection)
        title = written.get(own, own) or _default_name(projection, shown)
        name = (inherited if own else invented).give(own or name_key(title))
        (invented if own else inherited).taken.add(name)
        if name != own:
            inner = projection.this if isinstance(projection, exp.Alias) else projection
            projection = exp.alias_(inner, name, quoted=True, copy=False)
            written[name] = title
        expressions.append(projection)
    select.set("expressions", expressions)


def _own_name(projection: exp.Expr) -> str:
    """The name a projection brings along: its alias or its column's name, else ""."""
    if isinstance(projection, exp.Alias | exp.Column):
        return str(projection.alias_or_name)
    return ""


class Names:
    """Names given out, each once: ``a``, ``a_2``, ``a_3``; each costs the same, however many."""

    def __init__(self, taken: Iterable[str] = ()) -> None:
        self.taken = set(taken)
        self._counts: dict[str, int] = {}

    def give(self, name: str) -> str:
        """``name`` if it is free, else the next of it that is."""
        candidate, count = name, self._counts.get(name, 1)
        while candidate in self.taken:
            count += 1
            candidate = f"{name}_{count}"
        self._counts[name] = count
        self.taken.add(candidate)
        return candidate


def _default_name(node: exp.Expr, shown: Mapping[str, str]) -> str:
    """What PostgreSQL calls a result column without an alias (parse_target.c, FigureColname)."""
    from lakehouse.queryd.guard import function_name

    while isinstance(node, exp.Paren | exp.Window | exp.Filter | exp.WithinGroup):
        node = node.this
    if isinstance(node, exp.Column | exp.Dot):
        return shown.get(node.name, str(node.name))
    if isinstance(node, exp.Case):
        return "case"
    if isinstance(node, exp.Cast):
        inner = _default_name(node.this, shown)
        return inner if inner != "?column?" else node.to.sql(dialect="postgres").lower()
    if isinstance(node, exp.Exists):
        return "exists"
    if isinstance(node, exp.Subquery):
        inner_select = _leftmost(node)
        if isinstance(inner_select, exp.Select) and inner_select.expressions:
            first = inner_select.expressions[0]
            return first.alias or _default_name(first, shown)
    if isinstance(node, exp.Func) and not isinstance(node, exp.Connector | exp.Binary):
        return function_name(node)
    return "?column?"


def _output(
    tree: exp.Expr, shown: Mapping[str, str], written: Mapping[str, str]
) -> tuple[OutputColumn, ...]:
    select = _leftmost(tree)
    if not isinstance(select, exp.Select):
        return ()
    simple = select is tree
    columns = []
    for projection in select.expressions:
        if isinstance(projection, exp.Aliases) or projection.is_star:
            return ()
        folded = projection.alias_or_name
        inner = projection.this if isinstance(projection, exp.Alias) else projection
        plain = isinstance(inner, exp.Column)
        name = written.get(folded) or shown.get(folded) or folded
        if plain and inner.name == folded and folded in shown:
            name = shown[folded]
        typed = inner.type if plain and simple else None
        columns.append(OutputColumn(name, "" if typed is None else _declared(typed)))
    return tuple(columns)


def _declared(kind: exp.DataType) -> str:
    """The type text of a plain column where engines do not tell it by themselves, else ""."""
    if kind.this == exp.DType.DECIMAL and kind.expressions:
        return kind.sql().lower().replace(" ", "")
    # The parser's dialect knows no unsigned integers: it takes their name for a user's.
    unsigned = kind.this == exp.DType.USERDEFINED and kind.args.get("kind") == _UNSIGNED
    return "uint64" if unsigned else ""


def _separate_outputs(tree: exp.Expr) -> None:
    """Make the names of the result differ: an engine refuses two ``id`` of a join's star."""
    select = _leftmost(tree)
    if not isinstance(select, exp.Select):
        return
    seen = Names()
    for projection in select.expressions:
        if isinstance(projection, exp.Alias):
            name = seen.give(projection.alias)
            if name != projection.alias:
                projection.set("alias", exp.to_identifier(name, quoted=True))


def _separate_written(select: exp.Select) -> None:
    """``select 1 as a, 2 as a`` has columns ``a`` and ``a_2``, inside as outside."""
    seen = Names()
    for projection in select.expressions:
        if isinstance(projection, exp.Alias):
            name = seen.give(projection.alias)
            if name != projection.alias:
                projection.set("alias", exp.to_identifier(name, quoted=True))
        if isinstance(projection, exp.Alias | exp.Column):
            seen.taken.add(projection.alias_or_name)


def _separate_inner(tree: exp.Expr, inner: exp.Expr) -> None:
    """Two columns of one name inside (a join's star) are fine as long as nobody asks for them."""
    select = _leftmost(inner.this)
    if not isinstance(select, exp.Select) or not inner.alias:
        return
    names = Counter(projection.alias_or_name for projection in select.expressions)
    twice = {name for name, count in names.items() if count > 1}
    if not twice:
        return
    for column in tree.find_all(exp.Column):
        if column.table == inner.alias and column.name in twice:
            raise invalid(
                "two columns of a subquery have this name",
                column=column.name,
                hint="name the columns of the subquery instead of using *",
            )
    _separate_outputs(inner.this)


def _resolution_error(
    error: Exception,
    references: Sequence[Reference],
    relations: Mapping[str, tuple[BoundColumn, ...]],
) -> LakehouseError:
    text = str(error).split("\n")[0]
    known = sorted({column.name for columns in relations.values() for column in columns})
    found = _NAME_IN_ERROR.search(text + " ") or _UNKNOWN.search(text)
    if found is None:
        return invalid("the names of the statement cannot be resolved", reason=text[:200])
    name = found.group(1).split(".")[-1].strip("\"'")
    holders = sum(
        any(column.folded == name_key(name) for column in relations[reference.table])
        for reference in references
    )
    if "ambiguous" in text.lower() or holders > 1:
        return invalid("this column is ambiguous", column=name, hint="write table.column")
    folded = {name_key(column): column for column in known}
    near = difflib.get_close_matches(name_key(name), list(folded), n=3, cutoff=0.5)
    nearest = [folded[one] for one in near]
    return LakehouseError(
        ErrorKind.INVALID,
        "there is no such column",
        column=name,
        nearest=list(nearest),
        hint=f"did you mean {' or '.join(nearest)}" if nearest else "see the dataset's schema",
    )
