"""Ranges are slices, and any text is a key or a refusal: objects over HTTP against Python's own."""

from __future__ import annotations

import asyncio
from typing import Any
from urllib.parse import quote

import httpx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lakehouse.errors import LakehouseError
from lakehouse.model.refs import check_key, is_owned
from lakehouse.objectstore.buckets import Buckets, BucketSettings
from support_objects import CLOCK, IDS, client_of, objects_app

BASE = "/storage/objects/primary/"
COMPONENTS = st.sampled_from(
    [
        "a",
        "b c",
        "+",
        "%",
        "%2F",
        "é",
        "日本",
        ".",
        "..",
        "_a",
        "datasets",
        "x" * 300,
        "?",
        "#",
        ";",
    ]
)
KEYS = st.one_of(st.text(max_size=20), st.lists(COMPONENTS, min_size=1, max_size=4).map("/".join))


class Served:
    """A gateway over an empty bucket in memory, asked one request at a time."""

    def __init__(self) -> None:
        settings_ = BucketSettings("primary", f"memory://{IDS.ulid()}")
        self.buckets = Buckets([settings_], CLOCK, IDS)
        self.app = objects_app(self.buckets)
        self.runner = asyncio.Runner()
        self.client = client_of(self.app)

    def ask(self, method: str, path: str, **more: Any) -> httpx.Response:
        return self.runner.run(self.client.request(method, path, **more))

    def close(self) -> None:
        self.runner.run(self.client.aclose())
        self.runner.close()


@pytest.fixture(scope="module")
def served() -> Any:
    here = Served()
    yield here
    here.close()


def wanted(data: bytes, span: str) -> bytes | None:
    """What ``span`` names of ``data`` by slicing; None for nothing."""
    first, _, last = span.partition("-")
    if first:
        part = data[int(first) : int(last) + 1 if last else None]
    else:
        part = data[len(data) - min(len(data), int(last)) :]
    return part or None


NUMBERS = st.one_of(st.integers(0, 40), st.integers(0, 10**18 - 1))
SPANS = st.one_of(
    NUMBERS.map(lambda a: f"{a}-"),
    NUMBERS.map(lambda n: f"-{n}"),
    st.tuples(NUMBERS, NUMBERS).map(lambda ab: f"{min(ab)}-{max(ab)}"),
)


@settings(max_examples=200, deadline=None, database=None)
@given(size=st.integers(0, 32), span=SPANS)
def test_a_range_is_a_slice(served: Served, size: int, span: str) -> None:
    data = bytes(range(size))
    assert served.ask("PUT", BASE + "k", content=data).status_code == 200
    answer = served.ask("GET", BASE + "k", headers={"Range": f"bytes={span}"})
    part = wanted(data, span)
    if part is None:
        assert answer.status_code == 416
        assert answer.headers["content-range"] == f"bytes */{size}"
        return
    assert (answer.status_code, answer.content) == (206, part)
    start = data.index(part)
    assert answer.headers["content-range"] == f"bytes {start}-{start + len(part) - 1}/{size}"
    assert answer.headers["content-length"] == str(len(part))


@settings(max_examples=100, deadline=None, database=None)
@given(
    span=st.one_of(
        st.text("0123456789-, =bytes", max_size=20),
        st.sampled_from(
            ["bytes=0-1,3-4", "bytes=5-2", "bytes=", "bytes=--1", "rows=0-1", "bytes 0-1"]
        ),
    )
)
def test_what_is_no_single_range_is_the_whole(served: Served, span: str) -> None:
    data = bytes(range(30))
    served.ask("PUT", BASE + "k", content=data)
    answer = served.ask("GET", BASE + "k", headers={"Range": span})
    if answer.status_code == 200:
        assert answer.content == data
    else:
        assert answer.status_code in (206, 416)
        assert span.strip().lower().startswith("bytes=")
        assert "," not in span


@settings(max_examples=200, deadline=None, database=None)
@given(key=KEYS)
def test_any_text_is_a_key_or_a_refusal(served: Served, key: str) -> None:
    try:
        encoded = quote(key, safe="")
    except UnicodeEncodeError:
        return
    # The client would take dots for steps in the path.
    path = BASE + encoded.replace(".", "%2E")
    answer = served.ask("PUT", path, content=key.encode())
    try:
        check_key(key)
    except LakehouseError:
        assert answer.status_code == 400, (key, answer.text)
        return
    if is_owned(key):
        assert answer.status_code == 403
        return
    assert answer.status_code == 200, (key, answer.text)
    assert answer.json()["key"] == key
    assert served.ask("GET", path).content == key.encode()
    listed = served.ask("GET", BASE[:-1], params={"prefix": key}).json()
    assert key in [each["key"] for each in listed["objects"]]
    assert served.ask("DELETE", path).status_code == 204
    assert served.ask("GET", path).status_code == 404
