"""The objects contract over the configured buckets: no state but what the buckets hold."""

from __future__ import annotations

import asyncio
import base64
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from dataclasses import replace
from http import HTTPStatus
from typing import Final, Protocol

from lakehouse.contracts.inventory import (
    ObjectStanding,
    ObjectStatesRequest,
    ObjectStatesResult,
)
from lakehouse.contracts.objects import (
    Conditions,
    DeleteObjectRequest,
    DeleteObjectResult,
    GetObjectRequest,
    ListObjectsRequest,
    ListObjectsResult,
    ObjectHeader,
    ObjectInfo,
    ObjectStream,
    PutObjectRequest,
    PutObjectResult,
    StatObjectRequest,
)
from lakehouse.errors import ErrorKind, LakehouseError
from lakehouse.kit.clock import Clock, to_datetime
from lakehouse.model.identity import Context, Scope
from lakehouse.model.refs import ObjectRef, check_foreign_key, check_key, is_owned
from lakehouse.objectstore.arguments import FAR, PART_BYTES
from lakehouse.objectstore.buckets import Buckets
from lakehouse.objectstore.port import (
    Browsing,
    ByteRange,
    Level,
    ObjectMeta,
    ObjectStore,
    OpenedObject,
    PinnedReads,
    StreamingWrites,
)
from lakehouse.storaged.conditions import check_span, is_not_modified, sized, unsized
from lakehouse.storaged.intake import Check, Intake, Share, Waiting

_RACES_MAX: Final = 5
# Each takes up to 64 MiB of memory: parts under way, or a conditional body that is not yet whole.
_LARGE_AT_ONCE: Final = 32
# Of bodies that are small or have yet to show that they are not, all together.
_WAITING_BYTES_MAX: Final = 256 << 20


class Inventory(Protocol):
    """Which objects datasets name; the catalog."""

    async def object_states(
        self, ctx: Context, request: ObjectStatesRequest
    ) -> ObjectStatesResult: ...


