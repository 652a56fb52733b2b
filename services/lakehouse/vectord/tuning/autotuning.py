"""Runs of ``Tuner`` in the background: one an index, one at a time of all, after everything else
that the machine has to do."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Final

from lakehouse.errors import LakehouseError
from lakehouse.kit.blocking import run_in
from lakehouse.kit.clock import to_datetime
from lakehouse.model.identity import Context
from lakehouse.model.retrieval import Trial
from lakehouse.vectord.parts import VectorParts
from lakehouse.vectord.tuning.runs import Active, Outcome, Runs, Subject
from lakehouse.vectord.tuning.trying import Attempt, Ended, Job, Tuner

__all__ = ["Asked", "Autotuning"]

log = logging.getLogger(__name__)

_NICENESS: Final = 10


@dataclass(frozen=True, slots=True, eq=False)
class Asked:
    """A run to begin. ``rows``: that the index has."""

    index: str
    number: int
    eval_set: str
    job: Job
    rows: int


class Autotuning:
    """Belongs to one event loop."""

    def __init__(self, parts: VectorParts, runs: Runs) -> None:
        self._parts = parts
        self._runs = runs
        self._thread = ThreadPoolExecutor(1, "vectors-tune", _be_nice)

    async def begin(self, ctx: Context, asked: Asked, wait_seconds: float) -> str:
        """Start a run and wait for it for so long; its name. Raises ``conflict``."""
        job = asked.job
        planned = 1 if job.exact_only else job.grid.settings
        # Those of other indexes go first: nobody knows for how long.
        seconds = job.budget_seconds * (1 + len(self._runs.active()))
        subject = Subject(asked.index, asked.number, "hnsw", planned, seconds)
        active = await self._runs.begin(ctx, subject)
        active.task = asyncio.create_task(self._run(active, asked), name="autotune")
        active.task.add_done_callback(_logged)
        if wait_seconds:
            await asyncio.wait([active.task], timeout=wait_seconds)
        return active.began.id

    async def close(self) -> None:
        """End what runs; idempotent."""
        tasks = []
        for active in self._runs.active():
            active.stopping = True
            if active.task is not None:
                tasks.append(active.task)
        await asyncio.gather(*tasks, return_exceptions=True)
        self._thread.shutdown(wait=False, cancel_futures=True)

    async def _run(self, active: Active, asked: Asked) -> None:
        """Whatever comes of it, the run ends in the log."""
        outcome = Outcome(error="it failed unforeseen: the log of the node says of what")
        try:
            outcome = await self._tuned(active, asked)
        except LakehouseError as error:
            outcome = Outcome(error=str(error))
        finally:
            if active.stopping:
                outcome = Outcome(error="the node was stopped before it was done")
            await self._finish(active, outcome)
        if not active.stopping:
            await self._runs.tidy()

    async def _finish(self, active: Active, outcome: Outcome) -> None:
        try:
            await self._runs.finish(active, outcome)
        except LakehouseError as error:
            told = {"run": active.began.id, "reason": str(error)}
            log.warning("the end of a run could not be noted", extra=told)

    async def _tuned(self, active: Active, asked: Asked) -> Outcome:
        loop = asyncio.get_running_loop()
        heard: asyncio.Queue[Attempt | None] = asyncio.Queue()

        def tell(attempt: Attempt | None) -> None:
            loop.call_soon_threadsafe(heard.put_nowait, attempt)

        tuner = Tuner(
            asked.job,
            tell,
            self._parts.clock,
            self._parts.settings.cache_dir,
            lambda: active.stopping,
        )
        noting = asyncio.create_task(self._note(active, asked, heard))
        try:
            ended = await run_in(self._thread, tuner.run)
        finally:
            tell(None)
            await noting
        return _outcome(active, ended)

    async def _note(
        self, active: Active, asked: Asked, heard: asyncio.Queue[Attempt | None]
    ) -> None:
        """Each attempt into the log, in the order of their coming, until a None."""
        done = False
        while not done:
            attempts = [await heard.get()]
            while not heard.empty():
                attempts.append(heard.get_nowait())
            done = attempts[-1] is None
            trials = [self._trial(active, asked, one) for one in attempts if one is not None]
            await self._runs.add(active, trials)

    def _trial(self, active: Active, asked: Asked, attempt: Attempt) -> Trial:
        began, measured, figures = active.began, attempt.measured, attempt.figures
        m, ef_construction = attempt.shape
        return Trial(
            self._parts.ids.ulid(),
            began.id,
            to_datetime(self._parts.clock.now_us()),
            began.actor,
            began.index,
            began.number,
            "hnsw",
            asked.job.k,
            attempt.queries,
            attempt.rows,
            m,
            ef_construction,
            attempt.ef,
            eval_set=asked.eval_set,
            sampled=attempt.sampled,
            recall=measured.recall,
            ndcg=figures.ndcg if figures else None,
            mrr=figures.mrr if figures else None,
            relevant_recall=figures.recall if figures else None,
            p50_ms=measured.p50_ms,
            p99_ms=measured.p99_ms,
            build_seconds=attempt.build_seconds,
            size_bytes=attempt.size_bytes,
            note=_note_of(asked, attempt),
            cpu_ms=attempt.cpu_ms,
        )


def _note_of(asked: Asked, attempt: Attempt) -> str:
    if asked.job.exact_only:
        most = asked.job.exact_rows_max
        return f"every vector is compared: graphs are made of more than {most} rows"
    if attempt.sampled:
        return (
            f"on {attempt.rows} of {asked.rows} rows: of all, as much recall may take a larger ef"
        )
    return ""


def _outcome(active: Active, ended: Ended) -> Outcome:
    # Attempts and trials are in the same order.
    chosen = "" if ended.chosen is None else active.trials[ended.chosen].id
    return Outcome(chosen, ended.reached, ended.ended)


def _logged(task: asyncio.Task[None]) -> None:
    """What was not foreseen."""
    if not task.cancelled() and (error := task.exception()) is not None:
        log.error("a run of trials failed unforeseen", exc_info=error)


def _be_nice() -> None:
    """Searches and builds go before trials, where the system knows threads."""
    with contextlib.suppress(OSError, AttributeError):
        os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), _NICENESS)
