"""Every route is called with no, wrong, revoked, expired and too narrow tokens.

The table is exhaustive: a route that is not in it fails the test.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any, Final

import pytest
import pytest_asyncio
from fastapi.routing import APIRoute

from e2e.http_stack import OPERATOR, Stack, http_stack
from lakehouse.contracts.tokens import RevokeTokenRequest
from lakehouse.kit.clock import SystemClock
from lakehouse.model.identity import Scope

pytestmark = pytest.mark.asyncio(loop_scope="module")

Route = tuple[str, str]

NEEDED: Final[dict[Route, Scope | None]] = {
    ("GET", "/health"): None,
    ("GET", "/ready"): None,
    ("GET", "/version"): None,
    ("GET", "/openapi.json"): None,
    ("GET", "/docs"): None,
    ("GET", "/metrics"): Scope.READ,
    ("GET", "/catalog/datasets"): Scope.READ,
    ("POST", "/catalog/datasets"): Scope.WRITE,
    ("GET", "/catalog/datasets/{name}"): Scope.READ,
    ("PATCH", "/catalog/datasets/{name}"): Scope.WRITE,
    ("DELETE", "/catalog/datasets/{name}"): Scope.WRITE,
    ("POST", "/catalog/datasets/{name}/restore"): Scope.WRITE,
    ("GET", "/catalog/datasets/{name}/versions"): Scope.READ,
    ("GET", "/catalog/datasets/{name}/history"): Scope.READ,
    ("GET", "/catalog/datasets/{name}/schema"): Scope.READ,
    ("GET", "/catalog/datasets/{name}/lineage"): Scope.READ,
    ("GET", "/catalog/datasets/{name}/files"): Scope.READ,
    ("POST", "/catalog/dedupe"): Scope.OPERATOR,
    ("POST", "/catalog/fsck"): Scope.OPERATOR,
    ("POST", "/catalog/collect"): Scope.OPERATOR,
    ("POST", "/catalog/import"): Scope.OPERATOR,
    ("GET", "/storage/buckets"): Scope.OPERATOR,
    ("POST", "/storage/buckets"): Scope.OPERATOR,
    ("DELETE", "/storage/buckets/{name}"): Scope.OPERATOR,
    ("POST", "/storage/buckets/{name}/probe"): Scope.OPERATOR,
    ("GET", "/storage/errors"): Scope.OPERATOR,
    ("GET", "/storage/objects/{bucket}"): Scope.READ,
    ("GET", "/storage/objects/{bucket}/{key}"): Scope.READ,
    ("PUT", "/storage/objects/{bucket}/{key}"): Scope.WRITE,
    ("DELETE", "/storage/objects/{bucket}/{key}"): Scope.WRITE,
    ("POST", "/ingest/datasets/{name}"): Scope.WRITE,
    ("GET", "/datasets/{name}/rows/{key}"): Scope.READ,
    ("GET", "/datasets/{name}/diff"): Scope.READ,
    ("POST", "/ingest/datasets/{name}/rows"): Scope.WRITE,
    ("DELETE", "/ingest/datasets/{name}/rows"): Scope.WRITE,
    ("PUT", "/ingest/datasets/{name}/key"): Scope.WRITE,
    ("POST", "/ingest/datasets/{name}/schema"): Scope.WRITE,
    ("POST", "/ingest/datasets/{name}/restore-rows"): Scope.WRITE,
    ("POST", "/ingest/datasets/{name}/compact"): Scope.WRITE,
    ("GET", "/journal/events"): Scope.READ,
    ("GET", "/journal/rows/{dataset}/{key}"): Scope.READ,
    ("GET", "/journal/feed"): Scope.READ,
    ("GET", "/catalog/tags"): Scope.READ,
    ("GET", "/catalog/tags/{tag}"): Scope.READ,
    ("PUT", "/catalog/tags/{tag}"): Scope.WRITE,
    ("DELETE", "/catalog/tags/{tag}"): Scope.WRITE,
    ("POST", "/vectors/search"): Scope.READ,
    ("POST", "/vectors/rag"): Scope.READ,
    ("GET", "/retrievals"): Scope.READ,
    ("GET", "/retrievals/{id}"): Scope.READ,
    ("POST", "/retrievals/{id}/replay"): Scope.READ,
    ("GET", "/retrievals/{id}/explain"): Scope.READ,
    ("POST", "/retrievals/{id}/pin"): Scope.WRITE,
    ("DELETE", "/retrievals/{id}/pin"): Scope.WRITE,
    ("GET", "/vectors/evals"): Scope.READ,
    ("POST", "/vectors/evals"): Scope.WRITE,
    ("GET", "/vectors/evals/{name}"): Scope.READ,
    ("DELETE", "/vectors/evals/{name}"): Scope.WRITE,
    ("POST", "/vectors/evals/{name}/run"): Scope.WRITE,
    ("POST", "/hnsw/autotune"): Scope.WRITE,
    ("GET", "/hnsw/runs/{run}"): Scope.READ,
    ("GET", "/hnsw/trials"): Scope.READ,
    ("POST", "/hnsw/trials/{id}/promote"): Scope.WRITE,
    ("GET", "/memory"): Scope.READ,
    ("POST", "/memory/{name}/turns"): Scope.WRITE,
    ("POST", "/memory/{name}/recall"): Scope.READ,
    ("GET", "/memory/{name}/catch-up"): Scope.READ,
    ("POST", "/vectors/indexes"): Scope.WRITE,
    ("GET", "/vectors/indexes"): Scope.READ,
    ("GET", "/vectors/indexes/{name}"): Scope.READ,
    ("DELETE", "/vectors/indexes/{name}"): Scope.WRITE,
    ("POST", "/vectors/indexes/{name}/build"): Scope.WRITE,
    ("POST", "/vectors/indexes/{name}/cut-over"): Scope.WRITE,
    ("POST", "/vectors/indexes/{name}/compare"): Scope.READ,
    ("POST", "/vectors/indexes/{name}/vectors"): Scope.WRITE,
    ("DELETE", "/vectors/indexes/{name}/vectors"): Scope.WRITE,
    ("GET", "/vectors/indexes/{name}/vectors"): Scope.READ,
    ("GET", "/vectors/indexes/{name}/vectors/{key}"): Scope.READ,
    ("GET", "/profiles"): Scope.READ,
    ("GET", "/profiles/{name}"): Scope.READ,
    ("PUT", "/profiles/{name}"): Scope.WRITE,
    ("DELETE", "/profiles/{name}"): Scope.WRITE,
    ("POST", "/query/sql"): Scope.READ,
    ("GET", "/query"): Scope.READ,
    ("DELETE", "/query/{id}"): Scope.READ,
    ("GET", "/tokens"): Scope.OPERATOR,
    ("POST", "/tokens"): Scope.OPERATOR,
    ("DELETE", "/tokens/{id}"): Scope.OPERATOR,
}
GUARDED: Final = [(route, scope) for route, scope in NEEDED.items() if scope is not None]


class Yesterday(SystemClock):
    """A clock a day behind: what it makes for a minute has expired."""

    def now_us(self) -> int:
        return super().now_us() - 24 * 3600 * 1_000_000


@pytest_asyncio.fixture(loop_scope="module", scope="module")
async def stack(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Stack]:
    folder: Path = tmp_path_factory.mktemp("walker")
    async with http_stack(folder, auth="tokens") as running:
        yield running


async def strangers_of(stack: Stack) -> dict[str, str | None]:
    """Credentials that are nobody's, by what is wrong with them; all were or look like an
    operator's."""
    good, revoked = await stack.token(Scope.OPERATOR), await stack.token(Scope.OPERATOR)
    token_id = revoked.removeprefix("lh_").partition(".")[0]
    await stack.tokens.revoke(OPERATOR, RevokeTokenRequest(token_id))
    flipped = good[:-1] + ("0" if good[-1] != "0" else "1")
    return {
        "none": None,
        "empty": "",
        "malformed": "operator",
        "wrong secret": flipped,
        "unknown id": "lh_" + "0" * 16 + "." + good.partition(".")[2],
        "revoked": revoked,
        "expired": await stack.token(Scope.OPERATOR, Yesterday()),
    }