class Objects:
    """Implements ``contracts.objects.ObjectsService``."""

    def __init__(self, buckets: Buckets, inventory: Inventory, clock: Clock) -> None:
        self._buckets = buckets
        self._inventory = inventory
        self._clock = clock
        self._large = 0
        self._waiting = Waiting(_WAITING_BYTES_MAX)

    async def list(self, ctx: Context, request: ListObjectsRequest) -> ListObjectsResult:
        ctx.require(Scope.READ)
        if request.delimiter not in ("", "/"):
            raise LakehouseError(
                ErrorKind.INVALID,
                "the delimiter is a slash or nothing",
                value=request.delimiter[:80],
            )
        all_seen = ctx.principal.allows(Scope.OPERATOR)
        if is_owned(request.prefix + "x"):
            ctx.require(Scope.OPERATOR)
        store = self._buckets.get(request.bucket)
        assert isinstance(store, Browsing)
        async with self._in_time(ctx):
            level = await store.browse(
                request.prefix,
                after=_position(request.cursor),
                limit=request.limit,
                folders=request.delimiter == "/",
            )
        return _page(request.bucket, level if all_seen else _without_owned(level))

    async def stat(self, ctx: Context, request: StatObjectRequest) -> ObjectHeader:
        store = self._readable(ctx, request.bucket, request.key)
        async with self._in_time(ctx):
            info = _info(request.bucket, await store.head(request.key))
        same = is_not_modified(request.conditions, info)
        return ObjectHeader(info, 0, 0 if same else info.size_bytes, not_modified=same)

    async def get(self, ctx: Context, request: GetObjectRequest) -> ObjectStream:
        store = self._readable(ctx, request.bucket, request.key)
        if request.range is not None:
            check_span(request.range)
        async with self._in_time(ctx):
            for _ in range(_RACES_MAX):
                stream = await _read(store, request)
                if stream is not None:
                    return stream
        raise LakehouseError(
            ErrorKind.UNAVAILABLE, "the object keeps being replaced", key=request.key
        )

    async def put(
        self, ctx: Context, request: PutObjectRequest, body: AsyncIterator[bytes]
    ) -> PutObjectResult:
        ctx.require(Scope.WRITE)
        key = check_foreign_key(request.key)
        store = self._buckets.get(request.bucket)
        share = Share(self._waiting)
        intake = Intake(self._until_deadline(ctx, share.count(body)), request)
        blocks = intake.blocks(self._unnamed(ctx, request))
        replayed = False
        try:
            await self._unnamed(ctx, request)()
            held, large = await _first(blocks)
            with self._room(large):
                if large:
                    share.end()
                if request.if_absent:
                    data = b"".join([block async for block in _chained(held, blocks)])
                    meta, replayed = await _put_absent(store, key, data, ctx.idempotency_key)
                elif large:
                    assert isinstance(store, StreamingWrites)
                    meta = await store.put_stream(key, _chained(held, blocks))
                else:
                    # By one request, which can be repeated.
                    meta = await store.put(key, b"".join(held))
        finally:
            # One that is still asked for ends with its body.
            with suppress(RuntimeError):
                await blocks.aclose()
            share.end()
        meta = await _with_etag(store, replace(meta, size_bytes=intake.size_bytes))
        info = replace(_info(request.bucket, meta), size_bytes=intake.size_bytes)
        return PutObjectResult(info, intake.sha256, replayed)

    async def delete(self, ctx: Context, request: DeleteObjectRequest) -> DeleteObjectResult:
        ctx.require(Scope.WRITE)
        key = check_foreign_key(request.key)
        store = self._buckets.get(request.bucket)
        async with self._in_time(ctx):
            await self._refuse_named(ctx, ObjectRef(request.bucket, key))
            await store.delete([key])
        return DeleteObjectResult(request.bucket, key)

    def _readable(self, ctx: Context, bucket: str, key: str) -> ObjectStore:
        ctx.require(Scope.READ)
        if is_owned(check_key(key)):
            ctx.require(Scope.OPERATOR)
        return self._buckets.get(bucket)

    def _unnamed(self, ctx: Context, request: PutObjectRequest) -> Check:
        """Asked before a body comes, and when all of it has: a large one takes its time."""

        async def check() -> None:
            if not request.if_absent:
                await self._refuse_named(ctx, ObjectRef(request.bucket, request.key))

        return check

    @contextmanager
    def _room(self, large: bool) -> Iterator[None]:
        """Raise ``exhausted`` where as many large bodies as may be are under way."""
        if large and self._large == _LARGE_AT_ONCE:
            raise LakehouseError(
                ErrorKind.EXHAUSTED,
                "too many large objects are being stored",
                at_once=_LARGE_AT_ONCE,
                retry_after_seconds=5,
            )
        self._large += large
        try:
            yield
        finally:
            self._large -= large

    async def _refuse_named(self, ctx: Context, ref: ObjectRef) -> None:
        """Raise ``conflict`` for an object that a dataset reads in place."""
        found = await self._inventory.object_states(ctx, ObjectStatesRequest((ref,)))
        state = found.states[0]
        if state.standing is not ObjectStanding.GIVEN_UP:
            told = state.dataset and ctx.principal.allows(Scope.READ)
            raise LakehouseError(
                ErrorKind.CONFLICT,
                "a dataset names this object, so it must stay as it is",
                bucket=ref.bucket,
                key=ref.key,
                **({"dataset": state.dataset} if told else {}),
                hint="use another key; or register it anew with copy, or purge the dataset, and"
                " wait until no version that is kept names it",
            )

    @asynccontextmanager
    async def _in_time(self, ctx: Context) -> AsyncIterator[None]:
        left = None if ctx.deadline is None else ctx.deadline - self._clock.monotonic()
        try:
            async with asyncio.timeout(left):
                yield
        except TimeoutError as error:
            raise LakehouseError(
                ErrorKind.TIMEOUT, "the bucket did not answer before the deadline"
            ) from error

    async def _until_deadline(
        self, ctx: Context, body: AsyncIterator[bytes]
    ) -> AsyncIterator[bytes]:
        async for chunk in body:
            if ctx.deadline is not None and self._clock.monotonic() > ctx.deadline:
                raise LakehouseError(
                    ErrorKind.TIMEOUT,
                    "the deadline passed while the body came",
                    hint="nothing was stored; give it more time",
                )
            yield chunk


