"""A whole catalog over a memory store, for tests of what stands upon it."""

from __future__ import annotations

from lakehouse.catalogd.service import Catalog, open_catalog
from lakehouse.catalogd.settings import CatalogSettings
from lakehouse.kit.clock import Clock, SystemClock
from lakehouse.kit.ids import Ids, SystemIds
from lakehouse.ledger.ledger import WriterInfo
from lakehouse.objectstore.buckets import Buckets, BucketSettings
from lakehouse.objectstore.identity import init_store

__all__ = ["open_memory_catalog"]


async def open_memory_catalog(
    name: str = "",
    clock: Clock | None = None,
    ids: Ids | None = None,
    settings: CatalogSettings | None = None,
) -> tuple[Catalog, Buckets]:
    """A catalog over ``memory://name`` (a fresh one by default), initialised, and its buckets.

    The caller closes both, the catalog first.
    """
    clock = clock or SystemClock()
    ids = ids or SystemIds(clock)
    name = name or f"catalog-{SystemIds(clock).ulid()}"
    buckets = Buckets((BucketSettings("primary", f"memory://{name}"),), clock, ids)
    await init_store(buckets.get("primary"), clock, ids)
    writer = WriterInfo(writer_id=ids.ulid(), endpoint="")
    catalog = await open_catalog(settings or CatalogSettings(), buckets, writer, clock, ids)
    return catalog, buckets
