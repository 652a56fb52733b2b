"""Turns into a memory: each once, in an order that no reader can miss one in.

A turn is remembered at a time that rises from commit to commit, whoever commits and whatever the
clocks say: each batch is written on the rows that its writer has looked at (compare-and-swap), and
begins after the newest of them. So what is committed later is remembered later, and who has read up
to some turn has passed over none before it. (One exception: the newest turn came from a machine
whose clock is ahead, was told, and is deleted before the next comes from one that is behind.)
"""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Final
from weakref import WeakValueDictionary

import orjson
import pyarrow as pa

from lakehouse.contracts.catalog import CommitRequest
from lakehouse.contracts.ingest import IngestOptions, SourceFormat
from lakehouse.contracts.journal import HistoryRequest
from lakehouse.contracts.memory import RememberReport, RememberRequest, Turn
from lakehouse.contracts.rows import CHANGE_BYTES_MAX, ChangeRowsRequest, RowChange
from lakehouse.errors import ErrorKind, LakehouseError
from lakehouse.kit.blocking import run_in
from lakehouse.kit.clock import to_micros
from lakehouse.model.identity import Context, Scope
from lakehouse.vectord.memory.reading import TurnReader
from lakehouse.vectord.memory.spaces import Opened, Spaces, memory_document
from lakehouse.vectord.memory.turns import TIME_US_MAX, bad, checked, entity_of, table_of
from lakehouse.vectord.parts import VectorParts
from lakehouse.vectord.publishing import ipc
from lakehouse.vectord.repeating import answered, asked, recall

__all__ = ["Rememberer"]

_ATTEMPTS: Final = 20
_PAUSE_SECONDS: Final = 0.05
# A model that has to be loaded takes longer; who recalls waits for it then.
_INDEX_SECONDS: Final = 1.0
_ROUTE: Final = "memory.remember"
_ARROW: Final = IngestOptions(format=SourceFormat.ARROW)
_KEPT_MAX: Final = 1_000


@dataclass(frozen=True, slots=True)
class _Noted:
    """What a call with an idempotency key found when it was made first: the version of the store,
    whether it made the memory, and which of its turns (by place) were there."""

    version: int
    created: bool
    had: tuple[int, ...]

    @property
    def answer(self) -> dict[str, object]:
        """As it is kept."""
        return {"version": self.version, "created": self.created, "had": list(self.had)}


