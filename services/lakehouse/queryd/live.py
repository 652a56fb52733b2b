"""``system.bucket_errors`` and ``system.buckets``: what the storage contract knows now.

Unlike the catalog's tables they have no versions: each query asks, reads what it was told, and
leaves nothing behind. Scope operator, as the contract has it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Final

import pyarrow as pa
from sqlglot import exp

from lakehouse.contracts.storage import BucketsRequest, ErrorsRequest, StorageService
from lakehouse.errors import ErrorKind, LakehouseError
from lakehouse.kit.blocking import run_blocking
from lakehouse.kit.clock import Clock, to_datetime
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
}
ROWS_MAX: Final = 100_000
"""Of ``system.bucket_errors`` a query sees the newest so many that its filters select."""

_PAGE: Final = 10_000
_STEP: Final = timedelta(microseconds=1)
_UNITS: Final = ("SECOND", "MINUTE", "HOUR", "DAY", "WEEK")
_EQUAL: Final = ("bucket", "operation", "error_kind")


@dataclass(frozen=True, slots=True)
class LiveTable:
    """A Parquet file of ``rows`` rows, the asker's to delete."""

    path: str
    rows: int


class LiveTables:
    """Asks the storage contract, if there is one."""

    def __init__(self, storage: StorageService | None, folder: Path, clock: Clock) -> None:
        self._storage = storage
        self._folder = folder
        self._clock = clock
        self._made = 0

    async def open(
        self, ctx: Context, table: str, schema: Schema, tree: exp.Expr | None
    ) -> LiveTable:
        """The rows that ``tree``, a whole statement, may need. Raises ``forbidden`` without the
        scope operator, ``unavailable`` where nobody knows the buckets or can read all of them."""
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
        self._made += 1
        path = self._folder / f"{table}-live-{self._made}.parquet"
        await run_blocking(_write, path, rows, schema)
        return LiveTable(str(path), len(rows))

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
    if len(list(tree.find_all(exp.Table))) != 1 or len(list(tree.find_all(exp.Select))) != 1:
        return {}
    select = tree.find(exp.Select)
    where = None if select is None else select.args.get("where")
    found: dict[str, Any] = {}
    for conjunct in conjuncts(where.this) if where is not None else ():
        for _, column, operator, (value, *more) in comparisons(conjunct):
            name = column.lower()
            if name in _EQUAL and operator == "=":
                text = constant(value, "string")
                if text:
                    found.setdefault(name, text)
            elif name == "at" and not more:
                _bound(found, operator, value, now)
    return found


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


def _write(path: Path, rows: Sequence[object], schema: Schema) -> None:
    import pyarrow.parquet as pq  # late: queries on datasets alone do not need it here

    target = arrow_schema(schema)
    columns: Mapping[str, list[Any]] = {
        column.name: [getattr(row, column.name) for row in rows] for column in schema.columns
    }
    pq.write_table(pa.table(columns, target), path)
