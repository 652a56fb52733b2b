"""Any S3-compatible server as a bucket: obstore moves the data, boto3 lists and administers.

obstore is twice as fast on small objects, but sends no ``max-keys``: a LIST of one key would ask
for a thousand. So LIST goes by boto3. Neither library retries: only the wrapper and the ledger do,
but for the parts of a streamed write, whose chunks are gone by the time a wrapper could.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager
from datetime import timedelta
from typing import TYPE_CHECKING, Any, Final, ParamSpec, Self, TypeVar
from urllib.parse import urlsplit

import boto3
import obstore
from botocore.config import Config
from obstore.auth.boto3 import Boto3CredentialProvider
from obstore.store import S3Store as ObstoreS3

from lakehouse.errors import ErrorKind, LakehouseError
from lakehouse.kit.blocking import run_in
from lakehouse.kit.clock import to_micros
from lakehouse.model.refs import check_key
from lakehouse.objectstore.arguments import (
    LIST_LIMIT_MAX,
    PART_BYTES,
    check_browsing,
    check_listing,
    check_range,
)
from lakehouse.objectstore.deadlines import body_expected
from lakehouse.objectstore.port import ByteRange, Level, ObjectMeta, OpenedObject
from lakehouse.objectstore.s3_errors import Place, translated
from lakehouse.objectstore.s3_listing import Listing, browse_objects, list_objects

if TYPE_CHECKING:
    from obstore import GetOptions
    from obstore.store import ClientConfig

    from lakehouse.objectstore.settings import BucketSettings

P = ParamSpec("P")
R = TypeVar("R")

_CONNECT_SECONDS: Final = 5
_REQUEST_SECONDS: Final = 30
# A silent server holds a thread for so long, and the end of the process with it.
_LIST_SECONDS: Final = 15
# A large object takes as long as it takes, as long as bytes keep coming.
_BULK_SECONDS: Final = 3_600
_THREADS_MAX: Final = 8
_PARTS_AT_ONCE: Final = 4
# An end that no object reaches, and that every server takes.
_ANY_END: Final = 1 << 50
# Of one request of a streamed write: a part sent twice is one part.
_PART_RETRIES: Final = 5
_PART_RETRY_SECONDS: Final = 20


class S3Store:
    """One bucket, or a prefix of it, on an S3-compatible server; path-style addresses.

    Args:
        settings: ``url`` is ``s3://bucket`` or ``s3://bucket/prefix``.

    Raises ``invalid`` for a prefix that could not be a key.
    """

    def __init__(self, settings: BucketSettings) -> None:
        parts = urlsplit(settings.url)
        self._bucket = parts.netloc
        prefix = parts.path.strip("/")
        self._prefix = check_key(prefix) + "/" if prefix else ""
        self._settings = settings
        self._endpoint = settings.endpoint or f"https://s3.{settings.region}.amazonaws.com"
        self._place = Place(settings.name, _host(self._endpoint))
        self._session = _session(settings)
        try:
            # Never obstore's own search: it would mix what the environment holds with our keys.
            self._credentials = Boto3CredentialProvider(self._session)
        except ValueError as error:
            raise LakehouseError(
                ErrorKind.FORBIDDEN,
                "no credentials for the bucket were found",
                bucket=settings.name,
                hint="set secret_ref of the bucket, or the variables of the aws tools",
            ) from error
        self._data = self._obstore({"timeout": timedelta(seconds=_REQUEST_SECONDS)})
        patient: ClientConfig = {
            "timeout": timedelta(seconds=_BULK_SECONDS),
            "read_timeout": timedelta(seconds=2 * _REQUEST_SECONDS),
        }
        self._bulk = self._obstore(patient)
        self._parts = self._obstore(patient, _PART_RETRIES)
        self._lock = threading.Lock()
        self._client: Any = None
        self._threads: ThreadPoolExecutor | None = None

    @property
    def url(self) -> str:
        return f"s3://{self._bucket}/{self._prefix}".rstrip("/")

    @property
    def endpoint(self) -> str:
        """Where requests go."""
        return self._endpoint

    # -- data --------------------------------------------------------------------------------

    async def get(self, key: str, byte_range: ByteRange | None = None) -> bytes:
        path = self._path(key)
        options: GetOptions = {}
        if byte_range is not None:
            check_range(byte_range)
            options["range"] = (byte_range.start, byte_range.end)
        client = self._data
        if byte_range is None or byte_range.end - byte_range.start > PART_BYTES:
            client = self._bulk
        with self._translated("get", key):
            result = await obstore.get_async(client, path, options=options)
            first, end = result.range
            body_expected(end - first)
            data = bytes(await result.bytes_async())
        _check_span(key, byte_range, (first, end), result.meta["size"])
        if len(data) != end - first:
            raise _cut(key, end - first, len(data))
        return data

    async def put(self, key: str, data: bytes, *, if_absent: bool = False) -> ObjectMeta:
        path = self._path(key)
        client = self._data if len(data) <= PART_BYTES else self._bulk
        with self._translated("put", key):
            done = await obstore.put_async(
                client,
                path,
                data,
                mode="create" if if_absent else "overwrite",
                use_multipart=False,
            )
        return ObjectMeta(key, len(data), done["e_tag"] or "")

    async def head(self, key: str) -> ObjectMeta:
        path = self._path(key)
        with self._translated("head", key):
            meta = await obstore.head_async(self._data, path)
        return _meta(key, meta)

    async def delete(self, keys: Sequence[str]) -> None:
        paths = [self._path(key) for key in keys]
        for at in range(0, len(paths), LIST_LIMIT_MAX):
            some = paths[at : at + LIST_LIMIT_MAX]
            with self._translated("delete", keys[at]):
                await obstore.delete_async(self._data, some)

    async def list(
        self, prefix: str = "", *, start_after: str = "", limit: int = 1000
    ) -> list[ObjectMeta]:
        check_listing(prefix, start_after, limit)
        with self._translated("list", prefix):
            client = await self._run(self._boto)
            asked = Listing(self._bucket, self._prefix, prefix, start_after, limit)
            return await self._run(list_objects, client, asked)

    async def stream(self, key: str) -> AsyncIterator[bytes]:
        async for chunk in (await self.open(key)).chunks:
            yield chunk

    async def open(self, key: str, byte_range: ByteRange | None = None) -> OpenedObject:
        path = self._path(key)
        options: GetOptions = {}
        if byte_range is not None:
            check_range(byte_range)
            options["range"] = (byte_range.start, min(byte_range.end, _ANY_END))
        with self._translated("get", key):
            result = await obstore.get_async(self._bulk, path, options=options)
            first, end = result.range
        _check_span(key, byte_range, (first, end), result.meta["size"])
        return OpenedObject(_meta(key, result.meta), first, end, self._chunks(key, result))

    async def browse(
        self, prefix: str = "", *, after: str = "", limit: int = 1000, folders: bool = False
    ) -> Level:
        check_browsing(prefix, limit)
        with self._translated("list", prefix):
            client = await self._run(self._boto)
            asked = Listing(self._bucket, self._prefix, prefix, after, limit)
            return await self._run(browse_objects, client, asked, folders)

    async def _chunks(self, key: str, result: obstore.GetResult) -> AsyncIterator[bytes]:
        wanted, got = result.range[1] - result.range[0], 0
        chunks = result.stream(min_chunk_size=1024 * 1024).__aiter__()
        while True:
            # Not around the yield: what the reader raises is not ours to translate.
            with self._translated("get", key):
                try:
                    chunk = bytes(await chunks.__anext__())
                except StopAsyncIteration:
                    break
            got += len(chunk)
            yield chunk
        if got != wanted:
            raise _cut(key, wanted, got)

    async def put_stream(self, key: str, chunks: AsyncIterator[bytes]) -> ObjectMeta:
        path = self._path(key)
        source = _Source(chunks)
        first = await source.take(PART_BYTES)
        if len(first) < PART_BYTES:
            return await self.put(key, first)
        upload = asyncio.ensure_future(self._upload(path, source))
        try:
            with self._translated("put", key):
                done = await asyncio.shield(upload)
        except asyncio.CancelledError:
            # Ended by its source, an upload aborts itself; dropped, its parts would stay.
            source.stop()
            await asyncio.wait([upload], timeout=_CONNECT_SECONDS)
            raise
        except LakehouseError as error:
            if source.failure is not None:
                raise source.failure from None
            if error.kind is ErrorKind.NOT_FOUND and error.fields.get("what") != "bucket":
                # The upload is gone: ended by others, or completed by a request whose answer
                # was lost.
                raise LakehouseError(
                    ErrorKind.UNKNOWN,
                    "the outcome of the write is not known: its upload is gone",
                    key=key,
                ) from error
            raise
        return ObjectMeta(key, source.size_bytes, done["e_tag"] or "")

    # -- administration ----------------------------------------------------------------------

    async def bucket_exists(self) -> bool:
        """Whether the bucket is there. Raises ``forbidden`` where that may not be asked."""
        client = await self._run(self._boto)
        try:
            with self._translated("head_bucket", ""):
                await self._run(client.head_bucket, Bucket=self._bucket)
        except LakehouseError as error:
            if error.kind is ErrorKind.NOT_FOUND:
                return False
            raise
        return True

    async def create_bucket(self) -> bool:
        """Make the bucket if it is not there; whether it was made."""
        if await self.bucket_exists():
            return False
        client = await self._run(self._boto)
        place: dict[str, Any] = {}
        if not self._settings.endpoint and self._settings.region != "us-east-1":
            place["CreateBucketConfiguration"] = {"LocationConstraint": self._settings.region}
        with self._translated("create_bucket", ""):
            await self._run(client.create_bucket, Bucket=self._bucket, **place)
        return True

    async def close(self) -> None:
        """Close boto3's connections; obstore closes its own when it is collected."""
        if self._client is not None:
            self._client.close()
            self._client = None
        if self._threads is not None:
            self._threads.shutdown(wait=False)
            self._threads = None

    # -- inside ------------------------------------------------------------------------------

    async def _upload(self, path: str, source: _Source) -> obstore.PutResult:
        return await obstore.put_async(
            self._parts,
            path,
            source,
            use_multipart=True,
            chunk_size=PART_BYTES,
            max_concurrency=_PARTS_AT_ONCE,
        )

    def _translated(self, operation: str, key: str) -> AbstractContextManager[None]:
        return translated(operation, key, self._place)

    def _path(self, key: str) -> str:
        return self._prefix + check_key(key)

    async def _run(self, function: Callable[P, R], *args: P.args, **kwargs: P.kwargs) -> R:
        if self._threads is None:
            self._threads = ThreadPoolExecutor(_THREADS_MAX, thread_name_prefix="s3-store")
        threads = self._threads
        try:
            return await run_in(threads, function, *args, **kwargs)
        except asyncio.CancelledError:
            # Given up by its caller, the call still holds its thread, for as long as the server is
            # silent: what comes next must not wait behind it.
            if self._threads is threads:
                self._threads = None
                threads.shutdown(wait=False)
            raise

    def _boto(self) -> Any:
        with self._lock:
            if self._client is None:
                self._client = self._session.client(
                    "s3",
                    endpoint_url=self._endpoint,
                    config=Config(
                        retries={"total_max_attempts": 1, "mode": "standard"},
                        connect_timeout=_CONNECT_SECONDS,
                        read_timeout=_LIST_SECONDS,
                        max_pool_connections=_THREADS_MAX,
                        s3={"addressing_style": "path"},
                        request_checksum_calculation="when_required",
                        response_checksum_validation="when_required",
                    ),
                )
                self._client.meta.events.register("before-call.s3", _stay)
            return self._client

    def _obstore(self, timeouts: ClientConfig, retries: int = 0) -> ObstoreS3:
        return ObstoreS3(
            self._bucket,
            endpoint=self._endpoint,
            region=self._settings.region,
            virtual_hosted_style_request=False,
            credential_provider=self._credentials,
            client_options={
                "allow_http": self._endpoint.startswith("http://"),
                "connect_timeout": timedelta(seconds=_CONNECT_SECONDS),
                **timeouts,
            },
            retry_config={
                "max_retries": retries,
                "retry_timeout": timedelta(seconds=_PART_RETRY_SECONDS),
                "backoff": {
                    "init_backoff": timedelta(milliseconds=100),
                    "max_backoff": timedelta(seconds=3),
                },
            },
        )


