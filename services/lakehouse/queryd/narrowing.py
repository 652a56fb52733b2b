"""What of a statement's WHERE a live table may be asked for: what every row must pass, and no more.

Of statements with one SELECT from one relation only, and of its WHERE the comparisons with
constants.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any, Final

from sqlglot import exp

from lakehouse.model.events import EventKind
from lakehouse.model.retrieval import SearchMode
from lakehouse.queryd.pushdown import comparisons, conjuncts, constant

__all__ = ["narrowed", "narrowed_events", "narrowed_retrievals"]

_STEP: Final = timedelta(microseconds=1)
_UNITS: Final = ("SECOND", "MINUTE", "HOUR", "DAY", "WEEK")
_EQUAL: Final = ("bucket", "operation", "error_kind")
_EVENT_EQUAL: Final = ("dataset", "field", "kind", "actor", "workspace", "request_id")
_RETRIEVAL_EQUAL: Final = ("id", "actor", "purpose", "mode", "index")
_KINDS: Final = tuple(kind.value for kind in EventKind)
_MODES: Final = tuple(mode.value for mode in SearchMode)
_VERSION_MAX: Final = (1 << 63) - 1


def narrowed(tree: exp.Expr, now: datetime) -> dict[str, Any]:
    """The filters of an ``ErrorsRequest`` that every row must pass to matter to ``tree``.

    Of a statement with one SELECT from one relation only, and of its WHERE the comparisons with
    constants; ``now()`` less an interval bounds from below, for the engine's now is a later one.
    """
    found: dict[str, Any] = {}
    for name, operator, value in _compared(tree):
        if name in _EQUAL and operator == "=":
            text = constant(value, "string")
            if text:
                found.setdefault(name, text)
        elif name == "at":
            _bound(found, operator, value, now)
    return found


def narrowed_events(tree: exp.Expr, now: datetime) -> dict[str, Any]:
    """The same for an ``EventsRequest``."""
    found: dict[str, Any] = {}
    for name, operator, value in _compared(tree):
        text = constant(value, "string") if operator == "=" else None
        if text and (name in _EVENT_EQUAL or name == "entity"):
            if name != "kind" or text in _KINDS:
                found.setdefault("entity_json" if name == "entity" else name, text)
        elif name == "at":
            _bound(found, operator, value, now)
        elif name == "version":
            _between(found, operator, value)
    if "dataset" not in found:
        found.pop("entity_json", None)
    return found


def narrowed_retrievals(tree: exp.Expr, now: datetime) -> dict[str, Any]:
    """The same for a ``ListRetrievalsRequest``, and ``id`` where it is one retrieval."""
    found: dict[str, Any] = {}
    for name, operator, value in _compared(tree):
        if name in _RETRIEVAL_EQUAL and operator == "=":
            text = constant(value, "string")
            if text and (name != "mode" or text in _MODES):
                found.setdefault(name, text)
        elif name == "at":
            _bound(found, operator, value, now)
    return found


def _between(found: dict[str, Any], operator: str, value: exp.Expr) -> None:
    text = constant(value, "int64") or ""
    if not text.isdecimal() or not 0 < int(text) < _VERSION_MAX:
        return
    version = int(text)
    if operator in (">", ">=", "="):
        after = version if operator == ">" else version - 1
        found["after_version"] = max(after, found.get("after_version", 0))
    if operator in ("<", "<=", "="):
        # 0 would be no bound; version 1 has what no row of an older one could add.
        before = max(1, version - 1 if operator == "<" else version)
        found["before_version"] = min(before, found.get("before_version", before))


def _compared(tree: exp.Expr) -> Iterator[tuple[str, str, exp.Expr]]:
    """(column, operator, constant) of what every row must pass, of the plainest statements."""
    if len(list(tree.find_all(exp.Table))) != 1 or len(list(tree.find_all(exp.Select))) != 1:
        return
    select = tree.find(exp.Select)
    where = None if select is None else select.args.get("where")
    for conjunct in conjuncts(where.this) if where is not None else ():
        for _, column, operator, (value, *more) in comparisons(conjunct):
            if not more:
                yield column.lower(), operator, value


def _bound(found: dict[str, Any], operator: str, value: exp.Expr, now: datetime) -> None:
    point = _point(value)
    if operator in (">", ">=", "="):
        low = point or _ago(value, now)
        if low is not None:
            found["since"] = max(low, found.get("since", low))
    if operator in ("<", "<=", "=") and point is not None:
        found["until"] = min(point + _STEP, found.get("until", point + _STEP))


def _point(value: exp.Expr) -> datetime | None:
    """A time with its zone, written as a constant."""
    text = constant(value, "timestamptz")
    try:
        when = datetime.fromisoformat(text) if text else None
        return when.astimezone(UTC) if when is not None and when.tzinfo is not None else None
    except (ValueError, OverflowError):
        return None


def _ago(value: exp.Expr, now: datetime) -> datetime | None:
    """``now() - interval '1 hour'``; None for anything else."""
    while isinstance(value, exp.Paren):
        value = value.this
    span = value.expression if isinstance(value, exp.Sub) else None
    if not (isinstance(span, exp.Interval) and isinstance(value.this, exp.CurrentTimestamp)):
        return None
    unit = str(span.args.get("unit") or "").upper().removesuffix("S")
    number = constant(span.this, "string") if isinstance(span.this, exp.Literal) else None
    if unit not in _UNITS or number is None or not number.isdecimal() or len(number) > 6:
        return None
    try:
        return now - timedelta(**{f"{unit.lower()}s": int(number)})
    except OverflowError:
        return None
