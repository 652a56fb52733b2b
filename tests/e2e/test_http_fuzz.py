"""Malformed requests made from the OpenAPI document: none is a 5xx, each 4xx explains itself.

``LAKEHOUSE_FUZZ_REQUESTS`` sets how many (2,000), ``LAKEHOUSE_FUZZ_SEED`` repeats a run; CI asks
the same each time.
"""

from __future__ import annotations

import json
import os
import random
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import httpx
import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, given, seed, settings
from schemathesis import GenerationMode

from e2e.http_stack import Limits, Stack, http_stack

REQUESTS: Final = int(os.environ.get("LAKEHOUSE_FUZZ_REQUESTS", "2000"))
DRAWN: Final = 0 if "CI" in os.environ else random.randrange(2**32)
SEED: Final = int(os.environ.get("LAKEHOUSE_FUZZ_SEED", str(DRAWN)))
SOAK_REQUESTS: Final = max(REQUESTS, 10_000)

NASTY: Final = [
    b"",
    b"\x00",
    b"null",
    b"[]",
    b"{",
    b'{"sql": "select 1;;"}',
    b'{"sql": "select * from read_csv(\'/etc/passwd\')"}',
    b'{"sql": "' + b"(" * 5000 + b'"}',
    b'{"name": "\\ud800", "scopes": ["read"]}',
    b"\xff\xfe\x00\x01",
    b"\x1f\x8b\x08\x00garbage",
    b"\x28\xb5\x2f\xfdgarbage",
    b"PAR1garbagePAR1",
    b"ARROW1\x00\x00garbage",
    b"a,b\n1,2,3\n\x00\n",
    b"--x\r\n\r\n",
    b"1e999",
    b"[" * 2000,
]
HEADERS: Final[list[tuple[str, bytes]]] = [
    ("Accept", b"\xff"),
    ("Accept", b"text/csv;q=,/;,"),
    ("Content-Type", b"multipart/form-data"),
    ("Content-Type", b"multipart/form-data; boundary=x"),
    ("Content-Type", b"application/json; charset=\xff"),
    ("Content-Type", b"text/csv; charset=utf-7"),
    ("Content-Type", b"application/vnd.apache.parquet"),
    ("Content-Type", b"application/vnd.apache.arrow.stream"),
    ("Content-Encoding", b"zstd"),
    ("Content-Encoding", b"gzip"),
    ("Content-Encoding", b"br, gzip"),
    ("Idempotency-Key", b"\x01"),
    ("Idempotency-Key", b"the-same"),
    ("X-Request-Id", b"\xc3\x28"),
    ("Lakehouse-Timeout", b"-0"),
    ("Lakehouse-Timeout", b"1e-9"),
    ("Lakehouse-Min-Version", b"99999999999999999999"),
    ("Lakehouse-Min-Version", b"9223372036854775807"),
    ("Authorization", b"Bearer \xff"),
    ("Origin", b"null"),
    ("Range", b"bytes=0-0,-1"),
    ("If-Match", b"*"),
    ("If-None-Match", b"*"),
    ("If-None-Match", b'W/"\xff", ,"'),
    ("If-Modified-Since", b"Sun, 99 Foo 99999 99:99:99 GMT"),
    ("If-Range", b'"x'),
    ("Range", b"bytes=999999999999999999-"),
    ("Range", b"bytes=-0"),
    ("Content-MD5", b"\xff"),
    ("Content-Digest", b"sha-256=:AAAA:"),
    ("x-amz-checksum-sha256", b"="),
]
SEGMENTS: Final = [
    "primary",
    "..",
    ".",
    "%2e%2e",
    "a%2fb",
    "%00",
    "%ff",
    "people",
    "tickets",
    "faces",
    "roofs",
    "support",
    "01K5ZC1GQ0XW5T1T9Q0R8M7A2B",
    "x" * 600,
    "%F0%9F%98%80",
]
VALUES: Final[list[Any]] = [
    None,
    True,
    -1,
    0,
    2**63,
    2**200,
    1.5,
    1e300,
    "",
    "x" * 70_000,
    "\x00",
    "\ud800",
    "select 1",
    "2026-01-01T00:00:00Z",
    "9999-12-31T23:59:59.999999+14:00",
    "0001-01-01T00:00:00-14:00",
    [],
    {},
    [[[[]]]],
    {"": ""},
]
WORDS: Final = [
    "",
    "-1",
    "0",
    "1e9",
    "null",
    "\x00",
    "'",
    '"',
    "a,b",
    "[",
    "%",
    "\U0001f600",
    "😀" * 99,
]


