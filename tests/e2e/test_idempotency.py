"""P4 over HTTP: one Idempotency-Key has one effect and one answer; another body is a 422."""

from __future__ import annotations

import io
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import pytest_asyncio
from fastapi.routing import APIRoute

from e2e.http_stack import OPERATOR, Stack, http_stack
from lakehouse.catalogd.service import Catalog
from lakehouse.contracts.catalog import SessionRequest

pytestmark = pytest.mark.asyncio(loop_scope="module")

CSV = {"Content-Type": "text/csv"}
CARD = {"owner": "ann", "description": "people we know"}
SAFE = {"GET", "HEAD", "OPTIONS"}
# These change nothing that is kept.
NOT_MUTATING = {
    ("POST", "/query/sql"),
    ("DELETE", "/query/{id}"),
    ("POST", "/storage/buckets/{name}/probe"),
    # Twice is once by nature, without a commit to keep a key with: tests/e2e/test_objects.py.
    ("PUT", "/storage/objects/{bucket}/{key}"),
    ("DELETE", "/storage/objects/{bucket}/{key}"),
    ("POST", "/vectors/search"),
    ("POST", "/vectors/rag"),
    ("POST", "/memory/{name}/recall"),
    ("POST", "/retrievals/{id}/replay"),
    ("POST", "/vectors/indexes/{name}/compare"),
    # Each is measured anew, and has an id of its own; a second one of an index at a time is a 409.
    ("POST", "/vectors/evals/{name}/run"),
    ("POST", "/hnsw/autotune"),
    # Twice is once by nature: tests/contracts/test_retrievals.py.
    ("POST", "/retrievals/{id}/pin"),
    ("DELETE", "/retrievals/{id}/pin"),
}
# One key is one effect there too: tests/contracts/test_profiles.py and, of all calls that change
# an index, tests/unit/vectord/test_indexes.py, test_given.py and test_evals.py, with a service of
# their own.
AT_THE_CONTRACT = {
    ("PUT", "/profiles/{name}"),
    ("DELETE", "/profiles/{name}"),
    ("POST", "/vectors/indexes"),
    ("DELETE", "/vectors/indexes/{name}"),
    ("POST", "/vectors/indexes/{name}/build"),
    ("POST", "/vectors/indexes/{name}/cut-over"),
    ("POST", "/vectors/indexes/{name}/vectors"),
    ("DELETE", "/vectors/indexes/{name}/vectors"),
    ("POST", "/hnsw/trials/{id}/promote"),
}
# The answer has figures of the moment, or others commit meanwhile: it has a test of its own.
WITH_FIGURES = {
    ("POST", "/storage/buckets"),
    ("POST", "/ingest/datasets/{name}/compact"),
    ("POST", "/memory/{name}/turns"),
}


@dataclass(frozen=True)
class World:
    client: httpx.AsyncClient
    catalog: Catalog
    bucket: Path
    folder: str

    async def ingest(
        self, name: str, body: bytes = b"id,name\n1,a\n2,b\n", query: str = ""
    ) -> None:
        path = f"/ingest/datasets/{name}{query}"
        answer = await self.client.post(path, content=body, headers=CSV)
        assert answer.status_code == 201, answer.text

    def put(self, key: str, start: int = 0) -> str:
        data = io.BytesIO()
        pq.write_table(pa.table({"id": [start, start + 1]}), data)
        path = self.bucket / self.folder / key
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data.getvalue())
        return f"{self.folder}/{key}"

    @property
    def added(self) -> str:
        """Where buckets may be added."""
        return (self.bucket.parent / "added").as_uri()

    async def version(self) -> int:
        listed = await self.client.get("/catalog/datasets")
        return int(listed.headers["Lakehouse-Version"])


@dataclass(frozen=True)
class Call:
    """A mutating request, and how the same call with another body looks."""

    method: str
    path: str
    json: Any = None
    content: bytes | None = None
    other: Any = None
    other_path: str = ""
    status: int = 200

    async def send(self, client: httpx.AsyncClient, key: str, *, other: bool) -> httpx.Response:
        path = self.other_path or self.path if other else self.path
        headers = {"Idempotency-Key": key}
        if self.content is not None:
            body = self.other if other and self.other is not None else self.content
            return await client.request(self.method, path, content=body, headers={**headers, **CSV})
        body = self.other if other and self.other is not None else self.json
        return await client.request(self.method, path, json=body, headers=headers)


