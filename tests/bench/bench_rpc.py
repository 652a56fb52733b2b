"""The wire on a loopback socket: a small call against a bare echo, streams, a large snapshot."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import grpc

from bench.figures import Figure, median_seconds
from lakehouse.contracts import catalog as c
from lakehouse.contracts.ingest import IngestReport, IngestRequest
from lakehouse.contracts.query import QueryRequest
from lakehouse.model.dataset import ColumnStats, DataFile, Dataset
from lakehouse.rpc.convert import parse, to_message
from unit.rpc.loopback import Loopback, Recorder, context, loopback
from unit.rpc.samples import sample
from unit.rpc.test_streams import MIB, Intake, Source

CALLS = 1_000
CHUNKS = 512


def run() -> list[Figure]:
    return asyncio.run(_run())


async def _run() -> list[Figure]:
    async def listed(*_: object) -> c.ListResult:
        return c.ListResult((), 1)

    services = {
        "catalog": Recorder(c.CatalogService, answer=listed),
        "query": Source(count=CHUNKS, chunk=bytes(MIB)),
        "ingest": Discard(),
    }
    async with loopback(services) as there:
        client = there.client("Catalog")
        # In turns, the best of each: a busy machine slows both.
        rounds = [
            (await _bare(), await _rate(lambda: client.list(context(), c.ListRequest())))
            for _ in range(3)
        ]
        bare, ours = (max(rates) for rates in zip(*rounds, strict=True))
        out, into = await _out(there), await _into(there)
    encode, decode = _snapshot()
    return [
        Figure("calls_per_second", ours, "one caller, a page of a list"),
        Figure("ratio_bare_echo", bare / ours, "a bare grpc.aio echo takes 1"),
        Figure("result_mb_per_second", out, "a query's chunks of 1 MiB"),
        Figure("body_mb_per_second", into, "an ingest's chunks of 1 MiB"),
        Figure("snapshot_encode_ms", encode, "1,000 files, 10 columns of statistics each"),
        Figure("snapshot_decode_ms", decode, "the same, from its bytes"),
    ]


class Discard(Intake):
    """Reads a body and keeps nothing of it."""

    async def ingest(self, ctx: Any, request: Any, body: AsyncIterator[bytes]) -> IngestReport:
        async for _ in body:
            pass
        report: IngestReport = sample(IngestReport)
        return report


async def _rate(call: Callable[[], Awaitable[object]]) -> float:
    await call()
    began = time.perf_counter()
    for _ in range(CALLS):
        await call()
    return CALLS / (time.perf_counter() - began)


async def _bare() -> float:
    async def echo(data: bytes, call: Any) -> bytes:
        return data

    server = grpc.aio.server()
    handlers = {"Say": grpc.unary_unary_rpc_method_handler(echo)}
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("bare.Echo", handlers),))
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
        say = channel.unary_unary("/bare.Echo/Say")
        rate = await _rate(lambda: say(b"x"))
    await server.stop(0)
    return rate


async def _out(there: Loopback) -> float:
    began, size = time.perf_counter(), 0
    stream = await there.client("Query").run(context(), QueryRequest("select"))
    async for chunk in stream.chunks:
        size += len(chunk)
    return size / 1e6 / (time.perf_counter() - began)


async def _into(there: Loopback) -> float:
    async def body() -> AsyncIterator[bytes]:
        for _ in range(CHUNKS):
            yield bytes(MIB)

    began = time.perf_counter()
    await there.client("Ingest").ingest(context(), IngestRequest("d"), body())
    return CHUNKS * MIB / 1e6 / (time.perf_counter() - began)


def _snapshot() -> tuple[float, float]:
    stats = tuple(ColumnStats(column, 0, "-12.5", "99999") for column in range(10))
    files = tuple(
        DataFile(f"datasets/s/{n:026d}/{n:026d}.parquet", 1, 1, "a" * 64, ordinal=n, stats=stats)
        for n in range(1_000)
    )
    result = c.SnapshotResult((c.DatasetSnapshot(sample(Dataset), files, ()),), 1)
    data = to_message(result).SerializeToString()
    encode = median_seconds(lambda: to_message(result).SerializeToString(), 5)
    decode = median_seconds(lambda: parse(c.SnapshotResult, data), 5)
    return encode * 1e3, decode * 1e3
