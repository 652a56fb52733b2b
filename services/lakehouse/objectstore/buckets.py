"""The named buckets of a node: settings in, wrapped stores out."""

from __future__ import annotations

import asyncio
import contextlib
import os
import threading
from collections.abc import Awaitable, Callable, Collection, Iterable, Sequence
from dataclasses import replace
from typing import Final, Protocol, runtime_checkable
from urllib.parse import SplitResult, unquote, urlsplit

from lakehouse.errors import ErrorKind, LakehouseError
from lakehouse.kit.clock import Clock
from lakehouse.kit.ids import Ids
from lakehouse.kit.secrets import SecretsProvider
from lakehouse.model.health import BucketHealth
from lakehouse.model.identity import Context
from lakehouse.objectstore.credentials import RotatingStore
from lakehouse.objectstore.failures import FailureSink, NoSink
from lakehouse.objectstore.guarding import GuardedStore, ObservedStore
from lakehouse.objectstore.health import BucketWatch
from lakehouse.objectstore.identity import STORE_FILE
from lakehouse.objectstore.journaling import JournalingStore
from lakehouse.objectstore.local import LocalStore
from lakehouse.objectstore.memory import MemoryStore
from lakehouse.objectstore.metered import MeteredStore
from lakehouse.objectstore.port import ObjectStore, StoreFootprint
from lakehouse.objectstore.retrying import RetryingStore
from lakehouse.objectstore.secrets_manager import all_secrets
from lakehouse.objectstore.settings import BucketSettings, ResilienceSettings, S3Credentials

__all__ = [
    "BucketSettings",
    "Buckets",
    "ResilienceSettings",
    "S3Credentials",
    "SearchBuckets",
    "open_adapter",
    "open_raw",
    "open_store",
]

SearchBuckets = Callable[[Context, Collection[str]], Awaitable[None]]
"""Looks for buckets by name on a caller's behalf, and adds those there are."""

_SCHEMES: Final = "s3://bucket/prefix, file:./path, file:///path or memory://name"


@runtime_checkable
class _Creatable(Protocol):
    async def create_bucket(self) -> bool: ...


_NO_SINK: Final = NoSink()
_RESILIENCE: Final = ResilienceSettings()

# One store a name within a process, so that two nodes of a test can share it.
_MEMORY: Final[dict[str, MemoryStore]] = {}
_MEMORY_LOCK: Final = threading.Lock()


def check_url(settings: BucketSettings) -> SplitResult:
    """The parts of the bucket's URL. Raises ``invalid`` for one that is none of ours."""
    try:
        parts = urlsplit(settings.url)
    except ValueError:
        raise _url_refused(settings, f"must be {_SCHEMES}") from None
    if parts.query or parts.fragment or parts.username or parts.password:
        raise _url_refused(settings, "must not carry credentials, a query or a fragment")
    if parts.scheme == "file":
        if parts.netloc not in ("", "localhost"):
            raise _url_refused(settings, "must name a local path, as in file:./data")
        if not parts.path:
            raise _url_refused(settings, "names no folder")
    elif not (parts.scheme == "memory" or (parts.scheme == "s3" and parts.netloc)):
        raise _url_refused(settings, f"must be {_SCHEMES}")
    return parts


def open_adapter(settings: BucketSettings, clock: Clock) -> ObjectStore:
    """The bare adapter for the bucket's URL. Raises ``invalid`` for a URL that is none."""
    parts = check_url(settings)
    if parts.scheme == "file":
        return LocalStore(os.path.abspath(unquote(parts.path)), clock)
    if parts.scheme == "memory":
        name = parts.netloc + parts.path
        with _MEMORY_LOCK:
            return _MEMORY.setdefault(name, MemoryStore(name, clock))
    # boto3 and obstore take half a second to import: only where a bucket needs them.
    from lakehouse.objectstore.s3 import S3Store

    return S3Store(settings)