class _Source:
    """The chunks of a streamed write: counted, and stopped or failed in a way one can tell."""

    def __init__(self, chunks: AsyncIterator[bytes]) -> None:
        self._chunks = chunks
        self._held: list[bytes] = []
        self._pull: asyncio.Future[bytes] | None = None
        self._stopped = False
        self.size_bytes = 0
        self.failure: Exception | None = None

    async def take(self, size_bytes: int) -> bytes:
        """The first ``size_bytes`` or more, or all there is; iteration gives them again."""
        size = 0
        async for chunk in self._chunks:
            self._held.append(chunk)
            size += len(chunk)
            if size >= size_bytes:
                break
        return b"".join(self._held)

    def stop(self) -> None:
        """Let the iteration end in an error, now."""
        self._stopped = True
        if self._pull is not None:
            self._pull.cancel()

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> bytes:
        if self._stopped:
            raise asyncio.CancelledError
        if self._held:
            chunk = self._held.pop(0)
        else:
            self._pull = asyncio.ensure_future(anext(self._chunks))
            try:
                chunk = await self._pull
            except StopAsyncIteration:
                raise
            except Exception as error:
                self.failure = error
                raise
        self.size_bytes += len(chunk)
        return chunk


def _meta(key: str, found: obstore.ObjectMeta) -> ObjectMeta:
    return ObjectMeta(key, found["size"], found["e_tag"] or "", to_micros(found["last_modified"]))


