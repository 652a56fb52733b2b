"""Workers under stress: readers that stall, launches that are cancelled, deadlines in the line."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import pytest
import pytest_asyncio

from lakehouse.contracts.query import (
    CancelRequest,
    Engine,
    QueryRequest,
    QueryStream,
    ResultFormat,
)
from lakehouse.errors import ErrorKind, LakehouseError
from lakehouse.queryd import pool as pool_module
from lakehouse.queryd import process as process_module
from lakehouse.queryd.service import Query
from unit.queryd.fake_catalog import CTX, FakeCatalog, make_query

BIG = "select n, repeat('x', 100) as s from generate_series(1, 1000000) g(n)"
SLOW = "select count(*) from generate_series(1, 1000000) a(n), generate_series(1, 1000000) b(m)"


@pytest_asyncio.fixture
async def query(tmp_path: Path) -> AsyncIterator[Query]:
    made, buckets = make_query(tmp_path, FakeCatalog(tmp_path / "b"), workers_max=2)
    await made.start()
    yield made
    await made.close()
    await buckets.close()


async def csv(query: Query, sql: str) -> QueryStream:
    return await query.run(CTX, QueryRequest(sql, format=ResultFormat.CSV))


async def rest(stream: QueryStream) -> bytes:
    return b"".join([chunk async for chunk in stream.chunks])


async def test_a_result_that_fits_the_inbox_leaves_its_worker_free(query: Query) -> None:
    sql = "select n from generate_series(1, 100000) g(n)"
    behind = [await csv(query, sql) for _ in range(6)]  # none is fetched; there are two workers
    async with asyncio.timeout(10):
        while any(worker.busy for worker in query._pool._all):
            await asyncio.sleep(0.01)
    for stream in behind:
        assert (await rest(stream)).count(b"\n") == 100_001


async def test_what_lies_in_all_inboxes_is_bounded(
    query: Query, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(process_module, "HELD_BYTES_MAX", 4 << 20)
    sql = "select n, repeat('x', 50) as s from generate_series(1, 60000) g(n)"  # 3.4 MB
    behind = [await csv(query, sql) for _ in range(2)]
    third = await csv(query, sql)
    while third.chunks._inbox.full_since is None:  # type: ignore[attr-defined]
        await asyncio.sleep(0.01)
    assert query._pool._held.bytes < 9 << 20
    for stream in (*behind, third):
        assert (await rest(stream)).count(b"\n") == 60_001
    assert query._pool._held.bytes == 0


async def test_stalled_readers_stop_nobody_else(
    query: Query, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pool_module, "STALL_WAITED_FOR_SECONDS_MAX", 0.3)
    async with asyncio.timeout(20):
        stalled = [await csv(query, BIG) for _ in range(3)]
        assert await rest(await csv(query, "select 1 as x")) == b"x\n1\n"
    ends = await asyncio.gather(*[rest(one) for one in stalled[:2]], return_exceptions=True)
    cut = [end for end in ends if isinstance(end, LakehouseError)]
    assert cut
    assert {(end.kind, end.message) for end in cut} == {
        (ErrorKind.TIMEOUT, "the result was not fetched")
    }


async def test_a_stalled_reader_is_cut_also_when_nobody_waits(
    query: Query, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pool_module, "STALL_SECONDS_MAX", 0.3)
    stream = await csv(query, BIG)
    async with asyncio.timeout(10):
        while any(worker.busy for worker in query._pool._all):
            await asyncio.sleep(0.02)
    with pytest.raises(LakehouseError, match="not fetched"):
        await rest(stream)


async def test_a_reader_behind_for_a_while_gets_all(query: Query) -> None:
    stream = await csv(query, BIG)
    await asyncio.sleep(0.3)
    assert (await rest(stream)).count(b"\n") == 1_000_001


def pids(query: Query) -> set[int]:
    return {worker.process.pid for worker in query._pool._all if worker.stopped is None}


@pytest.mark.parametrize("engine", [Engine.DUCKDB, Engine.DATAFUSION])
@pytest.mark.parametrize("how", ["closed", "cancelled"])
async def test_a_result_that_nobody_wants_leaves_its_worker_warm(
    query: Query, engine: Engine, how: str
) -> None:
    before = pids(query)
    for _ in range(3):
        stream = await query.run(CTX, QueryRequest(BIG, engine=engine, format=ResultFormat.CSV))
        assert await anext(stream.chunks)
        if how == "closed":
            await stream.chunks.aclose()  # type: ignore[attr-defined]
        else:
            assert (await query.cancel(CTX, CancelRequest(stream.header.query_id))).cancelled
            with pytest.raises(LakehouseError, match="cancelled"):
                await rest(stream)
        assert await rest(await csv(query, "select 1 as x")) == b"x\n1\n"
    async with asyncio.timeout(10):
        while any(worker.busy for worker in query._pool._all):
            await asyncio.sleep(0.01)
    assert pids(query) >= before


async def test_a_worker_within_one_long_step_is_killed_for_the_next(query: Query) -> None:
    task = asyncio.create_task(query.run(CTX, QueryRequest(SLOW, engine=Engine.DATAFUSION)))
    async with asyncio.timeout(10):
        while not any(worker.busy for worker in query._pool._all):
            await asyncio.sleep(0.01)
        (busy,) = [worker for worker in query._pool._all if worker.busy]
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        while busy.process.poll() is None:
            await asyncio.sleep(0.01)
        assert await rest(await csv(query, "select 1 as x")) == b"x\n1\n"


async def test_a_deadline_that_passes_in_the_line_is_a_timeout(query: Query) -> None:
    async def slow() -> None:
        await query.run(CTX, QueryRequest(SLOW, engine=Engine.DATAFUSION))

    busy = [asyncio.create_task(slow()) for _ in range(2)]
    try:
        async with asyncio.timeout(20):
            while sum(worker.busy for worker in query._pool._all) < 2:
                await asyncio.sleep(0.02)
        late = replace(CTX, deadline=query._clock.monotonic() + 0.1)
        with pytest.raises(LakehouseError) as caught:
            await query.run(late, QueryRequest("select 1"))
        assert caught.value.kind is ErrorKind.TIMEOUT
        assert not query._pool._waiters
    finally:
        for task in busy:
            task.cancel()
        await asyncio.gather(*busy, return_exceptions=True)


@pytest.mark.parametrize("after", [0.0, 0.001, 0.01, 0.2])
async def test_a_cancelled_start_leaves_no_process(tmp_path: Path, after: float) -> None:
    made, buckets = make_query(tmp_path, FakeCatalog(tmp_path / "b"), workers_min=3, workers_max=3)
    task = asyncio.create_task(made.start())
    await asyncio.sleep(after)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    await made.close()
    await buckets.close()
    marker = str(tmp_path).encode()
    left = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            left += [folder.name] if marker in (folder / "cmdline").read_bytes() else []
        except OSError:
            continue
    assert left == []
    assert list(tmp_path.glob("spill/*")) == []


async def test_a_worker_that_died_idle_is_replaced_before_it_is_used(query: Query) -> None:
    (worker,) = query._pool._all
    os.kill(worker.process.pid, signal.SIGKILL)
    await worker.link.closed
    assert await rest(await csv(query, "select 2 as x")) == b"x\n2\n"


async def test_a_worker_that_dies_midway_ends_its_query_alone(query: Query) -> None:
    stream = await csv(query, BIG)
    (worker,) = query._pool._all
    os.kill(worker.process.pid, signal.SIGKILL)
    with pytest.raises(LakehouseError) as caught:
        await rest(stream)
    assert caught.value.kind is ErrorKind.EXHAUSTED
    assert await rest(await csv(query, "select 3 as x")) == b"x\n3\n"
