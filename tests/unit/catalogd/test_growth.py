"""No request costs more because there are more datasets: neither requests nor work."""

from __future__ import annotations

import gc
import time
from collections.abc import Awaitable, Callable, Iterator

from lakehouse.catalogd.service import Catalog
from lakehouse.contracts import catalog as c
from lakehouse.ledger.settings import LedgerSettings
from lakehouse.model.changes import PutDocument
from support_catalog import (
    CARD,
    CTX,
    House,
    build_house,
    commit,
    create,
    file_of,
    parquet_bytes,
    put_parquet,
)

SIZES = (10, 1_000, 10_000)
STEP = 2_000
REPEATS = 15
RATIO, SLACK_SECONDS = 2.0, 0.001
# Folds and the watch for a take-over come when they come: kept out of what is counted here.
QUIET = LedgerSettings(
    fold_records=1_000_000, unfolded_records_max=2_000_000, fence_check_seconds=3600.0
)

Call = Callable[[], Awaitable[object]]


async def filled(house: House, datasets: int) -> tuple[Catalog, str]:
    catalog = await house.open(ledger=QUIET, collect_seconds=0)
    session_id = (await catalog.session(CTX, c.SessionRequest("w", "r"))).session_id
    for start in range(0, datasets, STEP):
        some = range(start, min(start + STEP, datasets))
        changes = [each for at in some for each in create(f"D{at}", f"set {at}")]
        changes += [PutDocument("note", f"n{at}", "{}") for at in some]
        await commit(catalog, *changes)
    return catalog, session_id


async def calls_of(house: House, catalog: Catalog, session_id: str) -> dict[str, Iterator[Call]]:
    """Each kind of call, as often as one likes."""
    ref = await put_parquet(house, "raw/a.parquet", parquet_bytes())

    def committed() -> Iterator[Call]:
        for at in range(REPEATS):
            new = create(f"N{at}", f"new {at}", file_of(session_id, f"N{at}", "a"))
            yield lambda new=new: commit(catalog, *new)  # type: ignore[misc]

    def registered() -> Iterator[Call]:
        for at in range(REPEATS):
            request = c.RegisterRequest(f"reg {at}", (ref,), CARD)
            yield lambda request=request: catalog.register(CTX, request)  # type: ignore[misc]

    def read(method: str, request: object) -> Iterator[Call]:
        return iter([lambda: getattr(catalog, method)(CTX, request)] * REPEATS)

    return {
        "commit": committed(),
        "register": registered(),
        "get": read("get", c.GetRequest("set 5")),
        "snapshot": read("snapshot", c.SnapshotRequest(("set 5", "set 7"))),
        "documents": read("documents", c.DocumentsRequest("note", "n3")),
        "versions": read("versions", c.PageRequest("set 5")),
        "page": read("list", c.ListRequest(limit=10)),
        "status": read("status", c.StatusRequest()),
    }


async def cost(house: House, calls: Iterator[Call]) -> tuple[int, float]:
    """(requests of one call, seconds of CPU of the cheapest call)"""
    requests: set[int] = set()
    seconds: list[float] = []
    for call in calls:
        before = sum(house.buckets.footprint("primary").requests.values())
        started = time.thread_time()
        await call()
        seconds.append(time.thread_time() - started)
        requests.add(sum(house.buckets.footprint("primary").requests.values()) - before)
    assert len(requests) == 1
    return requests.pop(), min(seconds)


async def test_no_call_costs_more_where_there_are_more_datasets() -> None:
    found: dict[str, list[tuple[int, float]]] = {}
    for datasets in SIZES:
        house = await build_house()
        catalog, session_id = await filled(house, datasets)
        gc.collect()
        for name, calls in (await calls_of(house, catalog, session_id)).items():
            found.setdefault(name, []).append(await cost(house, calls))
        await house.close()
    for name, costs in found.items():
        few, *more = costs
        for each in more:
            assert each[0] == few[0], f"{name}: requests {costs}"
            assert each[1] <= few[1] * RATIO + SLACK_SECONDS, f"{name}: seconds {costs}"


async def test_the_harness_would_see_it() -> None:
    """A call that does look at every dataset is told apart."""
    seconds: list[float] = []
    for datasets in (10, 2_000):
        house = await build_house()
        catalog, _ = await filled(house, datasets)
        request = c.ListRequest(query="no such name")
        calls = [lambda: catalog.list(CTX, request)] * 5  # noqa: B023
        seconds.append((await cost(house, iter(calls)))[1])
        await house.close()
    assert seconds[1] > 5 * seconds[0]
