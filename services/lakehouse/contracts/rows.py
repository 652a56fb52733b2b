"""Rows by key: read one, change some, look back; and the upkeep of what changes leave (ADR-009)."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Protocol

from lakehouse.contracts.catalog import AsOf
from lakehouse.contracts.ingest import ColumnOverride, IngestOptions
from lakehouse.model.identity import Context
from lakehouse.model.schema import Column, ColumnDifference

CHANGE_BYTES_MAX = 32 * 1024 * 1024
"""A batch of row changes is held in memory; a larger one is a file: ingest it with mode upsert."""


class RowChange(StrEnum):
    """UPSERT: whole rows by key. PATCH: some fields of rows that are there. DELETE: by key."""

    UPSERT = "upsert"
    PATCH = "patch"
    DELETE = "delete"


@dataclass(frozen=True, slots=True)
class ChangeRowsRequest:
    """One batch, one commit: all of it or nothing.

    Attributes:
        body: the rows (UPSERT), ``{"key", "set", "expect"}`` objects (PATCH) or keys (DELETE), at
            most ``CHANGE_BYTES_MAX``. JSON (one or an array), NDJSON, CSV or Arrow, as ``options``
            say. A column that an upserted row lacks is null. A key twice in a batch is refused.
        where: instead of a body: a SQL predicate over the dataset's columns, for PATCH and DELETE.
        set_json: with ``where`` and PATCH, the fields to set, a JSON object.
        expected_version: refuse unless the dataset's last change of rows is this one.
        reason: goes into every event of the change.
        dry_run: say what would be done, and do nothing.
    """

    dataset: str
    change: RowChange = RowChange.UPSERT
    body: bytes = b""
    options: IngestOptions = IngestOptions()
    where: str = ""
    set_json: str = ""
    expected_version: int | None = None
    reason: str = ""
    dry_run: bool = False


@dataclass(frozen=True, slots=True)
class ChangeRowsReport:
    """What a batch did. ``unchanged`` rows were already so, ``missing`` keys were not there to be
    deleted. Where nothing changed, ``version`` is the one that was read and nothing is committed.
    """

    dataset: str
    version: int
    inserted: int = 0
    updated: int = 0
    deleted: int = 0
    unchanged: int = 0
    missing: int = 0
    no_op: bool = False
    dry_run: bool = False


@dataclass(frozen=True, slots=True)
class RowRequest:
    """``key_json``: the key as a JSON array in the order of the primary key, ``[7]``; for one
    column also the bare value, ``7``, and a bare text that is no JSON counts as a string."""

    dataset: str
    key_json: str
    as_of: AsOf = AsOf()


@dataclass(frozen=True, slots=True)
class RowResult:
    """A row as a JSON object in the order of the columns; integers over 2^53 are strings.

    ``served_from``: ``table``, or ``journal`` where the version is no longer retained and the row
    was made from the events since. ``version``: of the store, that was read.
    """

    dataset: str
    key_json: str
    row_json: str
    version: int
    served_from: str = "table"


@dataclass(frozen=True, slots=True)
class SetKeyRequest:
    """Declare the primary key of a dataset that has none, or confirm the one it has."""

    dataset: str
    columns: tuple[str, ...]
    reason: str = ""


@dataclass(frozen=True, slots=True)
class SetKeyReport:
    dataset: str
    version: int
    primary_key: tuple[str, ...]
    rows_checked: int
    no_op: bool = False


@dataclass(frozen=True, slots=True)
class WidenRequest:
    """Columns to add (null in rows that are there), and columns to give a wider type: anything to
    ``string``, integers to a ``decimal`` that holds them, ``date`` to ``timestamp``, a ``decimal``
    to one with as many or more digits on both sides. Key columns keep their type."""

    dataset: str
    add: tuple[ColumnOverride, ...] = ()
    widen: tuple[ColumnOverride, ...] = ()
    reason: str = ""
    dry_run: bool = False


@dataclass(frozen=True, slots=True)
class WidenReport:
    dataset: str
    version: int
    schema: tuple[Column, ...]
    differences: tuple[ColumnDifference, ...]
    no_op: bool = False
    dry_run: bool = False


@dataclass(frozen=True, slots=True)
class RestoreRowsRequest:
    """Make the rows what they were at ``as_of``, by a commit like any other: nothing is undone."""

    dataset: str
    as_of: AsOf
    reason: str = ""
    dry_run: bool = False


@dataclass(frozen=True, slots=True)
class DiffRequest:
    """Rows of ``old`` against those of ``new``. ``limit`` rows a page, in [1, 10000]."""

    dataset: str
    old: AsOf
    new: AsOf = AsOf()
    limit: int = 1000
    cursor: str = ""


@dataclass(frozen=True, slots=True)
class FieldChange:
    """A field's values as JSON; None where there is none (the row is added or removed)."""

    field: str
    old_json: str | None = None
    new_json: str | None = None


