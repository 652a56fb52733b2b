"""Bodies in and results out: whole or not at all, bounded in memory, stopped when nobody reads."""

from __future__ import annotations

import asyncio
import contextlib
import gc
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Any

import grpc
import pytest

from lakehouse.contracts.ingest import IngestReport, IngestRequest
from lakehouse.contracts.query import QueryHeader, QueryRequest, QueryStream
from lakehouse.errors import ErrorKind, LakehouseError
from lakehouse.model.identity import Context
from lakehouse.rpc.calls import CHUNK_BYTES_MAX
from lakehouse.v1.ingest_pb2 import IngestEnd, IngestPart
from lakehouse.v1.ingest_pb2 import IngestRequest as RequestMessage
from unit.rpc.loopback import context, loopback
from unit.rpc.samples import sample

MIB = 1 << 20
TOKEN = (("authorization", "Bearer lh_anna.secret"),)


@dataclass
class Intake:
    """Keeps whole bodies only, as a service that commits at the end does."""

    whole: list[bytes] = field(default_factory=list)
    seen: list[tuple[Context, IngestRequest]] = field(default_factory=list)
    largest: int = 0
    refusal: LakehouseError | None = None
    gate: asyncio.Event | None = None
    failures: list[BaseException] = field(default_factory=list)

    async def ingest(
        self, ctx: Context, request: IngestRequest, body: AsyncIterator[bytes]
    ) -> IngestReport:
        self.seen.append((ctx, request))
        if self.gate:
            await self.gate.wait()
        if self.refusal:
            raise self.refusal
        chunks = []
        try:
            async for chunk in body:
                self.largest = max(self.largest, len(chunk))
                chunks.append(chunk)
        except BaseException as error:
            self.failures.append(error)
            raise
        self.whole.append(b"".join(chunks))
        return sample(IngestReport)


@dataclass
class Source:
    """Results of ``count`` chunks; says how many were taken and when it was closed."""

    count: int = 3
    chunk: bytes = b"x"
    error: Exception | None = None
    taken: int = 0
    closed: asyncio.Event = field(default_factory=asyncio.Event)

    async def run(self, ctx: Context, request: QueryRequest) -> QueryStream:
        return QueryStream(sample(QueryHeader), self._chunks())

    async def _chunks(self) -> AsyncIterator[bytes]:
        try:
            for _ in range(self.count):
                self.taken += 1
                yield self.chunk
            if self.error:
                raise self.error
        finally:
            self.closed.set()

    def __getattr__(self, name: str) -> Any:
        if name in ("running", "cancel"):
            return None
        raise AttributeError(name)


async def chunks_of(*chunks: bytes) -> AsyncIterator[bytes]:
    for chunk in chunks:
        yield chunk


@pytest.mark.parametrize(
    "body",
    [(), (b"",), (b"a", b"b" * 10), (bytes(range(256)) * 20_000,), (b"z" * CHUNK_BYTES_MAX,) * 3],
    ids=["none", "empty", "small", "one of 5 MB", "three of 1 MiB"],
)
async def test_a_body_arrives_whole_in_bounded_chunks(body: tuple[bytes, ...]) -> None:
    intake = Intake()
    async with loopback({"ingest": intake}) as there:
        ctx = context(idempotency_key="k-1")
        report = await there.client("Ingest").ingest(ctx, sample(IngestRequest), chunks_of(*body))
    assert report == sample(IngestReport)
    assert intake.whole == [b"".join(body)]
    assert intake.largest <= CHUNK_BYTES_MAX
    assert intake.seen[0][1] == sample(IngestRequest)
    assert intake.seen[0][0].idempotency_key == "k-1"


async def test_a_body_that_fails_at_its_source_is_never_taken_for_whole() -> None:
    async def body() -> AsyncIterator[bytes]:
        yield b"a" * MIB
        raise LakehouseError(ErrorKind.INVALID, "the upload broke off")

    intake = Intake()
    async with loopback({"ingest": intake}) as there:
        for _ in range(20):
            with pytest.raises(LakehouseError, match="the upload broke off"):
                await there.client("Ingest").ingest(context(), IngestRequest("d"), body())
        while len(intake.failures) < len(intake.seen):
            await asyncio.sleep(0.01)
    assert intake.whole == []


async def test_a_caller_that_is_cancelled_is_never_taken_for_done() -> None:
    async def body() -> AsyncIterator[bytes]:
        yield b"a"
        await asyncio.Event().wait()

    intake = Intake()
    async with loopback({"ingest": intake}) as there:
        task = asyncio.ensure_future(
            there.client("Ingest").ingest(context(), IngestRequest("d"), body())
        )
        while not intake.seen:
            await asyncio.sleep(0.01)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        while not intake.failures:
            await asyncio.sleep(0.01)
    assert intake.whole == []


