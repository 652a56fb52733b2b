"""Compaction as a use case: who asks for what, who joins whom, and what became of it."""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from typing import Final

from lakehouse.contracts.catalog import CommitRequest
from lakehouse.contracts.rows import CompactReport, CompactRequest
from lakehouse.errors import ErrorKind, LakehouseError
from lakehouse.ingestd.compaction import reporting
from lakehouse.ingestd.compaction.attempts import Asked, Compaction, Level, expected, keyed
from lakehouse.ingestd.compaction.figures import CompactionFigures
from lakehouse.ingestd.compaction.running import Runner
from lakehouse.ingestd.rows.parts import RowParts
from lakehouse.ingestd.sessions import INGESTD
from lakehouse.kit import tracing
from lakehouse.kit.acting import act_as
from lakehouse.kit.blocking import run_blocking
from lakehouse.kit.figures import Readout
from lakehouse.model.identity import Context, Scope

__all__ = ["Compactor"]

log = logging.getLogger(__name__)
_THREADS: Final = 2
_QUIET_SECONDS: Final = 1.0

_Lane = tuple[str, bool]
"""Of a dataset what is wanted soon has a lane of its own: it does not wait for hours of work."""


@dataclass(slots=True)
class _Running:
    """``planned``: its ``inputs`` are known."""

    level: Level
    task: asyncio.Task[CompactReport]
    planned: asyncio.Event = field(default_factory=asyncio.Event)
    inputs: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class _Neighbours:
    """Implements ``Others`` for who runs in ``lane``."""

    running: dict[_Lane, _Running]
    lane: _Lane

    def busy(self) -> frozenset[str]:
        dataset_id, soon = self.lane
        other = self.running.get((dataset_id, not soon))
        return frozenset() if other is None else other.inputs

    def take(self, keys: frozenset[str]) -> None:
        own = self.running[self.lane]
        own.inputs = keys
        own.planned.set()


class Compactor:
    """``contracts.rows.RowsService.compact``; belongs to one event loop.

    One compaction a dataset at a time in this process, and beside it one of the changes that came
    since it was planned: who asks for what is under way joins it. Another process's is met at the
    commit: whose inputs are gone plans again.
    """

    def __init__(self, parts: RowParts) -> None:
        self._parts = parts
        self._figures = CompactionFigures()
        self._running: dict[_Lane, _Running] = {}
        self._wanted: dict[str, asyncio.Task[None]] = {}
        self._quiet: dict[str, float] = {}
        self._stop = threading.Event()
        # Threads of its own: who changes rows does not wait for who tidies up.
        self._jobs = ThreadPoolExecutor(_THREADS, "compaction")
        parts.compaction_wanted = self.wanted
        parts.closing.append(self.close)

    async def close(self) -> None:
        """Stop what is under way: nothing of it was committed. Idempotent."""
        self._stop.set()
        tasks = [*self._wanted.values(), *(one.task for one in self._running.values())]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await run_blocking(self._jobs.shutdown, wait=True, cancel_futures=True)

    def figures(self) -> Iterable[Readout]:
        """What was compacted since the start."""
        return self._figures.figures(len(self._running))

    def wanted(self, name: str) -> None:
        """Fold the row changes of a dataset soon, in the background; returns at once. Where nothing
        was gained the last time, that is not tried again at every change."""
        now = self._parts.clock.monotonic()
        if self._stop.is_set() or name in self._wanted or self._quiet.get(name, now) > now:
            return
        task = asyncio.create_task(self._soon(name), name=f"compaction of {name}")
        self._wanted[name] = task
        task.add_done_callback(lambda _: self._wanted.pop(name, None))

    async def compact(self, ctx: Context, request: CompactRequest) -> CompactReport:
        """See the contract. A caller that goes away stops nothing."""
        ctx.require(Scope.WRITE)
        if request.dry_run:
            return await expected(self._parts, ctx, request)
        replay = await self._recall(ctx, request)
        if replay is not None:
            return replay
        return await self._join(Asked(ctx, request, Level.FULL if request.full else Level.PAYING))

    async def _recall(self, ctx: Context, request: CompactRequest) -> CompactReport | None:
        """What this very call came to when it was made before with its idempotency key. Raises
        ``invalid`` (422) if another one was made with it."""
        if not ctx.idempotency_key:
            return None
        asked = keyed(ctx, request, CommitRequest(()))
        result = await self._parts.catalog.commit(ctx, asked)
        if not result.replayed:
            return None
        return reporting.told_again(result.answer_json, result.version)

    async def _soon(self, name: str) -> None:
        ctx = Context(principal=INGESTD, request_id=self._parts.ids.ulid(), source="compaction")
        self._quiet.pop(name, None)
        gained = False
        try:
            with act_as("ingestd"):
                report = await self._join(Asked(ctx, CompactRequest(name), Level.SOON))
                gained = not report.no_op
        except LakehouseError as error:
            # It was logged and counted where it failed.
            log.debug("a compaction in the background failed", extra={"reason": str(error)})
        if not gained:
            now = self._parts.clock.monotonic()
            self._quiet = {one: until for one, until in self._quiet.items() if until > now}
            self._quiet[name] = now + _QUIET_SECONDS

    async def _join(self, asked: Asked) -> CompactReport:
        snapshot, _ = await self._parts.reader.snapshot(asked.ctx, asked.request.dataset)
        lane = snapshot.dataset.id, asked.level is Level.SOON
        other = lane[0], not lane[1]
        while lane in self._running or other in self._running:
            own, beside = self._running.get(lane), self._running.get(other)
            if own is not None and own.level >= asked.level:
                return await asyncio.shield(own.task)
            if own is not None:
                await asyncio.wait([own.task])
            elif beside is None or (lane[1] and beside.planned.is_set()):
                break
            elif lane[1]:
                waiting = asyncio.ensure_future(beside.planned.wait())
                await asyncio.wait([waiting, beside.task], return_when=asyncio.FIRST_COMPLETED)
                waiting.cancel()
            else:
                await asyncio.wait([beside.task])
        if self._stop.is_set() or self._parts.folder is None:
            raise LakehouseError(ErrorKind.UNAVAILABLE, "ingest is not running")
        name = f"compaction of {snapshot.dataset.name}"
        asked = replace(asked, ctx=replace(asked.ctx, deadline=None))
        task = asyncio.create_task(self._counted(asked, lane), name=name)
        task.add_done_callback(lambda done: self._ended(lane, done))
        self._running[lane] = _Running(asked.level, task)
        return await asyncio.shield(task)

    def _ended(self, lane: _Lane, task: asyncio.Task[CompactReport]) -> None:
        del self._running[lane]
        # Whoever asked may be gone: what became of it is in the log and the figures.
        if not task.cancelled():
            task.exception()

    async def _counted(self, asked: Asked, lane: _Lane) -> CompactReport:
        outcome = "cancelled"
        try:
            with tracing.span("compact"):
                report = await self._compacted(asked, lane)
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

    async def _compacted(self, asked: Asked, lane: _Lane) -> CompactReport:
        parts = self._parts
        assert parts.folder is not None
        folder = parts.folder / f"compaction-{parts.ids.ulid().lower()}"
        runner = Runner(parts, folder, self._jobs, self._stop)
        neighbours = _Neighbours(self._running, lane)
        try:
            return await Compaction(parts, asked, runner, neighbours).run()
        finally:
            await run_blocking(runner.close)
