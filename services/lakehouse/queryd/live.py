"""``system.bucket_errors`` and ``system.buckets``, what the storage contract knows now, and
``system.events``, what the journal has.

Unlike the catalog's tables they are not kept: each query asks, reads what it was told, and leaves
nothing behind. Scopes as the contracts have them: operator for storage, read for the journal.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Final

import pyarrow as pa
from sqlglot import exp

from lakehouse.contracts.journal import EventsRequest, JournalService
from lakehouse.contracts.storage import BucketsRequest, ErrorsRequest, StorageService
from lakehouse.errors import ErrorKind, LakehouseError
from lakehouse.kit.blocking import run_blocking
from lakehouse.kit.clock import Clock, to_datetime
from lakehouse.model.events import EventKind
from lakehouse.model.identity import Context
from lakehouse.model.schema import Schema
from lakehouse.queryd.pushdown import comparisons, conjuncts, constant
from lakehouse.table.types import arrow_schema

LIVE_COLUMNS: Final[dict[str, str]] = {
    "bucket_errors": "id:string at:timestamptz bucket:string operation:string key:string"
    " error_kind:string reason:string http_status:int64 store_request_id:string"
    " latency_ms:float64 op_id:string attempt:int64 final:bool outcome:string sent:bool"
    " actor:string request_id:string",
    "buckets": "name:string bucket_class:string url:string endpoint:string region:string"
    " residency:string secret_ref:string origin:string reachable:bool breaker:string"
    " latency_ms:float64 in_flight:int64 requests:int64 bytes_read:int64 bytes_written:int64"
    " failures:int64 retries:int64 last_error:string last_error_at:timestamptz"
    " unavailable_since:timestamptz",
    "events": "version:int64 ordinal:int64 at:timestamptz dataset:string kind:string"
    " operation:string entity:string field:string old:string new:string actor:string"
    " source:string workspace:string reason:string request_id:string rows:int64"
    " base_version:int64 object_key:string",
}
ROWS_MAX: Final = 100_000
"""Of ``system.bucket_errors`` a query sees the newest so many that its filters select; of
``system.events`` it sees all, or is refused where they are more."""

_PAGE: Final = 10_000
_STEP: Final = timedelta(microseconds=1)
_UNITS: Final = ("SECOND", "MINUTE", "HOUR", "DAY", "WEEK")
_EQUAL: Final = ("bucket", "operation", "error_kind")
_EVENT_EQUAL: Final = ("dataset", "field", "kind", "actor", "workspace", "request_id")
_OTHER_NAMES: Final = {"old": "old_json", "new": "new_json"}
_KINDS: Final = tuple(kind.value for kind in EventKind)
_VERSION_MAX: Final = (1 << 63) - 1


@dataclass(frozen=True, slots=True)
class LiveTable:
    """A Parquet file of ``rows`` rows, the asker's to delete."""

    path: str
    rows: int


