"""A process that changes rows, one call after another, until it is killed.

``rows_worker.py BUCKET_URL SCRATCH FIRST LAST``: opens the store, makes the calls FIRST to LAST,
each with its number as the idempotency key, and says ``NUMBER VERSION`` once one was answered.
"""

from __future__ import annotations

import asyncio
import json
import random
import sys
from pathlib import Path
from typing import Any

from lakehouse.catalogd.service import open_catalog
from lakehouse.catalogd.settings import CatalogSettings
from lakehouse.contracts.catalog import PlanRequest
from lakehouse.contracts.ingest import IngestMode, IngestOptions, IngestRequest
from lakehouse.contracts.rows import ChangeRowsRequest, CompactRequest, RowChange
from lakehouse.ingestd.rows.service import Rows
from lakehouse.ingestd.service import Ingest
from lakehouse.ingestd.settings import IngestSettings
from lakehouse.kit.clock import SystemClock
from lakehouse.kit.ids import SystemIds
from lakehouse.ledger.ledger import WriterInfo
from lakehouse.model.identity import ANONYMOUS_OPERATOR, Context
from lakehouse.objectstore.buckets import Buckets, BucketSettings

CLOCK = SystemClock()
IDS = SystemIds(CLOCK)
JSON = IngestOptions(content_type="application/json")
NAME = "people"
KEYS = range(20)


def call(number: int) -> tuple[str, Any]:
    """What call ``number`` does: the same whoever asks."""
    chance = random.Random(number)
    if number == 0:
        return "create", [{"id": key, "n": 0} for key in KEYS]
    kind = chance.choices(["upsert", "delete", "compact", "collect"], [10, 4, 2, 1])[0]
    keys = chance.sample(KEYS, chance.randint(1, 4))
    return kind, [{"id": key, "n": number} for key in keys] if kind == "upsert" else keys


def played(last: int) -> dict[int, int]:
    """What the calls up to ``last`` come to: ``n`` by ``id``."""
    rows: dict[int, int] = {}
    for number in range(last + 1):
        kind, body = call(number)
        if kind in ("create", "upsert"):
            rows |= {row["id"]: row["n"] for row in body}
        if kind == "delete":
            rows = {key: n for key, n in rows.items() if key not in body}
    return rows


async def chunks(data: bytes) -> Any:
    yield data


async def opened(url: str, scratch: Path) -> tuple[Any, Ingest]:
    """The catalog and the ingest service of a process of its own."""
    buckets = Buckets([BucketSettings("primary", url)], CLOCK, IDS)
    writer = WriterInfo(IDS.ulid(), "")
    catalog = await open_catalog(CatalogSettings(), buckets, writer, CLOCK, IDS)
    settings = IngestSettings(spool_dir=str(scratch), threads=1, concurrent_max=1)
    ingest = Ingest(settings, catalog, buckets, CLOCK, IDS)
    await ingest.start()
    return catalog, ingest


async def main(url: str, scratch: Path, first: int, last: int) -> None:
    catalog, ingest = await opened(url, scratch)
    rows = Rows(ingest.parts)
    print("open", flush=True)
    for number in range(first, last + 1):
        ctx = Context(ANONYMOUS_OPERATOR, f"r-{number}", idempotency_key=str(number))
        kind, body = call(number)
        data = json.dumps(body).encode()
        version = 0
        if kind == "create":
            request = IngestRequest(NAME, IngestMode.CREATE, ("id",), JSON)
            version = (await ingest.ingest(ctx, request, chunks(data))).version
        elif kind == "compact":
            report = await rows.compact(ctx, CompactRequest(NAME, full=number % 2 == 0))
            version = report.version
        elif kind == "collect":
            await catalog.collect(ctx, PlanRequest())
        else:
            change = ChangeRowsRequest(NAME, RowChange(kind), data, JSON)
            version = (await rows.change(ctx, change)).version
        print(number, version, flush=True)


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], Path(sys.argv[2]), int(sys.argv[3]), int(sys.argv[4])))
