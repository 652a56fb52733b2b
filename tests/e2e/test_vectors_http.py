"""Indexes, searches and given vectors over HTTP against the real services; words are hashed."""

from __future__ import annotations

import asyncio
import base64
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pyarrow as pa
import pytest
import pytest_asyncio

from e2e.http_stack import http_stack

pytestmark = pytest.mark.asyncio(loop_scope="module")

ONE = "/vectors/indexes/posts"
POSTS = (
    b"id,status,body\n"
    b"1,open,the roof leaks in the rain\n"
    b"2,open,the invoice has a wrong address\n"
    b"3,done,the door does not lock\n"
    b"4,open,\n"
)


@pytest_asyncio.fixture(loop_scope="module", scope="module")
async def client(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[httpx.AsyncClient]:
    folder: Path = tmp_path_factory.mktemp("vectors-http")
    async with http_stack(folder) as stack, stack.client(timeout=60) as one:
        csv = {"Content-Type": "text/csv"}
        await call(one, "POST", "/ingest/datasets/posts?key=id", 201, content=POSTS, headers=csv)
        body = {"name": "posts", "dataset": "posts", "columns": ["body"]}
        await call(one, "POST", "/vectors/indexes", 202, json=body)
        await call(one, "POST", f"{ONE}/build", json={"wait_seconds": 60})
        yield one


async def call(
    client: httpx.AsyncClient, method: str, path: str, status: int = 200, **how: Any
) -> Any:
    answer = await client.request(method, path, **how)
    assert answer.status_code == status, f"{method} {path}: {answer.text}"
    return answer.json()


async def found(client: httpx.AsyncClient, **asked: Any) -> list[Any]:
    told = await call(client, "POST", "/vectors/search", json={"index": "posts", **asked})
    return [hit["key"] for hit in told["hits"]]


def stream(table: pa.Table) -> bytes:
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table)
    raw: bytes = sink.getvalue().to_pybytes()
    return raw


async def test_an_index_tells_what_it_is(client: httpx.AsyncClient) -> None:
    told = await call(client, "GET", ONE)
    version = told["versions"][0]
    assert (told["live"], told["building"], told["behind"]) == (1, False, False)
    assert (version["state"], version["documents"]) == ("ready", 3)
    assert version["embedded_texts"] >= 3
    body: dict[str, Any] = {"name": "posts", "dataset": "posts", "columns": ["body"]}
    again = await call(client, "POST", "/vectors/indexes", 200, json=body)
    assert not again["created"]
    other = await call(
        client, "POST", "/vectors/indexes", 409, json={**body, "columns": ["status"]}
    )
    assert other["kind"] == "conflict"
    listed = await call(client, "GET", "/vectors/indexes?dataset=posts")
    assert [one["name"] for one in listed["indexes"]] == ["posts"]


async def test_filters_and_many_queries(client: httpx.AsyncClient) -> None:
    assert await found(client, text="roof rain", k=1) == [[1]]
    assert len(await found(client, text="roof rain", k=100)) == 3
    assert await found(client, text="roof rain", filter="status = 'done'") == [[3]]
    assert await found(client, text="roof rain", filter="id > 100") == []
    queries = [{"text": "wrong invoice"}, {"text": "lock the door"}]
    body = {"index": "posts", "queries": queries, "k": 1}
    told = await call(client, "POST", "/vectors/search", json=body)
    assert [one["hits"][0]["key"] for one in told["results"]] == [[2], [3]]
    stored = (await call(client, "GET", f"{ONE}/vectors/2"))["vectors"][0]
    assert stored["text"][slice(*stored["span"])] == "the invoice has a wrong address"
    packed = base64.b64encode(np.array(stored["vector"], "<f4").tobytes()).decode()
    for vector in (stored["vector"], packed):
        assert (await found(client, vector=vector, exact=True))[0] == [2]


async def test_changes_of_rows_are_found(client: httpx.AsyncClient) -> None:
    rows = "/ingest/datasets/posts/rows"
    before = (await call(client, "GET", ONE))["versions"][0]["embedded_texts"]
    await call(client, "POST", rows, json=[{"id": 5, "status": "open", "body": "a stuck lift"}])
    await call(client, "POST", f"{ONE}/build", json={"wait_seconds": 60})
    assert (await found(client, text="stuck lift", k=1)) == [[5]]
    await call(client, "DELETE", rows, json=[5])
    for _ in range(200):
        if await found(client, text="stuck lift", filter="id = 5") == []:
            break
        await asyncio.sleep(0.05)
    assert [5] not in await found(client, text="stuck lift", k=100)
    told = await call(client, "GET", ONE)
    assert told["versions"][0]["embedded_texts"] == before + 1