@pytest_asyncio.fixture(loop_scope="module", scope="module")
async def strangers(stack: Stack) -> dict[str, str | None]:
    return await strangers_of(stack)


async def call(stack: Stack, route: Route, credential: str | None) -> Any:
    method, template = route
    path = template.replace("{name}", "nobody").replace("{id}", "nobody")
    path = path.replace("{bucket}", "primary").replace("{key}", "nobody")
    path = path.replace("{dataset}", "nobody").replace("{tag}", "nobody")
    async with stack.client(credential) as client:
        return await client.request(method, path)


async def test_the_table_has_every_route_and_no_other(stack: Stack) -> None:
    served = {
        (method, getattr(route, "path_format", route.path))
        for route in stack.app.routes
        for method in getattr(route, "methods", None) or {"?"}
        if method != "HEAD"
    }
    assert served == set(NEEDED)
    for route in stack.app.routes:
        if isinstance(route, APIRoute):
            documented = stack.app.openapi()["paths"][route.path_format]
            for method in route.methods or ():
                assert documented[method.lower()]["x-scope"] == NEEDED[(method, route.path_format)]


@pytest.mark.parametrize(
    ("route", "scope"), GUARDED, ids=lambda v: " ".join(v) if isinstance(v, tuple) else ""
)
async def test_nobody_gets_in(
    stack: Stack, strangers: dict[str, str | None], route: Route, scope: Scope
) -> None:
    answers = {}
    for what, credential in strangers.items():
        answer = await call(stack, route, credential)
        assert answer.status_code == 401, (what, answer.text)
        assert answer.headers["www-authenticate"].startswith("Bearer")
        body = answer.json()
        answers[what] = {key: value for key, value in body.items() if key != "request_id"}
    # What is wrong with a token is nobody's business.
    assert len({str(body) for body in answers.values()}) == 1


