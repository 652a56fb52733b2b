"""The journal: every change to every row, for as long as the dataset is there (ADR-012)."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol

from lakehouse.contracts.catalog import AsOf
from lakehouse.contracts.rows import FieldChange
from lakehouse.model.events import JournalEvent
from lakehouse.model.identity import Context


@dataclass(frozen=True, slots=True)
class EventsRequest:
    """Filters are joined by and; "" and None are no filter. Newest first.

    Attributes:
        dataset: "" is all of them.
        entity_json: a key, written as in ``rows.RowRequest``; needs ``dataset``.
        kind: batch, insert, update or delete.
        since, until: at or after, before.
        after_version, before_version: later than, and at or before; 0 is no bound.
        limit: events a page, in [1, 10000].
    """

    dataset: str = ""
    entity_json: str = ""
    field: str = ""
    kind: str = ""
    actor: str = ""
    workspace: str = ""
    request_id: str = ""
    since: datetime | None = None
    until: datetime | None = None
    after_version: int = 0
    before_version: int = 0
    limit: int = 1000
    cursor: str = ""


@dataclass(frozen=True, slots=True)
class EventsResult:
    """``cursor``: go on there, also where a page has fewer events than its limit, or none: to find
    them so much was looked into."""

    events: tuple[JournalEvent, ...]
    version: int
    cursor: str = ""


@dataclass(frozen=True, slots=True)
class HistoryRequest:
    """``key_json`` as in ``rows.RowRequest``. ``limit`` changes a page, in [1, 1000]; newest first.
    ``as_of``: with ``row_json``, the row as it was then."""

    dataset: str
    key_json: str
    as_of: AsOf = AsOf()
    limit: int = 100
    cursor: str = ""


@dataclass(frozen=True, slots=True)
class RowRevision:
    """What one commit did to a row. ``fields`` is empty for an insert: its values are those that
    later changes started from. ``kind``: insert, update or delete."""

    version: int
    at: datetime
    kind: str
    operation: str
    actor: str
    fields: tuple[FieldChange, ...]
    source: str = ""
    workspace: str = ""
    reason: str = ""
    request_id: str = ""


@dataclass(frozen=True, slots=True)
class HistoryResult:
    """A row's past.

    Attributes:
        row_json: the row at ``as_of``, None if it was not there.
        served_from: of ``row_json``: ``table``, or ``journal`` beyond retention.
        history_since: from this version of the store on every change is told; a row that was there
            then has no insert of its own.
    """

    dataset: str
    key_json: str
    version: int
    revisions: tuple[RowRevision, ...]
    history_since: int
    row_json: str | None = None
    served_from: str = "table"
    cursor: str = ""


@dataclass(frozen=True, slots=True)
class FeedRequest:
    """Every event later than ``after_version``, oldest first. ``follow``: then wait for more."""

    dataset: str
    after_version: int = 0
    follow: bool = False


@dataclass(frozen=True, slots=True)
class FeedStream:
    """``groups``: the events of one commit together, or a part of them where they are many. Closing
    the iterator ends the feed."""

    dataset: str
    groups: AsyncIterator[tuple[JournalEvent, ...]]


class JournalService(Protocol):
    """Scope read. Raises ``not_found`` (dataset), ``invalid`` (filter, cursor, key)."""

    async def events(self, ctx: Context, request: EventsRequest) -> EventsResult: ...

    async def history(self, ctx: Context, request: HistoryRequest) -> HistoryResult: ...

    async def feed(self, ctx: Context, request: FeedRequest) -> FeedStream:
        """A version that is told is told whole; start again after the last version that was."""
        ...
