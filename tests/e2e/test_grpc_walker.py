"""Every RPC is called with no, wrong, revoked, expired and too narrow tokens.

What there is to call is asked of the running server itself, by reflection: an RPC that is not in
the table fails the test.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import grpc
import pytest
import pytest_asyncio

from e2e.http_stack import OPERATOR, Stack, http_stack
from e2e.test_http_walker import strangers_of
from lakehouse.contracts import catalog as c
from lakehouse.contracts.rows import DiffRequest, RestoreRowsRequest
from lakehouse.kit.clock import SystemClock
from lakehouse.model.changes import (
    DeleteDocument,
    DropDataset,
    PurgeDataset,
    PutDocument,
    QuarantineDataset,
)
from lakehouse.model.dataset import Card
from lakehouse.model.identity import Context, Scope
from lakehouse.node.authentication import TokenAuthenticator
from lakehouse.rpc.convert import to_message
from lakehouse.rpc.errors import TRAILER, unpack
from lakehouse.rpc.server import build_server
from lakehouse.v1.ingest_pb2 import IngestPart
from lakehouse.v1.objects_pb2 import PutObjectPart
from unit.rpc.test_server import Explorer

pytestmark = pytest.mark.asyncio(loop_scope="module")

PUBLIC: Final = frozenset({"grpc.health.v1.Health", "grpc.reflection.v1alpha.ServerReflection"})
READ, WRITE, ADMIN = Scope.READ, Scope.WRITE, Scope.OPERATOR
NEEDED: Final[dict[str, dict[str, Scope | None]]] = {
    "Catalog": {
        "Get": READ,
        "List": READ,
        "Snapshot": READ,
        "Files": READ,
        "Versions": READ,
        "Documents": READ,
        "Status": READ,
        "Usage": READ,
        "ObjectChanges": READ,
        "ObjectStates": READ,
        "Journal": READ,
        "Tags": READ,
        "SetTag": WRITE,
        "Commit": WRITE,
        "Register": WRITE,
        "UpdateCard": WRITE,
        "Rename": WRITE,
        "Drop": WRITE,
        "Restore": WRITE,
        "Session": WRITE,
        "Dedupe": ADMIN,
        "Fsck": ADMIN,
        "Collect": ADMIN,
        "ImportDatasets": ADMIN,
    },
    # Anybody with a good token may ask whose it is.
    "Tokens": {"Create": ADMIN, "List": ADMIN, "Revoke": ADMIN, "Verify": None},
    "Ingest": {"Ingest": WRITE},
    "Query": {"Run": READ, "Running": READ, "Cancel": READ},
    "Storage": {
        "Buckets": ADMIN,
        "Probe": ADMIN,
        "AddBucket": ADMIN,
        "RemoveBucket": ADMIN,
        "Errors": ADMIN,
        "Report": ADMIN,
    },
    "Objects": {"List": READ, "Stat": READ, "Get": READ, "Put": WRITE, "Delete": WRITE},
    "Rows": {
        "Get": READ,
        "Diff": READ,
        "Change": WRITE,
        "SetKey": WRITE,
        "Widen": WRITE,
        "Restore": WRITE,
        "Compact": WRITE,
    },
    "Journal": {"Events": READ, "History": READ, "Feed": READ},
}
STREAMS: Final = frozenset({("Query", "Run"), ("Objects", "Get"), ("Journal", "Feed")})
CALLS: Final = [
    pytest.param(noun, rpc, scope, id=f"{noun}.{rpc}")
    for noun, rpcs in NEEDED.items()
    for rpc, scope in rpcs.items()
]


BODIES: Final[dict[tuple[str, str], Any]] = {
    ("Ingest", "Ingest"): IngestPart,
    ("Objects", "Put"): PutObjectPart,
}
"""The parts of calls that take a body."""

MINIMAL: Final[dict[tuple[str, str], object]] = {
    ("Catalog", "Commit"): c.CommitRequest((DropDataset("nobody"),)),
    ("Catalog", "Register"): c.RegisterRequest("nobody", (c.ForeignObject("nothing"),), Card()),
    ("Rows", "Diff"): DiffRequest("nobody", c.AsOf(1)),
    ("Rows", "Restore"): RestoreRowsRequest("nobody", c.AsOf(1)),
}
"""Where a message without anything in it cannot be read as a request."""

ESCALATIONS: Final = [
    pytest.param("Drop", c.DropRequest("nobody", purge=True), id="purge"),
    pytest.param("Commit", c.CommitRequest((PurgeDataset("nobody"),)), id="commit a purge"),
    pytest.param(
        "Commit", c.CommitRequest((QuarantineDataset("nobody", "x"),)), id="commit a quarantine"
    ),
    pytest.param(
        "Commit",
        c.CommitRequest((DropDataset("nobody"), PutDocument("token", "0" * 16, "{}"))),
        id="commit a token of one's own",
    ),
    pytest.param(
        "Commit", c.CommitRequest((DeleteDocument("token", "0" * 16),)), id="delete a token"
    ),
    pytest.param("Documents", c.DocumentsRequest("token"), id="read the tokens"),
    pytest.param("Documents", c.DocumentsRequest("bucket"), id="read where the buckets are"),
]
NOT_FOR_A_FITTING_TOKEN: Final = (
    grpc.StatusCode.UNAUTHENTICATED,
    grpc.StatusCode.PERMISSION_DENIED,
    grpc.StatusCode.INTERNAL,
)


def encoded(request: object) -> bytes:
    data: bytes = to_message(request).SerializeToString()
    return data


def refused(error: Any, scope: Scope | None = None) -> None:
    """For the scope that is needed, and for nothing else."""
    assert error is not None
    assert error.code() is grpc.StatusCode.PERMISSION_DENIED, error
    fields = unpack(dict(error.trailing_metadata())[TRAILER]).fields
    assert scope is None or fields["required"] == scope.value


@dataclass
class Watched:
    """A role that counts who gets as far as calling it."""

    role: Any
    called: list[str] = field(default_factory=list)

    def __getattr__(self, name: str) -> Any:
        method = getattr(self.role, name)

        async def passed_on(ctx: Context, *arguments: Any) -> Any:
            self.called.append(name)
            return await method(ctx, *arguments)

        return passed_on


@dataclass
class There:
    """The real roles behind a real socket, and callers of them."""

    stack: Stack
    roles: dict[str, Watched]
    channel: grpc.aio.Channel
    tokens: dict[Scope, str]
    strangers: dict[str, str | None]

    async def call(self, noun: str, rpc: str, token: str | None, data: bytes = b"") -> Any:
        """The error of a call, None if it went well. A body that streams is never ended: an answer
        therefore came before the end was waited for."""
        metadata = () if token is None else (("authorization", f"Bearer {token}"),)
        path = f"/lakehouse.v1.{noun}/{rpc}"
        try:
            if (noun, rpc) in BODIES:
                call = self.channel.stream_unary(path)(metadata=metadata)
                await call.write(data or BODIES[noun, rpc](request={}).SerializeToString())
                await asyncio.wait_for(call, 60)
            elif (noun, rpc) in STREAMS:
                async for _ in self.channel.unary_stream(path)(data, metadata=metadata):
                    pass
            else:
                await self.channel.unary_unary(path)(data, metadata=metadata)
        except grpc.aio.AioRpcError as error:
            return error
        return None

    def taken(self) -> list[str]:
        return [name for role in self.roles.values() for name in role.called]

    async def version(self) -> int:
        return (await self.stack.catalog.status(OPERATOR, c.StatusRequest())).version


@pytest_asyncio.fixture(loop_scope="module", scope="module")
async def there(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[There]:
    folder: Path = tmp_path_factory.mktemp("walker")
    async with http_stack(folder, auth="tokens") as stack:
        nouns = [noun.lower() for noun in NEEDED]
        roles = {noun: Watched(getattr(stack.services, noun)) for noun in nouns}
        authenticator = TokenAuthenticator(stack.tokens, SystemClock(), stack.ids)
        server = build_server(roles, authenticator, SystemClock(), stack.ids, stack.catalog)
        address = f"127.0.0.1:{server.add_insecure_port('127.0.0.1:0')}"
        await server.start()
        try:
            async with grpc.aio.insecure_channel(address) as channel:
                tokens = {scope: await stack.token(scope) for scope in Scope}
                yield There(stack, roles, channel, tokens, await strangers_of(stack))
        finally:
            await server.stop(0)


async def test_the_table_has_every_rpc_and_no_other(there: There) -> None:
    explorer = Explorer(there.channel)
    served: dict[str, set[str]] = {}
    for service in await explorer.services() - PUBLIC:
        described = await explorer.service(service)
        served[described.name] = {method.name for method in described.methods}
    assert served == {noun: set(rpcs) for noun, rpcs in NEEDED.items()}


@pytest.mark.parametrize(("noun", "rpc", "scope"), CALLS)
async def test_nobody_gets_in(there: There, noun: str, rpc: str, scope: Scope | None) -> None:
    before, version, said = there.taken(), await there.version(), set()
    for what, credential in there.strangers.items():
        # Bytes that are no message are not even looked at.
        for data in (b"", b"\xff\xff"):
            error = await there.call(noun, rpc, credential, data)
            assert error is not None, what
            assert error.code() is grpc.StatusCode.UNAUTHENTICATED, (what, error)
            said.add(error.details())
    # What is wrong with a token is nobody's business.
    assert len(said) == 1
    assert there.taken() == before
    assert await there.version() == version


@pytest.mark.parametrize(("noun", "rpc", "scope"), CALLS)
async def test_a_narrow_token_is_refused_and_a_fitting_one_is_not(
    there: There, noun: str, rpc: str, scope: Scope | None
) -> None:
    for held, token in there.tokens.items():
        version = await there.version()
        fits = scope is None or held.rank >= scope.rank
        if (noun, rpc) in BODIES and fits:
            # Who may send is waited for; a part out of order ends it.
            data = BODIES[noun, rpc](chunk=b"x").SerializeToString()
        else:
            data = encoded(MINIMAL[noun, rpc]) if (noun, rpc) in MINIMAL else b""
        error = await there.call(noun, rpc, token, data)
        if fits:
            assert error is None or error.code() not in NOT_FOR_A_FITTING_TOKEN, (held, error)
            continue
        refused(error, scope)
        assert await there.version() == version


@pytest.mark.parametrize(("rpc", "request_"), ESCALATIONS)
async def test_some_requests_need_more_than_their_rpc(
    there: There, rpc: str, request_: object
) -> None:
    version = await there.version()
    for held in (READ, WRITE):
        refused(await there.call("Catalog", rpc, there.tokens[held], encoded(request_)))
    assert await there.version() == version
    error = await there.call("Catalog", rpc, there.tokens[ADMIN], encoded(request_))
    assert error is None or error.code() not in NOT_FOR_A_FITTING_TOKEN, error


async def test_health_and_reflection_need_nothing_and_tell_nothing_of_the_data(
    there: There,
) -> None:
    before = there.taken()
    explorer = Explorer(there.channel, "")
    assert await explorer.services() > PUBLIC
    check = there.channel.unary_unary("/grpc.health.v1.Health/Check")
    assert await check(b"") == b"\x08\x01"
    assert there.taken() == before


@pytest.mark.parametrize("path", ["/lakehouse.v1.Catalog/Nothing", "/Nothing/Nothing", "/"])
async def test_what_is_not_there_is_unimplemented(there: There, path: str) -> None:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await there.channel.unary_unary(path)(b"")
    assert caught.value.code() is grpc.StatusCode.UNIMPLEMENTED
