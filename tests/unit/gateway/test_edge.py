"""Identity, limits and counters of the outermost layer."""

from __future__ import annotations

import asyncio
import re

import pytest

from lakehouse.contracts.readiness import Readiness
from lakehouse.gateway.settings import GatewaySettings
from lakehouse.kit.acting import Acting, acting
from lakehouse.model.identity import Context
from unit.gateway.fakes import World
from unit.gateway.servers import serving

PERSON = "/catalog/datasets/people"


@pytest.mark.parametrize("given", ["R-1", "a" * 128, "A:b_c.d-9"])
async def test_a_request_id_comes_back_and_goes_in(given: str) -> None:
    world = World()
    async with world.client() as client:
        answer = await client.get(PERSON, headers={"X-Request-Id": given})
    assert answer.headers["x-request-id"] == given
    assert world.catalog.last("get")[0].request_id == given


@pytest.mark.parametrize("given", ["", "a" * 129, "two words", 'x"y', "ä"])
async def test_a_request_id_we_would_not_log_is_replaced(given: str) -> None:
    world = World()
    async with world.client() as client:
        answer = await client.get(PERSON, headers={"X-Request-Id": given.encode("utf-8")})
    assert re.fullmatch("[0-9A-Z]{26}", answer.headers["x-request-id"])


async def test_the_context_says_who_calls_and_until_when() -> None:
    world = World()
    headers = {"Idempotency-Key": "k-1", "Lakehouse-Timeout": "2.5"}
    async with world.client("write") as client:
        await client.delete(PERSON, headers=headers)
    ctx, _ = world.catalog.last("drop")
    assert ctx.principal.id == "user-write"
    assert ctx.credential == "write"
    assert ctx.idempotency_key == "k-1"
    assert ctx.source == "http"
    assert ctx.deadline is not None
    assert "write" not in repr(ctx).replace("user-write", "").replace("Scope.WRITE: 'write'", "")


