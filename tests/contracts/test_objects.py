"""The objects contract, direct and over gRPC."""

from __future__ import annotations

import hashlib
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from contracts.world import OPERATOR, READER, WRITER, World, caller
from lakehouse.contracts.inventory import (
    ObjectStanding,
    ObjectState,
    ObjectStatesRequest,
    ObjectStatesResult,
)
from lakehouse.contracts.objects import (
    CONDITIONAL_BYTES_MAX,
    OBJECT_BYTES_MAX,
    Conditions,
    DeleteObjectRequest,
    GetObjectRequest,
    ListObjectsRequest,
    ObjectRange,
    ObjectStream,
    PutObjectRequest,
    PutObjectResult,
    StatObjectRequest,
)
from lakehouse.errors import ErrorKind, LakehouseError
from lakehouse.model.identity import Scope
from lakehouse.storaged.objects import Objects

DATA = bytes(range(251)) * 40
OWNED = (
    "_catalog/c/1.json",
    "_anything",
    "datasets/s/d/f.parquet",
    "Datasets/x",
    "rescue/primary/a",
    "store.json",
    "STORE.JSON",
    ".tmp/x",
    "\uff3fcatalog/c",
)


class Named:
    """A catalog whose datasets name every key with ``named`` in it, and one that nobody knows."""

    async def object_states(self, ctx: Any, request: ObjectStatesRequest) -> ObjectStatesResult:
        (ref,) = request.objects
        standing = ObjectStanding.NAMED if "named" in ref.key else ObjectStanding.GIVEN_UP
        if ref.key == "puzzling":
            standing = ObjectStanding.UNKNOWN
        named = standing is ObjectStanding.NAMED
        return ObjectStatesResult((ObjectState(standing, dataset="people" if named else ""),), 1)


@pytest.fixture(params=["primary", "extra"])
def bucket(request: pytest.FixtureRequest) -> str:
    """A local folder, and memory."""
    return str(request.param)


@pytest.fixture
async def objects(here: World, transport: str) -> Any:
    buckets = here.open_buckets()
    here.near["objects"] = Objects(buckets, Named(), here.clock)
    return await here.connect(transport, "objects")


async def in_chunks(data: bytes, size: int = 4_096) -> AsyncIterator[bytes]:
    for start in range(0, len(data), size):
        yield data[start : start + size]


async def put(objects: Any, bucket: str, key: str, data: bytes, **said: Any) -> PutObjectResult:
    ctx = said.pop("ctx", WRITER)
    request = PutObjectRequest(bucket, key, **said)
    result: PutObjectResult = await objects.put(ctx, request, in_chunks(data))
    return result


async def read(stream: ObjectStream) -> bytes:
    return b"".join([chunk async for chunk in stream.chunks])


async def refused(call: Any, kind: ErrorKind, status: int | None = None) -> LakehouseError:
    with pytest.raises(LakehouseError) as caught:
        await call
    assert caught.value.kind is kind, (caught.value, caught.value.fields)
    assert status is None or caught.value.http_status == status
    return caught.value


