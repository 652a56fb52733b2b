"""What the lakehouse keeps for itself is read by nobody through a key that they name."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest
import pytest_asyncio

from e2e.http_stack import Stack, http_stack
from lakehouse.errors import ErrorKind, LakehouseError
from lakehouse.model.identity import Scope
from lakehouse.model.refs import check_foreign_key

pytestmark = pytest.mark.asyncio(loop_scope="module")
CARD = {"owner": "o", "description": "d"}


@pytest_asyncio.fixture(loop_scope="module", scope="module")
async def stack(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Stack]:
    async with http_stack(tmp_path_factory.mktemp("own-keys"), auth="tokens") as running:
        yield running


async def test_a_writer_reads_no_key_of_the_lakehouse(stack: Stack) -> None:
    async with stack.client(await stack.token(Scope.WRITE), timeout=60) as client:
        made = await client.post(
            "/ingest/datasets/mine", content=b"a,b\n1,2\n", headers={"Content-Type": "text/csv"}
        )
        assert made.status_code < 300, made.text
        listed = await client.get("/catalog/datasets/mine/files")
        keys = [file["key"] for file in listed.json()["files"]]
        assert keys
        keys += ["store.json", "_catalog/c/1.json", "_catalog", ".tmp/x", "datasets/a/b/c.parquet"]
        keys += ["Datasets/a/b/c.parquet", "STORE.json", "\uff3fcatalog/c"]
        for key in keys:
            await _refused(client, "ingest", key)
            for copy in (False, True):
                body = {"name": "t", "objects": [{"key": key, "copy": copy}], "card": CARD}
                answer = await client.post("/catalog/datasets", json=body)
                _forbidden(answer, key)
            assert (await client.get("/catalog/datasets/t")).status_code == 404


async def test_an_import_names_no_key_of_the_lakehouse(stack: Stack) -> None:
    async with stack.client(await stack.token(Scope.OPERATOR), timeout=60) as client:
        manifest = {
            "name": "t",
            "keys": ["_catalog/c/1.json"],
            "row_count": 1,
            "updated_at": "2024-01-01T00:00:00Z",
        }
        answer = await client.post("/catalog/import", json={"datasets": [manifest]})
        _forbidden(answer, "_catalog/c/1.json")


async def _refused(client: httpx.AsyncClient, name: str, key: str) -> None:
    answer = await client.post(f"/ingest/datasets/{name}", params={"object": f"primary/{key}"})
    _forbidden(answer, key)
    assert (await client.get(f"/catalog/datasets/{name}")).status_code == 404


def _forbidden(answer: httpx.Response, key: str) -> None:
    body: dict[str, Any] = answer.json()
    assert (answer.status_code, body["kind"]) == (403, "forbidden"), (key, answer.text)
    assert body["hint"]


@pytest.mark.parametrize(
    "key", ["a", "a/_b", "a/.b", "a/datasets/b", "datasets2/a", "a/store.json"]
)
async def test_keys_of_others_are_free(key: str) -> None:
    assert check_foreign_key(key) == key


@pytest.mark.parametrize("key", ["", "../a", "a//b", "_a\\b"])
async def test_what_is_no_key_is_invalid(key: str) -> None:
    with pytest.raises(LakehouseError) as caught:
        check_foreign_key(key)
    assert caught.value.kind is ErrorKind.INVALID
