"""Files that would take the machine down are refused in words, with memory flat."""

from __future__ import annotations

import asyncio
import gzip
import io
import os
from collections.abc import AsyncIterator, Callable
from concurrent.futures import Executor, Future
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from lakehouse.contracts.ingest import IngestRequest
from lakehouse.errors import ErrorKind, LakehouseError
from lakehouse.ingestd.settings import IngestSettings
from lakehouse.ingestd.spool import Spool
from lakehouse.kit.clock import SystemClock
from lakehouse.kit.ids import SystemIds
from support_ingest import CTX, MakeLake, chunks

_MIB = 1 << 20


async def test_a_late_surprise_costs_nothing_but_time(make_lake: MakeLake) -> None:
    lake = await make_lake(block_bytes=4_096)
    body = b"n,v\n" + b"".join(b"%d,1.5\n" % n for n in range(20_000)) + b"x9,n/a\n"
    report = await lake.put(body)
    table = await lake.table()
    assert report.rows == table.num_rows == 20_001
    assert await lake.types() == {"n": "string", "v": "string"}
    assert table["n"].to_pylist() == [str(n) for n in range(20_000)] + ["x9"]
    assert set(table["v"].to_pylist()) == {"1.5", "n/a"}


async def test_lines_are_named_across_blocks(make_lake: MakeLake) -> None:
    lake = await make_lake(block_bytes=256)
    lines = [f'{n},"a\nb"' if n % 7 == 0 else f"{n},x" for n in range(300)]
    body = "\n".join(["id,s", *lines, "bad,x", "1,2,3"]).encode()
    at = body[: body.index(b"1,2,3")].count(b"\n") + 1
    report = await lake.put(body)
    assert report.dead_letters == 1
    assert (await lake.rows("t__dead_letters"))[0]["line"] == at
    await lake.put(b"id,s\n1,x\n", "u")
    error = await lake.refused(body, "u", mode="append")
    assert error.fields["samples"] == [{"column": "id", "value": "bad", "line": at - 1}]


async def test_a_line_beyond_the_limit(make_lake: MakeLake) -> None:
    lake = await make_lake(record_bytes_max=_MIB, block_bytes=_MIB)

    async def endless() -> AsyncIterator[bytes]:
        yield b"a,b\n1,2\n"
        for _ in range(64):
            yield b"x" * _MIB

    with pytest.raises(LakehouseError) as caught:
        await lake.ingest.ingest(CTX, IngestRequest("t"), endless())
    assert caught.value.kind is ErrorKind.INVALID
    assert caught.value.fields["limit"] == "ingest.record_bytes_max"
    assert caught.value.fields["line"] == 3


async def test_a_body_beyond_the_limits(make_lake: MakeLake) -> None:
    lake = await make_lake(body_bytes_max=100, spool_bytes_max=1_000)
    error = await lake.refused(b"a,b\n" + b"1,2\n" * 100)
    assert (error.kind, error.fields["limit"]) == (ErrorKind.INVALID, "ingest.body_bytes_max")


async def test_a_gzip_bomb(make_lake: MakeLake) -> None:
    lake = await make_lake(ratio_max=100, ratio_free_bytes=_MIB)
    error = await lake.refused(gzip.compress(b"a,b\n" + b"1,2\n" * 4 * _MIB))
    assert (error.kind, error.fields["limit"]) == (ErrorKind.INVALID, "ingest.ratio_max")


async def test_a_parquet_bomb(make_lake: MakeLake) -> None:
    lake = await make_lake(ratio_max=1_000, ratio_free_bytes=16 * _MIB)
    sink = io.BytesIO()
    value = pa.array(["x" * 100_000]).dictionary_encode()
    table = pa.table({"a": pa.DictionaryArray.from_arrays(pa.repeat(0, 6_000), value.dictionary)})
    pq.write_table(table, sink, compression="zstd")
    assert len(sink.getvalue()) < 300_000
    before = pa.total_allocated_bytes()
    error = await lake.refused(sink.getvalue())
    assert (error.kind, error.fields["limit"]) == (ErrorKind.INVALID, "ingest.ratio_max")
    assert pa.total_allocated_bytes() - before < 64 * _MIB