async def _read(store: ObjectStore, request: GetObjectRequest) -> ObjectStream | None:
    """The answer; None if the object was replaced while it was made up."""
    info, wanted, span = None, request.range, None
    if request.conditions != Conditions() or request.if_range or (wanted and not unsized(wanted)):
        info = _info(request.bucket, await store.head(request.key))
        if is_not_modified(request.conditions, info):
            return ObjectStream(ObjectHeader(info, 0, 0, not_modified=True), _nothing())
        if wanted and request.if_range and request.if_range != info.etag:
            wanted = None
        span = sized(wanted, info.size_bytes) if wanted else None
    elif wanted is not None:
        span = unsized(wanted)
    opened = await _opened(store, request, span)
    found = _info(request.bucket, opened.meta)
    if info is not None and (info.etag, info.size_bytes) != (found.etag, found.size_bytes):
        return None
    header = ObjectHeader(found, opened.start, opened.end, partial=span is not None)
    return ObjectStream(header, opened.chunks)


async def _opened(
    store: ObjectStore, request: GetObjectRequest, span: ByteRange | None
) -> OpenedObject:
    assert isinstance(store, PinnedReads)
    try:
        return await store.open(request.key, span)
    except LakehouseError as error:
        if error.kind is ErrorKind.INVALID and request.range is not None:
            # Most likely past the end; then it is said how large the object is.
            sized(request.range, (await store.head(request.key)).size_bytes)
        raise


async def _first(blocks: AsyncIterator[bytes]) -> tuple[list[bytes], bool]:
    """Blocks up to a part's size or a little more, and whether there are more (or may be)."""
    held: list[bytes] = []
    while sum(map(len, held)) <= PART_BYTES:
        block = await anext(blocks, None)
        if block is None:
            return held, False
        held.append(block)
    return held, True


async def _with_etag(store: ObjectStore, meta: ObjectMeta) -> ObjectMeta:
    """Some servers tell the etag of a body in parts only when they are asked."""
    if not meta.etag:
        with suppress(LakehouseError):
            found = await store.head(meta.key)
            return found if found.size_bytes == meta.size_bytes else meta
    return meta


async def _chained(held: list[bytes], blocks: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    while held:
        yield held.pop(0)
    async for block in blocks:
        yield block


async def _put_absent(
    store: ObjectStore, key: str, data: bytes, idempotency_key: str | None
) -> tuple[ObjectMeta, bool]:
    """What was put, and whether it had been before. The key makes a call and its repetition one."""
    try:
        return await store.put(key, data, if_absent=True), False
    except LakehouseError as error:
        if error.kind is not ErrorKind.ALREADY_EXISTS:
            raise
        if idempotency_key is not None:
            meta = await store.head(key)
            if meta.size_bytes == len(data) and await store.get(key) == data:
                return meta, True
        error.fields["http_status"] = HTTPStatus.PRECONDITION_FAILED.value
        raise


def _info(bucket: str, meta: ObjectMeta) -> ObjectInfo:
    modified = to_datetime(meta.modified_us) if meta.modified_us else None
    etag = meta.etag.removeprefix("W/").strip('"')
    return ObjectInfo(bucket, meta.key, meta.size_bytes, etag, modified)


def _page(bucket: str, level: Level) -> ListObjectsResult:
    objects = tuple(_info(bucket, meta) for meta in level.objects)
    return ListObjectsResult(objects, level.folders, _cursor(level.next))


def _without_owned(level: Level) -> Level:
    objects = tuple(meta for meta in level.objects if not is_owned(meta.key))
    folders = tuple(name for name in level.folders if not is_owned(name))
    after = level.next
    if is_owned(after) and "/" in after:
        # What is left of it need not be gone through page by page.
        after = after.partition("/")[0] + "/" + FAR
    return Level(objects, folders, after)


def _cursor(position: str) -> str:
    return base64.urlsafe_b64encode(position.encode()).decode() if position else ""


def _position(cursor: str) -> str:
    try:
        return base64.b64decode(cursor, b"-_", validate=True).decode()
    except ValueError:
        raise LakehouseError(
            ErrorKind.INVALID, "this is no cursor of a list", cursor=ascii(cursor[:80])[1:-1]
        ) from None


async def _nothing() -> AsyncIterator[bytes]:
    empty: tuple[bytes, ...] = ()
    for chunk in empty:
        yield chunk