@pytest.mark.parametrize(
    ("route", "scope"), GUARDED, ids=lambda v: " ".join(v) if isinstance(v, tuple) else ""
)
async def test_a_narrow_token_is_refused_and_a_fitting_one_is_not(
    stack: Stack, route: Route, scope: Scope
) -> None:
    for held in Scope:
        answer = await call(stack, route, await stack.token(held))
        if held.rank < scope.rank:
            assert answer.status_code == 403, (held, answer.text)
            assert answer.json()["required"] == scope.value
        else:
            assert answer.status_code not in (401, 403), (held, answer.text)
            assert answer.status_code < 500, (held, answer.text)


@pytest.mark.parametrize("route", [r for r, scope in NEEDED.items() if scope is None])
async def test_public_routes_need_nothing(stack: Stack, route: Route) -> None:
    answer = await call(stack, route, None)
    assert answer.status_code == 200


@pytest.mark.parametrize("path", ["/", "/nothing", "/health/", "/docs/oauth2-redirect", "/redoc"])
async def test_what_is_not_there_does_not_say_so_to_strangers(stack: Stack, path: str) -> None:
    async with stack.client() as client:
        assert (await client.get(path)).status_code == 401


async def test_a_token_made_over_http_works_until_it_is_revoked(stack: Stack) -> None:
    operator = await stack.token(Scope.OPERATOR)
    async with stack.client(operator) as client:
        made = (await client.post("/tokens", json={"name": "reader", "scopes": ["read"]})).json()
        async with stack.client(made["token"]) as reader:
            assert (await reader.get("/catalog/datasets")).status_code == 200
            listed = await client.get("/tokens")
            assert made["id"] in listed.text
            assert made["token"].partition(".")[2] not in listed.text
            assert (await client.delete(f"/tokens/{made['id']}")).status_code == 200
            assert (await reader.get("/catalog/datasets")).status_code == 401
