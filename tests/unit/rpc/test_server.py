"""The server beside the contracts: health, reflection, limits, ports, restarts."""

from __future__ import annotations

import asyncio
import contextlib
import json
from typing import Any

import grpc
import pytest
from google.protobuf import descriptor_pb2, descriptor_pool, json_format, message_factory
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc

from lakehouse.contracts.catalog import CatalogService, ListRequest, ListResult, StatusRequest
from lakehouse.contracts.query import QueryRequest
from lakehouse.errors import ErrorKind, LakehouseError
from lakehouse.rpc.counts import CallCounts
from lakehouse.rpc.server import ServerOptions, build_server
from unit.rpc.loopback import CLOCK, IDS, KeyRing, Ready, Recorder, context, loopback
from unit.rpc.samples import SERVICES
from unit.rpc.test_streams import Source

STATUS = health_pb2.HealthCheckResponse
TOKEN = (("authorization", "Bearer lh_anna.secret"),)


async def test_health_needs_no_token_and_follows_readiness() -> None:
    async with loopback() as there:
        stub = health_pb2_grpc.HealthStub(there.channel)
        names = ["", *(f"lakehouse.v1.{noun}" for noun in SERVICES)]
        for ready, status in ((True, STATUS.SERVING), (False, STATUS.NOT_SERVING)):
            there.ready.ready = ready
            for name in names:
                answer = await stub.Check(health_pb2.HealthCheckRequest(service=name))
                assert answer.status == status
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await stub.Check(health_pb2.HealthCheckRequest(service="lakehouse.v1.Nothing"))
        assert caught.value.code() is grpc.StatusCode.NOT_FOUND


async def test_health_can_be_watched() -> None:
    async with loopback() as there:
        stub = health_pb2_grpc.HealthStub(there.channel)
        call = stub.Watch(health_pb2.HealthCheckRequest(service="lakehouse.v1.Query"))
        assert (await call.read()).status == STATUS.SERVING
        there.ready.ready = False
        assert (await asyncio.wait_for(call.read(), 5)).status == STATUS.NOT_SERVING
        call.cancel()
        other = stub.Watch(health_pb2.HealthCheckRequest(service="nothing"))
        assert (await other.read()).status == STATUS.SERVICE_UNKNOWN
        other.cancel()


class Explorer:
    """A client that knows an address and nothing else: what grpcurl does."""

    def __init__(self, channel: grpc.aio.Channel, token: str = "lh_anna.secret") -> None:
        self._channel = channel
        self._metadata = (("authorization", f"Bearer {token}"),)
        self._stub = reflection_pb2_grpc.ServerReflectionStub(channel)
        self._pool = descriptor_pool.DescriptorPool()
        self._added: set[str] = set()

    async def ask(self, **question: str) -> Any:
        request = reflection_pb2.ServerReflectionRequest(**question)
        call = self._stub.ServerReflectionInfo(iter([request]))
        return await call.read()

    async def services(self) -> set[str]:
        answer = await self.ask(list_services="")
        return {service.name for service in answer.list_services_response.service}

    async def service(self, service: str) -> Any:
        await self._add(await self.ask(file_containing_symbol=service))
        return self._pool.FindServiceByName(service)

    async def method(self, service: str, name: str) -> Any:
        return (await self.service(service)).FindMethodByName(name)

    async def _add(self, answer: Any) -> None:
        for data in answer.file_descriptor_response.file_descriptor_proto:
            file = descriptor_pb2.FileDescriptorProto.FromString(data)
            if file.name in self._added:
                continue
            for needed in file.dependency:
                if needed not in self._added:
                    await self._add(await self.ask(file_by_filename=needed))
            if file.name not in self._added:
                self._added.add(file.name)
                self._pool.Add(file)

    async def call(self, service: str, name: str, request: str) -> list[dict[str, Any]]:
        """Send JSON, get JSON: one answer, or all of a stream."""
        method = await self.method(service, name)
        message = message_factory.GetMessageClass(method.input_type)()
        json_format.Parse(request, message, self._pool)
        path, answer = f"/{service}/{name}", message_factory.GetMessageClass(method.output_type)
        data = message.SerializeToString()
        if method.server_streaming:
            call = self._channel.unary_stream(path)(data, metadata=self._metadata)
            parts = [part async for part in call]
        else:
            parts = [await self._channel.unary_unary(path)(data, metadata=self._metadata)]
        return [json_format.MessageToDict(answer.FromString(part)) for part in parts]


async def test_a_client_that_knows_nothing_finds_its_way_by_reflection() -> None:
    async def answer(ctx: Any, request: ListRequest) -> ListResult:
        return ListResult((), request.limit, request.query)

    catalog = Recorder(CatalogService, answer=answer)
    async with (
        loopback({"catalog": catalog, "query": Source(count=2, chunk=b"[1]")}) as there,
        grpc.aio.insecure_channel(there.address) as channel,
    ):
        explorer = Explorer(channel)
        found = await explorer.services()
        assert found >= {f"lakehouse.v1.{noun}" for noun in SERVICES}
        assert found >= {"grpc.health.v1.Health", "grpc.reflection.v1alpha.ServerReflection"}
        listed = await explorer.call("lakehouse.v1.Catalog", "List", '{"query": "peop"}')
        assert listed == [{"version": "100", "cursor": "peop"}]
        question = json.dumps({"sql": "select 1", "engine": "duckdb"})
        header, *chunks = await explorer.call("lakehouse.v1.Query", "Run", question)
        assert header["header"]["columns"]
        assert chunks == [{"chunk": "WzFd"}] * 2
        # A question that leaves out all it can is a good one.
        await explorer.call("lakehouse.v1.Query", "Run", '{"sql": "select 1"}')