async def test_what_a_request_does_is_done_on_its_caller_s_behalf(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    world, seen = World(), []
    saw = world.catalog.saw

    def noted(method: str, ctx: Context, request: object) -> None:
        seen.append(acting())
        saw(method, ctx, request)

    monkeypatch.setattr(world.catalog, "saw", noted)
    async with world.client("write") as client:
        await client.delete(PERSON, headers={"X-Request-Id": "r-7"})
    assert seen == [Acting("user-write", "r-7")]
    assert acting() == Acting()


@pytest.mark.parametrize(
    ("header", "value"),
    [
        ("Idempotency-Key", "two words"),
        ("Idempotency-Key", "k" * 256),
        ("Idempotency-Key", ""),
        ("Lakehouse-Timeout", "soon"),
        ("Lakehouse-Timeout", "nan"),
        ("Lakehouse-Timeout", "0.9"),
        ("Lakehouse-Timeout", "-1"),
        ("Lakehouse-Timeout", "inf"),
        ("Lakehouse-Timeout", "86401"),
        ("Lakehouse-Min-Version", "x"),
        ("Lakehouse-Min-Version", "-1"),
    ],
)
async def test_a_header_of_ours_that_is_none_is_refused(header: str, value: str) -> None:
    world = World()
    async with world.client() as client:
        answer = await client.get(PERSON, headers={header: value})
    assert answer.status_code == 400
    assert header.lower() in answer.text.lower()
    assert world.catalog.calls == []


@pytest.mark.parametrize("header", ["Basic dXNlcjpw", "read", "Bearer", "Bearer wrong", "bearer"])
async def test_only_a_bearer_token_that_is_known_passes(header: str) -> None:
    world = World()
    async with world.client(None) as client:
        answer = await client.get(PERSON, headers={"Authorization": header})
    assert answer.status_code == 401
    assert answer.headers["www-authenticate"].startswith("Bearer")
    assert world.catalog.calls == []


async def test_the_scheme_is_read_without_case() -> None:
    async with World().client(None) as client:
        answer = await client.get(PERSON, headers={"Authorization": "bEARER read"})
    assert answer.status_code == 200


async def test_a_path_that_is_none_asks_for_a_token_too() -> None:
    async with World().client(None) as client:
        assert (await client.get("/nothing")).status_code == 401
    async with World().client() as client:
        assert (await client.get("/nothing")).status_code == 404
        assert (await client.get("/catalog/datasets/")).status_code == 404


@pytest.mark.parametrize(
    ("path", "status"),
    [
        ("/catalog/datasets/a%2fb", 400),
        ("/catalog/datasets/a%2Frestore", 400),
        ("/catalog/datasets/%ff%fe", 400),
        ("/catalog/datasets/%c3%28", 400),
        ("/catalog/datasets/people%0A", 400),
        ("/storage/objects/primary/a%0A", 400),
        ("/catalog/datasets/my%20people", 200),
        ("/catalog/datasets/%E4%BA%BA", 200),
    ],
)
async def test_percent_escapes_never_change_what_a_path_means(path: str, status: int) -> None:
    world = World()
    async with world.client() as client:
        assert (await client.get(path)).status_code == status
    if status == 200:
        assert world.catalog.last("get")[1].name in ("my people", "人")


async def test_headers_and_targets_have_an_end() -> None:
    settings = GatewaySettings(header_bytes_max=1000, target_bytes_max=500)
    async with World(settings).client() as client:
        big = await client.get("/health", headers={"X-Big": "x" * 1000})
        long = await client.get("/catalog/datasets?q=" + "x" * 500)
    assert (big.status_code, big.json()["kind"]) == (431, "invalid")
    assert (long.status_code, long.json()["bytes_max"]) == (414, 500)


async def test_a_page_of_another_site_cannot_write() -> None:
    world = World()
    async with world.client() as client:
        evil = {"Origin": "http://evil.example"}
        own = {"Origin": "http://localhost"}
        assert (await client.delete(PERSON, headers=evil)).status_code == 403
        assert world.catalog.calls == []
        assert (await client.delete(PERSON, headers=own)).status_code == 200
        assert (await client.get(PERSON, headers=evil)).status_code == 200


async def test_hosts_that_are_not_named_are_not_answered() -> None:
    async with World(GatewaySettings(hosts=("localhost", "[::1]"))).client() as client:
        assert (await client.get("/health")).status_code == 200
        assert (await client.get("/health", headers={"Host": "[::1]:3100"})).status_code == 200
        answer = await client.get("/health", headers={"Host": "rebound.example:3100"})
    assert answer.status_code == 403
    assert answer.json()["host"] == "rebound.example:3100"


async def test_head_answers_as_get_without_the_body() -> None:
    async with World().client() as client:
        head, get = await client.head(PERSON), await client.get(PERSON)
    assert (head.status_code, head.content) == (200, b"")
    assert head.headers["lakehouse-version"] == get.headers["lakehouse-version"]


async def test_a_wrong_method_is_told_all_the_right_ones() -> None:
    async with World().client() as client:
        answer = await client.put(PERSON)
    assert answer.status_code == 405
    assert answer.headers["allow"] == "DELETE, GET, PATCH"


async def test_ready_says_why_it_is_not() -> None:
    world = World()
    world.readiness.found = Readiness(False, ("the catalog opens",), {"record": "12"})
    async with world.client(None) as client:
        answer = await client.get("/ready")
        assert (await client.get("/health")).status_code == 200
    assert answer.status_code == 503
    assert answer.json()["reasons"] == ["the catalog opens"]
    assert answer.json()["details"] == {"record": "12"}
    assert answer.json()["ready"] is False


async def test_no_answer_is_taken_for_a_page() -> None:
    async with World().client() as client:
        for path in (PERSON, "/nothing", "/health"):
            answer = await client.get(path)
            assert answer.headers["x-content-type-options"] == "nosniff"


async def test_metrics_count_routes_and_never_paths() -> None:
    world = World(GatewaySettings())
    async with world.client() as client:
        for name in ("ada", "bob"):
            await client.get(f"/catalog/datasets/{name}")
        await client.get("/nothing/at/all")
        await client.request("BREW", "/health")
        text = (await client.get("/metrics")).text
    route = 'route="/catalog/datasets/{name}"'
    assert f'lakehouse_http_requests_total{{method="GET",{route},status="200"}} 2.0' in text
    assert 'method="GET",route="(none)",status="404"} 1.0' in text
    assert 'method="other",route="/health",status="405"} 1.0' in text
    assert "ada" not in text


async def test_a_client_of_http_1_0_may_name_no_host() -> None:
    world = World(GatewaySettings(hosts=("localhost",)))
    async with serving(world.app) as port:
        for version, status in ((b"1.0", b"200"), (b"1.1", b"403")):
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.write(b"GET /health HTTP/%b\r\nconnection: close\r\n\r\n" % version)
            assert (await reader.readline()).split()[1] == status
            writer.close()


async def test_a_compressed_json_body_is_told_so() -> None:
    async with World().client() as client:
        answer = await client.post(
            "/query/sql", content=b"\x1f\x8b", headers={"Content-Encoding": "gzip"}
        )
    assert (answer.status_code, answer.json()["content_encoding"]) == (415, "gzip")
