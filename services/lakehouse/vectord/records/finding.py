"""Retrievals found again: one by its id, and lists, newest first."""

from __future__ import annotations

import base64
from collections.abc import Iterable, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any, Final

import orjson

from lakehouse.appendlog.event import LogEvent
from lakehouse.contracts import retrievals as c
from lakehouse.contracts.tags import Tag, TagsRequest
from lakehouse.errors import ErrorKind, LakehouseError
from lakehouse.kit.blocking import run_blocking
from lakehouse.kit.clock import to_datetime
from lakehouse.kit.ids import ulid_millis
from lakehouse.model.identity import Context
from lakehouse.model.retrieval import Retrieval, SearchMode
from lakehouse.vectord.parts import VectorParts
from lakehouse.vectord.records.recorder import Recorder
from lakehouse.vectord.records.values import read_event, shown

__all__ = ["Finder", "tag_prefix"]

LIMIT_MAX: Final = 1_000
SCAN_SECONDS: Final = 10.0
"""A page ends after so long, and its cursor goes on from there."""

_PAGE_BYTES: Final = 8 * 1024 * 1024
_NEAR: Final = timedelta(seconds=1)
_ON_ITS_WAY: Final = timedelta(seconds=5)
_YEARS_MS: Final = 4_000_000_000_000
_DAY_SECONDS: Final = 86_400
_ID_HINT: Final = "the id is 26 digits and letters, as in the retrieval_id of an answer"
_MODES: Final = frozenset(mode.value for mode in SearchMode)


class Finder:
    """Reads memory, the log, and the objects of large and of pinned records."""

    def __init__(self, parts: VectorParts, recorder: Recorder) -> None:
        self._parts = parts
        self._recorder = recorder

    async def get(self, ctx: Context, given: str) -> c.RetrievalResult:
        """The retrieval, whole. Raises ``not_found``, ``corrupt``."""
        known = given.strip().upper()
        try:
            millis = ulid_millis(known)
        except ValueError:
            millis = _YEARS_MS
        if millis >= _YEARS_MS:
            raise LakehouseError(
                ErrorKind.NOT_FOUND,
                "that is not the id of a retrieval",
                retrieval=ascii(given[:80])[1:-1],
                hint=_ID_HINT,
            )
        seen = await self._recorder.seen(known)
        kept = "log" if seen is None or seen.flushed else "memory"
        found = await self._read(known, millis) if seen is None else seen.retrieval
        tags, version = await self.tags(ctx, tag_prefix(known))
        return c.RetrievalResult(_with_tags(found, tags), version, kept)

    async def _read(self, known: str, millis: int) -> Retrieval:
        at = to_datetime(millis * 1000)
        damages: list[object] = []
        events = self._recorder.scan(at - _NEAR, at + _NEAR, None, damages.append)
        async for one in events:
            if one.event.get("id") == known:
                return await self._recorder.whole(one)
        found = await self._recorder.place.pinned(known)
        if found is None:
            raise self._unknown(known, at, len(damages))
        return found

    def _unknown(self, known: str, at: datetime, damaged: int) -> LakehouseError:
        age = to_datetime(self._parts.clock.now_us()) - at
        days = self._parts.retrievals.retention_days
        if damaged:
            hint = "a part of the log of that time cannot be read: restore it from a backup"
        elif age < timedelta(0):
            hint = f"its time is not yet; {_ID_HINT}"
        elif days and age.total_seconds() > days * _DAY_SECONDS:
            hint = f"retrievals are kept for {days:g} days; a pinned one stays"
        elif age < _ON_ITS_WAY:
            hint = "it may be on its way: another process has it for a second"
        elif self._recorder.dropped:
            hint = "it may have been dropped: the list says how many were"
        else:
            hint = "it was never remembered, or in another store"
        return LakehouseError(
            ErrorKind.NOT_FOUND,
            "there is no such retrieval",
            retrieval=known,
            at=at.isoformat(),
            dropped=self._recorder.dropped,
            hint=hint,
        )

    async def tags(self, ctx: Context, prefix: str) -> tuple[list[Tag], int]:
        """Tags whose names begin so, and the version of the store."""
        found: list[Tag] = []
        asked = TagsRequest(prefix=prefix)
        while True:
            page = await self._parts.catalog.tags(ctx, asked)
            found += page.tags
            if not page.cursor:
                return found, page.version
            asked = replace(asked, cursor=page.cursor)

    async def page(self, ctx: Context, request: c.ListRetrievalsRequest) -> c.ListRetrievalsResult:
        """Those that a request selects, newest first. Raises ``invalid``, ``unavailable``."""
        before = _checked(request)
        damages: list[object] = []
        if before is None:
            await self._recorder.flush()
        found, following = await self._events(request, before, damages.append)
        retrievals = await run_blocking(_read_all, found)
        retrievals.sort(key=lambda one: one.id, reverse=True)
        tags, version = await self.tags(ctx, _common([tag_prefix(one.id) for one in retrievals]))
        named: dict[str, list[Tag]] = {}
        for tag in tags:
            named.setdefault(tag.name.rpartition("-")[0].upper(), []).append(tag)
        return c.ListRetrievalsResult(
            retrievals=tuple(
                _with_tags(one, named.get(tag_prefix(one.id)[:-1].upper(), ()))
                for one in retrievals
            ),
            version=version,
            cursor=_cursor(following) if following else "",
            dropped=self._recorder.dropped,
            unreadable=len(damages) + len(found) - len(retrievals),
        )

    async def _events(
        self, request: c.ListRetrievalsRequest, before: int | None, on_damage: Any
    ) -> tuple[list[LogEvent], int]:
        """Events, and the seq before which the next page begins; 0 at the end."""
        clock = self._parts.clock
        until, size, last = clock.monotonic() + SCAN_SECONDS, 0, 0
        found: list[LogEvent] = []
        source = self._recorder.scan(request.since, request.until, before, on_damage)
        async for one in source:
            if found and (len(found) >= request.limit or size >= _PAGE_BYTES):
                return found, last
            if clock.monotonic() > until:
                return found, one.seq + 1
            last = one.seq
            if _wanted(one.event, request):
                found.append(one)
                size += _about(one.event)
        return found, 0


