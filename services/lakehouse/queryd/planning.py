"""Parsing and binding without holding the event loop.

What takes a millisecond or two is done in place and remembered. The rest, and whatever might be
the rest, goes to a process of its own that is killed at the query's deadline.
"""

from __future__ import annotations

import asyncio
import os
import pickle
import struct
import subprocess
import sys
from collections.abc import Hashable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Final, cast

from sqlglot import exp

from lakehouse.contracts.query import Engine
from lakehouse.errors import ErrorKind, LakehouseError
from lakehouse.kit.blocking import run_blocking
from lakehouse.kit.clock import Clock
from lakehouse.kit.ids import Ids
from lakehouse.queryd.bind import mentions
from lakehouse.queryd.parse import Statement, invalid, parse, token_count
from lakehouse.queryd.planner import (
    LENGTH,
    Answer,
    BindJob,
    BoundText,
    Failure,
    ParseJob,
    marked,
    raised,
)
from lakehouse.queryd.points import Mention
from lakehouse.queryd.prepare import Lru, Prepared, prepare, prepare_text
from lakehouse.queryd.scan import Relation
from lakehouse.queryd.settings import QuerySettings

# In place only below all of these: measured at most 100 ms for the worst shape of this size.
CHARS_MAX: Final = 2000
TOKENS_MAX: Final = 300
PARAMS_CHARS_MAX: Final = 4000
COLUMNS_MAX: Final = 1000
OUTPUTS_MAX: Final = 200

PLANNING_SECONDS_MAX: Final = 10.0
LARGE_REMEMBERED_MAX: Final = 32
PROCESSES_MAX: Final = 2


@dataclass(frozen=True, slots=True)
class Parsed:
    """``mentions`` of relations in a statement, each once; ``statement`` is None if it is a large
    one. ``tables`` counts the mentions of relations, ``stars`` those of all their columns; without
    ``filters`` every row matters."""

    sql: str
    mentions: tuple[Mention, ...]
    statement: Statement | None = None
    tokens: int = 0
    tables: int = 0
    stars: int = 0
    filters: bool = True


class Planning:
    """Statements to prepared ones, for one service."""

    def __init__(self, settings: QuerySettings, clock: Clock, ids: Ids) -> None:
        self._settings = settings
        self._clock = clock
        self._ids = ids
        self._idle: list[PlannerProcess] = []
        self._all: set[PlannerProcess] = set()
        self._free = asyncio.Semaphore(PROCESSES_MAX)
        self._statements: Lru[Parsed] = Lru(settings.plans_max)
        self._prepared: Lru[Prepared] = Lru(settings.plans_max)
        self._large: Lru[Prepared] = Lru(LARGE_REMEMBERED_MAX)

    async def close(self) -> None:
        """End the processes."""
        for process in list(self._all):
            await process.end()
        self._all.clear()
        self._idle.clear()

    async def parsed(self, sql: str, deadline: float) -> Parsed:
        """Raises as ``parse``; ``exhausted`` if it takes too long."""
        if len(sql) > self._settings.sql_bytes_max:
            raise invalid(
                "the statement is too long", bytes=len(sql), limit=self._settings.sql_bytes_max
            )
        known = self._statements.peek(sql) is not None  # cutting it into tokens takes long
        if known or (len(sql) <= CHARS_MAX and token_count(sql) <= TOKENS_MAX):
            return self._statements.get(sql, lambda: self._parse(sql))
        found = await self._ask(self._job(sql), deadline)
        assert isinstance(found, tuple)
        return Parsed(sql, found)

    async def prepared(
        self,
        parsed: Parsed,
        params_json: str,
        relations: Mapping[str, Relation],
        engine: Engine,
        place: tuple[Hashable, float],
    ) -> Prepared:
        """``place`` is what identifies ``relations``, and the deadline. Raises as ``prepare``;
        ``exhausted`` if it takes too long."""
        identity, deadline = place
        statement = parsed.statement
        key = (parsed.sql, params_json, identity)
        if statement is not None and _is_small(parsed, params_json, relations):
            return self._prepared.get(key, lambda: prepare(statement, params_json, relations))
        known = self._large.peek((*key, engine))
        if known is not None:
            return known
        mark = f"m{self._ids.ulid()}".lower()
        columns = {name: one.columns for name, one in relations.items()}
        ids = {name: one.ids for name, one in relations.items()}
        job = BindJob(self._job(parsed.sql), params_json, columns, ids, engine, mark)
        answer = await self._ask(job, deadline)
        assert isinstance(answer, BoundText)
        slots = {marked(mark, one.slot): one.slot for one in answer.references}
        return self._large.get(
            (*key, engine), lambda: prepare_text(answer, slots, relations, engine)
        )

    def _parse(self, sql: str) -> Parsed:
        settings = self._settings
        statement = parse(sql, settings.sql_bytes_max, settings.nesting_max)
        tables = stars = 0
        for node in statement.tree.find_all(exp.Table, exp.Star):
            if isinstance(node, exp.Table):
                tables += 1
            elif not isinstance(node.parent, exp.Count):
                stars += 1
        found = mentions(statement.tree)
        filters = statement.tree.find(exp.Where) is not None
        return Parsed(sql, found, statement, token_count(sql), tables, stars, filters)

    def _job(self, sql: str) -> ParseJob:
        return ParseJob(sql, self._settings.sql_bytes_max, self._settings.nesting_max)

    async def _ask(self, job: ParseJob | BindJob, deadline: float) -> Answer:
        """The answer of a process, before ``deadline`` (boot-time clock)."""
        seconds = min(PLANNING_SECONDS_MAX, deadline - self._clock.monotonic())
        try:
            async with asyncio.timeout(seconds), self._free:
                process = self._idle.pop() if self._idle else PlannerProcess()
                self._all.add(process)
                try:
                    good, answer = await process.ask(job)
                except BaseException:
                    self._all.discard(process)
                    await asyncio.shield(process.end())
                    raise
                self._idle.append(process)
        except TimeoutError as error:
            raise LakehouseError(
                ErrorKind.EXHAUSTED,
                "the statement took too long to understand",
                http_status=422,
                limit="planning_seconds",
                value=round(seconds, 3),
                hint="make it smaller, or read fewer columns",
            ) from error
        if not good:
            raise raised(cast(Failure, answer))
        return cast(Answer, answer)


