"""Compaction as a use case: plan, run, commit, and again if the inputs were gone meanwhile."""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from enum import IntEnum
from typing import Final

from lakehouse.contracts.catalog import CommitRequest, DatasetSnapshot
from lakehouse.contracts.inventory import JournalRequest
from lakehouse.contracts.rows import CompactReport, CompactRequest
from lakehouse.errors import ErrorKind, LakehouseError
from lakehouse.ingestd.compaction import reporting
from lakehouse.ingestd.compaction.figures import CompactionFigures
from lakehouse.ingestd.compaction.planning import EVENTS_RUN, Plan, Run, plan
from lakehouse.ingestd.compaction.running import Runner, Stand
from lakehouse.ingestd.rows.parts import RowParts
from lakehouse.ingestd.sessions import INGESTD
from lakehouse.kit import tracing
from lakehouse.kit.acting import act_as
from lakehouse.kit.blocking import run_blocking
from lakehouse.kit.figures import Readout
from lakehouse.model.changes import Change, DatasetAt, InputsLive, Requirement, RewriteFiles
from lakehouse.model.dataset import DataFile, VersionEntry
from lakehouse.model.identity import Context, Scope

__all__ = ["Compactor"]

log = logging.getLogger(__name__)
_ROUTE: Final = "compact"
_THREADS: Final = 2
_ENTRIES_MIN: Final = 8


class _Level(IntEnum):
    """How much is asked; who asks for no more than is being done joins."""

    SOON = 0
    PAYING = 1
    FULL = 2


@dataclass(slots=True)
class _Running:
    level: _Level
    task: asyncio.Task[CompactReport]


@dataclass(frozen=True, slots=True)
class _Asked:
    """Who asks for what, and how much of it."""

    ctx: Context
    request: CompactRequest
    level: _Level


@dataclass(frozen=True, slots=True)
class _Made:
    """What a plan came to, run by run."""

    plan: Plan
    outputs: tuple[tuple[DataFile, ...], ...]


