"""The catalog: the one committer, and all that has a name or a version (ADR-002, 013, 020)."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Protocol

from lakehouse.contracts.as_of import AsOf as AsOf
from lakehouse.contracts.inventory import (
    JournalRequest,
    JournalResult,
    ObjectChangesRequest,
    ObjectChangesResult,
    ObjectStatesRequest,
    ObjectStatesResult,
)
from lakehouse.contracts.tags import SetTagRequest as SetTagRequest
from lakehouse.contracts.tags import TagResult as TagResult
from lakehouse.contracts.tags import TagsRequest as TagsRequest
from lakehouse.contracts.tags import TagsResult as TagsResult
from lakehouse.model.changes import Change, Requirement
from lakehouse.model.dataset import Card, DataFile, Dataset, VersionEntry
from lakehouse.model.identity import Context
from lakehouse.model.refs import PRIMARY
from lakehouse.model.schema import Column, Schema


@dataclass(frozen=True, slots=True)
class CommitRequest:
    """Atomic over all it names. At most 10,000 changes.

    A service that makes the changes for a caller of its own has them differ when that caller
    repeats a call (fresh object keys, a fresh secret), so it says what makes the call the same.

    Attributes:
        request_sha256: of what the caller asked; tells two bodies of one idempotency key apart in
            place of this commit's own hash. With it and without changes nothing is committed: the
            result is the earlier one of that key, or ``replayed`` is false.
        answer_json: kept with the commit, for the answer to a repeated call; never a secret.
        route: the call that the key belongs to; "" is this one.
    """

    changes: tuple[Change, ...]
    requirements: tuple[Requirement, ...] = ()
    request_sha256: str = ""
    answer_json: str = ""
    route: str = ""


@dataclass(frozen=True, slots=True)
class CommitResult:
    """``replayed``: the answer of an earlier commit with the same idempotency key, then with the
    ``answer_json`` that was kept with it."""

    version: int
    replayed: bool = False
    answer_json: str = ""


@dataclass(frozen=True, slots=True)
class ForeignObject:
    """An object already in a bucket; ``copy`` copies it in instead of referring to it."""

    key: str
    bucket: str = PRIMARY
    copy: bool = False


@dataclass(frozen=True, slots=True)
class RegisterRequest:
    """ADR-020. Objects are Parquet; ``columns`` empty means the schema of the first object.

    ``fingerprint`` "" means computed; given, it must be the ``fp1:`` of the schema. The card's
    owner and description are required on manual registration of a new name. ``expected_version``:
    refuse if the dataset's last change is another, so that a delayed retry rolls nothing back; 0
    means that there must be none. ``bucket``: the home of a new name, and so where copies go; ""
    is the bucket of the first object.
    """

    name: str
    objects: tuple[ForeignObject, ...]
    card: Card
    fingerprint: str = ""
    columns: tuple[Column, ...] = ()
    primary_key: tuple[str, ...] = ()
    expected_version: int | None = None
    bucket: str = ""


@dataclass(frozen=True, slots=True)
class DatasetResult:
    """A dataset and the version of the store it was read at; ``created`` if this call made it."""

    dataset: Dataset
    version: int
    created: bool = False


@dataclass(frozen=True, slots=True)
class GetRequest:
    name: str
    as_of: AsOf = AsOf()
    include_dropped: bool = False


@dataclass(frozen=True, slots=True)
class ListRequest:
    """Filters are joined by and; ``query`` looks in name, description, tags, owner, columns.

    ``limit`` in [1, 1000]; ``cursor`` is opaque, "" for the first page. Sorted by name key.
    """

    query: str = ""
    tag: str = ""
    owner: str = ""
    include_dropped: bool = False
    limit: int = 100
    cursor: str = ""


@dataclass(frozen=True, slots=True)
class ListResult:
    datasets: tuple[Dataset, ...]
    version: int
    cursor: str = ""


@dataclass(frozen=True, slots=True)
class PageRequest:
    """A page of something of one dataset."""

    name: str
    as_of: AsOf = AsOf()
    limit: int = 1000
    cursor: str = ""


@dataclass(frozen=True, slots=True)
class FilesResult:
    files: tuple[DataFile, ...]
    version: int
    cursor: str = ""


@dataclass(frozen=True, slots=True)
class VersionsResult:
    """Newest first."""

    versions: tuple[VersionEntry, ...]
    version: int
    cursor: str = ""


@dataclass(frozen=True, slots=True)
class Pin:
    """A dataset read at a version of its own."""

    name: str
    as_of: AsOf


@dataclass(frozen=True, slots=True)
class SnapshotRequest:
    """Datasets by name at one version of the store. ``pins`` overrides it for single names."""

    names: tuple[str, ...]
    as_of: AsOf = AsOf()
    pins: tuple[Pin, ...] = ()


@dataclass(frozen=True, slots=True)
class DatasetSnapshot:
    """All that a reader needs: no further call to the catalog, no LIST. ``schemas`` has every
    schema version that one of ``files`` was written with; these are rows and keys, for events are
    not read to see rows."""

    dataset: Dataset
    files: tuple[DataFile, ...]
    schemas: tuple[Schema, ...]


@dataclass(frozen=True, slots=True)
class SnapshotResult:
    """``datasets`` in the order of the names asked for."""

    datasets: tuple[DatasetSnapshot, ...]
    version: int


@dataclass(frozen=True, slots=True)
class UpdateCardRequest:
    """Replaces the card's fields that are given; None leaves one as it is."""

    name: str
    owner: str | None = None
    description: str | None = None
    sensitivity: str | None = None
    tags: tuple[str, ...] | None = None
    source_system: str | None = None
    freshness_sla_seconds: int | None = None
    expected_version: int | None = None


