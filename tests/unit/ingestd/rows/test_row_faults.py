"""Row changes over a bucket that fails: all of a batch or nothing, and never twice."""

from __future__ import annotations

import asyncio
import json
from dataclasses import replace

import pytest

from lakehouse.contracts import catalog as c
from lakehouse.contracts.ingest import IngestOptions, SourceFormat
from lakehouse.contracts.rows import ChangeRowsReport, ChangeRowsRequest, RowChange
from lakehouse.errors import ErrorKind, LakehouseError
from lakehouse.ingestd.rows.service import Rows
from lakehouse.model.identity import Context
from lakehouse.objectstore.port import ObjectStore
from lakehouse.testing.stores import Fault, FaultRates, FaultStore
from support_ingest import CTX, Lake, MakeLake

PEOPLE = b"id,n\n" + b"".join(b"%d,0\n" % at for at in range(20))


async def change(lake: Lake, rows: list[dict[str, int]], ctx: Context = CTX) -> ChangeRowsReport:
    options = IngestOptions(format=SourceFormat.JSON)
    body = json.dumps(rows).encode()
    request = ChangeRowsRequest("people", RowChange.UPSERT, body, options)
    return await Rows(lake.ingest.parts).change(ctx, request)


async def now(lake: Lake) -> dict[int, int]:
    reader = lake.ingest.parts.reader
    snapshot, _ = await reader.snapshot(CTX, "people")
    table = await reader.read(snapshot)
    assert table.num_rows == snapshot.dataset.row_count
    return dict(zip(table["id"].to_pylist(), table["n"].to_pylist(), strict=True))


async def faulty(make_lake: MakeLake, seed: int = 0) -> tuple[Lake, FaultStore]:
    stores: list[FaultStore] = []

    def wrap(store: ObjectStore) -> ObjectStore:
        stores.append(FaultStore(store, seed))
        return stores[0]

    lake = await make_lake(wrap=wrap)
    await lake.put(PEOPLE, "people", key=("id",))
    return lake, stores[0]


@pytest.mark.parametrize("seed", range(4))
async def test_all_or_nothing_whatever_fails(make_lake: MakeLake, seed: int) -> None:
    print(f"seed {seed}")
    lake, store = await faulty(make_lake, seed)
    model = await now(lake)
    store._rates = FaultRates(before=0.15, after=0.15)
    for at in range(1, 9):
        rows = [{"id": at, "n": at}, {"id": 100 + at, "n": at}]
        ctx = replace(CTX, idempotency_key=f"k-{at}")
        for _ in range(60):
            try:
                await change(lake, rows, ctx)
                break
            except LakehouseError as error:
                if not error.retryable:
                    raise
        model |= {at: at, 100 + at: at}
    store._rates = FaultRates()
    assert await now(lake) == model
    told = (await lake.catalog.versions(CTX, c.PageRequest("people"))).versions
    assert [one.operation for one in told].count("upsert") == 8, "a batch was applied twice"


async def test_an_object_that_cannot_be_put_is_a_known_failure(make_lake: MakeLake) -> None:
    lake, store = await faulty(make_lake)
    before = await now(lake)
    for _ in range(40):
        store.inject("put", Fault.BEFORE)
    with pytest.raises(LakehouseError) as caught:
        await change(lake, [{"id": 1, "n": 5}])
    assert caught.value.kind is ErrorKind.UNAVAILABLE
    assert "nothing was committed" in caught.value.message
    await store.settle()
    store._queued.clear()
    assert await now(lake) == before


async def test_a_session_that_ended_is_replaced_and_the_objects_written_again(lake: Lake) -> None:
    await lake.put(PEOPLE, "people", key=("id",))
    sessions = lake.ingest.parts.sessions
    async with sessions.writing() as session_id:
        await lake.catalog.session(CTX, c.SessionRequest("x", "ingestd", session_id, close=True))
    report = await change(lake, [{"id": 1, "n": 5}, {"id": 99, "n": 5}])
    assert (report.inserted, report.updated) == (1, 1)
    assert (await now(lake))[1] == 5


async def test_a_deadline_that_passed_commits_nothing(lake: Lake) -> None:
    await lake.put(PEOPLE, "people", key=("id",))
    past = replace(CTX, deadline=lake.ingest.parts.clock.monotonic() - 1)
    with pytest.raises(LakehouseError) as caught:
        await change(lake, [{"id": 1, "n": 5}], past)
    assert caught.value.kind is ErrorKind.TIMEOUT
    assert (await now(lake))[1] == 0


async def test_a_caller_that_goes_away_leaves_nothing_half_done(lake: Lake) -> None:
    await lake.put(PEOPLE, "people", key=("id",))
    for at in range(12):
        task = asyncio.create_task(change(lake, [{"id": 1, "n": at}, {"id": 200 + at, "n": at}]))
        await asyncio.sleep(0.002 * at)
        task.cancel()
        await asyncio.wait([task])
    # Whatever was committed, was so with its events, and the next writer has its turn.
    await change(lake, [{"id": 1, "n": 77}])
    assert (await now(lake))[1] == 77
    assert lake.ingest.parts.turns._locks == {}
