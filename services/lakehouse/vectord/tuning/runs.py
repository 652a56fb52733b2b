"""Runs under way, and what is told of them and of those that have ended."""

from __future__ import annotations

import asyncio
import logging
import platform
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from datetime import timedelta
from pathlib import Path
from typing import Final

from lakehouse.contracts.trials import TrialsReport
from lakehouse.errors import ErrorKind, LakehouseError
from lakehouse.kit.blocking import run_blocking
from lakehouse.kit.clock import to_datetime
from lakehouse.model.identity import Context
from lakehouse.model.refs import name_key
from lakehouse.model.retrieval import Trial
from lakehouse.vectord.parts import VectorParts
from lakehouse.vectord.records.place import local_folder
from lakehouse.vectord.tuning.events import Began, Run, RunEnd
from lakehouse.vectord.tuning.holding import Hold, forget, is_held, left
from lakehouse.vectord.tuning.journal import TrialLog

__all__ = ["Active", "Outcome", "Runs", "Subject"]

log = logging.getLogger(__name__)

_AGAIN_SECONDS: Final = 5.0
_GRACE: Final = timedelta(minutes=2)
_ERROR_MAX: Final = 1_000
_ENDED_REMEMBERED: Final = 20
_DIED: Final = "its process ended before it was done; the trials that were done are there"


@dataclass(frozen=True, slots=True)
class Subject:
    """What a run is about. ``seconds``: it may take so long; ``planned``: settings to try."""

    index: str
    number: int
    kind: str
    planned: int
    seconds: float


@dataclass(frozen=True, slots=True)
class Outcome:
    """``chosen``: a trial's id, "" for none; ``error``: "" unless it failed."""

    chosen: str = ""
    reached: bool = False
    ended: str = ""
    error: str = ""


@dataclass(slots=True)
class Active:
    """A run of this process. ``stopping`` is read in its thread."""

    began: Began
    hold: Hold
    since: float
    trials: list[Trial] = field(default_factory=list)
    end: RunEnd | None = None
    stopping: bool = False
    task: asyncio.Task[None] | None = None


