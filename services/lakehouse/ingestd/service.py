"""Ingest as a service: spool, decide, convert, upload, commit, report (ADR-010)."""

from __future__ import annotations

import asyncio
import contextlib
import os
import threading
from collections.abc import AsyncIterator, Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Final

from lakehouse.contracts.catalog import CatalogService
from lakehouse.contracts.ingest import IngestMode, IngestReport, IngestRequest
from lakehouse.contracts.rows import SetKeyRequest
from lakehouse.errors import ErrorKind, LakehouseError
from lakehouse.ingestd.committing import Committer, Job, Uploaded
from lakehouse.ingestd.convert import Outcome, Work
from lakehouse.ingestd.deciding import Action, Standing, check_same_key, content_digest, decide
from lakehouse.ingestd.figures import IngestFigures
from lakehouse.ingestd.keyed import (
    EXISTING_KEYS,
    Delta,
    Into,
    count,
    is_keyed,
    put_delta,
    snapshot_of,
)
from lakehouse.ingestd.misfits import NotFitting, drift, stated_wrong
from lakehouse.ingestd.reading import Reading, read_body
from lakehouse.ingestd.reports import (
    DEAD_LETTERS_SUFFIX,
    Measured,
    no_op_report,
    sample_json,
    stated_sensitivity,
)
from lakehouse.ingestd.rows.keying import KeySetter
from lakehouse.ingestd.rows.parts import RowParts
from lakehouse.ingestd.rows.publishing import Told, committed
from lakehouse.ingestd.settings import IngestSettings
from lakehouse.ingestd.spool import Spool, SpooledBody
from lakehouse.kit import tracing
from lakehouse.kit.blocking import run_in
from lakehouse.kit.clock import Clock
from lakehouse.kit.figures import Readout
from lakehouse.kit.ids import Ids
from lakehouse.model.dataset import Dataset
from lakehouse.model.identity import Context, Scope
from lakehouse.model.refs import PRIMARY, check_foreign_key, check_name, name_key
from lakehouse.model.residency import check_may_keep
from lakehouse.model.schema import Schema
from lakehouse.objectstore.buckets import Buckets
from lakehouse.objectstore.port import StreamingReads
from lakehouse.objectstore.rescue import KnownReads
from lakehouse.table.keys import check_key_columns

__all__ = ["Ingest"]

_ATTEMPTS: Final = 8
_THREADS_MAX: Final = 4
_SPOOL_THREADS: Final = 4


@dataclass(slots=True)
class _Under:
    """An ingest under way: what was spooled, and what was made of it so far."""

    job: Job
    body: SpooledBody
    folder: Path
    started: float
    stop: threading.Event = field(default_factory=threading.Event)
    outcome: Outcome | None = None
    read_against: tuple[Schema | None, tuple[str, ...]] | None = None
    format: str = ""
    uploaded: Uploaded | None = None


