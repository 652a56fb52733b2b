"""Bytes of a log that came wrong once are read again: no event is left out for them."""

from __future__ import annotations

import pytest

from lakehouse.appendlog.log import open_log
from lakehouse.appendlog.reading import Damage
from lakehouse.appendlog.settings import LogSettings
from lakehouse.kit.clock import SystemClock
from lakehouse.kit.ids import SystemIds
from lakehouse.objectstore.memory import MemoryStore
from lakehouse.testing.clocks import SeededIds
from support_harm import Harming

CLOCK = SystemClock()
SMALL = LogSettings(slots_kept=2, merge_fan=4, merged_batches_max=64)


@pytest.mark.parametrize("seed", range(4))
async def test_what_came_wrong_once_is_read_again(seed: int) -> None:
    store = MemoryStore(f"log-on-the-way-{seed}", CLOCK)
    log = await open_log(store, "_errors/log", "a", CLOCK, SystemIds(CLOCK), SMALL)
    for i in range(21):
        await log.append([{"i": i}])
    await log.compact()
    for i in range(21, 30):
        await log.append([{"i": i}])
    await log.close()
    harming = Harming(store, 1.0, seed)
    again = await open_log(harming, "_errors/log", "b", CLOCK, SeededIds(2), SMALL)  # type: ignore[arg-type]
    left_out: list[Damage] = []
    seen = [one.event["i"] async for one in again.scan(on_damage=left_out.append)]
    assert seen == list(range(30))
    assert not left_out
    assert {key.split("/")[2] for key in harming.harmed} == {"c", "m"}
    await again.close()
