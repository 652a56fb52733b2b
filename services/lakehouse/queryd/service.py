"""The query service: parse, pin, plan, run in a worker, stream."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import Any, Final

import orjson

from lakehouse.contracts.catalog import CatalogService
from lakehouse.contracts.journal import JournalService
from lakehouse.contracts.query import (
    CancelRequest,
    CancelResult,
    Engine,
    QueryHeader,
    QueryRequest,
    QueryStream,
    ResultColumn,
    RunningQuery,
    RunningRequest,
    RunningResult,
)
from lakehouse.contracts.retrievals import RetrievalsService
from lakehouse.contracts.storage import StorageService
from lakehouse.contracts.vectors import VectorsService
from lakehouse.errors import ErrorKind, LakehouseError
from lakehouse.kit import tracing
from lakehouse.kit.blocking import run_blocking
from lakehouse.kit.clock import Clock, to_datetime
from lakehouse.kit.figures import Readout
from lakehouse.kit.ids import Ids
from lakehouse.model.dataset import DataFile
from lakehouse.model.identity import Context, Scope
from lakehouse.objectstore.folders import Claim, claim
from lakehouse.objectstore.readcache import Local, ReadCache
from lakehouse.objectstore.rescue import KnownReads
from lakehouse.queryd.calls import Rewritten, rewritten
from lakehouse.queryd.choose import choose_engine
from lakehouse.queryd.figures import QueryFigures
from lakehouse.queryd.limits import effective_limits
from lakehouse.queryd.live import LiveTables
from lakehouse.queryd.near import Searches, check_places
from lakehouse.queryd.pinning import Pinned, Pinning
from lakehouse.queryd.plan import Plan, encode
from lakehouse.queryd.planning import Parsed, Planning
from lakehouse.queryd.pool import WorkerPool
from lakehouse.queryd.ports import FoundStores
from lakehouse.queryd.process import Inbox, WorkerProcess
from lakehouse.queryd.results import Chunks
from lakehouse.queryd.scan import Relation, place
from lakehouse.queryd.settings import QuerySettings
from lakehouse.queryd.statistics import Statistics
from lakehouse.queryd.struck import struck
from lakehouse.queryd.system import SystemRelation, SystemTables
from lakehouse.queryd.wire import Frame

log = logging.getLogger(__name__)

CPU_SLACK_SECONDS: Final = 30
SQL_SHOWN_MAX: Final = 4000
REWRITTEN_CHARS_MAX: Final = (
    40_000  # in place up to here: 0.1 s for the worst text, 1 ms for others
)


@dataclass(slots=True)
class _Running:
    """A query from its arrival to its last byte."""

    query_id: str
    sql: str
    actor: str
    engine: Engine
    started_at: datetime
    started: float
    request_id: str = ""
    trace_id: str = ""
    task: asyncio.Task[Any] | None = None
    worker: WorkerProcess | None = None
    inbox: Inbox | None = None
    cancelled: bool = False
    failure: LakehouseError | None = None

    @property
    def state(self) -> str:
        return "running" if self.worker is not None else "waiting"

    def outcome(self) -> str:
        """What it came to, for figures and logs."""
        told = self.failure or (self.inbox.failure if self.inbox is not None else None)
        if self.cancelled or (told is None and self.inbox is None):
            return "cancelled"
        return "done" if told is None else told.kind.value


class Query:
    """``contracts.query.QueryService`` over a catalog and buckets. Keeps nothing durable."""

    def __init__(
        self,
        settings: QuerySettings,
        catalog: CatalogService,
        buckets: FoundStores,
        clock: Clock,
        ids: Ids,
        known: KnownReads | None = None,
    ) -> None:
        self._settings = settings
        self._known = known or KnownReads(buckets, clock, ids)
        self._catalog = catalog
        self._buckets = buckets
        self._clock = clock
        self._ids = ids
        self._pool = WorkerPool(settings, clock, ids)
        self._claim: Claim | None = None
        self._cache: ReadCache | None = None
        self._pinning: Pinning | None = None
        self._storage: StorageService | None = None
        self._journal: JournalService | None = None
        self._vectors: VectorsService | None = None
        self._retrievals: RetrievalsService | None = None
        self._live: LiveTables | None = None
        self._running: dict[str, _Running] = {}
        self._figures = QueryFigures()
        self._planning = Planning(settings, clock, ids)

    def use_storage(self, storage: StorageService | None) -> None:
        """Whom to ask for ``system.buckets`` and ``system.bucket_errors``; before ``start``."""
        self._storage = storage

    def use_journal(self, journal: JournalService | None) -> None:
        """Whom to ask for ``system.events``; before ``start``."""
        self._journal = journal

    def use_vectors(self, vectors: VectorsService | None) -> None:
        """Whom to ask for ``vector_search``; also after ``start``."""
        self._vectors = vectors

    def use_retrievals(self, retrievals: RetrievalsService | None) -> None:
        """Whom to ask for ``system.retrievals``; also after ``start``."""
        self._retrievals = retrievals
        if self._live is not None:
            self._live.retrievals = retrievals

    async def start(self) -> None:
        """Claim the scratch folders and start the warm workers. Raises ``unavailable``."""
        settings = self._settings
        self._claim = await claim(settings.cache_dir, self._ids.ulid())
        folder = self._claim.path
        self._cache = ReadCache(
            folder, settings.cache_bytes_max, self._buckets, settings.fetches_max, self._known
        )
        self._live = live = LiveTables(self._storage, folder, self._clock, self._journal)
        live.retrievals = self._retrievals
        self._pinning = Pinning(
            self._catalog,
            self._buckets,
            SystemTables(self._catalog, folder, live),
            Statistics(self._cache),
            settings.plans_max,
        )
        try:
            await self._pool.start()
        except BaseException:
            await self.close()
            raise

    async def close(self) -> None:
        """Stop what runs, end the workers, remove the scratch folders; idempotent."""
        await self._planning.close()
        await self._pool.close()
        if self._cache is not None:
            self._cache.close()
        if self._claim is not None:
            await run_blocking(self._claim.release)

    async def run(self, ctx: Context, request: QueryRequest) -> QueryStream:
        ctx.require(Scope.READ)
        entry = _Running(
            self._ids.ulid(),
            request.sql,
            ctx.principal.id,
            request.engine,
            to_datetime(self._clock.now_us()),
            self._clock.monotonic(),
            ctx.request_id,
            tracing.trace_id(),
            asyncio.current_task(),
        )
        self._running[entry.query_id] = entry
        stack = ExitStack()
        stack.callback(self._over, entry)
        try:
            with tracing.span("query", attributes={"lakehouse.query_id": entry.query_id}):
                return await self._run(ctx, request, entry, stack)
        except asyncio.CancelledError:
            stack.close()
            if entry.cancelled and entry.task is not None:
                entry.task.uncancel()
                raise _cancelled() from None
            raise
        except BaseException as error:
            entry.failure = error if isinstance(error, LakehouseError) else _unforeseen()
            stack.close()
            raise

    def figures(self) -> Iterable[Readout]:
        """What was queried since the start."""
        states = {"waiting": 0, "running": 0}
        for entry in self._running.values():
            states[entry.state] += 1
        return self._figures.figures(states, self._pool.states())

    def _over(self, entry: _Running) -> None:
        """A query has come to its end, by whatever way."""
        self._running.pop(entry.query_id, None)
        seconds = self._clock.monotonic() - entry.started
        rows = entry.inbox.rows if entry.inbox is not None else 0
        outcome = entry.outcome()
        self._figures.ended(entry.engine.value, outcome, seconds, rows)
        if 0 < self._settings.slow_seconds < seconds:
            log.warning("a slow query", extra=_slow(entry, outcome, seconds, rows))

    async def running(self, ctx: Context, request: RunningRequest) -> RunningResult:
        ctx.require(Scope.READ)
        now = self._clock.monotonic()
        return RunningResult(
            tuple(
                RunningQuery(
                    query_id=entry.query_id,
                    sql=entry.sql[:SQL_SHOWN_MAX],
                    actor=entry.actor,
                    engine=entry.engine,
                    started_at=entry.started_at,
                    elapsed_ms=round((now - entry.started) * 1000, 3),
                    rows=entry.inbox.rows if entry.inbox is not None else 0,
                    state=entry.state,
                )
                for entry in self._running.values()
                if self._visible(ctx, entry)
            )
        )

    async def cancel(self, ctx: Context, request: CancelRequest) -> CancelResult:
        ctx.require(Scope.READ)
        entry = self._running.get(request.query_id)
        if entry is None or not self._visible(ctx, entry):
            raise LakehouseError(
                ErrorKind.NOT_FOUND, "no such query is running", query_id=request.query_id[:80]
            )
        entry.cancelled = True
        if entry.inbox is not None:
            entry.inbox.fail(_cancelled())
        elif entry.task is not None:
            entry.task.cancel()
        return CancelResult(entry.query_id, cancelled=True)

    @staticmethod
    def _visible(ctx: Context, entry: _Running) -> bool:
        return entry.actor == ctx.principal.id or ctx.principal.allows(Scope.OPERATOR)

    async def _run(
        self, ctx: Context, request: QueryRequest, entry: _Running, stack: ExitStack
    ) -> QueryStream:
        if self._cache is None or self._pinning is None:
            raise LakehouseError(ErrorKind.UNAVAILABLE, "the query service has not started")
        limits = effective_limits(self._settings, request.limits)
        deadline = entry.started + limits.timeout_seconds
        expires = float("inf") if ctx.deadline is None else ctx.deadline
        entry.engine = engine = choose_engine(request.engine)
        until = min(deadline, expires)
        left = await self._without_searches(request)
        parsed = await self._planning.parsed(left.sql, until)
        made = await self._searched(ctx, request, (left, parsed), until, stack)
        pinned = await self._pinning.pin(ctx, request, parsed, made)
        for path in pinned.passing:
            stack.callback(Path(path).unlink, missing_ok=True)
        prepared = await self._planning.prepared(
            parsed, left.params_json, pinned.relations, engine, (_identity(pinned), until)
        )
        remote = [file for file in prepared.objects if place(file) not in pinned.paths]
        stack.enter_context(self._cache.held(remote))
        local = await self._fetched(pinned, remote)
        paths = dict(pinned.paths)
        paths.update((place(file), path) for file, path in zip(remote, local.paths, strict=True))
        sql, scans = prepared.text(engine, paths)
        head = QueryHeader(
            query_id=entry.query_id,
            engine=engine,
            version=pinned.version,
            versions=tuple(pinned.versions),
            columns=(),
            format=request.format,
            served_from=local.served_from,
        )
        worker = await self._pool.take(deadline, expires)
        stack.callback(self._pool.release, worker)
        inbox = worker.link.inbox
        assert inbox is not None
        inbox.on_end = partial(_ended, worker, stack)
        entry.worker, entry.inbox = worker, inbox
        worker.timeout_seconds = limits.timeout_seconds
        worker.memory_max = limits.memory_bytes + self._settings.memory_slack_bytes
        plan = Plan(
            engine=engine.value,
            sql=sql,
            uses=tuple(scan.name for scan in scans),
            tables=worker.unknown(scans),
            output=() if prepared.explain else prepared.bound.output,
            explain=bool(prepared.explain),
            format=request.format.value,
            rows_max=limits.rows_max,
            bytes_max=limits.bytes_max,
            memory_bytes=limits.memory_bytes,
            cpu_seconds=int(limits.timeout_seconds * self._settings.threads) + CPU_SLACK_SECONDS,
            head=_json_head(head),
            started=entry.started,
        )
        worker.link.send(Frame.PLAN, encode(plan))
        kind, body = await inbox.get()
        assert kind is Frame.HEAD
        columns = tuple(ResultColumn(name, text) for name, text in orjson.loads(body))
        header = replace(head, columns=columns)
        return QueryStream(header, Chunks(inbox, stack, request.format))

    async def _without_searches(self, request: QueryRequest) -> Rewritten:
        sql, params = request.sql, request.params_json
        if len(sql) > self._settings.sql_bytes_max:
            return Rewritten(sql, params, ())  # refused as any other
        if len(sql) + len(params) > REWRITTEN_CHARS_MAX:
            return await run_blocking(rewritten, sql, params)
        return rewritten(sql, params)

    async def _searched(
        self,
        ctx: Context,
        request: QueryRequest,
        statement: tuple[Rewritten, Parsed],
        until: float,
        stack: ExitStack,
    ) -> dict[str, SystemRelation]:
        """The relations of a statement's searches, made before the datasets are looked at."""
        left, parsed = statement
        if not left.calls:
            return {}
        assert self._claim is not None
        check_places(left.calls, parsed.mentions)
        searches = Searches(self._vectors, self._catalog, self._claim.path, self._ids)
        passing: list[str] = []
        stack.callback(_remove, passing)
        try:
            async with asyncio.timeout(until - self._clock.monotonic()):
                return await searches.open(ctx, left.calls, passing, request.as_of)
        except TimeoutError as error:
            message = "the search took longer than the query may"
            raise LakehouseError(
                ErrorKind.TIMEOUT, message, function=left.calls[0].function
            ) from error

    async def _fetched(self, pinned: Pinned, files: Sequence[DataFile]) -> Local:
        """Verified local copies. What a bucket has to say against it names the dataset, too."""
        assert self._cache is not None
        try:
            return await self._cache.paths(files)
        except LakehouseError as error:
            raise _said_of(pinned, error) from error


