"""Signs that records were lost: then the chain is not continued, for that would seal the loss."""

from __future__ import annotations

import re
from typing import Final

from lakehouse.errors import ErrorKind, LakehouseError
from lakehouse.ledger import floor
from lakehouse.ledger.access import Access
from lakehouse.ledger.options import OpenOptions
from lakehouse.ledger.record import sha256_hex

# <session>/<dataset>/<file>: what else lies in the folder may be somebody's own.
_OURS: Final = re.compile(r"[0-9A-Z]{26}/[^/]+/[0-9A-Z]{26}\.parquet")
_HINT: Final = "restore the catalog's folder from a backup of the bucket; nothing was written"


async def refuse_lost(access: Access, newest: int, options: OpenOptions) -> None:
    """Raise ``corrupt`` if the chain is empty (``newest`` is -1) but what it led to is there, and
    ``conflict`` if it ends before, or has another record than, the one that was seen."""
    if newest < 0:
        await _refuse_empty(access, options.objects)
    if options.seen is not None:
        await _refuse_older(access, newest, *options.seen)


async def _refuse_empty(access: Access, objects: str) -> None:
    layout = access.layout
    remains = await access.list_keys(f"{layout.prefix}/", limit=1)
    if not remains and objects:
        found = await access.list_keys(objects)
        remains = [key for key in found if _OURS.fullmatch(key.removeprefix(objects))]
    # Another writer may have begun the chain since it was found empty: the append will meet it.
    if remains and not await access.list_keys(layout.slots, limit=1):
        raise LakehouseError(
            ErrorKind.CORRUPT,
            "the records of the store are missing, and it is not a new one",
            missing=layout.slots,
            found=remains[0],
            url=access.store.url,
            hint=_HINT,
        )


async def _refuse_older(access: Access, newest: int, n: int, sha256: str) -> None:
    if newest >= n:
        try:
            data = await access.get(access.layout.slot(n))
        except LakehouseError as error:
            if error.kind is not ErrorKind.NOT_FOUND:
                raise
            return  # collected since
        if sha256_hex(data) == sha256:
            return
        # A late writer may have left bytes in a slot whose record is in a pack by now.
        if await access.patiently(lambda: floor.read_floor(access)) >= n:
            return
    raise LakehouseError(
        ErrorKind.CONFLICT,
        "the store is older than this machine has seen it, or another history of it",
        newest_record=newest,
        seen_record=n,
        url=access.store.url,
        hint="was the bucket rolled back or restored? what was committed since is missing: restore"
        " its newest state, or give it up with node.accept_older = true for one start",
    )