def tag_prefix(known: str) -> str:
    """How the names of tags of a retrieval begin."""
    return f"retrieval-{known}-"


def _common(names: Sequence[str]) -> str:
    """How all of ``names``, in order, begin; of none what no name is."""
    if not names:
        return tag_prefix("")
    first, last = names[0], names[-1]
    same = (at for at in range(len(first)) if first[at : at + 1] != last[at : at + 1])
    return first[: next(same, len(first))]


def _checked(request: c.ListRetrievalsRequest) -> int | None:
    """The seq in the cursor. Raises ``invalid``."""
    if not 1 <= request.limit <= LIMIT_MAX:
        raise LakehouseError(
            ErrorKind.INVALID,
            f"limit must be from 1 to {LIMIT_MAX}",
            limit=request.limit,
            maximum=LIMIT_MAX,
        )
    for name, when in (("since", request.since), ("until", request.until)):
        if when is not None and not _is_point(when):
            raise LakehouseError(ErrorKind.INVALID, f"{name} must be a time with its zone")
    if request.mode and request.mode not in _MODES:
        raise LakehouseError(
            ErrorKind.INVALID,
            "there is no such mode",
            mode=request.mode[:80],
            hint="modes are " + ", ".join(sorted(_MODES)),
        )
    return _place_of(request.cursor) if request.cursor else None


def _is_point(when: datetime) -> bool:
    try:
        return when.tzinfo is not None and when.astimezone(UTC).tzinfo is UTC
    except OverflowError:
        return False


def _wanted(event: dict[str, Any], request: c.ListRetrievalsRequest) -> bool:
    equal = (("actor", request.actor), ("mode", request.mode), ("purpose", request.purpose))
    if any(wanted and event.get(name) != wanted for name, wanted in equal):
        return False
    if not request.index:
        return True
    indexes, wanted = event.get("indexes") or (), request.index.casefold()
    return any(str(one.get("index", "")).casefold() == wanted for one in indexes)


def _about(event: dict[str, Any]) -> int:
    hits = event.get("hits") or ()
    texts = (event.get("text"), event.get("vector"), event.get("filter"))
    return 300 * len(hits) + sum(len(text) for text in texts if isinstance(text, str)) + 1_000


def _read_all(found: Iterable[LogEvent]) -> list[Retrieval]:
    """Those that can be read, as a list shows them."""
    read = []
    for one in found:
        try:
            read.append(shown(read_event(one.event)))
        except LakehouseError:
            continue
    return read


def _with_tags(found: Retrieval, tags: Iterable[Tag]) -> Retrieval:
    names = tuple(tag.name for tag in tags)
    return replace(found, pinned=bool(names), tags=names) if names else found


def _cursor(seq: int) -> str:
    return base64.urlsafe_b64encode(orjson.dumps({"before": seq})).decode().rstrip("=")


def _place_of(cursor: str) -> int:
    try:
        padded = cursor + "=" * (-len(cursor) % 4)
        seq = orjson.loads(base64.urlsafe_b64decode(padded.encode()))["before"]
        if type(seq) is not int or not 0 < seq < 1 << 62:
            raise ValueError(seq)
    except (ValueError, TypeError, KeyError, UnicodeEncodeError):
        raise LakehouseError(
            ErrorKind.INVALID,
            "the cursor is not one of this list",
            cursor=ascii(cursor[:80])[1:-1],
            hint="start again without a cursor",
        ) from None
    return seq
