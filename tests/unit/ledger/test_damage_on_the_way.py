"""Damage on the way: bytes that came wrong once are read again, and told in the error journal."""

from __future__ import annotations

import pytest

from lakehouse.errors import ErrorKind, LakehouseError
from lakehouse.kit.clock import SystemClock
from lakehouse.ledger.ledger import Ledger, OpenOptions, WriterInfo, open_ledger
from lakehouse.ledger.settings import LedgerSettings
from lakehouse.model.failures import FailedAttempt
from lakehouse.objectstore.buckets import Buckets, BucketSettings
from lakehouse.objectstore.metered import MeteredStore
from lakehouse.testing.clocks import SeededIds
from lakehouse.testing.simulation.machine import World, WorldMachine, add_token
from support_harm import Harming

CLOCK = SystemClock()
SETTINGS = LedgerSettings(fold_records=4, records_kept=2, inline_bytes_max=64)


class Sink:
    def __init__(self) -> None:
        self.told: list[FailedAttempt] = []

    def failed(self, attempt: FailedAttempt) -> None:
        self.told.append(attempt)


async def opened(buckets: Buckets) -> Ledger[World]:
    options = OpenOptions(settings=SETTINGS)
    writer = WriterInfo("a", "")
    return await open_ledger(
        buckets.raw("one"), WorldMachine(), writer, CLOCK, SeededIds(1), options
    )


@pytest.mark.parametrize("seed", range(6))
async def test_wrong_bytes_are_read_once_more_and_told(seed: int) -> None:
    """Records, bodies, packs, checkpoints and their parts, by the collector and the opening."""
    sink = Sink()
    buckets = Buckets(
        [BucketSettings("one", f"memory://on-the-way-{seed}")], CLOCK, SeededIds(4), sink
    )
    harming = Harming(buckets._meter("one").inner, 0.6, seed)
    buckets._meters["one"] = MeteredStore(harming)  # type: ignore[arg-type]
    ledger = await opened(buckets)
    for i in range(30):
        await ledger.commit(add_token(f"t{i}", f"{i:064d}", f"{i:064d}"))
        if i % 10 == 9:
            await ledger.collect_records()
    state = ledger.state
    await ledger.close()
    again = await opened(buckets)
    assert again.state == state
    assert (await again.commit(add_token("t3", f"{3:064d}", f"{3:064d}"))).replayed
    await again.close()
    folders = {key.split("/")[1] for key in harming.harmed}
    assert folders >= {"c", "k"}
    told = [one.key for one in sink.told if one.error_kind == "corrupt"]
    assert sorted(told) == sorted(harming.harmed)


async def test_damage_at_rest_is_read_twice_and_refused() -> None:
    sink = Sink()
    buckets = Buckets([BucketSettings("one", "memory://at-rest")], CLOCK, SeededIds(4), sink)
    ledger = await opened(buckets)
    await ledger.commit(add_token("t"))
    await ledger.close()
    store = buckets.get("one")
    newest = (await store.list("_catalog/c/"))[0].key
    await store.put(newest, b"nothing that is a record")
    with pytest.raises(LakehouseError) as caught:
        await opened(buckets)
    assert caught.value.kind is ErrorKind.CORRUPT
    assert [one.key for one in sink.told if one.error_kind == "corrupt"] == [newest, newest]
