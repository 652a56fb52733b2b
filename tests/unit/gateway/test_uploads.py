"""Files in multipart forms: exact bytes however they are cut, clear refusals, flat memory."""

from __future__ import annotations

import tracemalloc
from collections.abc import AsyncIterator

import pytest
from hypothesis import given
from hypothesis import strategies as st
from starlette.requests import Request
from starlette.types import Message

from lakehouse.errors import LakehouseError
from lakehouse.gateway.uploads import open_upload
from unit.gateway.fakes import World

FORM = "multipart/form-data; boundary=XX"
MEBIBYTE = 1024 * 1024


def form(content: bytes, disposition: str = 'name="file"; filename="a.csv"') -> bytes:
    head = f"--XX\r\nContent-Disposition: form-data; {disposition}\r\nContent-Type: text/csv\r\n"
    return head.encode() + b"\r\n" + content + b"\r\n--XX--\r\n"


def request(chunks: list[bytes], content_type: str = FORM) -> Request:
    waiting = iter(chunks)

    async def receive() -> Message:
        chunk = next(waiting, None)
        return {"type": "http.request", "body": chunk or b"", "more_body": chunk is not None}

    headers = [(b"content-type", content_type.encode())]
    return Request({"type": "http", "method": "POST", "headers": headers}, receive)


async def content_of(asked: Request) -> bytes:
    upload = await open_upload(asked, 10**12)
    return b"".join([chunk async for chunk in upload.chunks])


@given(
    content=st.one_of(
        st.binary(max_size=300),
        # Pieces of the boundary itself, in any order.
        st.lists(st.sampled_from([b"\r", b"\n", b"--", b"XX", b"\r\n--X", b"a"])).map(b"".join),
    ),
    size=st.integers(min_value=1, max_value=50),
)
async def test_the_file_is_the_same_however_the_body_is_cut(content: bytes, size: int) -> None:
    if b"\r\n--XX" in b"\r\n" + content:
        return  # It would end the part: no client makes such a form.
    body = form(content)
    chunks = [body[at : at + size] for at in range(0, len(body), size)]
    assert await content_of(request(chunks)) == content


@pytest.mark.parametrize(
    ("body", "content_type"),
    [
        (b"", FORM),
        (b"no form at all", FORM),
        (form(b"a", 'name="file"'), FORM),
        (form(b"a")[:-12], FORM),
        (form(b"a").replace(b"--XX--", b"--XX\r\n\r\nmore\r\n--XX--"), FORM),
        (form(b"a"), "multipart/form-data"),
        (form(b"a"), "multipart/form-data; boundary=" + "x" * 300),
        (b"--XX\r\n" + b"h: v\r\n" * 10_000, FORM),
        (b"\r\n" * MEBIBYTE, FORM),
    ],
)
async def test_a_form_without_one_whole_file_is_refused(body: bytes, content_type: str) -> None:
    for size in (4096, len(body) or 1):
        chunks = [body[at : at + size] for at in range(0, len(body), size)]
        with pytest.raises(LakehouseError) as caught:
            await content_of(request(chunks, content_type))
        assert caught.value.http_status == 400


async def test_what_a_form_says_of_its_file() -> None:
    world = World()
    async with world.client("write") as client:
        files = {"upload": ("people.tsv", b"a\tb\n", "text/tab-separated-values; charset=cp1252")}
        answer = await client.post("/ingest/datasets/people", files=files)
    options = world.ingest.last("ingest")[1].options
    assert answer.status_code == 201
    assert world.ingest.received == [b"a\tb\n"]
    assert options.content_type == "text/tab-separated-values"
    assert (options.file_name, options.encoding) == ("people.tsv", "cp1252")


@pytest.mark.parametrize("as_form", [True, False])
async def test_memory_is_flat_in_the_size_of_the_file(as_form: bool) -> None:
    size = 64

    async def body() -> AsyncIterator[bytes]:
        if as_form:
            yield form(b"")[: -len(b"\r\n--XX--\r\n")]
        for _ in range(size):
            yield b"x" * MEBIBYTE
        if as_form:
            yield b"\r\n--XX--\r\n"

    chunks = body()

    async def receive() -> Message:
        chunk = await anext(chunks, None)
        return {"type": "http.request", "body": chunk or b"", "more_body": chunk is not None}

    headers = [(b"content-type", FORM.encode() if as_form else b"text/csv")]
    asked = Request({"type": "http", "method": "POST", "headers": headers}, receive)
    tracemalloc.start()
    try:
        upload = await open_upload(asked, 10**12)
        seen = 0
        async for chunk in upload.chunks:
            seen += len(chunk)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert seen == size * MEBIBYTE
    assert peak < 8 * MEBIBYTE
