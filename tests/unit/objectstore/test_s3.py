"""The S3 adapter against scripted servers: what each answer means, and what is asked."""

from __future__ import annotations

import asyncio
import socket
import time
from collections.abc import AsyncIterator, Iterator

import pytest

from lakehouse.errors import ErrorKind, LakehouseError
from lakehouse.kit.clock import SystemClock
from lakehouse.objectstore import s3
from lakehouse.objectstore.buckets import BucketSettings, S3Credentials
from lakehouse.objectstore.port import ByteRange
from lakehouse.objectstore.retrying import RetryingStore
from lakehouse.objectstore.s3 import S3Store
from lakehouse.testing.clocks import SeededIds
from support_peer import Peer, serving


@pytest.fixture(scope="module")
def shared() -> Iterator[Peer]:
    with serving(Peer()) as peer:
        yield peer


@pytest.fixture
def peer(shared: Peer) -> Peer:
    shared.script.clear()
    shared.requests.clear()
    shared.objects.clear()
    shared.uploads.clear()
    return shared


@pytest.fixture(scope="module")
def shared_store(shared: Peer) -> Iterator[S3Store]:
    # One for all: boto3 takes a tenth of a second to make a client.
    store = S3Store(shared.settings())
    yield store
    asyncio.run(store.close())


@pytest.fixture
def store(peer: Peer, shared_store: S3Store) -> S3Store:
    return shared_store


async def kind_of(store: S3Store, operation: str) -> LakehouseError:
    calls = {
        "get": lambda: store.get("key"),
        "put": lambda: store.put("key", b"x", if_absent=True),
        "head": lambda: store.head("key"),
        "list": lambda: store.list(limit=1),
        "delete": lambda: store.delete(["key"]),
    }
    with pytest.raises(LakehouseError) as caught:
        await calls[operation]()
    assert caught.value.__cause__ is not None
    assert "peer-secret-key" not in repr(caught.value.fields)
    return caught.value


@pytest.mark.parametrize(
    ("status", "code", "kind"),
    [
        (400, "InvalidRequest", ErrorKind.INVALID),
        (400, "RequestTimeout", ErrorKind.TIMEOUT),
        (400, "ExpiredToken", ErrorKind.FORBIDDEN),
        (401, "", ErrorKind.FORBIDDEN),
        (403, "AccessDenied", ErrorKind.FORBIDDEN),
        (403, "SignatureDoesNotMatch", ErrorKind.FORBIDDEN),
        (404, "NoSuchKey", ErrorKind.NOT_FOUND),
        (405, "MethodNotAllowed", ErrorKind.INVALID),
        (408, "", ErrorKind.TIMEOUT),
        (429, "TooManyRequests", ErrorKind.EXHAUSTED),
        (500, "InternalError", ErrorKind.UNAVAILABLE),
        (501, "NotImplemented", ErrorKind.INVALID),
        (502, "", ErrorKind.UNAVAILABLE),
        (503, "SlowDown", ErrorKind.UNAVAILABLE),
        (503, "", ErrorKind.UNAVAILABLE),
        (504, "", ErrorKind.TIMEOUT),
        (507, "", ErrorKind.EXHAUSTED),
    ],
)
@pytest.mark.parametrize("operation", ["get", "put", "list", "delete"])
async def test_answers_become_kinds(
    store: S3Store, peer: Peer, operation: str, status: int, code: str, kind: ErrorKind
) -> None:
    peer.script.append((status, code, b""))
    error = await kind_of(store, operation)
    assert error.kind is kind
    assert error.fields["s3_status"] == status
    assert len(peer.requests) == 1, "neither library may retry"


@pytest.mark.parametrize("operation", ["get", "put", "list", "delete"])
async def test_a_bucket_elsewhere_is_invalid_and_says_why(
    store: S3Store, peer: Peer, operation: str
) -> None:
    peer.script.append((301, "PermanentRedirect", b""))
    error = await kind_of(store, operation)
    assert error.kind is ErrorKind.INVALID
    assert "another region" in str(error.fields["hint"])


@pytest.mark.parametrize(("status", "code"), [(409, "ConditionalRequestConflict"), (412, "")])
async def test_both_refusals_of_a_condition_are_already_exists(
    store: S3Store, peer: Peer, status: int, code: str
) -> None:
    peer.script.append((status, code, b""))
    assert (await kind_of(store, "put")).kind is ErrorKind.ALREADY_EXISTS
    assert len(peer.requests) == 1


@pytest.mark.parametrize("operation", ["get", "put", "list", "delete"])
async def test_a_missing_bucket_is_told_apart(store: S3Store, peer: Peer, operation: str) -> None:
    peer.script.append((404, "NoSuchBucket", b""))
    error = await kind_of(store, operation)
    assert (error.kind, error.fields["what"]) == (ErrorKind.NOT_FOUND, "bucket")