def open_store(settings: BucketSettings, clock: Clock, ids: Ids) -> ObjectStore:
    """``retrying(metered(adapter))``: for everything but the ledger."""
    return RetryingStore(MeteredStore(open_adapter(settings, clock)), clock, ids)


def open_raw(settings: BucketSettings, clock: Clock) -> ObjectStore:
    """``metered(adapter)``: no retries, for the ledger, which settles its own attempts."""
    return MeteredStore(open_adapter(settings, clock))


class Buckets:
    """The buckets of a process, opened on first use; one loop uses them.

    All handles of a bucket share its meter, its breaker and its health. ``get``:
    ``retrying(journaling(guarded(metered(adapter))))``; ``raw``, for the ledger, which settles its
    own attempts: ``journaling(observed(metered(adapter)))``.

    Args:
        failures: gets each failed attempt once.
        resilience: what a bucket in trouble may cost.
        secrets: resolves the buckets' ``secret_ref``; environment, files and AWS Secrets Manager
            if None.

    Raises ``invalid`` for two buckets of one name.
    """

    def __init__(
        self,
        settings: Sequence[BucketSettings],
        clock: Clock,
        ids: Ids,
        failures: FailureSink = _NO_SINK,
        resilience: ResilienceSettings = _RESILIENCE,
        secrets: SecretsProvider | None = None,
    ) -> None:
        self._settings = {one.name: one for one in settings}
        if len(self._settings) != len(settings):
            raise LakehouseError(
                ErrorKind.INVALID, "two buckets have one name", names=[one.name for one in settings]
            )
        self._clock = clock
        self._ids = ids
        self._failures = failures
        self._resilience = resilience
        self._secrets = secrets or all_secrets(os.environ)
        self._meters: dict[str, MeteredStore] = {}
        self._watches: dict[str, BucketWatch] = {}
        self._handles: dict[str, tuple[RetryingStore, JournalingStore]] = {}
        self._closing: set[asyncio.Task[None]] = set()
        self.search: SearchBuckets | None = None

    async def find(self, ctx: Context, names: Iterable[str]) -> None:
        """Take up those of ``names`` that another process of the store added meanwhile, as far as
        ``search`` finds them. Raises what ``search`` raises."""
        unknown = [name for name in names if name not in self._settings]
        if unknown and self.search is not None:
            await self.search(ctx, unknown)

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
        """The bucket with retries, deadlines and breaker. Raises ``not_found``."""
        return self._opened(name)[0]

    def raw(self, name: str) -> ObjectStore:
        """The bucket without retries, deadlines or breaker. Raises ``not_found``."""
        return self._opened(name)[1]

    def unreported(self, name: str) -> ObjectStore:
        """As ``raw``, but what fails goes to the bucket's health alone: for the journal itself.
        Raises ``not_found``."""
        self.settings(name)
        return ObservedStore(self._meter(name), self._watch(name))

    def health(self, name: str) -> BucketHealth:
        """How the bucket fares since it was first used. Raises ``not_found``."""
        self.settings(name)
        return self._watch(name).health()

    def add(self, settings: BucketSettings) -> None:
        """Take up another bucket; the same settings again are no change.

        Raises ``already_exists`` where another bucket has the name, ``invalid`` for a URL that is
        none. Nothing is contacted.
        """
        known = self._settings.get(settings.name)
        if known == settings:
            return
        if known is not None:
            raise LakehouseError(
                ErrorKind.ALREADY_EXISTS, "another bucket has this name", bucket=settings.name
            )
        check_url(settings)
        self._settings[settings.name] = settings

    def trial(self, settings: BucketSettings) -> Buckets:
        """One bucket that is not taken up yet, by itself: with the same bounds and secrets, and
        its failures in no journal. Close it."""
        alone = (settings,)
        return Buckets(
            alone, self._clock, self._ids, resilience=self._resilience, secrets=self._secrets
        )

    def remove(self, name: str) -> None:
        """Give a bucket up: what is under way ends in peace, then its connections are closed.

        Handles of it raise ``not_found`` from now on. Raises ``not_found``.
        """
        self.settings(name)
        del self._settings[name]
        self._handles.pop(name, None)
        watch = self._watches.pop(name, None)
        meter = self._meters.pop(name, None)
        if watch is None:
            return
        watch.removed = True
        if meter is None:
            return
        if watch.users:
            watch.idle = lambda: self._close_later(meter)
        else:
            self._close_later(meter)

    async def try_again(self, name: str) -> None:
        """Ask a bucket that does not answer whether it is back, unless it is too early for that.

        Without this a bucket that nobody asks would be down for ever. It is one attempt, guarded
        and journaled like any other; what comes of it shows in ``health``. Raises ``not_found``.
        """
        self.settings(name)
        watch = self._watch(name)
        troubled = not watch.closed or watch.health().unavailable_since is not None
        if troubled and watch.breaker.wait_seconds(self._clock.monotonic()) <= 0:
            with contextlib.suppress(LakehouseError):
                await self._opened(name)[0].inner.head(STORE_FILE)

    def footprint(self, name: str) -> StoreFootprint:
        """Requests and bytes since start, of all handles together."""
        return self._meter(name).footprint()

    def meter(self, name: str) -> MeteredStore:
        """Who counts the bucket's attempts. Raises ``not_found``."""
        self.settings(name)
        return self._meter(name)

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
        self.settings(name)
        adapter = self._meter(name).inner
        return await adapter.create_bucket() if isinstance(adapter, _Creatable) else False

    async def close(self) -> None:
        """Close every bucket that was opened; idempotent."""
        meters, self._meters = self._meters, {}
        self._handles.clear()
        self._watches.clear()
        for meter in meters.values():
            await meter.close()
        while self._closing:
            await asyncio.wait(self._closing)

    def _opened(self, name: str) -> tuple[RetryingStore, JournalingStore]:
        found = self._handles.get(name)
        if found is None:
            meter, watch = self._meter(name), self._watch(name)
            clock, ids, sink = self._clock, self._ids, self._failures
            guarded = JournalingStore(GuardedStore(meter, watch), watch, sink, clock, ids)
            observed = JournalingStore(ObservedStore(meter, watch), watch, sink, clock, ids)
            found = (RetryingStore(guarded, clock, ids), observed)
            self._handles[name] = found
        return found

    def _watch(self, name: str) -> BucketWatch:
        if name not in self._watches:
            own, common = self._settings[name], self._resilience
            settings = replace(
                common,
                attempt_seconds=own.attempt_seconds or common.attempt_seconds,
                in_flight_max=own.in_flight_max or common.in_flight_max,
            )
            self._watches[name] = BucketWatch(name, self._clock, settings)
        return self._watches[name]

    def _adapter(self, settings: BucketSettings) -> ObjectStore:
        if not settings.secret_ref or settings.credentials is not None:
            return open_adapter(settings, self._clock)
        if check_url(settings).scheme != "s3":
            return open_adapter(settings, self._clock)
        from lakehouse.objectstore.s3 import S3Store

        seconds = self._resilience.secrets_seconds
        return RotatingStore(settings, self._secrets, self._clock, S3Store, seconds)

    def _close_later(self, meter: MeteredStore) -> None:
        task = asyncio.get_running_loop().create_task(meter.close(), name="close of a bucket")
        self._closing.add(task)
        task.add_done_callback(self._closing.discard)

    def _meter(self, name: str) -> MeteredStore:
        if name not in self._meters:
            adapter = self._adapter(self.settings(name))
            self._meters[name] = MeteredStore(adapter, self._clock, name)
        return self._meters[name]


def _url_refused(settings: BucketSettings, why: str) -> LakehouseError:
    # The URL itself is not repeated: it may hold what someone took for a place of credentials.
    return LakehouseError(ErrorKind.INVALID, f"the bucket's url {why}", bucket=settings.name)