@dataclass(frozen=True)
class Wire:
    """A request as it goes out."""

    method: str
    url: str
    headers: tuple[tuple[str, bytes], ...] = ()
    body: bytes | None = None


def from_schema(document: dict[str, Any], count: int) -> list[Wire]:
    """Requests that schemathesis makes of the document: half fit it, half break it somewhere."""
    cases: list[Wire] = []
    operations = [
        found.ok() for found in schemathesis.openapi.from_dict(document).get_all_operations()
    ]
    each = max(1, count // (2 * len(operations)))
    for operation in operations:
        for mode in (GenerationMode.POSITIVE, GenerationMode.NEGATIVE):
            cases += _drawn(operation, mode, each)
    return cases


def _drawn(operation: Any, mode: GenerationMode, count: int) -> list[Wire]:
    cases: list[Wire] = []

    @seed(SEED)
    @settings(
        max_examples=count,
        database=None,
        deadline=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @given(operation.as_strategy(generation_mode=mode))
    def collect(case: Any) -> None:
        wire = _wire(case)
        if wire is not None:
            cases.append(wire)

    try:
        collect()
    except Exception as error:
        # Where nothing can be broken (no parameter, no body) there is nothing to draw.
        if type(error).__name__ not in ("Unsatisfiable", "SkipTest"):
            raise
    return cases


def _wire(case: Any) -> Wire | None:
    """None for a case that HTTP clients cannot send at all."""
    try:
        sent = case.as_transport_kwargs(base_url="http://127.0.0.1")
        asked = httpx.Request(
            sent["method"],
            sent["url"],
            params=sent.get("params") or None,
            headers={k: str(v).encode() for k, v in (sent.get("headers") or {}).items()},
            content=sent.get("data") if isinstance(sent.get("data"), bytes | str) else None,
            json=sent.get("json"),
        )
        httpx.URL(str(asked.url))  # with its query it may be longer than a client takes
    except (ValueError, TypeError, httpx.InvalidURL):
        return None
    return Wire(asked.method, str(asked.url), tuple(_headers(asked)), asked.content)


def _headers(asked: httpx.Request) -> list[tuple[str, bytes]]:
    own = {"host", "content-length"}
    return [(k.decode(), v) for k, v in asked.headers.raw if k.decode().lower() not in own]


def from_examples(document: dict[str, Any], count: int) -> list[Wire]:
    """The document's own examples, broken in ways a schema does not know of."""
    dice = random.Random(SEED)
    operations = [
        (method.upper(), path, operation)
        for path, methods in document["paths"].items()
        for method, operation in methods.items()
    ]
    return [_broken(dice, *dice.choice(operations)) for _ in range(count)]


def _broken(dice: random.Random, method: str, path: str, operation: dict[str, Any]) -> Wire:
    for name in ("{name}", "{id}", "{bucket}", "{key}", "{dataset}", "{tag}", "{run}"):
        path = path.replace(name, dice.choice(SEGMENTS))
    names = [p["name"] for p in operation["parameters"] if p["in"] == "query"] + ["unknown"]
    query = [(dice.choice(names), dice.choice(WORDS)) for _ in range(dice.randrange(3))]
    headers = dice.sample(HEADERS, dice.randrange(3))
    body = None
    if "requestBody" in operation or dice.random() < 0.1:
        body, content_type = _body(dice, operation)
        if not any(name == "Content-Type" for name, _ in headers):
            headers.append(("Content-Type", content_type.encode()))
    if dice.random() < 0.05:
        method = dice.choice(["PUT", "HEAD", "OPTIONS", "TRACE", "BREW", "get"])
    url = httpx.URL(f"http://127.0.0.1{path}", params=query)
    return Wire(method, str(url), tuple(headers), body)


def _body(dice: random.Random, operation: dict[str, Any]) -> tuple[bytes, str]:
    content = operation.get("requestBody", {}).get("content", {"application/json": {}})
    media_type = dice.choice(list(content))
    example = content[media_type].get("example", "")
    if dice.random() < 0.3:
        body = dice.choice(NASTY)
    elif isinstance(example, str):
        body = example.encode()
    else:
        body = json.dumps(_mutated(dice, example)).encode()
    if body and dice.random() < 0.2:
        at = dice.randrange(len(body))
        body = body[:at] + bytes([dice.randrange(256)]) + body[at + dice.randrange(3) :]
    return body, media_type


def _mutated(dice: random.Random, value: Any) -> Any:
    """The value with something in it replaced, dropped, added or repeated."""
    if isinstance(value, dict) and value and dice.random() < 0.8:
        key = dice.choice(list(value))
        rest = {k: v for k, v in value.items() if k != key}
        return dice.choice(
            [rest, {**rest, key + "x": value[key]}, {**value, key: _mutated(dice, value[key])}]
        )
    if isinstance(value, list) and value and dice.random() < 0.7:
        return dice.choice([[], value * 2, [_mutated(dice, value[0])], [*value, None]])
    return dice.choice(VALUES)


async def fill(client: httpx.AsyncClient) -> None:
    """What the document's examples speak of, so that requests get further than to a 404."""
    rows = b"id,title,body,status\n7,roof,It leaks where the chimney meets it.,open\n"
    sent: list[tuple[str, dict[str, Any]]] = [
        ("/ingest/datasets/tickets?key=id", {"content": rows}),
        (
            "/vectors/indexes",
            {"json": {"name": "tickets", "dataset": "tickets", "columns": ["title", "body"]}},
        ),
        ("/vectors/indexes/tickets/build", {"json": {"wait_seconds": 60}}),
        ("/vectors/indexes", {"json": {"name": "faces", "dimensions": 3}}),
        ("/vectors/indexes/faces/vectors", {"json": [{"id": "a", "vector": [1, 0, 0]}]}),
        ("/vectors/search", {"json": {"index": "tickets", "text": "leaks", "record": "durable"}}),
        ("/vectors/evals", {"json": {"name": "roofs", "index": "tickets", "samples": 1}}),
        ("/memory/support/turns", {"json": {"text": "the roof leaks", "who": "ann"}}),
    ]
    for path, body in sent:
        answer = await client.post(path, **body)
        assert answer.status_code < 300, answer.text


async def send(stack: Stack, wires: list[Wire]) -> Counter[int]:
    """Send each; returns how often each status came."""
    seen: Counter[int] = Counter()
    async with stack.client() as client:
        for wire in wires:
            # A feed that follows has no end of its own.
            bound = [("Lakehouse-Timeout", b"1")] if "/journal/feed" in wire.url else []
            answer = await client.request(
                wire.method, wire.url, headers=[*wire.headers, *bound], content=wire.body
            )
            seen[answer.status_code] += 1
            check(wire, answer)
    return seen


def check(wire: Wire, answer: httpx.Response) -> None:
    """Not a 5xx; a refusal is a whole problem document that gives nothing away."""
    told = f"seed {SEED}: {wire} -> {answer.status_code} {answer.text[:2000]}"
    # To add a bucket asks its server, to answer a question asks a model: they may not be there.
    asked = ("/storage/buckets", "/vectors/rag")
    asks = wire.method == "POST" and httpx.URL(wire.url).path in asked
    assert answer.status_code < 500 or (asks and answer.status_code in (503, 504)), told
    if answer.status_code < 400 or wire.method == "HEAD":
        return
    assert answer.headers["content-type"] == "application/problem+json", told
    body = answer.json()
    assert {"type", "title", "status", "kind", "detail", "request_id"} <= body.keys(), told
    assert body["status"] == answer.status_code, told
    assert body["request_id"] == answer.headers["x-request-id"], told
    assert body["detail"] == body["detail"].strip() != "", told
    for hidden in ("Traceback", "site-packages", '.py"', "root:x:0"):
        assert hidden not in answer.text, told


async def fuzz(folder: Path, requests: int) -> None:
    """Send that many to a gateway of their own; it must go on answering."""
    print(f"LAKEHOUSE_FUZZ_SEED={SEED}")
    async with http_stack(folder, limits=Limits(query_seconds=5)) as stack:
        document = stack.app.openapi()
        wires = from_schema(document, requests // 6)
        wires += from_examples(document, requests - len(wires))
        assert len(wires) >= requests
        random.Random(SEED).shuffle(wires)
        async with stack.client(timeout=60) as client:
            await fill(client)
        seen = await send(stack, wires)
        async with stack.client() as client:
            assert (await client.get("/ready")).status_code == 200
            counted = await client.post("/query/sql", json={"sql": "select 1 as n"})
            assert counted.json()["rows"] == [[1]]
    print(dict(seen))
    refused = sum(count for status, count in seen.items() if 400 <= status < 500)
    assert refused > requests // 2


@pytest.mark.timeout(60 + REQUESTS // 10)
async def test_no_request_is_a_5xx(tmp_path: Path) -> None:
    await fuzz(tmp_path, REQUESTS)


@pytest.mark.soak
@pytest.mark.timeout(60 + SOAK_REQUESTS // 10)
async def test_no_request_of_many_is_a_5xx(tmp_path: Path) -> None:
    await fuzz(tmp_path, SOAK_REQUESTS)