async def test_deep_json(make_lake: MakeLake) -> None:
    lake = await make_lake()
    deep = b'{"a":' + b"[" * 100_000 + b"]" * 100_000 + b"}"
    error = await lake.refused(b"[" + deep + b"]")
    assert (error.kind, error.fields["limit"]) == (ErrorKind.INVALID, "ingest.json_depth_max")
    report = await lake.put(b'{"a":[1]}\n' + deep + b"\n", content_type="application/x-ndjson")
    assert (report.rows, report.dead_letters) == (1, 1)


async def test_too_many_at_once_are_told_to_wait(make_lake: MakeLake) -> None:
    lake = await make_lake(concurrent_max=1, queued_max=1)
    gate = asyncio.Event()

    async def slow() -> AsyncIterator[bytes]:
        yield b"a\n1\n"
        await gate.wait()

    waiting = [
        asyncio.create_task(lake.ingest.ingest(CTX, IngestRequest(name), slow()))
        for name in ("x", "y")
    ]
    await asyncio.sleep(0.01)
    error = await lake.refused(b"a\n1\n", "z")
    assert error.kind is ErrorKind.EXHAUSTED
    gate.set()
    assert all(report.created for report in await asyncio.gather(*waiting))


async def test_a_deadline_and_a_caller_that_goes_away(make_lake: MakeLake) -> None:
    lake = await make_lake(block_bytes=1_024)
    body = b"a,b\n" + b"1,2\n" * 200_000
    late = replace(CTX, deadline=0.0)
    error = await lake.refused(body, ctx=late)
    assert error.kind is ErrorKind.TIMEOUT
    task = asyncio.create_task(lake.ingest.ingest(CTX, IngestRequest("t"), chunks(body)))
    while not list(lake.spool.rglob("rows-0.parquet")) and not task.done():
        await asyncio.sleep(0.001)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert (await lake.catalog.status(CTX, None)).datasets == 0  # type: ignore[arg-type]


async def test_many_files_and_row_groups(make_lake: MakeLake) -> None:
    lake = await make_lake(block_bytes=4_096, row_group_rows=1_000, file_bytes_target=8_192)
    body = b"n,v\n" + b"".join(b"%d,%d\n" % (n, n * 7919 % 10_007) for n in range(20_000))
    report = await lake.put(body)
    assert report.files > 2
    assert (await lake.table())["n"].to_pylist() == list(range(20_000))


async def test_close_stops_what_is_under_way(make_lake: MakeLake) -> None:
    lake = await make_lake(block_bytes=1_024)
    body = b"a,b\n" + b"1,2\n" * 400_000
    task = asyncio.create_task(lake.ingest.ingest(CTX, IngestRequest("t"), chunks(body)))
    while not list(lake.spool.rglob("rows-0.parquet")) and not task.done():
        await asyncio.sleep(0.01)
    await lake.ingest.close()
    with pytest.raises(LakehouseError) as caught:
        await task
    assert caught.value.kind is ErrorKind.UNAVAILABLE


class _Held(Executor):
    """Runs a task only when told to, as a slow disk would."""

    def __init__(self) -> None:
        self.tasks: list[tuple[Future[Any], Callable[[], Any]]] = []

    def submit(self, fn: Any, /, *args: Any, **kwargs: Any) -> Future[Any]:
        future: Future[Any] = Future()
        self.tasks.append((future, lambda: fn(*args, **kwargs)))
        return future

    def run(self) -> None:
        future, call = self.tasks.pop(0)
        future.set_result(call())


async def test_a_caller_that_goes_away_while_the_disk_is_slow(tmp_path: Path) -> None:
    spool = Spool(IngestSettings(spool_dir=str(tmp_path)), SystemIds(SystemClock()))
    spool.open()
    folder = spool.new_folder()
    held = _Held()
    taken = [0]
    task = asyncio.create_task(spool.receive(folder, chunks(b"x" * _MIB), held, taken))
    while not held.tasks:
        await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    # The thread still has its file, and closes it when it is done.
    before = len(os.listdir("/proc/self/fd"))
    held.run()
    assert (folder / "body").stat().st_size == _MIB
    assert len(os.listdir("/proc/self/fd")) == before - 1
    spool.release(folder, taken[0])
    spool.close()
