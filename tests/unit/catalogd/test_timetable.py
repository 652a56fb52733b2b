"""Collection by itself: what the dead left behind goes, what lives stays, no bucket is listed."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable

import pytest

from lakehouse.catalogd.settings import CatalogSettings
from lakehouse.contracts import catalog as c
from lakehouse.model.dataset import DataFile
from lakehouse.objectstore.wrapping import ForwardingStore
from lakehouse.testing.clocks import ManualClock
from lakehouse.testing.stores import RecordingStore
from support_catalog import CTX, House, build_house, commit, create, file_of

HOUR = 3600.0


@pytest.fixture
async def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture
async def house(clock: ManualClock) -> AsyncIterator[House]:
    built = await build_house(clock)
    yield built
    await built.close()


async def written(house: House, session_id: str, dataset_id: str, name: str) -> DataFile:
    file = file_of(session_id, dataset_id, name)
    await house.store.put(file.key, b"x" * file.size_bytes)
    return file


async def until(clock: ManualClock, seconds: float, done: Callable[[], bool]) -> None:
    """Let time pass until it is so."""
    for _ in range(200):
        if done():
            return
        await clock.advance(seconds / 200)
    assert done()


def present(house: House, key: str) -> bool:
    memory = house.buckets.raw("primary")
    while isinstance(memory, ForwardingStore):
        memory = memory.inner
    return key in memory._objects  # type: ignore[attr-defined]


async def test_what_a_killed_ingest_wrote_goes_and_what_lives_stays(
    house: House, clock: ManualClock
) -> None:
    meter = house.buckets._meters["primary"]
    log = RecordingStore(meter.inner)
    meter.inner = log
    catalog = await house.open()
    opened = await catalog.session(CTX, c.SessionRequest("killed", "ingestd"))
    live = await written(house, opened.session_id, "D1", "live")
    lost = await written(house, opened.session_id, "D1", "lost")
    await commit(catalog, *create("D1", "t", live))
    other = await catalog.session(CTX, c.SessionRequest("at work", "ingestd"))
    busy = await written(house, other.session_id, "D1", "busy")
    log.reset()

    # The killed one is heard of no more; the other one is, every ten seconds.
    async def beat(seconds: float) -> None:
        for _ in range(int(seconds / 50)):
            await clock.advance(50)
            await catalog.session(CTX, c.SessionRequest("at work", "ingestd", other.session_id))

    await beat(2 * HOUR + 200)
    state = catalog._core.ledger.state
    assert opened.session_id not in state.objects.sessions
    assert lost.key in state.objects.condemned or not present(house, lost.key)
    await beat(2 * HOUR)
    assert not present(house, lost.key)
    assert present(house, live.key)
    assert present(house, busy.key)
    await commit(catalog, *create("D2", "late", busy))
    assert (await catalog.get(CTX, c.GetRequest("t"))).dataset.files == 1
    listed = {entry[1] for entry in log.log if entry[0] == "list"}
    ours = (f"{folder}{opened.session_id}/" for folder in ("datasets/", "_vectors/"))
    folders = ("_catalog/", *ours)
    assert listed
    assert all(prefix.startswith(folders) for prefix in listed), listed


async def test_it_can_be_turned_off(house: House, clock: ManualClock) -> None:
    catalog = await house.open(collect_seconds=0)
    opened = await catalog.session(CTX, c.SessionRequest("killed", "ingestd"))
    lost = await written(house, opened.session_id, "D1", "lost")
    await clock.advance(3 * HOUR)
    assert present(house, lost.key)


async def test_a_failure_is_tried_again_and_stops_no_commit(
    house: House, clock: ManualClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    catalog = await house.open()
    opened = await catalog.session(CTX, c.SessionRequest("killed", "ingestd"))
    lost = await written(house, opened.session_id, "D1", "lost")
    tries: list[int] = []
    monkeypatch.setattr(house.buckets, "names", lambda: tries.append(1) or ("nowhere",))
    await clock.advance(HOUR + 1)
    await until(clock, HOUR, lambda: len(tries) > 1)
    await commit(catalog, *create("D1", "t"))
    monkeypatch.undo()
    await until(clock, 4 * HOUR, lambda: not present(house, lost.key))


async def test_an_hour_is_the_default() -> None:
    assert CatalogSettings().collect_seconds == HOUR
