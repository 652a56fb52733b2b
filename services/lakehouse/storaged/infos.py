"""How each bucket is shown to an operator: what it is, how it fares, what is wrong with it."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import Final

from lakehouse.contracts.storage import AddBucketRequest, BucketInfo
from lakehouse.errors import LakehouseError
from lakehouse.model.health import BreakerState
from lakehouse.model.probe import ProbeReport
from lakehouse.objectstore.buckets import Buckets
from lakehouse.objectstore.port import ObjectStore
from lakehouse.storaged.ports import BucketRegistry

__all__ = ["REACH_SECONDS", "Infos"]

REACH_SECONDS: Final = 3.0
"""A bucket that has not answered by then is shown as not reachable."""


class Infos:
    """Looks at buckets; keeps the last probe of each."""

    def __init__(self, buckets: Buckets, registry: BucketRegistry) -> None:
        self._buckets = buckets
        self._registry = registry
        self._probes: dict[str, ProbeReport] = {}

    def probed(self, report: ProbeReport) -> None:
        """Remember ``report`` as the last one of its bucket."""
        self._probes[report.bucket] = report

    async def every(self) -> tuple[BucketInfo, ...]:
        """Every bucket: those of the configuration in its order, then those that were added, then
        those of them that cannot be opened here. All are asked at the same time."""
        found = await asyncio.gather(*(self.one(name) for name in self._buckets.names()))
        closed = self._registry.closed()
        return (*found, *(self._closed(name, closed[name]) for name in sorted(closed)))

    async def one(self, name: str) -> BucketInfo:
        """One bucket, asked now. Raises ``not_found``."""
        settings, found = self._buckets.settings(name), self._told(name)
        try:
            store = self._buckets.raw(name)
        except LakehouseError as error:
            return replace(found, last_error=str(error))
        # A breaker that is open knows the answer, and asks again by itself.
        down = self._buckets.health(name).breaker is not BreakerState.CLOSED
        said = self._buckets.health(name).last_error if down else await _reached(store)
        health, footprint = self._buckets.health(name), self._buckets.footprint(name)
        return replace(
            found,
            url=store.url,
            reachable=not said,
            requests=sum(footprint.requests.values()),
            bytes_read=footprint.bytes_read,
            bytes_written=footprint.bytes_written,
            last_error=said or self._registry.trouble(name) or health.last_error,
            last_error_at=health.last_error_at,
            endpoint=settings.endpoint,
            region=settings.region,
            secret_ref=settings.secret_ref,
            breaker=health.breaker,
            latency_ms=health.latency_ms,
            in_flight=health.in_flight,
            failures=health.failures,
            retries=health.retries,
            unavailable_since=health.unavailable_since,
        )

    def _told(self, name: str) -> BucketInfo:
        """What is known without asking."""
        settings = self._buckets.settings(name)
        return BucketInfo(
            name=name,
            bucket_class=settings.bucket_class,
            url="",
            reachable=False,
            requests=0,
            bytes_read=0,
            bytes_written=0,
            residency=settings.residency,
            origin=self._registry.origin(name),
            probe=self._probes.get(name) or self._registry.proof(name),
        )

    def _closed(self, name: str, why: str) -> BucketInfo:
        """One that an operator added and that this process cannot open; its URL may be the reason,
        and is not shown."""
        asked = self._registry.request(name) or AddBucketRequest(name, "")
        return BucketInfo(
            name=name,
            bucket_class=asked.bucket_class,
            url="",
            reachable=False,
            requests=0,
            bytes_read=0,
            bytes_written=0,
            last_error=why,
            residency=asked.residency,
            origin=self._registry.origin(name),
        )


async def _reached(store: ObjectStore) -> str:
    """Why the bucket does not answer, "" if it does."""
    try:
        async with asyncio.timeout(REACH_SECONDS):
            # A list, for a missing bucket looks like a missing key to all else.
            await store.list(limit=1)
    except TimeoutError:
        return f"timeout: no answer within {REACH_SECONDS:.0f} s"
    except LakehouseError as error:
        cause = error.fields.get("cause")
        return f"{error}: {cause}" if cause else str(error)
    return ""