async def test_an_unknown_method_is_unimplemented() -> None:
    async with loopback() as there:
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await there.channel.unary_unary("/lakehouse.v1.Catalog/Nothing")(b"", metadata=TOKEN)
        assert caught.value.code() is grpc.StatusCode.UNIMPLEMENTED


async def test_a_port_that_is_taken_is_not_shared() -> None:
    async with loopback() as there:
        second = build_server({}, KeyRing(), CLOCK, IDS, Ready())
        with pytest.raises(RuntimeError):
            second.add_insecure_port(there.address)
        await second.stop(0)


async def test_a_channel_finds_its_peer_again_after_a_restart() -> None:
    async with loopback() as there:
        client = there.client("Catalog")
        await client.status(context(), StatusRequest())
        await there.server.stop(0)
        with pytest.raises(LakehouseError):
            await client.status(context(), StatusRequest())
        async with loopback(port=int(there.address.rpartition(":")[2])):
            until = CLOCK.monotonic() + 5
            while True:
                try:
                    await client.status(context(), StatusRequest())
                    break
                except LakehouseError:
                    assert CLOCK.monotonic() < until
                    await asyncio.sleep(0.05)


async def test_too_many_calls_at_once_are_refused_as_exhausted() -> None:
    async def hang(*_: object) -> None:
        await asyncio.Event().wait()

    catalog = Recorder(CatalogService, answer=hang)
    async with loopback({"catalog": catalog}, options=ServerOptions(calls_max=2)) as there:
        client = there.client("Catalog")
        held = [asyncio.ensure_future(client.status(context(), StatusRequest())) for _ in "ab"]
        while len(catalog.calls) < 2:
            await asyncio.sleep(0.01)
        with pytest.raises(LakehouseError) as caught:
            await client.status(context(), StatusRequest())
        assert caught.value.kind is ErrorKind.EXHAUSTED
        for task in held:
            task.cancel()
        await asyncio.gather(*held, return_exceptions=True)


async def test_streams_without_an_end_do_not_hold_up_a_stop() -> None:
    async with loopback() as there:
        health = health_pb2_grpc.HealthStub(there.channel)
        watches = [
            health.Watch(health_pb2.HealthCheckRequest(service=name)) for name in ("", "nothing")
        ]
        assert [(await watch.read()).status for watch in watches] == [
            STATUS.SERVING,
            STATUS.SERVICE_UNKNOWN,
        ]
        explored = reflection_pb2_grpc.ServerReflectionStub(there.channel).ServerReflectionInfo()
        await explored.write(reflection_pb2.ServerReflectionRequest(list_services=""))
        assert await explored.read()
        await asyncio.wait_for(there.server.stop(60), 5)
        # Who watches is told, and none of them sees an error.
        assert (await watches[0].read()).status == STATUS.NOT_SERVING
        for call in (*watches, explored):
            assert await call.read() is grpc.aio.EOF  # type: ignore[attr-defined]
            assert await call.code() is grpc.StatusCode.OK


async def test_a_stop_lets_calls_finish_that_do_some_work() -> None:
    began, may_end = asyncio.Event(), asyncio.Event()

    async def work(_: Any, request: Any) -> ListResult:
        began.set()
        await may_end.wait()
        return ListResult((), 7)

    async with loopback({"catalog": Recorder(CatalogService, answer=work)}) as there:
        client = there.client("Catalog")
        asked = asyncio.ensure_future(client.list(context(), ListRequest()))
        await began.wait()
        stopping = asyncio.ensure_future(there.server.stop(60))
        await asyncio.sleep(0.05)
        assert not stopping.done()
        may_end.set()
        assert (await asked).version == 7
        await asyncio.wait_for(stopping, 5)


async def test_calls_are_counted_by_how_they_ended() -> None:
    async def answer(_: Any, request: Any) -> ListResult:
        match request.query:
            case "":
                return ListResult((), 1)
            case "hang":
                await asyncio.Event().wait()
            case "forbidden":
                raise LakehouseError(ErrorKind.FORBIDDEN, "not for you")
        raise RuntimeError("a bug")

    counts = CallCounts()
    catalog = Recorder(CatalogService, answer=answer)
    query = Source(count=2, chunk=b"[1]")
    async with loopback(
        {"catalog": catalog, "query": query}, options=ServerOptions(counts=counts)
    ) as there:
        client = there.client("Catalog")
        for text in ("", "", "forbidden", "bug"):
            with contextlib.suppress(LakehouseError):
                await client.list(context(), ListRequest(query=text))
        with contextlib.suppress(LakehouseError):
            await client.list(context(credential="nobody's"), ListRequest())
        stream = await there.client("Query").run(context(), QueryRequest("select 1"))
        assert [chunk async for chunk in stream.chunks]
        hanging = asyncio.ensure_future(client.list(context(), ListRequest(query="hang")))
        while len(catalog.calls) < 5:
            await asyncio.sleep(0.01)
        hanging.cancel()
        expected = {
            ("lakehouse.v1.Catalog/List", "OK"): 2,
            ("lakehouse.v1.Catalog/List", "PERMISSION_DENIED"): 1,
            ("lakehouse.v1.Catalog/List", "INTERNAL"): 1,
            ("lakehouse.v1.Catalog/List", "UNAUTHENTICATED"): 1,
            ("lakehouse.v1.Catalog/List", "CANCELLED"): 1,
            ("lakehouse.v1.Query/Run", "OK"): 1,
        }
        async with asyncio.timeout(5):
            while counts.totals() != expected:
                await asyncio.sleep(0.01)


async def test_a_noun_that_is_none_is_a_programming_error() -> None:
    with pytest.raises(KeyError):
        build_server({"catalogue": object()}, KeyRing(), CLOCK, IDS, Ready())
