"""Buckets as an operator sees them: which there are, how they fare, what went wrong."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Protocol

from lakehouse.model.failures import FailedAttempt
from lakehouse.model.health import BreakerState
from lakehouse.model.identity import Context
from lakehouse.model.probe import ProbeReport


@dataclass(frozen=True, slots=True)
class BucketInfo:
    """One bucket of the registry and how it fares.

    Attributes:
        bucket_class: primary, tenant or profile:{user}.
        url: without credentials.
        reachable: whether it answered just now.
        latency_ms: moving average of answered attempts, 0 before the first.
        origin: ``configuration`` or ``operator`` (added at run time, may be removed).
        secret_ref: the opaque reference, never the secret.
        probe: the last conformance probe of this process; None if there was none.
    """

    name: str
    bucket_class: str
    url: str
    reachable: bool
    requests: int
    bytes_read: int
    bytes_written: int
    last_error: str = ""
    last_error_at: datetime | None = None
    endpoint: str = ""
    region: str = ""
    residency: str = ""
    secret_ref: str = ""
    origin: str = "configuration"
    breaker: BreakerState = BreakerState.CLOSED
    latency_ms: float = 0.0
    in_flight: int = 0
    failures: int = 0
    retries: int = 0
    unavailable_since: datetime | None = None
    probe: ProbeReport | None = None


@dataclass(frozen=True, slots=True)
class BucketsRequest:
    """Nothing to ask with."""


@dataclass(frozen=True, slots=True)
class RescueInfo:
    """The copier that fills the rescue bucket.

    Attributes:
        bucket: "" where there is none.
        objects: live data objects whose content is known and that may be copied; ``copied``: those
            that are. Coverage is one over the other.
        excluded: live data objects that residency keeps away from the rescue bucket, or whose key
            is too long for one of a copy.
        lag_seconds: age of the oldest object that should be there and is not; 0 for none.
        verified, damaged: of the sample that was read back since the start.
        deletions: objects removed from it because they are gone or erased.
        served: reads answered from it since the start.
    """

    bucket: str = ""
    objects: int = 0
    copied: int = 0
    excluded: int = 0
    lag_seconds: float = 0.0
    verified: int = 0
    damaged: int = 0
    deletions: int = 0
    served: int = 0
    last_error: str = ""


@dataclass(frozen=True, slots=True)
class BucketsResult:
    buckets: tuple[BucketInfo, ...]
    rescue: RescueInfo = RescueInfo()


@dataclass(frozen=True, slots=True)
class ProbeRequest:
    bucket: str


@dataclass(frozen=True, slots=True)
class AddBucketRequest:
    """A bucket to take up at run time; probed before use, then kept in the catalog.

    Attributes:
        name: lower-case letters, digits, ``_`` and ``-``; not one that there is with other
            settings (the same settings again: nothing happens).
        url: ``s3://bucket/prefix`` or, where the operator of the machine allows it, ``file:///..``.
        secret_ref: ``env:``, ``file:`` or ``aws-sm:`` reference; "" for the ambient identity.
    """

    name: str
    url: str
    endpoint: str = ""
    region: str = "us-east-1"
    bucket_class: str = "tenant"
    residency: str = ""
    secret_ref: str = ""


@dataclass(frozen=True, slots=True)
class RemoveBucketRequest:
    """Refused (``conflict``) while a dataset, dropped ones included, has objects in it."""

    name: str


@dataclass(frozen=True, slots=True)
class RemoveBucketResult:
    name: str
    removed: bool


@dataclass(frozen=True, slots=True)
class ErrorsRequest:
    """Which failed attempts to show, newest first.

    Attributes:
        bucket, operation, error_kind: exact; "" for all.
        since, until: ``since <= at < until``.
        final_only: only the attempt that decided each operation.
        limit: 1 to 10,000.
        cursor: ``next`` of the page before.
    """

    bucket: str = ""
    operation: str = ""
    error_kind: str = ""
    since: datetime | None = None
    until: datetime | None = None
    final_only: bool = False
    limit: int = 100
    cursor: str = ""


@dataclass(frozen=True, slots=True)
class ErrorCount:
    """``attempts`` that failed and ``operations`` whose final attempt is among them."""

    bucket: str
    operation: str
    error_kind: str
    attempts: int
    operations: int


@dataclass(frozen=True, slots=True)
class ErrorsResult:
    """One page of the error journal.

    Attributes:
        counts: over everything the filters select, not over the page.
        dropped: attempts the journal could not keep since the start, over all processes known.
        spooled: attempts kept on this machine's disk that the primary does not have yet.
        primary_unavailable_since: first failure of the primary since its last success.
        complete: False where only ring and spool could be read, because the primary is down.
        next: cursor of the next page, "" at the end.
        journal_failures: the journal's own requests that failed since the start; they are counted
            here and are no entries of it.
    """

    errors: tuple[FailedAttempt, ...]
    counts: tuple[ErrorCount, ...]
    dropped: int
    spooled: int
    primary_unavailable_since: datetime | None = None
    complete: bool = True
    next: str = ""
    journal_failures: int = 0


@dataclass(frozen=True, slots=True)
class ReportRequest:
    """What another process of the store saw fail; at most 4,096 attempts, and what it dropped."""

    attempts: tuple[FailedAttempt, ...]
    dropped: int = 0


@dataclass(frozen=True, slots=True)
class ReportResult:
    """``accepted`` includes those that were there already."""

    accepted: int


class StorageService(Protocol):
    """Scope operator throughout."""

    async def buckets(self, ctx: Context, request: BucketsRequest) -> BucketsResult: ...

    async def probe(self, ctx: Context, request: ProbeRequest) -> ProbeReport: ...

    async def add_bucket(self, ctx: Context, request: AddBucketRequest) -> BucketInfo:
        """Raises ``invalid`` (name, url, class), ``already_exists`` (another one has the name),
        ``forbidden`` (it fails the probe), ``unavailable`` (it cannot be asked)."""
        ...

    async def remove_bucket(self, ctx: Context, request: RemoveBucketRequest) -> RemoveBucketResult:
        """Raises ``not_found``, ``conflict`` (in use), ``forbidden`` (from the configuration)."""
        ...

    async def errors(self, ctx: Context, request: ErrorsRequest) -> ErrorsResult:
        """The error journal: ring, local spool and log as one, each attempt once. Never fails for
        a bucket that is down, the primary included."""
        ...

    async def report(self, ctx: Context, request: ReportRequest) -> ReportResult:
        """Take over what another process saw; returns once it is spooled here."""
        ...
