"""What no user should send, sent over HTTP to the real services: a clear refusal or the stated
result, never a crash, nothing half done, and the next request is answered."""

from __future__ import annotations

import gzip
import io
import resource
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any, Final

import httpx
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import pytest_asyncio
import zstandard

from e2e.http_stack import Stack, http_stack

pytestmark = pytest.mark.asyncio(loop_scope="module")

MEBIBYTE: Final = 1 << 20
CSV: Final = {"Content-Type": "text/csv"}
PARQUET: Final = {"Content-Type": "application/vnd.apache.parquet"}
ENGINES: Final = ("datafusion", "duckdb")


@pytest_asyncio.fixture(loop_scope="module", scope="module")
async def stack(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Stack]:
    folder: Path = tmp_path_factory.mktemp("bad-input")
    async with http_stack(folder) as running:
        yield running


@pytest_asyncio.fixture(loop_scope="module")
async def client(stack: Stack) -> AsyncIterator[httpx.AsyncClient]:
    async with stack.client(timeout=60) as one:
        yield one


async def ingest(
    client: httpx.AsyncClient, name: str, body: Any, headers: dict[str, str] | None = None
) -> httpx.Response:
    return await client.post(f"/ingest/datasets/{name}", content=body, headers=headers or CSV)


async def refused(client: httpx.AsyncClient, answer: httpx.Response, name: str) -> dict[str, Any]:
    """The problem document of a refusal that left nothing behind."""
    assert 400 <= answer.status_code < 500, answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    body: dict[str, Any] = answer.json()
    assert body["detail"]
    assert "Traceback" not in answer.text
    assert (await client.get(f"/catalog/datasets/{name}")).status_code == 404
    assert (await client.get("/ready")).status_code == 200
    return body


async def rows(client: httpx.AsyncClient, sql: str, engine: str = "auto") -> list[list[Any]]:
    answer = await client.post("/query/sql", json={"sql": sql, "engine": engine})
    assert answer.status_code == 200, answer.text
    found: list[list[Any]] = answer.json()["rows"]
    return found


def columns(answer: httpx.Response) -> list[str]:
    assert answer.status_code == 201, answer.text
    return [column["name"] for column in answer.json()["schema"]]


async def test_a_truncated_gzip(client: httpx.AsyncClient) -> None:
    whole = gzip.compress(b"id,name\n" + b"".join(b"%d,x\n" % n for n in range(50_000)))
    for stated in (CSV | {"Content-Encoding": "gzip"}, CSV):
        body = await refused(client, await ingest(client, "cut", whole[:-2000], stated), "cut")
        assert "truncated" in body["detail"]
    flipped = bytearray(whole)
    flipped[len(flipped) // 2] ^= 0xFF
    await refused(client, await ingest(client, "cut", bytes(flipped)), "cut")


@pytest.mark.parametrize("typed", [False, True], ids=["strings", "a dictionary"])
async def test_a_parquet_bomb(client: httpx.AsyncClient, typed: bool) -> None:
    texts = [chr(65 + n) * 1200 for n in range(57)]
    indices = pa.array([n % 57 for n in range(57)] * 9_000, pa.int32()).sort()
    table = pa.table({"x": pa.DictionaryArray.from_arrays(indices, pa.array(texts))})
    sink = io.BytesIO()
    pq.write_table(table, sink, compression="none", write_statistics=False, store_schema=typed)
    bomb = sink.getvalue()
    assert len(bomb) < 100_000
    assert table.num_rows * 1200 > 600_000_000
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    await refused(client, await ingest(client, "bomb", bomb, PARQUET), "bomb")
    grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) * 1024
    assert grown < 400 * MEBIBYTE


async def test_a_bomb_of_compressed_text(client: httpx.AsyncClient) -> None:
    packer = zstandard.ZstdCompressor(level=3).compressobj()
    block = b"1,aaaaaaaaaa\n" * 80_659
    bomb = packer.compress(b"id,x\n") + b"".join(packer.compress(block) for _ in range(600))
    bomb += packer.flush()
    assert len(bomb) < 100_000
    body = await refused(client, await ingest(client, "zstd_bomb", bomb), "zstd_bomb")
    assert "decompresses" in body["detail"]


async def test_a_line_without_an_end(client: httpx.AsyncClient) -> None:
    async def endless() -> AsyncIterator[bytes]:
        yield b"id,text\n1,"
        for _ in range(40):
            yield b"x" * MEBIBYTE

    body = await refused(client, await ingest(client, "long", endless()), "long")
    assert "bytes" in str(body)


@pytest.mark.soak
async def test_a_line_of_a_gigabyte(client: httpx.AsyncClient) -> None:
    async def endless() -> AsyncIterator[bytes]:
        yield b"id,text\n1,"
        for _ in range(1024):
            yield b"x" * MEBIBYTE

    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    await refused(client, await ingest(client, "gigabyte", endless()), "gigabyte")
    grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) * 1024
    assert grown < 400 * MEBIBYTE


async def test_a_json_value_that_is_nested_without_an_end(client: httpx.AsyncClient) -> None:
    deep = b'[{"a": ' + b"[" * 100_000 + b"]" * 100_000 + b"}]"
    answer = await ingest(client, "deep", deep, {"Content-Type": "application/json"})
    await refused(client, answer, "deep")


async def test_nul_bytes_are_characters(client: httpx.AsyncClient) -> None:
    answer = await ingest(client, "nul", b"id,text\n1,a\x00b\n2,c\n")
    assert columns(answer) == ["id", "text"]
    assert answer.json()["rows"] == 2
    assert await rows(client, "select text from nul where id = 1") == [["a\x00b"]]