class Runs:
    """Belongs to one event loop."""

    def __init__(self, parts: VectorParts, log: TrialLog) -> None:
        self._parts = parts
        self._log = log
        self._folder = local_folder(parts, "running")
        self._active: dict[str, Active] = {}
        self._by_index: dict[str, str] = {}
        self._looking = asyncio.Lock()

    def check_free(self, index: str) -> None:
        """Raise ``conflict`` while a run of ``index`` is under way."""
        run = self._by_index.get(name_key(index))
        if run is not None:
            raise LakehouseError(
                ErrorKind.CONFLICT,
                "a run of this index is under way",
                index=index,
                run=run,
                hint="wait for it: see the run",
            )

    async def begin(self, ctx: Context, subject: Subject) -> Active:
        """In the log when this returns. Raises ``conflict``, and what the log does."""
        self.check_free(subject.index)
        parts, key = self._parts, name_key(subject.index)
        run, now = parts.ids.ulid(), to_datetime(parts.clock.now_us())
        self._by_index[key] = run
        began = Began(
            run,
            now,
            now + timedelta(seconds=subject.seconds) + _GRACE,
            subject.index,
            subject.number,
            subject.kind,
            ctx.principal.id,
            subject.planned,
            platform.node(),
        )
        taking = asyncio.create_task(run_blocking(Hold, self._folder, run))
        try:
            # A thread cannot be ended: who gives up meanwhile lets go of what it takes later.
            hold = await asyncio.shield(taking)
            await self._log.append([began])
        except BaseException:
            self._by_index.pop(key, None)
            taking.add_done_callback(_let_go)
            raise
        active = Active(began, hold, parts.clock.monotonic())
        self._active[run] = active
        return active

    async def add(self, active: Active, trials: Iterable[Trial]) -> None:
        """Trials that are done; who asks is told of them when they are kept."""
        more = list(trials)
        if more:
            await self._log.keep(more)
        active.trials += more

    async def finish(self, active: Active, outcome: Outcome) -> None:
        """Over, in the log as here."""
        parts, run = self._parts, active.began.id
        end = RunEnd(
            parts.ids.ulid(),
            to_datetime(parts.clock.now_us()),
            run,
            "failed" if outcome.error else "done",
            outcome.chosen,
            outcome.reached,
            parts.clock.monotonic() - active.since,
            outcome.ended,
            outcome.error[:_ERROR_MAX],
        )
        try:
            await self._log.keep([end])
        finally:
            active.end = end
            active.hold.release()
            self._by_index.pop(name_key(active.began.index), None)
            self._forget()

    async def tidy(self) -> None:
        """Small batches of the log become few objects."""
        await self._log.tidy()

    def active(self) -> list[Active]:
        """Those under way."""
        return [one for one in self._active.values() if one.end is None]

    async def report(self, run: str, version: int) -> TrialsReport:
        """Raises ``not_found``."""
        active = self._active.get(run)
        if active is not None:
            trials = {one.id: one for one in active.trials}
            found = Run(active.began, trials, active.end)
            seconds = self._parts.clock.monotonic() - active.since
            return _report(found, run, version, ("running", "", seconds))
        # One at a time: what the log has and what is known here must fit together.
        async with self._looking:
            return await self._logged(run, version)

    async def _logged(self, run: str, version: int) -> TrialsReport:
        """Of a run that was not begun here. Raises ``not_found``."""
        found = await self._log.run(run)
        if found.began is None and not found.trials and found.end is None:
            raise LakehouseError(
                ErrorKind.NOT_FOUND,
                "there is no run of this name",
                run=run[:80],
                hint="list the trials to see the runs that there were",
            )
        if found.end is None and not await self._goes_on(found, run):
            parts = self._parts
            now = to_datetime(parts.clock.now_us())
            found.end = RunEnd(parts.ids.ulid(), now, run, "failed", "", False, 0.0, "", _DIED)
            await self._log.keep([found.end])
            await run_blocking(forget, self._folder, run)
        return _report(found, run, version, ("running", "", 0.0))

    async def recover(self) -> None:
        """What an earlier process left on this machine: its trials go to the log, and runs that
        ended with it are noted as failed. Where there is nothing, nobody is asked."""
        waits = await run_blocking(_waits, self._log.spool)
        dead = await run_blocking(left, self._folder)
        while waits or dead:
            try:
                await self._log.open()
                for run in dead:
                    await self._noted(run)
                return
            except LakehouseError as error:
                told = {"runs": len(dead), "reason": str(error)}
                log.warning("trials that were left here wait for their log", extra=told)
            await self._parts.clock.sleep(_AGAIN_SECONDS)

    async def _noted(self, run: str) -> None:
        try:
            await self.report(run, 0)
        except LakehouseError as error:
            if error.kind is not ErrorKind.NOT_FOUND:
                raise
            # It ended before the log had heard of it.
            await run_blocking(forget, self._folder, run)

    async def _goes_on(self, found: Run, run: str) -> bool:
        """Whether the process of a run is still at it, as far as can be known here."""
        held = await run_blocking(is_held, self._folder, run)
        now = to_datetime(self._parts.clock.now_us())
        late = found.began is None or now > found.began.until
        return held or (held is None and not late)

    def _forget(self) -> None:
        ended = [run for run, one in self._active.items() if one.end is not None]
        for run in ended[:-_ENDED_REMEMBERED]:
            del self._active[run]


def _let_go(taking: asyncio.Task[Hold]) -> None:
    if not taking.cancelled() and taking.exception() is None:
        taking.result().release()


def _waits(folder: str) -> bool:
    return bool(folder) and any(Path(folder).glob("*/*.jsonl"))


def _report(found: Run, run: str, version: int, now: tuple[str, str, float]) -> TrialsReport:
    """``now``: state, error and seconds where it has not ended."""
    began, end = found.began, found.end
    trials = sorted(found.trials.values(), key=lambda one: one.id)
    if end is not None:
        trials = [replace(one, chosen=one.id == end.chosen) for one in trials]
        now = end.state, end.error, end.seconds
    state, error, seconds = now
    return TrialsReport(
        run,
        began.index if began else (trials[0].index if trials else ""),
        state,
        tuple(trials),
        version,
        next((one for one in trials if one.chosen), None),
        end is not None and end.reached,
        began.planned if began else 0,
        seconds,
        end.ended if end else "",
        error,
    )