class Ingest:
    """Implements ``contracts.ingest.IngestService``; belongs to one event loop.

    ``start`` before the first call, ``close`` at the end: ingests under way stop at their next
    block, and their callers are told ``unavailable``; nothing of them was committed. ``parts`` are
    shared with the services of rows and of the journal.
    """

    def __init__(
        self,
        settings: IngestSettings,
        catalog: CatalogService,
        buckets: Buckets,
        clock: Clock,
        ids: Ids,
        known: KnownReads | None = None,
    ) -> None:
        self._settings = settings
        self._buckets = buckets
        self._clock = clock
        self._spool = Spool(settings, ids)
        self.parts = RowParts(settings, catalog, buckets, clock, ids, known)
        self._sessions = self.parts.sessions
        self._keys = KeySetter(self.parts)
        self._committer = Committer(settings, catalog, buckets, ids)
        self._slots = asyncio.Semaphore(settings.concurrent_max)
        self._present = 0
        self._figures = IngestFigures()
        self._stops: set[threading.Event] = set()
        self._jobs: ThreadPoolExecutor | None = None
        self._parsers: ThreadPoolExecutor | None = None
        self._disk: ThreadPoolExecutor | None = None

    async def start(self) -> None:
        """Make the spool folder and the threads. Raises ``unavailable`` if the folder cannot be."""
        self._spool.open()
        settings = self._settings
        threads = settings.threads or min(os.cpu_count() or 1, _THREADS_MAX)
        self._jobs = ThreadPoolExecutor(settings.concurrent_max, "ingest")
        self._parsers = ThreadPoolExecutor(threads, "ingest-parse")
        self._disk = ThreadPoolExecutor(_SPOOL_THREADS, "ingest-spool")
        await self.parts.start(self._spool.folder)

    async def close(self) -> None:
        """Stop ingests under way; end the session, the threads and the spool folder. Idempotent."""
        for stop in self._stops:
            stop.set()
        await self.parts.close()
        for pool in (self._jobs, self._parsers, self._disk):
            if pool is not None:
                await asyncio.to_thread(pool.shutdown, wait=True, cancel_futures=True)
        self._jobs = self._parsers = self._disk = None
        self._spool.close()

    async def ingest(
        self, ctx: Context, request: IngestRequest, body: AsyncIterator[bytes]
    ) -> IngestReport:
        """See the contract. A small file costs one PUT for its rows and the commit's own."""
        ctx.require(Scope.WRITE)
        started = self._clock.monotonic()
        outcome = "cancelled"
        try:
            with tracing.span("ingest", attributes={"lakehouse.mode": request.mode.value}):
                report = await self._ingest(ctx, request, body, started)
        except LakehouseError as error:
            outcome = error.kind.value
            raise
        else:
            outcome = ""
            self._figures.reported(report, self._clock.monotonic() - started)
            return report
        finally:
            if outcome:
                self._figures.ended(outcome)

    def figures(self) -> Iterable[Readout]:
        """What was ingested since the start."""
        return self._figures.figures(self._present, self._spool.used_bytes)

    async def _ingest(
        self, ctx: Context, request: IngestRequest, body: AsyncIterator[bytes], started: float
    ) -> IngestReport:
        name = _checked(request)
        await self._find_buckets(ctx, request)
        async with self._admitted():
            folder = self._spool.new_folder()
            taken = [0]
            under: _Under | None = None
            try:
                spooled = await self._receive(folder, request, body, taken)
                digest = content_digest(spooled.sha256, request.options)
                job = Job(request, name, digest, _source_name(request))
                under = _Under(job, spooled, folder, started)
                self._stops.add(under.stop)
                return await self._run(ctx, under)
            finally:
                if under is not None:
                    under.stop.set()
                    self._stops.discard(under.stop)
                self._spool.release(folder, taken[0])

    async def _find_buckets(self, ctx: Context, request: IngestRequest) -> None:
        """Raise ``not_found`` for a bucket that there is not before a byte of the body is read."""
        source = (request.object_bucket,) if request.object_key else ()
        named = (request.bucket,) if request.bucket else ()
        await self._buckets.find(ctx, (*source, *named))
        for bucket in (*source, *named):
            self._buckets.settings(bucket)

    def _check_source(self, request: IngestRequest, dataset: Dataset | None) -> None:
        """Raise ``forbidden`` if an object that is read would leave the residency of its bucket."""
        if not request.object_key:
            return
        source = request.object_bucket
        home = request.bucket or PRIMARY
        label = self._residency(home) if dataset is None else dataset.residency
        target = (home if dataset is None else dataset.bucket, label)
        check_may_keep((source, self._residency(source)), target)

    def _residency(self, bucket: str) -> str:
        return self._buckets.settings(bucket).residency

    @asynccontextmanager
    async def _admitted(self) -> AsyncIterator[None]:
        limit = self._settings.concurrent_max + self._settings.queued_max
        if self._present >= limit:
            raise LakehouseError(
                ErrorKind.EXHAUSTED,
                "too many ingests are under way",
                limit="ingest.queued_max",
                maximum=limit,
                hint="send it again shortly",
            )
        self._present += 1
        try:
            yield
        finally:
            self._present -= 1

    async def _receive(
        self, folder: Path, request: IngestRequest, body: AsyncIterator[bytes], taken: list[int]
    ) -> SpooledBody:
        disk = _running(self._disk)
        if not request.object_key:
            return await self._spool.receive(folder, body, disk, taken)
        store = self._buckets.get(request.object_bucket)
        key = check_foreign_key(request.object_key)
        if isinstance(store, StreamingReads):
            return await self._spool.receive(folder, store.stream(key), disk, taken)
        return await self._spool.receive(folder, _once(await store.get(key)), disk, taken)

    async def _run(self, ctx: Context, under: _Under) -> IngestReport:
        request = under.job.request
        if request.dry_run:
            return await self._dry_run(ctx, under)
        conflict: LakehouseError | None = None
        for _ in range(_ATTEMPTS):
            standing = await self._committer.standing(ctx, under.job)
            self._check_source(request, standing.dataset)
            # After the look at what is there: that may be what this very call did before.
            replay = await self._committer.recall(ctx, under.job)
            if replay is not None:
                return replay
            action = decide(request, standing)
            if action is Action.NOTHING:
                return self._no_op(under, standing)
            await self._read(ctx, under, standing)
            if action is Action.UPSERT and standing.dataset and not standing.dataset.primary_key:
                # A change of its own: the rows that are there have this key from now on.
                key = SetKeyRequest(standing.dataset.name, _made(under).key, request.reason)
                await self._keys.set_key(replace(ctx, idempotency_key=None), key)
                continue
            try:
                return await self._publish(ctx, under, action, standing)
            except LakehouseError as error:
                if error.kind not in (ErrorKind.CONFLICT, ErrorKind.ALREADY_EXISTS):
                    raise
                if EXISTING_KEYS in error.fields:
                    # It may be this very call that brought them, sent twice at once.
                    replay = await self._committer.recall(ctx, under.job)
                    if replay is None:
                        raise
                    return replay
                conflict = error
        raise conflict or LakehouseError(ErrorKind.INTERNAL, "an ingest was never attempted")

    async def _dry_run(self, ctx: Context, under: _Under) -> IngestReport:
        """Read it all as an ingest would, and commit nothing."""
        standing = Standing(await self._committer.find(ctx, under.job.name))
        self._check_source(under.job.request, standing.dataset)
        mode, action = under.job.request.mode, Action.NOTHING
        if mode in (IngestMode.AUTO, IngestMode.CREATE):
            standing = Standing()
        elif standing.dataset is not None or mode is IngestMode.UPSERT:
            action = decide(under.job.request, standing)
        await self._read(ctx, under, standing)
        report = self._report(under, 0, Action.NOTHING)
        outcome = _made(under)
        if standing.dataset is not None and is_keyed(action, standing.dataset):
            snapshot = await snapshot_of(self.parts, ctx, standing.dataset, action)
            delta = await count(self.parts, action, snapshot, outcome)
            report = delta.told(report, action)
        return replace(report, dry_run=True, files=0, sample_json=sample_json(outcome.sample))

    async def _read(self, ctx: Context, under: _Under, standing: Standing) -> None:
        """Convert the body, unless it was read against the same schema before."""
        dataset = standing.dataset
        schema = dataset.schema if dataset else None
        request = under.job.request
        key = check_same_key(request, dataset) if dataset else request.key
        if under.outcome is not None and under.read_against == (schema, key):
            return
        under.outcome = under.uploaded = None
        reading = Reading(under.body, request.options, schema, key, self._checker(ctx, under.stop))
        work = Work(
            under.folder,
            self._settings,
            _running(self._parsers),
            reading.check,
            under.job.source,
            self._clock.now_us(),
        )
        async with self._slots:
            try:
                under.outcome, under.format = await self._in_thread(under, reading, work)
            except NotFitting as error:
                if dataset is not None:
                    raise drift(dataset.name, dataset.schema, error) from error
                raise stated_wrong(error) from error
        if under.outcome.key and not (dataset and dataset.primary_key):
            check_key_columns(under.outcome.schema, under.outcome.key)
        under.read_against = schema, key

    async def _in_thread(self, under: _Under, reading: Reading, work: Work) -> tuple[Outcome, str]:
        future = asyncio.ensure_future(run_in(_running(self._jobs), read_body, reading, work))
        try:
            return await asyncio.shield(future)
        except asyncio.CancelledError:
            # The caller went away: the thread stops at its next block; its files wait for it.
            under.stop.set()
            with contextlib.suppress(Exception):
                await asyncio.wait([future])
            raise

    def _checker(self, ctx: Context, stop: threading.Event) -> Callable[[], None]:
        def check() -> None:
            if stop.is_set():
                raise LakehouseError(ErrorKind.UNAVAILABLE, "the ingest was given up")
            if ctx.deadline is not None and self._clock.monotonic() > ctx.deadline:
                raise LakehouseError(
                    ErrorKind.TIMEOUT,
                    "the deadline passed while the file was read",
                    hint="allow more time, or send a smaller file",
                )

        return check

    async def _publish(
        self, ctx: Context, under: _Under, action: Action, standing: Standing
    ) -> IngestReport:
        outcome, dataset = _made(under), standing.dataset
        async with AsyncExitStack() as stack:
            session_id = await stack.enter_async_context(self._sessions.writing(ctx.deadline))
            ready = under.uploaded
            reusable = (
                ready is not None
                and ready.session_id == session_id
                and (dataset is None or dataset.id == ready.dataset_id)
                and not ready.dead_files
            )
            if not reusable:
                under.uploaded = await self._committer.upload(
                    ctx, under.job, outcome, (action, standing), session_id
                )
            assert under.uploaded is not None
            uploaded = under.uploaded
            report = self._report(under, 0, action)
            if dataset is not None:
                # It is called as it was named, not as this request spelt it.
                report = replace(report, dataset=dataset.name)
            if dataset is not None and is_keyed(action, dataset):
                await stack.enter_async_context(self.parts.turns.of(name_key(dataset.name)))
                delta = await self._delta(ctx, under, action, dataset)
                report = delta.told(report, action)
                if delta.nothing and not uploaded.dead_files:
                    replay = await self._committer.recall(ctx, under.job)
                    if replay is not None:
                        return replay
                    version = delta.dataset.rows_version
                    return replace(report, version=version, files=0, no_op=True)
                uploaded = replace(uploaded, delta=delta)
                report = replace(report, files=len(uploaded.files) + len(delta.files))
            try:
                report = await self._committer.commit(
                    ctx, under.job, outcome, uploaded, (action, standing), report
                )
            except LakehouseError as error:
                # The catalog names objects only where their session has ended or they were
                # condemned: either way they are written again, under another session.
                if error.kind is ErrorKind.CONFLICT and "keys" in error.fields:
                    self._sessions.lost(session_id)
                    under.uploaded = None
                raise
            if uploaded.delta is not None:
                await committed(self.parts, uploaded.delta.dataset, uploaded.delta.put)
        # With a key the answer is the one that was kept, to the letter.
        elapsed_ms = report.elapsed_ms if ctx.idempotency_key else self._measured(under).elapsed_ms
        return replace(report, elapsed_ms=elapsed_ms)

    async def _delta(self, ctx: Context, under: _Under, action: Action, dataset: Dataset) -> Delta:
        """What the rows do to those that are there, its objects put."""
        job, uploaded = under.job, under.uploaded
        assert uploaded is not None
        snapshot = await snapshot_of(self.parts, ctx, dataset, action)
        told = Told(action.value, job.source, job.request.reason, under.body.sha256)
        into = Into(uploaded.session_id, uploaded.files, self._checker(ctx, under.stop))
        return await put_delta(self.parts, ctx, told, snapshot, _made(under), into)

    def _report(self, under: _Under, version: int, action: Action) -> IngestReport:
        outcome = _made(under)
        measured = self._measured(under)
        dead = outcome.dead_letters > 0
        return IngestReport(
            dataset=under.job.name,
            version=version,
            rows=outcome.rows,
            files=len(outcome.files),
            no_op=False,
            created=action is Action.CREATE,
            dead_letters=outcome.dead_letters,
            dead_letter_dataset=under.job.name + DEAD_LETTERS_SUFFIX if dead else "",
            schema=outcome.schema.columns,
            warnings=outcome.warnings,
            content_digest=measured.content_digest,
            format=under.format,
            mode=under.job.request.mode.value,
            bytes_read=measured.bytes_read,
            elapsed_ms=measured.elapsed_ms,
            inserted=outcome.rows if under.job.request.mode is IngestMode.UPSERT else 0,
        )

    def _no_op(self, under: _Under, standing: Standing) -> IngestReport:
        dataset, entry = standing.dataset, standing.entry
        if dataset is None or entry is None:
            raise LakehouseError(ErrorKind.INTERNAL, "a no-op needs the rows to be there")
        return no_op_report(
            under.job.request,
            dataset,
            entry.rows_added,
            entry.version,
            self._measured(under),
        )

    def _measured(self, under: _Under) -> Measured:
        elapsed = self._clock.monotonic() - under.started
        return Measured(under.job.digest, under.body.size_bytes, round(elapsed * 1e3, 3))


def _checked(request: IngestRequest) -> str:
    """The dataset's display name; raises ``invalid`` for anything no file could satisfy."""
    name = check_name(request.dataset)
    if request.card.sensitivity:
        stated_sensitivity(request.card.sensitivity)
    return name


def _source_name(request: IngestRequest) -> str:
    if request.object_key:
        return f"{request.object_bucket}/{request.object_key}"
    return request.options.file_name or "body"


def _made(under: _Under) -> Outcome:
    if under.outcome is None:
        raise LakehouseError(ErrorKind.INTERNAL, "a report needs an outcome")
    return under.outcome


def _running(pool: ThreadPoolExecutor | None) -> ThreadPoolExecutor:
    if pool is None:
        raise LakehouseError(ErrorKind.UNAVAILABLE, "ingest has not been started")
    return pool


async def _once(data: bytes) -> AsyncIterator[bytes]:
    yield data
