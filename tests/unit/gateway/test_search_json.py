"""A search is read and answered on a way of its own, and nobody can tell."""

from __future__ import annotations

import json
from dataclasses import fields
from typing import Any

import orjson
import pytest
from pydantic_core import PydanticCustomError

from lakehouse.contracts.vectors import Hit, Hits, SearchResult
from lakehouse.errors import LakehouseError
from lakehouse.gateway import vector_bodies
from lakehouse.gateway.bodies import parse_body
from lakehouse.gateway.vector_bodies import SearchBody
from lakehouse.gateway.vector_shapes import (
    HitShape,
    HitsShape,
    ManySearchShape,
    OneSearchShape,
    search_json,
)

HIT = Hit('["a", 7]', 0.5, 2, 3, 9, "a text", 4)
RESULT = SearchResult(
    (Hits((HIT,), "01R"), Hits(())), "docs", 1, "m", "parquet", "hnsw", 7, False, 9, 0.12345, 1.5
)

BODIES: list[Any] = [
    {"index": "docs", "text": "who repairs roofs", "k": 3},
    {"index": "docs", "vector": [0.5, 1, -2e-3], "k": "7", "exact": 1},
    {"index": "docs", "vector": "AACAPwAAgD8=", "filter": "a > 1", "ef": 40.0},
    {"index": "docs", "queries": [{"text": "a"}, {"vector": [1.0, 2.0]}], "number": 2},
    {"index": "docs", "text": "a", "k": 0},
    {"index": "docs", "text": "a", "k": 2**70},
    {"index": "docs", "text": "a", "K": 3},
    {"index": "docs", "text": 7},
    {"index": "docs", "vector": [1.0, "x"]},
    {"index": "docs", "vector": []},
    {"index": "docs", "queries": []},
    {"index": ["docs"]},
    [1],
    None,
]
TEXTS = [
    b"",
    b"{",
    b'{"index": "docs", "vector": [NaN]}',
    b'{"index": "docs", "vector": [1e999]}',
    b'{"index": "docs", "text": "\\ud800"}',
    b'{"index": "docs", "text": "\xff"}',
    b'{"index": "docs", "text": "a", "text": "b"}',
    b"[" * 5000,
]


def read(body: bytes) -> Any:
    """The body, or what is said to be wrong with it."""
    try:
        return parse_body(SearchBody, body)
    except LakehouseError as error:
        return error.kind, error.message, error.fields


@pytest.mark.parametrize("body", [*(json.dumps(each).encode() for each in BODIES), *TEXTS])
def test_a_body_is_read_as_any_other(body: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    got = read(body)
    monkeypatch.setattr(SearchBody, "quickly", SearchBody.model_validate_json)
    assert got == read(body)


GIVEN: list[Any] = [
    [0.1, -2, 3e38, 1e-45, -0.0, True],
    [3.4028235677973366e38],
    [1e39],
    [float("inf")],
    [float("nan"), 1.0],
    [1.0, None],
    [1.0, "1"],
    [10**400],
    [[1.0]],
    [],
    [0.5] * 8_193,
    "AACAPwAAgD8=",
    {},
]


@pytest.mark.parametrize("given", GIVEN, ids=lambda given: repr(given)[:30])
def test_numbers_are_packed_as_float32_has_them(given: Any) -> None:
    def of(make: Any) -> Any:
        try:
            return make(given)
        except PydanticCustomError as error:
            return str(error)

    packed = of(vector_bodies._vector)
    one = of(vector_bodies.float32)
    assert packed == (one if isinstance(one, str) else one.tobytes())


def test_an_answer_is_laid_out_as_it_is_described() -> None:
    one = orjson.loads(orjson.dumps(search_json(RESULT, many=False)))
    assert list(one) == [field.name for field in fields(OneSearchShape)]
    assert list(one["hits"][0]) == [field.name for field in fields(HitShape)]
    assert one["hits"] == [
        {
            "key": ["a", 7],
            "score": 0.5,
            "chunk": 2,
            "span": [3, 9],
            "text": "a text",
            "version": 4,
            "stages": [],
            "index": "",
        }
    ]
    assert (one["retrieval_id"], one["embed_ms"], one["version"]) == ("01R", 0.123, 9)
    many = orjson.loads(orjson.dumps(search_json(RESULT, many=True)))
    assert list(many) == [field.name for field in fields(ManySearchShape)]
    assert [list(each) for each in many["results"]] == [
        [field.name for field in fields(HitsShape)]
    ] * 2
    assert many["results"][0]["hits"] == one["hits"]
