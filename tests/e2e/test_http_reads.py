"""What readers rely on: pages by an opaque cursor, the version that was read, whole answers while
others drop and restore what is read."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import httpx
import pytest
import pytest_asyncio

from e2e.http_stack import http_stack

pytestmark = pytest.mark.asyncio(loop_scope="module")

NAMES = ["a", "b", "Zoe\u0308", "d e", "\U0001f600"]


@pytest_asyncio.fixture(loop_scope="module", scope="module")
async def client(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[httpx.AsyncClient]:
    folder: Path = tmp_path_factory.mktemp("reads")
    async with http_stack(folder) as stack, stack.client(timeout=30) as one:
        for name in NAMES:
            path = httpx.URL(f"/ingest/datasets/{name}")
            answer = await one.post(
                path, content=b"id\n1\n2\n", headers={"Content-Type": "text/csv"}
            )
            assert answer.status_code == 201, answer.text
        yield one


async def test_a_list_is_read_page_by_page(client: httpx.AsyncClient) -> None:
    seen: list[str] = []
    cursor: str | None = ""
    while cursor is not None:
        page = (await client.get("/catalog/datasets", params={"limit": 2, "cursor": cursor})).json()
        assert len(page["datasets"]) <= 2
        seen += [dataset["name"] for dataset in page["datasets"]]
        cursor = page["next"]
    assert sorted(seen) == sorted(["a", "b", "Zo\u00eb", "d e", "\U0001f600"])
    # What a cursor holds is nobody's to make up.
    for made_up in ("a", "0", "eyJhIjoxfQ", "\x00", "-1"):
        answer = await client.get("/catalog/datasets", params={"cursor": made_up})
        assert (answer.status_code, answer.json()["kind"]) == (400, "invalid")


@pytest.mark.parametrize(
    "path", ["", "/a", "/a/versions", "/a/history", "/a/schema", "/a/lineage", "/a/files"]
)
async def test_whatever_read_data_says_of_which_version(
    client: httpx.AsyncClient, path: str
) -> None:
    answer = await client.get(f"/catalog/datasets{path}")
    now = int(answer.headers["lakehouse-version"])
    asked = await client.post("/query/sql", json={"sql": "select count(*) as n from a"})
    assert int(asked.headers["lakehouse-version"]) == now >= len(NAMES)


async def test_a_name_is_one_in_every_normal_form(client: httpx.AsyncClient) -> None:
    for written in ("Zoe%CC%88", "Zo%C3%AB", "ZO%C3%8B"):
        answer = await client.get(f"/catalog/datasets/{written}")
        assert answer.json()["name"] == "Zo\u00eb"


async def test_a_read_is_whole_or_not_found_while_others_drop(client: httpx.AsyncClient) -> None:
    over = asyncio.Event()
    seen: set[str] = set()

    async def read() -> None:
        while not over.is_set():
            answer = await client.post("/query/sql", json={"sql": "select id from b order by id"})
            if answer.status_code == 200:
                assert answer.json()["rows"] == [[1], [2]]
            else:
                assert (answer.status_code, answer.json()["kind"]) == (404, "not_found")
            seen.add(str(answer.status_code))

    async def drop_and_restore() -> None:
        while seen != {"200", "404"}:
            assert (await client.delete("/catalog/datasets/b")).status_code == 200
            await asyncio.sleep(0.02)
            assert (await client.post("/catalog/datasets/b/restore")).status_code == 200
            await asyncio.sleep(0.02)
        over.set()

    async with asyncio.timeout(90):
        await asyncio.gather(read(), read(), drop_and_restore())