REQUEST = IngestPart(request=RequestMessage(dataset="d"))
CHUNK = IngestPart(chunk=b"abc")
END = IngestPart(end=IngestEnd())


@pytest.mark.parametrize(
    ("parts", "whole"),
    [
        ((REQUEST, CHUNK, CHUNK, END), [b"abcabc"]),
        ((REQUEST, END), [b""]),
        ((REQUEST, CHUNK, IngestPart(end=IngestEnd(size_bytes=3))), [b"abc"]),
        ((REQUEST, CHUNK, IngestPart(end=IngestEnd(size_bytes=4))), []),
        ((REQUEST, CHUNK), []),
        ((REQUEST,), []),
        ((CHUNK, END), []),
        ((REQUEST, REQUEST, END), []),
        ((REQUEST, IngestPart(), END), []),
        ((), []),
    ],
    ids=[
        "two chunks",
        "no chunk",
        "size",
        "wrong size",
        "no end",
        "request only",
        "no request",
        "two requests",
        "an empty part",
        "nothing",
    ],
)
async def test_a_stream_of_parts_is_whole_or_refused(parts: Any, whole: list[bytes]) -> None:
    intake = Intake()
    async with loopback({"ingest": intake}) as there:
        call = there.channel.stream_unary("/lakehouse.v1.Ingest/Ingest")(
            iter([part.SerializeToString() for part in parts]), metadata=TOKEN
        )
        if whole:
            await call
        else:
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await call
            assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert intake.whole == whole


@pytest.mark.parametrize("known", [True, False], ids=["refused", "a stranger"])
async def test_a_refusal_ends_endless_bodies_and_is_heard(known: bool) -> None:
    ended: list[int] = []

    async def body(number: int) -> AsyncIterator[bytes]:
        try:
            while True:
                yield b"a" * MIB
        finally:
            ended.append(number)

    error = LakehouseError(ErrorKind.CONFLICT, "the schema differs", diff=["c"])
    ctx = context() if known else context(credential="nobody's")
    async with loopback({"ingest": Intake(refusal=error)}) as there:
        client = there.client("Ingest")

        async def refused(number: int) -> None:
            source = body(number)
            with pytest.raises(LakehouseError) as caught:
                await client.ingest(ctx, IngestRequest("d"), source)
            if known:
                assert caught.value.kind is ErrorKind.CONFLICT
                assert caught.value.fields == {"diff": ["c"]}
            else:
                assert caught.value.kind is ErrorKind.UNAUTHENTICATED
            await source.aclose()

        # Several at once: the refusal meets messages that are on their way.
        for _ in range(4):
            await asyncio.gather(*(refused(number) for number in range(4)))
        assert sorted(ended) == sorted([0, 1, 2, 3] * 4)


async def test_a_refusal_does_not_wait_for_a_body_that_is_silent() -> None:
    error = LakehouseError(ErrorKind.CONFLICT, "the schema differs")
    async with loopback({"ingest": Intake(refusal=error)}) as there:
        path = "/lakehouse.v1.Ingest/Ingest"
        call = there.channel.stream_unary(path)(
            metadata=(("authorization", "Bearer lh_anna.secret"),)
        )
        await call.write(IngestPart(request={"dataset": "d"}).SerializeToString())
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await asyncio.wait_for(call, 1.5)
        assert caught.value.code() is grpc.StatusCode.FAILED_PRECONDITION


async def test_a_slow_server_slows_the_body_down() -> None:
    sent = 0

    async def body() -> AsyncIterator[bytes]:
        nonlocal sent
        for _ in range(64):
            sent += 1
            yield b"a" * MIB

    intake = Intake(gate=asyncio.Event())
    async with loopback({"ingest": intake}) as there:
        call = there.client("Ingest").ingest(context(), IngestRequest("d"), body())
        task = asyncio.ensure_future(call)
        await asyncio.sleep(0.5)
        assert sent < 32, "nobody reads, yet the body went on"
        assert intake.gate
        intake.gate.set()
        await task
    assert [len(body) for body in intake.whole] == [64 * MIB]


