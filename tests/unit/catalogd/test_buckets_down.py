"""Checking and collecting while one bucket is away: the rest goes on, nothing is guessed."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from typing import Any

import pytest

from lakehouse.contracts import catalog as c
from lakehouse.errors import ErrorKind, LakehouseError
from lakehouse.model.changes import AddFiles, PutDocument
from lakehouse.model.dataset import DatasetStatus
from lakehouse.objectstore.buckets import BucketSettings
from support_catalog import CTX, House, build_house, commit, create, file_of

Switch = Callable[[ErrorKind | None], None]


class Down:
    """A bucket of which every request fails alike."""

    def __init__(self, kind: ErrorKind) -> None:
        self._kind = kind

    def __getattr__(self, name: str) -> Any:
        async def fail(*given: Any, **named: Any) -> None:
            raise LakehouseError(self._kind, "nobody there")

        return fail


@pytest.fixture
async def house() -> AsyncIterator[House]:
    built = await build_house()
    url = built.buckets.settings("primary").url
    built.buckets.add(BucketSettings("away", f"{url}-away"))
    yield built
    await built.close()


@pytest.fixture
def away(house: House, monkeypatch: pytest.MonkeyPatch) -> Switch:
    """Let the bucket fail, or answer again."""
    get, failing = house.buckets.get, {}

    def switch(kind: ErrorKind | None) -> None:
        failing["away"] = None if kind is None else Down(kind)

    monkeypatch.setattr(house.buckets, "get", lambda name: failing.get(name) or get(name))
    return switch


async def _datasets(house: House, catalog: Any) -> dict[str, str]:
    """One dataset a bucket, whole: name -> key."""
    session = (await catalog.session(CTX, c.SessionRequest("w", "ingestd"))).session_id
    keys = {}
    for number, bucket in enumerate(("primary", "away")):
        file = replace(file_of(session, f"D{number}", "a"), bucket=bucket, stats=())
        made = create(f"D{number}", bucket, file)
        await house.buckets.get(bucket).put(file.key, b"x" * file.size_bytes)
        await commit(catalog, replace(made[0], bucket=bucket), *made[1:])
        keys[bucket] = file.key
    return keys


FAULTS = [ErrorKind.UNAVAILABLE, ErrorKind.TIMEOUT, ErrorKind.FORBIDDEN, ErrorKind.NOT_FOUND]


@pytest.mark.parametrize("kind", FAULTS)
async def test_damage_is_only_what_was_seen(house: House, away: Switch, kind: ErrorKind) -> None:
    catalog = await house.open()
    keys = await _datasets(house, catalog)
    await house.buckets.get("primary").delete([keys["primary"]])
    away(kind)
    report = await catalog.fsck(CTX, c.FsckRequest(dry_run=False))
    told = {(each.kind, each.dataset, each.key) for each in report.findings}
    assert told == {("dangling", "primary", keys["primary"]), ("unreachable", "", "away")}
    assert report.quarantined == ("primary",)
    assert (await catalog.get(CTX, c.GetRequest("away"))).dataset.status is DatasetStatus.LIVE


async def test_what_was_hidden_is_not_shown_again_unseen(house: House, away: Switch) -> None:
    catalog = await house.open()
    keys = await _datasets(house, catalog)
    store = house.buckets.get("away")
    data = await store.get(keys["away"])
    await store.delete([keys["away"]])
    assert (await catalog.fsck(CTX, c.FsckRequest(dry_run=False))).quarantined == ("away",)
    away(ErrorKind.UNAVAILABLE)
    await catalog.fsck(CTX, c.FsckRequest(dry_run=False))
    found = (await catalog.get(CTX, c.GetRequest("away"))).dataset
    assert found.status is DatasetStatus.QUARANTINED
    away(None)
    await store.put(keys["away"], data)
    await catalog.fsck(CTX, c.FsckRequest(dry_run=False))
    assert (await catalog.get(CTX, c.GetRequest("away"))).dataset.status is DatasetStatus.LIVE


async def test_the_primary_is_no_finding(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    catalog = await house.open()
    await _datasets(house, catalog)
    get = house.buckets.get
    down = Down(ErrorKind.UNAVAILABLE)
    monkeypatch.setattr(house.buckets, "get", lambda name: down if name == "primary" else get(name))
    with pytest.raises(LakehouseError) as caught:
        await catalog.fsck(CTX, c.FsckRequest())
    assert caught.value.kind is ErrorKind.UNAVAILABLE


@pytest.mark.parametrize("kind", FAULTS)
async def test_what_is_due_in_a_bucket_that_is_away_waits(
    house: House, away: Switch, kind: ErrorKind
) -> None:
    ledger = replace(house.settings.ledger, reader_retention_seconds=0.0)
    catalog = await house.open(history_seconds=0.0, ledger=ledger)
    keys = await _datasets(house, catalog)
    session = keys["primary"].split("/")[1]
    for number, bucket in enumerate(("primary", "away")):
        fresh = replace(file_of(session, f"D{number}", "b"), bucket=bucket, stats=())
        await commit(catalog, AddFiles(f"D{number}", (fresh,), replace=True))
    await catalog.session(CTX, c.SessionRequest("w", "ingestd", session, close=True))
    away(kind)
    await catalog.collect(CTX, c.PlanRequest())
    report = await catalog.collect(CTX, c.PlanRequest())
    assert report.unreachable == ("away",)
    away(None)
    assert await house.buckets.get("away").get(keys["away"])
    assert keys["primary"] not in [each.key for each in await house.store.list("datasets/")]
    assert (await catalog.collect(CTX, c.PlanRequest())).unreachable == ()
    assert await house.buckets.get("away").list("datasets/") == []


async def test_a_session_is_not_forgotten_before_every_bucket_was_looked_into(house: House) -> None:
    ledger = replace(house.settings.ledger, reader_retention_seconds=0.0)
    catalog = await house.open(ledger=ledger)
    body = '{"name": "late", "url": "memory://late"}'
    await commit(catalog, PutDocument("bucket", "late", body))
    session = (await catalog.session(CTX, c.SessionRequest("w", "ingestd"))).session_id
    await catalog.session(CTX, c.SessionRequest("w", "ingestd", session, close=True))
    url = house.buckets.settings("primary").url
    for opened in (False, True):
        await catalog.collect(CTX, c.PlanRequest())
        assert (session in catalog._core.ledger.state.ended) is not opened
        if not opened:
            house.buckets.add(BucketSettings("late", f"{url}-late"))
            lost = file_of(session, "D1", "lost").key
            await house.buckets.get("late").put(lost, b"x")
            # Given up first, then deleted; the session goes last.
            await catalog.collect(CTX, c.PlanRequest())
            await catalog.collect(CTX, c.PlanRequest())
    assert await house.buckets.get("late").list("datasets/") == []
