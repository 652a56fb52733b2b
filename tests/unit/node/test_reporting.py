"""What fails in a process without a journal reaches the one that keeps it, each attempt once."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest

from lakehouse.contracts.storage import ReportRequest, ReportResult
from lakehouse.errors import ErrorKind, LakehouseError
from lakehouse.kit.clock import SystemClock
from lakehouse.kit.ids import SystemIds
from lakehouse.model.identity import Context, Scope
from lakehouse.node.reporting import Reporter
from unit.storaged.attempts import attempt

CLOCK = SystemClock()
IDS = SystemIds(CLOCK)


class Keeper:
    """Keeps what is reported; while ``away`` it does not answer, with ``mute`` its answers are
    lost."""

    def __init__(self) -> None:
        self.reports: list[tuple[Context, ReportRequest]] = []
        self.away = self.mute = False
        self.asked = 0

    async def report(self, ctx: Context, request: ReportRequest) -> ReportResult:
        self.asked += 1
        if not self.away:
            self.reports.append((ctx, request))
        if self.away or self.mute:
            raise LakehouseError(ErrorKind.UNAVAILABLE, "no answer")
        return ReportResult(len(request.attempts))

    @property
    def ids(self) -> list[str]:
        return [one.id for _, request in self.reports for one in request.attempts]


class Desk:
    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.keeper = Keeper()
        self.opened: list[Reporter] = []

    async def reporter(self, events_max: int = 1000) -> Reporter:
        made = Reporter(self.keeper, str(self.folder), events_max, CLOCK, IDS)
        self.opened.append(made)
        await made.start()
        return made


@pytest.fixture
async def desk(tmp_path: Path) -> AsyncIterator[Desk]:
    made = Desk(tmp_path)
    yield made
    made.keeper.away = made.keeper.mute = False
    for reporter in made.opened:
        await reporter.close()


async def until(found: Callable[[], object]) -> None:
    async with asyncio.timeout(20):
        while not found():
            await asyncio.sleep(0.01)


def ids(*numbers: int) -> list[str]:
    return [attempt(number).id for number in numbers]


async def test_attempts_are_told_whole_in_batches_by_an_operator(desk: Desk) -> None:
    reporter = await desk.reporter()
    for number in range(50):
        reporter.failed(attempt(number, sent=False))
    await until(lambda: len(desk.keeper.ids) == 50)
    assert desk.keeper.ids == ids(*range(50))
    assert len(desk.keeper.reports) < 5
    ctx, request = desk.keeper.reports[0]
    assert request.attempts[0] == attempt(0, sent=False)
    assert ctx.principal.allows(Scope.OPERATOR)
    assert ctx.deadline is not None


async def test_nothing_is_lost_while_the_keeper_is_away(desk: Desk) -> None:
    desk.keeper.away = True
    reporter = await desk.reporter()
    for number in range(5):
        reporter.failed(attempt(number))
    await until(lambda: desk.keeper.asked > 1)
    desk.keeper.away = False
    await until(lambda: desk.keeper.ids == ids(*range(5)))


async def test_a_report_whose_answer_is_lost_comes_again_with_the_same_ids(desk: Desk) -> None:
    desk.keeper.mute = True
    reporter = await desk.reporter()
    reporter.failed(attempt(1))
    await until(lambda: len(desk.keeper.reports) > 1)
    desk.keeper.mute = False
    assert set(desk.keeper.ids) == set(ids(1))


async def test_what_a_process_could_not_tell_the_next_one_does(desk: Desk) -> None:
    desk.keeper.away = True
    first = await desk.reporter()
    first.failed(attempt(1))
    await until(lambda: desk.keeper.asked)
    await first.close()
    desk.keeper.away = False
    assert desk.keeper.ids == []
    await desk.reporter()
    await until(lambda: desk.keeper.ids == ids(1))


async def test_what_had_to_be_dropped_is_told_once(desk: Desk) -> None:
    desk.keeper.away = True
    reporter = await desk.reporter(events_max=3)
    for number in range(10):
        reporter.failed(attempt(number))
    await until(lambda: desk.keeper.asked > 1)
    desk.keeper.away = False
    await until(lambda: desk.keeper.ids)
    reporter.failed(attempt(20))
    await until(lambda: attempt(20).id in desk.keeper.ids)
    assert sum(request.dropped for _, request in desk.keeper.reports) == 7


async def test_a_line_of_another_version_is_counted_once_however_often_it_is_sent(
    desk: Desk,
) -> None:
    desk.keeper.away = True
    reporter = await desk.reporter()
    reporter._outbox.offer_line({"id": "x", "from": "another version"})
    await until(lambda: desk.keeper.asked >= 2)
    assert reporter.figures()
    assert sum(reporter._outbox.status().dropped.values()) == 0
    desk.keeper.away = False
    await until(lambda: reporter._outbox.status().dropped)
    assert dict(reporter._outbox.status().dropped) == {"damaged": 1}