@dataclass(frozen=True, slots=True)
class RenameRequest:
    name: str
    new_name: str
    expected_version: int | None = None


@dataclass(frozen=True, slots=True)
class DropRequest:
    """Soft: ``restore`` brings it back for 7 days. ``purge`` makes it final."""

    name: str
    purge: bool = False
    expected_version: int | None = None


@dataclass(frozen=True, slots=True)
class RestoreRequest:
    name: str
    new_name: str = ""


@dataclass(frozen=True, slots=True)
class PlanRequest:
    """A dry run gives a plan and its hash; ``plan`` = that hash applies exactly that plan."""

    dry_run: bool = False
    plan: str = ""


@dataclass(frozen=True, slots=True)
class DedupeGroup:
    """Datasets under one name: one is kept, the others are folded into it and dropped."""

    name: str
    kept_id: str
    dropped_ids: tuple[str, ...]
    files_conserved: int
    rows_conserved: int
    reason: str


@dataclass(frozen=True, slots=True)
class DedupeReport:
    plan: str
    applied: bool
    groups: tuple[DedupeGroup, ...]
    skipped: tuple[str, ...]
    datasets_before: int
    datasets_after: int
    version: int


@dataclass(frozen=True, slots=True)
class FsckFinding:
    """``kind``: dangling (named, not there), size, checksum, orphan (there, not named), manifest
    (cannot be read), unreachable (a bucket that did not answer, in ``key``: of its objects nothing
    is known)."""

    kind: str
    dataset: str
    key: str
    detail: str


@dataclass(frozen=True, slots=True)
class FsckRequest:
    """``deep`` reads every byte; else existence and size. ``dry_run`` changes nothing; otherwise
    datasets with damaged files are quarantined."""

    dry_run: bool = True
    deep: bool = False
    plan: str = ""


@dataclass(frozen=True, slots=True)
class FsckReport:
    plan: str
    applied: bool
    findings: tuple[FsckFinding, ...]
    objects_checked: int
    bytes_checked: int
    quarantined: tuple[str, ...]
    version: int


@dataclass(frozen=True, slots=True)
class CollectReport:
    """What collection gives up and deletes; ``plan`` as in ``PlanRequest``. Of the buckets
    ``unreachable`` nothing was deleted: what is due there waits."""

    plan: str
    applied: bool
    horizon: int
    objects: tuple[str, ...]
    size_bytes: int
    records_packed: int
    version: int
    unreachable: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class ImportedDataset:
    """A manifest of a catalog written without the gate of ADR-020; names may repeat."""

    name: str
    keys: tuple[str, ...]
    row_count: int | None
    updated_at: datetime
    bucket: str = PRIMARY
    card: Card = Card()


@dataclass(frozen=True, slots=True)
class ImportRequest:
    datasets: tuple[ImportedDataset, ...]


@dataclass(frozen=True, slots=True)
class ImportReport:
    imported: int
    duplicates: int
    version: int


@dataclass(frozen=True, slots=True)
class Document:
    kind: str
    id: str
    body: str
    version: int


@dataclass(frozen=True, slots=True)
class DocumentsRequest:
    """One document if ``id`` is given, else all of a kind."""

    kind: str
    id: str = ""


@dataclass(frozen=True, slots=True)
class DocumentsResult:
    documents: tuple[Document, ...]
    version: int


