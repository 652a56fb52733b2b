"""A log against a list: whatever is done in whatever order, a scan shows what the list has."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from datetime import datetime

from hypothesis import given, settings
from hypothesis import strategies as st

from lakehouse.appendlog.event import LogEvent
from lakehouse.appendlog.log import AppendLog, open_log
from lakehouse.appendlog.settings import LogSettings, SpoolBounds
from lakehouse.kit.clock import to_datetime
from lakehouse.objectstore.memory import MemoryStore
from lakehouse.testing.clocks import ManualClock, SeededIds

SETTINGS = LogSettings(
    batch_events_max=3,
    spool=SpoolBounds(segment_events_max=3),
    spool_seconds=0.0,
    flush_seconds=0.0,
    slots_kept=1,
    merge_fan=2,
    merged_batches_max=16,
)
PREFIX = "_audit"

# Minutes by which an event's own time is off the clock; None: the log says when.
TIMES = st.one_of(st.none(), st.integers(-30, 30))
EVENTS = st.lists(TIMES, min_size=1, max_size=7)
STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("append"), EVENTS),
        st.tuples(st.just("append"), EVENTS),
        st.tuples(st.just("offer"), EVENTS),
        st.tuples(st.just("compact"), st.none()),
        st.tuples(st.just("retain"), st.integers(0, 60)),
        st.tuples(st.just("reopen"), st.none()),
        st.tuples(st.just("clock"), st.integers(-20, 40)),
    ),
    min_size=1,
    max_size=25,
)
WINDOWS = st.lists(
    st.tuples(st.integers(-60, 300), st.integers(-60, 300), st.booleans()), max_size=4
)


class EagerClock(ManualClock):
    """Nobody waits for long: a sleep moves the time on by itself."""

    async def sleep(self, seconds: float) -> None:
        self._monotonic_us += max(1, round(seconds * 1e6))
        self._now_us += max(1, round(seconds * 1e6))
        await asyncio.sleep(0)


@dataclass
class Model:
    clock: EagerClock
    store: MemoryStore
    ids: SeededIds
    start_us: int
    log: AppendLog
    events: list[LogEvent] = field(default_factory=list)
    number: int = 0

    def make(self, times: list[int | None]) -> list[dict[str, object]]:
        made: list[dict[str, object]] = []
        for minutes in times:
            event: dict[str, object] = {"i": self.number}
            self.number += 1
            if minutes is not None:
                event["at"] = to_datetime(self.clock.now_us() + minutes * 60_000_000)
            made.append(event)
        return made

    async def opened(self) -> AppendLog:
        return await open_log(self.store, PREFIX, "model", self.clock, self.ids, SETTINGS)

    async def step(self, name: str, value: object) -> None:
        if name == "append":
            await self.log.append(self.make(value))  # type: ignore[arg-type]
        elif name == "offer":
            self.log.offer(self.make(value))  # type: ignore[arg-type]
            await self.log.flush()
        elif name == "compact":
            await self.log.compact()
        elif name == "clock":
            self.clock.jump(60 * value)  # type: ignore[operator]
        elif name == "reopen":
            await self.log.close()
            self.log = await self.opened()
        elif name == "retain":
            before = to_datetime(self.clock.now_us() - 60_000_000 * value)  # type: ignore[operator]
            await self.log.retain(before)

    async def check(self, retained: bool) -> None:
        """The log is the model's events; or, after retention, the last of them."""
        self.events = [one async for one in self.log.scan()]
        numbers = [one.event["i"] for one in self.events]
        expected = list(range(self.number))
        assert numbers == (expected[len(expected) - len(numbers) :] if retained else expected)
        assert [one async for one in self.log.scan(newest_first=True)] == self.events[::-1]


async def _play(steps: list[tuple[str, object]], windows: list[tuple[int, int, bool]]) -> None:
    clock, ids = EagerClock(), SeededIds(1)
    store = MemoryStore("model", clock)
    start_us = clock.now_us()
    log = await open_log(store, PREFIX, "model", clock, ids, SETTINGS)
    model = Model(clock, store, ids, start_us, log)
    retained = False
    for name, value in steps:
        retained |= name == "retain"
        await model.step(name, value)
    await model.check(retained)
    for since, until, newest_first in windows:
        times = [to_datetime(start_us + minutes * 60_000_000) for minutes in (since, until)]
        found = [one async for one in model.log.scan(*times, newest_first=newest_first)]
        assert found == _inside(model.events, times[0], times[1])[:: -1 if newest_first else 1]
    for place in (0, len(model.events) // 2):
        if model.events:
            seq = model.events[place].seq
            after = [one async for one in model.log.scan(after_seq=seq)]
            assert after == model.events[place + 1 :]
            before = [one async for one in model.log.scan(before_seq=seq)]
            assert before == model.events[:place]
    await model.log.close()


def _inside(events: list[LogEvent], since: datetime, until: datetime) -> list[LogEvent]:
    return [one for one in events if since <= datetime.fromisoformat(one.event["at"]) < until]


@settings(max_examples=150, deadline=None)
@given(STEPS, WINDOWS)
def test_a_log_is_a_list(
    steps: list[tuple[str, object]], windows: list[tuple[int, int, bool]]
) -> None:
    asyncio.run(_play(steps, windows))