async def test_a_result_arrives_whole_in_order() -> None:
    source = Source(count=5, chunk=bytes(range(256)) * 10_000)
    async with loopback({"query": source}) as there:
        stream = await there.client("Query").run(context(), sample(QueryRequest))
        assert stream.header == sample(QueryHeader)
        chunks = [chunk async for chunk in stream.chunks]
        assert b"".join(chunks) == source.chunk * 5
        assert max(map(len, chunks)) <= CHUNK_BYTES_MAX
        with pytest.raises(StopAsyncIteration):
            await anext(stream.chunks)


async def test_an_empty_result_has_a_header() -> None:
    async with loopback({"query": Source(count=0)}) as there:
        stream = await there.client("Query").run(context(), sample(QueryRequest))
        assert [chunk async for chunk in stream.chunks] == []


@pytest.mark.parametrize("count", [0, 3])
async def test_an_error_in_mid_stream_is_typed(count: int) -> None:
    error = LakehouseError(ErrorKind.EXHAUSTED, "too many rows", http_status=422, rows_max=3)
    async with loopback({"query": Source(count=count, error=error)}) as there:
        stream = await there.client("Query").run(context(), sample(QueryRequest))
        assert [await anext(stream.chunks) for _ in range(count)] == [b"x"] * count
        with pytest.raises(LakehouseError) as caught:
            await anext(stream.chunks)
        assert (caught.value.kind, caught.value.fields) == (error.kind, error.fields)


async def test_a_server_that_dies_in_mid_stream_is_an_error_not_an_end() -> None:
    async with loopback({"query": Source(count=1_000_000)}) as there:
        stream = await there.client("Query").run(context(), sample(QueryRequest))
        await anext(stream.chunks)
        await there.server.stop(0)
        with pytest.raises(LakehouseError) as caught:
            async for _ in stream.chunks:
                pass
        assert caught.value.kind is ErrorKind.UNAVAILABLE


async def close(stream: QueryStream) -> None:
    await stream.chunks.aclose()  # type: ignore[attr-defined]
    with pytest.raises(StopAsyncIteration):
        await anext(stream.chunks)


async def test_closing_the_chunks_stops_the_query(caplog: pytest.LogCaptureFixture) -> None:
    source = Source(count=10_000_000)
    async with loopback({"query": source}) as there:
        stream = await there.client("Query").run(context(), sample(QueryRequest))
        await anext(stream.chunks)
        await close(stream)
        await asyncio.wait_for(source.closed.wait(), 5)
        # Also before the first chunk was asked for.
        source.closed.clear()
        await close(await there.client("Query").run(context(), sample(QueryRequest)))
        await asyncio.wait_for(source.closed.wait(), 5)
    assert not caplog.records, "a caller that goes away is no failure of ours"


async def test_forgetting_the_chunks_stops_the_query() -> None:
    source = Source(count=10_000_000)
    async with loopback({"query": source}) as there:
        stream = await there.client("Query").run(context(), sample(QueryRequest))
        await anext(stream.chunks)
        del stream
        gc.collect()
        await asyncio.wait_for(source.closed.wait(), 5)


async def test_a_reader_that_is_cancelled_stops_the_query() -> None:
    source = Source(count=10_000_000, chunk=b"x" * 1_000)

    async def read(there: Any) -> None:
        stream = await there.client("Query").run(context(), sample(QueryRequest))
        async for _ in stream.chunks:
            pass

    async with loopback({"query": source}) as there:
        task = asyncio.ensure_future(read(there))
        await asyncio.sleep(0.2)
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task
        del task
        await asyncio.wait_for(source.closed.wait(), 5)


async def test_a_slow_reader_slows_the_query_down() -> None:
    source = Source(count=64, chunk=b"x" * MIB)
    async with loopback({"query": source}) as there:
        stream = await there.client("Query").run(context(), sample(QueryRequest))
        await asyncio.sleep(0.5)
        assert source.taken < 32, "nobody reads, yet the query went on"
        size = sum([len(chunk) async for chunk in stream.chunks])
        assert size == 64 * MIB


async def test_a_result_without_a_header_is_refused() -> None:
    async def nothing(data: bytes, call: Any) -> None:
        return None

    server = grpc.aio.server()
    handlers = {"Run": grpc.unary_stream_rpc_method_handler(nothing)}
    server.add_generic_rpc_handlers(
        (grpc.method_handlers_generic_handler("lakehouse.v1.Query", handlers),)
    )
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    async with loopback() as there, grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
        there.channel, kept = channel, there.channel
        with pytest.raises(LakehouseError) as caught:
            await there.client("Query").run(context(), sample(QueryRequest))
        assert caught.value.kind is ErrorKind.INTERNAL
        there.channel = kept
    await server.stop(0)