@dataclass(frozen=True, slots=True)
class UsageRequest:
    """Nothing to ask with."""


@dataclass(frozen=True, slots=True)
class BucketUse:
    """``datasets`` that have objects in ``bucket`` or have it as their home, dropped ones and old
    versions included, of those that were made with ``residency``."""

    bucket: str
    residency: str
    datasets: int


@dataclass(frozen=True, slots=True)
class UsageResult:
    """By bucket and residency; a bucket that no dataset uses is not in it."""

    buckets: tuple[BucketUse, ...]
    version: int


@dataclass(frozen=True, slots=True)
class SessionRequest:
    """``session_id`` "" opens one; given, it is a heartbeat, or its end if ``close``."""

    writer: str
    role: str
    session_id: str = ""
    close: bool = False


@dataclass(frozen=True, slots=True)
class SessionResult:
    session_id: str
    version: int


@dataclass(frozen=True, slots=True)
class StatusRequest:
    """Nothing to ask with."""


@dataclass(frozen=True, slots=True)
class CatalogStatus:
    """``idempotency_seconds``: how far back keys are remembered now (P4)."""

    store_id: str
    version: int
    record: int
    epoch: int
    writer: str
    endpoint: str
    datasets: int
    documents: int
    queued: int
    idempotency_keys: int
    idempotency_seconds: int
    horizon: int


class CatalogService(Protocol):
    """Every method raises ``unavailable`` while the catalog opens, ``fenced`` once another writer
    took over, ``forbidden`` without the scope. Mutations may raise ``unknown`` (P5): retry with
    the same idempotency key. ``not_found`` names the nearest name there is."""

    async def commit(self, ctx: Context, request: CommitRequest) -> CommitResult:
        """Apply all changes or none. Scope write. Raises ``conflict`` if a requirement fails."""
        ...

    async def register(self, ctx: Context, request: RegisterRequest) -> DatasetResult:
        """Idempotent by name with a fingerprint gate. Raises ``conflict`` with the diff."""
        ...

    async def get(self, ctx: Context, request: GetRequest) -> DatasetResult: ...

    async def list(self, ctx: Context, request: ListRequest) -> ListResult: ...

    async def snapshot(self, ctx: Context, request: SnapshotRequest) -> SnapshotResult: ...

    async def files(self, ctx: Context, request: PageRequest) -> FilesResult: ...

    async def versions(self, ctx: Context, request: PageRequest) -> VersionsResult: ...

    async def update_card(self, ctx: Context, request: UpdateCardRequest) -> DatasetResult: ...

    async def rename(self, ctx: Context, request: RenameRequest) -> DatasetResult: ...

    async def drop(self, ctx: Context, request: DropRequest) -> CommitResult: ...

    async def restore(self, ctx: Context, request: RestoreRequest) -> DatasetResult: ...

    async def dedupe(self, ctx: Context, request: PlanRequest) -> DedupeReport:
        """Collapse datasets that share a name. Scope operator. Raises ``conflict`` if the plan
        is not the one that would be made now."""
        ...

    async def fsck(self, ctx: Context, request: FsckRequest) -> FsckReport: ...

    async def collect(self, ctx: Context, request: PlanRequest) -> CollectReport: ...

    async def import_datasets(self, ctx: Context, request: ImportRequest) -> ImportReport: ...

    async def documents(self, ctx: Context, request: DocumentsRequest) -> DocumentsResult: ...

    async def usage(self, ctx: Context, request: UsageRequest) -> UsageResult:
        """Which buckets the datasets are in; costs no more the more files there are."""
        ...

    async def session(self, ctx: Context, request: SessionRequest) -> SessionResult: ...

    async def status(self, ctx: Context, request: StatusRequest) -> CatalogStatus: ...

    async def object_changes(
        self, ctx: Context, request: ObjectChangesRequest
    ) -> ObjectChangesResult:
        """For who keeps copies: costs what changed, not what there is."""
        ...

    async def object_states(
        self, ctx: Context, request: ObjectStatesRequest
    ) -> ObjectStatesResult: ...

    async def journal(self, ctx: Context, request: JournalRequest) -> JournalResult:
        """For who reads the journal: costs what it answers, not what there is. Scope read."""
        ...

    async def set_tag(self, ctx: Context, request: SetTagRequest) -> TagResult:
        """Scope write. Raises ``conflict`` (the name is another version's), ``not_found`` (to
        remove; or the version is below the horizon)."""
        ...

    async def tags(self, ctx: Context, request: TagsRequest) -> TagsResult:
        """Scope read."""
        ...
