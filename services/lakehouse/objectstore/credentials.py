"""A bucket's keys from its secret reference, exchanged while it runs."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import replace
from typing import Final, Protocol, TypeVar
from urllib.parse import urlsplit

from lakehouse.errors import ErrorKind, LakehouseError
from lakehouse.kit.blocking import run_in
from lakehouse.kit.clock import Clock
from lakehouse.kit.secrets import Secret, SecretsProvider, conceal
from lakehouse.objectstore.answers import StoreError
from lakehouse.objectstore.port import (
    Browsing,
    ByteRange,
    Level,
    ObjectMeta,
    ObjectStore,
    OpenedObject,
    PinnedReads,
    StreamingReads,
    StreamingWrites,
)
from lakehouse.objectstore.settings import BucketSettings, S3Credentials

R = TypeVar("R")

log = logging.getLogger(__name__)

# What a server says of keys that are no keys of it any more, or not yet. The answer to a HEAD has
# no body, so no code: "", or the status.
_KEYS_REFUSED: Final = frozenset(
    {"", "403", "ExpiredToken", "InvalidAccessKeyId", "InvalidToken", "SignatureDoesNotMatch"}
)
# Mostly it is about what the keys may do; but Ceph says it of keys that it is just forgetting, too.
_DENIED: Final = "AccessDenied"
# After a refusal for which no other keys were found, none leads to another look for so long.
_AGAIN_SECONDS: Final = 1.0
_AGAIN_DENIED_SECONDS: Final = 10.0


def parse_credentials(secret: Secret, bucket: str) -> S3Credentials:
    """The keys in a secret that is ``{"access_key_id": .., "secret_access_key": ..}``, with
    ``session_token`` if there is one; conceals them. Raises ``invalid``."""
    try:
        body = json.loads(secret.reveal())
        found = S3Credentials(
            body["access_key_id"], body["secret_access_key"], body.get("session_token") or ""
        )
        texts = (found.access_key_id, found.secret_access_key, found.session_token)
        if not all(isinstance(text, str) for text in texts):
            raise TypeError
    except (ValueError, KeyError, TypeError, AttributeError):
        # The cause is left out: its text holds the secret.
        raise LakehouseError(
            ErrorKind.INVALID,
            "a bucket's secret is not the JSON it should be",
            bucket=bucket,
            hint='{"access_key_id": "...", "secret_access_key": "..."}',
        ) from None
    conceal(found.secret_access_key, found.session_token)
    return found


class _Store(ObjectStore, StreamingReads, StreamingWrites, PinnedReads, Browsing, Protocol):
    """What an S3 adapter is."""

    async def bucket_exists(self) -> bool: ...

    async def create_bucket(self) -> bool: ...


class _Generation:
    """An adapter with one set of keys; it is closed when nobody uses it and another follows."""

    def __init__(self, store: _Store, keys: S3Credentials) -> None:
        self.store = store
        self.keys = keys
        self._users = 0
        self._retired = False
        self._closing: asyncio.Task[None] | None = None

    @contextmanager
    def used(self) -> Iterator[_Store]:
        self._users += 1
        try:
            yield self.store
        finally:
            self._users -= 1
            self._close_if_idle()

    def retire(self) -> None:
        self._retired = True
        self._close_if_idle()

    def _close_if_idle(self) -> None:
        if self._retired and not self._users and self._closing is None:
            self._closing = asyncio.ensure_future(self.store.close())


class RotatingStore:
    """The adapter of a bucket whose keys come from a secret reference.

    The reference is resolved at the first request, every ``seconds`` of traffic, and when the
    server refuses the keys. Other keys than before make another adapter; what is under way ends on
    the one it began on. A request whose keys were refused, and are others by now, fails as
    ``unavailable``: nothing was done, the next attempt has the new ones.

    Args:
        opening: makes the adapter of settings whose ``credentials`` are set.
        seconds: 0 resolves again only on refusals.
    """

    def __init__(
        self,
        settings: BucketSettings,
        secrets: SecretsProvider,
        clock: Clock,
        opening: Callable[[BucketSettings], _Store],
        seconds: float,
    ) -> None:
        self._settings = settings
        self._secrets = secrets
        self._clock = clock
        self._opening = opening
        self._seconds = seconds
        self._generation: _Generation | None = None
        self._looking: asyncio.Task[None] | None = None
        self._looked_at = self._in_vain_at = float("-inf")
        self._threads: ThreadPoolExecutor | None = None

    @property
    def url(self) -> str:
        parts = urlsplit(self._settings.url)
        return f"s3://{parts.netloc}/{parts.path.strip('/')}".rstrip("/")

    async def get(self, key: str, byte_range: ByteRange | None = None) -> bytes:
        return await self._with(lambda store: store.get(key, byte_range))

    async def put(self, key: str, data: bytes, *, if_absent: bool = False) -> ObjectMeta:
        return await self._with(lambda store: store.put(key, data, if_absent=if_absent))

    async def head(self, key: str) -> ObjectMeta:
        return await self._with(lambda store: store.head(key))

    async def delete(self, keys: Sequence[str]) -> None:
        await self._with(lambda store: store.delete(keys))

    async def list(
        self, prefix: str = "", *, start_after: str = "", limit: int = 1000
    ) -> list[ObjectMeta]:
        return await self._with(
            lambda store: store.list(prefix, start_after=start_after, limit=limit)
        )

    async def browse(
        self, prefix: str = "", *, after: str = "", limit: int = 1000, folders: bool = False
    ) -> Level:
        return await self._with(
            lambda store: store.browse(prefix, after=after, limit=limit, folders=folders)
        )

    async def open(self, key: str, byte_range: ByteRange | None = None) -> OpenedObject:
        generation = await self._current()
        opened = await self._on(generation, lambda store: store.open(key, byte_range))
        return replace(opened, chunks=_held(generation, opened.chunks))

    async def stream(self, key: str) -> AsyncIterator[bytes]:
        generation = await self._current()
        with generation.used() as store:
            chunks = store.stream(key)
            first = await self._on(generation, lambda _: anext(chunks, None))
            if first is not None:
                yield first
                async for chunk in chunks:
                    yield chunk

    async def put_stream(self, key: str, chunks: AsyncIterator[bytes]) -> ObjectMeta:
        return await self._with(lambda store: store.put_stream(key, chunks))

    async def bucket_exists(self) -> bool:
        """As the adapter's."""
        return await self._with(lambda store: store.bucket_exists())

    async def create_bucket(self) -> bool:
        """As the adapter's."""
        return await self._with(lambda store: store.create_bucket())

    async def close(self) -> None:
        looking, generation, threads = self._looking, self._generation, self._threads
        self._looking = self._generation = self._threads = None
        if looking is not None:
            looking.cancel()
            await asyncio.gather(looking, return_exceptions=True)
        if generation is not None:
            await generation.store.close()
        if threads is not None:
            threads.shutdown(wait=False)

    # -- keys --------------------------------------------------------------------------------

    async def _with(self, call: Callable[[_Store], Awaitable[R]]) -> R:
        return await self._on(await self._current(), call)

    async def _on(self, generation: _Generation, call: Callable[[_Store], Awaitable[R]]) -> R:
        with generation.used() as store:
            try:
                return await call(store)
            except LakehouseError as error:
                pause = _pause_after(error)
                if pause is not None and await self._exchanged(generation, pause):
                    raise _exchanged_meanwhile(self._settings.name, error) from error
                raise

    async def _current(self) -> _Generation:
        """The newest adapter; the first one only after its keys were found."""
        if self._generation is None:
            await self._look()
            assert self._generation is not None
        elif self._seconds and self._clock.monotonic() - self._looked_at > self._seconds:
            # Nobody waits for that: the keys that are there are as good as they were.
            self._look_now()
        return self._generation

    async def _exchanged(self, refused: _Generation, pause: float) -> bool:
        """Whether there are other keys by now than those that were refused; looks for them unless
        it was in vain less than ``pause`` seconds ago."""
        if self._generation is not refused:
            return True
        if self._clock.monotonic() - self._in_vain_at > pause:
            with suppress(LakehouseError):
                await self._look()
            if self._generation is refused:
                self._in_vain_at = self._clock.monotonic()
        return self._generation is not refused

    async def _look(self) -> None:
        # Many may wait for one look; who goes away does not end it.
        await asyncio.shield(self._look_now())

    def _look_now(self) -> asyncio.Task[None]:
        if self._looking is None:
            self._looked_at = self._clock.monotonic()
            self._looking = asyncio.get_running_loop().create_task(
                self._resolve(), name="keys of a bucket"
            )
            self._looking.add_done_callback(self._looked)
        return self._looking

    def _looked(self, task: asyncio.Task[None]) -> None:
        self._looking = None
        if not task.cancelled() and (error := task.exception()) is not None:
            log.warning(
                "the keys of a bucket could not be resolved",
                extra={"bucket": self._settings.name, "reason": str(error)},
            )

    async def _resolve(self) -> None:
        if self._threads is None:
            # Of its own: where secrets are kept may be as slow as a bucket.
            self._threads = ThreadPoolExecutor(1, thread_name_prefix="bucket-keys")
        settings = self._settings
        try:
            keys = await run_in(self._threads, self._keys)
        except LakehouseError as error:
            raise _unresolved(settings.name, error) from error
        before = self._generation
        if before is not None and before.keys == keys:
            return
        self._generation = _Generation(self._opening(replace(settings, credentials=keys)), keys)
        if before is not None:
            before.retire()
            log.info("the keys of a bucket were exchanged", extra={"bucket": settings.name})

    def _keys(self) -> S3Credentials:
        settings = self._settings
        return parse_credentials(self._secrets.resolve(settings.secret_ref), settings.name)


