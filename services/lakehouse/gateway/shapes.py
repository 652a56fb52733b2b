"""What answers look like in JSON where it is not a contract's value as it stands.

A field may be added, never renamed or removed: clients rely on these.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from lakehouse.contracts.catalog import DatasetResult, FilesResult, ListResult, VersionsResult
from lakehouse.contracts.ingest import IngestReport, IngestWarning
from lakehouse.contracts.storage import ErrorCount, ErrorsResult
from lakehouse.contracts.tokens import CreatedToken, TokenInfo
from lakehouse.model.dataset import Card, DataFile, Dataset, DatasetStatus, Lineage, VersionEntry
from lakehouse.model.failures import FailedAttempt
from lakehouse.model.identity import Scope
from lakehouse.model.schema import Column


@dataclass(frozen=True, slots=True)
class DatasetShape:
    """A dataset. ``version`` is that of its last change, ``rows_version`` of the last one to its
    rows, ``store_version`` the one read at. ``history_since``: from then on the journal tells every
    change to every row; 0 where there is no key."""

    name: str
    id: str
    status: DatasetStatus
    version: int
    store_version: int
    row_count: int | None
    files: int
    size_bytes: int
    schema: tuple[Column, ...]
    schema_id: int
    fingerprint: str
    primary_key: tuple[str, ...]
    card: Card
    bucket: str
    created_at: datetime
    updated_at: datetime
    created: bool = False
    residency: str = ""
    rows_version: int = 0
    history_since: int = 0


@dataclass(frozen=True, slots=True)
class DatasetsShape:
    """``next`` is the cursor of the next page, null on the last."""

    datasets: tuple[DatasetShape, ...]
    version: int
    next: str | None


@dataclass(frozen=True, slots=True)
class VersionsShape:
    """Newest first."""

    dataset: str
    versions: tuple[VersionEntry, ...]
    version: int
    next: str | None


@dataclass(frozen=True, slots=True)
class Happening:
    """One line of a dataset's history; ``summary`` says it in words."""

    version: int
    at: datetime
    actor: str
    operation: str
    summary: str
    source: str
    request_id: str
    reason: str = ""
    workspace: str = ""


@dataclass(frozen=True, slots=True)
class HistoryShape:
    """Newest first."""

    dataset: str
    history: tuple[Happening, ...]
    version: int
    next: str | None


@dataclass(frozen=True, slots=True)
class SchemaShape:
    dataset: str
    schema_id: int
    fingerprint: str
    columns: tuple[Column, ...]
    primary_key: tuple[str, ...]
    version: int


@dataclass(frozen=True, slots=True)
class LineageShape:
    dataset: str
    lineage: Lineage
    owner: str
    updated_at: datetime
    version: int


@dataclass(frozen=True, slots=True)
class FilesShape:
    """In the order of their ordinals."""

    dataset: str
    files: tuple[DataFile, ...]
    version: int
    next: str | None


@dataclass(frozen=True, slots=True)
class DroppedShape:
    """``purged``: it cannot be restored."""

    dataset: str
    purged: bool
    version: int


@dataclass(frozen=True, slots=True)
class IngestShape:
    """What an ingest did; ``sample`` holds rows for a dry run, else null. ``inserted`` to
    ``unchanged`` count rows by key, of upsert and of replace."""

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
    dry_run: bool
    sample: object
    inserted: int
    updated: int
    deleted: int
    unchanged: int


@dataclass(frozen=True, slots=True)
class TokenShape:
    id: str
    name: str
    scopes: tuple[Scope, ...]
    created_at: datetime
    created_by: str
    expires_at: datetime | None


@dataclass(frozen=True, slots=True)
class TokensShape:
    tokens: tuple[TokenShape, ...]


@dataclass(frozen=True, slots=True)
class CreatedTokenShape:
    """``token`` is shown this once."""

    token: str
    id: str
    name: str
    scopes: tuple[Scope, ...]
    created_at: datetime
    created_by: str
    expires_at: datetime | None


@dataclass(frozen=True, slots=True)
class ErrorsShape:
    """Newest first. ``counts`` are over all that the filters select; ``complete`` is false where
    only what this machine holds could be read, because the primary is down."""

    errors: tuple[FailedAttempt, ...]
    counts: tuple[ErrorCount, ...]
    dropped: int
    spooled: int
    primary_unavailable_since: datetime | None
    complete: bool
    next: str | None
    journal_failures: int


@dataclass(frozen=True, slots=True)
class VersionShape:
    """``formats``: the versions of what is written into buckets."""

    name: str
    version: str
    api: str
    formats: dict[str, int]


