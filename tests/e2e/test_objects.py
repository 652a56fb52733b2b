"""Objects through a real node: bounded memory, nothing left of what broke off, nothing of the
lakehouse's own, nothing taken away from a dataset."""

from __future__ import annotations

import contextlib
import hashlib
import io
import socket
import time
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any, Final

import httpx
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import pytest_asyncio

from e2e.http_stack import Stack, http_stack
from e2e.nodes import END_SECONDS_MAX, Node, running
from lakehouse.model.identity import Scope

MEBIBYTE: Final = 1 << 20
STREAM_BYTES: Final = 300 * MEBIBYTE
GROWTH_BYTES_MAX: Final = 64 * MEBIBYTE
BLOCK: Final = bytes(range(256)) * 4096
BASE: Final = "/storage/objects/primary"


@pytest.fixture(scope="module")
def node(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Node]:
    folder = tmp_path_factory.mktemp("objects")
    one = Node(folder / "node", folder / "bucket")
    with running(one):
        yield one.start()


def bucket_of(node: Node) -> Path:
    return node.folder.parent / "bucket"


def memory(node: Node, name: str) -> int:
    assert node.process is not None
    status = Path(f"/proc/{node.process.pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in status if line.startswith(name))


def forget_the_peak(node: Node) -> None:
    assert node.process is not None
    Path(f"/proc/{node.process.pid}/clear_refs").write_text("5")


def eventually(seen: Callable[[], bool]) -> None:
    deadline = time.monotonic() + END_SECONDS_MAX
    while not seen():
        assert time.monotonic() < deadline
        time.sleep(0.02)


@pytest.mark.timeout(300)
def test_a_large_object_takes_little_memory(node: Node) -> None:
    url = f"{node.url}{BASE}/large.bin"

    def blocks() -> Iterator[bytes]:
        for _ in range(STREAM_BYTES // MEBIBYTE):
            yield BLOCK

    # Once before, so that what the first request loads is no growth.
    assert httpx.put(url, content=BLOCK, timeout=60).status_code == 200
    assert len(httpx.get(url, timeout=60).content) == MEBIBYTE
    forget_the_peak(node)
    before = memory(node, "VmRSS")
    stored = httpx.put(url, content=blocks(), timeout=120)
    assert stored.status_code == 200, stored.text
    assert stored.json()["size_bytes"] == STREAM_BYTES
    wrote = memory(node, "VmHWM") - before
    seen, size = hashlib.sha256(), 0
    with httpx.stream("GET", url, timeout=120) as answer:
        for chunk in answer.iter_raw(MEBIBYTE):
            seen.update(chunk)
            size += len(chunk)
    read = memory(node, "VmHWM") - before
    print(f"growth: {wrote / MEBIBYTE:.0f} MiB writing, {read / MEBIBYTE:.0f} MiB reading too")
    assert (size, seen.hexdigest()) == (STREAM_BYTES, stored.json()["sha256"])
    assert max(wrote, read) < GROWTH_BYTES_MAX
    # A slow reader holds what is on its way, and no more.
    with httpx.stream("GET", url, timeout=120) as answer:
        next(answer.iter_raw(1))
        time.sleep(0.5)
    assert memory(node, "VmHWM") - before < GROWTH_BYTES_MAX
    assert httpx.delete(url).status_code == 204


@pytest.mark.parametrize("chunked", [False, True], ids=["with a length", "chunked"])
@pytest.mark.parametrize("size", [1_000, 30 * MEBIBYTE], ids=["small", "large"])
def test_a_client_that_goes_away_leaves_nothing(node: Node, chunked: bool, size: int) -> None:
    key = f"gone/{chunked}-{size}"
    length = "Transfer-Encoding: chunked" if chunked else f"Content-Length: {size + 1}"
    head = f"PUT {BASE}/{key} HTTP/1.1\r\nHost: 127.0.0.1\r\n{length}\r\n\r\n".encode()
    temp = bucket_of(node) / ".tmp"
    with socket.create_connection(("127.0.0.1", node.http_port)) as client:
        client.sendall(head)
        if chunked:
            client.sendall(b"%x\r\n" % size)
        client.sendall((BLOCK * (size // len(BLOCK) + 1))[:size])
        if size > MEBIBYTE:
            eventually(lambda: any(temp.iterdir()))
    eventually(lambda: not temp.exists() or not any(temp.iterdir()))
    assert httpx.get(f"{node.url}{BASE}/{key}").status_code == 404
    assert not (bucket_of(node) / "gone").exists()


def test_a_body_that_is_refused_under_way_leaves_nothing(node: Node) -> None:
    url = f"{node.url}{BASE}/refused"
    digest = {"Content-Digest": "sha-256=:" + "A" * 43 + "=:"}
    with contextlib.suppress(httpx.WriteError):
        answer = httpx.put(url, content=BLOCK * 20, headers=digest, timeout=60)
        assert (answer.status_code, answer.json()["checked"]) == (400, "sha256")
    assert httpx.get(url).status_code == 404
    assert not (bucket_of(node) / "refused").exists()


def test_a_page_that_was_stored_is_not_run(node: Node) -> None:
    page = b"<html><script>fetch('/tokens')</script></html>"
    for name in ("page.html", "page.svg", "page.xhtml", "page", "a%22b.htm"):
        url = f"{node.url}{BASE}/web/{name}"
        assert httpx.put(url, content=page).status_code == 200
        headers = httpx.get(url).headers
        assert headers["x-content-type-options"] == "nosniff"
        assert headers["content-disposition"].startswith("attachment; ")
        assert "sandbox" in headers["content-security-policy"]
        assert headers["cross-origin-resource-policy"] == "same-origin"


def test_twice_is_once(node: Node) -> None:
    url = f"{node.url}{BASE}/twice"
    key = {"Idempotency-Key": "put-twice", "If-None-Match": "*"}
    first = httpx.put(url, content=b"one", headers=key)
    again = httpx.put(url, content=b"one", headers=key)
    assert (first.status_code, again.status_code) == (200, 200)
    assert again.json() == first.json() | {"replayed": True}
    assert httpx.put(url, content=b"two", headers=key).status_code == 412
    assert httpx.put(url, content=b"one", headers={"If-None-Match": "*"}).status_code == 412
    for _ in range(2):
        plain = httpx.put(url, content=b"three", headers={"Idempotency-Key": "plain"})
        assert plain.status_code == 200
        assert httpx.get(url).content == b"three"
    for _ in range(2):
        assert httpx.delete(url, headers={"Idempotency-Key": "gone"}).status_code == 204
    assert httpx.get(url).status_code == 404


@pytest_asyncio.fixture(loop_scope="module", scope="module")
async def stack(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Stack]:
    async with http_stack(tmp_path_factory.mktemp("objects-stack"), auth="tokens") as there:
        yield there


@pytest.mark.asyncio(loop_scope="module")
async def test_the_ledger_is_read_by_operators_alone(stack: Stack) -> None:
    async with stack.client(await stack.token(Scope.OPERATOR)) as operator:
        made = await operator.post("/tokens", json={"name": "w", "scopes": ["write"]})
        assert made.status_code == 201
        listed = (await operator.get(BASE, params={"prefix": "_catalog/"})).json()
        keys = [each["key"] for each in listed["objects"]] + ["store.json"]
        assert len(keys) > 1
        for key in keys:
            assert (await operator.get(f"{BASE}/{key}")).status_code == 200
            for send in (operator.put, operator.delete):
                assert (await send(f"{BASE}/{key}")).status_code == 403
    async with stack.client(await stack.token(Scope.WRITE)) as writer:
        for key in keys:
            for spelled in (key, key.replace("_", "%5F"), key.replace("/", "%2F")):
                assert (await writer.get(f"{BASE}/{spelled}")).status_code == 403
                assert (await writer.head(f"{BASE}/{spelled}")).status_code == 403
                assert (await writer.put(f"{BASE}/{spelled}", content=b"")).status_code == 403
                assert (await writer.delete(f"{BASE}/{spelled}")).status_code == 403
        assert (await writer.get(BASE, params={"prefix": "_catalog/"})).status_code == 403
        walked = (await writer.get(BASE)).text
        assert "_catalog" not in walked
        assert "store.json" not in walked


@pytest.mark.asyncio(loop_scope="module")
async def test_what_a_dataset_reads_in_place_is_not_taken_away(stack: Stack) -> None:
    sink = io.BytesIO()
    pq.write_table(pa.table({"id": [1, 2, 3]}), sink)
    async with stack.client(await stack.token(Scope.WRITE), timeout=60) as client:
        url = f"{BASE}/foreign/rows.parquet"
        assert (await client.put(url, content=sink.getvalue())).status_code == 200
        card = {"owner": "o", "description": "d"}
        body: dict[str, Any] = {
            "name": "in_place",
            "objects": [{"key": "foreign/rows.parquet"}],
            "card": card,
        }
        assert (await client.post("/catalog/datasets", json=body)).status_code == 201
        for answer in (await client.put(url, content=b"x"), await client.delete(url)):
            assert (answer.status_code, answer.json()["kind"]) == (409, "conflict")
            assert answer.json()["hint"]
        counted = await client.post("/query/sql", json={"sql": "select count(*) from in_place"})
        assert counted.json()["rows"] == [[3]]