async def _held(generation: _Generation, chunks: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    with generation.used():
        async for chunk in chunks:
            yield chunk


def _pause_after(error: LakehouseError) -> float | None:
    """How long after a look in vain another is worth it; None if the error is not about keys."""
    if not isinstance(error, StoreError) or error.status not in (400, 401, 403):
        return None
    code = str(error.fields.get("code", ""))
    if code == _DENIED:
        return _AGAIN_DENIED_SECONDS
    return _AGAIN_SECONDS if code in _KEYS_REFUSED and (code or error.status != 400) else None


def _exchanged_meanwhile(bucket: str, error: LakehouseError) -> StoreError:
    exchanged = StoreError(
        ErrorKind.UNAVAILABLE,
        "the bucket's keys were refused, and exchanged for others meanwhile",
        bucket=bucket,
        retry_after_seconds=1,
        hint="send the request again",
    )
    exchanged.refused = True
    if isinstance(error, StoreError):
        exchanged.status, exchanged.request_id = error.status, error.request_id
    return exchanged


def _unresolved(bucket: str, error: LakehouseError) -> StoreError:
    """Never ``not_found``, which would speak of the object that was asked for."""
    kind = ErrorKind.FORBIDDEN
    if error.kind in (ErrorKind.UNAVAILABLE, ErrorKind.TIMEOUT):
        kind = ErrorKind.UNAVAILABLE
    failure = StoreError(
        kind,
        "the keys of the bucket could not be resolved",
        **(error.fields | {"bucket": bucket, "cause": error.message}),
    )
    failure.sent = False
    return failure
