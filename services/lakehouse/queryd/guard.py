"""Which syntax and which functions may run: an allowed list of node types, refused by default."""

from __future__ import annotations

import difflib
from typing import Final

from sqlglot import exp

from lakehouse.errors import ErrorKind, LakehouseError
from lakehouse.queryd.functions import ALLOWED, SEARCHES, SPELLED, TABLES

_ROOTS: Final = (exp.Select, exp.SetOperation, exp.Values, exp.Subquery)

# Shapes of a query that reads. What is not here is refused, whatever a later parser may learn.
_SYNTAX: Final[tuple[type, ...]] = (
    exp.Select,
    exp.SetOperation,
    exp.Subquery,
    exp.Values,
    exp.With,
    exp.CTE,
    exp.From,
    exp.Join,
    exp.Where,
    exp.Group,
    exp.Having,
    exp.Order,
    exp.Ordered,
    exp.Limit,
    exp.Offset,
    exp.Fetch,
    exp.Distinct,
    exp.Qualify,
    exp.Window,
    exp.WindowSpec,
    exp.Filter,
    exp.WithinGroup,
    exp.Lateral,
    exp.Table,
    exp.TableAlias,
    exp.Version,
    exp.Alias,
    exp.Aliases,
    exp.Column,
    exp.ColumnDef,
    exp.Star,
    exp.Identifier,
    exp.Dot,
    exp.Var,
    exp.Literal,
    exp.Boolean,
    exp.Null,
    exp.Interval,
    exp.IntervalSpan,
    exp.Paren,
    exp.Tuple,
    exp.Bracket,
    exp.Slice,
    exp.Case,
    exp.If,
    exp.DataType,
    exp.DataTypeParam,
    exp.Cube,
    exp.Rollup,
    exp.GroupingSets,
    exp.Placeholder,
    exp.Parameter,
    exp.Between,
    exp.In,
    exp.Escape,
    exp.Exists,
    exp.Any,
    exp.All,
    exp.AtTimeZone,
    exp.PropertyEQ,
    exp.Unary,
    exp.Binary,
    exp.Predicate,
)
_REFUSED: Final[tuple[type, ...]] = (
    exp.Into,
    exp.Lock,
    exp.Command,
    exp.TableSample,
    exp.SessionParameter,
    exp.Hint,
    exp.Use,
    exp.IgnoreNulls,  # PostgreSQL has none, and DataFusion passes over it in silence
    exp.RespectNulls,
)


_T: Final = exp.DType
# Types that both engines have; a cast to any other is refused before an engine sees it.
_TYPES: Final = frozenset(
    {_T.BOOLEAN, _T.TINYINT, _T.SMALLINT, _T.INT, _T.BIGINT, _T.UBIGINT, _T.FLOAT, _T.DOUBLE}
    | {_T.DECIMAL, _T.TEXT, _T.VARCHAR, _T.CHAR, _T.DATE, _T.TIME, _T.TIMESTAMP, _T.TIMESTAMPTZ}
    | {_T.TIMESTAMPNTZ, _T.INTERVAL, _T.BINARY, _T.VARBINARY, _T.ARRAY, _T.LIST, _T.BPCHAR}
    | {_T.NULL, _T.UNKNOWN}
)


def _forbidden(message: str, **fields: str) -> LakehouseError:
    return LakehouseError(ErrorKind.FORBIDDEN, message, **fields)


def check(tree: exp.Expr) -> None:
    """Raise ``forbidden`` unless ``tree`` is one query made of allowed parts."""
    if not isinstance(tree, _ROOTS):
        raise _forbidden(
            "only a SELECT may run",
            statement=tree.key.upper(),
            hint="write one SELECT, WITH, VALUES or UNION; data is changed over the ingest API",
        )
    for node in tree.walk(bfs=True):
        if isinstance(node, _REFUSED):
            raise _forbidden("this syntax is not allowed", syntax=node.key)
        if isinstance(node, exp.Func) and not isinstance(node, exp.Case | exp.If | exp.Connector):
            _check_function(node)
        elif not isinstance(node, _SYNTAX):
            raise _forbidden("this syntax is not allowed", syntax=node.key)
        if isinstance(node, exp.Table):
            _check_table(node)
        if isinstance(node, exp.Like | exp.ILike) and node.this.find(exp.Star):
            raise _forbidden("this syntax is not allowed", syntax="a star with like")
        if isinstance(node, exp.DataType) and node.this not in _TYPES:
            raise LakehouseError(
                ErrorKind.INVALID, "this type is not known", type_text=node.sql()[:80]
            )


def function_name(node: exp.Expr) -> str:
    """The name a person would know a function by, in lower case."""
    if isinstance(node, exp.Anonymous | exp.AnonymousAggFunc):
        return str(node.name).lower()
    name = str(node.sql_name()).lower() if isinstance(node, exp.Func) else node.key
    return SPELLED.get(name, SPELLED.get(node.key, name))


def _check_function(node: exp.Func) -> None:
    name = function_name(node)
    if name in ALLOWED or isinstance(node, exp.Binary):
        return
    near = difflib.get_close_matches(name, sorted(ALLOWED), n=3)
    raise _forbidden(
        "this function is not allowed",
        function=name[:80],
        hint=f"did you mean {' or '.join(near)}" if near else "see docs/guides/sql.md",
    )


def _check_table(node: exp.Table) -> None:
    if isinstance(node.this, exp.Identifier):
        if node.args.get("catalog"):
            raise LakehouseError(
                ErrorKind.INVALID, "a table has at most a schema and a name", table=node.sql()[:80]
            )
        return
    inner = node.this
    name = function_name(inner) if isinstance(inner, exp.Expr) else str(inner)
    if name not in TABLES:
        near = difflib.get_close_matches(name, sorted(TABLES.union(SEARCHES)), n=1)
        raise _forbidden(
            "this table function is not allowed",
            function=name[:80],
            hint=f"did you mean {near[0]}"
            if near
            else "query a dataset by its name; files are ingested first",
        )
