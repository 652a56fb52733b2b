"""SQL over one pinned version of the store, on either engine, with equal answers."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Protocol

from lakehouse.contracts.catalog import AsOf, Pin
from lakehouse.model.identity import Context


class Engine(StrEnum):
    AUTO = "auto"
    DATAFUSION = "datafusion"
    DUCKDB = "duckdb"


class ResultFormat(StrEnum):
    JSON = "json"
    NDJSON = "ndjson"
    CSV = "csv"
    PARQUET = "parquet"
    ARROW = "arrow"


@dataclass(frozen=True, slots=True)
class QueryLimits:
    """None: the server's own limit; a request may only lower it."""

    timeout_seconds: float | None = None
    rows_max: int | None = None
    bytes_max: int | None = None
    memory_bytes_max: int | None = None


@dataclass(frozen=True, slots=True)
class QueryRequest:
    """``params_json``: a JSON array for ``$1 $2`` / ``?``, or an object for ``$name``; "" none."""

    sql: str
    params_json: str = ""
    engine: Engine = Engine.AUTO
    as_of: AsOf = AsOf()
    pins: tuple[Pin, ...] = ()
    limits: QueryLimits = QueryLimits()
    format: ResultFormat = ResultFormat.ARROW


@dataclass(frozen=True, slots=True)
class ResultColumn:
    """A column of a result with its logical type text (``model.schema``)."""

    name: str
    type: str


@dataclass(frozen=True, slots=True)
class PinnedVersion:
    """The version of a dataset that was read; repeat the query with it to get the same answer.

    ``dataset`` is ``people@march`` for a mention with a point in time of its own in the text."""

    dataset: str
    version: int


@dataclass(frozen=True, slots=True)
class QueryHeader:
    """Known before the first row.

    ``served_from``: places of the rescue bucket (``rescue/<bucket>``) from which objects were read
    for this query because their own bucket did not answer; their content is verified all the same.
    """

    query_id: str
    engine: Engine
    version: int
    versions: tuple[PinnedVersion, ...]
    columns: tuple[ResultColumn, ...]
    format: ResultFormat
    served_from: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class QueryStream:
    """A result under way: ``chunks`` are bytes of the complete document in ``header.format``.

    JSON is ``{columns, types, rows, versions, engine, elapsed_ms, ...}``: columns a list of names,
    types their type texts, each row an array in that order; versions an object name -> version.
    Iterating raises LakehouseError when the query fails midway (NDJSON: its last line is
    ``{"error": {...}}`` and then it ends). Closing the iterator cancels the query.
    """

    header: QueryHeader
    chunks: AsyncIterator[bytes]


@dataclass(frozen=True, slots=True)
class RunningQuery:
    query_id: str
    sql: str
    actor: str
    engine: Engine
    started_at: datetime
    elapsed_ms: float
    rows: int
    state: str


@dataclass(frozen=True, slots=True)
class RunningRequest:
    """Nothing to ask with."""


@dataclass(frozen=True, slots=True)
class RunningResult:
    queries: tuple[RunningQuery, ...]


@dataclass(frozen=True, slots=True)
class CancelRequest:
    query_id: str


@dataclass(frozen=True, slots=True)
class CancelResult:
    query_id: str
    cancelled: bool


class QueryService(Protocol):
    """``run`` raises ``invalid`` (parse, types, unknown column), ``forbidden`` (not one SELECT, a
    function or table not ours), ``not_found`` (a dataset), ``exhausted`` with http_status 422
    (over its own limit), ``timeout``, ``unavailable`` (queue full)."""

    async def run(self, ctx: Context, request: QueryRequest) -> QueryStream:
        """Start a query; returns when the first bytes are there or it is known to be empty."""
        ...

    async def running(self, ctx: Context, request: RunningRequest) -> RunningResult:
        """The caller's queries; an operator sees all."""
        ...

    async def cancel(self, ctx: Context, request: CancelRequest) -> CancelResult: ...
