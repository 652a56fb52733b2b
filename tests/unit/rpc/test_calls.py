"""Calls with one request and one answer: what goes in comes out, on both sides."""

from __future__ import annotations

import asyncio
from typing import Any

import grpc
import pytest
import pytest_asyncio

from lakehouse.contracts.catalog import (
    CatalogService,
    CatalogStatus,
    CommitRequest,
    FilesResult,
    GetRequest,
    ListRequest,
    PageRequest,
    StatusRequest,
    VersionsResult,
)
from lakehouse.errors import GRPC_STATUS, ErrorKind, LakehouseError
from lakehouse.kit.acting import Acting, acting
from lakehouse.model.dataset import DataFile
from lakehouse.model.identity import Context
from lakehouse.rpc.catalog import CatalogClient
from lakehouse.rpc.errors import TRAILER
from lakehouse.rpc.methods import Method, methods_of
from lakehouse.rpc.server import ServerOptions
from unit.rpc.loopback import ANNA, CLOCK, Recorder, context, loopback
from unit.rpc.samples import SERVICES, sample

STREAMS = {("Ingest", "ingest"), ("Query", "run"), ("Objects", "get"), ("Objects", "put")}
STREAMS |= {("Journal", "feed"), ("Rag", "answer")}
UNARY = [
    (noun, method)
    for noun, protocol in SERVICES.items()
    for method in methods_of(noun, protocol).values()
    if (noun, method.name) not in STREAMS
]
EVERY = [m for noun, p in SERVICES.items() for m in methods_of(noun, p).values()]


def by_path(value: Any) -> str:
    method = value[1] if isinstance(value, tuple) else value
    return str(method.path)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def wire() -> Any:
    async with loopback() as there:
        yield there


@pytest.mark.parametrize("call", UNARY, ids=by_path)
@pytest.mark.asyncio(loop_scope="module")
async def test_every_call_arrives_whole_and_so_does_its_answer(
    wire: Any, call: tuple[str, Method]
) -> None:
    noun, method = call
    ctx = context(workspace="wörk/1", source="50% off", idempotency_key="key-1")
    answer = await getattr(wire.client(noun), method.name)(ctx, sample(method.request))
    assert answer == sample(method.answer)
    name, seen, request = wire.services[noun.lower()].calls[-1]
    assert (name, request) == (method.name, sample(method.request))
    assert seen.principal == ANNA
    assert (seen.request_id, seen.workspace, seen.source) == ("r-1", "wörk/1", "50% off")
    assert seen.credential == "lh_anna.secret"
    assert seen.idempotency_key == ("key-1" if method.changes else None)
    assert seen.deadline is None


@pytest.mark.parametrize("kind", ErrorKind)
async def test_every_error_travels_whole(kind: ErrorKind) -> None:
    error = LakehouseError(kind, "it is so", names=["ä"], n=1, nested={"a": None}, hint="do that")
    service = Recorder(CatalogService, answer=error)
    async with loopback({"catalog": service}) as there:
        with pytest.raises(LakehouseError) as caught:
            await there.client("Catalog").get(context(), GetRequest("n"))
        assert caught.value.kind is kind
        assert (caught.value.message, caught.value.fields) == (error.message, error.fields)
        # Whoever knows nothing of the trailer sees the status and a line to read.
        raw = there.channel.unary_unary("/lakehouse.v1.Catalog/Get")
        with pytest.raises(grpc.aio.AioRpcError) as plain:
            await raw(b"", metadata=(("authorization", "bearer lh_anna.secret"),))
        assert plain.value.code().name == GRPC_STATUS[kind]
        assert plain.value.details() == f"{kind.value}: it is so; do that"


async def test_an_error_of_thousands_of_fields_travels_whole_between_us_only() -> None:
    lines = [{"name": f"column_{n}", "old": "int64", "new": "string"} for n in range(5_000)]
    error = LakehouseError(ErrorKind.CONFLICT, "the schema differs", diff=lines, dataset="d")
    async with loopback({"catalog": Recorder(CatalogService, answer=error)}) as there:
        with pytest.raises(LakehouseError) as caught:
            await there.client("Catalog").get(context(), GetRequest("n"))
        assert caught.value.fields == error.fields
        # A foreign client, with the library's own limits, must not lose the status over it.
        async with grpc.aio.insecure_channel(there.address) as foreign:
            raw = foreign.unary_unary("/lakehouse.v1.Catalog/Get")
            with pytest.raises(grpc.aio.AioRpcError) as plain:
                await raw(b"", metadata=(("authorization", "Bearer lh_anna.secret"),))
        assert plain.value.code() is grpc.StatusCode.FAILED_PRECONDITION
        trailer = dict(plain.value.trailing_metadata())[TRAILER]
        assert b'"dataset":"d","fields_left_out":1' in trailer


