"""What answers about rows and their past look like in JSON.

Values stand in them as JSON, not as texts of it. A field may be added, never renamed or removed.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any

import orjson

from lakehouse.contracts.journal import EventsResult, HistoryResult, RowRevision
from lakehouse.contracts.rows import DiffResult, FieldChange, RowDifference, RowResult
from lakehouse.contracts.tags import Tag, TagResult, TagsResult
from lakehouse.model.events import EventKind, JournalEvent


@dataclass(frozen=True, slots=True)
class RowShape:
    """A row. ``key`` has the values of the primary key in its order; ``served_from`` is ``table``,
    or ``journal`` where the version is no longer retained."""

    dataset: str
    key: Any
    row: Any
    version: int
    served_from: str


@dataclass(frozen=True, slots=True)
class FieldShape:
    """``old`` and ``new`` are null too where there is no value."""

    field: str
    old: Any
    new: Any


@dataclass(frozen=True, slots=True)
class DifferenceShape:
    """``change``: added, removed or changed."""

    key: Any
    change: str
    fields: tuple[FieldShape, ...]


@dataclass(frozen=True, slots=True)
class DiffShape:
    """``added``, ``removed`` and ``changed`` count all rows, whatever the page has."""

    dataset: str
    from_version: int
    to_version: int
    added: int
    removed: int
    changed: int
    rows: tuple[DifferenceShape, ...]
    next: str | None


@dataclass(frozen=True, slots=True)
class EventShape:
    """One event. Order is (version, ordinal). ``entity``: the key, null for events of many rows."""

    version: int
    ordinal: int
    at: datetime
    dataset: str
    dataset_id: str
    kind: EventKind
    operation: str
    entity: Any
    field: str | None
    old: Any
    new: Any
    actor: str
    source: str
    workspace: str
    reason: str
    request_id: str
    rows: int
    base_version: int
    encrypted: bool
    object_key: str
    sha256: str


@dataclass(frozen=True, slots=True)
class EventsShape:
    """Newest first."""

    events: tuple[EventShape, ...]
    version: int
    next: str | None


@dataclass(frozen=True, slots=True)
class RevisionShape:
    """What one commit did to the row."""

    version: int
    at: datetime
    kind: str
    operation: str
    actor: str
    fields: tuple[FieldShape, ...]
    source: str
    workspace: str
    reason: str
    request_id: str


@dataclass(frozen=True, slots=True)
class RowHistoryShape:
    """A row's past, newest first. ``row``: as it was at ``as_of``, null if it was not there. From
    version ``history_since`` on every change is told."""

    dataset: str
    key: Any
    version: int
    row: Any
    served_from: str
    history_since: int
    revisions: tuple[RevisionShape, ...]
    next: str | None


@dataclass(frozen=True, slots=True)
class TagShape:
    """A tag. ``dataset`` is "" for the whole store; ``store_version`` the version read at."""

    tag: str
    version: int
    at: datetime
    dataset: str
    note: str
    created_by: str
    created: bool
    store_version: int


@dataclass(frozen=True, slots=True)
class TagsShape:
    """By name."""

    tags: tuple[TagShape, ...]
    version: int
    next: str | None


def row_shape(found: RowResult) -> RowShape:
    return RowShape(
        found.dataset,
        _json(found.key_json),
        _json(found.row_json),
        found.version,
        found.served_from,
    )


def diff_shape(result: DiffResult) -> DiffShape:
    return DiffShape(
        dataset=result.dataset,
        from_version=result.old_version,
        to_version=result.new_version,
        added=result.added,
        removed=result.removed,
        changed=result.changed,
        rows=tuple(difference_shape(one) for one in result.rows),
        next=result.cursor or None,
    )


def difference_shape(one: RowDifference) -> DifferenceShape:
    return DifferenceShape(_json(one.key_json), one.change, _fields(one.fields))


def events_shape(result: EventsResult) -> EventsShape:
    shapes = tuple(event_shape(event) for event in result.events)
    return EventsShape(shapes, result.version, result.cursor or None)


def event_shape(event: JournalEvent) -> EventShape:
    return EventShape(
        version=event.version,
        ordinal=event.ordinal,
        at=event.at,
        dataset=event.dataset,
        dataset_id=event.dataset_id,
        kind=event.kind,
        operation=event.operation,
        entity=_json(event.entity or None),
        field=event.field or None,
        old=_json(event.old_json),
        new=_json(event.new_json),
        actor=event.actor,
        source=event.source,
        workspace=event.workspace,
        reason=event.reason,
        request_id=event.request_id,
        rows=event.rows,
        base_version=event.base_version,
        encrypted=event.encrypted,
        object_key=event.object_key,
        sha256=event.sha256,
    )


def row_history_shape(result: HistoryResult) -> RowHistoryShape:
    return RowHistoryShape(
        dataset=result.dataset,
        key=_json(result.key_json),
        version=result.version,
        row=_json(result.row_json),
        served_from=result.served_from,
        history_since=result.history_since,
        revisions=tuple(revision_shape(one) for one in result.revisions),
        next=result.cursor or None,
    )


def revision_shape(one: RowRevision) -> RevisionShape:
    return RevisionShape(
        version=one.version,
        at=one.at,
        kind=one.kind,
        operation=one.operation,
        actor=one.actor,
        fields=_fields(one.fields),
        source=one.source,
        workspace=one.workspace,
        reason=one.reason,
        request_id=one.request_id,
    )


def tag_shape(tag: Tag, store_version: int, created: bool = False) -> TagShape:
    return TagShape(
        tag=tag.name,
        version=tag.version,
        at=tag.at,
        dataset=tag.dataset,
        note=tag.note,
        created_by=tag.created_by,
        created=created,
        store_version=store_version,
    )


def set_tag_shape(result: TagResult) -> TagShape:
    return tag_shape(result.tag, result.version, result.created)


def tags_shape(result: TagsResult) -> TagsShape:
    shapes = tuple(tag_shape(tag, result.version) for tag in result.tags)
    return TagsShape(shapes, result.version, result.cursor or None)


def _fields(fields: tuple[FieldChange, ...]) -> tuple[FieldShape, ...]:
    return tuple(FieldShape(one.field, _json(one.old_json), _json(one.new_json)) for one in fields)


def _json(text: str | None) -> Any:
    """A text that is JSON, to be put into an answer as it stands."""
    return None if text is None else orjson.Fragment(text)
