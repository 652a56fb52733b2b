"""The writer's session: heartbeat, renewal, loss, end; on a clock that stands still."""

from __future__ import annotations

import asyncio
import errno
import os
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from lakehouse.contracts.catalog import SessionRequest, SessionResult
from lakehouse.contracts.ingest import IngestRequest
from lakehouse.errors import ErrorKind, LakehouseError
from lakehouse.ingestd import spool as spool_module
from lakehouse.ingestd.sessions import WriterSession
from lakehouse.ingestd.settings import IngestSettings
from lakehouse.ingestd.spool import Spool
from lakehouse.model.identity import Context
from lakehouse.testing.clocks import ManualClock, SeededIds
from support_ingest import CTX, Lake, MakeLake


class Sessions:
    """The catalog's side, as far as sessions go."""

    def __init__(self) -> None:
        self.live: set[str] = set()
        self.heard: list[str] = []
        self.opened = 0

    async def session(self, ctx: Context, request: SessionRequest) -> SessionResult:
        if not request.session_id:
            self.opened += 1
            self.live.add(f"s{self.opened}")
            return SessionResult(f"s{self.opened}", 1)
        if request.close:
            self.live.discard(request.session_id)
        elif request.session_id not in self.live:
            raise LakehouseError(ErrorKind.CONFLICT, "the session has ended")
        else:
            self.heard.append(request.session_id)
        return SessionResult(request.session_id, 1)


@pytest.fixture
async def parts() -> AsyncIterator[tuple[Sessions, WriterSession, ManualClock]]:
    catalog, clock = Sessions(), ManualClock()
    writer = WriterSession(IngestSettings(), catalog, clock, SeededIds())  # type: ignore[arg-type]
    await writer.start()
    yield catalog, writer, clock
    await writer.close()
    assert catalog.live == set()


Parts = tuple[Sessions, WriterSession, ManualClock]


async def test_one_session_serves_all_and_is_kept_alive(parts: Parts) -> None:
    catalog, writer, clock = parts
    async with writer.writing() as one, writer.writing() as two:
        assert one == two
    await clock.advance(35)
    assert catalog.heard == ["s1"] * 3
    async with writer.writing() as again:
        assert again == "s1"


async def test_it_is_renewed_hourly_and_ends_when_its_last_ingest_does(parts: Parts) -> None:
    catalog, writer, clock = parts
    async with writer.writing() as old:
        await clock.advance(3_601)
        async with writer.writing() as new:
            assert (old, new) == ("s1", "s2")
            await clock.advance(10)
            assert catalog.heard[-2:] == ["s1", "s2"] or catalog.heard[-2:] == ["s2", "s1"]
    assert catalog.live == {"s2"}


async def test_a_lost_session_is_replaced(parts: Parts) -> None:
    catalog, writer, clock = parts
    async with writer.writing():
        pass
    catalog.live.clear()
    await clock.advance(10)
    async with writer.writing() as fresh:
        assert fresh == "s2"


async def test_a_catalog_that_is_silent_costs_no_more_than_the_caller_allows(parts: Parts) -> None:
    catalog, writer, clock = parts
    answer = catalog.session
    catalog.session = lambda *_: asyncio.Event().wait()  # type: ignore[assignment]
    with pytest.raises(LakehouseError) as caught:
        async with writer.writing(clock.monotonic() + 0.01):
            raise AssertionError
    assert caught.value.kind is ErrorKind.TIMEOUT
    catalog.session = answer  # type: ignore[method-assign]
    async with writer.writing(clock.monotonic() + 60) as session_id:
        assert session_id == "s1"


async def test_a_session_that_ended_mid_ingest_costs_one_more_upload(lake: Lake) -> None:
    await lake.put(b"a\n1\n")
    listed = await lake.buckets.get("primary").list("datasets/")
    session_id = listed[0].key.split("/")[1]
    closing = SessionRequest("ingestd", "ingestd", session_id, close=True)
    await lake.catalog.session(CTX, closing)
    report = await lake.put(b"a\n2\n", mode="append")
    assert not report.no_op
    assert [row["a"] for row in await lake.rows()] == [1, 2]


async def test_a_full_disk_is_told_and_leaves_nothing(
    lake: Lake, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(self: object, chunks: list[bytes]) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(spool_module._Writer, "_write", full)
    error = await lake.refused(b"a\n1\n")
    assert error.kind is ErrorKind.EXHAUSTED
    assert "disk is full" in error.message
    left = [path for path in lake.spool.rglob("*") if path.is_dir()]
    assert len(left) == 1  # this process's own folder


async def test_the_spool_budget_is_shared(make_lake: MakeLake) -> None:
    lake = await make_lake(spool_bytes_max=1_000)
    gate = asyncio.Event()

    async def slow() -> AsyncIterator[bytes]:
        yield b"a\n" + b"1\n" * 400
        yield b"x" * (1 << 20)
        await gate.wait()

    task = asyncio.create_task(lake.ingest.ingest(CTX, IngestRequest("big"), slow()))
    with pytest.raises(LakehouseError) as caught:
        await task
    assert caught.value.fields["limit"] == "ingest.spool_bytes_max"
    assert (await lake.put(b"a\n" + b"1\n" * 400)).rows == 400


def test_folders_of_dead_processes_are_removed(tmp_path: Path) -> None:
    settings = IngestSettings(spool_dir=str(tmp_path))
    dead = tmp_path / "dead"
    dead.mkdir()
    (dead / "lock").touch()
    (dead / "body").write_bytes(b"x")
    foreign = tmp_path / "notes"
    foreign.mkdir()
    living = Spool(settings, SeededIds(1))
    living.open()
    other = Spool(settings, SeededIds(2))
    other.open()
    assert living.folder.is_dir()
    assert not dead.exists()
    assert foreign.is_dir()
    living.close()
    other.close()
