"""Searches over HTTP: what they ask the contract for, what they answer, what is refused."""

from __future__ import annotations

import base64
import dataclasses
import struct
from typing import Any

import pytest

from lakehouse.contracts import vectors as v
from lakehouse.contracts.as_of import AsOf
from lakehouse.errors import ErrorKind, LakehouseError
from lakehouse.model import retrieval as r
from unit.gateway.fakes import VERSION, World
from unit.gateway.vector_fakes import hit

ONE_TEXT = '{"text":"b"}'
PACKED = struct.pack("<3f", 0.5, -1.0, 3e-5)

SEARCHES: list[tuple[dict[str, Any], v.SearchRequest]] = [
    ({"text": "a"}, v.SearchRequest("tickets", (v.VectorQuery("a"),))),
    (
        {"vector": [0.5, -1, 3e-5], "k": 10_000, "exact": True},
        v.SearchRequest("tickets", (v.VectorQuery("", PACKED),), 10_000, exact=True),
    ),
    (
        {"vector": base64.b64encode(PACKED).decode(), "number": 2, "ef": 300, "model": "m"},
        v.SearchRequest("tickets", (v.VectorQuery("", PACKED),), number=2, ef=300, model="m"),
    ),
    (
        {"queries": [{"text": "a"}, {"vector": [0.5, -1, 3e-5]}], "filter": "a = 'b'", "k": 1},
        v.SearchRequest("tickets", (v.VectorQuery("a"), v.VectorQuery("", PACKED)), 1, "a = 'b'"),
    ),
    (
        {"text": "a", "mode": "text", "record": "none", "as_of": 700},
        v.SearchRequest(
            "tickets",
            (v.VectorQuery("a"),),
            mode=r.SearchMode.TEXT,
            as_of=AsOf(version=700),
            record=r.RecordClass.NONE,
        ),
    ),
    (
        {
            "text": "a",
            "vector": [0.5, -1, 3e-5],
            "mode": "hybrid",
            "also": ["posts", "faces"],
            "candidates": 200,
            "rerank": "sentences",
            "rerank_max": 50,
            "as_of": "tag:march",
            "record": "durable",
        },
        v.SearchRequest(
            "tickets",
            (v.VectorQuery("a", PACKED),),
            mode=r.SearchMode.HYBRID,
            also=("posts", "faces"),
            candidates=200,
            rerank=r.Rerank.SENTENCES,
            rerank_max=50,
            as_of=AsOf(tag="march"),
            record=r.RecordClass.DURABLE,
        ),
    ),
]


@pytest.mark.parametrize(("body", "expected"), SEARCHES)
async def test_searches(body: dict[str, Any], expected: v.SearchRequest) -> None:
    world = World()
    async with world.client("read") as client:
        answer = await client.post("/vectors/search", json={"index": "tickets", **body})
    assert answer.status_code == 200, answer.text
    assert world.vectors.last("search")[1] == expected
    told = answer.json()
    found = told["results"][1]["hits"] if "queries" in body else told["hits"]
    assert ("hits" in told, "results" in told) == ("queries" not in body, "queries" in body)
    assert [one["key"] for one in found] == [[7], ["a", 1], "face-1", "[not JSON]"]
    assert found[0] == {
        "key": [7],
        "score": 0.5,
        "chunk": 2,
        "span": [3, 8],
        "text": "a text",
        "version": 790,
        "stages": [],
        "index": "",
    }
    about = ("number", "model", "backend", "served_by", "source_version", "behind", "version")
    values = [1, "all-minilm", "parquet", "hnsw+exact", 790, True, VERSION]
    assert [told[name] for name in about] == values
    assert (told["embed_ms"], told["search_ms"]) == (3.5, 0.25)
    assert (told["mode"], told["degraded"], told["degraded_reason"]) == ("vector", False, "")
    assert (told["results"][1] if "queries" in body else told)["retrieval_id"] == ""
    assert answer.headers["lakehouse-version"] == str(VERSION)