@pytest.mark.parametrize("operation", ["get", "put", "list", "delete"])
@pytest.mark.parametrize("code", ["SignatureDoesNotMatch", "InvalidAccessKeyId"])
async def test_wrong_keys_are_told_with_the_place(
    store: S3Store, peer: Peer, operation: str, code: str
) -> None:
    peer.script.append((403, code, b""))
    error = await kind_of(store, operation)
    assert error.kind is ErrorKind.FORBIDDEN
    assert error.fields["cause"] == "access denied: signature or key id is wrong"
    assert error.fields["endpoint"] == store.endpoint.removeprefix("http://")
    assert error.fields["bucket"]


@pytest.mark.parametrize("operation", ["get", "put", "head", "list", "delete"])
@pytest.mark.parametrize(
    ("endpoint", "place", "cause"),
    [
        ("http://127.0.0.1:1", "127.0.0.1:1", "connection refused"),
        ("http://who:secret@127.0.0.1:1", "127.0.0.1:1", "connection refused"),
        ("http://nowhere.invalid:9", "nowhere.invalid:9", "name does not resolve"),
    ],
)
async def test_a_wrong_endpoint_is_told_with_the_cause(
    operation: str, endpoint: str, place: str, cause: str
) -> None:
    keys = S3Credentials("an-id", "a-secret")
    lost = S3Store(BucketSettings("lost", "s3://b/p", endpoint, credentials=keys))
    error = await kind_of(lost, operation)
    await lost.close()
    assert error.kind is ErrorKind.UNAVAILABLE
    told = [error.fields[name] for name in ("bucket", "endpoint", "cause")]
    assert told == ["lost", place, cause]
    assert "secret" not in f"{error} {error.fields}"


@pytest.mark.parametrize("operation", ["get", "put", "head", "list", "delete"])
async def test_a_reset_is_unavailable(store: S3Store, peer: Peer, operation: str) -> None:
    peer.script.append("reset")
    assert (await kind_of(store, operation)).kind is ErrorKind.UNAVAILABLE
    assert len(peer.requests) == 1


