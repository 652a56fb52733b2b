"""A registry that has the buckets of the configuration and no others."""

from __future__ import annotations

from collections.abc import Mapping

from lakehouse.contracts.storage import (
    AddBucketRequest,
    RemoveBucketRequest,
    RemoveBucketResult,
)
from lakehouse.errors import ErrorKind, LakehouseError
from lakehouse.model.identity import Context
from lakehouse.objectstore.buckets import Buckets


class ConfiguredBuckets:
    """For processes without a catalog to keep more in."""

    def __init__(self, buckets: Buckets) -> None:
        self._buckets = buckets

    async def add_bucket(self, ctx: Context, request: AddBucketRequest) -> None:
        raise LakehouseError(
            ErrorKind.UNAVAILABLE,
            "buckets cannot be added at run time here",
            name=request.name[:80],
        )

    async def remove_bucket(self, ctx: Context, request: RemoveBucketRequest) -> RemoveBucketResult:
        self._buckets.settings(request.name)
        raise LakehouseError(
            ErrorKind.FORBIDDEN, "the bucket is in the configuration", name=request.name[:80]
        )

    def origin(self, name: str) -> str:
        return "configuration"

    def request(self, name: str) -> AddBucketRequest | None:
        return None

    def closed(self) -> Mapping[str, str]:
        return {}

    def trouble(self, name: str) -> str:
        return ""