Arrange = Callable[[World], Awaitable[Call]]


async def register(world: World) -> Call:
    objects = [{"key": world.put("a.parquet")}]
    body = {"name": "reg", "objects": objects, "card": CARD}
    other = body | {"objects": [{"key": world.put("b.parquet", 5)}]}
    return Call("POST", "/catalog/datasets", body, other=other, status=201)


async def ingest_create(world: World) -> Call:
    path = "/ingest/datasets/fresh"
    return Call("POST", path, content=b"id\n1\n", other=b"id\n2\n", status=201)


async def ingest_append(world: World) -> Call:
    await world.ingest("more")
    path = "/ingest/datasets/more?mode=append&force=true"
    return Call("POST", path, content=b"id,name\n3,c\n", other=b"id,name\n4,c\n")


async def ingest_replace(world: World) -> Call:
    await world.ingest("other")
    path = "/ingest/datasets/other?mode=replace"
    return Call("POST", path, content=b"id,name\n3,c\n", other_path=path + "&force=true")


async def card(world: World) -> Call:
    await world.ingest("carded")
    path = "/catalog/datasets/carded"
    return Call("PATCH", path, {"owner": "bob"}, other={"owner": "cy"})


async def rename(world: World) -> Call:
    await world.ingest("old")
    return Call("PATCH", "/catalog/datasets/old", {"name": "new"}, other={"name": "newer"})


async def drop(world: World) -> Call:
    await world.ingest("dropped")
    path = "/catalog/datasets/dropped"
    return Call("DELETE", path, other_path=path + "?purge=true")


async def purge(world: World) -> Call:
    await world.ingest("purged")
    path = "/catalog/datasets/purged"
    return Call("DELETE", path + "?purge=true", other_path=path)


async def restore(world: World) -> Call:
    await world.ingest("back")
    await world.client.delete("/catalog/datasets/back")
    return Call("POST", "/catalog/datasets/back/restore", {}, other={"name": "back2"})


async def import_(world: World) -> Call:
    def manifest(name: str) -> dict[str, Any]:
        key = world.put(f"{name}.parquet")
        return {"name": name, "keys": [key], "updated_at": "2026-01-01T00:00:00Z"}

    body = {"datasets": [manifest("imp"), manifest("imp")]}
    return Call("POST", "/catalog/import", body, other={"datasets": [manifest("imp2")]})


async def dedupe(world: World) -> Call:
    made = await import_(world)
    body = {"datasets": [each | {"name": "twice"} for each in made.json["datasets"]]}
    assert (await world.client.post("/catalog/import", json=body)).status_code == 200
    path = "/catalog/dedupe?dry_run=false"
    return Call("POST", path, other_path=path + "&plan=" + "0" * 64)


async def fsck(world: World) -> Call:
    key = world.put("lost.parquet")
    body = {"name": "lost", "objects": [{"key": key}], "card": CARD}
    assert (await world.client.post("/catalog/datasets", json=body)).status_code == 201
    (world.bucket / key).unlink()
    path = "/catalog/fsck?dry_run=false"
    return Call("POST", path, other_path=path + "&deep=true")


async def collect(world: World) -> Call:
    request = SessionRequest("w", "ingestd")
    session = (await world.catalog.session(OPERATOR, request)).session_id
    ending = SessionRequest("w", "ingestd", session, close=True)
    await world.catalog.session(OPERATOR, ending)
    garbage = world.bucket / "datasets" / session / "D" / "f.parquet"
    garbage.parent.mkdir(parents=True)
    garbage.write_bytes(b"never committed")
    path = "/catalog/collect"
    return Call("POST", path, other_path=path + "?plan=" + "0-" + "0" * 64)