async def test_what_nobody_foresaw_is_internal_and_shows_nothing(
    caplog: pytest.LogCaptureFixture,
) -> None:
    service = Recorder(CatalogService, answer=RuntimeError("password=hunter2"))
    async with loopback({"catalog": service}) as there:
        with pytest.raises(LakehouseError) as caught:
            await there.client("Catalog").get(context(request_id="r-77"), GetRequest("n"))
    assert caught.value.kind is ErrorKind.INTERNAL
    assert caught.value.fields["request_id"] == "r-77"
    assert "hunter2" not in repr((caught.value, caught.value.fields, caught.value.__cause__))
    assert any(record.exc_info for record in caplog.records), "the log has the stack"


async def test_an_answer_that_cannot_travel_does_not_make_its_request_invalid() -> None:
    async def answer(*_: object) -> VersionsResult:
        return VersionsResult((), 2**70)

    async with loopback({"catalog": Recorder(CatalogService, answer=answer)}) as there:
        with pytest.raises(LakehouseError) as caught:
            await there.client("Catalog").versions(context(), PageRequest("n"))
        assert caught.value.kind is ErrorKind.INTERNAL

    async def garbage(data: bytes, call: Any) -> bytes:
        return b"\xff\xff"

    server = grpc.aio.server()
    handlers = {"Commit": grpc.unary_unary_rpc_method_handler(garbage)}
    server.add_generic_rpc_handlers(
        (grpc.method_handlers_generic_handler("lakehouse.v1.Catalog", handlers),)
    )
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
        with pytest.raises(LakehouseError) as caught:
            await CatalogClient(channel, CLOCK).commit(context(), CommitRequest(()))
        assert caught.value.kind is ErrorKind.INTERNAL
    await server.stop(0)


@pytest.mark.parametrize("credential", [None, "", "lh_anna.wrong", "lh_\u2603"])
async def test_every_call_needs_a_credential(credential: str | None) -> None:
    async with loopback() as there:
        for noun, method in UNARY:
            call = getattr(there.client(noun), method.name)
            with pytest.raises(LakehouseError) as caught:
                await call(context(credential=credential), sample(method.request))
            assert caught.value.kind is ErrorKind.UNAUTHENTICATED, method.path
        assert not any(service.calls for service in there.services.values())


@pytest.mark.parametrize("scheme", ["", "Basic lh_anna.secret", "lh_anna.secret", "Bearer"])
async def test_every_rpc_refuses_other_schemes_before_it_reads_the_message(scheme: str) -> None:
    async with loopback() as there:
        for method in EVERY:
            raw = there.channel.unary_unary(method.path)
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await raw(b"\xff\xff", metadata=(("authorization", scheme),))
            assert caught.value.code() is grpc.StatusCode.UNAUTHENTICATED, method.path


async def test_bytes_that_are_no_message_are_invalid() -> None:
    async with loopback() as there:
        for method in EVERY:
            raw = there.channel.unary_unary(method.path)
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await raw(b"\xff\xff", metadata=(("authorization", "Bearer lh_anna.secret"),))
            assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT, method.path
        assert not any(service.calls for service in there.services.values())


async def test_a_caller_without_a_request_id_gets_one() -> None:
    async with loopback() as there:
        raw = there.channel.unary_unary("/lakehouse.v1.Catalog/Status")
        await raw(b"", metadata=(("authorization", "Bearer lh_anna.secret"),))
        assert len(there.services["catalog"].calls[-1][1].request_id) == 26


async def test_what_a_call_does_is_done_on_its_caller_s_behalf() -> None:
    seen = []

    async def answer(ctx: Context, request: object) -> CatalogStatus:
        seen.append(acting())
        return sample(CatalogStatus)

    async with loopback() as there:
        there.services["catalog"].answer = answer
        await there.client("Catalog").status(context(request_id="r-7"), StatusRequest())
    assert seen == [Acting("anna", "r-7")]


async def test_what_comes_in_metadata_is_bounded_and_printable() -> None:
    async with loopback() as there:
        ctx = context(request_id="r\n1\x1b[31m", source="s" * 2_000, workspace="\n")
        await there.client("Catalog").status(ctx, StatusRequest())
        seen = there.services["catalog"].calls[-1][1]
        assert (seen.request_id, seen.source, seen.workspace) == ("r1[31m", "s" * 512, None)