async def test_a_search_of_stages_says_which_brought_a_hit() -> None:
    world = World()
    stages = (r.StageScore(r.Stage.VECTOR, 2, 0.5), r.StageScore(r.Stage.FUSION, 1, 0.03))
    found = dataclasses.replace(hit("[7]", 0.03), stages=stages, index="posts")
    about = ("tickets", 1, "m", "parquet", "hnsw+bm25", 790, True, VERSION)
    world.vectors.answer = v.SearchResult(
        (v.Hits((found,), "R7"),),
        *about,
        mode=r.SearchMode.HYBRID,
        degraded=True,
        degraded_reason="no model",
    )
    async with world.client() as client:
        answer = await client.post("/vectors/search", json={"index": "tickets", "text": "b"})
    told = answer.json()
    assert (told["retrieval_id"], told["mode"], told["degraded"]) == ("R7", "hybrid", True)
    assert told["degraded_reason"] == "no model"
    assert told["hits"][0]["stages"] == [
        {"stage": "vector", "rank": 2, "score": 0.5},
        {"stage": "fusion", "rank": 1, "score": 0.03},
    ]
    assert told["hits"][0]["index"] == "posts"


async def test_a_query_of_100_kb_is_taken() -> None:
    world = World()
    text = "ß" * 50_000
    async with world.client() as client:
        answer = await client.post("/vectors/search", json={"index": "tickets", "text": text})
    assert answer.status_code == 200, answer.text[:200]
    assert world.vectors.last("search")[1].queries == (v.VectorQuery(text),)


@pytest.mark.parametrize(
    ("body", "hint"),
    [
        ({"txet": "a"}, "did you mean text"),
        ({"text": "a", "K": 3}, "did you mean k"),
        ({"text": "a", "mode": "hibryd"}, "did you mean hybrid"),
        ({"text": "a", "rerank": "sentence"}, "did you mean sentences"),
        ({"queries": [{"text": "a"}, {"txt": "b"}]}, "did you mean text"),
        ({"text": "a", "as_of": "yesterday"}, "for example 812"),
        ({"text": "a", "vector": [1]}, "mode hybrid"),
        ({"vector": [1], "mode": "text"}, "give a text"),
    ],
    ids=str,
)
async def test_what_was_meant_is_said(body: dict[str, Any], hint: str) -> None:
    async with World().client() as client:
        answer = await client.post("/vectors/search", json={"index": "a", **body})
    assert answer.status_code == 400, answer.text
    assert hint in answer.json()["hint"], answer.text


