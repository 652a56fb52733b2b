"""The error journal: taken at once, read while the primary is down, each attempt once."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest

from lakehouse.appendlog.log import AppendLog
from lakehouse.contracts.storage import ErrorsRequest, ErrorsResult
from lakehouse.errors import ErrorKind, LakehouseError
from lakehouse.kit.clock import SystemClock
from lakehouse.kit.ids import SystemIds
from lakehouse.model.health import BreakerState, BucketHealth
from lakehouse.objectstore.memory import MemoryStore
from lakehouse.objectstore.port import ObjectStore
from lakehouse.objectstore.wrapping import ForwardingStore
from lakehouse.storaged import journal as module
from lakehouse.storaged import reach
from lakehouse.storaged.journal import Journal, JournalPlace
from lakehouse.storaged.reach import LAYOUT
from lakehouse.storaged.settings import JournalSettings
from unit.storaged.attempts import attempt

CLOCK = SystemClock()
IDS = SystemIds(CLOCK)
UNHEARD_OF = BucketHealth(BreakerState.CLOSED, 0, 0, 0, 0, 0)


class Switch(ForwardingStore):
    """A store that can be switched off: it refuses, or with ``hangs`` does not answer at all."""

    def __init__(self, inner: ObjectStore) -> None:
        super().__init__(inner)
        self.off = self.hangs = False
        self.refused = 0

    async def _pass(self) -> None:
        while self.hangs:
            await asyncio.sleep(0.02)
        if self.off:
            self.refused += 1
            raise LakehouseError(ErrorKind.UNAVAILABLE, "switched off")

    async def get(self, *args: Any, **fields: Any) -> bytes:
        await self._pass()
        return await super().get(*args, **fields)

    async def put(self, *args: Any, **fields: Any) -> Any:
        await self._pass()
        return await super().put(*args, **fields)

    async def head(self, *args: Any, **fields: Any) -> Any:
        await self._pass()
        return await super().head(*args, **fields)

    async def list(self, *args: Any, **fields: Any) -> Any:
        await self._pass()
        return await super().list(*args, **fields)


class Desk:
    """A primary, a spool folder, and journals over them."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.bucket = MemoryStore(IDS.ulid(), CLOCK)
        self.primary = Switch(self.bucket)
        self.opened: list[Journal] = []
        self.foreign = False

    async def journal(self, ring: int = 1000, spool: str = "spool", **fields: Any) -> Journal:
        made = Journal(
            JournalSettings(ring, str(self.folder / spool) if spool else "", **fields), CLOCK, IDS
        )
        self.opened.append(made)
        await made.start(JournalPlace(self.primary, "test", lambda: UNHEARD_OF, self.prove))
        return made

    async def prove(self) -> None:
        if self.foreign:
            raise LakehouseError(ErrorKind.CONFLICT, "another store is here")

    async def batches(self) -> int:
        return len(await self.bucket.list(LAYOUT.slots))

    def spooled(self) -> str:
        files = self.folder.rglob("*.jsonl")
        return "".join(path.read_text() for path in files)


@pytest.fixture
async def desk(tmp_path: Path) -> AsyncIterator[Desk]:
    made = Desk(tmp_path)
    yield made
    made.primary.off = made.primary.hangs = False
    for journal in made.opened:
        await journal.close()


async def until(found: Callable[[], Any], seconds: float = 10.0) -> float:
    """Wait until it holds; how long that took."""
    began = CLOCK.monotonic()
    while True:
        answer = found()
        if await answer if asyncio.iscoroutine(answer) else answer:
            return CLOCK.monotonic() - began
        assert CLOCK.monotonic() - began < seconds, "it did not come to be"
        await asyncio.sleep(0.01)


async def all_of(journal: Journal, **asked: Any) -> ErrorsResult:
    return await journal.errors(ErrorsRequest(**{"limit": 10_000, **asked}))


def numbers(result: ErrorsResult) -> list[int]:
    return [int(one.id[1:]) for one in result.errors]


async def test_what_fails_before_the_start_is_there_and_is_written_later(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "EARLY_MAX", 3)
    journal = Journal(JournalSettings(10, str(desk.folder)), CLOCK, IDS)
    desk.opened.append(journal)
    for number in range(5):
        journal.failed(attempt(number))
    early = await all_of(journal)
    assert (numbers(early), early.dropped) == ([4, 3, 2], 2)
    await journal.start(JournalPlace(desk.primary, "test", lambda: UNHEARD_OF, desk.prove))
    await until(desk.batches)
    late = await all_of(journal)
    assert (numbers(late), late.dropped, late.complete) == ([4, 3, 2], 2, True)