async def test_another_backend_beside_and_back(client: httpx.AsyncClient) -> None:
    held = await call(client, "GET", "/profiles/default")
    profile = {**held["profile"], "name": "beside", "vector_backend": "lance"}
    made = await call(client, "PUT", "/profiles/beside?expected_version=0", 201, json=profile)
    await call(client, "PUT", "/profiles/beside?expected_version=0", 409, json=profile)
    build = {"profile": "beside", "cut_over": False, "wait_seconds": 60}
    told = await call(client, "POST", f"{ONE}/build", json=build)
    assert (told["live"], [one["number"] for one in told["versions"]]) == (1, [1, 2])
    assert made["profile"]["vector_backend"] == told["versions"][1]["profile"]["vector_backend"]
    report = await call(client, "POST", f"{ONE}/compare", json={"k": 2})
    assert (report["first"]["number"], report["second"]["number"]) == (1, 2)
    assert report["first"]["recall"] == report["second"]["recall"] == report["overlap"] == 1.0
    judged = {"queries": ["roof rain"], "relevant": [[[1]]], "k": 1}
    report = await call(client, "POST", f"{ONE}/compare", json=judged)
    assert report["second"]["relevant_found"] == 1.0
    assert (await call(client, "POST", f"{ONE}/cut-over", json={"number": 2}))["live"] == 2
    assert await found(client, text="roof rain", k=1) == [[1]]
    back = await call(client, "POST", f"{ONE}/cut-over")
    assert (back["live"], back["previous"]) == (1, 2)
    gone = await call(client, "DELETE", f"{ONE}?number=2")
    assert gone["versions_deleted"] == 1


async def test_given_vectors_as_json_and_as_arrow(client: httpx.AsyncClient) -> None:
    made = {"name": "faces", "dimensions": 3}
    await call(client, "POST", "/vectors/indexes", 201, json=made)
    path = "/vectors/indexes/faces/vectors"
    given = [{"id": "a/b", "vector": [1, 0, 0], "text": "Ann"}, {"id": "c", "vector": [0, 1, 0]}]
    assert (await call(client, "POST", path, json=given))["inserted"] == 2
    table = pa.table({"id": ["c", "d"], "vector": [[0.0, 0.9, 0.1], [0.0, 0.0, 1.0]]})
    headers = {"Content-Type": "application/vnd.apache.arrow.stream"}
    done = await call(client, "POST", path, content=stream(table), headers=headers)
    assert (done["inserted"], done["updated"]) == (1, 1)
    assert await found(client, index="faces", vector=[1, 0.1, 0], k=2) == ["a/b", "c"]
    one = await call(client, "GET", f"{path}/a%2Fb")
    assert (one["vectors"][0]["key"], one["vectors"][0]["text"]) == ("a/b", "Ann")
    some = await call(client, "GET", f"{path}?ids=d&ids=none")
    assert (some["vectors"][0]["vector"], some["missing"]) == ([0.0, 0.0, 1.0], ["none"])
    gone = await call(client, "DELETE", path, json=["d", "none"])
    assert (gone["deleted"], gone["missing"]) == (1, 1)
    told = await call(client, "GET", "/vectors/indexes/faces")
    assert (told["versions"][0]["documents"], told["versions"][0]["chunks"]) == (2, 2)
    await call(client, "GET", f"{path}/d", 404)
    await call(client, "DELETE", "/vectors/indexes/faces")
    await call(client, "GET", "/vectors/indexes/faces", 404)


REFUSED: list[tuple[str, dict[str, Any], int]] = [
    ("/vectors/search", {"index": "posts", "text": " \n"}, 400),
    ("/vectors/search", {"index": "posts", "text": "x" * (1 << 20) + "x"}, 400),
    ("/vectors/search", {"index": "posts", "text": "x", "k": 0}, 400),
    ("/vectors/search", {"index": "posts", "text": "x", "k": 10**6}, 400),
    ("/vectors/search", {"index": "posts", "vector": [1.0, 2.0]}, 400),
    ("/vectors/search", {"index": "posts", "text": "x", "filter": "nope = 1"}, 400),
    ("/vectors/search", {"index": "posts", "text": "x", "filter": "1); drop table posts"}, 400),
    ("/vectors/search", {"index": "posts", "text": "x", "filter": "((("}, 400),
    ("/vectors/search", {"index": "posts", "text": "x", "number": 9}, 404),
    ("/vectors/search", {"index": "posts", "text": "x", "model": "other"}, 409),
    ("/vectors/search", {"index": "post", "text": "x"}, 404),
    ("/vectors/search", {"index": "posts", "queries": [{"text": "x"}] * 100_000}, 400),
    ("/vectors/indexes", {"name": "i", "dataset": "post", "columns": ["body"]}, 404),
    ("/vectors/indexes", {"name": "i", "dataset": "posts", "columns": ["bodi"]}, 404),
    ("/vectors/indexes", {"name": "i", "dataset": "posts", "columns": []}, 400),
    (
        "/vectors/indexes",
        {"name": "i", "dataset": "posts", "columns": ["body"], "profile": "defalt"},
        404,
    ),
    ("/vectors/indexes", {"name": "i", "dimensions": 0}, 400),
    ("/vectors/indexes", {"name": "a/b", "dimensions": 3}, 400),
    (f"{ONE}/vectors", [{"id": "a", "vector": [1]}], 409),  # type: ignore[list-item]
    (f"{ONE}/cut-over", {"number": 9}, 404),
]


@pytest.mark.parametrize(("path", "body", "status"), REFUSED)
async def test_what_is_refused(
    client: httpx.AsyncClient, path: str, body: Any, status: int
) -> None:
    before = await call(client, "GET", "/vectors/indexes")
    told = await call(client, "POST", path, status, content=json.dumps(body))
    assert told["detail"]
    assert "Traceback" not in str(told)
    assert len(str(told)) < 5000
    after = await call(client, "GET", "/vectors/indexes")
    assert [one["version"] for one in after["indexes"]] == [
        one["version"] for one in before["indexes"]
    ]
