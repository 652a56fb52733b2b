"""Turns that have to do with something, and rows of tables with them."""

from __future__ import annotations

from dataclasses import replace
from typing import Final

import orjson

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
from lakehouse.model.vectors import Chunking, IndexVersion, VectorIndexInfo
from lakehouse.vectord.documents import version_of
from lakehouse.vectord.memory.conditions import conditions, joined, moment
from lakehouse.vectord.memory.reading import TurnReader, names
from lakehouse.vectord.memory.spaces import Opened, Search, Spaces
from lakehouse.vectord.memory.turns import bad, check_time, checked_names, turns_of
from lakehouse.vectord.memory.waiting import found_among, merged
from lakehouse.vectord.parts import VectorParts
from lakehouse.vectord.ranges import quoted

__all__ = ["Recaller"]

_WAITING_MAX: Final = 2_000
_READ_MAX: Final = 20_000
_PURPOSE: Final = "recall"


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
        """See the contract. By words, turns that wait to be embedded are found too: of the last
        2,000 of them the first 20,000 characters each. They are no part of the retrieval that is
        remembered, which is of what was indexed; the answer says ``behind``."""
        ctx.require(Scope.READ)
        _check(request)
        opened = await self._spaces.find(ctx, request.memory)
        info = await self._spaces.want_index(ctx, opened.dataset)
        result = await self._searched(ctx, request, opened, info)
        hits = result.results[0].hits if result is not None else ()
        behind = info is None or (result is not None and result.behind)
        if behind and request.mode is not SearchMode.VECTOR:
            # As the store is now: the search may have waited for a build meanwhile.
            opened = await self._spaces.find(ctx, request.memory)
            hits = merged(hits, await self._waiting(ctx, request, opened, info), request.k)
        recalled = await self._recalled(ctx, opened, info, hits)
        return RecallResult(
            opened.dataset.name,
            recalled,
            result.results[0].retrieval_id if result is not None else "",
            opened.version if result is None else max(result.version, opened.version),
            degraded=info is None or (result is not None and result.degraded),
            behind=behind,
        )

    async def _searched(
        self, ctx: Context, request: RecallRequest, opened: Opened, info: VectorIndexInfo | None
    ) -> SearchResult | None:
        """What the indexes have; None where there is none to ask."""
        indexes = (*([info.name] if info is not None else []), *request.also)
        if not indexes:
            if request.mode is SearchMode.VECTOR:
                raise LakehouseError(
                    ErrorKind.UNAVAILABLE,
                    "the turns of the memory are not embedded yet",
                    memory=opened.dataset.name,
                    cause=self._spaces.why(opened.dataset),
                    hint="recall by text meanwhile",
                )
            return None
        wanted = SearchRequest(
            indexes[0],
            (VectorQuery(request.text),),
            request.k,
            _predicate(request) if info is not None else "",
            mode=request.mode,
            also=indexes[1:],
            record=request.record,
            purpose=_PURPOSE,
        )
        found = await self._search(ctx, wanted)
        if info is not None or request.also[1:]:
            return found
        # Searched alone it does not say whose its hits are.
        named = tuple([replace(hit, index=indexes[0]) for hit in found.results[0].hits])
        return replace(found, results=(replace(found.results[0], hits=named),))

    async def _waiting(
        self, ctx: Context, request: RecallRequest, opened: Opened, info: VectorIndexInfo | None
    ) -> list[Hit]:
        """Turns that no chunk is of yet, as hits."""
        version = None if info is None else version_of(info, 0)
        sql = _waiting_sql(opened.dataset.name, version, _predicate(request))
        table = await self._reader.rows(ctx, sql, opened.version)
        chunking = Chunking() if version is None else version.profile.chunking
        turns = await run_in(self._parts.jobs, turns_of, table)
        fused = request.mode is SearchMode.HYBRID or bool(request.also)
        hits = await run_in(
            self._parts.jobs, found_among, turns, request.text, request.k, chunking, fused
        )
        if not request.also or info is None:
            return hits
        return [replace(hit, index=info.name) for hit in hits]

    async def _recalled(
        self,
        ctx: Context,
        opened: Opened,
        info: VectorIndexInfo | None,
        hits: tuple[Hit, ...],
    ) -> tuple[Recalled, ...]:
        """Hits with their turns; one whose turn was deleted meanwhile is left out."""
        own = "" if info is None else info.name
        keys = {hit: _id_of(hit) if hit.index in ("", own) else "" for hit in hits}
        ids = list(dict.fromkeys(key for key in keys.values() if key))
        turns = await self._reader.turns(ctx, opened.dataset, opened.version, ids) if ids else {}
        return tuple(
            [Recalled(hit, turns.get(key)) for hit, key in keys.items() if not key or key in turns]
        )


def _waiting_sql(dataset: str, version: IndexVersion | None, predicate: str) -> str:
    """The newest turns that the index has no chunk of, at most so many."""
    columns = names().replace('"text"', f'left("text", {_READ_MAX}) AS "text"')
    where = [f"({predicate})"] if predicate else []
    if version is not None:
        embedded = f'SELECT "entity" FROM {quoted(version.vectors_dataset)}'
        where.append(f"""concat('["', "id", '"]') NOT IN ({embedded})""")
    condition = f" WHERE {joined(where)}" if where else ""
    rest = f' ORDER BY "remembered_at" DESC, "id" LIMIT {_WAITING_MAX}'
    return f"SELECT {columns} FROM {quoted(dataset)}{condition}{rest}"


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