class LiveTables:
    """Asks the contracts for storage and for the journal, if there are some."""

    def __init__(
        self,
        storage: StorageService | None,
        folder: Path,
        clock: Clock,
        journal: JournalService | None = None,
    ) -> None:
        self._storage = storage
        self._journal = journal
        self._folder = folder
        self._clock = clock
        self._made = 0

    async def open(
        self, ctx: Context, table: str, schema: Schema, tree: exp.Expr | None, version: int = 0
    ) -> LiveTable:
        """The rows that ``tree``, a whole statement, may need; events up to ``version`` (0: all).

        Raises ``forbidden`` without the scope, ``unavailable`` where nobody knows the buckets or
        the journal or can read all of them, ``exhausted`` for more than ``ROWS_MAX`` events.
        """
        self._made += 1
        path = self._folder / f"{table}-live-{self._made}.parquet"
        if table == "events":
            pages = await self._events(ctx, schema, tree, version)
            await run_blocking(_write_table, path, pages)
            return LiveTable(str(path), pages.num_rows)
        if self._storage is None:
            raise LakehouseError(
                ErrorKind.UNAVAILABLE,
                "nobody whom this process knows keeps the error journal",
                table=f"system.{table}",
                hint='set node.peers.storaged = "host:port", or run storaged in this process',
            )
        rows: Sequence[object]
        if table == "buckets":
            rows = (await self._storage.buckets(ctx, BucketsRequest())).buckets
        else:
            rows = await self._errors(ctx, self._storage, tree)
        await run_blocking(_write, path, rows, schema)
        return LiveTable(str(path), len(rows))

    async def _events(
        self, ctx: Context, schema: Schema, tree: exp.Expr | None, version: int
    ) -> pa.Table:
        if self._journal is None:
            raise LakehouseError(
                ErrorKind.UNAVAILABLE,
                "nobody whom this process knows reads the journal",
                table="system.events",
                hint='set node.peers.ingestd = "host:port", or run ingestd in this process',
            )
        now = to_datetime(self._clock.now_us())
        asked = EventsRequest(limit=_PAGE, **({} if tree is None else narrowed_events(tree, now)))
        if version and not 0 < asked.before_version < version:
            asked = replace(asked, before_version=version)
        pages = [arrow_schema(schema).empty_table()]
        rows = 0
        while True:
            try:
                result = await self._journal.events(ctx, asked)
            except LakehouseError as error:
                if error.kind is ErrorKind.INVALID and asked.entity_json and not asked.cursor:
                    asked = replace(asked, entity_json="")  # no key of the dataset: no row has it
                    continue
                if error.kind is ErrorKind.NOT_FOUND and asked.dataset:
                    return pa.concat_tables(pages)
                raise
            pages.append(await run_blocking(_table, result.events, schema))
            rows += len(result.events)
            if rows > ROWS_MAX:
                raise _too_many_events()
            if not result.cursor:
                return pa.concat_tables(pages)
            asked = replace(asked, cursor=result.cursor)

    async def _errors(
        self, ctx: Context, storage: StorageService, tree: exp.Expr | None
    ) -> Sequence[object]:
        now = to_datetime(self._clock.now_us())
        asked = ErrorsRequest(limit=_PAGE, **({} if tree is None else narrowed(tree, now)))
        found: list[object] = []
        while True:
            result = await storage.errors(ctx, asked)
            if not result.complete:
                # A count over a part would be taken for one over all.
                raise LakehouseError(
                    ErrorKind.UNAVAILABLE,
                    "the error journal cannot be read whole now",
                    table="system.bucket_errors",
                    hint="GET /storage/errors shows what this machine holds, and says so",
                )
            found += result.errors
            if not result.next or len(found) >= ROWS_MAX:
                return found[:ROWS_MAX]
            # What is newer was told already: it need not be counted again.
            asked = replace(asked, cursor=result.next, until=result.errors[-1].at + _STEP)


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


def _too_many_events() -> LakehouseError:
    return LakehouseError(
        ErrorKind.EXHAUSTED,
        "the statement needs more events than a query may have",
        http_status=422,
        table="system.events",
        limit="rows",
        value=ROWS_MAX,
        hint="compare dataset, entity, field, kind, actor, version or at with constants in WHERE of"
        " a statement that has one SELECT, from system.events; or page GET /journal/events",
    )


def _table(rows: Sequence[object], schema: Schema) -> pa.Table:
    columns: Mapping[str, list[Any]] = {
        column.name: [getattr(row, _OTHER_NAMES.get(column.name, column.name)) for row in rows]
        for column in schema.columns
    }
    return pa.table(columns, arrow_schema(schema))


def _write(path: Path, rows: Sequence[object], schema: Schema) -> None:
    _write_table(path, _table(rows, schema))


def _write_table(path: Path, table: pa.Table) -> None:
    import pyarrow.parquet as pq  # late: queries on datasets alone do not need it here

    pq.write_table(table, path)
