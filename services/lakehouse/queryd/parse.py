"""From text to one checked read-only statement, or a clear refusal. Deny by default.

Pure: the same text gives the same answer; nothing is looked up.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

import sqlglot
from sqlglot import exp
from sqlglot.errors import ParseError, SqlglotError

from lakehouse.errors import ErrorKind, LakehouseError
from lakehouse.queryd import guard
from lakehouse.queryd.shorthand import spelled_out

logging.getLogger("sqlglot").setLevel(logging.CRITICAL)  # its warnings are our errors

_EXPLAIN: Final = re.compile(
    # Possessive, for a match that gives back nothing takes one pass, whatever the comments are.
    r"(?:\s|--[^\n]*(?:\n|$)|(?>/\*.*?\*/))*+(explain(?:\s+analyze)?)\b",
    re.IGNORECASE | re.DOTALL,
)
_CLASS: Final = re.compile(r"<class '[\w.]*?(\w+)'>")
_END: Final = re.compile(r"<Token [^>]*?\bSENTINEL\b[^>]*>")
_TOKEN: Final = re.compile(r"<Token .*?\btext: (.*?), line: \d+, col: [^>]*>", re.DOTALL)
_TREE_DEPTH_MAX: Final = 160
_ERROR_TEXT_MAX: Final = 200
_PARSER_TEXT_MAX: Final = 2000
TOKENS_MAX: Final = 20_000
_SUBSCRIPTS_MAX: Final = 16  # ``a[1][1]..``: the parser's time grows with the square of them


@dataclass(frozen=True, slots=True)
class Statement:
    """One SELECT, VALUES or set operation, checked; ``explain`` is "" or how to explain it.

    ``tree`` must not be changed: copy it.
    """

    tree: exp.Expr
    explain: str
    positional: int
    named: tuple[str, ...]


def invalid(message: str, **fields: str | int | float | None) -> LakehouseError:
    """An error in the statement."""
    return LakehouseError(ErrorKind.INVALID, message, **fields)


def parse(sql: str, bytes_max: int, nesting_max: int) -> Statement:
    """Parse and check one statement.

    Raises:
        invalid: it does not parse, is empty, too long or nested too deep.
        forbidden: it is not one read-only statement, or calls what is not allowed.
    """
    _check_text(sql, bytes_max, nesting_max)
    sql = spelled_out(sql)
    explained = _EXPLAIN.match(sql)
    explain = ""
    if explained:
        explain = " ".join(explained.group(1).upper().split())
        sql = sql[explained.end() :]
    _check_tokens(sql)
    try:
        tree = _one(sql)
        _check_depth(tree)
        guard.check(tree)
        positional, named = _parameters(tree)
    except RecursionError:
        raise invalid("the statement is nested too deep", limit=nesting_max) from None
    return Statement(tree, explain, positional, named)


def _check_text(sql: str, bytes_max: int, nesting_max: int) -> None:
    try:
        size = len(sql.encode())
    except UnicodeEncodeError:
        raise invalid("the statement is not valid Unicode") from None
    if size > bytes_max:
        raise invalid("the statement is too long", bytes=size, limit=bytes_max)
    if "\x00" in sql:
        raise invalid("the statement has a NUL character", hint="remove it")
    if not sql.strip():
        raise invalid("there is no statement", hint="write one SELECT")
    depth = deepest = 0
    for char in sql:
        if char in "([{":
            depth += 1
            deepest = max(deepest, depth)
        elif char in ")]}":
            depth -= 1
    if deepest > nesting_max and _real_nesting(sql) > nesting_max:
        raise invalid("the statement is nested too deep", limit=nesting_max, depth=deepest)


def _check_tokens(sql: str) -> None:
    """Refuse what would take the parser and the optimizer long; this pass takes linear time."""
    try:
        tokens = sqlglot.tokenize(sql, read="postgres")
    except SqlglotError:
        return  # the parser says where
    if len(tokens) > TOKENS_MAX:
        raise invalid(
            "the statement has too many words and signs",
            tokens=len(tokens),
            limit=TOKENS_MAX,
            hint="join with a dataset instead of listing its values",
        )
    subscripts, before = 0, ""
    for token in tokens:
        if token.text == "[":
            subscripts = subscripts + 1 if before == "]" else 1
            if subscripts > _SUBSCRIPTS_MAX:
                raise invalid("too many subscripts in a row", limit=_SUBSCRIPTS_MAX)
        before = token.text


def _real_nesting(sql: str) -> int:
    """The nesting of brackets outside strings and comments."""
    try:
        tokens = sqlglot.tokenize(sql, read="postgres")
    except SqlglotError:
        return 0
    depth = deepest = 0
    for token in tokens:
        if token.text in ("(", "[", "{"):
            depth += 1
            deepest = max(deepest, depth)
        elif token.text in (")", "]", "}"):
            depth -= 1
    return deepest


def token_count(sql: str) -> int:
    """How many tokens ``sql`` has; 0 if it cannot be cut into any."""
    try:
        return len(sqlglot.tokenize(sql, read="postgres"))
    except SqlglotError:
        return 0


def _one(sql: str) -> exp.Expr:
    try:
        trees = [tree for tree in sqlglot.parse(sql, read="postgres") if tree is not None]
    except ParseError as error:
        found = error.errors[0] if error.errors else {}
        raise invalid(
            "the statement does not parse",
            reason=_reason(str(found.get("description") or error)),
            line=found.get("line"),
            column=found.get("col"),
            near=str(found.get("highlight") or "")[:_ERROR_TEXT_MAX],
        ) from error
    except SqlglotError as error:
        raise invalid(
            "the statement does not parse", reason=_reason(str(error).split("\n")[0])
        ) from error
    trees = [tree for tree in trees if not isinstance(tree, exp.Semicolon)]
    if not trees:
        raise invalid("there is no statement", hint="write one SELECT")
    if len(trees) > 1:
        raise LakehouseError(
            ErrorKind.FORBIDDEN,
            "one statement at a time",
            statements=len(trees),
            hint="send them one by one",
        )
    return trees[0]


def _reason(text: str) -> str:
    """What the parser says, without its own insides."""
    text = _END.sub("the end of the statement", text[:_PARSER_TEXT_MAX])
    text = _TOKEN.sub(r"\1", text)
    return _CLASS.sub(lambda found: found.group(1).upper(), text)[:_ERROR_TEXT_MAX]


def _check_depth(tree: exp.Expr) -> None:
    """Measure the tree without recursion; sqlglot's own passes are recursive."""
    level: list[exp.Expr] = [tree]
    depth = 0
    while level:
        depth += 1
        if depth > _TREE_DEPTH_MAX:
            raise invalid(
                "the statement is nested too deep",
                limit=_TREE_DEPTH_MAX,
                hint="instead of a long chain of OR write IN (..)",
            )
        level = [child for node in level for child in node.iter_expressions()]


def nodes(tree: exp.Expr) -> Iterator[exp.Expr]:
    """All nodes, parents first."""
    return tree.walk(bfs=True)


def _parameters(tree: exp.Expr) -> tuple[int, tuple[str, ...]]:
    """How many positional parameters are needed, and the names of the named ones."""
    question = highest = 0
    named: dict[str, None] = {}
    for node in tree.find_all(exp.Placeholder, exp.Parameter):
        name = parameter_name(node)
        if name == "":
            question += 1
        elif name.isdigit():
            highest = max(highest, int(name))
        else:
            named.setdefault(name)
    if (question > 0) + (highest > 0) + bool(named) > 1:
        raise invalid(
            "parameters are of one style", hint="use either ? or $1 or $name, not a mixture"
        )
    return question or highest, tuple(named)


def parameter_name(node: exp.Expr) -> str:
    """ "" for ``?``, digits for ``$1``, the name for ``$name`` and ``:name``."""
    inner = node.this
    if inner is None:
        return ""
    name = inner.name if isinstance(inner, exp.Expr) else str(inner)
    return "" if name == "?" else name