class Compactor:
    """``contracts.rows.RowsService.compact``; belongs to one event loop.

    One compaction a dataset at a time in this process: who asks for what is under way joins it.
    Another process's is met at the commit: whose inputs are gone plans again.
    """

    def __init__(self, parts: RowParts) -> None:
        self._parts = parts
        self._settings = parts.settings.compaction
        self._figures = CompactionFigures()
        self._running: dict[str, _Running] = {}
        self._asked: dict[str, asyncio.Task[None]] = {}
        self._stop = threading.Event()
        # Threads of its own: who changes rows does not wait for who tidies up.
        self._jobs = ThreadPoolExecutor(_THREADS, "compaction")
        parts.compaction_wanted = self.wanted
        parts.closing.append(self.close)

    async def close(self) -> None:
        """Stop what is under way: nothing of it was committed. Idempotent."""
        self._stop.set()
        tasks = [*self._asked.values(), *(one.task for one in self._running.values())]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await run_blocking(self._jobs.shutdown, wait=True, cancel_futures=True)

    def figures(self) -> Iterable[Readout]:
        """What was compacted since the start."""
        return self._figures.figures(len(self._running))

    def wanted(self, name: str) -> None:
        """Fold the row changes of a dataset soon, in the background; returns at once."""
        if self._stop.is_set() or name in self._asked:
            return
        task = asyncio.create_task(self._soon(name), name=f"compaction of {name}")
        self._asked[name] = task
        task.add_done_callback(lambda _: self._asked.pop(name, None))

    async def compact(self, ctx: Context, request: CompactRequest) -> CompactReport:
        """See the contract. A caller that goes away stops nothing."""
        ctx.require(Scope.WRITE)
        if request.dry_run:
            return await self._expected(ctx, request)
        replay = await self._recall(ctx, request)
        if replay is not None:
            return replay
        return await self._join(ctx, request, _Level.FULL if request.full else _Level.PAYING)

    async def _soon(self, name: str) -> None:
        ctx = Context(principal=INGESTD, request_id=self._parts.ids.ulid(), source="compaction")
        try:
            with act_as("ingestd"):
                await self._join(ctx, CompactRequest(name), _Level.SOON)
        except LakehouseError as error:
            # It was logged and counted where it failed; the next change asks again.
            log.debug("a compaction in the background failed", extra={"reason": str(error)})

    async def _expected(self, ctx: Context, request: CompactRequest) -> CompactReport:
        snapshot, version = await self._parts.reader.snapshot(ctx, request.dataset)
        files, _ = await self._journal(ctx, snapshot.dataset.name)
        found = self._plan(snapshot, files, _Level.FULL if request.full else _Level.PAYING)
        return reporting.expected(reporting.standing(snapshot, version), found)

    async def _join(self, ctx: Context, request: CompactRequest, level: _Level) -> CompactReport:
        snapshot, _ = await self._parts.reader.snapshot(ctx, request.dataset)
        dataset = snapshot.dataset
        while (under_way := self._running.get(dataset.id)) is not None:
            if under_way.level >= level:
                return await asyncio.shield(under_way.task)
            await asyncio.wait([under_way.task])
        if self._stop.is_set() or self._parts.folder is None:
            raise LakehouseError(ErrorKind.UNAVAILABLE, "ingest is not running")
        asked = _Asked(replace(ctx, deadline=None), request, level)
        task = asyncio.create_task(self._counted(asked), name=f"compaction of {dataset.name}")
        task.add_done_callback(lambda done: self._ended(dataset.id, done))
        self._running[dataset.id] = _Running(level, task)
        return await asyncio.shield(task)

    def _ended(self, dataset_id: str, task: asyncio.Task[CompactReport]) -> None:
        del self._running[dataset_id]
        # Whoever asked may be gone: what became of it is in the log and the figures.
        if not task.cancelled():
            task.exception()

    async def _counted(self, asked: _Asked) -> CompactReport:
        outcome = "cancelled"
        try:
            with tracing.span("compact"):
                report = await self._compacted(asked)
        except LakehouseError as error:
            outcome = error.kind.value
            failure = {**error.fields, "dataset": asked.request.dataset, "reason": str(error)}
            log.warning("a compaction failed; nothing was changed", extra={"failure": failure})
            raise
        else:
            outcome = ""
            self._figures.reported(report)
            return report
        finally:
            if outcome:
                self._figures.ended(outcome)

    async def _compacted(self, asked: _Asked) -> CompactReport:
        parts = self._parts
        assert parts.folder is not None
        started = parts.clock.monotonic()
        folder = parts.folder / f"compaction-{parts.ids.ulid().lower()}"
        runner = Runner(parts, folder, self._jobs, self._stop)
        conflict: LakehouseError | None = None
        try:
            for rebased in range(self._settings.rebases_max + 1):
                try:
                    # Entries are told by who is alone with the dataset; else some other time.
                    report = await self._attempt(asked, runner, telling=rebased == 0)
                except LakehouseError as error:
                    if error.kind is not ErrorKind.CONFLICT:
                        raise
                    conflict = error
                    continue
                elapsed = parts.clock.monotonic() - started
                return replace(report, rebased=rebased, elapsed_ms=round(elapsed * 1e3, 3))
        finally:
            await run_blocking(runner.close)
        raise conflict or LakehouseError(ErrorKind.INTERNAL, "a compaction was never attempted")

    async def _attempt(self, asked: _Asked, runner: Runner, *, telling: bool) -> CompactReport:
        parts, ctx = self._parts, asked.ctx
        snapshot, version = await parts.reader.snapshot(ctx, asked.request.dataset)
        files, entries = await self._journal(ctx, snapshot.dataset.name)
        found = self._plan(snapshot, files, asked.level)
        report = reporting.standing(snapshot, version)
        if not found.runs:
            return report
        entries = tuple(_due(found, entries)) if telling else ()
        if entries and not any(run.strategy == EVENTS_RUN for run in found.runs):
            found = Plan((*found.runs, Run(EVENTS_RUN, ())))
        async with parts.sessions.writing() as session_id:
            stand = Stand(ctx, snapshot, session_id, entries)
            outputs: list[tuple[DataFile, ...]] = []
            left = entries
            for run in found.runs:
                tells, left = (left, ()) if run.strategy == EVENTS_RUN else ((), left)
                outputs.append(await runner.run(replace(stand, entries=tells), run))
            report = replace(
                reporting.done(report, found, [file for files in outputs for file in files]),
                bytes_read=runner.bytes_read,
                bytes_written=runner.bytes_written,
            )
            made = _Made(found, tuple(outputs))
            try:
                return await self._commit(asked, stand, made, report)
            except LakehouseError as error:
                # As for an ingest: the catalog names objects only where their session has ended.
                if error.kind is ErrorKind.CONFLICT and "keys" in error.fields:
                    parts.sessions.lost(session_id)
                raise

    def _plan(self, snapshot: DatasetSnapshot, events: Sequence[DataFile], level: _Level) -> Plan:
        full, soon = level is _Level.FULL, level is _Level.SOON
        return plan(snapshot, events, self._settings, full=full, fold_rows=not soon)

    async def _journal(
        self, ctx: Context, name: str
    ) -> tuple[tuple[DataFile, ...], tuple[VersionEntry, ...]]:
        """The event objects of a dataset, and the version entries that none of them tells."""
        files: list[DataFile] = []
        entries: list[VersionEntry] = []
        cursor = ""
        while True:
            page = await self._parts.catalog.journal(ctx, JournalRequest(name, cursor=cursor))
            files += page.files
            entries += page.entries
            cursor = page.cursor
            if not cursor:
                return tuple(files), tuple(entries)

    async def _commit(
        self, asked: _Asked, stand: Stand, made: _Made, report: CompactReport
    ) -> CompactReport:
        dataset = stand.dataset
        keys = tuple(file.key for file in made.plan.inputs)
        needs: list[Requirement] = [InputsLive(dataset.id, keys)]
        if stand.entries:
            # Nobody else tells them meanwhile.
            needs.append(DatasetAt(dataset.id, dataset.version))
        changes: list[Change] = []
        left = stand.entries
        for run, outputs in zip(made.plan.runs, made.outputs, strict=True):
            told = left[-1].version if left and run.strategy == EVENTS_RUN else 0
            left = () if told else left
            changes.append(RewriteFiles(dataset.id, run.keys, outputs, journaled=told))
        commit = self._keyed(asked.ctx, asked.request, CommitRequest(tuple(changes), tuple(needs)))
        if commit.request_sha256:
            commit = replace(commit, answer_json=reporting.kept_answer(report))
        result = await self._parts.catalog.commit(asked.ctx, commit)
        if result.replayed and result.answer_json:
            return reporting.told_again(result.answer_json, result.version)
        return replace(report, version=result.version)

    async def _recall(self, ctx: Context, request: CompactRequest) -> CompactReport | None:
        """What this very call came to when it was made before with its idempotency key. Raises
        ``invalid`` (422) if another one was made with it."""
        if not ctx.idempotency_key:
            return None
        asked = self._keyed(ctx, request, CommitRequest(()))
        result = await self._parts.catalog.commit(ctx, asked)
        if not result.replayed:
            return None
        return reporting.told_again(result.answer_json, result.version)

    @staticmethod
    def _keyed(ctx: Context, request: CompactRequest, commit: CommitRequest) -> CommitRequest:
        if not ctx.idempotency_key:
            return commit
        return replace(commit, request_sha256=reporting.asked_sha256(request), route=_ROUTE)


def _due(found: Plan, entries: Sequence[VersionEntry]) -> Sequence[VersionEntry]:
    """Those that are told by this compaction: a few alone are not worth an object."""
    with_events = any(run.strategy == EVENTS_RUN for run in found.runs)
    return entries if with_events or len(entries) >= _ENTRIES_MIN else ()