@pytest.mark.parametrize("operation", ["get", "put", "head", "list"])
async def test_no_answer_in_time_is_a_timeout(
    peer: Peer, operation: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(s3, "_REQUEST_SECONDS", 0.2)
    monkeypatch.setattr(s3, "_LIST_SECONDS", 0.2)
    monkeypatch.setattr(s3, "_BULK_SECONDS", 0.2)
    peer.slow_seconds = 0.6
    store = S3Store(peer.settings())
    peer.script.append("slow")
    assert (await kind_of(store, operation)).kind is ErrorKind.TIMEOUT
    await store.close()


@pytest.mark.parametrize("operation", ["get", "put", "list"])
async def test_nobody_there_is_unavailable(operation: str) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        endpoint = f"http://127.0.0.1:{taken.getsockname()[1]}"
        keys = S3Credentials("peer-access", "peer-secret-key")
        store = S3Store(BucketSettings("b", "s3://b", endpoint=endpoint, credentials=keys))
        assert (await kind_of(store, operation)).kind is ErrorKind.UNAVAILABLE
        await store.close()


async def test_a_short_answer_is_never_taken_for_the_object(store: S3Store, peer: Peer) -> None:
    peer.script.append("short")
    assert (await kind_of(store, "get")).kind in (ErrorKind.UNAVAILABLE, ErrorKind.CORRUPT)
    peer.script.append("short")
    with pytest.raises(LakehouseError) as caught:
        async for _ in store.stream("key"):
            pass
    assert caught.value.kind in (ErrorKind.UNAVAILABLE, ErrorKind.CORRUPT)


async def test_a_server_without_ranges_is_noticed(store: S3Store, peer: Peer) -> None:
    peer.script.append((200, "", b"the whole object"))
    with pytest.raises(LakehouseError):
        await store.get("key", ByteRange(2, 5))


async def test_a_list_of_one_key_asks_for_one_key(store: S3Store, peer: Peer) -> None:
    for number in range(5):
        await store.put(f"c/{number}", b"x")
    peer.requests.clear()
    assert [meta.key for meta in await store.list("c/", start_after="c/1", limit=1)] == ["c/2"]
    [(method, key, query)] = peer.requests
    assert (method, key) == ("GET", "")
    assert query["max-keys"] == "1"
    assert query["prefix"] == "pre/c/"
    assert query["start-after"] == "pre/c/1"


async def test_a_server_that_answers_less_than_asked_is_asked_again(
    store: S3Store, peer: Peer
) -> None:
    await store.put("b", b"x")
    await store.put("c", b"x")
    page = (
        b"<ListBucketResult><IsTruncated>true</IsTruncated><Contents><Key>pre/a</Key>"
        b"<LastModified>2026-11-21T12:00:00.000Z</LastModified><Size>1</Size></Contents>"
        b"</ListBucketResult>"
    )
    peer.script.append((200, "", page))
    assert [meta.key for meta in await store.list(limit=2)] == ["a", "b"]
    assert len(peer.requests) == 4


async def test_every_operation_is_one_request(store: S3Store, peer: Peer) -> None:
    await store.put("key", b"x" * 100_000, if_absent=True)
    await store.get("key")
    await store.get("key", ByteRange(0, 10))
    await store.head("key")
    await store.list("a/")
    await store.delete([f"k/{number}" for number in range(1000)])
    assert [method for method, _, _ in peer.requests] == [
        "PUT",
        "GET",
        "GET",
        "HEAD",
        "GET",
        "POST",
    ]


async def test_operations_run_side_by_side(store: S3Store, peer: Peer) -> None:
    await asyncio.gather(*(store.put(f"k/{number}", b"x") for number in range(32)))
    assert len(await store.list("k/")) == 32


@pytest.mark.parametrize("url", ["s3://bucket/../up", "s3://bucket/a//b", "s3://b/e\u0301"])
def test_a_prefix_that_is_no_key_is_refused(url: str) -> None:
    with pytest.raises(LakehouseError) as caught:
        S3Store(BucketSettings("b", url, credentials=S3Credentials("a", "b")))
    assert caught.value.kind is ErrorKind.INVALID


def test_credentials_do_not_show() -> None:
    keys = S3Credentials("access", "the-secret", "the-token")
    settings = BucketSettings("b", "s3://b", credentials=keys)
    assert "the-secret" not in repr(settings)
    assert "the-token" not in repr(settings)


async def _eight_mib_at_a_time(data: bytes) -> AsyncIterator[bytes]:
    for at in range(0, len(data), 8 << 20):
        yield data[at : at + (8 << 20)]


TROUBLES: list[tuple[int, str, bytes] | str] = [
    (503, "SlowDown", b""),
    (500, "InternalError", b""),
    "reset",
]


@pytest.mark.parametrize("trouble", TROUBLES)
@pytest.mark.parametrize("at", range(4), ids=["begin", "part", "another part", "complete"])
async def test_one_failure_in_a_streamed_write_is_sent_again(
    store: S3Store, peer: Peer, trouble: tuple[int, str, bytes] | str, at: int
) -> None:
    data = bytes(8 << 20) + b"x" * (1 << 20)
    peer.script += ["pass"] * at + [trouble]
    await store.put_stream("big", _eight_mib_at_a_time(data))
    assert peer.objects["pre/big"] == data
    assert (len(peer.requests), peer.uploads) == (5, {})


async def test_a_streamed_write_to_a_store_that_stays_dead_ends(store: S3Store, peer: Peer) -> None:
    peer.script += [(503, "SlowDown", b"")] * 100
    started = time.monotonic()
    with pytest.raises(LakehouseError) as caught:
        await store.put_stream("big", _eight_mib_at_a_time(bytes(9 << 20)))
    assert caught.value.kind is ErrorKind.UNAVAILABLE
    assert time.monotonic() - started < 20
    assert (peer.objects, len(peer.requests)) == ({}, 6)


async def test_a_completion_whose_answer_was_lost_is_not_called_a_missing_object(
    store: S3Store, peer: Peer
) -> None:
    peer.script += ["pass", "pass", "pass", (404, "NoSuchUpload", b"")]
    with pytest.raises(LakehouseError) as caught:
        await store.put_stream("big", _eight_mib_at_a_time(bytes(9 << 20)))
    assert caught.value.kind is ErrorKind.UNKNOWN


async def test_a_list_that_is_sent_elsewhere_is_refused_and_not_followed(
    store: S3Store, peer: Peer
) -> None:
    peer.script.extend([(302, "Found", b"")] * 3)
    with pytest.raises(LakehouseError) as caught:
        await store.list()
    assert caught.value.kind is ErrorKind.INVALID
    assert len(peer.requests) == 1


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"<Other/>",
        b"<ListBucketResult><Contents><Key>pre/a</Key></Contents></ListBucketResult>",
        b"<ListBucketResult><IsTruncated>false</IsTruncated><Contents><Key>pre/a</Key>"
        b"<Size>?</Size><LastModified>never</LastModified></Contents></ListBucketResult>",
    ],
)
async def test_an_answer_that_is_no_listing_is_never_an_empty_one(body: bytes) -> None:
    with serving(Peer()) as peer:
        store = S3Store(peer.settings())
        for call in (store.list(), store.browse("x")):
            peer.script.append((200, "", body))
            with pytest.raises(LakehouseError) as caught:
                await call
            assert caught.value.kind is ErrorKind.CORRUPT
        # It is asked for again like a read that was cut off.
        peer.script.append((200, "", body))
        patient = RetryingStore(store, SystemClock(), SeededIds(1))
        assert await patient.list() == []
        await store.close()
