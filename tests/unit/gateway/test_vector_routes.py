"""The routes of vectors and profiles: what they ask the contracts for, what they answer."""

from __future__ import annotations

import base64
import dataclasses
import struct
from typing import Any

import pyarrow as pa
import pytest

from lakehouse.contracts import profiles as p
from lakehouse.contracts import vectors as v
from lakehouse.gateway import given_vectors
from lakehouse.gateway.vector_shapes import VersionShape
from lakehouse.model.vectors import (
    Chunking,
    ChunkMethod,
    Distance,
    IndexVersion,
    Profile,
    VectorBackend,
)
from unit.gateway.fakes import VERSION, World

ONE = "/vectors/indexes/tickets"
PACKED = struct.pack("<3f", 0.5, -1.0, 3e-5)

READS: list[tuple[str, str, str, Any]] = [
    (
        "/vectors/indexes?dataset=t&limit=5&cursor=x",
        "vectors",
        "list_indexes",
        v.ListIndexesRequest("t", 5, "x"),
    ),
    (ONE, "vectors", "get_index", v.IndexRequest("tickets")),
    (f"{ONE}/vectors/7", "vectors", "get_vectors", v.GetVectorsRequest("tickets", ("7",))),
    (
        f"{ONE}/vectors/%5B%22a%2Fb%22%2C7%5D?number=2",
        "vectors",
        "get_vectors",
        v.GetVectorsRequest("tickets", ('["a/b",7]',), 2),
    ),
    (
        f"{ONE}/vectors?ids=%5B1,2%5D&ids=b",
        "vectors",
        "get_vectors",
        v.GetVectorsRequest("tickets", ("[1,2]", "b")),
    ),
    ("/profiles", "profiles", "list", p.ListProfilesRequest()),
    ("/profiles/default", "profiles", "get", p.ProfileRequest("default")),
]


@pytest.mark.parametrize(("path", "noun", "method", "expected"), READS)
async def test_what_is_asked_for(path: str, noun: str, method: str, expected: object) -> None:
    world = World()
    async with world.client("read") as client:
        answer = await client.get(path)
    assert answer.status_code == 200, answer.text
    assert getattr(world, noun).last(method)[1] == expected


@pytest.mark.parametrize("path", ["/vectors/indexes/a%2Fb", "/vectors/indexes/a%2Fb/vectors/7"])
async def test_a_slash_in_the_name_of_an_index(path: str) -> None:
    async with World().client() as client:
        answer = await client.get(path)
    assert (answer.status_code, "slash" in answer.json()["detail"]) == (400, True)


CHANGES: list[tuple[str, str, Any, str, Any]] = [
    (
        "POST",
        "/vectors/indexes",
        {"name": "i", "dataset": "d", "columns": ["a", "b"], "profile": "x", "build": False},
        "create_index",
        v.CreateIndexRequest("i", "d", ("a", "b"), "x", build=False),
    ),
    (
        "POST",
        "/vectors/indexes",
        {"name": "i", "dimensions": 3},
        "create_index",
        v.CreateIndexRequest("i", dimensions=3),
    ),
    ("POST", f"{ONE}/build", None, "build", v.BuildRequest("tickets")),
    (
        "POST",
        f"{ONE}/build",
        {"new_version": True, "profile": "x", "cut_over": False, "wait_seconds": 600},
        "build",
        v.BuildRequest("tickets", True, "x", False, 600),
    ),
    ("POST", f"{ONE}/cut-over", None, "cut_over", v.CutOverRequest("tickets")),
    ("POST", f"{ONE}/cut-over", {"number": 2}, "cut_over", v.CutOverRequest("tickets", 2)),
    ("POST", f"{ONE}/compare", None, "compare", v.CompareRequest("tickets")),
    (
        "POST",
        f"{ONE}/compare",
        {
            "first": 1,
            "second": 2,
            "queries": ["a"],
            "relevant": [[[7], ["a", 1], "[8]", "x"]],
            "k": 3,
            "samples": 9,
        },
        "compare",
        v.CompareRequest(
            "tickets", 1, 2, ("a",), (v.Relevant(("[7]", '["a",1]', "[8]", "x")),), 3, 9
        ),
    ),
    ("DELETE", f"{ONE}?number=2", None, "delete_index", v.DeleteIndexRequest("tickets", 2)),
    ("DELETE", ONE, None, "delete_index", v.DeleteIndexRequest("tickets")),
    (
        "DELETE",
        f"{ONE}/vectors",
        ["a", "[7]"],
        "delete_vectors",
        v.DeleteVectorsRequest("tickets", ("a", "[7]")),
    ),
]


