"""Types of expressions as the engines see them, for the few rewrites that need to know."""

from __future__ import annotations

from typing import Any, Final

from sqlglot import exp
from sqlglot.dialects.postgres import Postgres

INT64_MAX: Final = 2**63 - 1
INTEGERS: Final = frozenset(
    {
        exp.DType.TINYINT,
        exp.DType.SMALLINT,
        exp.DType.INT,
        exp.DType.BIGINT,
        exp.DType.UBIGINT,
        exp.DType.UINT,
    }
)
FLOATS: Final = frozenset({exp.DType.FLOAT, exp.DType.DOUBLE})
DECIMALS: Final = frozenset({exp.DType.DECIMAL})
TEXTS: Final = frozenset({exp.DType.TEXT, exp.DType.VARCHAR, exp.DType.CHAR, exp.DType.NVARCHAR})
TIMESTAMPS: Final = frozenset({exp.DType.TIMESTAMP, exp.DType.DATETIME, exp.DType.TIMESTAMPNTZ})
ZONED: Final = frozenset({exp.DType.TIMESTAMPTZ, exp.DType.TIMESTAMPLTZ})
DATES: Final = frozenset({exp.DType.DATE})


def kind(node: Any) -> str:
    """``int float decimal text date timestamp zoned bool`` or "" where it is not known."""
    found = getattr(node, "type", None)
    dtype = found.this if found is not None else None
    for name, members in (
        ("int", INTEGERS),
        ("float", FLOATS),
        ("decimal", DECIMALS),
        ("text", TEXTS),
        ("date", DATES),
        ("timestamp", TIMESTAMPS),
        ("zoned", ZONED),
    ):
        if dtype in members:
            return name
    return "bool" if dtype == exp.DType.BOOLEAN else ""


def is_big_integer(literal: exp.Literal) -> bool:
    """Whether a number without a fraction lies outside of int64."""
    text = str(literal.this)
    return literal.is_number and text.isdigit() and int(text) > INT64_MAX


def _literal(self: Any, node: exp.Literal) -> exp.Literal:
    text = str(node.this).lower()
    if node.is_string:
        dtype = exp.DType.VARCHAR
    elif "e" in text:
        dtype = exp.DType.DOUBLE
    elif "." in text or is_big_integer(node):
        dtype = exp.DType.DECIMAL
    else:
        dtype = exp.DType.BIGINT
    self._set_type(node, dtype)
    return node


def _division(self: Any, node: exp.Div) -> exp.Div:
    kinds = {kind(node.this), kind(node.expression)}
    if kinds == {"int"}:
        self._set_type(node, exp.DType.BIGINT)
    elif "" in kinds:
        self._set_type(node, exp.DType.UNKNOWN)
    else:
        self._set_type(node, exp.DType.DOUBLE)
    return node


def _as_argument(self: Any, node: exp.Expr) -> exp.Expr:
    inner = node.this
    inner = inner.expressions[0] if isinstance(inner, exp.Distinct) else inner
    self._set_type(node, inner.type if inner is not None else exp.DType.UNKNOWN)
    return node


METADATA: Final[dict[Any, Any]] = {
    **Postgres.EXPRESSION_METADATA,
    exp.Literal: {"annotator": _literal},
    exp.Div: {"annotator": _division},
    exp.Avg: {"returns": exp.DType.DOUBLE},
    exp.Sum: {"annotator": _as_argument},
    exp.Round: {"annotator": _as_argument},
    exp.Floor: {"annotator": _as_argument},
    exp.Ceil: {"annotator": _as_argument},
    exp.Abs: {"annotator": _as_argument},
    exp.Pow: {"returns": exp.DType.DOUBLE},
}