async def test_it_is_in_the_bucket_within_a_second_and_there_after_a_restart(desk: Desk) -> None:
    journal = await desk.journal()
    journal.failed(attempt(1))
    assert numbers(await all_of(journal)) == [1]
    assert await until(desk.batches) < 1.5
    (batch,) = await desk.bucket.list(LAYOUT.slots)
    _, line = (await desk.bucket.get(batch.key)).decode().splitlines()
    assert '"key":"datasets/1"' in line
    assert '"at":"2026-11-21T02:00:01.000000Z"' in line
    await journal.close()
    again = await all_of(await desk.journal())
    assert (again.complete, again.spooled, again.dropped) == (True, 0, 0)
    await until(lambda: _has(desk.opened[-1], [1]))


async def _has(journal: Journal, expected: list[int]) -> bool:
    return numbers(await all_of(journal)) == expected


async def test_taking_never_raises_and_never_waits(desk: Desk) -> None:
    journal = await desk.journal(spool="")
    desk.primary.hangs = True
    began = CLOCK.monotonic()
    for number in range(10_000):
        journal.failed(attempt(number))
    assert CLOCK.monotonic() - began < 5
    result = await all_of(journal, limit=1)
    assert result.dropped + result.spooled == 10_000
    assert result.dropped > 0, "nothing is unbounded"
    await journal.close()
    journal.failed(attempt(10_001))


async def test_memory_spool_and_log_overlap_and_each_attempt_is_there_once(desk: Desk) -> None:
    journal = await desk.journal(ring=4)
    for number in range(10):
        journal.failed(attempt(number))
    await until(desk.batches)
    desk.primary.off = True
    for number in range(10, 20):
        journal.failed(attempt(number))
    await until(lambda: '"datasets/19"' in desk.spooled())
    desk.primary.off = False
    for _ in range(3):
        # As a process does that does not know whether its report arrived.
        await journal.report([attempt(number) for number in range(5, 25)], 0)
    await until(lambda: _has(journal, list(reversed(range(25)))))
    await until(lambda: _drained(journal))
    result = await all_of(journal)
    assert numbers(result) == list(reversed(range(25)))
    assert [count.attempts for count in result.counts] == [25]
    assert result.complete


async def _drained(journal: Journal) -> bool:
    return (await all_of(journal)).spooled == 0


async def test_what_the_ring_does_not_hold_comes_from_the_log(desk: Desk) -> None:
    journal = await desk.journal(ring=10)
    for batch in range(4):
        for number in range(20):
            journal.failed(attempt(batch * 20 + number))
        await until(lambda: _drained(journal))
    result = await all_of(journal, limit=50)
    assert numbers(result) == list(range(79, 29, -1))
    assert numbers(await all_of(journal, cursor=result.next)) == list(range(29, -1, -1))
    some = await all_of(journal, since=attempt(30).at, until=attempt(33).at)
    assert (numbers(some), some.complete) == ([32, 31, 30], True)


async def test_a_primary_that_is_down_is_told_at_once_and_later_caught_up_with(desk: Desk) -> None:
    journal = await desk.journal()
    journal.failed(attempt(1))
    await until(desk.batches)
    healthy = await all_of(journal)
    assert (healthy.primary_unavailable_since, healthy.complete) == (None, True)
    desk.primary.off = True
    for number in (2, 3, 4):
        journal.failed(attempt(number))
    await until(lambda: desk.primary.refused > 1)
    took = []
    for _ in range(5):
        began = CLOCK.monotonic()
        down = await all_of(journal)
        took.append(CLOCK.monotonic() - began)
    assert min(took) < 0.1
    assert numbers(down) == [4, 3, 2, 1]
    assert (down.complete, down.spooled, down.dropped) == (False, 3, 0)
    assert down.primary_unavailable_since is not None
    assert down.journal_failures > 0
    desk.primary.off = False
    assert await until(lambda: _drained(journal)) < 5
    back = await all_of(journal)
    assert (back.primary_unavailable_since, back.complete) == (None, True)
    assert numbers(back) == [4, 3, 2, 1]


async def test_a_primary_that_does_not_answer_at_all_holds_up_nobody(desk: Desk) -> None:
    desk.primary.hangs = True
    journal = await desk.journal(ring=2)
    for number in range(6):
        journal.failed(attempt(number))
    await until(lambda: '"datasets/5"' in desk.spooled(), 2)
    began = CLOCK.monotonic()
    result = await all_of(journal, since=None)
    assert CLOCK.monotonic() - began < 2
    assert numbers(result) == [5, 4, 3, 2, 1, 0]
    assert (result.complete, result.spooled) == (False, 6)