async def token(world: World) -> Call:
    body = {"name": "ci", "scopes": ["read"]}
    return Call("POST", "/tokens", body, other=body | {"name": "cd"}, status=201)


async def revoke(world: World) -> Call:
    made = [
        (await world.client.post("/tokens", json={"name": name, "scopes": ["read"]})).json()
        for name in ("one", "two")
    ]
    paths = [f"/tokens/{each['id']}" for each in made]
    return Call("DELETE", paths[0], other_path=paths[1])


async def remove_bucket(world: World) -> Call:
    for name in ("gone", "other"):
        body = {"name": name, "url": f"{world.added}/{name}"}
        answer = await world.client.post("/storage/buckets", json=body)
        assert answer.status_code == 201, answer.text
    return Call("DELETE", "/storage/buckets/gone", other_path="/storage/buckets/other")


async def upsert(world: World) -> Call:
    await world.ingest("upserted", query="?key=id")
    path = "/ingest/datasets/upserted/rows"
    return Call("POST", path, [{"id": 3, "name": "c"}], other=[{"id": 4, "name": "c"}])


async def ingest_upsert(world: World) -> Call:
    await world.ingest("more_keys", query="?key=id")
    path = "/ingest/datasets/more_keys?mode=upsert"
    return Call("POST", path, content=b"id,name\n3,c\n", other=b"id,name\n4,c\n")


async def patch_rows(world: World) -> Call:
    await world.ingest("patched", query="?key=id")
    path = "/ingest/datasets/patched/rows?mode=patch"
    body = {"key": 1, "set": {"name": "z"}}
    return Call("POST", path, body, other_path=path + "&reason=another")


async def patch_where(world: World) -> Call:
    await world.ingest("patched_where", query="?key=id")
    path = "/ingest/datasets/patched_where/rows?mode=patch&where=id%20%3E%201"
    return Call("POST", path, {"name": "z"}, other={"name": "y"})


async def delete_rows(world: World) -> Call:
    await world.ingest("shrunk", query="?key=id")
    return Call("DELETE", "/ingest/datasets/shrunk/rows", [1], other=[2])


async def set_key(world: World) -> Call:
    await world.ingest("unkeyed")
    path = "/ingest/datasets/unkeyed/key"
    return Call("PUT", path, {"columns": ["id"]}, other={"columns": ["name"]})


async def widen(world: World) -> Call:
    await world.ingest("wide")
    path = "/ingest/datasets/wide/schema"
    body = {"add": [{"name": "mail", "type": "string"}]}
    return Call("POST", path, body, other={"add": [{"name": "fax", "type": "string"}]})


async def restore_rows(world: World) -> Call:
    await world.ingest("again", query="?key=id")
    version = await world.version()
    answer = await world.client.request("DELETE", "/ingest/datasets/again/rows", json=[1])
    assert answer.status_code == 200, answer.text
    path = "/ingest/datasets/again/restore-rows"
    return Call("POST", path, {"as_of": version}, other={"as_of": version + 1})


async def set_tag(world: World) -> Call:
    await world.ingest("tagged")
    return Call("PUT", "/catalog/tags/march", {"note": "a"}, other={"note": "b"}, status=201)


async def remove_tag(world: World) -> Call:
    await world.ingest("untagged")
    for name in ("april", "may"):
        assert (await world.client.put(f"/catalog/tags/{name}")).status_code == 201
    return Call("DELETE", "/catalog/tags/april", other_path="/catalog/tags/may")


async def given_index(world: World) -> None:
    made = await world.client.post("/vectors/indexes", json={"name": "given", "dimensions": 2})
    assert made.status_code < 300, made.text


async def put_eval(world: World) -> Call:
    await given_index(world)
    body = {"name": "set", "index": "given", "queries": [{"vector": [1, 0]}]}
    other = body | {"queries": [{"vector": [0, 1]}]}
    return Call("POST", "/vectors/evals", body, other=other, status=201)


async def delete_eval(world: World) -> Call:
    await given_index(world)
    for name in ("one", "two"):
        body = {"name": name, "index": "given", "queries": [{"vector": [1, 0]}]}
        assert (await world.client.post("/vectors/evals", json=body)).status_code == 201
    return Call("DELETE", "/vectors/evals/one", other_path="/vectors/evals/two")