@pytest.mark.parametrize(("method", "path", "body", "called", "expected"), CHANGES)
async def test_changes(method: str, path: str, body: Any, called: str, expected: object) -> None:
    world = World()
    async with world.client("write") as client:
        answer = await client.request(method, path, **({} if body is None else {"json": body}))
    assert answer.status_code == 200, answer.text
    assert world.vectors.last(called)[1] == expected
    assert answer.headers["lakehouse-version"] == str(VERSION)


@pytest.mark.parametrize(
    ("method", "path", "body"),
    [
        ("POST", "/vectors/indexes", {}),
        ("POST", "/vectors/indexes", {"name": ""}),
        ("POST", "/vectors/indexes", {"name": "i", "dimensions": 10_000}),
        ("POST", "/vectors/indexes", {"name": "i", "columns": "text"}),
        ("POST", f"{ONE}/build", {"wait_seconds": 601}),
        ("POST", f"{ONE}/build", {"newversion": True}),
        ("POST", f"{ONE}/cut-over", {"number": -1}),
        ("POST", f"{ONE}/compare", {"k": 0}),
        ("POST", f"{ONE}/compare", {"samples": 1001}),
        ("POST", f"{ONE}/compare", {"relevant": [[7]]}),
        ("POST", f"{ONE}/compare", {"relevant": [[[2**200]]]}),
        ("DELETE", f"{ONE}/vectors", []),
        ("DELETE", f"{ONE}/vectors", {"ids": ["a"]}),
        ("DELETE", f"{ONE}/vectors", None),
        ("DELETE", f"{ONE}?nummer=1", None),
        ("GET", f"{ONE}/vectors", None),
        ("POST", f"{ONE}/vectors", []),
        ("POST", f"{ONE}/vectors", [{"id": "a"}]),
        ("POST", f"{ONE}/vectors", [{"id": "", "vector": [1]}]),
        ("POST", f"{ONE}/vectors", [{"id": "a", "vector": [1], "score": 1}]),
        ("POST", f"{ONE}/vectors", [{"id": "a", "vector": ["x"]}]),
        ("PUT", "/profiles/x", {"vector_backend": "faiss"}),
        ("PUT", "/profiles/x", {"name": "y"}),
        ("PUT", "/profiles/x", {"modell": "y"}),
        ("PUT", "/profiles/x", {"chunking": {"size": 0}}),
        ("PUT", "/profiles/x?expected_version=x", {}),
        ("PUT", "/profiles/x", None),
    ],
)
async def test_changes_that_are_none(method: str, path: str, body: Any) -> None:
    world = World()
    async with world.client() as client:
        answer = await client.request(method, path, **({} if body is None else {"json": body}))
    assert answer.status_code == 400, answer.text
    assert answer.json()["kind"] == "invalid"
    assert world.vectors.calls == world.profiles.calls == []


@pytest.mark.parametrize(
    ("building", "created", "status"),
    [(True, True, 202), (False, True, 201), (False, False, 200), (True, False, 202)],
)
async def test_how_a_build_is_told(building: bool, created: bool, status: int) -> None:
    world = World()
    world.vectors.building, world.vectors.created = building, created
    async with world.client("write") as client:
        made = await client.post("/vectors/indexes", json={"name": "i"})
    assert made.status_code == status
    told = made.json()
    assert (told["building"], told["created"], told["store_version"]) == (
        building,
        created,
        VERSION,
    )
    assert told["versions"][0]["comparison"] == {"overlap": 0.5}
    assert told["versions"][0]["structures"][0]["kind"] == "hnsw"
    assert told["columns"] == ["title", "body"]


def test_a_version_tells_all_there_is() -> None:
    shown = {field.name for field in dataclasses.fields(VersionShape)} - {"comparison"}
    known = {field.name for field in dataclasses.fields(IndexVersion)} - {"comparison_json"}
    assert shown == known


async def test_listed_and_compared() -> None:
    async with World().client("read") as client:
        listed = (await client.get("/vectors/indexes")).json()
        report = (await client.post(f"{ONE}/compare")).json()
        profiles = (await client.get("/profiles")).json()
    assert (listed["indexes"][0]["name"], listed["next"]) == ("tickets", "more")
    assert (report["overlap"], report["second"]["relevant_found"]) == (0.75, 0.5)
    assert report["first"]["relevant_found"] is None
    assert profiles["profiles"][0]["vector_backend"] == "parquet"


async def test_vectors_by_key() -> None:
    async with World().client("read") as client:
        one = await client.get(f"{ONE}/vectors/%5B7%5D")
        some = await client.get(f"{ONE}/vectors?ids=a&ids=none")
        none = await client.get(f"{ONE}/vectors/none")
        many = await client.get(f"{ONE}/vectors?" + "&".join(["ids=a"] * 1001))
    # As many digits as tell float32 apart, and no more.
    assert '"vector":[0.1,-1.0,0.00003]' in one.text.replace("3e-5", "0.00003")
    assert one.json()["vectors"][0]["key"] == [7]
    assert one.json()["vectors"][0]["span"] == [0, 5]
    assert (some.json()["missing"], len(some.json()["vectors"])) == (["none"], 1)
    assert (none.status_code, none.json()["key"]) == (404, "none")
    assert many.status_code == 400


