"""Turns that have to do with something, and rows of tables with them."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from typing import Final

import orjson

from lakehouse.contracts.catalog import AsOf, Pin
from lakehouse.contracts.memory import Recalled, RecallRequest, RecallResult
from lakehouse.contracts.vectors import (
    K_MAX,
    TEXT_BYTES_MAX,
    Hit,
    SearchRequest,
    SearchResult,
    VectorQuery,
)
from lakehouse.errors import ErrorKind, LakehouseError
from lakehouse.kit.blocking import run_in
from lakehouse.model.identity import Context, Scope
from lakehouse.model.retrieval import SearchMode
from lakehouse.model.vectors import Chunking, IndexVersion
from lakehouse.vectord.documents import version_of
from lakehouse.vectord.memory.conditions import conditions, joined, literal, moment
from lakehouse.vectord.memory.reading import TurnReader, names
from lakehouse.vectord.memory.spaces import Opened, Search, Spaces
from lakehouse.vectord.memory.turns import bad, check_time, checked_names, turns_of
from lakehouse.vectord.memory.waiting import found_among, merged
from lakehouse.vectord.parts import VectorParts
from lakehouse.vectord.ranges import quoted

__all__ = ["Recaller"]

_WAITING_MAX: Final = 2_000
_READ_MAX: Final = 20_000
_WORDS_TOLD: Final = 16
_WORD: Final = re.compile(r"\w{1,100}")
_PURPOSE: Final = "recall"


@dataclass(frozen=True, slots=True)
class _Embedded:
    """A version of an index whose rows were searched that are of ``version`` of the store, or of a
    later one: whatever is not among these is not passed over."""

    number: IndexVersion
    version: int


class Recaller:
    """The use case behind ``MemoryService.recall``."""

    def __init__(
        self, parts: VectorParts, spaces: Spaces, reader: TurnReader, search: Search
    ) -> None:
        self._parts = parts
        self._spaces = spaces
        self._reader = reader
        self._search = search

    async def recall(self, ctx: Context, request: RecallRequest) -> RecallResult:
        """See the contract. By words, turns that wait to be embedded are found too: of 2,000 of
        them, those with most words of the text, then the newest, the first 20,000 characters each;
        the answer says ``behind``."""
        ctx.require(Scope.READ)
        _check(request)
        opened = await self._spaces.find(ctx, request.memory)
        seconds = self._parts.settings.fresh_seconds
        info = await self._spaces.want_index(ctx, opened.dataset, seconds)
        if info is None:
            return await self._without_index(ctx, request, opened)
        index = info
        name = info.name if request.also else ""

        recalled: tuple[Recalled, ...] = ()

        async def as_answered(found: SearchResult) -> SearchResult:
            """What is remembered is what is answered: with turns that wait, without deleted ones,
            and of the version that it was read at."""
            nonlocal opened, recalled
            answer, version = found.results[0], found.version
            hits, waiting = answer.hits, found.behind and request.mode is not SearchMode.VECTOR
            if waiting or version > opened.version:
                opened = await self._spaces.find(ctx, request.memory)
            if waiting:
                embedded = _Embedded(version_of(index, found.number), version)
                more = await self._waiting(ctx, request, opened, embedded)
                hits = merged(hits, [replace(hit, index=name) for hit in more], request.k)
                version = max(version, opened.version)
            recalled = await self._recalled(ctx, opened, name, hits)
            hits = tuple([one.hit for one in recalled])
            return replace(found, results=(replace(answer, hits=hits),), version=version)

        wanted = self._wanted(request, (info.name, *request.also), _predicate(request))
        result = await self._search(ctx, wanted, as_answered)
        return RecallResult(
            opened.dataset.name,
            recalled,
            result.results[0].retrieval_id,
            opened.version,
            degraded=result.degraded,
            behind=result.behind,
        )

    async def _without_index(
        self, ctx: Context, request: RecallRequest, opened: Opened
    ) -> RecallResult:
        """By words alone, and what the other indexes have, if any. Only of these is there a record:
        there is no retrieval where nothing that is kept was searched."""
        dataset = opened.dataset
        by_vector = request.mode is SearchMode.VECTOR
        if by_vector and not request.also:
            raise LakehouseError(
                ErrorKind.UNAVAILABLE,
                "the turns of the memory are not embedded yet",
                memory=dataset.name,
                cause=self._spaces.why(dataset),
                hint="recall by text meanwhile",
            )
        hits: tuple[Hit, ...] = ()
        retrieval_id = ""
        if request.also:
            found = await self._search(ctx, self._wanted(request, request.also, ""), None)
            # Searched alone it does not say whose its hits are.
            hits = tuple(
                [replace(hit, index=hit.index or found.index) for hit in found.results[0].hits]
            )
            retrieval_id = found.results[0].retrieval_id
        if not by_vector:
            hits = merged(hits, await self._waiting(ctx, request, opened, None), request.k)
        recalled = await self._recalled(ctx, opened, "", hits)
        version = opened.version
        return RecallResult(dataset.name, recalled, retrieval_id, version, True, True)

    def _wanted(
        self, request: RecallRequest, indexes: tuple[str, ...], predicate: str
    ) -> SearchRequest:
        return SearchRequest(
            indexes[0],
            (VectorQuery(request.text),),
            request.k,
            predicate,
            mode=request.mode,
            also=indexes[1:],
            record=request.record,
            purpose=_PURPOSE,
        )

    async def _waiting(
        self, ctx: Context, request: RecallRequest, opened: Opened, embedded: _Embedded | None
    ) -> list[Hit]:
        """Turns that no chunk is of yet, as hits."""
        dataset = opened.dataset
        rows = None if embedded is None else embedded.number.vectors_dataset
        sql = _waiting_sql(dataset.name, rows, _predicate(request), request.text)
        pins = () if embedded is None else (Pin(rows or "", AsOf(version=embedded.version)),)
        table = await self._reader.rows(ctx, sql, opened.version, pins=pins)
        chunking = Chunking() if embedded is None else embedded.number.profile.chunking
        turns = await run_in(self._parts.jobs, turns_of, table)
        fused = request.mode is SearchMode.HYBRID or bool(request.also)
        hits = await run_in(
            self._parts.jobs, found_among, turns, request.text, request.k, chunking, fused
        )
        # As they are now: it is where their texts are read back.
        return [replace(hit, version=dataset.rows_version) for hit in hits]

    async def _recalled(
        self, ctx: Context, opened: Opened, own: str, hits: tuple[Hit, ...]
    ) -> tuple[Recalled, ...]:
        """Hits with their turns; one whose turn was deleted meanwhile is left out. ``own``: what
        hits say that are of turns."""
        keys = {hit: _id_of(hit) if hit.index == own else "" for hit in hits}
        ids = list(dict.fromkeys(key for key in keys.values() if key))
        turns = await self._reader.turns(ctx, opened.dataset, opened.version, ids) if ids else {}
        return tuple(
            [Recalled(hit, turns.get(key)) for hit, key in keys.items() if not key or key in turns]
        )


def _waiting_sql(dataset: str, rows: str | None, predicate: str, text: str) -> str:
    """Turns that the index has no chunk of: those with most of the longest words of ``text``, then
    the newest, at most so many."""
    columns = names().replace('"text"', f'left("text", {_READ_MAX}) AS "text"')
    where = [f"({predicate})"] if predicate else []
    if rows is not None:
        embedded = f'SELECT "entity" FROM {quoted(rows)}'
        where.append(f"""concat('["', "id", '"]') NOT IN ({embedded})""")
    condition = f" WHERE {joined(where)}" if where else ""
    told = [
        f"""CASE WHEN strpos(lower("text"), {literal(word)}) > 0 THEN 1 ELSE 0 END"""
        for word in _longest(text)
    ]
    most = f"{' + '.join(told)} DESC, " if told else ""
    rest = f' ORDER BY {most}"remembered_at" DESC, "id" LIMIT {_WAITING_MAX}'
    return f"SELECT {columns} FROM {quoted(dataset)}{condition}{rest}"


def _longest(text: str) -> list[str]:
    """Some words of a text, in lower case as SQL has it."""
    found = dict.fromkeys(_WORD.findall(text[:_READ_MAX].lower()))
    return sorted(found, key=len, reverse=True)[:_WORDS_TOLD]


def _check(request: RecallRequest) -> None:
    checked_names(request.session, request.who, request.tags)
    check_time(request.since, "since")
    check_time(request.until, "until")
    if not request.text.strip():
        raise bad("there is nothing to recall by", hint="say what the turns are to be about")
    if len(request.text) > TEXT_BYTES_MAX or len(request.text.encode()) > TEXT_BYTES_MAX:
        raise bad("a text to recall by is too long", maximum_bytes=TEXT_BYTES_MAX)
    if not 1 <= request.k <= K_MAX:
        raise bad(f"k must be from 1 to {K_MAX}", given=request.k, maximum=K_MAX)


def _predicate(request: RecallRequest) -> str:
    wanted = conditions(request.session, request.who, request.tags)
    if request.since is not None:
        wanted.append(f'"at" >= {moment(request.since)}')
    if request.until is not None:
        wanted.append(f'"at" < {moment(request.until)}')
    return joined(wanted)


def _id_of(hit: Hit) -> str:
    key = orjson.loads(hit.key)
    return str(key[0] if isinstance(key, list) else key)