async def hang(*_: object) -> None:
    await asyncio.Event().wait()


async def test_the_deadline_travels() -> None:
    async with loopback() as there:
        before = CLOCK.monotonic()
        await there.client("Catalog").status(context(deadline=before + 5), StatusRequest())
        seen = there.services["catalog"].calls[-1][1].deadline
        assert before + 4 < seen < before + 6


async def test_a_deadline_that_passed_makes_no_call() -> None:
    async with loopback() as there:
        with pytest.raises(LakehouseError) as caught:
            await there.client("Catalog").commit(context(deadline=0.0), CommitRequest(()))
        assert caught.value.kind is ErrorKind.TIMEOUT
        assert not there.services["catalog"].calls


async def test_a_deadline_that_passes_is_a_timeout_and_for_a_change_unknown() -> None:
    async with loopback({"catalog": Recorder(CatalogService, answer=hang)}) as there:
        client = there.client("Catalog")
        with pytest.raises(LakehouseError) as caught:
            await client.list(context(deadline=CLOCK.monotonic() + 0.1), ListRequest())
        assert caught.value.kind is ErrorKind.TIMEOUT
        ctx = context(deadline=CLOCK.monotonic() + 0.1, idempotency_key="k-9")
        with pytest.raises(LakehouseError) as caught:
            await client.commit(ctx, CommitRequest(()))
        assert caught.value.kind is ErrorKind.UNKNOWN
        assert caught.value.fields["commit_state"] == "unknown"
        assert caught.value.fields["idempotency_key"] == "k-9"


async def test_a_peer_that_is_not_there_is_unavailable() -> None:
    async with loopback() as there:
        await there.server.stop(0)
        client = there.client("Catalog")
        for call in (
            client.status(context(), StatusRequest()),
            client.commit(context(), CommitRequest(())),
        ):
            with pytest.raises(LakehouseError) as caught:
                await call
            # Nothing was sent, so not even a change is in doubt.
            assert caught.value.kind is ErrorKind.UNAVAILABLE


async def test_a_peer_that_dies_under_a_call_leaves_a_change_unknown() -> None:
    service = Recorder(CatalogService, answer=hang)
    async with loopback({"catalog": service}) as there:
        client = there.client("Catalog")
        read = asyncio.ensure_future(client.list(context(), ListRequest()))
        change = asyncio.ensure_future(client.commit(context(), CommitRequest(())))
        while len(service.calls) < 2:
            await asyncio.sleep(0.01)
        await there.server.stop(0)
        done = await asyncio.gather(read, change, return_exceptions=True)
    assert [getattr(error, "kind", error) for error in done] == [
        ErrorKind.UNAVAILABLE,
        ErrorKind.UNKNOWN,
    ]


async def test_a_contract_the_peer_does_not_serve_is_unavailable_with_a_hint() -> None:
    async with loopback({"catalog": None}) as there:
        with pytest.raises(LakehouseError) as caught:
            await there.client("Catalog").commit(context(), CommitRequest(()))
        assert caught.value.kind is ErrorKind.UNAVAILABLE
        assert "role" in str(caught.value.fields["hint"])


async def test_a_caller_that_goes_away_stops_the_work() -> None:
    stopped = asyncio.Event()

    async def answer(*_: object) -> None:
        try:
            await hang()
        finally:
            stopped.set()

    async with loopback({"catalog": Recorder(CatalogService, answer=answer)}) as there:
        task = asyncio.ensure_future(there.client("Catalog").list(context(), ListRequest()))
        await asyncio.sleep(0.05)
        task.cancel()
        await asyncio.wait_for(stopped.wait(), 5)
        with pytest.raises(asyncio.CancelledError):
            await task


async def test_large_answers_pass_and_large_requests_are_bounded() -> None:
    files = tuple(DataFile(f"{n:0500d}", 1, 1, "a" * 64) for n in range(12_000))

    async def answer(*_: object) -> FilesResult:
        return FilesResult(files, 1)

    services = {"catalog": Recorder(CatalogService, answer=answer)}
    async with loopback(services, options=ServerOptions(request_bytes_max=1 << 20)) as there:
        client = there.client("Catalog")
        assert (await client.files(context(), PageRequest("n"))).files == files
        with pytest.raises(LakehouseError) as caught:
            await client.get(context(), GetRequest("n" * (2 << 20)))
        assert caught.value.kind is ErrorKind.EXHAUSTED
        with pytest.raises(LakehouseError) as caught:
            await client.files(context(), PageRequest("\ud800"))
        assert caught.value.kind is ErrorKind.INVALID
