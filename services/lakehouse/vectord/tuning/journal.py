"""Every trial that was ever run, in the append log ``_trials/hnsw`` of the primary (ADR-018).

A run is events: that it began, each of its trials when it is done, that it ended. One whose process
ended before it is told as failed: the process holds a file locked while it runs, so that on the
same machine this is known at once, and elsewhere when the time that the run had is over.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Final

from lakehouse.appendlog.log import AppendLog, open_log
from lakehouse.appendlog.settings import LogSettings
from lakehouse.contracts.catalog import StatusRequest
from lakehouse.contracts.trials import BUDGET_SECONDS_MAX, TrialsRequest, TrialsResult
from lakehouse.errors import ErrorKind, LakehouseError
from lakehouse.kit.clock import to_datetime
from lakehouse.kit.ids import ulid_millis
from lakehouse.ledger.machine import JsonObject
from lakehouse.model.refs import PRIMARY, name_key
from lakehouse.model.retrieval import Trial
from lakehouse.objectstore.identity import read_identity
from lakehouse.objectstore.scoped import ScopedStore
from lakehouse.vectord.identity import own_context
from lakehouse.vectord.parts import VectorParts
from lakehouse.vectord.records.place import local_folder
from lakehouse.vectord.tuning.events import Began, Run, RunEnd, run_of, to_event, trial_of

__all__ = ["TrialLog"]

log = logging.getLogger(__name__)

FOLDER: Final = "_trials/"
_PREFIX: Final = f"{FOLDER}hnsw"
_SKEW: Final = timedelta(minutes=10)
_RUN_MAX: Final = timedelta(seconds=BUDGET_SECONDS_MAX) + _SKEW
_ENDS_REMEMBERED: Final = 1_000
_BUDGET_SECONDS: Final = 5.0
_CURSOR_DIGITS: Final = 18
# Beyond are no ids of a run or trial, and near the year 9999 no times around them.
_YEARS_MS: Final = 4_000_000_000_000


class TrialLog:
    """Opened when it is first needed. Belongs to one event loop."""

    def __init__(self, parts: VectorParts) -> None:
        self._parts = parts
        self.spool = local_folder(parts, "trials")
        self._opening = asyncio.Lock()
        self._log: AppendLog | None = None
        self._ends: dict[str, RunEnd] = {}

    async def open(self) -> None:
        """Now, so that what an earlier process left here gets there. Raises what opening does."""
        await self._opened()

    async def tidy(self) -> None:
        """Merge small batches; what fails of it is done next time."""
        try:
            await (await self._opened()).compact()
        except LakehouseError as error:
            log.warning("the log of trials could not be tidied", extra={"reason": str(error)})

    async def close(self) -> None:
        """Write what waits; idempotent."""
        opened, self._log = self._log, None
        if opened is not None:
            await opened.close()

    async def append(self, values: Sequence[Began | Trial | RunEnd]) -> None:
        """In the log when this returns. Raises as ``AppendLog.append``."""
        opened = await self._opened()
        await opened.append([to_event(value) for value in values])
        self._remember(values)

    async def keep(self, values: Sequence[Trial | RunEnd]) -> None:
        """In the log when this returns, or else on this machine until the log can be reached."""
        try:
            await self.append(values)
        except LakehouseError as error:
            told = {"events": len(values), "reason": str(error)}
            log.warning("trials wait for their log", extra=told)
            opened = await self._opened()
            opened.offer([to_event(value) for value in values])
            self._remember(values)

    async def run(self, run: str) -> Run:
        """What there is of a run; nothing of one that never was."""
        made = _time_of(run)
        if made is None:
            return Run()
        opened = await self._opened()
        source = opened.scan(made - _SKEW, made + _RUN_MAX + _SKEW)
        events = [one.event async for one in source]
        events += [one.event for one in await opened.waiting()]
        return run_of(events, run)

    async def trial(self, known: str) -> Trial | None:
        """By its id."""
        made = _time_of(known)
        if made is None:
            return None
        opened = await self._opened()
        events = [one.event for one in await opened.waiting()]
        events += [one.event async for one in opened.scan(made - _SKEW, made + _SKEW)]
        for event in events:
            trial = trial_of(event) if event.get("id") == known else None
            if trial is not None:
                return (await self._with_choice([trial]))[0]
        return None

    async def page(self, request: TrialsRequest, version: int) -> TrialsResult:
        """Newest first, as the log has them. Raises ``invalid`` for a cursor that is none."""
        opened = await self._opened()
        before = _place(request.cursor)
        found: dict[str, Trial] = {}
        damaged: list[object] = []
        if before is None:
            waiting = [trial_of(one.event) for one in await opened.waiting()]
            asked = [one for one in waiting if one is not None and _is_asked(one, request)]
            found = {one.id: one for one in reversed(asked)}
        source = opened.scan(
            request.since, request.until, 0, before, newest_first=True, on_damage=damaged.append
        )
        last, cursor, taken = 0, "", 0
        async for each in source:
            trial = trial_of(each.event)
            if trial is None or trial.id in found or not _is_asked(trial, request):
                continue
            # Those that wait for the log come on top of the first page: they have no place in it.
            if taken >= request.limit:
                cursor = str(last)
                break
            found[trial.id], last, taken = trial, each.seq, taken + 1
        trials = await self._with_choice(list(found.values()))
        status = opened.status()
        return TrialsResult(tuple(trials), version, cursor, status.dropped_total, len(damaged))

    async def _with_choice(self, trials: list[Trial]) -> list[Trial]:
        """With ``chosen``, which is known when a run has ended only."""
        unknown = {trial.run for trial in trials} - self._ends.keys()
        made = [at for at in map(_time_of, unknown) if at is not None]
        if made:
            opened = await self._opened()
            async for each in opened.scan(min(made) - _SKEW, max(made) + _RUN_MAX + _SKEW):
                self._ended(each.event, unknown)
            for one in await opened.waiting():
                self._ended(one.event, unknown)
        ends = {run: end.chosen for run, end in self._ends.items()}
        return [replace(one, chosen=ends.get(one.run) == one.id) for one in trials]

    def _ended(self, event: JsonObject, wanted: set[str]) -> None:
        run = event.get("run")
        if run in wanted and (end := run_of([event], run).end) is not None:
            self._remember([end])

    def _remember(self, values: Sequence[Began | Trial | RunEnd]) -> None:
        self._ends |= {one.run: one for one in values if isinstance(one, RunEnd)}
        while len(self._ends) > _ENDS_REMEMBERED:
            del self._ends[next(iter(self._ends))]

    async def _opened(self) -> AppendLog:
        async with self._opening:
            if self._log is None:
                self._log = await self._open()
            return self._log

    async def _open(self) -> AppendLog:
        """Raises ``forbidden`` where another store is in the primary."""
        parts = self._parts
        store = parts.buckets.raw(PRIMARY)
        found = await read_identity(parts.buckets.get(PRIMARY))
        known = await parts.catalog.status(own_context(parts.ids), StatusRequest())
        if known.store_id != found.store_id:
            raise LakehouseError(
                ErrorKind.FORBIDDEN,
                "the store in the primary bucket is not the catalog's",
                found=found.store_id,
                catalog=known.store_id,
                key="buckets.primary.url",
            )
        settings = LogSettings(
            spool_folder=self.spool,
            append_budget_seconds=_BUDGET_SECONDS,
        )
        scoped = ScopedStore(store, (FOLDER,))
        return await open_log(scoped, _PREFIX, parts.writer, parts.clock, parts.ids, settings)


def _time_of(ulid: str) -> datetime | None:
    try:
        millis = ulid_millis(ulid)
    except ValueError:
        return None
    return to_datetime(millis * 1_000) if millis < _YEARS_MS else None


def _place(cursor: str) -> int | None:
    if not cursor:
        return None
    if not cursor.isascii() or not cursor.isdigit() or len(cursor) > _CURSOR_DIGITS:
        raise LakehouseError(
            ErrorKind.INVALID, "a cursor is what an answer gave", cursor=cursor[:80]
        )
    return int(cursor)


def _is_asked(trial: Trial, request: TrialsRequest) -> bool:
    return (
        (not request.index or name_key(trial.index) == name_key(request.index))
        and (not request.run or trial.run == request.run)
        and (not request.kind or trial.kind == request.kind)
        and (request.since is None or trial.at >= request.since)
        and (request.until is None or trial.at < request.until)
    )