@dataclass(frozen=True, slots=True)
class RowDifference:
    """``change``: added, removed or changed; ``fields`` that differ."""

    key_json: str
    change: str
    fields: tuple[FieldChange, ...]


@dataclass(frozen=True, slots=True)
class DiffResult:
    """By key. The counts are of all rows that differ, whatever the page has."""

    dataset: str
    old_version: int
    new_version: int
    added: int
    removed: int
    changed: int
    rows: tuple[RowDifference, ...]
    cursor: str = ""


@dataclass(frozen=True, slots=True)
class CompactRequest:
    """``full``: fold all row changes into the rows, whatever the thresholds say; else what pays.
    ``dry_run``: the plan and what it is expected to gain."""

    dataset: str
    full: bool = False
    dry_run: bool = False


@dataclass(frozen=True, slots=True)
class CompactReport:
    """Of all objects of the dataset, before and after (for a dry run, as expected).

    Attributes:
        strategy: nothing, minor (row changes into fewer), major (row changes into the rows),
            files (small files into larger ones), events (of the journal into fewer objects);
            joined by ``+``.
        rows, rows_hash: of the rows that can be seen, the same before and after.
        inputs, outputs: objects that were read and written.
        rebased: how often it was done again, for its inputs were gone when it was to be committed.
    """

    dataset: str
    version: int
    strategy: str
    files_before: int
    files_after: int
    size_bytes_before: int
    size_bytes_after: int
    key_files_before: int
    key_files_after: int
    rows: int
    rows_hash: str
    inputs: int
    outputs: int
    bytes_read: int
    bytes_written: int
    elapsed_ms: float
    rebased: int = 0
    no_op: bool = False
    dry_run: bool = False


class RowsService(Protocol):
    """Raises ``invalid`` (unknown column, null or repeated key, a value of the wrong type: each bad
    row is named and nothing is applied; no primary key), ``conflict`` (an expectation that does not
    hold, with the actual value; drift, with the diff), ``not_found`` (dataset, row to patch)."""

    async def get(self, ctx: Context, request: RowRequest) -> RowResult:
        """Scope read. Raises ``not_found`` for a key that is not there at that version."""
        ...

    async def change(self, ctx: Context, request: ChangeRowsRequest) -> ChangeRowsReport:
        """Scope write."""
        ...

    async def set_key(self, ctx: Context, request: SetKeyRequest) -> SetKeyReport:
        """Scope write. Raises ``invalid`` naming rows with a null or repeated key."""
        ...

    async def widen(self, ctx: Context, request: WidenRequest) -> WidenReport:
        """Scope write. Raises ``invalid`` for a change that is no widening."""
        ...

    async def restore(self, ctx: Context, request: RestoreRowsRequest) -> ChangeRowsReport:
        """Scope write."""
        ...

    async def diff(self, ctx: Context, request: DiffRequest) -> DiffResult:
        """Scope read. Needs a primary key."""
        ...

    async def compact(self, ctx: Context, request: CompactRequest) -> CompactReport:
        """Scope write. Readers and writers go on meanwhile."""
        ...
