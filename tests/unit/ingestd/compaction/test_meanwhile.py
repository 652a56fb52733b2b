"""What becomes of a compaction when the world moves or breaks meanwhile."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from lakehouse.contracts.inventory import JournalRequest
from lakehouse.contracts.rows import (
    CompactRequest,
    RowChange,
)
from lakehouse.errors import ErrorKind, LakehouseError
from lakehouse.ingestd.compaction.planning import EVENTS_RUN, MAJOR, Run
from lakehouse.ingestd.compaction.running import Runner, Stand
from lakehouse.model.dataset import ROWS, DataFile
from support_ingest import CTX, build_lake
from unit.ingestd.compaction.tables import SETTINGS, Table, on_rewrite


async def test_a_crash_between_upload_and_commit_leaves_no_trace(
    table: Table, monkeypatch: pytest.MonkeyPatch
) -> None:
    await table.changes(6)
    before, seen = await table.files(), await table.seen()

    async def die() -> None:
        raise LakehouseError(ErrorKind.UNAVAILABLE, "the catalog does not answer")

    with monkeypatch.context() as patched:
        on_rewrite(patched, table.lake, die)
        with pytest.raises(LakehouseError) as caught:
            await table.compact(full=True)
    assert caught.value.kind is ErrorKind.UNAVAILABLE
    assert await table.files() == before
    assert not list(table.lake.spool.glob("*/compaction-*"))
    assert not (await table.compact(full=True)).no_op
    assert await table.seen() == seen


async def test_rows_that_come_meanwhile_go_on_hiding_what_they_hid(
    table: Table, monkeypatch: pytest.MonkeyPatch
) -> None:
    await table.changes(6)

    async def more() -> None:
        await table.change(3, 102, 999, name="later")
        await table.change(4, kind=RowChange.DELETE)

    on_rewrite(monkeypatch, table.lake, more)
    report = await table.compact(full=True)
    assert not report.no_op
    seen = await table.seen()
    assert (seen[3], seen[102], seen[999], 4 in seen) == ("later", "later", "later", False)
    assert len(seen) == 16


async def test_a_replace_meanwhile_wins(table: Table, monkeypatch: pytest.MonkeyPatch) -> None:
    await table.changes(6)

    async def replaced() -> None:
        await table.lake.put(b"id,name\n1,only\n", mode="replace")

    on_rewrite(monkeypatch, table.lake, replaced)
    report = await table.compact(full=True)
    assert await table.seen() == {1: "only"}
    assert report.rebased == 1


async def test_the_loser_of_two_plans_again_and_uses_what_it_has(
    table: Table, monkeypatch: pytest.MonkeyPatch
) -> None:
    await table.changes(6)
    seen = await table.seen()
    puts: list[int] = []
    put_all = table.lake.ingest.parts.writer.put_all

    async def counted(*args: Any) -> Any:
        puts.append(1)
        return await put_all(*args)

    async def lost() -> None:
        raise LakehouseError(ErrorKind.CONFLICT, "an input is no longer live")

    monkeypatch.setattr(table.lake.ingest.parts.writer, "put_all", counted)
    commits = on_rewrite(monkeypatch, table.lake, lost)
    report = await table.compact(full=False)
    assert (report.rebased, len(commits)) == (1, 2)
    rows = [
        [change.files for change in one.changes if change.files[0].content == ROWS]  # type: ignore[union-attr]
        for one in commits
    ]
    assert rows[0] == rows[1], "the rows were made again"
    assert await table.seen() == seen


async def test_it_gives_up_after_some_conflicts(
    table: Table, monkeypatch: pytest.MonkeyPatch
) -> None:
    await table.changes(6)

    async def lost() -> None:
        raise LakehouseError(ErrorKind.CONFLICT, "an input is no longer live")

    commits = on_rewrite(monkeypatch, table.lake, lost, times=99)
    with pytest.raises(LakehouseError) as caught:
        await table.compact()
    assert caught.value.kind is ErrorKind.CONFLICT
    assert len(commits) == SETTINGS.rebases_max + 1


async def test_who_asks_for_what_is_under_way_joins(table: Table) -> None:
    await table.changes(6)
    before = (await table.dataset()).version
    reports = await asyncio.gather(*(table.compact() for _ in range(4)))
    assert len({report.version for report in reports}) == 1
    await table.change(1)
    first = asyncio.create_task(table.compact())
    full = await table.compact(full=True)
    # Whichever came first: it asked for less than the other.
    assert (await first).version <= full.version
    assert full.strategy.startswith("major")
    assert (await table.dataset()).version == before + 3


async def test_what_comes_during_a_long_one_is_folded_beside_it(
    table: Table, monkeypatch: pytest.MonkeyPatch
) -> None:
    await table.changes(6)
    begun, release = asyncio.Event(), asyncio.Event()
    run = Runner.run

    async def slow(self: Runner, stand: Stand, one: Run) -> tuple[DataFile, ...]:
        if one.strategy == MAJOR:
            begun.set()
            await release.wait()
        return await run(self, stand, one)

    monkeypatch.setattr(Runner, "run", slow)
    long = asyncio.create_task(table.compact(full=True))
    await begun.wait()
    for at in range(6):
        await table.change(at, 200 + at, name=f"later {at}")
    seen, before = await table.seen(), await table.dataset()
    table.background("t")
    for _ in range(500):
        if (await table.dataset()).key_files < before.key_files:
            break
        await asyncio.sleep(0.01)
    assert (await table.dataset()).key_files == before.key_files - 5
    assert not long.done()
    release.set()
    report = await long
    assert (report.strategy.split("+")[0], report.rebased) == ("major", 1)
    assert await table.seen() == seen
    assert (await table.dataset()).key_files == 1


async def test_what_is_done_is_kept_though_more_came(
    table: Table, monkeypatch: pytest.MonkeyPatch
) -> None:
    await table.changes(6)
    runs: list[str] = []
    run = Runner.run

    async def counted(self: Runner, stand: Stand, one: Run) -> tuple[DataFile, ...]:
        runs.append(one.strategy)
        return await run(self, stand, one)

    async def more() -> None:
        await table.change(3, 300, name="later")

    monkeypatch.setattr(Runner, "run", counted)
    commits = on_rewrite(monkeypatch, table.lake, more)
    report = await table.compact(full=True)
    # Its first commit told the dataset's birth, and so had to be alone; the second does not.
    assert (runs, len(commits), report.rebased) == ([MAJOR, EVENTS_RUN, EVENTS_RUN], 2, 1)
    assert (await table.dataset()).key_files == 1
    assert len((await table.lake.catalog.journal(CTX, JournalRequest("t"))).entries) == 1


async def test_a_caller_that_goes_away_stops_nothing(table: Table) -> None:
    await table.changes(6)
    seen = await table.seen()
    task = asyncio.create_task(table.compact(full=True))
    for _ in range(50):
        await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert (await table.compact(full=True)).key_files_after == 0
    assert await table.seen() == seen


async def test_a_stop_ends_it_and_leaves_nothing_behind(tmp_path: Path) -> None:
    lake = await build_lake(tmp_path, compaction=SETTINGS)
    await lake.put(b"id,name\n1,a\n", key=("id",))
    table = Table(lake)
    await table.changes(6)
    task = asyncio.create_task(table.compact(full=True))
    for _ in range(50):
        await asyncio.sleep(0)
    await lake.close()
    with pytest.raises((LakehouseError, asyncio.CancelledError)):
        await task
    with pytest.raises(LakehouseError) as caught:
        await table.rows.compact(CTX, CompactRequest("t"))
    assert caught.value.kind is ErrorKind.UNAVAILABLE


async def test_a_repeated_call_is_answered_from_the_commit(table: Table) -> None:
    await table.changes(6)
    ctx = replace(CTX, idempotency_key="k-1")
    first = await table.compact(ctx)
    await table.changes(6)
    again = await table.compact(ctx)
    assert replace(again, elapsed_ms=first.elapsed_ms) == first
    with pytest.raises(LakehouseError) as caught:
        await table.compact(ctx, full=True)
    assert caught.value.kind is ErrorKind.INVALID


async def test_many_changes_are_folded_in_the_background(table: Table) -> None:
    table.lake.ingest.parts.compaction_wanted = table.background
    for _ in range(40):
        await table.change(1, name="again")
        await table.change(1, name="and again")
        dataset = await table.dataset()
        if dataset.version > 8 and dataset.key_files < 5:
            break
        await asyncio.sleep(0.02)
    else:
        raise AssertionError("nothing was folded")
    assert (await table.seen())[1] == "and again"
