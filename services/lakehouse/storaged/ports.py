"""What the storage service needs from its neighbours in this package and in the process."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

from lakehouse.contracts.storage import (
    AddBucketRequest,
    RemoveBucketRequest,
    RemoveBucketResult,
    RescueInfo,
)
from lakehouse.model.identity import Context
from lakehouse.model.probe import ProbeReport


class BucketRegistry(Protocol):
    """Which buckets there are, and since when; the service has checked the caller's scope."""

    async def add_bucket(self, ctx: Context, request: AddBucketRequest) -> None:
        """Probe, keep and take up a bucket; raises as ``StorageService.add_bucket``."""
        ...

    async def remove_bucket(self, ctx: Context, request: RemoveBucketRequest) -> RemoveBucketResult:
        """Give a bucket up; raises as ``StorageService.remove_bucket``."""
        ...

    def origin(self, name: str) -> str:
        """``configuration`` or ``operator``."""
        ...

    def request(self, name: str) -> AddBucketRequest | None:
        """What an operator asked for; None for a bucket of the configuration."""
        ...

    def proof(self, name: str) -> ProbeReport | None:
        """What the probe said when the bucket was added by this process."""
        ...

    def closed(self) -> Mapping[str, str]:
        """Buckets that were added and cannot be opened in this process -> why."""
        ...

    def trouble(self, name: str) -> str:
        """What is wrong with a bucket apart from whether it answers; "" for nothing."""
        ...


class RescueSource(Protocol):
    """The copier that fills the rescue bucket."""

    def info(self) -> RescueInfo: ...