@pytest.mark.parametrize("size", [0, 1, 10_000, 3_000_000, 9_000_000])
async def test_what_is_put_is_what_is_read(objects: Any, bucket: str, size: int) -> None:
    data = (DATA * (size // len(DATA) + 1))[:size]
    made = await objects.put(
        WRITER, PutObjectRequest(bucket, "in/a b+c.bin"), in_chunks(data, 100_000)
    )
    assert (made.info.bucket, made.info.key) == (bucket, "in/a b+c.bin")
    assert (made.info.size_bytes, made.replayed) == (size, False)
    assert made.sha256 == hashlib.sha256(data).hexdigest()
    stream = await objects.get(READER, GetObjectRequest(bucket, "in/a b+c.bin"))
    assert await read(stream) == data
    assert stream.header.info.etag == made.info.etag != ""
    assert (stream.header.start, stream.header.end, stream.header.partial) == (0, size, False)
    stat = await objects.stat(READER, StatObjectRequest(bucket, "in/a b+c.bin"))
    assert stat == stream.header
    age = datetime.now(UTC) - stat.info.modified_at
    assert abs(age) < timedelta(minutes=5)


async def test_ranges_are_slices(objects: Any, bucket: str) -> None:
    await put(objects, bucket, "k", DATA)
    size = len(DATA)
    cases = {
        ObjectRange(0, 1): DATA[:1],
        ObjectRange(5, 900): DATA[5:900],
        ObjectRange(9_000): DATA[9_000:],
        ObjectRange(size - 1, size + 99): DATA[-1:],
        ObjectRange(last=7): DATA[-7:],
        ObjectRange(last=size + 7): DATA,
    }
    for asked, wanted in cases.items():
        stream = await objects.get(READER, GetObjectRequest(bucket, "k", asked))
        assert stream.header.partial
        assert stream.header.info.size_bytes == size
        assert DATA[stream.header.start : stream.header.end] == wanted
        assert await read(stream) == wanted
    for asked in (ObjectRange(size), ObjectRange(size + 5, size + 9), ObjectRange(last=0)):
        call = objects.get(READER, GetObjectRequest(bucket, "k", asked))
        assert (await refused(call, ErrorKind.INVALID, 416)).fields["size_bytes"] == size
    for asked in (ObjectRange(5, 5), ObjectRange(-1), ObjectRange(7, 3), ObjectRange(1, last=3)):
        call = objects.get(READER, GetObjectRequest(bucket, "k", asked))
        await refused(call, ErrorKind.INVALID, 400)


async def test_an_empty_object_has_no_ranges(objects: Any, bucket: str) -> None:
    await put(objects, bucket, "k", b"")
    for asked in (ObjectRange(0), ObjectRange(0, 5), ObjectRange(last=5)):
        call = objects.get(READER, GetObjectRequest(bucket, "k", asked))
        assert (await refused(call, ErrorKind.INVALID, 416)).fields["size_bytes"] == 0


async def test_conditions_are_those_of_http(objects: Any, bucket: str) -> None:
    info = (await put(objects, bucket, "k", DATA)).info
    info = (await objects.stat(READER, StatObjectRequest(bucket, "k"))).info
    then = info.modified_at.replace(microsecond=0)
    earlier, later = then - timedelta(seconds=1), then + timedelta(seconds=1)
    same = [
        Conditions(if_none_match=(info.etag,)),
        Conditions(if_none_match=("other", "*")),
        Conditions(if_modified_since=then),
        Conditions(if_modified_since=later),
        Conditions(if_none_match=(info.etag,), if_modified_since=earlier),
    ]
    wanted = [
        Conditions(if_match=(info.etag, "other")),
        Conditions(if_match=("*",)),
        Conditions(if_none_match=("other",)),
        Conditions(if_none_match=("other",), if_modified_since=later),
        Conditions(if_modified_since=earlier),
        Conditions(if_unmodified_since=then),
        Conditions(if_match=(info.etag,), if_unmodified_since=earlier),
    ]
    wrong = [Conditions(if_match=("other",)), Conditions(if_unmodified_since=earlier)]
    for conditions in same:
        stream = await objects.get(READER, GetObjectRequest(bucket, "k", conditions=conditions))
        assert (stream.header.not_modified, await read(stream)) == (True, b""), conditions
        stat = await objects.stat(READER, StatObjectRequest(bucket, "k", conditions))
        assert stat.not_modified
    for conditions in wanted:
        request = GetObjectRequest(bucket, "k", ObjectRange(1, 5), conditions)
        stream = await objects.get(READER, request)
        assert (stream.header.not_modified, await read(stream)) == (False, DATA[1:5]), conditions
    for conditions in wrong:
        for call in (
            objects.get(READER, GetObjectRequest(bucket, "k", conditions=conditions)),
            objects.stat(READER, StatObjectRequest(bucket, "k", conditions)),
        ):
            error = await refused(call, ErrorKind.CONFLICT, 412)
            assert error.fields["etag"] == info.etag


async def test_a_range_of_another_object_is_all_of_this_one(objects: Any, bucket: str) -> None:
    etag = (await put(objects, bucket, "k", DATA)).info.etag
    for said, partial in ((etag, True), ("other", False)):
        request = GetObjectRequest(bucket, "k", ObjectRange(1, 5), if_range=said)
        stream = await objects.get(READER, request)
        assert (stream.header.partial, await read(stream)) == (
            partial,
            DATA[1:5] if partial else DATA,
        )


async def test_what_is_said_of_a_body_is_checked(objects: Any, bucket: str) -> None:
    sha256, md5 = hashlib.sha256(DATA).hexdigest(), hashlib.md5(DATA).hexdigest()
    await put(objects, bucket, "good", DATA, sha256=sha256, md5=md5, size_bytes=len(DATA))
    wrong: list[dict[str, Any]] = [
        {"sha256": hashlib.sha256(b"").hexdigest()},
        {"md5": hashlib.md5(b"").hexdigest()},
        {"size_bytes": len(DATA) + 1},
        {"size_bytes": 0},
        {"sha256": "abc"},
        {"md5": md5.upper()},
    ]
    large = DATA * 1_000
    for said in wrong:
        for data in (DATA, large):
            for if_absent in (False, True):
                call = put(objects, bucket, "bad", data, if_absent=if_absent, **said)
                await refused(call, ErrorKind.INVALID, 400)
    await refused(objects.stat(READER, StatObjectRequest(bucket, "bad")), ErrorKind.NOT_FOUND)
    listed = await objects.list(READER, ListObjectsRequest(bucket))
    assert [info.key for info in listed.objects] == ["good"]


async def test_what_is_too_large_is_refused_before_it_comes(objects: Any, bucket: str) -> None:
    async def untouched() -> AsyncIterator[bytes]:
        yield b"x" * 1_000

    for if_absent, limit in ((True, CONDITIONAL_BYTES_MAX), (False, OBJECT_BYTES_MAX)):
        request = PutObjectRequest(bucket, "k", if_absent, size_bytes=limit + 1)
        error = await refused(objects.put(WRITER, request, untouched()), ErrorKind.INVALID, 413)
        assert error.fields["bytes_max"] == limit
        assert error.fields["hint"]


async def test_a_put_if_absent_is_the_first_or_refused(objects: Any, bucket: str) -> None:
    first = await put(objects, bucket, "k", b"one", if_absent=True)
    for data in (b"two", b"one"):
        call = put(objects, bucket, "k", data, if_absent=True)
        await refused(call, ErrorKind.ALREADY_EXISTS, 412)
    keyed = caller(Scope.WRITE, idempotency_key="put-1")
    again = await put(objects, bucket, "k", b"one", if_absent=True, ctx=keyed)
    assert (again.replayed, again.sha256) == (True, first.sha256)
    assert again.info.etag == first.info.etag
    call = put(objects, bucket, "k", b"two", if_absent=True, ctx=keyed)
    await refused(call, ErrorKind.ALREADY_EXISTS, 412)
    stream = await objects.get(READER, GetObjectRequest(bucket, "k"))
    assert await read(stream) == b"one"


async def test_a_body_that_breaks_leaves_what_was_there(objects: Any, bucket: str) -> None:
    async def broken(size: int) -> AsyncIterator[bytes]:
        for _ in range(size):
            yield DATA * 100
        raise ValueError("the source's own")

    await put(objects, bucket, "old", b"old")
    for key in ("old", "new"):
        for size in (0, 1, 12):
            for if_absent in (False, True):
                request = PutObjectRequest(bucket, key, if_absent)
                with pytest.raises(ValueError, match="the source's own"):
                    await objects.put(WRITER, request, broken(size))
    listed = await objects.list(READER, ListObjectsRequest(bucket))
    assert [info.key for info in listed.objects] == ["old"]
    assert await read(await objects.get(READER, GetObjectRequest(bucket, "old"))) == b"old"


async def test_a_delete_is_idempotent(objects: Any, bucket: str) -> None:
    await put(objects, bucket, "a/k", b"x")
    for _ in range(2):
        result = await objects.delete(WRITER, DeleteObjectRequest(bucket, "a/k"))
        assert (result.bucket, result.key) == (bucket, "a/k")
    await refused(objects.stat(READER, StatObjectRequest(bucket, "a/k")), ErrorKind.NOT_FOUND)


@pytest.mark.parametrize("key", ["a/named", "puzzling"])
async def test_what_a_dataset_names_stays_as_it_is(
    objects: Any, here: World, bucket: str, key: str
) -> None:
    await here.buckets.get(bucket).put(key, b"rows")
    for data in (b"x", DATA * 1_000):
        await refused(put(objects, bucket, key, data), ErrorKind.CONFLICT, 409)
    call = objects.delete(WRITER, DeleteObjectRequest(bucket, key))
    error = await refused(call, ErrorKind.CONFLICT)
    assert error.fields["hint"]
    assert error.fields.get("dataset") == ("people" if "named" in key else None)
    assert await here.buckets.get(bucket).get(key) == b"rows"
    # One that was lost may be brought back.
    await here.buckets.get(bucket).delete([key])
    await put(objects, bucket, key, b"rows", if_absent=True)


async def test_a_bucket_is_walked_page_by_page(objects: Any, bucket: str) -> None:
    keys = ["a/1", "a/2", "b b/x", "c", "d+", "z", "é/1"]
    for key in keys:
        await put(objects, bucket, key, key.encode())
    for limit in (1, 2, 3, 1000):
        seen: list[str] = []
        cursor = ""
        while True:
            request = ListObjectsRequest(bucket, limit=limit, cursor=cursor)
            page = await objects.list(READER, request)
            assert len(page.objects) <= limit
            seen += [info.key for info in page.objects]
            cursor = page.next
            if not cursor:
                break
        assert seen == keys
    level = await objects.list(READER, ListObjectsRequest(bucket, delimiter="/"))
    assert [info.key for info in level.objects] == ["c", "d+", "z"]
    assert level.folders == ("a/", "b b/", "é/")
    assert (level.objects[0].size_bytes, bool(level.objects[0].etag)) == (1, True)
    beginning = await objects.list(READER, ListObjectsRequest(bucket, "a/"))
    assert [info.key for info in beginning.objects] == ["a/1", "a/2"]
    for request in (
        ListObjectsRequest(bucket, delimiter="x"),
        ListObjectsRequest(bucket, limit=0),
        ListObjectsRequest(bucket, limit=1001),
        ListObjectsRequest(bucket, cursor="%"),
        ListObjectsRequest(bucket, "a//"),
        ListObjectsRequest(bucket, "\x00"),
    ):
        await refused(objects.list(READER, request), ErrorKind.INVALID)


@pytest.mark.parametrize("key", OWNED)
async def test_what_the_lakehouse_keeps_for_itself_is_touched_by_nobody(
    objects: Any, here: World, bucket: str, key: str
) -> None:
    for scope in (Scope.WRITE, Scope.OPERATOR):
        await refused(put(objects, bucket, key, b"x", ctx=caller(scope)), ErrorKind.FORBIDDEN)
        call = objects.delete(caller(scope), DeleteObjectRequest(bucket, key))
        await refused(call, ErrorKind.FORBIDDEN)
    for ctx in (READER, WRITER):
        for call in (
            objects.get(ctx, GetObjectRequest(bucket, key)),
            objects.stat(ctx, StatObjectRequest(bucket, key)),
        ):
            error = await refused(call, ErrorKind.FORBIDDEN)
            assert error.fields["required"] == "operator"
    assert await here.buckets.get(bucket).list() == []


async def test_what_the_lakehouse_keeps_is_listed_for_operators_only(
    objects: Any, here: World, bucket: str
) -> None:
    own = ["Zebra", "a", "m/x", "zz"]
    kept = ["_catalog/c/1", "_catalog/c/2", "datasets/s/d/f", "rescue/b/k", "store.json"]
    for key in own + kept:
        await here.buckets.get(bucket).put(key, b"x")

    async def walked(ctx: Any, **asked: Any) -> list[str]:
        seen: list[str] = []
        cursor, pages = "", 0
        while pages < 50:
            pages += 1
            page = await objects.list(ctx, ListObjectsRequest(bucket, cursor=cursor, **asked))
            seen += [info.key for info in page.objects] + list(page.folders)
            cursor = page.next
            if not cursor:
                return seen
        raise AssertionError("it does not end")

    for limit in (1, 2, 1000):
        assert await walked(READER, limit=limit) == own
        assert await walked(OPERATOR, limit=limit) == sorted(own + kept)
        folders = await walked(READER, limit=limit, delimiter="/")
        assert sorted(folders) == ["Zebra", "a", "m/", "zz"]
    for prefix in ("_", "_catalog/", "datasets/", "datasets/s", "rescue/", ".", "_cat"):
        call = objects.list(READER, ListObjectsRequest(bucket, prefix))
        await refused(call, ErrorKind.FORBIDDEN)
    assert await walked(READER, prefix="data") == []
    assert await walked(OPERATOR, prefix="_catalog/c/2") == ["_catalog/c/2"]
    stream = await objects.get(OPERATOR, GetObjectRequest(bucket, "_catalog/c/1"))
    assert await read(stream) == b"x"


@pytest.mark.parametrize(
    "key", ["", "/a", "a/", "a//b", "../a", "a/./b", "a\\b", "a\x00", "x" * 513]
)
async def test_what_is_no_key_is_invalid(objects: Any, bucket: str, key: str) -> None:
    for call in (
        put(objects, bucket, key, b"x"),
        objects.get(READER, GetObjectRequest(bucket, key)),
        objects.stat(READER, StatObjectRequest(bucket, key)),
        objects.delete(WRITER, DeleteObjectRequest(bucket, key)),
    ):
        await refused(call, ErrorKind.INVALID, 400)


async def test_scopes(objects: Any, bucket: str) -> None:
    await refused(put(objects, bucket, "k", b"x", ctx=READER), ErrorKind.FORBIDDEN)
    call = objects.delete(READER, DeleteObjectRequest(bucket, "k"))
    await refused(call, ErrorKind.FORBIDDEN)


async def test_a_bucket_that_is_not_there_is_named_with_those_that_are(objects: Any) -> None:
    for call in (
        put(objects, "nowhere", "k", b"x"),
        objects.get(READER, GetObjectRequest("nowhere", "k")),
        objects.list(READER, ListObjectsRequest("nowhere")),
        objects.delete(WRITER, DeleteObjectRequest("nowhere", "k")),
    ):
        error = await refused(call, ErrorKind.NOT_FOUND)
        assert error.fields["buckets"] == ["primary", "extra"]