def _check_span(key: str, asked: ByteRange | None, got: tuple[int, int], size: int) -> None:
    """Raise ``corrupt`` for an answer that is of another range than was asked for."""
    wanted = (asked.start, min(asked.end, size)) if asked else (0, size)
    if got != wanted:
        raise _cut(key, wanted[1] - wanted[0], got[1] - got[0])


def _host(endpoint: str) -> str:
    """Host and port alone: a URL may hold what is nobody's business."""
    parts = urlsplit(endpoint if "//" in endpoint else "//" + endpoint)
    return parts.netloc.rpartition("@")[2]


def _stay(params: dict[str, Any], **_: Any) -> None:
    """Keep boto3 from going after a redirect: it asks the server which region is right, and where
    that is one more redirect it goes round until Python's stack ends."""
    params["context"].setdefault("s3_redirect", {})["redirected"] = True


def _session(settings: BucketSettings) -> boto3.Session:
    keys = settings.credentials
    if keys is None:
        return boto3.Session(region_name=settings.region)
    return boto3.Session(
        aws_access_key_id=keys.access_key_id,
        aws_secret_access_key=keys.secret_access_key,
        aws_session_token=keys.session_token or None,
        region_name=settings.region,
    )


def _cut(key: str, wanted: int, got: int) -> LakehouseError:
    return LakehouseError(
        ErrorKind.CORRUPT,
        "the object store's answer has another length than it says",
        key=key,
        wanted=wanted,
        got=got,
        truncated=True,
    )