async def test_binary_data_is_no_csv(client: httpx.AsyncClient) -> None:
    noise = bytes(range(256)) * 64
    await refused(client, await ingest(client, "noise", noise, {}), "noise")


async def test_the_wrong_charset(client: httpx.AsyncClient) -> None:
    latin = "id,name\n1,Jürgen\n2,Zoë\n".encode("latin-1")
    stated = {"Content-Type": "text/csv; charset=utf-16"}
    await refused(client, await ingest(client, "charset", latin, stated), "charset")
    unknown = {"Content-Type": "text/csv; charset=klingon"}
    body = await refused(client, await ingest(client, "charset", latin, unknown), "charset")
    assert "encoding" in body["detail"]
    right = {"Content-Type": "text/csv; charset=latin-1"}
    assert (await ingest(client, "charset", latin, right)).status_code == 201
    assert await rows(client, "select name from charset order by id") == [["Jürgen"], ["Zoë"]]


async def test_an_unstated_charset_is_detected_and_said(client: httpx.AsyncClient) -> None:
    answer = await ingest(client, "detected", "id,name\n1,Jürgen\n".encode("cp1252"))
    assert answer.status_code == 201, answer.text
    assert answer.json()["warnings"]
    assert await rows(client, "select name from detected") == [["Jürgen"]]


@pytest.mark.parametrize("body", [b"", b"\xef\xbb\xbf", gzip.compress(b"", mtime=0)])
async def test_an_empty_file(client: httpx.AsyncClient, body: bytes) -> None:
    told = await refused(client, await ingest(client, "empty", body), "empty")
    assert "empty" in told["detail"]


async def test_a_header_only(client: httpx.AsyncClient) -> None:
    answer = await ingest(client, "header_only", b"id,name\n")
    assert columns(answer) == ["id", "name"]
    assert answer.json()["rows"] == 0
    assert await rows(client, "select count(*) from header_only") == [[0]]


async def test_duplicate_column_names_are_told_apart(client: httpx.AsyncClient) -> None:
    answer = await ingest(client, "twice", b"a,a,A,b\n1,2,3,4\n")
    names = columns(answer)
    assert len({name.casefold() for name in names}) == 4
    assert answer.json()["warnings"]
    quoted = ", ".join(f'"{name}"' for name in names)
    assert await rows(client, f"select {quoted} from twice") == [[1, 2, 3, 4]]


async def test_five_thousand_columns(client: httpx.AsyncClient) -> None:
    line = ",".join(f"c{n}" for n in range(5_000)) + "\n"
    body = await refused(client, await ingest(client, "wide", line + line), "wide")
    assert "4096" in str(body)


async def test_a_column_that_is_called_drop(client: httpx.AsyncClient) -> None:
    answer = await ingest(client, "bobby", b'id,"; drop table bobby; --"\n1,x\n')
    assert columns(answer) == ["id", "; drop table bobby; --"]
    for engine in ENGINES:
        sql = 'select "; drop table bobby; --" from bobby'
        assert await rows(client, sql, engine) == [["x"]]


@pytest.mark.parametrize(
    "name", ["..", "%2e%2e", "..%2Fetc", "%2Fetc%2Fpasswd", "a%5Cb", "a%00b", ".hidden", "x" * 300]
)
async def test_a_dataset_name_that_is_a_path(client: httpx.AsyncClient, name: str) -> None:
    for method, path in (("POST", "/ingest/datasets/"), ("GET", "/catalog/datasets/")):
        answer = await client.request(method, httpx.URL("http://127.0.0.1" + path + name))
        assert 400 <= answer.status_code < 500, answer.text


async def test_a_name_that_is_a_path_in_a_body(client: httpx.AsyncClient) -> None:
    body = {
        "name": "../../etc/passwd",
        "objects": [{"key": "a.parquet"}],
        "card": {"owner": "o", "description": "d"},
    }
    answer = await client.post("/catalog/datasets", json=body)
    assert (answer.status_code, answer.json()["kind"]) == (400, "invalid")


@pytest.mark.parametrize(
    "key", ["k" * 600, "../../../etc/passwd", "a//b", "/etc/passwd", "a\\b", "a/../b", "a\x00"]
)
async def test_a_key_that_names_no_object(client: httpx.AsyncClient, key: str) -> None:
    body = {
        "name": "keyed",
        "objects": [{"key": key}],
        "card": {"owner": "o", "description": "d"},
    }
    await refused(client, await client.post("/catalog/datasets", json=body), "keyed")
    asked = await client.post("/ingest/datasets/keyed", params={"object": f"primary/{key}"})
    await refused(client, asked, "keyed")


MUST_REFUSE: Final = [
    "select * from read_csv('/etc/passwd')",
    "select * from read_text('/etc/passwd')",
    "select * from read_blob('/etc/passwd')",
    "select * from '/etc/passwd'",
    'select * from "/etc/passwd"',
    "select * from 'file:///etc/passwd'",
    "select * from glob('/etc/*')",
    "copy (select 1) to '/tmp/x.csv'",
    "create external table t stored as csv location '/etc/passwd'",
    "attach '/etc/passwd' as x",
    "select getenv('PATH')",
    "select current_setting('home_directory')",
    "install httpfs",
    "set enable_external_access = true",
    "select 1; select 2",
]


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("sql", MUST_REFUSE)
async def test_sql_that_looks_out_of_the_store(
    client: httpx.AsyncClient, sql: str, engine: str
) -> None:
    answer = await client.post("/query/sql", json={"sql": sql, "engine": engine})
    assert answer.status_code in (400, 403, 404), answer.text
    assert "root:" not in answer.text
