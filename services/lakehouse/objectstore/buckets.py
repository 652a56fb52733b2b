"""The named buckets of a node: settings in, wrapped stores out."""

from __future__ import annotations

import os
import threading
from collections.abc import Sequence
from typing import Final, Protocol, runtime_checkable
from urllib.parse import unquote, urlsplit

from lakehouse.errors import ErrorKind, LakehouseError
from lakehouse.kit.clock import Clock
from lakehouse.kit.ids import Ids
from lakehouse.objectstore.local import LocalStore
from lakehouse.objectstore.memory import MemoryStore
from lakehouse.objectstore.metered import MeteredStore
from lakehouse.objectstore.port import ObjectStore, StoreFootprint
from lakehouse.objectstore.retrying import RetryingStore
from lakehouse.objectstore.settings import BucketSettings, S3Credentials

__all__ = [
    "BucketSettings",
    "Buckets",
    "S3Credentials",
    "open_adapter",
    "open_raw",
    "open_store",
]

_SCHEMES: Final = "s3://bucket/prefix, file:./path, file:///path or memory://name"


@runtime_checkable
class _Creatable(Protocol):
    async def create_bucket(self) -> bool: ...


# One store a name within a process, so that two nodes of a test can share it.
_MEMORY: Final[dict[str, MemoryStore]] = {}
_MEMORY_LOCK: Final = threading.Lock()


def open_adapter(settings: BucketSettings, clock: Clock) -> ObjectStore:
    """The bare adapter for the bucket's URL. Raises ``invalid`` for a URL that is none."""
    parts = urlsplit(settings.url)
    if parts.query or parts.fragment or parts.username or parts.password:
        raise _url_refused(settings, "must not carry credentials, a query or a fragment")
    if parts.scheme == "file":
        if parts.netloc not in ("", "localhost"):
            raise _url_refused(settings, "must name a local path, as in file:./data")
        path = unquote(parts.path)
        if not path:
            raise _url_refused(settings, "names no folder")
        return LocalStore(os.path.abspath(path), clock)
    if parts.scheme == "memory":
        name = parts.netloc + parts.path
        with _MEMORY_LOCK:
            return _MEMORY.setdefault(name, MemoryStore(name, clock))
    if parts.scheme == "s3" and parts.netloc:
        # boto3 and obstore take half a second to import: only where a bucket needs them.
        from lakehouse.objectstore.s3 import S3Store

        return S3Store(settings)
    raise _url_refused(settings, f"must be {_SCHEMES}")


def open_store(settings: BucketSettings, clock: Clock, ids: Ids) -> ObjectStore:
    """``retrying(metered(adapter))``: for everything but the ledger."""
    return RetryingStore(MeteredStore(open_adapter(settings, clock)), clock, ids)


def open_raw(settings: BucketSettings, clock: Clock) -> ObjectStore:
    """``metered(adapter)``: no retries, for the ledger, which settles its own attempts."""
    return MeteredStore(open_adapter(settings, clock))


class Buckets:
    """All configured buckets, opened on first use; both handles of a bucket share one meter."""

    def __init__(self, settings: Sequence[BucketSettings], clock: Clock, ids: Ids) -> None:
        self._settings = {one.name: one for one in settings}
        if len(self._settings) != len(settings):
            raise LakehouseError(
                ErrorKind.INVALID, "two buckets have one name", names=[one.name for one in settings]
            )
        self._clock = clock
        self._ids = ids
        self._meters: dict[str, MeteredStore] = {}

    def names(self) -> tuple[str, ...]:
        """In the order of the configuration."""
        return tuple(self._settings)

    def settings(self, name: str) -> BucketSettings:
        """Raises ``not_found``, naming the buckets there are."""
        try:
            return self._settings[name]
        except KeyError:
            raise LakehouseError(
                ErrorKind.NOT_FOUND,
                "no bucket has this name",
                bucket=name[:80],
                buckets=list(self._settings),
                hint="declare it in lakehouse.toml under [buckets.<name>]",
            ) from None

    def get(self, name: str) -> ObjectStore:
        """The bucket with retries. Raises ``not_found``."""
        return RetryingStore(self._meter(name), self._clock, self._ids)

    def raw(self, name: str) -> ObjectStore:
        """The bucket without retries. Raises ``not_found``."""
        return self._meter(name)

    def footprint(self, name: str) -> StoreFootprint:
        """Requests and bytes since start, of all handles together."""
        return self._meter(name).footprint()

    def last_error(self, name: str) -> str:
        """What last went wrong with the bucket, "" if nothing did."""
        return self._meter(name).last_error

    async def create(self, name: str) -> bool:
        """Make the bucket at its server if it is not there; whether it was made.

        For ``lakehouse init``, where a first use raised ``not_found`` with ``what="bucket"``.
        Folders and memory are there as soon as they are written to: nothing is made. Raises
        ``not_found`` for a name that is not configured, ``forbidden`` where the credentials may
        not, ``unavailable``; ``already_exists`` where the name is another account's.
        """
        adapter = self._meter(name).inner
        return await adapter.create_bucket() if isinstance(adapter, _Creatable) else False

    async def close(self) -> None:
        """Close every bucket that was opened; idempotent."""
        meters, self._meters = self._meters, {}
        for meter in meters.values():
            await meter.close()

    def _meter(self, name: str) -> MeteredStore:
        if name not in self._meters:
            self._meters[name] = MeteredStore(open_adapter(self.settings(name), self._clock))
        return self._meters[name]


def _url_refused(settings: BucketSettings, why: str) -> LakehouseError:
    # The URL itself is not repeated: it may hold what someone took for a place of credentials.
    return LakehouseError(ErrorKind.INVALID, f"the bucket's url {why}", bucket=settings.name)
