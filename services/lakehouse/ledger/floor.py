"""The floor: slots at or below it may be gone, so a success in one of them is none.

A name used as a commit point must never count twice. Markers are only ever added, never changed;
the highest counts.
"""

from __future__ import annotations

import asyncio
from typing import Final

from lakehouse.errors import ErrorKind, LakehouseError
from lakehouse.ledger.access import Access
from lakehouse.ledger.layout import number_of

NONE = -1
PATIENCE_SECONDS: Final = (5.0, 10.0, 20.0)


async def read_floor(access: Access) -> int:
    """The highest floor, -1 for none. One LIST of one key; sent again only where no answer comes,
    for one request that hangs must not hold every commit. Raises what the store does."""
    for seconds in PATIENCE_SECONDS:
        try:
            async with asyncio.timeout(seconds):
                found = await access.store.list(access.layout.floors, limit=1)
            return number_of(found[0].key) if found else NONE
        except TimeoutError:
            continue
    raise LakehouseError(ErrorKind.TIMEOUT, "the floor of the ledger could not be read in time")


async def raise_floor(access: Access, n: int) -> None:
    """Make the floor at least ``n``: for good, also against a late writer of a lower one."""
    try:
        await access.patiently(
            lambda: access.store.put(access.layout.floor(n), b"", if_absent=True)
        )
    except LakehouseError as error:
        if error.kind is not ErrorKind.ALREADY_EXISTS:
            raise


async def drop_lower_floors(access: Access) -> None:
    """Delete the markers below the highest, which say nothing any more."""
    found = await access.list_keys(access.layout.floors)
    await access.delete(found[1:])
