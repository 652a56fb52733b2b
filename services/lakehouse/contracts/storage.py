"""Buckets as an operator sees them. (Objects and the error journal come with a later issue.)"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from lakehouse.model.identity import Context
from lakehouse.model.probe import ProbeReport


@dataclass(frozen=True, slots=True)
class BucketInfo:
    """``bucket_class``: primary, tenant or profile:{user}; ``url`` without credentials."""

    name: str
    bucket_class: str
    url: str
    reachable: bool
    requests: int
    bytes_read: int
    bytes_written: int
    last_error: str = ""


@dataclass(frozen=True, slots=True)
class BucketsRequest:
    """Nothing to ask with."""


@dataclass(frozen=True, slots=True)
class BucketsResult:
    buckets: tuple[BucketInfo, ...]


@dataclass(frozen=True, slots=True)
class ProbeRequest:
    bucket: str


class StorageService(Protocol):
    """Scope operator."""

    async def buckets(self, ctx: Context, request: BucketsRequest) -> BucketsResult: ...

    async def probe(self, ctx: Context, request: ProbeRequest) -> ProbeReport: ...
