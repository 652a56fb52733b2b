"""An event of the journal: who changed what, from what, to what, when and why (ADR-012)."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum


class EventKind(StrEnum):
    """BATCH: rows came or went together and no row is told by itself (``operation`` says how).
    INSERT: rows of keys that were not there; one event a commit. UPDATE: one a changed field.
    DELETE: one a field that had a value."""

    BATCH = "batch"
    INSERT = "insert"
    UPDATE = "update"
    DELETE = "delete"


@dataclass(frozen=True, slots=True)
class JournalEvent:
    """One event. Order is (version, ordinal), never the clock.

    Attributes:
        version: of the store, that the change made.
        base_version: of the dataset, that the change was made on.
        entity: the key as a JSON array; "" for BATCH and INSERT, which are of many.
        old_json, new_json: the value as JSON; None where there is none. Of a personal value that
            was encrypted both are None and ``encrypted`` is true.
        rows: how many the event is of.
        object_key, sha256: the object that brought the rows of an INSERT or a BATCH, and the digest
            of what was sent; "" where there is none.
    """

    version: int
    ordinal: int
    at: datetime
    dataset_id: str
    dataset: str
    kind: EventKind
    operation: str
    actor: str
    base_version: int = 0
    entity: str = ""
    field: str = ""
    old_json: str | None = None
    new_json: str | None = None
    encrypted: bool = False
    source: str = ""
    workspace: str = ""
    reason: str = ""
    request_id: str = ""
    rows: int = 1
    object_key: str = ""
    sha256: str = ""
