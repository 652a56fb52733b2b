"""``system.bucket_errors`` and ``system.buckets``, what the storage contract knows now,
``system.events``, what the journal has, and ``system.retrievals``, what searches left behind.

Unlike the catalog's tables they are not kept: each query asks, reads what it was told, and leaves
nothing behind. Scopes as the contracts have them: operator for storage, read for the others.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import timedelta
from pathlib import Path
from typing import Any, Final

import pyarrow as pa
from sqlglot import exp

from lakehouse.contracts.journal import EventsRequest, JournalService
from lakehouse.contracts.retrievals import (
    ListRetrievalsRequest,
    RetrievalRequest,
    RetrievalsService,
)
from lakehouse.contracts.storage import BucketsRequest, ErrorsRequest, StorageService
from lakehouse.errors import ErrorKind, LakehouseError
from lakehouse.kit.blocking import run_blocking
from lakehouse.kit.clock import Clock, to_datetime
from lakehouse.model.identity import Context
from lakehouse.model.retrieval import Retrieval
from lakehouse.model.schema import Schema
from lakehouse.queryd.narrowing import narrowed, narrowed_events, narrowed_retrievals
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
    "retrievals": "id:string at:timestamptz actor:string purpose:string mode:string index:string"
    " number:int64 model:string indexes:list<string> text:string k:int64 filter:string hits:int64"
    " keys:list<string> scores:list<float64> top_key:string top_score:float64 degraded:bool"
    " degraded_reason:string behind:bool version:int64 as_of_version:int64 digest:string"
    " record:string pinned:bool embed_ms:float64 search_ms:float64 request_id:string"
    " workspace:string source:string",
}
ROWS_MAX: Final = 100_000
"""Of ``system.bucket_errors`` a query sees the newest so many that its filters select; of
``system.events`` and ``system.retrievals`` it sees all, or is refused where they are more."""

_PAGE: Final = 10_000
_STEP: Final = timedelta(microseconds=1)
_LISTED: Final = 1_000
_HITS: Final = 100
_OTHER_NAMES: Final = {"old": "old_json", "new": "new_json"}


@dataclass(frozen=True, slots=True)
class LiveTable:
    """A Parquet file of ``rows`` rows, the asker's to delete."""

    path: str
    rows: int


class LiveTables:
    """Asks the contracts for storage, for the journal and for retrievals, if there are some.

    Attributes:
        retrievals: may be set later.
    """

    def __init__(
        self,
        storage: StorageService | None,
        folder: Path,
        clock: Clock,
        journal: JournalService | None = None,
    ) -> None:
        self._storage = storage
        self._journal = journal
        self.retrievals: RetrievalsService | None = None
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
        if table == "retrievals":
            found = await self._retrieved(ctx, tree)
            await run_blocking(_write_retrievals, path, found, schema)
            return LiveTable(str(path), len(found))
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
                raise _too_many(
                    "events", "dataset, entity, field, kind, actor, version or at", "journal/events"
                )
            if not result.cursor:
                return pa.concat_tables(pages)
            asked = replace(asked, cursor=result.cursor)

    async def _retrieved(self, ctx: Context, tree: exp.Expr | None) -> list[Retrieval]:
        if self.retrievals is None:
            raise LakehouseError(
                ErrorKind.UNAVAILABLE,
                "nobody whom this process knows remembers retrievals",
                table="system.retrievals",
                hint='set node.peers.vectord = "host:port", or run vectord in this process',
            )
        now = to_datetime(self._clock.now_us())
        wanted = {} if tree is None else narrowed_retrievals(tree, now)
        known = wanted.pop("id", "")
        if known:
            return await _one_retrieval(ctx, self.retrievals, known)
        asked = ListRetrievalsRequest(limit=_LISTED, **wanted)
        found: list[Retrieval] = []
        while True:
            page = await self.retrievals.list(ctx, asked)
            found += page.retrievals
            if len(found) > ROWS_MAX:
                raise _too_many("retrievals", "index, actor, mode, purpose, id or at", "retrievals")
            if not page.cursor:
                return found
            asked = replace(asked, cursor=page.cursor)

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


def _too_many(table: str, columns: str, route: str) -> LakehouseError:
    return LakehouseError(
        ErrorKind.EXHAUSTED,
        f"the statement needs more {table} than a query may have",
        http_status=422,
        table=f"system.{table}",
        limit="rows",
        value=ROWS_MAX,
        hint=f"compare {columns} with constants in WHERE of a statement that has one SELECT, from"
        f" system.{table}; or page GET /{route}",
    )


async def _one_retrieval(
    ctx: Context, retrievals: RetrievalsService, known: str
) -> list[Retrieval]:
    try:
        return [(await retrievals.get(ctx, RetrievalRequest(known))).retrieval]
    except LakehouseError as error:
        if error.kind is not ErrorKind.NOT_FOUND:
            raise
        return []


def _table(rows: Sequence[object], schema: Schema) -> pa.Table:
    columns: Mapping[str, list[Any]] = {
        column.name: [getattr(row, _OTHER_NAMES.get(column.name, column.name)) for row in rows]
        for column in schema.columns
    }
    return pa.table(columns, arrow_schema(schema))


def _write_retrievals(path: Path, found: Sequence[Retrieval], schema: Schema) -> None:
    rows = [_retrieval_row(one) for one in found]
    _write_table(path, pa.Table.from_pylist(rows, arrow_schema(schema)))


def _retrieval_row(one: Retrieval) -> dict[str, Any]:
    """``keys`` and ``scores`` are of the first hits, ``hits`` counts all of them."""
    first, top = one.indexes[0], one.hits[0] if one.hits else None
    told = {
        "hits": one.hits_total or len(one.hits),
        "index": first.index,
        "number": first.number,
        "model": first.model,
        "indexes": [each.index for each in one.indexes],
        "behind": any(each.behind for each in one.indexes),
        "keys": [hit.key for hit in one.hits[:_HITS]],
        "scores": [hit.score for hit in one.hits[:_HITS]],
        "top_key": top.key if top is not None else None,
        "top_score": top.score if top is not None else None,
    }
    names = (item.split(":", 1)[0] for item in LIVE_COLUMNS["retrievals"].split())
    return {name: told[name] if name in told else getattr(one, name) for name in names}


def _write(path: Path, rows: Sequence[object], schema: Schema) -> None:
    _write_table(path, _table(rows, schema))


def _write_table(path: Path, table: pa.Table) -> None:
    import pyarrow.parquet as pq  # late: queries on datasets alone do not need it here

    pq.write_table(table, path)