class Rememberer:
    """The use case behind ``MemoryService.remember``. Belongs to one event loop."""

    def __init__(self, parts: VectorParts, spaces: Spaces, reader: TurnReader) -> None:
        self._parts = parts
        self._spaces = spaces
        self._reader = reader
        self._locks: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()
        self._newest: dict[str, tuple[int, int]] = {}

    async def remember(self, ctx: Context, request: RememberRequest) -> RememberReport:
        """See the contract."""
        ctx.require(Scope.WRITE)
        turns = await run_in(self._parts.jobs, checked, request.turns)
        commit = asked(ctx, _ROUTE, _digest(request, turns))
        done = await recall(self._parts.catalog, ctx, commit)
        noted = None if done is None else _noted(done[1])
        made = answered(commit, _Noted(0, True, ()).answer)
        opened = await self._spaces.open(ctx, request.memory, request.profile, made)
        index = await self._spaces.want_index(ctx, opened.dataset, 0.0)
        once = list({turn.id: turn for turn in turns}.values())
        ids = tuple([turn.id for turn in turns])
        again = noted is not None or opened.again
        if commit.request_sha256 and opened.created:
            noted = _Noted(0, True, ())
        elif commit.request_sha256 and noted is None:
            noted, again = await self._note(ctx, commit, opened, once, request.profile)
        # The key is this call's: those that it makes of others are known by what they do.
        near = replace(ctx, idempotency_key=None)
        if noted is None:
            version, remembered = await self._write(near, opened, once)
        else:
            version, remembered = await self._finish(near, opened, once, noted, again)
            opened = replace(opened, created=noted.created)
        if index is None:
            await self._spaces.want_index(ctx, opened.dataset, _INDEX_SECONDS)
        name = opened.dataset.name
        duplicates = len(turns) - remembered
        return RememberReport(name, version, remembered, duplicates, ids, opened.created)

    async def _write(self, ctx: Context, opened: Opened, turns: Sequence[Turn]) -> tuple[int, int]:
        """Write those that are not there; the version of the commit (or that was read, where none
        was needed), and how many they were."""
        lock = self._locks.setdefault(opened.dataset.id, asyncio.Lock())
        conflict: LakehouseError | None = None
        async with lock:
            for attempt in range(_ATTEMPTS):
                if attempt:
                    pause = _PAUSE_SECONDS * attempt * self._parts.ids.uniform()
                    await self._parts.clock.sleep(pause)
                opened = await self._spaces.find(ctx, opened.dataset.name)
                known = await self._known(ctx, opened, turns)
                fresh = [turn for turn in turns if turn.id not in known]
                if not fresh:
                    return opened.version, 0
                try:
                    return await self._put(ctx, opened, fresh), len(fresh)
                except LakehouseError as error:
                    if error.kind is not ErrorKind.CONFLICT:
                        raise
                    conflict = error
        assert conflict is not None
        raise conflict

    async def _put(self, ctx: Context, opened: Opened, turns: Sequence[Turn]) -> int:
        """One commit on the rows of ``opened``. Raises ``conflict`` where they are others now."""
        dataset = opened.dataset
        first = await self._first_us(ctx, opened)
        last = first + len(turns) - 1
        if last > TIME_US_MAX:
            raise LakehouseError(
                ErrorKind.CONFLICT,
                "the memory has a turn that was remembered at the end of time",
                memory=dataset.name,
                hint="delete rows whose remembered_at lies in the far future",
            )
        body = await run_in(self._parts.jobs, _body, turns, first)
        request = ChangeRowsRequest(
            dataset.name,
            RowChange.UPSERT,
            body,
            _ARROW,
            expected_version=dataset.rows_version,
            reason="remembered",
        )
        report = await self._parts.rows.change(ctx, request)
        self._newest.pop(dataset.id, None)
        self._newest[dataset.id] = (report.version, last)
        while len(self._newest) > _KEPT_MAX:
            del self._newest[next(iter(self._newest))]
        return report.version

    async def _first_us(self, ctx: Context, opened: Opened) -> int:
        """When the next turn is remembered: now, or right after what is there."""
        dataset = opened.dataset
        version, newest = self._newest.get(dataset.id, (-1, 0))
        if version != dataset.rows_version:
            newest = await self._reader.newest_us(ctx, dataset, opened.version)
        changed = to_micros(dataset.updated_at)
        return max(self._parts.clock.now_us(), newest + 1, changed + 1)

    async def _known(self, ctx: Context, opened: Opened, turns: Sequence[Turn]) -> set[str]:
        ids = [turn.id for turn in turns]
        return await self._reader.known(ctx, opened.dataset, opened.version, ids)

    async def _note(
        self,
        ctx: Context,
        commit: CommitRequest,
        opened: Opened,
        turns: Sequence[Turn],
        profile: str,
    ) -> tuple[_Noted, bool]:
        """Before anything is written: who repeats the call is told what the first one did. With it,
        whether that one was another call, made at the same time."""
        known = await self._known(ctx, opened, turns)
        had = tuple([place for place, turn in enumerate(turns) if turn.id in known])
        noted = _Noted(opened.version, False, had)
        about = memory_document(opened.dataset.id, profile)
        whole = replace(answered(commit, noted.answer), changes=(about,))
        result = await self._parts.catalog.commit(ctx, whole)
        if result.replayed:
            return _noted(orjson.loads(result.answer_json)), True
        return noted, False

    async def _finish(
        self, ctx: Context, opened: Opened, turns: Sequence[Turn], noted: _Noted, again: bool
    ) -> tuple[int, int]:
        """What the first call did, or what is left of it to do."""
        had = set(noted.had)
        fresh = [turn for place, turn in enumerate(turns) if place not in had]
        if not fresh:
            return opened.version, 0
        # Not written once more where it was written and then deleted.
        version = await self._written(ctx, opened, fresh[0], noted) if again else 0
        if not version:
            version, count = await self._write(ctx, opened, fresh)
            if not count:
                version = await self._written(ctx, opened, fresh[0], noted) or version
        return version, len(fresh)

    async def _written(self, ctx: Context, opened: Opened, turn: Turn, noted: _Noted) -> int:
        """The version that has ``turn`` since the call was noted, also where it was deleted after;
        0 where it was never written."""
        request = HistoryRequest(opened.dataset.name, entity_of(turn.id))
        try:
            past = await self._parts.journal.history(ctx, request)
        except LakehouseError as error:
            if error.kind is not ErrorKind.NOT_FOUND:
                raise
            return 0
        inserts = [each.version for each in past.revisions if each.kind == "insert"]
        return min([version for version in inserts if version > noted.version], default=0)


def _noted(answer: dict[str, object]) -> _Noted:
    had = answer["had"]
    assert isinstance(had, list)
    return _Noted(int(str(answer["version"])), bool(answer["created"]), tuple(had))


def _digest(request: RememberRequest, turns: Sequence[Turn]) -> bytes:
    """What tells two calls apart; their tags too, though they are no part of an id."""
    said = [request.memory, request.profile, [[turn.id, turn.tags] for turn in turns]]
    return hashlib.sha256(orjson.dumps(said)).digest()


def _body(turns: Sequence[Turn], first_us: int) -> bytes:
    table: pa.Table = table_of(turns, first_us)
    data = ipc(table)
    if len(data) > CHANGE_BYTES_MAX:
        raise bad(
            "the turns of one call are too many",
            size_bytes=len(data),
            maximum=CHANGE_BYTES_MAX,
            hint="remember them in several calls",
        )
    return data