@dataclass(frozen=True, slots=True)
class PartShape:
    ready: bool
    reasons: tuple[str, ...]
    degraded: tuple[str, ...]
    details: dict[str, str]


@dataclass(frozen=True, slots=True)
class ReadyShape:
    ready: bool
    reasons: tuple[str, ...]
    degraded: tuple[str, ...]
    details: dict[str, str]
    parts: dict[str, PartShape]


@dataclass(frozen=True, slots=True)
class HealthShape:
    status: str


def dataset_shape(result: DatasetResult) -> DatasetShape:
    return _dataset(result.dataset, result.version, result.created)


def datasets_shape(result: ListResult) -> DatasetsShape:
    shapes = tuple(_dataset(dataset, result.version, False) for dataset in result.datasets)
    return DatasetsShape(shapes, result.version, result.cursor or None)


def versions_shape(name: str, result: VersionsResult) -> VersionsShape:
    return VersionsShape(name, result.versions, result.version, result.cursor or None)


def history_shape(name: str, result: VersionsResult) -> HistoryShape:
    happenings = tuple(_happening(entry) for entry in result.versions)
    return HistoryShape(name, happenings, result.version, result.cursor or None)


def files_shape(name: str, result: FilesResult) -> FilesShape:
    return FilesShape(name, result.files, result.version, result.cursor or None)


def schema_shape(result: DatasetResult) -> SchemaShape:
    found = result.dataset
    return SchemaShape(
        dataset=found.name,
        schema_id=found.schema.id,
        fingerprint=found.fingerprint,
        columns=found.schema.columns,
        primary_key=found.primary_key,
        version=result.version,
    )


def lineage_shape(result: DatasetResult) -> LineageShape:
    found = result.dataset
    return LineageShape(
        found.name, found.card.lineage, found.card.owner, found.updated_at, result.version
    )


def ingest_shape(report: IngestReport, sample: object) -> IngestShape:
    return IngestShape(
        dataset=report.dataset,
        version=report.version,
        rows=report.rows,
        files=report.files,
        no_op=report.no_op,
        created=report.created,
        dead_letters=report.dead_letters,
        dead_letter_dataset=report.dead_letter_dataset,
        schema=report.schema,
        warnings=report.warnings,
        content_digest=report.content_digest,
        format=report.format,
        mode=report.mode,
        bytes_read=report.bytes_read,
        elapsed_ms=report.elapsed_ms,
        dry_run=report.dry_run,
        sample=sample,
        inserted=report.inserted,
        updated=report.updated,
        deleted=report.deleted,
        unchanged=report.unchanged,
    )


def errors_shape(result: ErrorsResult) -> ErrorsShape:
    return ErrorsShape(
        errors=result.errors,
        counts=result.counts,
        dropped=result.dropped,
        spooled=result.spooled,
        primary_unavailable_since=result.primary_unavailable_since,
        complete=result.complete,
        next=result.next or None,
        journal_failures=result.journal_failures,
    )


def token_shape(info: TokenInfo) -> TokenShape:
    return TokenShape(
        info.id, info.name, info.scopes, info.created_at, info.created_by, info.expires_at
    )


def created_token_shape(made: CreatedToken) -> CreatedTokenShape:
    info = made.info
    return CreatedTokenShape(
        token=made.token,
        id=info.id,
        name=info.name,
        scopes=info.scopes,
        created_at=info.created_at,
        created_by=info.created_by,
        expires_at=info.expires_at,
    )


def _dataset(found: Dataset, store_version: int, created: bool) -> DatasetShape:
    return DatasetShape(
        name=found.name,
        id=found.id,
        status=found.status,
        version=found.version,
        store_version=store_version,
        row_count=found.row_count,
        files=found.files,
        size_bytes=found.size_bytes,
        schema=found.schema.columns,
        schema_id=found.schema.id,
        fingerprint=found.fingerprint,
        primary_key=found.primary_key,
        card=found.card,
        bucket=found.bucket,
        residency=found.residency,
        created_at=found.created_at,
        updated_at=found.updated_at,
        created=created,
        rows_version=found.rows_version,
        history_since=found.history_since,
    )


def _happening(entry: VersionEntry) -> Happening:
    summary = (
        f"{entry.operation} by {entry.actor or 'somebody'}: "
        f"{entry.rows_added} rows and {entry.files_added} files added, "
        f"{entry.rows_removed} rows and {entry.files_removed} files removed"
    )
    return Happening(
        version=entry.version,
        at=entry.at,
        actor=entry.actor,
        operation=entry.operation,
        summary=summary,
        source=entry.source,
        request_id=entry.request_id,
        reason=entry.reason,
        workspace=entry.workspace,
    )