def _remove(paths: Sequence[str]) -> None:
    for path in paths:
        Path(path).unlink(missing_ok=True)


def _ended(worker: WorkerProcess, stack: ExitStack, ready: bool) -> None:
    """Nothing more comes from the worker (``ready`` for the next plan): let go of what it held."""
    worker.busy = not ready
    stack.close()


def _said_of(pinned: Pinned, error: LakehouseError) -> LakehouseError:
    """``error`` with the name of the dataset whose object or bucket it speaks of."""
    bucket, key = error.fields.get("bucket"), error.fields.get("key")
    names = [
        one.snapshot.dataset.name
        for one in pinned.relations.values()
        if any(file.bucket == bucket and key in (file.key, None) for file in one.snapshot.files)
    ]
    fields = {**error.fields, "dataset": names[0]} if names else error.fields
    if error.kind is ErrorKind.NOT_FOUND:
        # The dataset is there; where its rows are is what this process does not know.
        message = "the bucket of a dataset is not known here"
        return LakehouseError(ErrorKind.UNAVAILABLE, message, **fields)
    return LakehouseError(error.kind, error.message, **fields)


def _slow(entry: _Running, outcome: str, seconds: float, rows: int) -> dict[str, object]:
    """What the log says of a query: all that one needs to find it, and nothing of its values."""
    about: dict[str, object] = {
        "query_id": entry.query_id,
        "request_id": entry.request_id,
        "actor": entry.actor,
        "engine": entry.engine.value,
        "outcome": outcome,
        "seconds": round(seconds, 3),
        "rows": rows,
        "statement": struck(entry.sql),
    }
    return about | ({"trace_id": entry.trace_id} if entry.trace_id else {})


def _unforeseen() -> LakehouseError:
    return LakehouseError(ErrorKind.INTERNAL, "the query failed in a way nobody foresaw")


def _cancelled() -> LakehouseError:
    return LakehouseError(ErrorKind.CONFLICT, "the query was cancelled")


def _identity(pinned: Pinned) -> tuple[Any, ...]:
    return tuple(
        (name, one.snapshot.dataset.id, one.snapshot.dataset.version, _path(pinned, one))
        for name, one in pinned.relations.items()
    )


def _path(pinned: Pinned, one: Relation) -> str | None:
    """Of a relation that was made for this query: where it is."""
    files = one.snapshot.files
    return pinned.paths.get(place(files[0])) if pinned.paths and files else None


def _json_head(head: QueryHeader) -> dict[str, Any]:
    return {
        "query_id": head.query_id,
        "engine": head.engine.value,
        "version": head.version,
        "versions": {one.dataset: one.version for one in head.versions},
        "served_from": head.served_from,
    }
