"""Headers of objects: what they ask for, and what is refused rather than ignored."""

from __future__ import annotations

import base64
import hashlib
from datetime import UTC, datetime
from typing import Any

import pytest
from starlette.datastructures import Headers

from lakehouse.contracts.objects import Conditions, ObjectRange
from lakehouse.errors import ErrorKind, LakehouseError
from lakehouse.gateway.object_headers import (
    conditions,
    deleting,
    http_date,
    looking,
    parse_range,
    reading,
    writing,
)
from lakehouse.gateway.object_replies import media_type_of

SHA = hashlib.sha256(b"x").digest()
SHA64 = base64.b64encode(SHA).decode()
MD5 = hashlib.md5(b"x").digest()
MD564 = base64.b64encode(MD5).decode()


@pytest.mark.parametrize(
    ("text", "asked"),
    [
        ("bytes=0-0", ObjectRange(0, 1)),
        ("bytes=5-", ObjectRange(5)),
        ("bytes=-5", ObjectRange(last=5)),
        ("bytes=-0", ObjectRange(last=0)),
        (" Bytes= 1-2 ", ObjectRange(1, 3)),
        ("", None),
        ("bytes=5-4", None),
        ("bytes=0-1,4-5", None),
        ("bytes=-", None),
        ("bytes=a-b", None),
        ("bytes=1-2-3", None),
        ("lines=1-2", None),
        ("bytes=" + "9" * 19 + "-", None),
        ("bytes=\u0663-\u0665", None),
    ],
)
def test_a_range_is_one_or_none(text: str, asked: ObjectRange | None) -> None:
    assert parse_range(text) == asked


@pytest.mark.parametrize(
    ("text", "etags"),
    [
        ('"a"', ("a",)),
        ('"a", W/"b" ,"c,d"', ("a", "b", "c,d")),
        ("*", ("*",)),
        ("bare", ("bare",)),
        ('""', ("",)),
    ],
)
def test_etags_are_read_as_they_come(text: str, etags: tuple[str, ...]) -> None:
    assert conditions(Headers({"If-None-Match": text})).if_none_match == etags


def test_a_weak_etag_is_no_strong_one() -> None:
    assert conditions(Headers({"If-Match": 'W/"a", "b"'})).if_match == ("W/a", "b")


@pytest.mark.parametrize(
    "text",
    [
        "Sat, 21 Nov 2026 09:30:00 GMT",
        "Saturday, 21-Nov-26 09:30:00 GMT",
        "Sat Nov 21 09:30:00 2026",
        "Sat, 21 Nov 2026 10:30:00 +0100",
    ],
)
def test_times_in_each_form_of_http(text: str) -> None:
    when = datetime(2026, 11, 21, 9, 30, tzinfo=UTC)
    found = conditions(Headers({"If-Modified-Since": text, "If-Unmodified-Since": text}))
    assert found == Conditions(if_modified_since=when, if_unmodified_since=when)
    assert http_date(when.replace(microsecond=7)) == "Sat, 21 Nov 2026 09:30:00 GMT"


@pytest.mark.parametrize("text", ["", "yesterday", "2026-11-21", "Sat, 99 Nov 2026 09:30:00 GMT"])
def test_what_is_no_time_is_not_looked_at(text: str) -> None:
    assert conditions(Headers({"If-Modified-Since": text})) == Conditions()


def test_if_range_takes_a_strong_etag_alone() -> None:
    asked = {"Range": "bytes=0-1"}
    found = reading("b", "k", Headers({**asked, "If-Range": '"a"'}))
    assert (found.range, found.if_range) == (ObjectRange(0, 2), "a")
    for said in ('W/"a"', "Sat, 21 Nov 2026 09:30:00 GMT"):
        found = reading("b", "k", Headers({**asked, "If-Range": said}))
        assert (found.range, found.if_range) == (None, "")
    assert looking("b", "k", Headers(asked)).conditions == Conditions()


@pytest.mark.parametrize(
    "headers",
    [
        {"x-amz-checksum-sha256": SHA64},
        {"Content-Digest": f"sha-256=:{SHA64}:"},
        {"Content-Digest": f"sha-512=:AAAA:, sha-256=:{SHA64}:"},
        {"Repr-Digest": f"SHA-256=:{SHA64}:"},
        {"Digest": f"sha-256={SHA64}"},
        {"Digest": f"md5=AAAA,sha-256={SHA64}", "x-amz-checksum-sha256": SHA64},
    ],
)
def test_a_checksum_in_each_form(headers: dict[str, str]) -> None:
    assert writing("b", "k", Headers(headers)).sha256 == SHA.hex()


def test_what_a_put_says_of_its_body() -> None:
    said = {"Content-MD5": MD564, "Content-Length": "1", "If-None-Match": " * "}
    asked = writing("b", "k", Headers(said))
    assert (asked.md5, asked.size_bytes, asked.if_absent) == (MD5.hex(), 1, True)
    plain = writing("b", "k", Headers({"Content-Digest": "sha-512=:AAAA:"}))
    assert (plain.md5, plain.sha256, plain.size_bytes, plain.if_absent) == ("", "", None, False)


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"Content-MD5": "x"}, 400),
        ({"Content-MD5": SHA64}, 400),
        ({"x-amz-checksum-sha256": MD564}, 400),
        ({"Content-Digest": "sha-256=:AAAA:"}, 400),
        ({"Digest": f"sha-256={SHA64}", "x-amz-checksum-sha256": "A" * 43 + "="}, 400),
        ({"If-None-Match": '"a"'}, 400),
        ({"If-Match": '"a"'}, 400),
        ({"If-Match": "*"}, 400),
        ({"If-Unmodified-Since": "Sat, 21 Nov 2026 09:30:00 GMT"}, 400),
        ({"Content-Range": "bytes 0-1/5"}, 400),
        ({"Content-Encoding": "gzip"}, 415),
        ({"Content-Encoding": "aws-chunked"}, 415),
    ],
)
def test_what_cannot_be_held_is_refused(headers: dict[str, Any], status: int) -> None:
    with pytest.raises(LakehouseError) as caught:
        writing("b", "k", Headers(headers))
    assert (caught.value.kind, caught.value.http_status) == (ErrorKind.INVALID, status)


@pytest.mark.parametrize("name", ["If-Match", "If-None-Match", "If-Unmodified-Since"])
def test_a_delete_takes_no_condition(name: str) -> None:
    with pytest.raises(LakehouseError):
        deleting("b", "k", Headers({name: "*"}))


@pytest.mark.parametrize(
    ("key", "media_type"),
    [
        ("a/people.csv", "text/csv"),
        ("x.PARQUET", "application/vnd.apache.parquet"),
        ("x.csv.gz", "application/gzip"),
        ("x.ndjson", "application/x-ndjson"),
        ("x.json", "application/json"),
        ("page.html", "text/html"),
        ("noending", "application/octet-stream"),
        ("csv", "application/octet-stream"),
        ("a.csv/noending", "application/octet-stream"),
        ("x.nobodyknows", "application/octet-stream"),
        ("x.", "application/octet-stream"),
    ],
)
def test_the_media_type_is_that_of_the_ending(key: str, media_type: str) -> None:
    assert media_type_of(key) == media_type