async def test_given_vectors_become_arrow() -> None:
    world = World()
    given = [
        {"id": "a", "vector": [0.5, -1, 3e-5], "text": "x"},
        {"id": "b", "vector": base64.b64encode(PACKED).decode()},
        {"id": "c", "vector": [1]},
    ]
    async with world.client("write") as client:
        answer = await client.post(f"{ONE}/vectors", json=given)
    assert answer.status_code == 200, answer.text
    assert [answer.json()[n] for n in ("inserted", "updated", "deleted", "missing")] == [1, 2, 3, 4]
    asked = world.vectors.last("put_vectors")[1]
    assert asked.index == "tickets"
    table = pa.ipc.open_stream(asked.body).read_all()
    assert table.schema.field("vector").type == pa.list_(pa.float32())
    first = pa.array([0.5, -1, 3e-5], pa.float32()).to_pylist()
    assert table.to_pydict() == {
        "id": ["a", "b", "c"],
        "vector": [first, first, [1.0]],
        "text": ["x", "", ""],
    }


async def test_given_vectors_as_arrow_pass() -> None:
    world = World()
    table = pa.table({"id": ["a"], "vector": pa.array([[1.0]], pa.list_(pa.float32(), 1))})
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table)
    body = sink.getvalue().to_pybytes()
    stated = ["application/vnd.apache.arrow.stream", "application/x-www-form-urlencoded", ""]
    async with world.client("write") as client:
        for media in stated:
            headers = {"Content-Type": media} if media else {}
            answer = await client.post(f"{ONE}/vectors", content=body, headers=headers)
            assert answer.status_code == 200, answer.text
            assert world.vectors.last("put_vectors")[1].body == body
        csv = await client.post(
            f"{ONE}/vectors", content=b"a", headers={"Content-Type": "text/csv"}
        )
    assert csv.status_code == 415


async def test_given_vectors_that_are_too_large(monkeypatch: pytest.MonkeyPatch) -> None:
    bytes_max = 40_000
    monkeypatch.setattr(given_vectors, "VECTORS_BYTES_MAX", bytes_max)
    world = World()
    # As numbers they are twice the text.
    many = [{"id": "a", "vector": [1] * 8000}] * 2
    async with world.client("write") as client:
        large = await client.post(f"{ONE}/vectors", content=b"x" * (bytes_max + 1))
        wide = await client.post(f"{ONE}/vectors", json=many)
        fits = await client.post(f"{ONE}/vectors", json=many[:1])
    for refused in (large, wide):
        assert (refused.status_code, refused.json()["bytes_max"]) == (413, bytes_max)
        assert "several calls" in refused.json()["hint"]
    assert fits.status_code == 200


async def test_profiles() -> None:
    world = World()
    async with world.client("write") as client:
        held = (await client.get("/profiles/default")).json()["profile"]
        again = await client.put("/profiles/default", json=held)
        same = world.profiles.last("put")[1]
        body = {
            "model": "nomic-embed-text",
            "vector_backend": "lance",
            "distance": "dot",
            "chunking": {"method": "tokens", "size": 100},
        }
        made = await client.put("/profiles/x?expected_version=0", json=body)
        put = world.profiles.last("put")[1]
        gone = await client.delete("/profiles/x")
    assert held["builtin"]
    assert (again.status_code, same) == (201, p.PutProfileRequest(Profile("default")))
    profile = Profile(
        "x",
        "nomic-embed-text",
        chunking=Chunking(ChunkMethod.TOKENS, 100),
        distance=Distance.DOT,
        vector_backend=VectorBackend.LANCE,
    )
    assert put == p.PutProfileRequest(profile, 0)
    assert (made.status_code, made.json()["profile"]["chunking"]["size"]) == (201, 100)
    assert (gone.status_code, gone.json()["changed"]) == (200, True)


async def test_readers_change_nothing() -> None:
    world = World()
    async with world.client("read") as client:
        for method, path in [
            ("POST", "/vectors/indexes"),
            ("POST", f"{ONE}/build"),
            ("POST", f"{ONE}/cut-over"),
            ("POST", f"{ONE}/vectors"),
            ("DELETE", f"{ONE}/vectors"),
            ("DELETE", ONE),
            ("PUT", "/profiles/x"),
            ("DELETE", "/profiles/x"),
        ]:
            assert (await client.request(method, path)).status_code == 403, (method, path)
    assert world.vectors.calls == world.profiles.calls == []