@pytest.mark.parametrize(
    ("body", "words"),
    [
        ("{}", "body.index"),
        ('{"index": "a", "text": "b", "mode": "both"}', "body.mode"),
        ('{"index": "a", "text": "b", "also": [""]}', "body.also.0"),
        ('{"index": "a", "text": "b", "candidates": 10001}', "body.candidates"),
        ('{"index": "a", "text": "b", "rerank": true}', "body.rerank"),
        ('{"index": "a", "text": "b", "rerank_max": 201}', "body.rerank_max"),
        ('{"index": "a", "text": "b", "as_of": -1}', "body.as_of"),
        ('{"index": "a", "text": "b", "record": "maybe"}', "body.record"),
        ('{"index": "a", "text": "b", "also": ["c"%s]}' % (8 * ', "c"'), "body.also"),
        ('{"index": "a"}', "text, a vector"),
        ('{"index": "a", "text": "b", "vector": [1]}', "text, a vector"),
        ('{"index": "a", "text": "b", "queries": [{"text": "b"}]}', "text, a vector"),
        ('{"index": "a", "text": ""}', "body.text"),
        ('{"index": "a", "text": 7}', "body.text"),
        ('{"index": "a", "text": "b", "k": 0}', "body.k"),
        ('{"index": "a", "text": "b", "k": 1000000}', "body.k"),
        ('{"index": "a", "text": "b", "K": 1}', "body.k"),
        ('{"index": "a", "vector": []}', "empty"),
        ('{"index": "a", "vector": [1, NaN]}', "value 1 of the vector is not finite"),
        ('{"index": "a", "vector": [1, -Infinity]}', "value 1 of the vector is not finite"),
        ('{"index": "a", "vector": [1, 1e300]}', "value 1"),
        ('{"index": "a", "vector": [1, "2"]}', "value 1"),
        ('{"index": "a", "vector": [null, 2]}', "value 0"),
        ('{"index": "a", "vector": [[1], [2]]}', "value 0"),
        ('{"index": "a", "vector": [1, %s]}' % (10**400), "value 1"),
        ('{"index": "a", "vector": {"0": 1}}', "array of numbers"),
        ('{"index": "a", "vector": "x"}', "base64"),
        ('{"index": "a", "vector": "AAAA"}', "whole number"),
        ('{"index": "a", "vector": "AADAfw=="}', "not finite"),
        (f'{{"index": "a", "vector": [{",".join("1" * 8193)}]}}', "8192"),
        ('{"index": "a", "queries": [{"text": "b"}, {}]}', "either a text or a vector"),
        ('{"index": "a", "queries": [{"text": "b", "vector": [1]}]}', "either a text or a vector"),
        ('{"index": "a", "queries": ["b"]}', "body.queries.0"),
        (f'{{"index": "a", "queries": [{",".join([ONE_TEXT] * 100_000)}]}}', "1000"),
        ("[1]", "body"),
        ("{", "body"),
        ("\x00", "body"),
    ],
    ids=lambda value: str(value)[:40],
)
async def test_searches_that_are_none(body: str, words: str) -> None:
    world = World()
    async with world.client() as client:
        answer = await client.post("/vectors/search", content=body)
    assert answer.status_code == 400, answer.text
    assert words in answer.json()["detail"], answer.text
    assert len(answer.text) < 10_000
    assert world.vectors.calls == []


async def test_what_is_wrong_with_a_vector_is_said_in_our_words() -> None:
    async with World().client() as client:
        answer = await client.post("/vectors/search", content='{"index": "a", "vector": [1, NaN]}')
    fault = "value 1 of the vector is not finite, or too large for float32"
    assert answer.json()["detail"] == f"body.vector: {fault}"


async def test_a_search_that_is_too_large() -> None:
    body = b'{"index": "a", "text": "' + b"x" * v.VECTORS_BYTES_MAX + b'"}'
    async with World().client() as client:
        large = await client.post("/vectors/search", content=body)
        megabyte = await client.post("/vectors/search", content=body[: 2 << 20] + b'"}')
    assert large.status_code == 413
    assert (megabyte.status_code, megabyte.json()["kind"]) == (400, "invalid")
    assert "at most 1048576" in megabyte.json()["detail"]


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (LakehouseError(ErrorKind.CONFLICT, "the model changed under its name"), 409),
        (LakehouseError(ErrorKind.NOT_FOUND, "no such index"), 404),
        (LakehouseError(ErrorKind.EXHAUSTED, "queue full", retry_after_seconds=2), 429),
        (LakehouseError(ErrorKind.UNAVAILABLE, "no model"), 503),
    ],
)
async def test_what_goes_wrong_is_told(error: LakehouseError, status: int) -> None:
    world = World()
    world.vectors.failing["search"] = error
    async with world.client() as client:
        answer = await client.post("/vectors/search", json={"index": "a", "text": "b"})
    assert (answer.status_code, answer.json()["detail"]) == (status, error.message)


@pytest.mark.parametrize(
    ("fields", "detail"),
    [
        ({"as_of": -1}, "body.as_of: input should be greater than or equal to 0"),
        ({"also": list("abcdefghi")}, "body.also: list should have at most 8 items, not 9"),
    ],
)
async def test_a_refusal_speaks_of_what_was_sent(fields: dict[str, object], detail: str) -> None:
    world = World()
    async with world.client("read") as client:
        body = {"index": "posts", "text": "a", **fields}
        answer = await client.post("/vectors/search", json=body)
    assert (answer.status_code, answer.json()["detail"]) == (400, detail)
    assert all("constrained" not in one["where"] for one in answer.json()["errors"])
