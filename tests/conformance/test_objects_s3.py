"""Objects over HTTP beside boto3 on the same bucket: what one wrote the other reads, and lists."""

from __future__ import annotations

import asyncio
import base64
import hashlib
from collections.abc import AsyncIterator, Iterator
from typing import Any
from urllib.parse import quote

import httpx
import pytest

from lakehouse.objectstore.buckets import Buckets
from lakehouse.testing.suites.object_store import ODD_KEYS
from support_objects import CLOCK, IDS, client_of, objects_app
from support_s3 import S3Oracle, S3Place

BASE = "/storage/objects/s3/"
DATA = bytes(range(251)) * 400
LARGE = bytes(range(241)) * 90_000


def path(key: str) -> str:
    return BASE + quote(key)


class TestMoto:
    @pytest.fixture
    def place(self, moto_place: S3Place) -> S3Place:
        return moto_place

    @pytest.fixture
    def oracle(self, place: S3Place) -> Iterator[S3Oracle]:
        oracle = S3Oracle(place)
        yield oracle
        assert oracle.uploads() == [], "parts of an upload were left"
        oracle.close()

    @pytest.fixture
    def s3(self, place: S3Place) -> Iterator[Any]:
        client = place.client()
        yield client
        client.close()

    @pytest.fixture
    async def http(self, place: S3Place) -> AsyncIterator[httpx.AsyncClient]:
        buckets = Buckets([place.settings()], CLOCK, IDS)
        async with client_of(objects_app(buckets)) as client:
            yield client
        await buckets.close()

    @pytest.mark.parametrize("data", [b"", DATA, LARGE], ids=["empty", "small", "in parts"])
    async def test_what_is_put_is_what_boto3_reads(
        self, http: httpx.AsyncClient, oracle: S3Oracle, s3: Any, place: S3Place, data: bytes
    ) -> None:
        answer = await http.put(path("in/k"), content=data)
        assert answer.status_code == 200, answer.text
        assert answer.json()["sha256"] == hashlib.sha256(data).hexdigest()
        assert oracle.read("in/k") == data
        head = s3.head_object(Bucket=place.bucket, Key=f"{place.prefix}/in/k")
        assert answer.headers["etag"] == head["ETag"]
        looked = await http.head(path("in/k"))
        assert looked.content == b""
        assert looked.headers["etag"] == head["ETag"]
        assert looked.headers["content-length"] == str(head["ContentLength"])
        stated = head["ResponseMetadata"]["HTTPHeaders"]["last-modified"]
        assert looked.headers["last-modified"] == stated

    async def test_what_boto3_put_is_what_is_read(
        self, http: httpx.AsyncClient, s3: Any, place: S3Place
    ) -> None:
        s3.put_object(Bucket=place.bucket, Key=f"{place.prefix}/k", Body=LARGE)
        answer = await http.get(path("k"))
        assert (answer.status_code, answer.content == LARGE) == (200, True)
        size = len(LARGE)
        for span in ("0-0", "5-900", f"{size - 3}-", "-7", f"-{size + 9}", f"9-{size * 2}"):
            header = {"Range": f"bytes={span}"}
            ours = await http.get(path("k"), headers=header)
            theirs = s3.get_object(
                Bucket=place.bucket, Key=f"{place.prefix}/k", Range=f"bytes={span}"
            )
            assert ours.status_code == 206
            assert ours.content == theirs["Body"].read(), span
            assert ours.headers["content-range"] == theirs["ContentRange"]
        past = await http.get(path("k"), headers={"Range": f"bytes={size}-"})
        assert (past.status_code, past.headers["content-range"]) == (416, f"bytes */{size}")

    async def test_conditions(self, http: httpx.AsyncClient, s3: Any, place: S3Place) -> None:
        s3.put_object(Bucket=place.bucket, Key=f"{place.prefix}/k", Body=DATA)
        first = await http.get(path("k"))
        etag, when = first.headers["etag"], first.headers["last-modified"]
        for header, status in (
            ({"If-None-Match": etag}, 304),
            ({"If-None-Match": f'W/{etag}, "x"'}, 304),
            ({"If-None-Match": '"x"'}, 200),
            ({"If-Match": etag}, 200),
            ({"If-Match": f"W/{etag}"}, 412),
            ({"If-Match": '"x"'}, 412),
            ({"If-Modified-Since": when}, 304),
            ({"If-Modified-Since": "Sat, 01 Jan 2000 00:00:00 GMT"}, 200),
            ({"If-Unmodified-Since": "Sat, 01 Jan 2000 00:00:00 GMT"}, 412),
            ({"If-Modified-Since": "yesterday"}, 200),
        ):
            for send in (http.get, http.head):
                answer = await send(path("k"), headers=header)
                assert answer.status_code == status, header
                if status == 304:
                    assert (answer.content, answer.headers["etag"]) == (b"", etag)

    async def test_of_many_that_put_where_there_is_none_one_wins(
        self, http: httpx.AsyncClient, oracle: S3Oracle
    ) -> None:
        bodies = [b"%d" % number * 1_000 for number in range(6)]
        answers = await asyncio.gather(
            *(http.put(path("race"), content=b, headers={"If-None-Match": "*"}) for b in bodies)
        )
        statuses = [answer.status_code for answer in answers]
        assert sorted(statuses) == [200] + [412] * 5
        assert oracle.read("race") == bodies[statuses.index(200)]

    async def test_a_wrong_checksum_stores_nothing(
        self, http: httpx.AsyncClient, oracle: S3Oracle
    ) -> None:
        wrong = base64.b64encode(hashlib.sha256(b"").digest()).decode()
        for data in (DATA, LARGE):
            for name, value in (
                ("x-amz-checksum-sha256", wrong),
                ("Content-Digest", f"sha-256=:{wrong}:"),
                ("Content-MD5", base64.b64encode(hashlib.md5(b"").digest()).decode()),
            ):
                answer = await http.put(path("k"), content=data, headers={name: value})
                assert answer.status_code == 400, (name, answer.text)
        assert oracle.keys() == []

    async def test_odd_keys_are_kept_to_the_letter(
        self, http: httpx.AsyncClient, oracle: S3Oracle
    ) -> None:
        for key in ODD_KEYS:
            for encoded in (quote(key), quote(key, safe="")):
                assert (await http.put(BASE + encoded, content=key.encode())).status_code == 200
                assert oracle.keys() == [key]
                assert (await http.get(BASE + encoded)).content == key.encode()
                listed = (await http.get(BASE[:-1], params={"prefix": key})).json()
                assert [each["key"] for each in listed["objects"]] == [key]
                assert (await http.delete(BASE + encoded)).status_code == 204
                assert oracle.keys() == []

    async def test_a_walk_is_that_of_boto3(
        self, http: httpx.AsyncClient, s3: Any, place: S3Place
    ) -> None:
        keys = [f"{a}{b}" for a in ("a/", "a/b/", "b b/", "ä/", "") for b in ("1", "x+y", "z/q")]
        for key in keys:
            s3.put_object(Bucket=place.bucket, Key=f"{place.prefix}/{key}", Body=b"x")
        root = place.prefix + "/"
        for prefix in ("", "a", "a/", "a/b", "ä/", "nothing"):
            for delimiter in ("", "/"):
                theirs = s3.list_objects_v2(
                    Bucket=place.bucket, Prefix=root + prefix, Delimiter=delimiter
                )
                for limit in (1, 2, 1000):
                    walked = await self.walked(http, prefix, delimiter, limit)
                    wanted = [each["Key"][len(root) :] for each in theirs.get("Contents", [])]
                    assert walked[0] == wanted, (prefix, delimiter, limit)
                    common = [each["Prefix"] for each in theirs.get("CommonPrefixes", [])]
                    assert walked[1] == [name[len(root) :] for name in common]

    async def walked(
        self, http: httpx.AsyncClient, prefix: str, delimiter: str, limit: int
    ) -> tuple[list[str], list[str]]:
        keys: list[str] = []
        folders: list[str] = []
        asked: dict[str, Any] = {"prefix": prefix, "delimiter": delimiter, "limit": limit}
        while True:
            page = (await http.get(BASE[:-1], params=asked)).json()
            assert len(page["objects"]) + len(page["folders"]) <= limit
            keys += [each["key"] for each in page["objects"]]
            folders += page["folders"]
            if page["next"] is None:
                return keys, folders
            asked["cursor"] = page["next"]


@pytest.mark.s3
class TestRadosgw(TestMoto):
    @pytest.fixture
    def place(self, real_place: S3Place) -> S3Place:
        return real_place