CASES: dict[str, tuple[str, str, Arrange]] = {
    "register": ("POST", "/catalog/datasets", register),
    "ingest create": ("POST", "/ingest/datasets/{name}", ingest_create),
    "ingest append": ("POST", "/ingest/datasets/{name}", ingest_append),
    "ingest replace": ("POST", "/ingest/datasets/{name}", ingest_replace),
    "ingest upsert": ("POST", "/ingest/datasets/{name}", ingest_upsert),
    "upsert": ("POST", "/ingest/datasets/{name}/rows", upsert),
    "patch rows": ("POST", "/ingest/datasets/{name}/rows", patch_rows),
    "patch where": ("POST", "/ingest/datasets/{name}/rows", patch_where),
    "delete rows": ("DELETE", "/ingest/datasets/{name}/rows", delete_rows),
    "set key": ("PUT", "/ingest/datasets/{name}/key", set_key),
    "widen": ("POST", "/ingest/datasets/{name}/schema", widen),
    "restore rows": ("POST", "/ingest/datasets/{name}/restore-rows", restore_rows),
    "set tag": ("PUT", "/catalog/tags/{tag}", set_tag),
    "remove tag": ("DELETE", "/catalog/tags/{tag}", remove_tag),
    "card": ("PATCH", "/catalog/datasets/{name}", card),
    "rename": ("PATCH", "/catalog/datasets/{name}", rename),
    "drop": ("DELETE", "/catalog/datasets/{name}", drop),
    "purge": ("DELETE", "/catalog/datasets/{name}", purge),
    "restore": ("POST", "/catalog/datasets/{name}/restore", restore),
    "import": ("POST", "/catalog/import", import_),
    "dedupe": ("POST", "/catalog/dedupe", dedupe),
    "fsck": ("POST", "/catalog/fsck", fsck),
    "collect": ("POST", "/catalog/collect", collect),
    "token": ("POST", "/tokens", token),
    "revoke": ("DELETE", "/tokens/{id}", revoke),
    "put eval": ("POST", "/vectors/evals", put_eval),
    "delete eval": ("DELETE", "/vectors/evals/{name}", delete_eval),
    "remove bucket": ("DELETE", "/storage/buckets/{name}", remove_bucket),
}