async def test_a_spool_that_a_killed_process_left_is_shown_and_written(desk: Desk) -> None:
    desk.primary.off = True
    killed = await desk.journal()
    killed.failed(attempt(1))
    await until(lambda: '"datasets/1"' in desk.spooled())
    await killed.close()
    assert await desk.batches() == 0
    journal = await desk.journal()
    await until(lambda: _has(journal, [1]))
    assert (await all_of(journal)).spooled == 1
    desk.primary.off = False
    assert await until(lambda: _drained(journal)) < 5
    assert await desk.batches() == 1


async def test_what_the_journal_itself_fails_of_is_no_entry(desk: Desk) -> None:
    desk.primary.off = True
    journal = await desk.journal()
    journal.failed(attempt(1))
    await until(lambda: desk.primary.refused > 2)
    result = await all_of(journal)
    assert numbers(result) == [1]
    assert result.journal_failures >= 2


async def test_a_report_is_on_the_disk_when_it_is_answered(desk: Desk) -> None:
    desk.primary.hangs = True
    journal = await desk.journal()
    await until(lambda: list(desk.folder.rglob("*.lock")))
    await journal.report([attempt(number) for number in range(300)], 7)
    assert desk.spooled().count("\n") == 300
    assert (await all_of(journal)).dropped == 7


async def test_a_log_that_refuses_is_tried_again_and_loses_nothing(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_REOPEN_SECONDS", 0.05)

    async def refused() -> None:
        raise LakehouseError(ErrorKind.FORBIDDEN, "wrong keys")

    monkeypatch.setattr(desk.primary, "_pass", refused)
    journal = await desk.journal()
    journal.failed(attempt(1))
    await asyncio.sleep(0.3)
    journal.failed(attempt(2))
    await until(lambda: _newest_is(journal, 2))
    monkeypatch.undo()
    await until(lambda: _has(journal, [2, 1]))
    await until(lambda: _drained(journal))
    assert (await all_of(journal)).dropped == 0


async def test_old_batches_are_given_up_and_small_ones_merged(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "UPKEEP_SECONDS", 0.1)
    compacted = []
    compact = AppendLog.compact

    async def noted(opened: AppendLog, **fields: Any) -> Any:
        compacted.append(opened)
        return await compact(opened, **fields)

    monkeypatch.setattr(AppendLog, "compact", noted)
    journal = await desk.journal(errors_retention_days=1e-6)
    for number in (1, 2):
        journal.failed(attempt(number))
        await until(lambda: _drained(journal))
    await until(lambda: _is_one(desk))
    assert compacted
    await journal.close()
    again = await desk.journal()
    await until(lambda: _has(again, [2]))
    assert (await all_of(again)).complete


async def _newest_is(journal: Any, number: int) -> bool:
    return numbers(await all_of(journal))[:1] == [number]


async def _is_one(desk: Desk) -> bool:
    return await desk.batches() == 1


async def test_nothing_is_written_where_our_store_is_not_known_to_be(desk: Desk) -> None:
    desk.foreign = True
    journal = await desk.journal()
    journal.failed(attempt(1))
    await until(lambda: _is_refused(journal))
    assert await desk.bucket.list() == []
    assert numbers(await all_of(journal)) == [1]
    desk.foreign = False
    await until(lambda: _drained(journal))
    assert await desk.batches() == 1


async def _is_refused(journal: Journal) -> bool:
    opened = journal._log
    return opened is not None and "no store of ours" in opened.status().last_error


async def test_what_another_process_still_wrote_is_seen_by_the_one_that_took_over(
    desk: Desk,
) -> None:
    journal = await desk.journal()
    journal.failed(attempt(1))
    await until(lambda: _drained(journal))
    assert numbers(await all_of(journal)) == [1]
    other = await desk.journal(spool="elsewhere")
    other.failed(attempt(2))
    await until(lambda: _drained(other))
    await until(lambda: _has(journal, [2, 1]))
    journal.failed(attempt(3))
    await until(lambda: _has(other, [3, 2, 1]))
    await until(lambda: _has(journal, [3, 2, 1]))


async def test_a_proof_that_hangs_holds_no_flush_for_long(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reach, "_PROVE_SECONDS", 0.1)
    hangs = True

    async def prove() -> None:
        while hangs:
            await asyncio.sleep(0.01)

    desk.prove = prove  # type: ignore[method-assign]
    journal = await desk.journal()
    journal.failed(attempt(1))
    await asyncio.sleep(0.3)
    assert await desk.batches() == 0
    hangs = False
    assert await until(desk.batches) < 5
