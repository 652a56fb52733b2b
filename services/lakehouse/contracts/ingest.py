"""Ingest: messy exports in, queryable datasets out (ADR-010)."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass
from enum import StrEnum
from typing import Protocol

from lakehouse.model.identity import Context
from lakehouse.model.refs import PRIMARY
from lakehouse.model.schema import Column


class IngestMode(StrEnum):
    """AUTO: create if absent, no-op if the same content is there, else 409 naming the others.

    UPSERT: rows of a key that is there take its place, the others are added; the dataset has, or
    gets with this call, a primary key."""

    AUTO = "auto"
    CREATE = "create"
    APPEND = "append"
    REPLACE = "replace"
    UPSERT = "upsert"


class SourceFormat(StrEnum):
    """AUTO: by content type, then by name, then by the first bytes."""

    AUTO = "auto"
    CSV = "csv"
    TSV = "tsv"
    JSON = "json"
    NDJSON = "ndjson"
    PARQUET = "parquet"
    ARROW = "arrow"


class NestedAs(StrEnum):
    """What a nested JSON value becomes: a struct/list column, or its JSON text."""

    STRUCT = "struct"
    JSON = "json"


@dataclass(frozen=True, slots=True)
class ColumnOverride:
    """A stated type for a column, in the type text of ``model.schema``."""

    name: str
    type: str


@dataclass(frozen=True, slots=True)
class IngestOptions:
    """How to read the bytes. Empty means detect.

    Attributes:
        compression: "" detect, else ``none`` ``gzip`` ``zstd``.
        null_values: texts that are null in a column inferred as other than string (the field's
            default is only ""); in a string column every text stays as it is.
        header: None detect; False names columns ``column_1`` ....
        force: ingest even if the same content digest is already there.
    """

    format: SourceFormat = SourceFormat.AUTO
    compression: str = ""
    content_type: str = ""
    file_name: str = ""
    delimiter: str = ""
    quote: str = ""
    encoding: str = ""
    header: bool | None = None
    null_values: tuple[str, ...] | None = None
    columns: tuple[ColumnOverride, ...] = ()
    nested: NestedAs = NestedAs.STRUCT
    force: bool = False


@dataclass(frozen=True, slots=True)
class CardHints:
    """What the caller says of the dataset; the rest of the card is detected."""

    owner: str = ""
    description: str = ""
    sensitivity: str = ""
    tags: tuple[str, ...] = ()
    source_system: str = ""
    freshness_sla_seconds: int | None = None


@dataclass(frozen=True, slots=True)
class IngestRequest:
    """``object_key`` set: read that object of ``object_bucket`` instead of the body.

    ``bucket``: the home of a dataset that this call makes, "" the primary one; of one that is there
    already it must be the home, for rows do not move.
    """

    dataset: str
    mode: IngestMode = IngestMode.AUTO
    key: tuple[str, ...] = ()
    options: IngestOptions = IngestOptions()
    card: CardHints = CardHints()
    dry_run: bool = False
    object_key: str = ""
    object_bucket: str = PRIMARY
    bucket: str = ""
    reason: str = ""


@dataclass(frozen=True, slots=True)
class IngestWarning:
    """Something that was read in a way worth knowing, e.g. a column widened to string."""

    code: str
    message: str
    column: str = ""
    line: int | None = None
    count: int = 0


@dataclass(frozen=True, slots=True)
class IngestReport:
    """What an ingest did.

    Attributes:
        version: of the store, that has the rows (for a no-op: the one that already has them).
        created: this call made the dataset (HTTP 201); False for no-ops, append and replace.
        dead_letters: rows that could not be parsed at all; they are in ``dead_letter_dataset``.
        sample_json: for a dry run, up to 20 rows as a JSON array; else "".
        inserted, updated, deleted, unchanged: rows by key, where the dataset has one and the mode
            is upsert, or replace.
    """

    dataset: str
    version: int
    rows: int
    files: int
    no_op: bool
    created: bool
    dead_letters: int
    dead_letter_dataset: str
    schema: tuple[Column, ...]
    warnings: tuple[IngestWarning, ...]
    content_digest: str
    format: str
    mode: str
    bytes_read: int
    elapsed_ms: float
    dry_run: bool = False
    sample_json: str = ""
    inserted: int = 0
    updated: int = 0
    deleted: int = 0
    unchanged: int = 0


class IngestService(Protocol):
    """Raises ``invalid`` (unreadable: what, where, what to do), ``already_exists`` (mode create),
    ``conflict`` (other content without a mode; drift, with the diff), ``exhausted`` (a limit)."""

    async def ingest(
        self, ctx: Context, request: IngestRequest, body: AsyncIterator[bytes]
    ) -> IngestReport:
        """Read the whole body, then commit once: all of it or nothing. Scope write."""
        ...