@pytest_asyncio.fixture(loop_scope="module", scope="module")
async def stack(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[tuple[Stack, Path]]:
    folder: Path = tmp_path_factory.mktemp("idempotency")
    async with http_stack(folder) as running:
        yield running, folder / "primary"


@pytest.mark.parametrize("name", CASES)
async def test_one_key_has_one_effect_and_one_answer(stack: tuple[Stack, Path], name: str) -> None:
    running, bucket = stack
    async with running.client(timeout=60) as client:
        world = World(client, running.catalog, bucket, f"in/{name.replace(' ', '-')}")
        call = await CASES[name][2](world)
        key = name.replace(" ", "-")
        before = await world.version()
        first = await call.send(client, key, other=False)
        assert first.status_code == call.status, first.text
        version = await world.version()
        assert version > before
        for _ in range(2):
            again = await call.send(client, key, other=False)
            if name == "token":
                # The secret is kept nowhere: the answer cannot be given twice, nor the effect.
                assert again.status_code == 409
                assert again.json()["token_id"] == first.json()["id"]
                assert "revoke" in again.json()["hint"]
                continue
            assert again.status_code == first.status_code
            assert again.content == first.content
        assert await world.version() == version
        other = await call.send(client, key, other=True)
        assert other.status_code == 422, other.text
        assert await world.version() == version


async def test_every_mutating_route_is_walked(stack: tuple[Stack, Path]) -> None:
    routes = {
        (method, route.path_format)
        for route in stack[0].app.routes
        if isinstance(route, APIRoute)
        for method in (route.methods or set()) - SAFE
    }
    walked = {(method, path) for method, path, _ in CASES.values()} | WITH_FIGURES
    assert walked == routes - NOT_MUTATING - AT_THE_CONTRACT
    assert routes >= AT_THE_CONTRACT


async def test_a_bucket_is_added_once_under_one_key(stack: tuple[Stack, Path]) -> None:
    running, bucket = stack
    async with running.client(timeout=60) as client:
        world = World(client, running.catalog, bucket, "in/added")
        body = {"name": "added", "url": f"{world.added}/added"}
        headers = {"Idempotency-Key": "add-bucket"}
        first = await client.post("/storage/buckets", json=body, headers=headers)
        assert first.status_code == 201, first.text
        version = await world.version()
        again = await client.post("/storage/buckets", json=body, headers=headers)
        assert again.status_code == 201
        same = ("name", "url", "bucket_class", "residency", "origin", "reachable")
        assert [again.json()[name] for name in same] == [first.json()[name] for name in same]
        other = body | {"name": "more", "url": f"{world.added}/more"}
        refused = await client.post("/storage/buckets", json=other, headers=headers)
        assert refused.status_code == 422, refused.text
        assert await world.version() == version


async def test_a_dataset_is_compacted_once_under_one_key(stack: tuple[Stack, Path]) -> None:
    running, bucket = stack
    async with running.client(timeout=60) as client:
        world = World(client, running.catalog, bucket, "in/compacted")
        await world.ingest("compacted", query="?key=id")
        for number in range(3):
            body = [{"id": number, "name": str(number)}]
            await client.post("/ingest/datasets/compacted/rows", json=body)
        headers = {"Idempotency-Key": "compact"}
        path = "/ingest/datasets/compacted/compact?full"
        first = await client.post(path, headers=headers)
        assert (first.status_code, first.json()["no_op"]) == (200, False), first.text
        version = await world.version()
        again = await client.post(path, headers=headers)
        assert again.status_code == 200, again.text
        assert again.json()["version"] == first.json()["version"]
        assert await world.version() == version


async def test_errors_are_not_remembered(stack: tuple[Stack, Path]) -> None:
    running, bucket = stack
    async with running.client() as client:
        world = World(client, running.catalog, bucket, "in/errors")
        headers = {"Idempotency-Key": "not-yet"}
        path = "/catalog/datasets/later"
        assert (await client.delete(path, headers=headers)).status_code == 404
        await world.ingest("later")
        assert (await client.delete(path, headers=headers)).status_code == 200


async def test_a_register_is_answered_though_its_object_and_name_are_gone(
    stack: tuple[Stack, Path],
) -> None:
    running, bucket = stack
    async with running.client() as client:
        world = World(client, running.catalog, bucket, "in/gone")
        key = world.put("gone.parquet")
        call = Call(
            "POST",
            "/catalog/datasets",
            {"name": "gone", "objects": [{"key": key}], "card": CARD},
        )
        first = await call.send(client, "gone", other=False)
        assert first.status_code == 201
        (bucket / key).unlink()
        assert (await client.delete("/catalog/datasets/gone")).status_code == 200
        again = await call.send(client, "gone", other=False)
        assert (again.status_code, again.content) == (201, first.content)
        assert (await client.get("/catalog/datasets/gone")).status_code == 404


async def test_a_turn_is_remembered_once_under_one_key(stack: tuple[Stack, Path]) -> None:
    path, headers = "/memory/talk/turns", {"Idempotency-Key": "talk-1"}
    async with stack[0].client(timeout=60) as client:
        body = {"text": "the roof leaks", "who": "ann"}
        first = await client.post(path, json=body, headers=headers)
        assert first.status_code == 201, first.text
        again = await client.post(path, json=body, headers=headers)
        assert (again.status_code, again.content) == (201, first.content)
        other = await client.post(path, json={"text": "it drips"}, headers=headers)
        assert other.status_code == 422, other.text
        turns = (await client.get("/memory/talk/catch-up")).json()["turns"]
        assert [turn["text"] for turn in turns] == ["the roof leaks"]
        # Its index is built in the background: the versions of other tests must not move by that.
        gone = await client.delete("/vectors/indexes/talk")
        assert gone.status_code == 200, gone.text