def _is_small(parsed: Parsed, params_json: str, relations: Mapping[str, Relation]) -> bool:
    """Whether binding it is a matter of milliseconds, whatever it says."""
    if len(params_json) > PARAMS_CHARS_MAX:
        return False
    widest = max((len(one.columns) for one in relations.values()), default=0)
    if parsed.tables * widest > COLUMNS_MAX:
        return False
    # A star may multiply: of a join, of a subquery with a star, of a list as long as the text.
    if parsed.stars > 1:
        return parsed.stars * parsed.tables * widest <= OUTPUTS_MAX // 2 and parsed.tables < 4
    outputs = widest if parsed.tables <= 1 else max(widest, parsed.tokens // 4)
    return parsed.stars == 0 or parsed.tables * outputs <= OUTPUTS_MAX


class PlannerProcess:
    """A ``planner`` process, started when it is first asked."""

    def __init__(self) -> None:
        self._process: subprocess.Popen[bytes] | None = None
        self._ended = False
        self._asked = False

    async def ask(self, job: ParseJob | BindJob) -> tuple[bool, object]:
        """Whether it could, and what it found. Raises ``invalid`` if the statement ended it.

        After a cancellation it is of no more use: ``end`` it.
        """
        self._asked = True
        return await run_blocking(self._exchange, job)

    def _exchange(self, job: ParseJob | BindJob) -> tuple[bool, object]:
        if self._process is None:
            self._process = subprocess.Popen(
                [sys.executable, "-s", "-m", "lakehouse.queryd.planner"],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                env={"PATH": os.defpath, "LANG": "C.UTF-8", "TZ": "UTC"},
                cwd="/",
                start_new_session=True,
            )
        process = self._process
        if self._ended:
            process.kill()
        assert process.stdin is not None
        assert process.stdout is not None
        body = pickle.dumps(job)
        try:
            process.stdin.write(LENGTH.pack(len(body)) + body)
            process.stdin.flush()
            (size,) = LENGTH.unpack(process.stdout.read(LENGTH.size))
            good, answer = pickle.loads(process.stdout.read(size))
        except (OSError, EOFError, struct.error, pickle.UnpicklingError) as error:
            process.kill()
            raise invalid(
                "the statement cannot be understood", hint="make it smaller or less nested"
            ) from error
        finally:
            self._asked = False
            if self._ended or process.poll() is not None:
                _close(process)
        return good, answer

    async def end(self) -> None:
        """Kill it, whatever it is doing, and wait until it is gone."""
        self._ended = True
        if self._process is not None:
            self._process.kill()
            await run_blocking(self._process.wait)
            if not self._asked:  # else the thread that asks does
                _close(self._process)


def _close(process: subprocess.Popen[bytes]) -> None:
    process.wait()
    for pipe in (process.stdin, process.stdout):
        if pipe is not None:
            with suppress(OSError):
                pipe.close()
